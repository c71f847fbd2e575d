"""A session as the owner of its user sees it: the way to it, and how far it has got."""

from typing import Protocol

from ring.mailbox.letter import Letter
from ring.protocol.peer import Attach


class Outlet(Protocol):
    """The way to a session: the session itself on this node, a peer link's end of it elsewhere."""

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        """Sends a `message`; `tracked` if it is to be acknowledged."""

    def expel(self, code: int, reason: str) -> None:
        """Closes the session."""


class Attachment:
    """A session as its owner sees it. `outlet` is None while the link to its gateway is down."""

    __slots__ = (
        "acked",
        "address",
        "device",
        "flight_bytes",
        "floor",
        "gateway",
        "handle",
        "incarnation",
        "outlet",
        "position",
        "session",
        "since_ms",
        "user",
    )

    def __init__(self, attach: Attach, gateway: str, incarnation: str, outlet: Outlet) -> None:
        self.user = attach.user
        self.device = attach.device
        self.session = attach.session
        self.address = attach.address
        self.handle = attach.handle
        self.since_ms = attach.since_ms
        self.gateway = gateway
        self.incarnation = incarnation
        self.outlet: Outlet | None = outlet
        self.position = 0  # of the next letter to send
        self.acked = 0  # of the first letter not acknowledged by this session
        self.flight_bytes = 0
        self.floor = (0, 0)  # how far it had been sent letters when it came: it gets none of these numbers

    def skips(self, letter: Letter) -> bool:
        """True if this session does not get the letter: it was given up or left to Redis, or this very
        session sent it."""
        if letter.status is not None and (letter.status == "failed" or letter.fate_only):
            return True
        return letter.origin == self.session
