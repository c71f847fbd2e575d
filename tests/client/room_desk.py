"""A client's rooms on a desk of their own, for tests: no session, no clock but the test's."""

import msgspec

from ring.client.backoff import Backoff
from ring.client.inbox import Inbox
from ring.client.messages import RoomGap, RoomMessage
from ring.client.rooms import Asked, Frame, Rooms
from ring.protocol import client as wire
from ring.protocol.codes import ErrorCode

UNAVAILABLE = (ErrorCode.ROOMS_UNAVAILABLE, "Redis is away")
TOO_MANY = (ErrorCode.TOO_MANY_ROOMS, "at most 1 room")


class Desk:
    """Rooms, a clock, and what was settled."""

    def __init__(self, in_flight: int = 16) -> None:
        self.inbox = Inbox()
        self.rooms = Rooms(self.inbox, Backoff(first_s=1, cap_s=4, draw=lambda: 1))
        self.now = 0.0
        self.settled: list[str] = []
        self.in_flight = in_flight
        self.rooms.begin(in_flight)

    def join(self, room: str, name: str = "join") -> Asked:
        return self.rooms.join(room, lambda: self.settled.append(name))

    def leave(self, room: str, name: str = "leave") -> Asked:
        return self.rooms.leave(room, lambda: self.settled.append(name))

    def publish(self, room: str, text: str, *, echo: bool = False) -> Asked:
        return self.rooms.publish(
            room, msgspec.Raw(text.encode()), echo, lambda: self.settled.append(f"publish {text}")
        )

    def written(self) -> list[Frame]:
        """Everything that may be written now."""
        frames = []
        while (frame := self.rooms.next(self.now)) is not None:
            frames.append(frame)
        return frames

    def answer(self, frame: Frame, refusal: tuple[ErrorCode, str] | None = None) -> None:
        assert self.rooms.answer(frame.id, refusal, self.now)

    def be_in(self, *rooms: str) -> None:
        """Joins them, which is granted."""
        for room in rooms:
            self.join(room)
        for frame in self.written():
            self.answer(frame)
        self.settled.clear()

    def again(self) -> list[Frame]:
        """Another session; what it asks for."""
        self.rooms.cut()
        self.rooms.begin(self.in_flight)
        return self.written()

    def say(self, room: str) -> bool:
        return self.rooms.offer(
            wire.Room(room=room, from_="bob", id="1", data=msgspec.Raw(b"1"), sent_at=0), 1
        )

    def came(self) -> list[object]:
        """What waits: the rooms of messages, and what else there is."""
        taken = [self.inbox.take() for _ in range(len(self.inbox))]
        return [one.room if isinstance(one, RoomMessage) else one for one in taken]


def kinds(frames: list[Frame]) -> list[tuple[str, str]]:
    """What frames ask for."""
    return [(type(frame).__name__, frame.room) for frame in frames]


def gaps(came: list[object]) -> list[str]:
    """The rooms of gaps, and nothing else there may be."""
    assert all(isinstance(one, RoomGap) for one in came)
    return [one.room for one in came if isinstance(one, RoomGap)]
