"""The codec: any split of any frames, every violation, and an independent peer at the other end."""

import sys
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.protocol import Protocol, Side

from ring.protocol import websocket
from ring.protocol.codes import CloseCode
from ring.protocol.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Decoder,
    ProtocolViolation,
    close_payload,
    encode_frame,
    header,
    parse_close,
)

Role = Literal["server", "client"]
Messages = list[tuple[int, bytes]]

LIMIT = 4096
MASK = b"\x8f\x01\xfe\x70"
modest = settings(max_examples=60, deadline=None)
roles = st.sampled_from(["server", "client"])


def frame(opcode: int, payload: bytes, *, to: Role = "server", fin: bool = True, reserved: int = 0) -> bytes:
    """One frame by the letter of section 5.2, written apart from the code under test."""
    size = len(payload)
    start = bytes([(0x80 if fin else 0) | reserved | opcode])
    bit = 0x80 if to == "server" else 0
    if size < 126:
        start += bytes([bit | size])
    elif size < 65536:
        start += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        start += bytes([bit | 127]) + size.to_bytes(8, "big")
    if to == "client":
        return start + payload
    return start + MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))


def server(limit: int = LIMIT) -> Decoder:
    """A server's decoder."""
    return Decoder(role="server", max_message=limit)


def violation(data: bytes, decoder: Decoder | None = None) -> ProtocolViolation:
    """What `data` is refused with."""
    with pytest.raises(ProtocolViolation) as caught:
        (decoder or server()).feed(data)
    return caught.value


def pieces(data: bytes, size: int = 1) -> Iterator[bytes]:
    """The bytes in reads of one size."""
    return (data[start : start + size] for start in range(0, len(data), size))


def outcome(decoder: Decoder, parts: list[bytes]) -> tuple[Messages, CloseCode | None]:
    """All that the parts decode to, and the code of the violation that ended it, if one did."""
    messages: Messages = []
    code = None
    for part in parts:
        try:
            messages += decoder.feed(part)
        except ProtocolViolation as error:
            assert code is None, "a decoder raises once"
            messages += error.messages
            code = error.code
    return messages, code


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at places taken modulo their number."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
texts = st.tuples(st.just(TEXT), st.text(max_size=200).map(str.encode))
binaries = st.tuples(st.just(BINARY), st.binary(max_size=200))
cuts = st.lists(st.integers(min_value=0, max_value=1 << 20), max_size=8)


@st.composite
def conversations(draw: st.DrawFn, to: Role) -> tuple[bytes, Messages]:
    """The bytes of some messages, many of them fragmented with control frames between, and what they say."""
    data, expected = b"", []
    for message in draw(st.lists(st.one_of(controls, texts, binaries), max_size=6)):
        opcode, payload = message
        fragments = split(payload, draw(cuts)) if opcode < CLOSE and draw(st.booleans()) else [payload]
        for index, fragment in enumerate(fragments):
            if index and draw(st.booleans()):
                control = draw(controls)
                data += frame(*control, to=to)
                expected.append(control)
            last = index == len(fragments) - 1
            data += frame(0 if index else opcode, fragment, to=to, fin=last)
        expected.append(message)
    return data, expected


@modest
@given(st.data(), roles, cuts)
def test_any_split_decodes_to_the_same(data: st.DataObject, role: Role, at: list[int]) -> None:
    """Whatever the fragments, the control frames between them and the reads: the same messages, in order."""
    wire, expected = data.draw(conversations(role))
    decoder = Decoder(role=role, max_message=LIMIT)
    assert outcome(decoder, split(wire, at)) == (expected, None)
    assert outcome(Decoder(role=role, max_message=LIMIT), list(pieces(wire))) == (expected, None)
    assert decoder._rest == b""
    assert decoder._message is None


@settings(max_examples=150, deadline=None)
@given(st.data(), roles, cuts)
def test_hostile_bytes_raise_nothing_else(data: st.DataObject, role: Role, at: list[int]) -> None:
    """Random or damaged bytes decode, wait, or are one violation, the same however they are split."""
    wire, _ = data.draw(conversations(role))
    for _ in range(data.draw(st.integers(min_value=0, max_value=3))):
        place = data.draw(st.integers(min_value=0, max_value=len(wire)))
        wire = wire[:place] + data.draw(st.binary(max_size=4)) + wire[place + 1 :]
    whole = outcome(Decoder(role=role, max_message=300), [wire])
    assert whole == outcome(Decoder(role=role, max_message=300), split(wire, at))
    assert whole == outcome(Decoder(role=role, max_message=300), list(pieces(wire)))
    assert whole[1] in {None, CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA, CloseCode.TOO_BIG}


