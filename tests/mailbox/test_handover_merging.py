"""Letters from several old owners, and letters that come late."""

import pytest

from ring.mailbox.handover import pack, put_behind, take
from ring.protocol import peer
from ring.protocol.codes import ErrorCode
from ring.protocol.peer import Attach, HandOver, Seq
from tests.mailbox.moving import LATER, SLOT, follow, gaining, hand_over, wired
from tests.mailbox.office import EPOCH, Clock, Office, Seat


class TestSeveralOwners:
    """A slot that moved twice before its letters did."""

    @pytest.mark.parametrize("first", [0, 1])
    def test_the_numbers_order_what_two_owners_hand_over(self, first: int) -> None:
        """In whichever order the two come, older letters stand before newer ones, each once."""
        clock = Clock()
        oldest = Office(clock=clock)
        seat = oldest.attach()
        oldest.send("m1")
        seat.ack()
        assert seat.attachment is not None
        seat.attachment.outlet = None
        oldest.send("m2")
        oldest.send("m3")
        between = Office(epoch=LATER, clock=clock, node="n2")
        between._ids = oldest._ids
        between.mailboxes._moved_until[SLOT] = clock.now + 9
        between.send("m4")
        between.send("m5")
        newest = gaining(oldest, name="n3", epoch=LATER + 1)
        parcels = [wired(pack(office.box(), clock.now)) for office in (oldest, between)]
        for parcel in (parcels[first], parcels[1 - first], parcels[0]):
            for item in parcel:
                take(newest.mailboxes, item, clock.now)
        back = follow(seat, newest, acked=(EPOCH, 1))
        assert back.got == []
        newest.mailboxes.serve([SLOT])
        newest.send("m6")
        assert back.ids == ["m2", "m3", "m4", "m5", "m6"]
        back.ack()
        assert [fate[0] for fate in newest.fates] == ["m2", "m3", "m4", "m5", "m6"]
        resumed = newest.attach("laptop", resume=f"{EPOCH}-0")
        assert (resumed.resumed, resumed.ids[0]) == (True, "m1")

    def test_what_comes_by_an_old_ring_stands_before_what_a_later_owner_numbered(self) -> None:
        """It is numbered by this node's last tenure; acknowledgements go by the order."""
        clock = Clock()
        office, between = Office(clock=clock), Office(epoch=LATER, clock=clock, node="n2")
        between._ids = office._ids
        seat = office.attach()
        for message_id in ("m1", "m2", "m3"):
            office.send(message_id)
        office.mailboxes.moved(LATER + 1, {SLOT}, ())
        between.mailboxes._moved_until[SLOT] = clock.now + 9
        between.send("b1")
        between.send("b2")
        for item in wired(pack(between.box(), clock.now)):
            take(office.mailboxes, item, clock.now)
        office.send("late", routed=EPOCH - 1)
        office.mailboxes.serve([SLOT])
        assert seat.ids == ["m1", "m2", "m3", "late", "b1", "b2"]
        seat.ack()
        assert {fate[1] for fate in office.fates} == {"delivered"}

    def test_the_sums_are_right_where_one_had_dropped_its_text(self) -> None:
        """The older owner's letters have theirs: a cursor there is a gap all the same."""
        clock = Clock()
        oldest, between = Office(clock=clock), Office(epoch=LATER, clock=clock, node="n2")
        between._ids = oldest._ids
        newest = gaining(oldest, name="n3", epoch=LATER + 1)
        for office, count in ((oldest, 3), (between, 300)):
            seat = office.attach()
            for index in range(count):
                office.send(f"{office.node}.{index}")
                seat.ack()
            hand_over(office, newest)
        newest.mailboxes.serve([SLOT])
        box = newest.box()
        assert box.floor == (LATER, 44)
        assert box.kept_bytes == sum(letter.size for letter in box.letters[47:])
        assert newest.attach("a", resume=f"{EPOCH}-1").resumed == "gap"
        assert newest.attach("b", resume=f"{LATER}-44").resumed is True
        newest.pass_time(61)
        assert (box.letters, box.kept_bytes) == ([], 0)

    def test_an_owner_in_between_that_had_nothing_makes_no_gap(self) -> None:
        """Its mailbox began where the older one's ended: a cursor in that is good."""
        clock = Clock()
        oldest, between = Office(clock=clock), Office(epoch=LATER, clock=clock, node="n2")
        between._ids = oldest._ids
        seat = oldest.attach()
        oldest.send("m1")
        oldest.send("m2")
        seat.ack()
        between.attach().leave(clean=False)
        newest = gaining(oldest, name="n3", epoch=LATER + 1)
        hand_over(oldest, newest)
        hand_over(between, newest)
        newest.mailboxes.serve([SLOT])
        back = newest.attach("a", resume=f"{EPOCH}-1")
        assert (back.resumed, back.ids) == (True, ["m2"])

    def test_a_cursor_before_what_came_early_can_be_resumed(self) -> None:
        """The mailbox was made for it, and has all that was numbered behind it."""
        newest = gaining(Office(), name="n3")
        newest.send("m1", routed=EPOCH)
        newest.send("m2", routed=EPOCH)
        newest.mailboxes.serve([SLOT])
        back = newest.attach(resume=f"{EPOCH}-1")
        assert (back.resumed, back.ids) == (True, ["m2"])
        assert newest.attach("b", resume=f"{EPOCH}-0").resumed is True
        assert newest.attach("c", resume=f"{EPOCH - 1}-9").resumed == "gap"

    def test_what_came_early_stands_in_its_place(self) -> None:
        """What a peer routed by the ring before is older than what was numbered between."""
        clock = Clock()
        between = Office(epoch=LATER, clock=clock, node="n2")
        between.mailboxes._moved_until[SLOT] = clock.now + 9
        between.send("m2")
        newest = gaining(between, name="n3", epoch=LATER + 1)
        newest.send("m3", routed=LATER + 1)
        newest.send("m1", routed=EPOCH)
        hand_over(between, newest)
        back = newest.attach()
        assert back.got == []
        newest.mailboxes.serve([SLOT])
        newest.mailboxes.start(newest.box().attachments[0])
        assert back.ids == ["m1", "m2", "m3"]


