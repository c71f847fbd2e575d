"""Messages at the owner: their sequence, who gets them, what their senders are told."""

import pytest

from ring.mailbox import owner
from ring.protocol.codes import ErrorCode
from tests.mailbox.office import EPOCH, Office


def test_a_message_gets_the_next_number_and_goes_to_every_session() -> None:
    """Each message carries `<epoch>-<counter>`, counted per recipient, and all devices get it at once."""
    office = Office()
    phone, laptop, carol = office.attach("phone"), office.attach("laptop"), office.attach(user="carol")
    office.send("m1", data=b'{"a": [1, 2]}')
    office.send("m2", sender="carol")
    office.send("m3", to="carol", sender=None)
    for seat in (phone, laptop):
        assert seat.ids == ["m1", "m2"]
        assert [seq for seq, _, _ in seat.got] == [(EPOCH, 1), (EPOCH, 2)]
        assert all(tracked for _, _, tracked in seat.got)
    first = phone.got[0][1]
    assert (first.from_, first.id, bytes(first.data), first.sent_at) == ("alice", "m1", b'{"a": [1, 2]}', 5)
    assert phone.marked == []
    assert [(message.id, message.from_, message.seq) for _, message, _ in carol.got] == [
        ("m3", None, f"{EPOCH}-1")
    ]
    assert office.fates == []


@pytest.mark.parametrize("by", ["client", "pong"])
def test_an_acknowledgement_settles_all_that_was_sent_before_it(by: str) -> None:
    """It is cumulative; the receipts go out in order and say what acknowledged."""
    office = Office()
    phone = office.attach()
    for index in range(4):
        office.send(f"m{index}", gateway=f"g{index}")
    phone.ack((EPOCH, 3), by="client" if by == "client" else "pong")
    assert office.fates == [(f"m{index}", "delivered", by, None) for index in range(3)]
    assert office.told("m1") == [("g1", "delivered", None)]
    phone.ack((EPOCH, 2))
    assert len(office.fates) == 3
    phone.ack()
    assert [fate[0] for fate in office.fates] == ["m0", "m1", "m2", "m3"]


def test_an_acknowledgement_beyond_what_was_sent_settles_what_was_sent() -> None:
    """A sequence from the future acknowledges no message that comes later."""
    office = Office()
    phone = office.attach()
    office.send("m1")
    phone.ack((EPOCH + 1, 9))
    assert [fate[0] for fate in office.fates] == ["m1"]
    office.send("m2")
    assert [fate[0] for fate in office.fates] == ["m1"]


def test_the_first_device_settles_and_the_others_still_get_it() -> None:
    """A message is delivered once one device has it; no second receipt follows when another has it too."""
    office = Office()
    phone, laptop = office.attach("phone"), office.attach("laptop")
    office.send("m1")
    laptop.ack()
    phone.ack()
    late = office.attach("tablet", resume=f"{EPOCH}-0")
    assert (phone.ids, laptop.ids, late.ids) == (["m1"], ["m1"], ["m1"])
    assert office.told("m1") == [("n1", "delivered", None)]


def test_a_message_to_oneself_goes_to_the_other_sessions() -> None:
    """The session that sends gets no copy, and its own acknowledgements never settle the message."""
    office = Office()
    mine = office.attach("phone", session="mine")
    other = office.attach("laptop")
    office.send("m1", sender="bob", origin="mine")
    office.send("m2")
    assert (mine.ids, other.ids) == (["m2"], ["m1", "m2"])
    mine.ack((EPOCH, 2))
    assert office.told("m1") == []
    assert office.told("m2") == [("n1", "delivered", None)]
    other.ack((EPOCH, 1))
    assert office.told("m1") == [("n1", "delivered", None)]


def test_a_message_to_oneself_alone_is_offline() -> None:
    """Where no session but the sender's own is there, nobody could get it."""
    office = Office()
    office.attach(session="mine")
    office.send("m1", sender="bob", origin="mine")
    assert office.code("m1") is ErrorCode.OFFLINE


def test_ones_own_messages_do_not_fill_ones_window() -> None:
    """A session may send any number of messages to its user's other devices and still gets what comes."""
    office = Office()
    mine, other = office.attach("phone", session="mine"), office.attach("laptop")
    for index in range(600):
        office.send(f"m{index}", sender="bob", origin="mine")
        other.ack()
    office.send("last")
    assert mine.ids == ["last"]


def test_nobody_online_is_offline() -> None:
    """A user without a session is told of at once, and leaves nothing behind."""
    office = Office()
    office.send("m1")
    assert office.code("m1") is ErrorCode.OFFLINE
    assert office.told("m1")[0][0] == "n1"
    office.pass_time(0.1)
    assert office.mailboxes.boxes == {}


