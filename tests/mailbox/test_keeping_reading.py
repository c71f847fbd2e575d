"""What the store keeps for a user who comes: read first, page by page, each message once."""

import pytest

from ring.mailbox.vault import Push, Read, Remove, Stored
from ring.protocol.codes import ErrorCode
from tests.mailbox.kept import drink, full, keep
from tests.mailbox.office import EPOCH, stored_office


class TestComing:
    """A session whose user has letters in the store."""

    def test_it_gets_them_before_it_gets_what_is_new(self) -> None:
        """It is attached once they have been read; what came meanwhile follows, in order."""
        office = full(3)
        seat = office.attach()
        assert (seat.attachment, office.box().waiting != []) == (None, True)
        office.send("new")
        assert office.fates == []
        office.carry()
        assert seat.ids == ["m0", "m1", "m2", "new"]
        assert (seat.resumed, seat.start, seat.marked) == (False, (EPOCH - 1, 0), [])
        seat.ack()
        assert office.fates == [("new", "delivered", "client", None)]
        office.carry()
        assert office.kept() == []

    def test_it_is_marked_if_it_may_have_been_seen(self) -> None:
        """By a session, says who stored it; or it was read before."""
        office = stored_office()
        keep(office, ("m0", EPOCH - 1, 1))
        keep(office, ("m1", EPOCH - 1, 2), seen=True)
        seat = office.attach()
        office.carry()
        assert seat.marked == ["m1"]
        seat.leave(clean=True)
        office.spend(1)
        assert office.mailboxes.boxes == {}
        back = office.attach()
        office.carry()
        assert (back.ids, back.marked) == (["m0", "m1"], ["m0", "m1"])

    def test_it_is_marked_for_one_that_goes_on(self) -> None:
        """A session that moves here gets what it has not had; its last owner may have sent it."""
        office = stored_office()
        keep(office, ("m0", EPOCH - 1, 1), ("m1", EPOCH - 1, 2), seen=True)
        seat = office.attach(sent=(EPOCH - 1, 1), acked=(EPOCH - 1, 1), gateway="g", handle=1)
        office.carry()
        assert (seat.ids, seat.marked) == (["m1"], ["m1"])
        assert office.kept() == ["m1"]

    def test_one_that_has_had_later_ones(self) -> None:
        """Of another owner: it waits until all that may belong before them has been read."""
        office = full(12, page_letters=5)
        office.send("new")
        seat = office.attach(sent=(EPOCH, 9), acked=(EPOCH - 1, 3), gateway="g", handle=1)
        for _ in range(2):
            office.do(office.asked.take())
            assert seat.attachment is None
        office.do(office.asked.take())
        assert seat.attachment is not None

    def test_without_anything_it_is_attached_too(self) -> None:
        """The store was asked, and says so; a second session need not ask."""
        office = stored_office()
        seat = office.attach()
        assert [type(job) for job in office.carry()] == [Read]
        assert seat.attachment is not None
        other = office.attach("laptop")
        assert other.attachment is not None
        assert office.carry() == []

    def test_one_that_goes_while_it_is_read(self) -> None:
        """Nobody is attached; the mailbox goes, and the store keeps the letters."""
        office = full(3)
        seat = office.attach()
        seat.leave(clean=True)
        office.spend(1)
        assert (seat.got, office.mailboxes.boxes, len(office.kept())) == ([], {}, 3)

    def test_two_that_come_while_it_is_read(self) -> None:
        """One read serves both; the first acknowledgement takes it out of the store."""
        office = full(3)
        phone, laptop = office.attach("phone"), office.attach("laptop")
        assert [type(job) for job in office.carry()] == [Read]
        assert phone.ids == laptop.ids == ["m0", "m1", "m2"]
        laptop.ack((EPOCH - 1, 2))
        assert [type(job) for job in office.carry()] == [Remove]
        phone.ack()
        assert [type(job) for job in office.carry()] == [Remove]
        assert office.kept() == []
        assert office.carry() == []

    def test_ones_own_messages(self) -> None:
        """The session that sent it to its own user gets no copy from the store either."""
        office = stored_office()
        mine = office.attach(session="mine")
        office.carry()
        office.send("own", sender="bob", origin="mine")
        office.spend(2.1)
        mine.leave(clean=True)
        office.spend(1)
        assert office.kept() == ["own"]
        again, other = office.attach("phone", session="mine"), office.attach("laptop")
        office.carry()
        assert (again.ids, other.ids) == ([], ["own"])

    def test_what_no_release_of_this_one_has_written(self) -> None:
        """It is logged, and stays; all else comes."""
        office = full(1)
        assert office.store is not None
        strange = Stored(EPOCH - 1, 2, 0, False, "", b'{"type":"novel"}')
        office.store.do(Push("bob", office.bobs_slot, EPOCH - 1, [strange]))
        keep(office, ("m2", EPOCH - 1, 3))
        seat = office.attach()
        office.carry()
        assert seat.ids == ["m0", "m2"]
        seat.ack()
        office.carry()
        assert len(office.store.box(office.bobs_slot, "bob").kept) == 1


