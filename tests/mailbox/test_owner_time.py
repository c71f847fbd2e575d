"""What time does in mailboxes: who is waited for, what is given up, what is forgotten."""

import pytest

from ring.mailbox.owner import Mailboxes
from ring.protocol.codes import ErrorCode
from ring.protocol.names import slot_of
from tests.mailbox.office import EPOCH, Office

SLOT = slot_of("bob")


class TestLinger:
    """A user without a session is waited for where a session may be on its way back."""

    def test_after_a_broken_connection_messages_wait(self) -> None:
        """The session that comes back in time gets them; their senders never hear that it was away."""
        office = Office()
        office.attach().leave(clean=False)
        office.send("m1")
        office.pass_time(1.9)
        office.send("m2")
        back = office.attach()
        assert back.ids == ["m1", "m2"]
        back.ack()
        assert [fate[:2] for fate in office.fates] == [("m1", "delivered"), ("m2", "delivered")]
        office.pass_time(10)
        assert len(office.fates) == 2

    def test_when_nobody_comes_back_they_fail_together(self) -> None:
        """All that waits fails once linger is over, however short it has waited; then the user is offline."""
        office = Office()
        office.attach().leave(clean=False)
        office.send("m1")
        office.pass_time(1.5)
        office.send("m2")
        assert office.fates == []
        office.pass_time(0.6)
        assert (office.code("m1"), office.code("m2")) == (ErrorCode.OFFLINE, ErrorCode.OFFLINE)
        office.send("m3")
        assert office.code("m3") is ErrorCode.OFFLINE

    def test_after_a_goodbye_nobody_waits(self) -> None:
        """A clean close makes the user offline at once, and fails what had not been acknowledged."""
        office = Office()
        seat = office.attach()
        office.send("m1")
        seat.leave(clean=True)
        office.send("m2")
        assert office.code("m2") is ErrorCode.OFFLINE
        office.pass_time(0.1)
        assert office.code("m1") is ErrorCode.OFFLINE

    def test_a_goodbye_after_a_break_is_a_goodbye(self) -> None:
        """The latest end of a last session counts."""
        office = Office()
        office.attach().leave(clean=False)
        office.attach().leave(clean=True)
        office.send("m1")
        assert office.code("m1") is ErrorCode.OFFLINE

    def test_while_another_session_is_there_nothing_lingers(self) -> None:
        """The last session's end alone counts."""
        office = Office()
        phone, laptop = office.attach("phone"), office.attach("laptop")
        phone.leave(clean=False)
        office.send("m1")
        office.pass_time(1)
        laptop.leave(clean=True)
        office.pass_time(0.1)
        assert office.code("m1") is ErrorCode.OFFLINE

    def test_the_senders_own_session_does_not_end_the_waiting(self) -> None:
        """A message to oneself waits for the other device as any message would."""
        office = Office()
        office.attach("laptop").leave(clean=False)
        office.attach("phone", session="mine")
        office.send("m1", sender="bob", origin="mine")
        assert office.fates == []
        laptop = office.attach("laptop")
        assert laptop.ids == ["m1"]

    def test_after_the_slot_moved_its_users_are_waited_for(self) -> None:
        """Their sessions move too: nobody of the slot is offline for as long."""
        office = Office()
        office.mailboxes.moved(EPOCH + 1, {SLOT}, ())
        office.mailboxes.serve([SLOT])
        office.send("m1")
        office.send("x1", to="carol")
        assert office.told("m1") == []
        assert office.code("x1") is ErrorCode.OFFLINE
        office.pass_time(1.9)
        office.send("m2")
        assert office.told("m2") == []
        office.pass_time(0.3)
        assert (office.code("m1"), office.code("m2")) == (ErrorCode.OFFLINE, ErrorCode.OFFLINE)
        office.send("m3")
        assert office.code("m3") is ErrorCode.OFFLINE

    def test_the_next_change_keeps_who_is_still_waited_for(self) -> None:
        """A change that comes right behind does not cut the waiting short, and forgets what is over."""
        office = Office()
        office.mailboxes.moved(EPOCH + 1, {SLOT}, ())
        office.mailboxes.serve([SLOT])
        office.pass_time(1)
        office.mailboxes.moved(EPOCH + 2, set(), ())
        office.send("m1")
        assert office.fates == []
        office.pass_time(3)
        office.mailboxes.moved(EPOCH + 3, set(), ())
        assert office.mailboxes._moved_until == {}


