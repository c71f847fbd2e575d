"""What a client has received: doubles dropped, kept until the application takes it, acknowledged when it did.

Pure. The session (session.py) offers what a node sent, the client (client.py) takes. It outlives the
sessions: what one brought and the application has not taken yet is handed out under the next.

What comes of rooms (rooms.py) waits here too, for the order of arrival to be that of the iteration. It is at
most once: known by no number, acknowledged to nobody, and the first to go when there is no room.
"""

from collections import deque
from dataclasses import dataclass

from ring.client.messages import Incoming, Message, RoomEnded, RoomGap, RoomMessage
from ring.protocol import client as wire

BUFFER_BYTES = 4 * 1024 * 1024
"""At most this much waits for a slow application; a node keeps the rest until there is room again."""

OVERHEAD_BYTES = 512
"""What a waiting message costs beside its text; so at most 8192 wait."""

WINDOW = 16384
"""So many messages are remembered to know their doubles by, however long ago they came: all that wait, and
16 s of 1000 a second, which is longer than a sender goes on sending again (10 s). What is stored, and comes
again after hours, was among the last 256 before a cut: a node sends no more without an acknowledgement."""

_DROPPED = "the program took its messages too slowly: some were dropped"


class Arrival:
    """A message that came, and whether the application has it."""

    __slots__ = ("message", "number", "size")

    def __init__(self, message: wire.Message, number: int, size: int) -> None:
        self.message: wire.Message | None = message  # None: handed out
        self.number = number  # of all that came
        self.size = size


@dataclass(frozen=True, slots=True)
class RoomArrival:
    """Something of a room that came."""

    event: RoomMessage | RoomGap | RoomEnded
    number: int
    size: int


class Inbox:
    """See the module.

    Attributes:
        position: up to here the application has everything that came; None if that is nothing. A new
            session resumes from here.
        unacknowledged: messages of the present session that `position` covers and no acknowledgement has
            told.
        overrun: there was no room. What the session brings from there on is left to the node, in order:
            none of it is kept or acknowledged, and another session brings it once there is room. What
            comes of rooms is taken in all the same, at the cost of what came first: no node keeps any of it.
    """

    __slots__ = (
        "_bytes",
        "_gapped",
        "_keys",
        "_left_over",
        "_numbers",
        "_room_bytes",
        "_rooms",
        "_seen",
        "_tracked",
        "_waiting",
        "overrun",
        "position",
        "unacknowledged",
    )

    def __init__(self) -> None:
        self.position: str | None = None
        self.unacknowledged = 0
        self.overrun = False
        self._waiting: deque[Arrival] = deque()
        self._bytes = 0
        self._tracked: deque[tuple[str, Arrival]] = deque()  # the session's messages behind `position`
        self._seen: dict[tuple[str | None, str] | str, Arrival] = {}
        self._keys: deque[tuple[str | None, str] | str] = deque()  # of `_seen`, the oldest first
        self._rooms: deque[RoomArrival] = deque()
        self._room_bytes = 0
        # What stands for that which was dropped, and came before all of `_rooms`. It is not counted: it is at
        # most a gap and an end for each room.
        self._left_over: deque[RoomArrival] = deque()
        self._gapped: set[str] = set()  # the rooms that have a gap in it
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._rooms) + len(self._left_over)

    @property
    def waiting(self) -> int:
        """How many direct messages wait."""
        return len(self._waiting)

    def new_session(self) -> None:
        """A new session begins: a node takes acknowledgements only of what it sent to that session."""
        self._tracked.clear()
        self.unacknowledged = 0
        self.overrun = False

    def offer(self, received: wire.Message, size: int) -> bool:
        """Takes in a message of `size` bytes; True if the application gets it.

        Doubles are known by sender and id, not by the order of `seq`: what was stored while a mailbox changed
        its owner may come late, with an older number, and is no double.
        """
        if self.overrun:
            return False
        key = (received.from_, received.id) if received.id is not None else received.seq
        arrival = self._seen.get(key)
        if arrival is not None:
            self._tracked.append((received.seq, arrival))
            self._advance()
            return False
        size += OVERHEAD_BYTES
        if self._waiting and self._bytes + size > BUFFER_BYTES:
            self.overrun = True
            return False
        arrival = self._seen[key] = Arrival(received, self._number(), size)
        self._keys.append(key)
        if len(self._keys) > WINDOW:
            del self._seen[self._keys.popleft()]
        self._tracked.append((received.seq, arrival))
        self._waiting.append(arrival)
        self._bytes += size
        self._make_room()
        return True

    def offer_of_room(self, event: RoomMessage | RoomGap | RoomEnded, size: int) -> None:
        """Takes in what came of a room; a gap stands where there was no room for it."""
        size += OVERHEAD_BYTES
        self._rooms.append(RoomArrival(event, self._number(), size))
        self._room_bytes += size
        self._make_room()

    def forget(self, room: str) -> None:
        """Drops what waits of a room: nobody wants it any more."""
        self._rooms = deque(arrival for arrival in self._rooms if arrival.event.room != room)
        self._room_bytes = sum(arrival.size for arrival in self._rooms)
        self._left_over = deque(arrival for arrival in self._left_over if arrival.event.room != room)
        self._gapped.discard(room)

    def take(self) -> Incoming:
        """The oldest that waits, which the application has from now on."""
        of_rooms = self._left_over or self._rooms
        if of_rooms and not (self._waiting and self._waiting[0].number < of_rooms[0].number):
            return self._take_of_room(of_rooms)
        arrival = self._waiting.popleft()
        assert arrival.message is not None
        message, arrival.message = arrival.message, None
        self._bytes -= arrival.size
        self._advance()
        return Message(message)

    def acknowledged(self) -> str:
        """The position to acknowledge; it counts as told."""
        assert self.position is not None
        self.unacknowledged = 0
        return self.position

    def clear(self) -> None:
        """Drops what waits: it was not acknowledged, so a node still has it; but for what came of rooms."""
        self._waiting.clear()
        self._rooms.clear()
        self._left_over.clear()
        self._gapped.clear()
        self._bytes = self._room_bytes = 0

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _advance(self) -> None:
        tracked = self._tracked
        while tracked and tracked[0][1].message is None:
            self.position = tracked.popleft()[0]
            self.unacknowledged += 1

    def _take_of_room(self, source: deque[RoomArrival]) -> RoomMessage | RoomGap | RoomEnded:
        arrival = source.popleft()
        if source is self._rooms:
            self._room_bytes -= arrival.size
        elif isinstance(arrival.event, RoomGap):
            self._gapped.remove(arrival.event.room)
        return arrival.event

    def _make_room(self) -> None:
        """Drops the oldest of rooms until the rest fits; what waits alone may be larger than the bound."""
        while self._bytes + self._room_bytes > BUFFER_BYTES and len(self._rooms) > (not self._waiting):
            oldest = self._rooms.popleft()
            self._room_bytes -= oldest.size
            event = oldest.event
            if isinstance(event, RoomMessage):
                event = RoomGap(event.room, _DROPPED)
            if isinstance(event, RoomGap):
                # What waited of the room between that gap and this was dropped too: one gap covers all of it.
                if event.room in self._gapped:
                    continue
                self._gapped.add(event.room)
            self._left_over.append(RoomArrival(event, oldest.number, 0))
