"""A raw client that is in rooms: every copy as it came, and every answer to every command."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import trio

from ring.protocol import client as wire
from ring.protocol.websocket import TEXT
from tests.integration.raw import RawClient, Text

Answer = wire.Ok | wire.Error
_decode_text = msgspec.json.Decoder(Text).decode


class Copy(NamedTuple):
    """A message of a room at one of its members."""

    room: str
    sender: str
    n: int


class InRooms(RawClient, ABC):
    """A `RawClient` that hears of rooms, and the answers to its commands; its kinds say what it asks for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.answers: dict[str, list[Answer]] = {}  # by id, once the command was sent
        self.gaps: list[wire.Error] = []  # that named a room
        self._commands = 0

    def _command(self, make: Callable[[str], wire.ClientMessage]) -> str:
        frame_id = f"{self.user}:{self._commands}"
        self._commands += 1
        self.answers[frame_id] = []
        self.write(TEXT, wire.encode(make(frame_id)))
        return frame_id

    async def answer(self, frame_id: str) -> Answer:
        """Waits for the answer to a command."""
        await self.watch.until(lambda: bool(self.answers[frame_id]))
        return self.answers[frame_id][0]

    @abstractmethod
    def _copy(self, message: wire.Room) -> None:
        """Somebody said this in a room."""

    def _hear(self, now: float, payload: bytes, *others: Any) -> None:
        message = wire.decode_server(payload)
        match message:
            case wire.Room():
                self._copy(message)
            case wire.Ok() | wire.Error() if message.id in self.answers:
                assert isinstance(message.id, str)
                self.answers[message.id].append(message)
            case wire.Error() if isinstance(message.room, str):
                self.gaps.append(message)
            case _:
                super()._hear(now, payload, *others)


class Roommate(InRooms):
    """Joins, leaves and publishes numbers by plain calls; each returns the id of its command."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.copies: list[Copy] = []
        self.published = 0

    def join(self, room: str) -> str:
        """Sends a join."""
        return self._command(lambda frame_id: wire.Join(frame_id, room))

    def leave(self, room: str) -> str:
        """Sends a leave."""
        return self._command(lambda frame_id: wire.Leave(frame_id, room))

    def publish(self, room: str, *, echo: bool = False, pad: str = "") -> str:
        """Publishes the next message; their numbers go on over all rooms."""
        data = msgspec.Raw(msgspec.json.encode(Text(self.published, pad)))
        self.published += 1
        return self._command(lambda frame_id: wire.Publish(frame_id, room, data, echo))

    async def done(self, frame_id: str) -> None:
        """Waits until it is done."""
        answer = await self.answer(frame_id)
        assert isinstance(answer, wire.Ok), answer

    def of(self, room: str) -> list[tuple[str, int]]:
        """Sender and number of what came of a room, in order."""
        return [(copy.sender, copy.n) for copy in self.copies if copy.room == room]

    def _copy(self, message: wire.Room) -> None:
        assert message.from_ is not None
        self.copies.append(Copy(message.room, message.from_, _decode_text(message.data).n))


async def joined(nursery: trio.Nursery, room: str, *clients: Roommate) -> None:
    """Has clients connect and join."""
    for client in clients:
        await nursery.start(client.run)
    for client, frame_id in [(client, client.join(room)) for client in clients]:
        await client.done(frame_id)
