"""`ring bench` against a server that errs: everything it does wrong is found, and the exit code is 1."""

import json
from typing import Any

import pytest

from ring.bench.ledger import FAULTS
from ring.cli.main import main
from tests.bench.relay import relay

Output = pytest.CaptureFixture[str]

DIRECT = ("direct", "--clients", "4", "--senders", "2", "--in-flight", "2", "--messages", "60", "--runs", "1")
ROOMS = ("rooms", "--members", "3", "--publishes", "20", "--runs", "1")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost is lost soon."""
    for name in ("direct.LOST_S", "direct.LOST_WITH_RECEIPT_S", "rooms.LOST_S"):
        monkeypatch.setattr(f"ring.bench.{name}", 0.3)
    for name in ("direct", "rooms"):
        monkeypatch.setattr(f"ring.bench.{name}._SWEEP_S", 0.05)
    monkeypatch.setattr("ring.bench.storm.SETTLE_S", 0.1)


def measured(output: Output, address: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `ring bench`, and its one run."""
    code = main(["bench", *arguments, "--edge", address, "--json"])
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


@pytest.mark.parametrize("how", ["--receipts", "--no-receipts"])
@pytest.mark.parametrize("loop", [(), ("--mode", "open", "--rate", "1000")])
def test_a_server_without_fault(capsys: Output, how: str, loop: tuple[str, ...]) -> None:
    """Everything is delivered once, and the exit code is 0."""
    with relay() as address:
        code, run = measured(capsys, address, *DIRECT, how, *loop)
    assert (code, faults(run)) == (0, {})
    assert run["counts"]["sent"] == run["counts"]["delivered"] == run["done"] == 60
    assert ("receipt" in run["latency_ms"]) == (how == "--receipts")
    assert run["latency_ms"]["one_way"]["max"] > 0


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("lost", {"lost": 1}),
        ("doubled", {"doubled": 1}),
        ("misrouted", {"lost": 1, "misrouted": 1}),
        ("reordered", {"reordered": 1}),
        ("stranger", {"strangers": 1}),
        ("garbage", {"unreadable_frame": 1}),
    ],
)
@pytest.mark.parametrize("how", ["--receipts", "--no-receipts"])
def test_direct_messages(capsys: Output, fault: str, found: dict[str, int], how: str) -> None:
    """A fault is counted under its name, with and without receipts."""
    with relay(fault) as address:
        code, run = measured(capsys, address, *DIRECT, how)
    assert (code, faults(run)) == (1, found)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("unanswered", {"unanswered": 1}),
        ("answered_twice", {"answered_twice": 1}),
        ("refused", {"offline": 1}),
    ],
)
def test_receipts(capsys: Output, fault: str, found: dict[str, int]) -> None:
    """One each; a message that the server says has failed is an error, not a loss."""
    with relay(fault) as address:
        code, run = measured(capsys, address, *DIRECT)
    assert (code, faults(run)) == (1, found)


def test_a_connection_that_is_cut(capsys: Output) -> None:
    """It is told by its close code, and what was for it is lost."""
    with relay("cut") as address:
        code, run = measured(capsys, address, *DIRECT, "--no-receipts")
    assert code == 1
    assert run["errors"]["close_1011"] == 1
    assert run["counts"]["lost"] >= 1


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("", {}),
        ("lost", {"lost": 1}),
        ("doubled", {"doubled": 1}),
        ("misrouted", {"lost": 1, "doubled": 1}),  # the other one is a member too
        ("reordered", {"reordered": 1}),
        ("stranger", {"strangers": 1}),
    ],
)
@pytest.mark.parametrize("loop", [(), ("--mode", "open", "--rate", "200", "--publishers", "2")])
def test_rooms(capsys: Output, fault: str, found: dict[str, int], loop: tuple[str, ...]) -> None:
    """Each member's copy counts once, and all see one order."""
    faults_planted = (fault,) if fault else ()
    with relay(*faults_planted) as address:
        code, run = measured(capsys, address, *ROOMS, *loop)
    if fault == "misrouted":  # it reaches a member, or one of the publishers
        assert code == 1
        assert run["counts"]["lost"] == 1
        assert run["counts"]["doubled"] + run["counts"]["misrouted"] == 1
    else:
        assert (code, faults(run)) == (1 if found else 0, found)
    assert run["counts"]["sent"] == 60


def test_a_room_that_nobody_may_join(capsys: Output) -> None:
    """Nothing can be measured: one line says why, and the exit code says that nobody was reached."""
    with relay("no rooms") as address:
        assert main(["bench", *ROOMS, "--edge", address]) == 3
    assert "3 of 3 cannot join the room: forbidden" in capsys.readouterr().err


@pytest.mark.parametrize("load", ["storm", "idle"])
def test_refused_connections(capsys: Output, load: str) -> None:
    """A storm counts them, by status."""
    more = ("--hold-s", "0.1") if load == "idle" else ("--rate", "1000")
    with relay("closed") as address:
        code = main(["bench", load, "--edge", address, "--connections", "5", "--runs", "1", "--json", *more])
    said = capsys.readouterr()
    if load == "storm":
        assert (code, json.loads(said.out)["runs"][0]["errors"]) == (1, {"http_503": 5})
    else:
        assert code == 3
        assert "cannot connect: http_503 (1)" in said.err


@pytest.mark.parametrize("rate", [(), ("--rate", "1000")])
def test_clients_that_are_never_welcomed(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, rate: tuple[str, ...]
) -> None:
    """They are given up, and counted; to wait for them costs the load nothing."""
    monkeypatch.setattr("ring.bench.storm.CONNECT_S", 0.2)
    with relay("unwelcome") as address:
        code, run = measured(capsys, address, "storm", "--connections", "3", "--runs", "1", *rate)
    assert (code, run["errors"]) == (1, {"busy": 3, "not_welcomed": 3})
    assert run["generator_share"] < 0.5


def test_an_idle_connection_that_is_cut(capsys: Output) -> None:
    """It is told by its close code, and the exit code is 1."""
    with relay("cut when idle") as address:
        code, run = measured(capsys, address, "idle", "--connections", "3", "--hold-s", "0.1", "--runs", "1")
    assert (code, run["errors"], run["done"]) == (1, {"close_1011": 1}, 3)


def test_nobody_listens(capsys: Output) -> None:
    """It is said in one line."""
    with relay() as address:
        pass
    assert main(["bench", *DIRECT, "--edge", address]) == 3
    assert "4 of 4 clients cannot connect: connection_refused (4)" in capsys.readouterr().err
