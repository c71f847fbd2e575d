"""The values that the library hands to its users: what comes, receipts, and the end of a connection."""

from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import UNSET

from ring.protocol import client as wire
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode, RingError


class _Received:
    """What a direct message and one of a room have in common."""

    __slots__ = ("_data", "id", "raw", "sender", "sent_at")

    def __init__(self, received: wire.Message | wire.Room) -> None:
        self.sender = received.from_
        self.id = received.id
        self.sent_at = received.sent_at
        self.raw = received.data
        self._data: object = UNSET

    @property
    def data(self) -> object:
        """What was sent, decoded when first asked for.

        Decoding waits for the reader so that what Python cannot hold spoils one message, not the iteration.

        Raises:
            BadRequest: valid JSON that Python cannot hold: a number out of range, or nested too deep.
        """
        if self._data is UNSET:
            try:
                self._data = msgspec.json.decode(self.raw)
            except (msgspec.DecodeError, RecursionError) as error:
                raise BadRequest(f"data: cannot be decoded here: {error}") from None
        return self._data


class Message(_Received):
    """A direct message, as an iteration over a client gives it.

    Attributes:
        sender: the user who sent it; None for a backend that used the server API.
        id: the sender's id for it; None if it was sent without one.
        seq: its place in this user's mailbox, opaque.
        sent_at: Unix milliseconds, by the clock of the sender's node.
        redelivered: True if a node may have sent it to one of this user's devices before.
        raw: the JSON of the data as it came, for `msgspec.json.decode(message.raw, type=...)`.
    """

    __slots__ = ("redelivered", "seq")

    def __init__(self, received: wire.Message) -> None:
        super().__init__(received)
        self.seq = received.seq
        self.redelivered = received.redelivered is True

    def __repr__(self) -> str:
        return f"<ring.Message {self.seq} from {self.sender!r}, id {self.id!r}, {len(bytes(self.raw))} bytes>"


class RoomMessage(_Received):
    """A message of a room that this client has joined, in the same iteration.

    Attributes:
        room: the room.
        sender: the user who published it; None for a backend that used the server API.
        id: the publisher's id for it.
        sent_at: Unix milliseconds, by the clock of the publisher's node.
        raw: the JSON of the data as it came, for `msgspec.json.decode(message.raw, type=...)`.
    """

    __slots__ = ("room",)

    def __init__(self, received: wire.Room) -> None:
        super().__init__(received)
        self.room = received.room

    def __repr__(self) -> str:
        size = len(bytes(self.raw))
        return f"<ring.RoomMessage in {self.room!r} from {self.sender!r}, id {self.id!r}, {size} bytes>"


@dataclass(frozen=True, slots=True)
class RoomGap:
    """Messages of a room may be missing here: between those before it in the iteration and those behind it.

    Whoever keeps them elsewhere reads there what was missed: all that is published from now on comes.

    Attributes:
        room: the room, of which this client is still a member.
        reason: why, in words.
    """

    room: str
    reason: str


@dataclass(frozen=True, slots=True)
class RoomEnded:
    """This client could not become a member again after a cut, and the library does not try any more.

    Attributes:
        room: the room, from which nothing comes any more unless it is joined anew.
        code: why the node refused.
        reason: the same in words.
    """

    room: str
    code: ErrorCode
    reason: str


Incoming = Message | RoomMessage | RoomGap | RoomEnded
"""What an iteration over a client gives; `Message` alone as long as it joins no room."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a message that was sent. It is final: `queued` too.

    Attributes:
        id: the id that the library gave to the message.
        status: "delivered": a client of the recipient has it. "queued": Redis keeps it until one has, or its
            time is over. "failed": neither, and it will not be tried again.
        by: what proves a delivery: "client", the recipient's program, or "pong", its WebSocket stack.
        code: why it failed; `code.retryable` tells whether the same may succeed later.
        message: the same in words.
    """

    id: str
    status: Literal["delivered", "queued", "failed"]
    by: Literal["client", "pong"] | None = None
    code: ErrorCode | None = None
    message: str | None = None

    @property
    def ok(self) -> bool:
        """True unless it failed."""
        return self.status != "failed"


class ConnectionEnded(RingError):
    """The connection has ended and the library does not connect again.

    Attributes:
        close_code: the WebSocket close code (docs/protocol.md), None if there was no close frame.
        status: the HTTP status if a node refused the connection, else None.
        reason: the node's words.
        code: the wire's error code that comes nearest.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        close_code: int | None = None,
        status: int | None = None,
        code: ErrorCode | None = None,
    ) -> None:
        super().__init__(message, code=code or _CODES.get(close_code))
        self.reason = reason
        self.close_code = close_code
        self.status = status


_CODES: dict[int | None, ErrorCode] = {
    CloseCode.UNAUTHENTICATED: ErrorCode.UNAUTHENTICATED,
    CloseCode.FORBIDDEN: ErrorCode.FORBIDDEN,
    CloseCode.PROTOCOL_ERROR: ErrorCode.BAD_REQUEST,
    CloseCode.UNSUPPORTED_DATA: ErrorCode.BAD_REQUEST,
    CloseCode.INVALID_DATA: ErrorCode.BAD_REQUEST,
    CloseCode.TOO_BIG: ErrorCode.TOO_LARGE,
}
