"""What a balancer says before a request, by the PROXY protocol."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.protocol.codes import BadRequest
from ring.protocol.proxy import SIGNATURE, UNKNOWN, parse

IPV4 = bytes([203, 0, 113, 7, 10, 0, 0, 1]) + struct.pack("!HH", 5000, 443)
IPV6 = bytes.fromhex("20010db8000000000000000000000007") + bytes(16) + struct.pack("!HH", 5000, 443)


def said(body: bytes, *, command: int = 0x21, family: int = 0x11) -> bytes:
    """A header."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (said(IPV4), "203.0.113.7:5000"),
        (said(IPV6, family=0x21), "[2001:db8::7]:5000"),
        (said(IPV4 + b"\x04\x00\x02no"), "203.0.113.7:5000"),  # and something else
        (said(b"", command=0x20, family=0), None),  # a health check
        (said(IPV4, command=0x20), None),
        (said(b"/a/socket" + bytes(207), family=0x31), UNKNOWN),
        (said(IPV4, family=0x12), UNKNOWN),  # UDP
        (said(b"", family=0), UNKNOWN),
    ],
)
def test_where_a_connection_comes_from(header: bytes, address: str | None) -> None:
    """What follows is not touched."""
    assert parse(header) == parse(header + b"GET /") == (address, len(header))


@given(st.integers(0, len(said(IPV4)) - 1))
def test_it_comes_in_parts(length: int) -> None:
    """However it is cut."""
    assert parse(said(IPV4)[:length]) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "no signature"),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", "no signature"),
        (said(IPV4, command=0x11), "no command 0x11"),
        (said(IPV4, command=0x22), "no command 0x22"),
        (said(IPV4[:-1]), "no room for its addresses"),
        (said(IPV4, family=0x21), "no room for its addresses"),
        (said(bytes(5000)), "5000 bytes"),
    ],
)
def test_what_it_is_not(data: bytes, words: str) -> None:
    """It is said, and nothing is guessed."""
    with pytest.raises(BadRequest, match=words):
        parse(data)


@given(st.binary(max_size=80))
def test_anything_may_come(rest: bytes) -> None:
    """Of what is no header nothing else than the one error."""
    try:
        parsed = parse(SIGNATURE + rest)
    except BadRequest:
        return
    assert parsed is None or parsed[1] <= len(SIGNATURE) + len(rest)
