"""What a client has received of rooms: its place among direct messages, and what goes first."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.client import inbox as inbox_module
from ring.client.inbox import OVERHEAD_BYTES, Inbox
from ring.client.messages import Incoming, Message, RoomEnded, RoomGap, RoomMessage
from ring.protocol import client as protocol
from ring.protocol.codes import ErrorCode

PLACES = 4  # so many messages wait in these tests
TEXT = 100


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Inbox:
    """An inbox with room for four."""
    monkeypatch.setattr(inbox_module, "BUFFER_BYTES", PLACES * (OVERHEAD_BYTES + TEXT))
    return Inbox()


def direct(inbox: Inbox, number: int) -> bool:
    """Offers a direct message."""
    data = msgspec.Raw(str(number).encode())
    message = protocol.Message(from_="bob", id=f"m{number}", seq=f"1-{number}", data=data, sent_at=0)
    return inbox.offer(message, TEXT)


def said(inbox: Inbox, number: int, room: str = "lobby", size: int = TEXT) -> None:
    """Offers a message of a room."""
    data = msgspec.Raw(str(number).encode())
    message = protocol.Room(room=room, from_="bob", id=f"r{number}", data=data, sent_at=0)
    inbox.offer_of_room(RoomMessage(message), size)


def name(incoming: Incoming) -> str:
    """The id of a message; or what else came, and of which room."""
    match incoming:
        case Message(id=message_id) | RoomMessage(id=message_id):
            return str(message_id)
        case RoomGap(room=room):
            return f"gap {room}"
        case RoomEnded(room=room):
            return f"end {room}"


def rest(inbox: Inbox) -> list[str]:
    """The names of all that waits; it is taken."""
    return [name(inbox.take()) for _ in range(len(inbox))]


def test_rooms_keep_their_place_among_direct_messages(inbox: Inbox) -> None:
    """What came first is taken first, whatever it is."""
    said(inbox, 1)
    direct(inbox, 2)
    inbox.offer_of_room(RoomGap("lobby", "why"), 0)
    said(inbox, 3)

    assert len(inbox) == 4
    assert inbox.waiting == 1
    assert rest(inbox) == ["r1", "m2", "gap lobby", "r3"]
    assert not inbox


def test_rooms_leave_positions_alone(inbox: Inbox) -> None:
    """They are acknowledged to nobody, and hold up no acknowledgement of what came behind them."""
    said(inbox, 1)
    direct(inbox, 1)
    said(inbox, 2)
    direct(inbox, 2)
    inbox.take()
    assert (inbox.position, inbox.unacknowledged) == (None, 0)
    inbox.take()
    assert (inbox.position, inbox.unacknowledged) == ("1-1", 1)
    inbox.take()
    assert (inbox.position, inbox.unacknowledged) == ("1-1", 1)
    inbox.take()
    assert inbox.acknowledged() == "1-2"


def test_oldest_of_rooms_go_and_a_gap_takes_their_place(inbox: Inbox) -> None:
    """One gap of a room stands for all of it that was dropped, where that was."""
    for number in range(1, 4):
        said(inbox, number)
    direct(inbox, 1)
    for number in range(4, 6):
        said(inbox, number)

    assert rest(inbox) == ["gap lobby", "r3", "m1", "r4", "r5"]


def test_each_room_has_its_gap(inbox: Inbox) -> None:
    """What was dropped of two rooms is told of both, and once each."""
    for number in range(1, 5):
        said(inbox, number, "ab"[number % 2])
    for number in range(5, 9):
        said(inbox, number)

    assert rest(inbox) == ["gap b", "gap a", "r5", "r6", "r7", "r8"]


def test_gap_that_was_taken_is_followed_by_another(inbox: Inbox) -> None:
    """What is dropped after the application has heard of a gap is another one."""
    for number in range(1, 6):
        said(inbox, number)
    assert name(inbox.take()) == "gap lobby"
    said(inbox, 6)

    assert rest(inbox) == ["gap lobby", "r3", "r4", "r5", "r6"]


def test_direct_messages_are_not_dropped_for_rooms(inbox: Inbox) -> None:
    """With nothing of rooms left to drop, what comes of one is the gap itself."""
    for number in range(1, 5):
        assert direct(inbox, number)
    said(inbox, 1)

    assert rest(inbox) == ["m1", "m2", "m3", "m4", "gap lobby"]


def test_rooms_make_way_for_direct_messages(inbox: Inbox) -> None:
    """A node would have to send it again; what came of rooms gives way first."""
    for number in range(1, 5):
        said(inbox, number)
    for number in range(1, 5):
        assert direct(inbox, number)
    assert not direct(inbox, 5)

    assert inbox.overrun
    assert rest(inbox) == ["gap lobby", "m1", "m2", "m3", "m4"]


def test_what_came_of_rooms_does_not_overrun(inbox: Inbox) -> None:
    """The session need not end for it: only direct messages are left to the node."""
    for number in range(1, 20):
        said(inbox, number)

    assert not inbox.overrun
    assert len(inbox) == PLACES + 1


def test_message_of_a_room_beyond_the_bound_passes_alone(inbox: Inbox) -> None:
    """Nothing is too large to be received; it gives way to whatever comes next."""
    said(inbox, 1, size=100_000)
    assert rest(inbox) == ["r1"]
    said(inbox, 1, size=100_000)
    said(inbox, 2)

    assert rest(inbox) == ["gap lobby", "r2"]


def test_told_gaps_and_ends_are_not_dropped(inbox: Inbox) -> None:
    """What a node told of a gap is told once with what is dropped here; that a membership ended stays."""
    inbox.offer_of_room(RoomGap("a", "told"), 0)
    inbox.offer_of_room(RoomEnded("b", ErrorCode.FORBIDDEN, "not you"), 0)
    for number in range(1, 7):
        said(inbox, number, "a")

    first = inbox.take()
    assert first == RoomGap("a", "told")
    assert rest(inbox) == ["end b", "r3", "r4", "r5", "r6"]


def test_forgotten_room_is_forgotten_wholly(inbox: Inbox) -> None:
    """Messages, gaps and ends of it go, those of others stay; there is room again."""
    for number in range(1, 4):
        said(inbox, number, "a")
        said(inbox, number + 10, "b")
    inbox.offer_of_room(RoomEnded("a", ErrorCode.FORBIDDEN, "not you"), 0)
    inbox.forget("a")
    assert len(inbox) == 3
    said(inbox, 4, "a")
    said(inbox, 5, "a")

    assert rest(inbox) == ["gap b", "r12", "r13", "r4", "r5"]


def test_forgotten_gap_is_told_anew(inbox: Inbox) -> None:
    """What is dropped of a room that was joined again is another gap."""
    for number in range(1, 6):
        said(inbox, number)
    inbox.forget("lobby")
    assert not inbox
    for number in range(1, 6):
        said(inbox, number)

    assert rest(inbox) == ["gap lobby", "r2", "r3", "r4", "r5"]


def test_what_was_taken_makes_room(inbox: Inbox) -> None:
    """However much has passed, nothing is dropped as long as no more waits than may."""
    for number in range(1, 20, 2):
        said(inbox, number)
        said(inbox, number + 1)
        assert rest(inbox) == [f"r{number}", f"r{number + 1}"]


def test_cleared_inbox_holds_nothing_of_rooms(inbox: Inbox) -> None:
    """When there will be no session, what came of rooms goes too; and its room."""
    for number in range(1, 10):
        said(inbox, number)
    inbox.clear()
    assert not inbox
    for number in range(1, PLACES + 1):
        said(inbox, number)
    assert rest(inbox) == ["r1", "r2", "r3", "r4"]


STEPS = st.one_of(
    st.tuples(st.just("said"), st.sampled_from("abc"), st.integers(1, 2)),
    st.tuples(st.just("direct"), st.just(""), st.integers(1, 2)),
    st.tuples(st.just("take"), st.just(""), st.integers(1, 3)),
)


@given(st.lists(STEPS, max_size=60))
def test_nothing_of_a_room_is_missing_without_a_gap(steps: list[tuple[str, str, int]]) -> None:
    """Whatever comes and is taken: direct messages come whole and in order, those of a room in order, and
    between two of a room of which one between them is missing there is a gap; memory stays bounded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inbox_module, "BUFFER_BYTES", PLACES * (OVERHEAD_BYTES + TEXT))
        inbox = Inbox()
        came, numbers = 0, dict.fromkeys("abc", 0)
        taken: list[Incoming] = []
        for what, room, count in steps:
            for _ in range(count):
                if what == "said":
                    numbers[room] += 1
                    said(inbox, numbers[room], room)
                elif what == "direct" and direct(inbox, came + 1):
                    came += 1
                elif what == "take" and inbox:
                    taken.append(inbox.take())
            assert len(inbox) <= PLACES + len(numbers)
        taken += [inbox.take() for _ in range(len(inbox))]

    assert [one.seq for one in taken if isinstance(one, Message)] == [f"1-{n}" for n in range(1, came + 1)]
    for room, last in numbers.items():
        reached, gapped = 0, False
        for one in taken:
            if isinstance(one, RoomGap) and one.room == room:
                gapped = True
            elif isinstance(one, RoomMessage) and one.room == room:
                number = int(bytes(one.raw))
                # A gap where nothing is missing would be a false alarm.
                assert (number > reached + 1) is gapped
                reached, gapped = number, False
        assert (last > reached) is gapped