def test_an_unacknowledged_message_fails_after_a_while() -> None:
    """After `spill_after` its sender is told, exactly once; a later acknowledgement changes nothing."""
    office = Office()
    phone = office.attach()
    office.send("m1")
    office.pass_time(1.9)
    office.send("m2")
    assert office.fates == []
    office.pass_time(0.2)
    assert office.code("m1") is ErrorCode.OFFLINE
    assert office.told("m2") == []
    phone.ack()
    assert len(office.told("m1")) == 1
    assert office.told("m2") == [("n1", "delivered", None)]


def test_what_has_lived_too_long_is_expired() -> None:
    """`ttl_s` below `spill_after` ends a message earlier, with its own code; a longer one changes nothing."""
    office = Office()
    office.attach()
    office.send("short", ttl_ms=500)
    office.send("long", ttl_ms=60_000)
    office.pass_time(0.45)
    assert office.fates == []
    office.pass_time(0.15)
    assert office.code("short") is ErrorCode.EXPIRED
    assert office.told("long") == []
    office.pass_time(1.5)
    assert office.code("long") is ErrorCode.OFFLINE


def test_a_failed_message_does_not_come_any_more() -> None:
    """What was given up before it could be sent is left out, and does not count in the window."""
    office = Office()
    phone = office.attach()
    for index in range(300):
        office.send(f"a{index}")
    assert len(phone.got) == 256
    office.pass_time(2.1)
    office.send("b")
    phone.ack()
    assert phone.ids == [f"a{index}" for index in range(256)] + ["b"]
    assert len(office.fates) == 300
    assert office.told("b") == []
    phone.ack()
    assert office.told("b") == [("n1", "delivered", None)]


def test_failed_messages_alone_do_not_keep_the_window_shut() -> None:
    """A session whose link was away while many messages failed is sent the next one without its asking."""
    office = Office()
    office.attach(gateway="g", handle=1, session="s")
    office.send("first")
    office.mailboxes.acknowledge_remote("g", 1, EPOCH, 1, "client")
    office.mailboxes.suspend("g")
    for index in range(400):
        office.send(f"a{index}")
    office.pass_time(2.1)
    back = office.attach(gateway="g", handle=2, session="s", sent=(EPOCH, 1), acked=(EPOCH, 1))
    office.send("b")
    assert back.ids == ["b"]


class TestUntracked:
    """`receipt:false`: at most once."""

    def test_it_comes_in_order_and_is_not_to_be_acknowledged(self) -> None:
        """It takes a number like all others; nothing is kept and nobody is told."""
        office = Office()
        phone, laptop = office.attach("phone"), office.attach("laptop")
        office.send("m1")
        office.send(None, tracked=False)
        office.send("m3")
        for seat in (phone, laptop):
            assert [(seq[1], message.id, tracked) for seq, message, tracked in seat.got] == [
                (1, "m1", True),
                (2, None, False),
                (3, "m3", True),
            ]
        assert len(office.box().letters) == 2
        phone.ack((EPOCH, 2))
        assert [fate[0] for fate in office.fates] == ["m1"]

    def test_its_own_session_gets_no_copy(self) -> None:
        """Sent to oneself it reaches the others alone; without others it is dropped and counted."""
        office = Office()
        mine, other = office.attach("phone", session="mine"), office.attach("laptop")
        office.send(None, tracked=False, sender="bob", origin="mine")
        assert (len(mine.got), len(other.got)) == (0, 1)
        assert office.mailboxes.dropped_untracked == 0
        other.leave(clean=True)
        office.send(None, tracked=False, sender="bob", origin="mine")
        assert office.mailboxes.dropped_untracked == 1

    def test_nobody_there_drops_it(self) -> None:
        """It is counted, and the mailbox that was made for it goes again."""
        office = Office()
        office.send(None, tracked=False)
        assert office.mailboxes.dropped_untracked == 1
        office.pass_time(0.1)
        assert office.mailboxes.boxes == {}

    def test_a_session_that_lags_does_not_get_it(self) -> None:
        """It would overtake what waits for the window, and be acknowledged before it: it is dropped there."""
        office = Office()
        slow, quick = office.attach("slow"), office.attach("quick")
        for index in range(257):
            office.send(f"m{index}")
            quick.ack()
        office.send(None, tracked=False)
        assert (slow.numbers[-1], quick.numbers[-1]) == (256, 258)
        assert office.mailboxes.dropped_untracked == 0
        slow.ack()
        assert slow.numbers[-1] == 257
        office.send(None, tracked=False)
        assert (slow.numbers[-1], quick.numbers[-1]) == (259, 259)

    def test_a_session_whose_link_is_down_does_not_get_it(self) -> None:
        """There is no way to it, and nothing is kept for later."""
        office = Office()
        seat = office.attach(gateway="g", handle=1)
        office.mailboxes.suspend("g")
        office.send(None, tracked=False)
        assert seat.got == []
        assert office.mailboxes.dropped_untracked == 1


