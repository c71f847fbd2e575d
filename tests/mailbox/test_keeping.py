"""Letters that nobody acknowledges: when the store gets them, what senders are told, what is forgotten."""

import pytest

from ring.mailbox.keeping import AGAIN_S
from ring.mailbox.owner import UNSETTLED_LETTERS
from ring.mailbox.vault import Push, Read, Remove, Stored
from ring.protocol.codes import ErrorCode
from ring.store.connection import StoreError
from tests.mailbox.office import EPOCH, Office, Seat, body, silent, stored_office


class TestAway:
    """Messages to somebody who is not there."""

    def test_they_are_stored_at_once_in_order(self) -> None:
        """`queued`, told once the store has them; then the owner's memory keeps nothing of them."""
        office = stored_office()
        for index in range(5):
            office.send(f"m{index}")
        assert office.fates == []
        office.spend(0.1)
        assert office.fates == [(f"m{index}", "queued", None, None) for index in range(5)]
        assert office.kept() == [f"m{index}" for index in range(5)]
        office.spend(0.1)
        assert office.mailboxes.boxes == {}

    def test_one_batch_takes_all_that_waits(self) -> None:
        """Of all mailboxes: a storm is one round trip."""
        office = stored_office()
        for index in range(20):
            office.send(f"m{index}", to=f"user{index % 4}")
        office.pass_time(0.1)
        batch = office.asked.take()
        assert [(type(job), len(job.letters)) for job in batch.jobs if isinstance(job, Push)] == [
            (Push, 5)
        ] * 4
        office.do(batch)
        assert len(office.fates) == 20
        assert office.asked.waiting == 0

    def test_while_linger_lasts_they_wait(self) -> None:
        """Who comes back in time gets them from memory."""
        office, seat = silent()
        seat.leave(clean=False)
        office.send("m1")
        assert office.spend(1.9) == []
        back = office.attach()
        assert back.ids == ["m1"]
        back.leave(clean=False)
        office.spend(2.2)
        assert office.told("m1") == [("n1", "queued", None)]
        assert office.store is not None
        [kept] = office.store.box(office.bobs_slot, "bob").kept
        assert kept.letter.seen, "it has been on its way"

    def test_untracked_messages_are_not_stored(self) -> None:
        """They are at most once."""
        office = stored_office()
        office.send(None, tracked=False)
        assert [type(job) for job in office.spend(1)] == []
        assert (office.mailboxes.dropped_untracked, office.mailboxes.boxes) == (1, {})

    def test_a_session_that_gets_no_copy_makes_nobody_present(self) -> None:
        """A message to oneself waits for the other device in the store, after the time to acknowledge."""
        office = stored_office()
        mine = office.attach(session="mine")
        office.carry()
        office.send("own", sender="bob", origin="mine")
        office.spend(2.1)
        assert office.told("own") == [("n1", "queued", None)]
        other = office.attach("laptop")
        office.carry()
        assert (mine.ids, other.ids) == ([], ["own"])
        other.ack()
        office.carry()
        assert office.kept() == []