@modest
@given(st.lists(st.one_of(controls, texts, binaries), max_size=5), cuts)
def test_both_roles_read_each_other(messages: Messages, at: list[int]) -> None:
    """What one role writes, the other reads: masked to servers and plain to clients."""
    masked = b"".join(encode_frame(opcode, payload, mask=True) for opcode, payload in messages)
    assert outcome(Decoder(role="server", max_message=LIMIT), split(masked, at)) == (messages, None)
    plain = b"".join(header(opcode, len(payload)) + payload for opcode, payload in messages)
    assert outcome(Decoder(role="client", max_message=LIMIT), split(plain, at)) == (messages, None)
    assert plain == b"".join(encode_frame(opcode, payload) for opcode, payload in messages)


@modest
@given(st.lists(st.one_of(controls, texts, binaries), max_size=5), roles)
def test_an_independent_peer_reads_what_we_write(messages: Messages, theirs: Role) -> None:
    """The `websockets` package, in either role, receives every frame of ours as it was meant."""
    peer = Protocol(Side.SERVER if theirs == "server" else Side.CLIENT)
    for opcode, payload in messages:
        peer.receive_data(encode_frame(opcode, payload, mask=theirs == "server"))
    events = peer.events_received()
    assert peer.parser_exc is None
    assert [(int(event.opcode), event.data) for event in events if isinstance(event, Frame)] == messages


