"""The PROXY protocol, version 2: what a balancer says of a connection before it passes anything on.

    signature (12) | version and command (1) | family (1) | length (2) | addresses, then what else it likes

Source: haproxy's doc/proxy-protocol.txt, section 2.2. Version 1, a line of text, is not spoken here.
"""

import struct
from ipaddress import ip_address

from ring.protocol.codes import BadRequest

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""No HTTP begins so."""

UNKNOWN = "unknown:0"
"""Of a connection that came over something else than TCP: it is nobody's who is trusted."""

MOST_BYTES = 4096
"""A balancer says less than this, certificates included."""

_HEAD = struct.Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES = {0x11: (4, "{}:{}"), 0x21: (16, "[{}]:{}")}
"""TCP over IPv4 and IPv6: the bytes of an address, and how it is written with its port."""


def parse(data: bytes) -> tuple[str | None, int] | None:
    """What stands at the beginning of a connection: where it comes from, and how long the words are.

    The address is "ip:port", or `UNKNOWN`; None if the balancer speaks for itself, as in a health check. The
    whole is None if more has to come.

    Raises:
        BadRequest: it is not the PROXY protocol, or not of version 2.
    """
    if not SIGNATURE.startswith(data[: len(SIGNATURE)]):
        raise BadRequest("no signature of the PROXY protocol, version 2")
    if len(data) < _HEAD.size:
        return None
    _, command, family, length = _HEAD.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise BadRequest(f"the PROXY protocol, version 2, knows no command {command:#x}")
    if length > MOST_BYTES:
        raise BadRequest(f"a header of the PROXY protocol of {length} bytes")
    end = _HEAD.size + length
    if len(data) < end:
        return None
    if command == _LOCAL:
        return None, end
    if family not in _ADDRESSES:
        return UNKNOWN, end
    size, written = _ADDRESSES[family]
    if length < 2 * size + 4:
        raise BadRequest(f"a header of the PROXY protocol of {length} bytes has no room for its addresses")
    source = ip_address(data[_HEAD.size : _HEAD.size + size])
    (port,) = struct.unpack_from("!H", data, _HEAD.size + 2 * size)
    return written.format(source, port), end
