"""Ring: a Trio WebSocket cluster in which every user has an owning node.

What is named here is the client library (docs/how-to/client.md). It is loaded when first used: a node needs
none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ring.client import (
        Backoff,
        Client,
        ConnectionEnded,
        Message,
        Receipt,
        RoomEnded,
        RoomGap,
        RoomMessage,
        connect,
    )
    from ring.protocol.codes import BadRequest, CloseCode, ErrorCode, RingError

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "BadRequest",
    "Client",
    "CloseCode",
    "ConnectionEnded",
    "ErrorCode",
    "Message",
    "Receipt",
    "RingError",
    "RoomEnded",
    "RoomGap",
    "RoomMessage",
    "__version__",
    "connect",
]

_CODES = {"BadRequest", "CloseCode", "ErrorCode", "RingError"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module("ring.protocol.codes" if name in _CODES else "ring.client"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
