"""One direct message at its recipient's owner, and what its sender is told about it."""

from collections.abc import Callable
from typing import Literal

from msgspec import Raw, Struct, json

from ring.protocol.client import Message, encode, format_seq
from ring.protocol.codes import ErrorCode
from ring.protocol.peer import Seq

NEVER = float("inf")

_decode_message = json.Decoder(Message).decode

Status = Literal["delivered", "queued", "failed"]
By = Literal["client", "pong"]


class Letter(Struct, gc=False):
    """A tracked message. `status` is what its sender has been told, None while there is nothing to tell.

    A letter is *unsettled* as long as it may have to be delivered: until a client has acknowledged it, or it
    has been given up. One that Redis keeps is unsettled too, though its sender knows that it is `queued`.

    `body` is the whole `message` as JSON, encoded once for all sessions; None when only the fate is
    remembered.
    """

    epoch: int
    number: int
    sender: str | None
    id: str | None
    body: bytes | None
    size: int  # of the body when it was made, for bounds
    at: float  # monotonic seconds
    patience: float  # how long it waits for an acknowledgement
    gateway: str
    ref: int
    origin: str  # the session that sent it to its own user, and gets no copy; or ""
    waiters: list[tuple[str, int]] | None = None  # who else asked, by sending it again
    seen: bool = False  # has been on its way to a session
    status: Status | None = None
    by: By | None = None
    code: ErrorCode | None = None
    message: str | None = None
    expires_at: float = NEVER  # monotonic seconds
    home: Seq | None = None  # the sequence under which Redis keeps it; None if it does not
    pushing: bool = False  # on its way to Redis: whether it is there is not known
    found: bool = False  # it was read from Redis, and no session has been sent it since
    handed: bool = False  # an earlier owner had it, and may have stored it and said so meanwhile

    @property
    def fate_only(self) -> bool:
        """True if Redis has it, and what is here is its fate alone."""
        return self.status == "queued" and self.home is None

    def mark_redelivered(self) -> None:
        """From now on sessions are told that they may have seen it."""
        if self.body is not None and not self.body.endswith(b',"redelivered":true}'):
            self.body = self.body[:-1] + b',"redelivered":true}'

    def void(self) -> None:
        """From now on it stands for nothing: another letter takes its place."""
        self.status, self.home, self.ref, self.waiters = "failed", None, 0, None

    def renumber(self) -> None:
        """Writes its sequence into its text anew: a session may have seen it under the one before."""
        message = _decode_message(self.body or b"")
        message.seq = format_seq(self.epoch, self.number)
        message.redelivered = True
        message.data = Raw(bytes(message.data))
        self.body = encode(message)


Notify = Callable[[str, int, Status, By | None, ErrorCode | None, str | None], None]
"""Tells a gateway what became of the message that it calls `ref`: (gateway, ref, status, by, code, message).
"""
