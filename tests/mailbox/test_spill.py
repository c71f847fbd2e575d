"""The way to the store: what a batch takes, what becomes of answers that are lost, late, or errors."""

from collections.abc import Callable
from typing import cast

import pytest
from structlog.testing import capture_logs

from ring.mailbox.spill import BATCH_BYTES, BATCH_LETTERS, BATCH_READS, PATIENCE_S
from ring.mailbox.vault import Job, Push, Read, Remove, Result
from ring.store.connection import StoreError, StoreUnavailable
from tests.mailbox.asking import EMPTY, Desk, letters, well


class TestBatch:
    """What goes in one pipeline."""

    def test_pushes_then_removals_then_reads(self) -> None:
        """So what was asked to be stored is among what is read, and what was acknowledged is not."""
        desk = Desk()
        desk.read("bob")
        desk.spill.remove("bob", [(1, 2), (1, 1), (1, 2)])
        desk.push("bob", *letters(2, first=3))
        assert desk.spill.waiting == 2
        jobs, done = desk.do()
        assert [type(job) for job in jobs] == [Push, Remove, Read]
        assert jobs[1] == Remove("bob", cast("Push", jobs[0]).slot, [(1, 1), (1, 2)])
        assert done
        assert desk.keeper.pushed == [("bob", [3, 4], ["stored", "stored"])]
        assert desk.keeper.pages == [("bob", EMPTY)]
        assert (desk.spill.waiting, desk.do()) == (0, ([], True))
        assert (desk.spill.stored, desk.spill.removed, desk.spill.reads) == (2, 2, 1)

    def test_of_one_mailbox_there_is_one_push(self) -> None:
        """In the order in which it was asked."""
        desk = Desk()
        desk.push("bob", *letters(2))
        desk.push("carol", *letters(1))
        desk.push("bob", *letters(1, first=3))
        jobs, _ = desk.do()
        assert [(job.user, [one.number for one in job.letters]) for job in jobs if isinstance(job, Push)] == [
            ("bob", [1, 2, 3]),
            ("carol", [1]),
        ]

    @pytest.mark.parametrize(
        ("count", "size", "users"), [(BATCH_LETTERS // 4, 1, 4), (2, BATCH_BYTES // 4, 2)]
    )
    def test_it_is_bounded(self, count: int, size: int, users: int) -> None:
        """In letters and in bytes; what does not go goes next."""
        desk = Desk()
        for user in range(6):
            desk.push(f"u{user}", *letters(count, size=size))
        first, _ = desk.do()
        second, _ = desk.do()
        assert (len(first), len(first) + len(second)) == (users, min(6, 2 * users))

    def test_removals_are_bounded_too(self) -> None:
        """Letters are counted with them."""
        desk = Desk()
        for user in range(3):
            desk.spill.remove(f"u{user}", [(1, number) for number in range(BATCH_LETTERS // 2)])
        assert [len(desk.do()[0]) for _ in range(3)] == [2, 1, 0]

    def test_reads_are_bounded(self) -> None:
        """Each answers up to a page."""
        desk = Desk()
        for user in range(BATCH_READS + 5):
            desk.read(f"u{user}")
        assert [len(desk.do()[0]) for _ in range(3)] == [BATCH_READS, 5, 0]

    def test_a_read_waits_for_what_was_asked_before(self) -> None:
        """Of the same user: or what is pushed and removed would be among what is read, or not."""
        desk = Desk()
        desk.push("alice", *letters(BATCH_LETTERS))
        desk.push("bob", *letters(1))
        desk.spill.remove("carol", [(1, 1)])
        for user in ("bob", "carol", "dan"):
            desk.read(user)
        first, _ = desk.do()
        second, _ = desk.do()
        assert [(type(job), job.user) for job in first] == [(Push, "alice"), (Read, "dan")]
        assert [(type(job), job.user) for job in second] == [
            (Push, "bob"),
            (Remove, "carol"),
            (Read, "bob"),
            (Read, "carol"),
        ]

    def test_of_a_mailbox_that_was_handed_over_nothing_goes(self) -> None:
        """The epoch is that of another owner by now, who has read what there is: it would store it twice."""
        desk = Desk()
        [letter] = some = letters(1)
        desk.push("bob", *some)
        desk.read("bob")
        desk.keeper.gone.add("bob")
        desk.spill.remove("bob", [(1, 9)])
        jobs, _ = desk.do()
        assert [type(job) for job in jobs] == [Remove]
        assert not letter.pushing
        assert desk.spill.waiting == 0


class TestAnswers:
    """What the server says."""

    def test_not_now(self) -> None:
        """What it cannot do now is asked for again, before what was asked for since; the rest is done."""
        desk = Desk()
        desk.push("bob", *letters(1))
        desk.push("carol", *letters(1))
        desk.read("bob")
        desk.spill.remove("bob", [(1, 7)])

        def busy(job: Job) -> Result:
            return StoreUnavailable("OOM") if job.user == "bob" else well(job)

        jobs, done = desk.do(busy)
        assert (len(jobs), done) == (4, False)
        assert desk.keeper.pushed == [("carol", [1], ["stored"])]
        desk.push("dan", *letters(1))
        desk.push("bob", *letters(1, first=2))
        desk.spill.remove("bob", [(1, 6)])
        jobs, done = desk.do()
        pushes = [(job.user, [one.number for one in job.letters]) for job in jobs if isinstance(job, Push)]
        assert (pushes, done) == ([("bob", [1, 2]), ("dan", [1])], True)
        assert [job.seqs for job in jobs if isinstance(job, Remove)] == [[(1, 6), (1, 7)]]
        assert len(desk.keeper.pages) == 1

    def test_asked_for_while_it_is_under_way(self) -> None:
        """If the answer is lost, what came meanwhile goes behind it."""
        desk = Desk()
        desk.push("bob", *letters(1))
        desk.read("carol")
        batch = desk.spill.take()
        desk.push("bob", *letters(1, first=2))
        desk.read("dan")
        desk.spill.put_back(batch)
        jobs, _ = desk.do()
        assert [(job.user, [one.number for one in job.letters]) for job in jobs if isinstance(job, Push)] == [
            ("bob", [1, 2])
        ]
        assert [job.user for job in jobs if isinstance(job, Read)] == ["carol", "dan"]

    def test_errors(self) -> None:
        """A push fails, a read is none; a removal is given up. The server's words are not for senders."""
        desk = Desk()
        desk.push("bob", *letters(2))
        desk.read("bob")
        desk.spill.remove("bob", [(1, 7)])
        _, done = desk.do(lambda _: StoreError("WRONGTYPE"))
        assert done
        [(_, numbers, why)] = desk.keeper.pushed
        assert (numbers, why) == ([1, 2], ["Redis refused to store it"] * 2)
        assert desk.keeper.pages == [("bob", None)]
        assert desk.spill.failed == {"full": 0, "unsafe": 0, "refused": 2, "away": 0}
        assert (desk.spill.reads, desk.spill.removed, desk.spill.waiting) == (0, 0, 0)

    def test_errors_are_logged_once(self) -> None:
        """Each mailbox has the same trouble; what works again and fails again is said again."""
        desk = Desk()

        def ask(answer: Callable[[Job], Result]) -> None:
            for user in ("bob", "carol"):
                desk.push(user, *letters(1))
                desk.read(user)
                desk.spill.remove(user, [(1, 7)])
            desk.do(answer)

        def refuse(_: Job) -> Result:
            return StoreError("NOPERM for user ring")

        with capture_logs() as logs:
            ask(refuse)
            ask(refuse)
            said = [
                "letters cannot be stored",
                "stored letters cannot be removed",
                "stored mailboxes cannot be read",
            ]
            assert sorted(line["event"] for line in logs) == said
            assert {line["error"] for line in logs} == {"NOPERM for user ring"}
            ask(well)
            ask(refuse)
        assert sorted(line["event"] for line in logs) == sorted(2 * said)

    def test_verdicts_are_counted(self) -> None:
        """Each by its kind; what was there already was counted before."""
        desk = Desk()
        desk.push("bob", *letters(5))
        desk.do(lambda _: ["stored", "already", "fenced", "full", "unsafe"])
        assert (desk.spill.stored, desk.spill.fenced) == (1, 1)
        assert desk.spill.failed == {"full": 1, "unsafe": 1, "refused": 0, "away": 0}

    def test_a_page_of_an_earlier_epoch(self) -> None:
        """Is asked for once more."""
        desk = Desk()
        desk.read("bob")

        def moved(_: Job) -> Result:
            desk.keeper.epoch = 2
            return EMPTY

        desk.do(moved)
        assert desk.keeper.pages == []
        [job], _ = desk.do()
        assert isinstance(job, Read)
        assert (job.epoch, desk.keeper.pages) == (2, [("bob", EMPTY)])


class TestGivingUp:
    """A server that is away."""

    def test_each_has_its_time(self) -> None:
        """Pushes and reads that have waited long enough end; removals stay."""
        desk = Desk()
        desk.push("bob", *letters(1))
        desk.read("bob")
        desk.spill.remove("bob", [(1, 7)])
        desk.now += 1
        desk.push("carol", *letters(1))
        desk.now += PATIENCE_S - 1
        desk.spill.give_up()
        [(user, _, [why])] = desk.keeper.pushed
        assert (user, "cannot be reached" in why) == ("bob", True)
        assert desk.keeper.pages == [("bob", None)]
        assert desk.spill.failed["away"] == 1
        jobs, _ = desk.do()
        assert [(type(job), job.user) for job in jobs] == [(Push, "carol"), (Remove, "bob")]

    def test_nobody_waits_anew_for_what_has_been_away_for_long(self) -> None:
        """Who comes then is told at once."""
        desk = Desk()
        desk.away_s = PATIENCE_S
        desk.push("bob", *letters(1))
        desk.read("bob")
        desk.spill.give_up()
        assert (len(desk.keeper.pushed), len(desk.keeper.pages)) == (1, 1)

    def test_a_read_that_holds_up_nobody_waits(self) -> None:
        """As long as it takes; or until somebody waits for it."""
        desk = Desk()
        desk.read("bob", held_up=False)
        desk.now += 60
        desk.spill.give_up()
        assert desk.keeper.pages == []
        desk.box("bob").waiting.append(lambda: None)
        desk.spill.give_up()
        assert desk.keeper.pages == [("bob", None)]

    @pytest.mark.parametrize("gone", [False, True])
    def test_what_may_be_there_is_removed(self, gone: bool) -> None:
        """Its answer was lost, and its sender told that it failed; unless it is another node's by now."""
        desk = Desk()
        desk.push("bob", *letters(2))
        desk.spill.put_back(desk.spill.take())
        desk.now += PATIENCE_S
        if gone:
            desk.keeper.gone.add("bob")
        desk.spill.give_up()
        jobs, _ = desk.do()
        assert [job.seqs for job in jobs if isinstance(job, Remove)] == ([] if gone else [[(1, 1), (1, 2)]])
