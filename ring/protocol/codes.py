"""The one registry of error codes and of close codes.

Everybody who refuses something names a code from here: receipts, `error` messages, HTTP answers and
exceptions all speak the same closed list, so a client needs one table to know what may be tried again.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum


class ErrorCode(StrEnum):
    """Why something was refused or failed (the `code` of receipts, errors and HTTP answers)."""

    BAD_REQUEST = "bad_request"
    UNKNOWN_TYPE = "unknown_type"
    TOO_LARGE = "too_large"
    UNAUTHENTICATED = "unauthenticated"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - no password
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    BUSY = "busy"
    TOO_MANY_ROOMS = "too_many_rooms"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    NOT_JOINED = "not_joined"
    OFFLINE = "offline"
    EXPIRED = "expired"
    MAILBOX_FULL = "mailbox_full"
    OWNER_UNAVAILABLE = "owner_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    ROOMS_UNAVAILABLE = "rooms_unavailable"
    INTERNAL = "internal"

    @property
    def retryable(self) -> bool:
        """True if the same request may succeed later without being changed."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        ErrorCode.RATE_LIMITED,
        ErrorCode.BUSY,
        ErrorCode.TOO_MANY_CONNECTIONS,
        ErrorCode.OFFLINE,
        ErrorCode.MAILBOX_FULL,
        ErrorCode.OWNER_UNAVAILABLE,
        ErrorCode.STORE_UNAVAILABLE,
        ErrorCode.ROOMS_UNAVAILABLE,
        ErrorCode.INTERNAL,
    }
)


class CloseCode(IntEnum):
    """WebSocket close codes: those of RFC 6455 section 7.4.1 that Ring uses, and Ring's own from 4000."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005  # never on the wire: the close frame carried no code
    ABNORMAL = 1006  # never on the wire: the connection broke without a close frame
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    UNAUTHENTICATED = 4001
    FORBIDDEN = 4003
    SLOW_CONSUMER = 4008
    REPLACED = 4009
    HEARTBEAT_LOST = 4010
    TOO_MANY = 4029


class Reaction(Enum):
    """What a client does when its connection ends."""

    STOP = "stop"
    RECONNECT = "reconnect"
    RECONNECT_SLOWLY = "reconnect, long back-off"
    NEW_TOKEN = "new token"  # noqa: S105 - no password


@dataclass(frozen=True, slots=True)
class Closing:
    """A close code that clients meet, as the documentation tables it."""

    code: CloseCode
    meaning: str
    reaction: Reaction


CLOSINGS: dict[int, Closing] = {
    closing.code: closing
    for closing in (
        Closing(CloseCode.NORMAL, "closed on purpose", Reaction.STOP),
        Closing(CloseCode.GOING_AWAY, "the node goes away", Reaction.RECONNECT),
        Closing(CloseCode.PROTOCOL_ERROR, "a frame broke RFC 6455", Reaction.STOP),
        Closing(CloseCode.UNSUPPORTED_DATA, "a binary frame: Ring speaks JSON text", Reaction.STOP),
        Closing(CloseCode.INVALID_DATA, "a text frame was not UTF-8", Reaction.STOP),
        Closing(CloseCode.TOO_BIG, "a frame beyond the size that a node reads", Reaction.STOP),
        Closing(CloseCode.INTERNAL_ERROR, "the node failed", Reaction.RECONNECT),
        Closing(CloseCode.SERVICE_RESTART, "the node drains or restarts", Reaction.RECONNECT),
        Closing(CloseCode.TRY_AGAIN_LATER, "the node cannot serve this client now", Reaction.RECONNECT),
        Closing(CloseCode.UNAUTHENTICATED, "the token is missing, wrong or expired", Reaction.NEW_TOKEN),
        Closing(CloseCode.FORBIDDEN, "not allowed", Reaction.STOP),
        Closing(CloseCode.SLOW_CONSUMER, "the client read too slowly", Reaction.RECONNECT),
        Closing(CloseCode.REPLACED, "the same user and device connected again", Reaction.STOP),
        Closing(CloseCode.HEARTBEAT_LOST, "no answer to the node's pings", Reaction.RECONNECT),
        Closing(CloseCode.TOO_MANY, "too many connections or messages", Reaction.RECONNECT_SLOWLY),
    )
}


def reaction_to(code: int) -> Reaction:
    """What a client does after close code `code`; codes outside the table reconnect."""
    closing = CLOSINGS.get(code)
    return Reaction.RECONNECT if closing is None else closing.reaction


class RingError(Exception):
    """The root of Ring's exceptions; `code` is what the wire says for it.

    Args:
        message: one line that says what is wrong and what to do.
        code: the wire's error code, where it is not the class's own.
    """

    code = ErrorCode.INTERNAL

    def __init__(self, message: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class BadRequest(RingError):
    """What was asked for is malformed; nothing was done."""

    code = ErrorCode.BAD_REQUEST