class TestSilent:
    """Messages to a client that does not acknowledge."""

    def test_the_whole_prefix_is_stored(self) -> None:
        """When the first has waited long enough, and with a later one all before it."""
        office, _ = silent("m1")
        office.pass_time(1)
        office.send("m2")
        office.spend(1.1)
        assert office.kept() == ["m1"]
        office.send("m3", ttl_ms=60_000)
        office.box().letters[-1].patience = 0.1
        office.mailboxes.wait(office.box())
        office.spend(0.2)
        assert office.kept() == ["m1", "m2", "m3"]
        assert [fate[:2] for fate in office.fates] == [("m1", "queued"), ("m2", "queued"), ("m3", "queued")]

    def test_a_late_acknowledgement_takes_them_out_again(self) -> None:
        """No second receipt: `queued` was the last word."""
        office, seat = silent("m1", "m2", "m3")
        office.spend(2.1)
        assert office.kept() == ["m1", "m2", "m3"]
        seat.ack((EPOCH, 2))
        assert office.carry()[0] == Remove("bob", office.bobs_slot, [(EPOCH, 1), (EPOCH, 2)])
        assert office.kept() == ["m3"]
        assert len(office.fates) == 3
        assert seat.ids == ["m1", "m2", "m3"]

    def test_what_waits_behind_the_window_leaves_memory(self) -> None:
        """The store has it: it comes back at the pace of the session, in order, once each."""
        office, seat = silent(*(f"m{index}" for index in range(700)))
        office.spend(2.1)
        assert (len(seat.got), len(office.box().letters)) == (256, 256)
        assert all(type(job) is not Read for job in office.spend(5)), "it reads nothing that it cannot send"
        while len(seat.got) < 700:
            seen = len(seat.got)
            seat.ack()
            office.carry()
            assert len(seat.got) > seen
        assert seat.ids == [f"m{index}" for index in range(700)]
        seat.ack()
        office.carry()
        assert office.kept() == []
        assert len(office.fates) == 700

    def test_what_comes_meanwhile_comes_behind(self) -> None:
        """Behind what the store keeps, whatever is acknowledged when; nothing is read for each of them."""
        office, seat = silent(*(f"m{index}" for index in range(600)))
        office.spend(2.1)
        reads = 0
        for index in range(600, 700):
            office.send(f"m{index}")
            reads += sum(type(job) is Read for job in office.spend(0.3))
        assert reads == 0
        while seat.ids[-1] != "m699":
            seat.ack()
            office.carry()
        assert seat.ids == [f"m{index}" for index in range(700)]


class TestOwn:
    """Messages of a session to its own user, stored while it is the only one there."""

    def office(self) -> tuple[Office, Seat]:
        office = stored_office()
        mine = office.attach(session="mine")
        office.carry()
        office.send("own", sender="bob", origin="mine")
        office.spend(2.1)
        assert office.told("own") == [("n1", "queued", None)]
        return office, mine

    def test_they_hold_nothing_up(self) -> None:
        """However long the session stays: what comes behind is forgotten in time."""
        office, mine = self.office()
        for index in range(50):
            office.send(f"m{index}")
            mine.ack()
        office.spend(70)
        assert office.box().letters == []
        for index in range(UNSETTLED_LETTERS + 10):
            office.send(f"n{index}")
            mine.ack()
        assert {fate[1] for fate in office.fates[1:]} == {"delivered"}
        assert office.kept() == ["own"]

    @pytest.mark.parametrize("later_s", [0, 70])
    def test_another_device_gets_them(self, later_s: float) -> None:
        """When it comes: at the end, under a new number; its acknowledgement empties the store."""
        office, mine = self.office()
        office.send("m1")
        mine.ack()
        office.spend(later_s)
        office.send("own", sender="bob", origin="mine", again=True, gateway="g")
        other = office.attach("laptop")
        office.carry()
        assert "own" in other.ids
        other.ack()
        office.carry()
        assert office.kept() == []
        assert mine.ids == ["m1"]
        assert office.mailboxes.late_sessions == 0

    def test_another_device_that_resumes_before_them(self) -> None:
        """It gets them once, from the store."""
        office, mine = self.office()
        office.send("m1")
        mine.ack()
        other = office.attach("laptop", resume=f"{EPOCH}-0")
        office.carry()
        assert sorted(filter(None, other.ids)) == ["m1", "own"]

    def test_after_the_slot_has_come_back(self) -> None:
        """They are read again, and come to the other device; the one that sent them gets nothing anew."""
        office = stored_office()
        mine = office.attach(session="mine", gateway="g", handle=1)
        office.carry()
        office.send("own", sender="bob", origin="mine")
        office.send("m1")
        office.spend(2.1)
        office.mailboxes.moved(EPOCH + 1, set(), [office.bobs_slot])
        office.mailboxes.moved(EPOCH + 2, {office.bobs_slot}, ())
        office.mailboxes.serve([office.bobs_slot])
        office.carry()
        other = office.attach("laptop")
        office.carry()
        assert mine.ids == ["m1"]
        assert sorted(filter(None, other.ids)) == ["m1", "own"]
        other.ack()
        office.carry()
        assert (office.kept(), mine.ids) == ([], ["m1"])

    def test_after_another_device_has_gone(self) -> None:
        """It left without an acknowledgement: nor does that fill the mailbox for ever."""
        office, mine = self.office()
        other = office.attach("laptop")
        office.spend(1)
        assert other.ids == ["own"]
        other.leave(clean=True)
        for index in range(UNSETTLED_LETTERS + 10):
            office.send(f"n{index}")
            mine.ack()
        assert {fate[1] for fate in office.fates[1:]} == {"delivered"}
        assert office.kept() == ["own"]
        back = office.attach("laptop")
        office.carry()
        assert back.marked[0] == "own"
        assert back.ids.count("own") == 1