class TestLate:
    """The new owner serves already when the old one's letters come."""

    def late(self, *, again: bool) -> tuple[Office, Office, Seat]:
        old = Office()
        seat = old.attach()
        old.send("m1", gateway="g1")
        old.send("m2", gateway="g1")
        new = gaining(old)
        back = follow(seat, new)
        new.mailboxes.serve([SLOT])
        if again:
            new.send("m1", again=True, gateway="g2")
        new.send("m3")
        return old, new, back

    def test_its_letters_get_numbers_of_the_new_owner_and_come_marked(self) -> None:
        """Newer ones have been sent already: an old number would be taken for acknowledged."""
        old, new, back = self.late(again=False)
        hand_over(old, new)
        assert back.ids == ["m3", "m1", "m2"]
        assert back.marked == ["m1", "m2"]
        assert [seq for seq, _, _ in back.got] == [(LATER, 1), (LATER, 2), (LATER, 3)]
        back.ack((LATER, 2))
        assert [fate[0] for fate in new.fates] == ["m3", "m1"]
        assert new.told("m1") == [("g1", "delivered", None)]
        new.pass_time(2.1)
        assert new.code("m2") is ErrorCode.OFFLINE

    def test_what_was_sent_again_meanwhile_is_one_message(self) -> None:
        """It comes no second time; who waited for the old one waits for the one that is there."""
        old, new, back = self.late(again=True)
        hand_over(old, new)
        assert back.ids == ["m1", "m3", "m2"]
        back.ack()
        assert sorted(new.told("m1")) == [("g1", "delivered", None), ("g2", "delivered", None)]

    def test_what_has_its_fate_meanwhile_answers_at_once(self) -> None:
        """The gateways that waited for the old one are told."""
        old, new, back = self.late(again=True)
        back.ack()
        assert new.told("m1") == [("g2", "delivered", None)]
        hand_over(old, new)
        assert new.told("m1") == [("g2", "delivered", None), ("g1", "delivered", None)]

    def test_settled_letters_change_nothing(self) -> None:
        """Nobody waits for them."""
        old = Office()
        seat = old.attach()
        old.send("m1")
        seat.ack()
        new = gaining(old)
        back = follow(seat, new)
        new.mailboxes.serve([SLOT])
        hand_over(old, new)
        new.send("m2")
        assert back.ids == ["m2"]

    def test_letters_of_a_backend_without_a_waiter_are_kept_as_they_are(self) -> None:
        """Whoever handed it over twice named nobody: it is delivered, and nobody is told."""
        letter = peer.Letter(
            EPOCH, 1, None, "k", b'{"type":"message","from":null,"id":"k","seq":"7-1","data":1,"sent_at":5}',
            10, 2000, False, "", None, None, None, None, [],
        )  # as a table # fmt: skip
        new = Office()
        seat = new.attach()
        take(new.mailboxes, HandOver("bob", [letter], (EPOCH, 0), 0), new.clock.now)
        assert (seat.ids, seat.marked) == (["k"], ["k"])
        seat.ack()
        assert new.fates == []