class TestPages:
    """More than one page."""

    @pytest.mark.parametrize("page_letters", [1, 7, 100, 512])
    def test_they_come_at_the_pace_of_the_session(self, page_letters: int) -> None:
        """Each once and in order; no more is in memory than a page and a window."""
        office = full(700, page_letters=page_letters)
        seat = office.attach()
        office.carry()
        sizes = drink(office, seat)
        assert seat.ids == [f"m{index}" for index in range(700)]
        assert max(sizes) <= 256 + page_letters
        assert office.kept() == []
        office.send("new")
        assert seat.ids[-1] == "new"

    def test_what_comes_meanwhile_waits_behind_them(self) -> None:
        """And is stored, if that takes long; it comes once."""
        office = full(30, page_letters=10)
        seat = office.attach()
        office.carry()
        assert len(seat.got) >= 10
        for index in range(30, 35):
            office.send(f"m{index}")
        office.spend(5)
        assert len(office.kept()) == 35
        drink(office, seat)
        assert seat.ids == [f"m{index}" for index in range(35)]
        assert office.kept() == []
        assert len(office.fates) == 5

    def test_a_session_that_comes_while_pages_are_missing(self) -> None:
        """It starts at the first that is unsettled, and both get all that is left."""
        office = full(600, page_letters=100)
        first = office.attach("phone")
        office.carry()
        had = len(first.got)
        assert had == 256
        first.ack((EPOCH - 1, 50))
        second = office.attach("laptop")
        office.carry()
        assert second.ids[0] == "m50"
        while len(first.got) < 600 or len(second.got) < 550:
            first.ack()
            second.ack()
            office.carry()
        assert first.ids == [f"m{index}" for index in range(600)]
        assert second.ids == [f"m{index}" for index in range(50, 600)]

    def test_a_page_that_was_read_stays(self) -> None:
        """What is stored meanwhile leaves memory, and not what the session comes to next."""
        office = full(600)
        seat = office.attach()
        office.carry()
        office.send("new")
        office.spend(2.5)
        assert len(office.kept()) == 601
        assert len(office.box().letters) == 512
        reads = 0
        while "new" not in seat.ids:
            seat.ack()
            reads += sum(isinstance(job, Read) for job in office.carry())
        assert reads == 1

    def test_letters_that_leave_memory_while_it_is_read(self) -> None:
        """The page was asked for behind them: it is asked for again."""
        office = full(12, page_letters=5)
        seat = office.attach("phone")
        office.do(office.asked.take())
        assert len(seat.got) == 5
        batch = office.asked.take()
        assert [job.after for job in batch.jobs if isinstance(job, Read)] == [(EPOCH - 1, 5)]
        seat.leave(clean=True)
        office.pass_time(0.1)
        assert office.box().letters == []
        back = office.attach("laptop")
        office.do(batch)
        office.carry()
        assert back.ids == [f"m{index}" for index in range(12)]

    def test_a_session_without_an_outlet_is_fed_when_it_has_one(self) -> None:
        """Its link is down: nothing is read that nobody could send."""
        office = stored_office()
        seat = office.attach(gateway="g", handle=1)
        office.carry()
        for index in range(300):
            office.send(f"m{index}")
        office.spend(2.1)
        assert len(office.box().letters) == 256
        office.mailboxes.suspend("g")
        seat.ack()
        assert [type(job) for job in office.carry()] == [Remove]
        again = office.attach(session=seat.name, sent=seat.last, acked=seat.last, gateway="g", handle=2)
        office.carry()
        assert again.ids == [f"m{index}" for index in range(256, 300)]

    def test_messages_that_are_acknowledged_out_of_a_page_do_not_come_back(self) -> None:
        """The removal and the next page may cross: what is settled here is removed once more."""
        office = full(20, page_letters=10)
        seat = office.attach()
        office.do(office.asked.take())
        seat.ack()
        batch = office.asked.take()
        assert [type(job) for job in batch.jobs] == [Remove, Read]
        office.asked.put_back(batch)
        office.carry()
        drink(office, seat)
        assert seat.ids == [f"m{index}" for index in range(20)]

    def test_removals_that_were_lost_are_done_when_it_is_read_again(self) -> None:
        """What has been acknowledged, and is read all the same, comes to nobody."""
        office = full(3)
        seat = office.attach()
        office.carry()
        seat.ack()
        office.asked.take()  # lost: the removal
        office.box().close_gate()
        office.mailboxes.start(office.box().attachments[0])
        office.carry()
        assert (seat.ids, office.kept()) == (["m0", "m1", "m2"], [])

    def test_a_page_of_an_earlier_tenure_is_read_again(self) -> None:
        """While it was on its way the slot went and came back: others may have stored since."""
        office = full(1)
        seat = office.attach()
        batch = office.asked.take()
        assert office.store is not None
        results = [office.store.do(job) for job in batch.jobs]
        office.mailboxes.moved(EPOCH + 1, set(), [office.bobs_slot])
        keep(office, ("m1", EPOCH + 1, 1))
        office.mailboxes.moved(EPOCH + 2, {office.bobs_slot}, ())
        office.mailboxes.serve([office.bobs_slot])
        office.asked.settle(batch, results)
        office.carry()
        assert seat.ids == ["m0", "m1"]


