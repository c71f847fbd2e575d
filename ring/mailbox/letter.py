"""One direct message at its recipient's owner, and what its sender is told about it."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from ring.protocol.codes import ErrorCode

Status = Literal["delivered", "queued", "failed"]
By = Literal["client", "pong"]


class Letter(Struct, gc=False):
    """A tracked message. `status` is None while no client has acknowledged it and it has not been given up.

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

    def mark_redelivered(self) -> None:
        """From now on sessions are told that they may have seen it."""
        if self.body is not None and not self.body.endswith(b',"redelivered":true}'):
            self.body = self.body[:-1] + b',"redelivered":true}'


Notify = Callable[[str, int, Status, By | None, ErrorCode | None, str | None], None]
"""Tells a gateway what became of the message that it calls `ref`: (gateway, ref, status, by, code, message).
"""