class TestForgetting:
    """A mailbox goes when nothing of it is needed; its numbers are never given again."""

    def test_fates_are_remembered_for_a_minute(self) -> None:
        """What is sent again within 60 s is answered and not delivered again; afterwards it is new."""
        office = Office()
        phone = office.attach()
        office.send("m1")
        phone.ack()
        office.pass_time(59)
        office.send("m1", again=True)
        assert (len(office.told("m1")), phone.ids) == (2, ["m1"])
        office.pass_time(2)
        office.send("m1", again=True)
        assert (len(office.told("m1")), phone.ids) == (2, ["m1", "m1"])

    def test_an_empty_mailbox_is_forgotten(self) -> None:
        """After the last fate and the last session; its timer does not come back."""
        office = Office()
        phone = office.attach()
        office.send("m1")
        phone.ack()
        phone.leave(clean=True)
        office.pass_time(59)
        assert "bob" in office.mailboxes.boxes
        office.pass_time(2)
        assert office.mailboxes.boxes == {}
        office.pass_time(120)
        assert len(office.fates) == 1

    def test_a_mailbox_without_letters_is_forgotten_after_linger(self) -> None:
        """Somebody was there and left."""
        office = Office()
        office.attach().leave(clean=False)
        office.pass_time(1.9)
        assert "bob" in office.mailboxes.boxes
        office.pass_time(0.2)
        assert office.mailboxes.boxes == {}

    def test_a_session_keeps_its_mailbox(self) -> None:
        """However long nothing comes."""
        office = Office()
        phone = office.attach()
        office.send("m1")
        phone.ack()
        office.pass_time(70)
        assert office.box().letters == []
        office.pass_time(70)
        office.send("m2")
        assert phone.ids == ["m1", "m2"]

    def test_a_session_that_moved_away_leaves_no_mailbox(self) -> None:
        """If the slot came back meanwhile nobody hands the mailbox over: it goes by time."""
        office = Office()
        seat = office.attach()
        assert seat.attachment is not None
        office.mailboxes.release(seat.attachment)
        office.pass_time(1.9)
        assert "bob" in office.mailboxes.boxes
        office.pass_time(0.2)
        assert office.mailboxes.boxes == {}

    def test_numbers_are_never_given_twice(self) -> None:
        """A mailbox made anew counts on from the highest number of all that were forgotten."""
        office = Office()
        phone = office.attach()
        for index in range(5):
            office.send(f"m{index}")
        phone.ack()
        phone.leave(clean=True)
        carol = office.attach(user="carol")
        office.send("x", to="carol")
        carol.ack()
        carol.leave(clean=True)
        office.pass_time(70)
        assert office.mailboxes.boxes == {}
        again = office.attach()
        office.send("m9")
        assert (again.start, again.last) == ((EPOCH, 5), (EPOCH, 6))

    def test_untracked_messages_count_too(self) -> None:
        """Their numbers are known to clients as well."""
        office = Office()
        phone = office.attach()
        office.send(None, tracked=False)
        phone.leave(clean=True)
        office.pass_time(0.1)
        assert office.mailboxes.boxes == {}
        again = office.attach()
        office.send("m1")
        assert again.numbers == [2]

    def test_a_new_epoch_numbers_new_mailboxes(self) -> None:
        """Those that are there go on by the epoch that they began in."""
        office = Office()
        phone = office.attach()
        office.mailboxes.moved(EPOCH + 3, set(), ())
        carol = office.attach(user="carol")
        office.send("m1")
        office.send("m2", to="carol")
        assert (phone.last, carol.last) == ((EPOCH, 1), (EPOCH + 3, 1))