@modest
@given(st.lists(st.one_of(controls, texts, binaries), max_size=5), roles, cuts)
def test_we_read_what_an_independent_peer_writes(messages: Messages, ours: Role, at: list[int]) -> None:
    """The frames of the `websockets` package, in either role, decode to what it was given."""
    peer = Protocol(Side.CLIENT if ours == "server" else Side.SERVER)
    for opcode, payload in messages:
        if opcode == PING:
            peer.send_ping(payload)
        elif opcode == PONG:
            peer.send_pong(payload)
        else:
            start, *rest = split(payload, [len(payload) // 3, len(payload) // 2])
            (peer.send_text if opcode == TEXT else peer.send_binary)(start, fin=False)
            for index, part in enumerate(rest):
                peer.send_continuation(part, fin=index == len(rest) - 1)
    peer.send_close(4009, "replaced")
    sent = b"".join(peer.data_to_send())
    received, code = outcome(Decoder(role=ours, max_message=LIMIT), split(sent, at))
    assert code is None
    assert received[:-1] == messages
    assert parse_close(received[-1][1]) == (4009, "replaced")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
@pytest.mark.parametrize("role", ["server", "client"])
def test_every_length_encoding(size: int, role: Role) -> None:
    """Lengths at the edges of the three encodings go through, whole and cut inside the header."""
    payload = bytes(range(256)) * 274
    wire = frame(BINARY, payload[:size], to=role)
    assert encode_frame(BINARY, payload[:size]) == frame(BINARY, payload[:size], to="client")
    for cut in (1, 2, 3, 5, 9, 12, len(wire)):
        parts = [wire[:cut], wire[cut:]]
        assert outcome(Decoder(role=role, max_message=70000), parts) == ([(BINARY, payload[:size])], None)


BROKEN_FRAMES = {
    "first reserved bit": frame(TEXT, b"", reserved=0x40),
    "second reserved bit": frame(TEXT, b"", reserved=0x20),
    "third reserved bit": frame(PING, b"", reserved=0x10),
    "reserved data opcode": frame(3, b"")[:2],
    "reserved control opcode": frame(11, b"")[:2],
    "unmasked": frame(TEXT, b"x", to="client"),
    "unmasked control frame": frame(PING, b"x", to="client")[:2],
    "fragmented ping": frame(PING, b"", fin=False)[:2],
    "fragmented close": frame(CLOSE, b"", fin=False)[:2],
    "ping of 126 bytes": frame(PING, b"x" * 126)[:2],
    "close of 65536 bytes": frame(CLOSE, b"x" * 65536)[:2],
    "continuation of nothing": frame(0, b"x"),
    "continuation after a whole message": frame(TEXT, b"x") + frame(0, b"x"),
    "text inside a fragmented text": frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"),
    "binary inside a fragmented text": frame(TEXT, b"x", fin=False) + frame(BINARY, b"x", fin=False),
    "125 in 16 bits": b"\x81\xfe\x00\x7d",
    "1 in 16 bits, whole": b"\x81\xfe\x00\x01" + MASK + b"x",
    "65535 in 64 bits": b"\x82\xff" + (65535).to_bytes(8, "big"),
    "64 bits": b"\x82\xff" + (1 << 63).to_bytes(8, "big"),
}


@pytest.mark.parametrize("wire", BROKEN_FRAMES.values(), ids=BROKEN_FRAMES.keys())
def test_broken_frames_are_1002(wire: bytes) -> None:
    """Each breach of the framing rules is refused with 1002 as soon as the bytes that show it are there."""
    assert violation(wire).code == CloseCode.PROTOCOL_ERROR
    assert outcome(server(), list(pieces(wire)))[1] == CloseCode.PROTOCOL_ERROR


def test_a_client_refuses_masked_frames() -> None:
    """A server must not mask: its masked frame is 1002 at a client, of any kind."""
    for wire in (frame(TEXT, b"x"), frame(PING, b""), frame(TEXT, b"x" * 200)):
        caught = violation(wire, Decoder(role="client", max_message=LIMIT))
        assert (caught.code, str(caught)) == (CloseCode.PROTOCOL_ERROR, caught.reason)


@pytest.mark.parametrize("size", [101, 126, 65536])
def test_a_message_too_big_is_refused_at_its_header(size: int) -> None:
    """1009 comes with the announced length, before mask or payload have arrived, as for a whole frame."""
    assert violation(frame(BINARY, b"x" * size), server(100)).code == CloseCode.TOO_BIG
    announced = frame(BINARY, b"x" * size)[: {101: 2, 126: 4, 65536: 10}[size]]
    assert violation(announced, server(100)).code == CloseCode.TOO_BIG


def test_fragments_count_together() -> None:
    """The bound is on the message: fragments that pass it together are 1009, exactly the bound is fine."""
    start = frame(BINARY, b"x" * 60, fin=False)
    decoder = server(100)
    assert decoder.feed(start + frame(0, b"y" * 40)) == [(BINARY, b"x" * 60 + b"y" * 40)]
    assert decoder.feed(start + frame(PING, b"p" * 125)) == [(PING, b"p" * 125)]
    assert violation(frame(0, b"y" * 41)[:2], decoder).code == CloseCode.TOO_BIG


NOT_UTF8 = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ab\xce", b"\xe2\x82"]


@pytest.mark.parametrize("payload", NOT_UTF8)
def test_text_that_is_not_utf8_is_1007(payload: bytes) -> None:
    """Invalid bytes, overlong forms, surrogates, points beyond Unicode and cut characters are refused."""
    assert violation(frame(TEXT, payload)).code == CloseCode.INVALID_DATA
    fragmented = frame(TEXT, payload[:1], fin=False) + frame(0, payload[1:])
    assert violation(fragmented).code == CloseCode.INVALID_DATA
    assert server().feed(frame(BINARY, payload)) == [(BINARY, payload)]


def test_bad_text_is_refused_at_once() -> None:
    """The first impossible byte ends it, before other fragments, or the frame's other bytes, have come."""
    assert violation(frame(TEXT, "é".encode() + b"\xf4\x90", fin=False)).code == CloseCode.INVALID_DATA
    wire = frame(TEXT, b"x" * 10 + b"\xed\xa0" + b"x" * 50)
    assert violation(wire[:18]).code == CloseCode.INVALID_DATA


def test_a_character_may_span_fragments_and_reads() -> None:
    """A four-byte character cut at every byte, with an empty fragment and a ping inside, is one character."""
    parts = list(pieces("𝄞".encode()))
    wire = frame(TEXT, parts[0], fin=False) + frame(0, b"", fin=False) + frame(PING, b"")
    wire += frame(0, parts[1], fin=False) + frame(0, parts[2], fin=False) + frame(0, parts[3])
    assert outcome(server(), list(pieces(wire))) == ([(PING, b""), (TEXT, "𝄞".encode())], None)


def test_what_follows_a_close_frame_is_ignored() -> None:
    """Nothing is read after a close frame, in the same bytes or later, valid or not."""
    decoder = server()
    wire = frame(TEXT, b"a") + frame(CLOSE, close_payload(1000)) + frame(TEXT, b"b") + b"\xff" * 9
    assert decoder.feed(wire) == [(TEXT, b"a"), (CLOSE, b"\x03\xe8")]
    assert decoder.feed(frame(TEXT, b"c")) == []


def test_a_violation_carries_what_came_before_it() -> None:
    """Messages complete before the violation are on the exception; afterwards the decoder stays silent."""
    decoder = server()
    wire = frame(TEXT, b"a") + frame(PING, b"b") + frame(TEXT, b"\xff") + frame(TEXT, b"c")
    assert violation(wire, decoder).messages == [(TEXT, b"a"), (PING, b"b")]
    assert decoder.feed(frame(TEXT, b"d")) == []
    assert decoder._message is None


def test_pieces_do_not_copy_what_came_before() -> None:
    """A long message costs each of its pieces what the piece is long, not what has been received."""
    wire = frame(TEXT, b"x" * (1 << 18))
    decoder = server(1 << 18)
    growth = []
    tracemalloc.start()
    try:
        for piece in pieces(wire[:-1], 1400):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            assert decoder.feed(piece) == []
            growth.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert median(growth) < 8 * 1400
    assert decoder.feed(wire[-1:]) == [(TEXT, b"x" * (1 << 18))]


def test_many_fragments_hold_no_more_than_their_bytes() -> None:
    """Thousands of tiny or empty fragments keep no object each: the memory held is that of their bytes."""
    decoder = server()
    decoder.feed(frame(BINARY, b"", fin=False))
    tiny, empty = frame(0, b"x", fin=False), frame(0, b"", fin=False)
    for _ in range(2000):
        assert decoder.feed(tiny + empty + empty) == []
    assert sys.getsizeof(decoder._message) < 2 * 2000 + 200
    assert decoder.feed(frame(0, b"")) == [(BINARY, b"x" * 2000)]


def test_an_idle_decoder_is_small() -> None:
    """A connection at rest keeps no buffer and less than 250 bytes of decoder."""
    decoder = server()
    decoder.feed(frame(TEXT, b"x", fin=False) + frame(0, b"y"))
    assert (decoder._rest, decoder._message, decoder._tail) == (b"", None, b"")
    assert sys.getsizeof(decoder) < 250


def test_masking_without_the_c_routine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `websockets` has no compiled routine, masking is done in Python, with the same result."""
    assert websocket._find_masking() is websocket.apply_mask
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    in_python = websocket._find_masking()
    assert in_python is websocket.mask_in_python
    for size in (0, 1, 3, 4, 5, 1000):
        payload = bytes(range(256)) * 4
        assert in_python(payload[:size], MASK) == websocket.apply_mask(payload[:size], MASK)


def test_masks_differ() -> None:
    """Every frame of a client has a new mask, so that nobody can choose the bytes on the wire."""
    assert len({encode_frame(TEXT, b"same", mask=True) for _ in range(20)}) == 20


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4000, 4029, 4999])
def test_close_round_trip(code: int) -> None:
    """A code that may be sent comes back with its reason."""
    assert parse_close(close_payload(code, "straße")) == (code, "straße")
    assert parse_close(close_payload(code)) == (code, "")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_sent(code: int) -> None:
    """Reserved and unassigned codes are 1002 where they arrive."""
    with pytest.raises(ProtocolViolation) as caught:
        parse_close(code.to_bytes(2, "big"))
    assert caught.value.code == CloseCode.PROTOCOL_ERROR


def test_close_payloads_at_the_edges() -> None:
    """No payload is 1005 both ways; half a code is 1002, a reason that is not UTF-8 is 1007."""
    assert parse_close(b"") == (CloseCode.NO_STATUS, "")
    assert close_payload(CloseCode.NO_STATUS, "unsaid") == b""
    with pytest.raises(ProtocolViolation) as caught:
        parse_close(b"\x03")
    assert caught.value.code == CloseCode.PROTOCOL_ERROR
    with pytest.raises(ProtocolViolation) as caught:
        parse_close(b"\x03\xe8\xff")
    assert caught.value.code == CloseCode.INVALID_DATA
    with pytest.raises(ValueError, match="1006"):
        close_payload(CloseCode.ABNORMAL)


def test_long_reasons_are_cut_at_a_character() -> None:
    """A reason is cut to what a control frame holds, at a character; a lone surrogate becomes `?`."""
    payload = close_payload(1000, "é" * 100)
    assert parse_close(payload) == (1000, "é" * 61)
    assert parse_close(close_payload(1000, "x" * 200)) == (1000, "x" * 123)
    assert parse_close(close_payload(1000, "\ud800")) == (1000, "?")