class TestTtl:
    """Messages that are to wait so long and no longer."""

    def test_before_it_is_stored(self) -> None:
        """`expired`, and the store never hears of it."""
        office, _ = silent()
        office.send("m1", ttl_ms=500)
        office.spend(0.6)
        assert office.code("m1") is ErrorCode.EXPIRED
        office.spend(5)
        assert office.kept() == []

    def test_after_it_is_stored(self) -> None:
        """Its sender knows that it was queued; nobody gets it any more."""
        office = stored_office()
        office.send("m1", ttl_ms=1500)
        office.send("m2", ttl_ms=10_000)
        office.send("m3")
        office.spend(0.2)
        assert len(office.fates) == 3
        assert office.store is not None
        left = [one.letter.ttl_ms for one in office.store.box(office.bobs_slot, "bob").kept]
        assert 1000 < left[0] <= 1500
        assert left[2] == 0
        office.spend(2)
        seat = office.attach()
        office.carry()
        assert seat.ids == ["m2", "m3"]
        [m2, m3] = office.box().letters
        assert m2.expires_at - office.clock.now == pytest.approx(8, abs=0.3)
        assert m3.expires_at == float("inf")

    def test_while_the_store_is_asked_again(self) -> None:
        """A fenced push is tried again, and given up when it has waited too long."""
        office = stored_office()
        assert office.store is not None
        office.store.fences[office.bobs_slot] = EPOCH + 1
        office.send("m1", ttl_ms=1200)
        office.spend(3)
        assert office.code("m1") is ErrorCode.EXPIRED


