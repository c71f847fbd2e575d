"""What becomes of a node's clients: counted for `ring.telemetry`, and logged.

Sessions call it; what is done per message is an addition and no more. Names of users and devices are personal
data, and are in no line of the log: a line names the session, and `GET /v1/users` the sessions of a user.
"""

from collections import defaultdict

import structlog

from ring.mailbox.letter import By, Status
from ring.protocol.codes import CloseCode, ErrorCode

_LEVELS: dict[int, str] = {
    CloseCode.SLOW_CONSUMER: "info",
    CloseCode.REPLACED: "info",
    CloseCode.HEARTBEAT_LOST: "info",
    CloseCode.TRY_AGAIN_LATER: "warning",
    CloseCode.INTERNAL_ERROR: "warning",
}
"""Of the ends that somebody may ask about; others are worth a line at debug."""

_log = structlog.get_logger("ring.edge")


class Census:
    """Counts of one node.

    Attributes:
        opened: WebSockets of clients.
        closed: the same by close code, as the node saw it.
        delivered: messages passed to sessions.
        receipts: told to senders, by what tells them apart: who acknowledged, or the error code, or else the
            status.
        errors: `error` messages, by code.
        farewells: browsers that were let in to be told why they may not, by code.
    """

    __slots__ = ("closed", "delivered", "errors", "farewells", "opened", "receipts")

    def __init__(self) -> None:
        self.opened = 0
        self.closed: defaultdict[int, int] = defaultdict(int)
        self.delivered = 0
        self.receipts: defaultdict[By | ErrorCode | Status, int] = defaultdict(int)
        self.errors: defaultdict[ErrorCode, int] = defaultdict(int)
        self.farewells: defaultdict[ErrorCode, int] = defaultdict(int)

    def enter(self, session: str, address: str) -> None:
        """A client's WebSocket has opened."""
        self.opened += 1
        _log.debug("session opened", session=session, address=address)

    def leave(self, session: str, address: str, code: int) -> None:
        """It has ended. What the other side gave as its reason may hold anything, and is not logged."""
        self.closed[code] += 1
        log = getattr(_log, _LEVELS.get(code, "debug"))
        log("session ended", session=session, address=address, code=int(code))

    def turn_away(self, code: ErrorCode) -> None:
        """A browser's WebSocket has opened, to be told this error and closed."""
        self.opened += 1
        self.errors[code] += 1
        self.farewells[code] += 1
