"""A store that does not answer when a session comes, or says that another node owns the slot."""

from ring.mailbox.keeping import AGAIN_S
from ring.mailbox.mailbox import OPEN
from ring.mailbox.spill import PATIENCE_S
from ring.mailbox.vault import Read, Result
from ring.protocol.codes import ErrorCode
from ring.store.connection import StoreError
from tests.mailbox.kept import drink, full
from tests.mailbox.office import EPOCH, stored_office


class TestAway:
    """It does not answer."""

    def test_it_goes_on_without(self) -> None:
        """After a while; what is read later comes behind what it has had, under new numbers."""
        office = full(2)
        seat = office.attach()
        office.be_away(PATIENCE_S - 0.2)
        assert office.mailboxes.late_sessions == 0
        office.be_away(0.4)
        assert seat.attachment is not None
        assert office.mailboxes.late_sessions == 1
        office.send("new")
        assert seat.ids == ["new"]
        office.be_away(5)
        office.carry()
        assert seat.ids == ["new", "m0", "m1"]
        assert [seq for seq, _, _ in seat.got] == [(EPOCH, 1), (EPOCH, 2), (EPOCH, 3)]
        seat.ack()
        office.carry()
        assert office.kept() == []
        box = office.box()
        assert (box.gate, box.late) == (OPEN, False)

    def test_later_pages_come_behind_too(self) -> None:
        """One by one, at the pace of the session."""
        office = full(25, page_letters=10)
        seat = office.attach()
        office.be_away(PATIENCE_S + 1)
        office.send("new")
        office.carry()
        drink(office, seat)
        assert seat.ids == ["new", *(f"m{index}" for index in range(25))]
        assert office.kept() == []
        assert office.carry() == []

    def test_sent_again_and_delivered_meanwhile(self) -> None:
        """It comes once, and the store forgets it."""
        office = full(2)
        seat = office.attach()
        office.be_away(PATIENCE_S + 0.2)
        office.send("m1", again=True)
        seat.ack()
        assert office.told("m1") == [("n1", "delivered", None)]
        office.spend(1)
        assert (seat.ids, office.kept()) == (["m1", "m0"], ["m0"])

    def test_sent_again_and_under_way_meanwhile(self) -> None:
        """It stands for both: nothing is left in the store once it is acknowledged."""
        office = full(2)
        seat = office.attach()
        office.be_away(PATIENCE_S + 0.2)
        office.send("m1", again=True)
        office.pass_time(2.1)
        office.carry()
        assert seat.ids == ["m1", "m0"]
        assert office.told("m1") == [("n1", "queued", None)]
        seat.ack()
        office.carry()
        assert office.kept() == []

    def test_who_leaves_before_it_is_read(self) -> None:
        """The mailbox goes; who comes next has it read."""
        office = full(2)
        seat = office.attach()
        office.be_away(PATIENCE_S + 0.2)
        seat.leave(clean=True)
        office.spend(5)
        assert office.mailboxes.boxes == {}
        back = office.attach()
        office.carry()
        assert back.ids == ["m0", "m1"]

    def test_who_leaves_after_it_was_read(self) -> None:
        """Without an acknowledgement: the mailbox goes, and the store keeps all of it."""
        office = full(2)
        seat = office.attach()
        office.be_away(PATIENCE_S + 0.2)
        office.spend(1)
        assert seat.ids == ["m0", "m1"]
        seat.leave(clean=True)
        office.spend(1)
        assert office.mailboxes.boxes == {}
        back = office.attach()
        office.carry()
        assert (back.ids, back.marked, office.kept()) == (["m0", "m1"], ["m0", "m1"], ["m0", "m1"])

    def test_who_leaves_a_mailbox_that_stays(self) -> None:
        """Fates are remembered; all the same who comes next has it read first."""
        office = full(2)
        seat = office.attach()
        office.be_away(PATIENCE_S + 0.2)
        office.send("x")
        seat.ack()
        seat.leave(clean=True)
        office.pass_time(5)
        assert office.box().letters != []
        back = office.attach()
        assert back.attachment is None
        office.carry()
        assert back.ids == ["m0", "m1", "x"], "what is settled behind them comes along"
        assert office.mailboxes.late_sessions == 1

    def test_fates_behind_which_it_is_read(self) -> None:
        """Old ones are forgotten meanwhile: what is stored comes to where they were."""
        office = full(2)
        office.send("x1")
        office.be_away(PATIENCE_S + 0.2)
        office.pass_time(30)
        office.send("x2")
        office.be_away(PATIENCE_S + 0.2)
        office.pass_time(30)
        assert [letter.id for letter in office.box().letters] == ["x2"]
        assert office.box().gate == office.box().base
        seat = office.attach()
        office.carry()
        office.send("x3")
        assert seat.ids == ["m0", "m1", "x3"]

    def test_stored_while_it_cannot_be_read(self) -> None:
        """What is read then is all of it, not what lies behind."""
        office = full(2)
        seat = office.attach()
        office.asked.settle(office.asked.take(), [StoreError("WRONGTYPE")])
        office.send("new")
        for _ in range(26):
            office.pass_time(0.1)
            batch = office.asked.take()
            results: list[Result] = [
                StoreError("no") if isinstance(job, Read) else office.do_job(job) for job in batch.jobs
            ]
            office.asked.settle(batch, results)
        assert office.told("new") == [("n1", "queued", None)]
        office.spend(1)
        assert seat.ids == ["new", "m0", "m1"]

    def test_sent_again_and_read_before_its_push_is_answered(self) -> None:
        """The copy that was pushed is taken out again: the other stands for both."""
        office = full(2)
        seat = office.attach()
        office.be_away(PATIENCE_S + 0.2)
        office.send("m1", again=True)
        office.pass_time(0.6)
        reading = office.asked.take()
        office.pass_time(2)
        pushing = office.asked.take()
        office.do(reading)
        assert office.told("m1") == [("n1", "queued", None)]
        office.do(pushing)
        office.carry()
        assert office.kept() == ["m0", "m1"]
        seat.ack()
        office.carry()
        assert office.kept() == []

    def test_ones_own_messages_that_had_been_left_to_it(self) -> None:
        """A device that resumes before them is told of a gap, and gets them when they are read, once."""
        office = stored_office()
        mine = office.attach(session="mine")
        office.carry()
        office.send("own", sender="bob", origin="mine")
        office.spend(2.1)
        office.send("m1")
        mine.ack()
        other = office.attach("laptop", resume=f"{EPOCH}-0")
        office.be_away(PATIENCE_S + 0.2)
        assert (other.resumed, other.ids) == ("gap", [])
        office.spend(1)
        assert other.ids == ["own"]
        other.ack()
        office.carry()
        assert (office.kept(), mine.ids) == ([], ["m1"])

    def test_another_session_while_it_is_away(self) -> None:
        """It does not wait, and is counted."""
        office = full(1)
        office.attach()
        office.be_away(PATIENCE_S + 0.2)
        other = office.attach("laptop")
        assert other.attachment is not None
        assert office.mailboxes.late_sessions == 2
        office.spend(1)
        assert other.ids == ["m0"]

    def test_what_was_stored_before_it_went_is_not_lost(self) -> None:
        """Letters beyond the window had been left to it: they come when it is back."""
        office = stored_office()
        seat = office.attach()
        office.carry()
        for index in range(300):
            office.send(f"m{index}")
        office.spend(2.1)
        seat.ack()
        office.be_away(PATIENCE_S + 1)
        office.send("new")
        assert seat.ids[-1] == "new"
        office.spend(1)
        assert seat.ids == [*(f"m{index}" for index in range(256)), "new"] + [
            f"m{index}" for index in range(256, 300)
        ]

    def test_an_error_is_as_good_as_no_answer(self) -> None:
        """The session goes on without; it is asked again, but not all the time."""
        office = full(1)
        seat = office.attach()
        asked = 0
        for _ in range(40):
            batch = office.asked.take()
            asked += len(batch.jobs)
            office.asked.settle(batch, [StoreError("WRONGTYPE")] * len(batch.jobs))
            office.pass_time(0.1)
        assert seat.attachment is not None
        assert 2 < asked <= 4 / AGAIN_S + 1
        office.spend(1)
        assert seat.ids == ["m0"]

    def test_fenced(self) -> None:
        """Another node owns the slot: the session waits, and it is asked again now and then."""
        office = full(1)
        assert office.store is not None
        office.store.fences[office.bobs_slot] = EPOCH + 1
        seat = office.attach()
        jobs = office.spend(4)
        assert 4 <= len(jobs) == office.fenced <= 4 / AGAIN_S + 1
        assert seat.attachment is None
        office.mailboxes.moved(EPOCH + 1, set(), ())
        office.spend(1)
        assert seat.ids == ["m0"]

    def test_fenced_between_two_pages(self) -> None:
        """The session keeps what it has, and nothing spins."""
        office = full(20, page_letters=5)
        seat = office.attach()
        office.do(office.asked.take())
        assert office.store is not None
        office.store.fences[office.bobs_slot] = EPOCH + 1
        seat.ack()
        jobs = [job for job in office.spend(4) if isinstance(job, Read)]
        assert 2 < len(jobs) <= 4 / AGAIN_S + 1
        office.mailboxes.moved(EPOCH + 1, set(), ())
        office.spend(1)
        drink(office, seat)
        assert seat.ids == [f"m{index}" for index in range(20)]

    def test_fenced_for_long(self) -> None:
        """What was given up behind the pages that are missing holds nobody up, and sends nobody away."""
        office = full(20, page_letters=5)
        phone = office.attach("phone")
        office.do(office.asked.take())
        assert office.store is not None
        office.store.fences[office.bobs_slot] = EPOCH + 1
        phone.ack()
        office.send("x", ttl_ms=500)
        office.spend(62)
        assert office.code("x") is ErrorCode.EXPIRED
        assert office.box().due > office.clock.now - 1, "it is not looked at all the time"
        laptop = office.attach("laptop")
        office.mailboxes.moved(EPOCH + 1, set(), ())
        office.spend(1)
        drink(office, phone)
        assert phone.closed is None
        assert phone.ids == [f"m{index}" for index in range(20)]
        assert laptop.ids == [f"m{index}" for index in range(5, 20)]

    def test_away_after_it_said_fenced(self) -> None:
        """The session does not wait for ever."""
        office = full(1)
        assert office.store is not None
        office.store.fences[office.bobs_slot] = EPOCH + 1
        seat = office.attach()
        office.carry()
        office.be_away(PATIENCE_S + 1)
        assert seat.attachment is not None
        office.mailboxes.moved(EPOCH + 1, set(), ())
        office.spend(1)
        assert seat.ids == ["m0"]
