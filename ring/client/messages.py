"""The values that the library hands to its users: `Message`, `Receipt` and the end of a connection."""

from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import UNSET

from ring.protocol import client as wire
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode, RingError


class Message:
    """A direct message, as an iteration over a client gives it.

    Attributes:
        sender: the user who sent it; None for a backend that used the server API.
        id: the sender's id for it; None if it was sent without one.
        seq: its place in this user's mailbox, opaque.
        sent_at: Unix milliseconds, by the clock of the sender's node.
        redelivered: True if a node may have sent it to one of this user's devices before.
        raw: the JSON of the data as it came, for `msgspec.json.decode(message.raw, type=...)`.
    """

    __slots__ = ("_data", "id", "raw", "redelivered", "sender", "sent_at", "seq")

    def __init__(self, received: wire.Message) -> None:
        self.sender = received.from_
        self.id = received.id
        self.seq = received.seq
        self.sent_at = received.sent_at
        self.redelivered = received.redelivered is True
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

    def __repr__(self) -> str:
        return f"<ring.Message {self.seq} from {self.sender!r}, id {self.id!r}, {len(bytes(self.raw))} bytes>"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a message that was sent. It is final: `queued` too.

    Attributes:
        id: the id that the library gave to the message.
        status: "delivered": a client of the recipient has it. "queued": stored until one comes.
            "failed": neither, and it will not be tried again.
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
