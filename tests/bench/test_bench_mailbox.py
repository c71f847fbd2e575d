"""`ring bench mailbox`: what is stored and fetched is counted, and whatever goes wrong is found."""

import json
from itertools import chain
from typing import Any

import pytest

from ring.bench import live as live_module
from ring.bench.dialect import RingDialect
from ring.bench.edge import Edge
from ring.bench.ledger import FAULTS
from ring.bench.stage import Stage
from ring.bench.stored import StoredLedger
from ring.bench.storm import CannotConnect
from ring.bench.watch import Watched
from ring.cli.main import main
from tests.bench.keeper import keeper

Output = pytest.CaptureFixture[str]

MAILBOXES, COMING, DEEP, WARM = 40, 20, 110, 1
SMALL = ("--mailboxes", f"{MAILBOXES}", "--connections", f"{COMING}", "--senders", "4", "--runs", "1")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come is given up soon."""
    monkeypatch.setattr("ring.bench.fill.LOST_WITH_RECEIPT_S", 0.3)
    monkeypatch.setattr("ring.bench.fill._SWEEP_S", 0.05)
    monkeypatch.setattr("ring.bench.visit.CONNECT_S", 0.4)
    monkeypatch.setattr("ring.bench.visit._LOOK_S", 0.05)
    monkeypatch.setattr("ring.bench.mailbox.SETTLE_S", 0.05)


def measured(output: Output, address: str, *arguments: str, live: str = "0") -> tuple[int, dict[str, Any]]:
    """The exit code, and the one run."""
    code = main(["bench", "mailbox", "--edge", address, *SMALL, "--live", live, "--json", *arguments])
    said = output.readouterr()
    assert said.out, said.err
    document = json.loads(said.out)
    assert document["ok"] == (code == 0)
    (run,) = document["runs"]
    return code, run


def faults(run: dict[str, Any]) -> dict[str, int]:
    """What a run found, by name."""
    counts: dict[str, int] = run["counts"]
    errors: dict[str, int] = run["errors"]
    return {name: counts[name] for name in FAULTS if counts[name]} | errors


@pytest.mark.parametrize(
    ("how", "due"), [("--empty", MAILBOXES + DEEP + WARM), ("--leave", MAILBOXES + DEEP)]
)
def test_a_cluster_without_fault(capsys: Output, monkeypatch: pytest.MonkeyPatch, how: str, due: int) -> None:
    """Everything is stored, and fetched once: by all, or by a part of the others."""
    if how == "--leave":
        monkeypatch.setattr("ring.bench.mailbox.CHECKED", 5)
        due -= MAILBOXES - COMING - 5
    with keeper() as address:
        code, run = measured(capsys, address, how, "--messages", "1")
    assert (code, faults(run)) == (0, {})
    assert run["done"] == COMING
    assert run["counts"]["sent"] == run["counts"]["delivered"] == due
    assert run["figures"]["stored"] == MAILBOXES
    assert run["figures"]["stored_per_s"] > 0
    assert run["figures"]["storm_s"] == run["seconds"]
    assert set(run["latency_ms"]) == {"welcome", "served", "stored_receipt"}
    assert 0 < run["latency_ms"]["welcome"]["p50"] <= run["latency_ms"]["served"]["p50"]


def test_several_messages_in_a_mailbox(capsys: Output) -> None:
    """A user is served when it has all of them."""
    with keeper() as address:
        code, run = measured(capsys, address, "--empty", "--messages", "3")
    assert (code, faults(run)) == (0, {})
    assert run["done"] == COMING
    assert run["figures"]["stored"] == 3 * MAILBOXES
    assert run["counts"]["delivered"] == 3 * MAILBOXES + DEEP + WARM


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("refused", {"offline": 1}),
        ("false promise", {"delivered_to_nobody": 1}),
        ("unanswered", {"unanswered": 1}),
        ("answered_twice", {"answered_twice": 1}),
        ("forgotten", {"lost": 1}),
        ("written to", {"strangers": 1}),
        ("doubled", {"doubled": 1}),
        ("stranger", {"strangers": 1}),
        ("reordered", {"reordered": 1}),
        ("welcomed_twice", {"welcomed_twice": 1}),
        ("complained", {"internal": 1}),
        ("not removed", {"doubled": COMING}),
    ],
)
def test_faults(capsys: Output, fault: str, found: dict[str, int]) -> None:
    """Each is counted under its name, and the exit code is 1."""
    with keeper(fault) as address:
        code, run = measured(capsys, address, "--empty")
    assert (code, faults(run)) == (1, found)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("lost", {"lost": 1}),
        ("misrouted", {"lost": 1, "misrouted": 1}),
        ("cut off", {"lost": 1, "close_1011": 1}),
    ],
)
def test_what_comes_when_they_connect_again(capsys: Output, fault: str, found: dict[str, int]) -> None:
    """Is lost all the same: who was there should have had it."""
    with keeper(fault) as address:
        code, run = measured(capsys, address, "--empty")
    assert (code, faults(run)) == (1, found)
    assert run["counts"]["late"] == 1
    assert run["done"] == COMING - 1


def test_a_sender_that_is_cut_off(capsys: Output) -> None:
    """Nothing can be measured, and one line says why."""
    with keeper("cut") as address:
        assert main(["bench", "mailbox", "--edge", address, *SMALL, "--live", "0"]) == 3
    assert "cut off: close_1011" in capsys.readouterr().err


@pytest.mark.parametrize("enough", [10, 1000])
def test_a_cluster_that_stores_nothing(capsys: Output, monkeypatch: pytest.MonkeyPatch, enough: int) -> None:
    """Is found soon, and said: there is nothing to measure."""
    monkeypatch.setattr("ring.bench.fill.ENOUGH", enough)
    monkeypatch.setattr("ring.bench.mailbox._WARM_UP", 2.0)
    with keeper("stores nothing") as address:
        assert main(["bench", "mailbox", "--edge", address, *SMALL, "--live", "0"]) == 1
    assert "no message is stored for users who are not there: offline (" in capsys.readouterr().err


def test_users_who_are_not_welcomed(capsys: Output) -> None:
    """They are given up, and what is theirs is lost."""
    with keeper("unwelcome in the storm") as address:
        code, run = measured(capsys, address, "--leave")
    tries = 2 * COMING + MAILBOXES - COMING + 2  # the first twice, and one mailbox of each depth
    assert (code, faults(run)) == (1, {"lost": MAILBOXES + DEEP, "not_welcomed": tries, "busy": tries})
    assert run["done"] == 0


class TestLive:
    """Messages between others, from a process of their own."""

    def test_they_go_on(self, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before the storm and meanwhile: their receipts are timed apart."""
        monkeypatch.setattr("ring.bench.mailbox.LIVE_BEFORE_S", 0.3)
        with keeper() as address:
            code, run = measured(capsys, address, "--leave", live="200")
        assert (code, faults(run)) == (0, {})
        for part in ("live_before", "live_in_the_storm"):
            assert run["latency_ms"][part]["max"] > 0

    @pytest.mark.parametrize("fault", ["closed", "unwelcome"])
    def test_they_are_not_let_in(self, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
        """It is said in one line."""
        with keeper(fault) as address:
            stage = Stage(RingDialect(receipts=True), lambda _user: Edge.parse(address), lambda: None)
            monkeypatch.setattr(live_module, "_START_S", 30.0 if fault == "closed" else 0.5)
            with (
                pytest.raises(CannotConnect, match="http_503" if fault == "closed" else "hangs"),
                live_module.live(stage, rate=10, size=50, parts=1),
            ):
                pass

    def test_their_faults_are_the_run_s(self, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        """They may not suffer from a storm."""
        monkeypatch.setattr("ring.bench.mailbox.LIVE_BEFORE_S", 0.3)
        with keeper("live doubled") as address:
            code, run = measured(capsys, address, "--leave", live="200")
        assert (code, faults(run)) == (1, {"doubled": 1})

    def test_the_process_ends(self) -> None:
        """If it does before its time, that is said."""
        with keeper() as address:
            stage = Stage(RingDialect(receipts=True), lambda _user: Edge.parse(address), lambda: None)
            with live_module.live(stage, rate=10, size=50, parts=2) as flow:
                flow._process.kill()
                flow._process.wait()
                with pytest.raises(CannotConnect, match="has ended"):
                    flow.next()


class TestStoredLedger:
    def test_all_of_a_mailbox_have_one_sender(self) -> None:
        """And each message has one, whatever the numbers: order is promised from one sender to one user."""
        ledger = StoredLedger()
        ledger.add(3, 1)
        for mailboxes, messages in ((7, 1), (5, 4), (2, 3)):
            shelf = ledger.add(mailboxes, messages)
            parts = [list(shelf.numbers(part, 3)) for part in range(3)]
            assert sorted(chain(*parts)) == list(range(shelf.first, shelf.end))
            for part, numbers in enumerate(parts):
                assert numbers == sorted(numbers)
                assert {shelf.part(number, 3) for number in numbers} <= {part}
                assert {shelf.user(number) for number in numbers} <= set(shelf.users[part::3])

    def test_a_receipt_that_comes_late(self) -> None:
        """Was missing all the same; but what it says is so."""
        ledger = StoredLedger()
        ledger.add(2, 1)
        ledger.send(0, 100)
        ledger.send(1, 200)
        assert ledger.give_up(150) == [0]
        assert ledger.open == 1
        assert not ledger.answer(0, "queued", 300)
        assert (ledger.tally.unanswered, ledger.due(0), ledger.stored, len(ledger.receipt_ns)) == (1, 1, 1, 0)
        assert ledger.answer(1, "queued", 300)
        assert list(ledger.receipt_ns) == [100]

    def test_what_was_refused_may_come(self) -> None:
        """It was not due, and is no fault; twice is."""
        ledger = StoredLedger()
        ledger.add(1, 1)
        ledger.send(0, 0)
        ledger.answer(0, "busy", 1)
        assert ledger.refused == 1
        assert not ledger.arrive(0, 0)
        assert not ledger.arrive(0, 0)
        ledger.close([0])
        tally = ledger.tally
        assert (tally.late, tally.doubled, tally.lost, tally.sent, tally.delivered) == (1, 1, 0, 0, 0)

    def test_what_nobody_sent(self) -> None:
        """Has no number, or one that was not used."""
        ledger = StoredLedger()
        ledger.add(2, 1)
        for number in (-1, 0, 2):
            assert not ledger.arrive(number, 0)
            assert not ledger.answer(number, "queued", 0)
        assert ledger.tally.strangers == 6


class TestWatched:
    def test_the_oldest_lease_counts(self) -> None:
        """Of all members at all times, by Redis' clock; a change of the ring shows."""
        watched = Watched()
        watched.look(10_000, 3000, [], 5)
        assert watched.lease_age_s == 0
        watched.look(10_000, 3000, [12_900, 11_500], 5)
        watched.look(11_000, 3000, [13_900, 13_500], 5)
        assert (watched.lease_age_s, watched.epochs, watched.looks) == (1.5, [5], 3)
        watched.look(12_000, 3000, [14_000], 6)
        assert watched.epochs == [5, 6]
