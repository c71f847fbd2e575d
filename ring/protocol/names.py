"""Names (of users, devices, rooms), message ids and slots: what is valid, and where a user belongs."""

import re
from urllib.parse import unquote_plus
from zlib import crc32

from ring.protocol.codes import BadRequest

SLOTS = 16384
NAME_BYTES = 255
ID_BYTES = 64

_DELIMITER = re.compile("[&;?]")
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


def slot_of(user: str) -> int:
    """The slot of a user, 0 to 16383: crc32 of the UTF-8 name, as HAProxy's `crc32,and(16383)` has it."""
    return crc32(user.encode()) & 16383


def check_name(name: str, what: str) -> str:
    """Returns `name` if it may name a user, device or room.

    Names are 1 to 255 bytes of UTF-8 without control characters, compared as bytes and never normalised.

    Raises:
        BadRequest: it is not; the message says why.
    """
    if name.isascii() and name.isprintable() and 0 < len(name) <= NAME_BYTES:
        return name
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"{what}: a lone surrogate is not a character; send valid UTF-8") from None
    if not 0 < size <= NAME_BYTES:
        raise BadRequest(f"{what}: 1 to {NAME_BYTES} bytes of UTF-8, not {size}")
    if any(ch < " " or "\x7f" <= ch <= "\x9f" for ch in name):
        raise BadRequest(f"{what}: control characters are not allowed")
    return name


def check_id(message_id: str) -> str:
    """Returns `message_id` if it is 1 to 64 bytes of UTF-8.

    Raises:
        BadRequest: it is not.
    """
    if message_id.isascii():
        size = len(message_id)
    else:
        try:
            size = len(message_id.encode())
        except UnicodeEncodeError:
            raise BadRequest("id: a lone surrogate is not a character; send valid UTF-8") from None
    if not 0 < size <= ID_BYTES:
        raise BadRequest(f"id: 1 to {ID_BYTES} bytes of UTF-8, not {size}")
    return message_id


def parse_query(query: str) -> dict[str, str]:
    """The first value of each parameter of a form-encoded query, as HAProxy decodes it.

    HAProxy splits at `;` and `?` as well as at `&`, skips what has no `=`, takes the first of duplicates and
    decodes neither names nor a value with a broken escape. A node that read a query otherwise would see
    another user than the balancer routed for.

    Raises:
        BadRequest: a value has a broken escape or is not UTF-8.
    """
    values: dict[str, str] = {}
    for part in _DELIMITER.split(query):
        name, equals, value = part.partition("=")
        if not equals or name in values:
            continue
        try:
            if _BAD_ESCAPE.search(value):
                raise ValueError
            values[name] = unquote_plus(value, errors="strict")
        except ValueError:  # UnicodeDecodeError is one
            raise BadRequest(f"query: {name} is not form-encoded UTF-8") from None
    return values