class TestDoubles:
    """One message, by sender and id, that is there more than once."""

    def test_within_a_page(self) -> None:
        """The first comes; the other is removed."""
        office = stored_office()
        keep(office, ("m1", 5, 1), ("m2", 5, 2), ("m1", 6, 1))
        seat = office.attach()
        office.carry()
        assert seat.ids == ["m1", "m2"]
        assert office.kept() == ["m1", "m2"]

    def test_across_pages(self) -> None:
        """Also if the first was acknowledged before the second was read."""
        office = stored_office(page_letters=2)
        keep(office, ("m1", 5, 1), ("m2", 5, 2), ("m1", 6, 1), ("m3", 6, 2))
        seat = office.attach()
        office.do(office.asked.take())
        assert seat.ids == ["m1", "m2"]
        seat.ack()
        office.carry()
        assert seat.ids == ["m1", "m2", "m3"]
        seat.ack()
        office.carry()
        assert office.kept() == []

    def test_sent_again_before_it_was_read(self) -> None:
        """What is stored stands for both: who sent it again is told `queued`, and it comes once."""
        office = full(2)
        seat = office.attach()
        office.send("m1", again=True, gateway="g")
        office.send("m2")
        office.carry()
        assert seat.ids == ["m0", "m1", "m2"]
        assert office.told("m1") == [("g", "queued", None)]
        seat.ack()
        office.carry()
        assert office.kept() == []
        assert [fate[:2] for fate in office.fates] == [("m1", "queued"), ("m2", "delivered")]
        office.send("m1", again=True, gateway="h")
        assert office.told("m1")[1:] == [("h", "delivered", None)]

    def test_sent_again_and_pushed_before_it_was_read(self) -> None:
        """The second copy is taken out of the store when the push has been answered."""
        office = full(2)
        office.send("m1", again=True)
        office.pass_time(0.1)
        seat = office.attach()
        office.carry()
        assert seat.ids == ["m0", "m1"]
        assert office.told("m1") == [("n1", "queued", None)]
        seat.ack()
        office.carry()
        assert office.kept() == []

    def test_sent_again_while_the_push_is_repeated(self) -> None:
        """Read between the push and its answer: the copy that is in memory stands for what is stored."""
        office = full(1)
        office.send("m0", again=True)
        office.pass_time(0.1)
        batch = office.asked.take()
        seat = office.attach()
        office.do(office.asked.take())
        assert seat.ids == ["m0"]
        office.do(batch)
        office.carry()
        assert office.told("m0") == [("n1", "queued", None)]
        assert len(office.kept()) == 1
        seat.ack()
        office.carry()
        assert office.kept() == []

    def test_a_failed_one(self) -> None:
        """Its sender was told that it failed, and sent it before with success: it comes."""
        office = full(1, letters=1)
        office.send("m0", again=True)
        office.spend(0.1)
        assert office.code("m0") is ErrorCode.MAILBOX_FULL
        seat = office.attach()
        office.carry()
        assert seat.ids == ["m0"]

    def test_one_that_a_session_has_had_already(self) -> None:
        """It stays where it is, and stands for what another owner stored meanwhile."""
        office = stored_office()
        seat = office.attach(gateway="g", handle=1)
        office.carry()
        office.send("m1")
        office.send("m2")
        assert office.store is not None
        office.mailboxes.moved(EPOCH + 1, set(), [office.bobs_slot])
        keep(office, ("m1", EPOCH + 1, 1))
        office.mailboxes.moved(EPOCH + 2, {office.bobs_slot}, ())
        office.mailboxes.serve([office.bobs_slot])
        office.carry()
        assert (seat.ids, office.told("m1")) == (["m1", "m2"], [("n1", "queued", None)])
        assert seat.attachment is not None
        assert seat.attachment.position == 2
        seat.ack()
        office.carry()
        assert office.kept() == []
        assert office.told("m2") == [("n1", "delivered", None)]
