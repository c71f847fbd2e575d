"""What nodes publish of a room: it comes out as it went in, and whatever else is published is told apart."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.protocol import broadcast
from ring.protocol.broadcast import NOBODY, Broadcast, NoBroadcast


@given(st.text(), st.integers(min_value=0, max_value=2**63 - 1), st.binary())
def test_it_comes_out_as_it_went_in(node: str, session: int, body: bytes) -> None:
    """Node, session and body, byte for byte."""
    told = broadcast.decode(broadcast.encode(Broadcast(node, session, body)))
    assert (told.node, told.session, told.body) == (node, session, body)


def test_its_form_is_an_array_with_a_version() -> None:
    """Other releases read it: the form is fixed, and what is added at the end is ignored."""
    payload = broadcast.encode(Broadcast("n1", NOBODY, b"{}"))
    assert msgspec.msgpack.decode(payload) == [1, "n1", 0, b"{}"]
    later = msgspec.msgpack.encode([1, "n1", 7, b"{}", "more"])
    assert broadcast.decode(later) == Broadcast("n1", 7, b"{}")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hello",
        b'{"type":"room"}',
        msgspec.msgpack.encode([2, "n1", 0, b"{}"]),
        msgspec.msgpack.encode([1, "n1", 0]),
        msgspec.msgpack.encode([1, "n1", 0, "text"]),
        msgspec.msgpack.encode({"node": "n1"}),
        b"\x94\x01\xa1\xff\x00\xc4\x00",
        b"\x91" * 100_000,
    ],
)
def test_what_it_is_not_is_refused(payload: bytes) -> None:
    """Another version, what anybody else may publish, and any depth of nesting."""
    with pytest.raises(NoBroadcast):
        broadcast.decode(payload)


@given(st.binary(max_size=60))
def test_any_bytes_raise_nothing_else(payload: bytes) -> None:
    """They are read, or refused."""
    with suppress(NoBroadcast):
        broadcast.decode(payload)