class TestAgain:
    """Messages that their senders, or gateways, send a second time."""

    def test_a_settled_one_is_answered(self) -> None:
        """The recorded fate goes to whoever asks; the recipient gets no double."""
        office = Office()
        phone = office.attach()
        ref = office.send("m1")
        phone.ack()
        office.send("m1", again=True, ref=ref, gateway="g2")
        assert office.told("m1") == [("n1", "delivered", None), ("g2", "delivered", None)]
        assert phone.ids == ["m1"]

    def test_a_failed_one_is_answered_with_its_reason(self) -> None:
        """The code is the recorded one."""
        office = Office()
        office.attach()
        ref = office.send("m1", ttl_ms=100)
        office.pass_time(0.2)
        office.send("m1", again=True, ref=ref)
        assert office.told("m1") == [("n1", "failed", ErrorCode.EXPIRED)] * 2

    def test_an_open_one_gets_a_waiter(self) -> None:
        """Every gateway that asked is told, each reference once."""
        office = Office()
        phone = office.attach()
        first = office.send("m1", gateway="g1")
        office.send("m1", again=True, ref=first, gateway="g1")
        second = office.send("m1", again=True, gateway="g2")
        office.send("m1", again=True, ref=second, gateway="g2")
        third = office.send("m1", again=True, gateway="g1")
        assert third != first
        assert phone.ids == ["m1"]
        phone.ack()
        assert [gateway for gateway, _, _ in office.told("m1")] == ["g1", "g2", "g1"]

    def test_an_unknown_one_is_delivered_and_marked(self) -> None:
        """The recipient may have seen it from another node: it is told so."""
        office = Office()
        phone = office.attach()
        office.send("m1", again=True)
        office.send("m2")
        assert (phone.ids, phone.marked) == (["m1", "m2"], ["m1"])
        phone.ack()
        assert office.told("m1") == [("n1", "delivered", None)]

    def test_an_untracked_repeat_of_a_known_one_is_dropped(self) -> None:
        """Nobody waits for an answer, and the recipient has it, or will."""
        office = Office()
        phone = office.attach()
        office.send("m1")
        office.send("m1", again=True, tracked=False)
        phone.ack()
        office.send("m1", again=True, tracked=False)
        assert phone.ids == ["m1"]
        assert office.told("m1") == [("n1", "delivered", None)]

    def test_the_same_id_of_another_sender_is_another_message(self) -> None:
        """Messages are told apart by sender and id."""
        office = Office()
        phone = office.attach()
        office.send("m1")
        office.send("m1", sender="carol", again=True)
        office.send("m1", sender=None, again=True)
        assert phone.ids == ["m1", "m1", "m1"]

    def test_without_the_mark_the_same_id_is_a_new_message(self) -> None:
        """Only what says that it may be a repeat is looked up; the later one is what is found then."""
        office = Office()
        phone = office.attach()
        office.send("m1", again=True)  # the index is there
        phone.ack()
        office.send("m1")
        assert phone.ids == ["m1", "m1"]
        office.send("m1", again=True)
        assert len(office.told("m1")) == 1  # it waits with the second

    def test_a_new_message_is_found_by_an_index_that_is_there_already(self) -> None:
        """The first question makes the index; what comes later is in it."""
        office = Office()
        phone = office.attach()
        office.send("m1", again=True)
        office.send("m2")
        office.send("m2", again=True)
        assert phone.ids == ["m1", "m2"]


class TestFull:
    """A mailbox holds so many letters without a fate."""

    def test_by_letters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beyond the bound senders are told `mailbox_full`, until there is room again."""
        monkeypatch.setattr(owner, "UNSETTLED_LETTERS", 10)
        office = Office()
        phone = office.attach()
        for index in range(12):
            office.send(f"m{index}")
        assert [(fate[0], fate[3]) for fate in office.fates] == [("m11", ErrorCode.MAILBOX_FULL)]
        phone.ack()
        office.send("next")
        assert phone.ids[-1] == "next"

    def test_by_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Large letters fill it earlier."""
        monkeypatch.setattr(owner, "UNSETTLED_BYTES", 10_000)
        office = Office()
        phone = office.attach()
        for index in range(12):
            office.send(f"m{index}", data=b'"%s"' % (b"x" * 1000))
        assert office.code("m11") is ErrorCode.MAILBOX_FULL
        full = [fate[0] for fate in office.fates]
        assert full == [f"m{index}" for index in range(len(phone.got), 12)]
        assert 8 <= len(phone.got) <= 10
        phone.ack()
        assert office.box().unsettled_bytes == 0
        office.send("next")
        assert phone.ids[-1] == "next"