class TestBehind:
    """What an owner that had been replaced took: its numbers lie before what sessions have had since."""

    def attach(self, office: Office, *earlier: Seq, session: str = "s", device: str = "d") -> Seat:
        """A session that has had its successor's messages comes back to this owner."""
        seat = Seat(office, session)
        sent = (LATER, 5)
        attach = Attach(0, "bob", device, session, "x", 0, sent, sent, "client", None, list(earlier))
        put_behind(office.mailboxes, attach)
        attached = office.mailboxes.attach(attach, "n1", "n1/1", seat)
        assert attached is not None
        seat.attachment, _ = attached
        office.mailboxes.start(seat.attachment)
        return seat

    def late(self) -> Office:
        """An owner of a later epoch again, with three open letters of its old tenure."""
        office = Office()
        office.mailboxes._moved_until[SLOT] = office.clock.now + 9
        for index in range(3):
            office.send(f"m{index}", gateway="g")
        office.mailboxes.moved(LATER + 1, {SLOT}, ())
        office.mailboxes.serve([SLOT])
        return office

    def test_what_the_session_has_not_had_comes_behind(self) -> None:
        """Marked, under new numbers, and settled by its acknowledgement alone; what it has had is settled."""
        office = self.late()
        seat = self.attach(office, (EPOCH, 1))
        assert [fate[0] for fate in office.fates] == ["m0"]
        assert (seat.ids, seat.marked) == (["m1", "m2"], ["m1", "m2"])
        assert [seq[0] for seq, _, _ in seat.got] == [LATER + 1] * 2
        seat.ack()
        assert [fate[:2] for fate in office.fates] == [(f"m{index}", "delivered") for index in range(3)]
        assert office.told("m1") == [("g", "delivered", None)]
        office.pass_time(70)
        assert len(office.fates) == 3

    def test_of_an_epoch_that_it_never_saw_it_has_had_nothing(self) -> None:
        """All of it comes."""
        assert self.attach(self.late(), (EPOCH - 1, 9)).ids == ["m0", "m1", "m2"]

    def test_what_was_sent_again_meanwhile_is_one_message(self) -> None:
        """Who waits for the old one waits for that."""
        old = Office()
        old.attach("away").leave(clean=False)
        for index in range(3):
            old.send(f"m{index}", gateway="g")
        office = gaining(old, name="n1", epoch=LATER + 1)
        office.send("m1", gateway="h", again=True, routed=LATER + 1)
        hand_over(old, office)
        office.mailboxes.serve([SLOT])
        seat = self.attach(office, (EPOCH, 1))
        assert seat.ids == ["m1", "m2"]
        seat.ack()
        assert office.told("m1") == [("h", "delivered", None), ("g", "delivered", None)]

    def test_its_own_message_stays_where_it_is(self) -> None:
        """It gets no copy of that, and settles it neither here nor there."""
        office = self.late()
        office.box().letters[1].origin = "s"
        seat = self.attach(office, (EPOCH, 1))
        assert seat.ids == ["m2"]
        assert [fate[0] for fate in office.fates] == ["m0"]

    def test_a_session_that_is_new_moves_nothing(self) -> None:
        """It has had nothing; nor is there anything to move without a mailbox."""
        office = self.late()
        put_behind(office.mailboxes, Attach(0, "bob", "d", "s", "x", 0, None, None, "client", None))
        put_behind(office.mailboxes, Attach(0, "zoe", "d", "s", "x", 0, (9, 9), None, "client", None))
        assert [letter.number for letter in office.box().unsettled()] == [1, 2, 3]
