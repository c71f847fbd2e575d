"""What one node publishes of a room for all: MessagePack, the payload of a Redis PUBLISH.

The room itself is told by the channel. The message is in it as the finished JSON, so that it is written once
in the cluster, however many nodes and members it goes to.
"""

from collections.abc import Callable

import msgspec
from msgspec import Struct

NOBODY = 0
"""As `session`: no session is left out."""


class Broadcast(Struct, array_like=True, tag=1, gc=False):
    """A message of a room on its way to the nodes.

    The tag is the version of its form: a node that does not know it drops the message, and counts it. What is
    added at the end is ignored by nodes that do not know it.
    """

    node: str  # where it was published
    session: int  # the one there that gets no copy, by its number; or NOBODY
    body: bytes  # the `room` message of the client protocol


class NoBroadcast(ValueError):
    """A payload that this release cannot read."""


_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Broadcast] = msgspec.msgpack.Decoder(Broadcast).decode


def encode(broadcast: Broadcast) -> bytes:
    """The payload of a PUBLISH."""
    return _encode(broadcast)


def decode(payload: bytes) -> Broadcast:
    """What `encode` wrote, on this release or one beside it.

    Raises:
        NoBroadcast: it is something else.
    """
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoBroadcast(str(error)) from None