class TestVerdicts:
    """What the store says to a push."""

    def test_full(self) -> None:
        """The first ones are stored, the others fail."""
        office = stored_office(letters=3)
        for index in range(5):
            office.send(f"m{index}")
        office.spend(0.2)
        assert office.kept() == ["m0", "m1", "m2"]
        assert [fate[1] for fate in sorted(office.fates)] == ["queued"] * 3 + ["failed"] * 2
        assert office.code("m4") is ErrorCode.MAILBOX_FULL
        assert (office.asked.stored, office.asked.failed["full"]) == (3, 2)

    def test_fenced(self) -> None:
        """Another node owns the slot: asked again after a while, no more often, until it is this one's."""
        office = stored_office()
        assert office.store is not None
        office.store.fences[office.bobs_slot] = EPOCH + 1
        office.send("m1")
        jobs = office.spend(5)
        assert len(jobs) == office.fenced == office.asked.fenced
        assert 5 <= len(jobs) <= 5 / AGAIN_S + 1
        assert office.fates == []
        office.mailboxes.moved(EPOCH + 1, set(), ())
        office.spend(1)
        assert office.told("m1") == [("n1", "queued", None)]

    def test_fenced_and_handed_over(self) -> None:
        """When the slot is back within the moment, the mailbox that went touches none of the new one."""
        office = stored_office()
        assert office.store is not None
        office.store.fences[office.bobs_slot] = EPOCH + 1
        waiting = office.attach()
        office.carry()
        assert (waiting.attachment, office.fenced) == (None, 1)
        waiting.left = True
        office.mailboxes.moved(EPOCH + 1, set(), [office.bobs_slot])
        office.mailboxes.drop(office.box())
        office.mailboxes.handed_over([office.bobs_slot])
        office.mailboxes.moved(EPOCH + 2, set(), ())
        seat = office.attach()
        office.carry()
        office.send("m1")
        office.spend(0.4)
        office.spend(10)
        office.send("m2")
        assert seat.ids == ["m1", "m2"]
        seat.ack()
        assert office.told("m2") == [("n1", "delivered", None)]

    def test_fenced_with_a_session(self) -> None:
        """The session keeps what it has, and its acknowledgement settles it."""
        office, seat = silent("m1")
        assert office.store is not None
        office.store.fences[office.bobs_slot] = EPOCH + 1
        jobs = office.spend(4.1)
        assert 3 <= len(jobs) <= 6
        seat.ack()
        assert office.told("m1") == [("n1", "delivered", None)]
        assert office.spend(5) == []

    def test_unsafe(self) -> None:
        """On too few replicas: the sender is told so."""
        office = stored_office()
        office.send("m1")
        office.pass_time(0.1)
        office.asked.settle(office.asked.take(), [["unsafe"]])
        assert office.code("m1") is ErrorCode.STORE_UNAVAILABLE
        assert office.asked.failed["unsafe"] == 1

    def test_disordered(self) -> None:
        """Another owner has stored later ones meanwhile: it goes behind them, and is one message."""
        office = stored_office()
        assert office.store is not None
        office.send("m1")
        office.send("m2")
        office.pass_time(0.1)
        office.mailboxes.moved(EPOCH + 1, set(), [office.bobs_slot])
        later = Stored(EPOCH + 1, 5, 0, False, "", body("m3", EPOCH + 1, 5))
        office.store.do(Push("bob", office.bobs_slot, EPOCH + 1, [later]))
        office.mailboxes.moved(EPOCH + 2, {office.bobs_slot}, ())
        office.mailboxes.serve([office.bobs_slot])
        office.spend(3)
        assert office.kept() == ["m3", "m1", "m2"]
        assert [fate[:2] for fate in office.fates] == [("m1", "queued"), ("m2", "queued")]
        seat = office.attach()
        office.carry()
        assert (seat.ids, seat.marked) == (["m3", "m1", "m2"], ["m1", "m2"])

    def test_disordered_before_a_session(self) -> None:
        """It gets them again, under their new numbers, and acknowledges those."""
        office, seat = silent("m1", "m2")
        assert office.store is not None
        later = Stored(EPOCH, 2, 0, False, "", body("x", EPOCH, 2))
        office.pass_time(2.1)
        batch = office.asked.take()
        office.store.do(Push("bob", office.bobs_slot, EPOCH, [later]))
        office.asked.settle(batch, [["disordered", "disordered"]])
        assert seat.ids == ["m1", "m2", "m1", "m2"]
        assert seat.numbers == [1, 2, 3, 4]
        seat.ack()
        assert [fate[:2] for fate in office.fates] == [("m1", "delivered"), ("m2", "delivered")]

    def test_an_error(self) -> None:
        """The server's words are passed on."""
        office = stored_office()
        office.send("m1")
        office.pass_time(0.1)
        batch = office.asked.take()
        office.asked.settle(batch, [StoreError("WRONGTYPE a list is wanted")])
        assert office.code("m1") is ErrorCode.STORE_UNAVAILABLE
        assert sum(office.asked.failed.values()) == 1

    def test_an_error_of_a_removal(self) -> None:
        """It is logged: what is not removed comes once more."""
        office, seat = silent("m1")
        office.spend(2.1)
        seat.ack()
        assert office.asked.settle(office.asked.take(), [StoreError("WRONGTYPE a list is wanted")])
        assert office.asked.waiting == 0

    def test_a_failed_letter_comes_to_nobody(self) -> None:
        """Its sender was told so."""
        office, seat = silent()
        seat.leave(clean=True)
        office.send("m1")
        office.pass_time(0.1)
        office.asked.settle(office.asked.take(), [["unsafe"]])
        back = office.attach()
        office.carry()
        assert back.ids == []
