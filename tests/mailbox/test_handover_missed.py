"""Letters that a session missed: taken by an owner that was replaced, numbered before what came since."""

from ring.mailbox.handover import pack, put_behind, take
from ring.protocol.peer import Attach, Seq
from tests.mailbox.moving import LATER, SLOT, follow, gaining, hand_over, wired
from tests.mailbox.office import EPOCH, Office, Seat, stored_office


def replaced() -> tuple[Office, Office]:
    """Node n1, which does not know yet that it has been replaced, and the one that is to own the slot."""
    old = Office()
    old.mailboxes._moved_until[SLOT] = old.clock.now + 9
    return old, gaining(old, name="n3", epoch=LATER + 1)


def merge(old: Office, new: Office) -> None:
    """What the old owner has goes to the new one."""
    for item in wired(pack(old.box(), old.clock.now)):
        take(new.mailboxes, item, new.clock.now)


def come(office: Office, *, sent: Seq, earlier: list[Seq], session: str = "n1.1") -> Seat:
    """A session attaches that got so far under other owners."""
    attach = Attach(1, "bob", "phone", session, "1.2.3.4:5", 0, sent, sent, "client", None, earlier)
    put_behind(office.mailboxes, attach)
    return office.attach("phone", session=session, sent=sent, acked=sent, gateway="n1", handle=1)


def test_they_come_behind_what_it_was_sent() -> None:
    """Under new numbers, marked; an acknowledgement of what came before does not count for them."""
    old, new = replaced()
    for message_id in ("m1", "m2", "m3"):
        old.send(message_id)
    merge(old, new)
    new.mailboxes.serve([SLOT])
    seat = come(new, sent=(LATER, 5), earlier=[(EPOCH, 1)])
    assert new.fates == [("m1", "delivered", "client", None)], "it says that it got the first"
    assert seat.ids == seat.marked == ["m2", "m3"]
    assert [seq[0] for seq, _, _ in seat.got] == [LATER + 1] * 2
    seat.ack()
    assert [fate[:2] for fate in new.fates[1:]] == [("m2", "delivered"), ("m3", "delivered")]
    new.send("m2", again=True)
    assert seat.ids == ["m2", "m3"]
    assert new.told("m2")[-1][1] == "delivered"


def test_of_an_epoch_that_the_session_does_not_know_all_come() -> None:
    """Rather twice than not at all."""
    old, new = replaced()
    old.send("m1")
    merge(old, new)
    new.mailboxes.serve([SLOT])
    assert come(new, sent=(LATER, 5), earlier=[]).ids == ["m1"]


def test_what_was_sent_again_since_comes_once() -> None:
    """Who waits for the one that the old owner has is told the fate of the other."""
    old, new = replaced()
    old.send("m1", gateway="n2")
    merge(old, new)
    between = Office(epoch=LATER, clock=old.clock, node="n2")
    between._ids = old._ids
    there = between.attach(session="n1.1", gateway="n1", handle=1)
    between.send("m1", again=True)
    there.ack()
    merge(between, new)
    new.mailboxes.serve([SLOT])
    assert come(new, sent=there.last, earlier=[]).got == []
    assert new.told("m1") == [("n2", "delivered", None)]


def test_the_session_that_sent_it_gets_no_copy() -> None:
    """As ever: what a user sends to itself is for its other sessions."""
    old, new = replaced()
    old.send("m1", sender="bob", origin="n1.1")
    merge(old, new)
    new.mailboxes.serve([SLOT])
    assert come(new, sent=(LATER, 5), earlier=[]).got == []
    assert come(new, sent=(LATER, 5), earlier=[], session="n1.2").ids == ["m1"]


def test_what_the_session_has_still_to_get_stays_where_it_is() -> None:
    """Letters behind what it was sent need no new number, and a new session gets all anyway."""
    old, new = replaced()
    old.send("m1")
    old.send("m2")
    merge(old, new)
    new.mailboxes.serve([SLOT])
    seat = come(new, sent=(EPOCH, 1), earlier=[])
    assert [seq for seq, _, _ in seat.got] == [(EPOCH, 2)]
    put_behind(new.mailboxes, Attach(2, "carol", "d", "n1.9", "", 0, (EPOCH, 1), None, "client", None))
    put_behind(new.mailboxes, Attach(3, "bob", "d", "n1.9", "", 0, None, None, "client", None))
    assert new.box().end - new.box().base == 2


def test_a_client_that_comes_back_has_what_it_was_sent_before_the_change() -> None:
    """It follows to the new owner, acknowledges nothing and connects anew: nothing comes twice."""
    old = Office()
    seat = old.attach()
    old.send("m1")
    new = gaining(old)
    hand_over(old, new)
    follow(seat, new)
    new.mailboxes.serve([SLOT])
    new.send("m2")
    back = new.attach(resume=f"{LATER}-1")
    assert (back.resumed, back.got) == (True, [])
    new.send("m3")
    assert back.ids == ["m3"]
    back.ack()
    assert [fate[:2] for fate in new.fates] == [(f"m{n}", "delivered") for n in (1, 2, 3)]


def test_a_cursor_of_an_owner_between_says_nothing_of_what_came_late() -> None:
    """That owner never had what its predecessor took without knowing of it."""
    old, new = replaced()
    old.send("m1")
    merge(old, new)
    new.mailboxes.serve([SLOT])
    back = new.attach(resume=f"{LATER}-5")
    assert back.ids == ["m1"]


def test_what_was_found_in_redis_and_nobody_had_is_missed_by_whoever_comes_later() -> None:
    """It stays found when it is handed over: its number alone says that somebody must have had it.

    The first owner could not read what Redis kept, and sent a session what came later. The next one read it
    while that session was not there, and handed it over to a third.
    """
    first = stored_office()
    first.send("kept")
    first.spend(5)
    first.redis = False
    seat = first.attach(session="n1.x", gateway="n9", handle=5)
    first.be_away(3)
    first.send("m2")
    assert seat.ids == ["m2"], "it does not wait for Redis"

    second = Office(epoch=EPOCH, clock=first.clock, node="n2", store=first.store)
    second._ids = first._ids
    second.mailboxes.moved(LATER, {SLOT}, ())
    second.mailboxes.serve([SLOT])
    second.attach("tablet").leave(clean=False)
    second.carry()

    third = gaining(first, name="n3", epoch=LATER + 1)
    hand_over(second, third)
    third.mailboxes.serve([SLOT])
    attach = Attach(1, "bob", "phone", "n1.x", "", 0, seat.last, (EPOCH, 0), "client", None, [])
    seats: list[Seat] = []

    def come() -> None:
        if third.mailboxes.ready("bob", come, seat.last):
            put_behind(third.mailboxes, attach)
            sent, acked = seat.last, (EPOCH, 0)
            seats.append(third.attach(session="n1.x", sent=sent, acked=acked, gateway="n1", handle=1))

    come()
    third.carry()
    third.send("m3")
    assert sorted(filter(None, seats[0].ids)) == ["kept", "m3"]
    seats[0].ack()
    third.carry()
    assert third.kept() == []
