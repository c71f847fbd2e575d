"""The peers' protocol: every item goes through a batch, and hostile bytes do no more than fail to decode."""

from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from ring.protocol import peer
from ring.protocol.codes import ErrorCode

modest = settings(max_examples=80, deadline=None)
ITEMS: tuple[type[Struct], ...] = get_args(peer.Item)
OPENINGS: tuple[type[Struct], ...] = (peer.Hello, peer.Proof)
LEAVES: dict[object, st.SearchStrategy[object]] = {
    int: st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1),
    str: st.text(max_size=9),
    bytes: st.binary(max_size=9),
    bool: st.booleans(),
    type(None): st.none(),
    ErrorCode: st.sampled_from(ErrorCode),
}


def values(hint: object) -> st.SearchStrategy[object]:
    """Any value that a field with this type may have."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in LEAVES:
        return LEAVES[hint]
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in {Union, UnionType}:
        return st.one_of([values(argument) for argument in arguments])
    if origin is list:
        return st.lists(values(arguments[0]), max_size=3)
    if origin is tuple:
        return st.tuples(*[values(argument) for argument in arguments])
    assert isinstance(hint, type)
    assert issubclass(hint, Struct)
    return structs(hint)


def structs(kind: type[Struct]) -> st.SearchStrategy[Struct]:
    """Any message of this kind."""
    return st.builds(
        kind, **{name: values(hint) for name, hint in get_type_hints(kind).items() if name[0] != "_"}
    )


@modest
@given(st.data())
def test_batches_round_trip(data: st.DataObject) -> None:
    """Items of every kind come out of a batch as they went in, in order, behind epoch and hash."""
    items = data.draw(st.lists(st.sampled_from(ITEMS).flatmap(structs), max_size=4))
    epoch, members_hash = data.draw(LEAVES[int]), data.draw(LEAVES[int])
    batch = msgspec.convert([epoch, members_hash, items], peer.Batch)
    assert peer.decode_batch(peer.encode(batch)) == batch


@pytest.mark.parametrize("kind", ITEMS, ids=lambda kind: kind.__name__)
@settings(max_examples=5, deadline=None)
@given(st.data())
def test_every_item_round_trips(kind: type[Struct], data: st.DataObject) -> None:
    """Each kind is an array behind its tag; what a later release adds at its end is ignored."""
    item = data.draw(structs(kind))
    fields = msgspec.msgpack.decode(peer.encode(item))
    assert isinstance(fields, list)
    assert fields[0] == kind.__struct_config__.tag
    later = peer.encode([7, 1, [[*fields, "later"]], "later"])
    assert peer.decode_batch(later).items == [item]


@modest
@given(st.sampled_from(OPENINGS).flatmap(structs))
def test_openings_round_trip(opening: Struct) -> None:
    """Hello and proof are read back, and are no batch."""
    assert peer.decode_hello(peer.encode(opening)) == opening
    with pytest.raises(msgspec.ValidationError):
        peer.decode_batch(peer.encode([1, 1, [opening]]))


def test_tags_are_told_apart() -> None:
    """No two kinds share a tag, of items and openings together."""
    tags = [kind.__struct_config__.tag for kind in (*ITEMS, *OPENINGS)]
    assert len(set(tags)) == len(tags)
    assert all(isinstance(tag, int) for tag in tags)


DEEP = b"\x91" * 100_000


@modest
@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\x93\x01\x01", b"\x93\x01\x01\x91", b"\x92\x65", b"\x98\x64"]),
)
def test_hostile_bytes_raise_nothing_else(noise: bytes, start: bytes) -> None:
    """Any bytes decode or are refused with one of two errors, of a stranger before the proof most of all."""
    for decode in (peer.decode_batch, peer.decode_hello):
        try:
            message = decode(start + noise)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        assert isinstance(message, peer.Batch | peer.Hello | peer.Proof)


@pytest.mark.parametrize("start", [b"", b"\x92\x65", b"\x93\x65\xc4\x00", b"\x99\x64"])
def test_depth_before_the_proof_is_refused(start: bytes) -> None:
    """A stranger's endlessly nested array ends as a refusal, not in the stack."""
    with pytest.raises((msgspec.DecodeError, RecursionError)):
        peer.decode_hello(start + DEEP)