@pytest.mark.parametrize("spill_after_s", [0.5, 6.0])
def test_the_time_to_acknowledge_is_a_setting(spill_after_s: float) -> None:
    """As is linger."""
    office = Office()
    told: list[str | None] = []
    mailboxes = Mailboxes(
        node="n1",
        incarnation="1",
        wheel=office.wheel,
        notify=lambda gateway, ref, status, by, code, message: told.append(message),
        linger_s=0.3,
        spill_after_s=spill_after_s,
        clock=office.clock,
    )
    office.mailboxes = mailboxes
    seat = office.attach()
    office.send("m1")
    office.pass_time(spill_after_s - 0.1)
    assert told == []
    office.pass_time(0.2)
    assert told == ["the recipient's client did not acknowledge in time"]
    seat.leave(clean=False)
    office.send("m2")
    office.pass_time(0.25)
    assert len(told) == 1
    office.pass_time(0.15)
    assert told[1:] == ["the recipient is not connected"]


class TestClosed:
    """Slots for which other owners may still hand over."""

    def test_messages_wait_until_it_is_served(self) -> None:
        """Nothing is sent before: what is handed over would come behind it."""
        office = Office()
        seat = office.attach()
        office.mailboxes.moved(EPOCH + 1, {SLOT, 1}, ())
        office.send("m1")
        office.send(None, tracked=False)
        assert seat.got == []
        assert office.mailboxes.dropped_untracked == 1
        office.mailboxes.serve([SLOT])
        assert seat.ids == ["m1"]
        office.send("m2")
        assert seat.ids == ["m1", "m2"]
        assert seat.last[0] == EPOCH + 1, "what comes now is numbered by the epoch that serves"

    def test_one_made_meanwhile_is_closed_too(self) -> None:
        """It makes no difference whether the mailbox was there."""
        office = Office()
        office.mailboxes.moved(EPOCH + 1, {SLOT}, ())
        seat = office.attach()
        office.send("m1")
        other = office.attach(user="carol")
        office.send("x", to="carol")
        assert (seat.ids, other.ids) == ([], ["x"])
        office.mailboxes.serve([SLOT])
        assert seat.ids == ["m1"]

    def test_serving_some_leaves_the_others_closed(self) -> None:
        """Slots open one by one."""
        office = Office()
        office.mailboxes.moved(EPOCH + 1, {SLOT, slot_of("carol")}, ())
        bob, carol = office.attach(), office.attach(user="carol")
        office.send("m1")
        office.send("x", to="carol")
        office.mailboxes.serve([slot_of("carol")])
        assert (bob.ids, carol.ids) == ([], ["x"])

    def test_what_was_routed_by_an_earlier_epoch_is_numbered_by_it(self) -> None:
        """It stands before all that another owner numbered later."""
        office = Office()
        office.mailboxes.moved(EPOCH + 2, {SLOT}, ())
        office.send("late", routed=EPOCH + 2)
        office.send("early", routed=EPOCH)
        office.send("none", routed=0)
        office.mailboxes.serve([SLOT])
        seat = office.attach()
        assert seat.ids == ["early", "late", "none"]
        assert [seq for seq, _, _ in seat.got] == [(EPOCH, 2), (EPOCH + 2, 1), (EPOCH + 2, 3)]

    def test_a_lost_slot_numbers_by_the_last_epoch_that_owned_it(self) -> None:
        """A mailbox made while the slot waits to be handed over belongs to the old tenure."""
        office = Office()
        office.mailboxes.moved(EPOCH + 1, set(), [SLOT])
        office.send("m1")
        letter = office.box().letters[0]
        assert (letter.epoch, letter.number) == (EPOCH, 1)
        assert office.fates == [], "it is waited for as well"
        office.mailboxes.moved(EPOCH + 2, set(), [SLOT])
        assert office.mailboxes.lost_at == {SLOT: EPOCH}
        office.mailboxes.handed_over([SLOT])
        assert office.mailboxes.lost_at == {}

    def test_a_slot_owned_without_knowing_is_adopted_to_be_handed_over(self) -> None:
        """Peers sent by a ring that this node never entered: numbered by that ring, and closed."""
        office = Office()
        office.mailboxes.moved(EPOCH + 2, set(), ())
        office.mailboxes.adopt(SLOT, EPOCH + 1)
        seat = office.attach()
        office.send("m1", routed=EPOCH + 1)
        assert office.box().letters[0].epoch == EPOCH + 1
        assert (seat.got, office.fates) == ([], [])
        office.mailboxes.handed_over([SLOT])
        assert (office.mailboxes.closed, office.mailboxes.lost_at) == (set(), {})
