"""A member whose room drops the oldest: what is sent, what waits, what goes, and what it is told."""

from collections import defaultdict

from ring.protocol.codes import ErrorCode
from ring.protocol.websocket import TEXT, encode_frame
from ring.rooms.member import Member
from tests.rooms.fakes import FakeSocket

BACKLOG = 500


def frame(n: int, size: int = 100) -> bytes:
    """A frame of `size` bytes that can be told from others."""
    return encode_frame(TEXT, f'{{"type":"room","n":{n}}}'.encode().ljust(size - 2))


class Slow:
    """A member whose client does not read until `reads`."""

    def __init__(self) -> None:
        self.socket = FakeSocket()
        self.errors: defaultdict[ErrorCode, int] = defaultdict(int)
        self.member = Member(1, "alice", self.socket, BACKLOG, self.errors)
        self.socket.stalled = True

    def offer(self, *numbers: int, room: str = "r", size: int = 100) -> int:
        return sum(self.member.offer(room, frame(n, size)) for n in numbers)

    def reads(self) -> list[int | dict[str, object]]:
        """It reads all; returns what it got, messages by their number."""
        self.socket.queued = 0
        self.member.on_drained()
        return [got["n"] if got["type"] == "room" else got for got in self.socket.heard()]


def test_who_reads_gets_all_at_once() -> None:
    """Nothing waits, and the socket keeps its own mark."""
    slow = Slow()
    slow.socket.stalled = False
    assert slow.offer(*range(50)) == 0
    assert [got["n"] for got in slow.socket.heard()] == list(range(50))
    slow.member.on_drained()
    assert (slow.socket.heard(), slow.socket.low_water) == ([], 1000)


def test_what_waits_comes_in_order() -> None:
    """A share of the output is sent at once, as much waits behind it, and nothing is lost."""
    slow = Slow()
    assert slow.offer(*range(10)) == 0
    assert slow.socket.queued == BACKLOG
    assert [got["n"] for got in slow.socket.heard()] == [0, 1, 2, 3, 4]
    assert slow.socket.low_water == 0, "it wants to hear when all is sent"
    assert slow.reads() == [5, 6, 7, 8, 9]
    assert slow.socket.low_water == 1000
    assert slow.offer(10) == 0, "it waits again: five are queued"
    assert slow.reads() == [10]


def test_the_oldest_go_and_the_client_is_told() -> None:
    """Before what is left, how many of each room; the newest are there."""
    slow = Slow()
    assert slow.offer(0, 1, 2, 3, 4) == 0
    assert slow.offer(5, 6, room="a") == 0
    assert slow.offer(7, 8, 9) == 0
    assert slow.offer(10, room="b") == 1
    assert slow.offer(11, 12) == 2
    slow.socket.heard()
    first, second, *rest = slow.reads()
    assert first == {
        "type": "error",
        "code": "busy",
        "message": "the client reads too slowly: 2 messages of this room dropped",
        "retryable": True,
        "room": "a",
    }
    assert isinstance(second, dict)
    assert (second["room"], second["message"]) == (
        "r",
        "the client reads too slowly: 1 message of this room dropped",
    )
    assert rest == [8, 9, 10, 11, 12]
    assert slow.errors == {"busy": 2}


def test_what_comes_behind_waits_too() -> None:
    """Also where the socket has room again: a newer one never overtakes an older one."""
    slow = Slow()
    slow.offer(*range(6))
    slow.socket.heard()
    slow.socket.queued = 1
    slow.offer(6)
    assert slow.socket.heard() == []
    assert slow.reads() == [5, 6]


def test_one_message_is_always_kept() -> None:
    """However long: it is the newest, and all others go for it."""
    slow = Slow()
    slow.offer(*range(7))
    slow.socket.heard()
    assert slow.offer(7, size=2 * BACKLOG) == 2
    assert slow.reads()[1:] == [7]


def test_one_is_always_sent() -> None:
    """However long, if nothing is queued: nobody would come back for it."""
    slow = Slow()
    slow.offer(0, size=2 * BACKLOG)
    assert [got["n"] for got in slow.socket.heard()] == [0]
    slow.offer(1)
    assert slow.reads() == [1]


def test_what_is_not_of_rooms_is_not_held_up() -> None:
    """Answers, and direct messages, go to the socket while rooms wait."""
    slow = Slow()
    slow.offer(*range(9))
    slow.socket.heard()
    slow.member.confirm("c1")
    assert slow.socket.heard() == [{"type": "ok", "id": "c1"}]


def test_a_room_that_is_left_is_forgotten() -> None:
    """Neither what waits of it nor what it lost is told; others' messages come."""
    slow = Slow()
    slow.offer(*range(5))
    slow.offer(5, 6, 7, room="left")
    slow.offer(8, 9)
    slow.offer(10, room="left")
    slow.socket.heard()
    slow.member.forget("left")
    assert slow.offer(11, 12, 13) == 0, "there is room again"
    assert slow.reads() == [8, 9, 11, 12, 13]
    slow.member.forget("left")


def test_a_closing_connection_gets_nothing() -> None:
    """It will never be drained: nothing is kept for it."""
    slow = Slow()
    slow.offer(*range(5))
    slow.socket.heard()
    slow.socket.open = False
    assert slow.offer(5) == 0
    assert slow.socket.low_water == 1000, "nothing waits for it to be drained"
    assert slow.reads() == []
