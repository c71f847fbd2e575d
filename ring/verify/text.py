"""What the crowd's messages carry: their own names, so that whoever gets one knows which it is. Pure."""

from collections.abc import Callable

import msgspec

from ring.protocol import client as wire
from ring.verify.record import By, Key


class Text(msgspec.Struct):
    """The data of a message: its name, and something to carry, so long."""

    sender: str
    to: str
    n: int
    size: int
    pad: str


class Strange(Exception):
    """A message that nobody of the crowd has sent so; says what is strange."""


_decode: Callable[[msgspec.Raw], Text] = msgspec.json.Decoder(Text).decode


def body(key: Key, pad: str) -> msgspec.Raw:
    """The data of a message."""
    return msgspec.Raw(msgspec.json.encode(Text(key.sender, key.to, key.n, len(pad), pad)))


def key_in(data: msgspec.Raw) -> Key:
    """The name of a message of the crowd.

    Raises:
        Strange: it is none.
    """
    try:
        text = _decode(data)
    except msgspec.DecodeError:
        raise Strange(f"data that nobody sent: {bytes(data)[:80]!r}") from None
    if len(text.pad) != text.size:
        raise Strange(f"{text.size} characters cut to {len(text.pad)}")
    return Key(text.sender, text.to, text.n)


def key_of(message: wire.Message) -> Key:
    """The name of a message that came.

    Raises:
        Strange: nobody of the crowd has sent it, or another than it says.
    """
    key = key_in(message.data)
    if message.from_ != key.sender:
        raise Strange(f"{key} from {message.from_!r}")
    if isinstance(message.id, str) and ">" in message.id and message.id != str(key):  # not a library's
        raise Strange(f"{key} with the id {message.id!r}")
    return key


def key_of_id(message_id: str) -> Key:
    """The name of the message to which `str` of it was given as id.

    Raises:
        Strange: it names none.
    """
    sender, _, rest = message_id.partition(">")
    to, _, number = rest.partition("#")
    if not (sender and to and number.isdecimal()):
        raise Strange(f"a receipt for {message_id!r}, which nobody sent")
    return Key(sender, to, int(number))


def code_of(receipt: wire.Receipt) -> str | None:
    """Why it failed."""
    return None if receipt.code is msgspec.UNSET else str(receipt.code)


def by_of(receipt: wire.Receipt) -> By | None:
    """Who acknowledged."""
    return None if receipt.by is msgspec.UNSET else receipt.by
