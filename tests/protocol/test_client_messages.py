"""The client's protocol: what decodes, what is refused and to whom the refusal is attributed."""

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, Struct

from ring.protocol import client
from ring.protocol.client import (
    Ack,
    Join,
    Leave,
    Ping,
    Publish,
    Refresh,
    Send,
    Undecodable,
    decode,
    decode_server,
)
from ring.protocol.codes import BadRequest, ErrorCode

modest = settings(max_examples=80, deadline=None)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def refused(payload: bytes) -> Undecodable:
    """How the payload is refused."""
    with pytest.raises(Undecodable) as caught:
        decode(payload)
    return caught.value


def test_every_client_message() -> None:
    """Each message of the contract decodes, with the defaults that it promises."""
    send = decode(b'{"type":"send","id":"m1","to":"bob","data":{}}')
    assert isinstance(send, Send)
    assert (send.id, send.to, bytes(send.data)) == ("m1", "bob", b"{}")
    assert (send.receipt, send.again, send.ttl_s) == (True, False, None)
    full = decode(b'{"data":[1],"type":"send","to":"b","receipt":false,"again":true,"ttl_s":1.5}')
    assert isinstance(full, Send)
    assert (full.id, full.receipt, full.again, full.ttl_s) == (None, False, True, 1.5)
    assert decode(b'{"type":"ack","seq":"7-1"}') == Ack("7-1")
    assert decode(b'{"type":"refresh","id":"r","token":"t"}') == Refresh("r", "t")
    assert decode(b'{"type":"ping","id":"p"}') == Ping("p")
    assert decode(b'{"type":"join","id":"j","room":"r"}') == Join("j", "r")
    assert decode(b'{"type":"leave","id":"l","room":"r"}') == Leave("l", "r")
    publish = decode(b'{"type":"publish","id":"p","room":"r","data":[1, 2]}')
    assert isinstance(publish, Publish)
    assert (publish.id, publish.room, bytes(publish.data), publish.echo) == ("p", "r", b"[1, 2]", False)
    echoed = decode(b'{"type":"publish","id":"p","room":"r","data":1,"echo":true}')
    assert isinstance(echoed, Publish)
    assert echoed.echo is True


def test_a_node_without_rooms_is_understood() -> None:
    """Its limits name none."""
    limits = b'{"message_bytes":1,"in_flight":2}'
    welcome = (
        b'{"type":"welcome","user":"u","session":"s","device":"d","node":"n","owner":"n","epoch":1,'
        b'"resumed":false,"heartbeat_s":1,"server_time":1,"limits":' + limits + b"}"
    )
    read = decode_server(welcome)
    assert isinstance(read, client.Welcome)
    assert read.limits == client.Limits(1, 2, 0)


def test_unknown_fields_are_ignored() -> None:
    """A newer client's fields do no harm."""
    assert decode(b'{"type":"ping","id":"p","colour":["blue"],"data":{"a":1e999}}') == Ping("p")


@modest
@given(json_values, st.booleans(), st.sampled_from(["", " ", "\n\t"]))
def test_data_is_untouched(value: object, ascii_only: bool, space: str) -> None:
    """`data` comes out of a message, and goes into the next, byte for byte as it was written."""
    data = json.dumps(value, ensure_ascii=ascii_only, indent=1).encode(errors="surrogatepass")
    payload = b'{"type":"send","to":"b","data":' + space.encode() + data + space.encode() + b',"id":"m"}'
    message = decode(payload)
    assert isinstance(message, Send)
    assert bytes(message.data).strip() == data
    sent = client.encode(client.Message("a", "m", "1-1", Raw(data), 0))
    assert sent == b'{"type":"message","from":"a","id":"m","seq":"1-1","data":' + data + b',"sent_at":0}'


@pytest.mark.parametrize(
    "data", ["1.0", "1e5", "-0", "9" * 5000, '"\\u00e9"', '"\\ud83d\\ude00"', "[ ]", '{"a":1,"a":2}']
)
def test_data_keeps_its_spelling(data: str) -> None:
    """Numbers beyond any machine's, escapes, spaces and repeated keys survive."""
    message = decode(f'{{"type":"send","id":"m","to":"b","data":{data}}}'.encode())
    assert isinstance(message, Send)
    assert bytes(message.data) == data.encode()


@pytest.mark.parametrize("kind", ["zap", "publish2", "", "Send", "welcome"])
def test_unknown_types_are_told_to_their_sender(kind: str) -> None:
    """A type that no release knows is `unknown_type`, with the frame's id and type."""
    error = refused(json.dumps({"type": kind, "id": "k1", "more": [1]}).encode())
    assert (error.code, error.id, error.type) == (ErrorCode.UNKNOWN_TYPE, "k1", kind)
    assert str(error) == "unknown type; known: ack, join, leave, ping, publish, refresh, send"


def test_an_unknown_type_without_an_id() -> None:
    """An id that is missing or no string cannot be attributed."""
    assert refused(b'{"type":"zap"}').id is None
    assert refused(b'{"type":"zap","id":7}').id is None


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id":"k1"}',
        b'{"type":7,"id":"k1"}',
        b'{"type":null,"id":"k1"}',
        b'{"type":"send","id":"k1","to":"b"}',
        b'{"type":"send","id":"k1","data":1}',
        b'{"type":"send","id":"k1","to":null,"data":1}',
        b'{"type":"send","id":"k1","to":["b"],"data":1}',
        b'{"type":"send","id":"k1","to":"b","data":1,"ttl_s":"1"}',
        b'{"type":"send","id":"k1","to":"b","data":1,"ttl_s":1e999}',
        b'{"type":"send","id":"k1","to":"b","data":1,"ttl_s":' + b"9" * 5000 + b"}",
        b'{"type":"send","id":"k1","to":"b","data":1,"receipt":"yes"}',
        b'{"type":"send","id":"k1","to":"\xff","data":1}',
        b'{"type":"refresh","id":"k1"}',
        b'{"type":"join","id":"k1"}',
        b'{"type":"leave","id":"k1","room":7}',
        b'{"type":"publish","id":"k1","room":"r"}',
        b'{"type":"publish","id":"k1","room":"r","data":1,"echo":"yes"}',
    ],
)
def test_bad_messages_are_told_to_their_sender(payload: bytes) -> None:
    """A known type with missing or wrong fields is `bad_request`, with the frame's id."""
    error = refused(payload)
    assert (error.code, error.id) == (ErrorCode.BAD_REQUEST, "k1")
    assert str(error).startswith("bad message: ")


NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b'"send"',
        b"\xff",
        b'\xef\xbb\xbf{"type":"ping","id":"a"}',
        b'{"type":"ping","id":"a"',
        b'{"type":"ping","id":"a"}{}',
        b'{"type":"zap","id":"a"} x',
        b'{"type":"send","id":7,"to":"b","data":1}',
        b'{"type":"send","id":"a","to":"b","data":01}',
        b'{"type":"send","id":"a","to":"b","data":"\x01"}',
        b'{"type":"send","id":"a","to":"b","data":"\\x"}',
        b'{"type":"send","id":"\\udc00","to":"b","data":1}',
        b'{"type":"\\ud800","id":"a"}',
        b'{"type":"send","id":"a","to":"b","data":' + NESTED + b"}",
        b'{"type":"ping","id":"a","x":' + NESTED + b"}",
        b'{"type":' + NESTED + b',"id":"a"}',
        b'{"type":"send","id":' + NESTED + b"}",
        NESTED,
        b'{"a":' * 100_000,
        b'{"type":' + b"9" * 5000 + b',"id":"a"}',
    ],
)
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    """Broken JSON and any depth or size are `bad_request`, of nobody that could be told."""
    error = refused(payload)
    assert (error.code, error.id) == (ErrorCode.BAD_REQUEST, None)
    client.encode(client.Error(error.code, str(error), error.code.retryable))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"send","id":"a","to":"b","data":NaN}',
        b'{"type":"send","id":"a","to":"b","data":Infinity}',
        b'{"type":"send","id":"a","to":"b","data":"\\ud800"}',
        b'{"type":"send","id":"a","to":"\\ud800","data":1}',
    ],
)
def test_what_cannot_be_carried_is_told_its_sender(payload: bytes) -> None:
    """JSON in form, but not in what it holds: the id can be read all the same, and is owed an answer."""
    error = refused(payload)
    assert (error.code, error.id, error.type) == (ErrorCode.BAD_REQUEST, "a", "send")


@modest
@given(st.binary(max_size=60), st.sampled_from([b"", b'{"type":"send","id":"a","to":', b'{"id":"a","type":']))
def test_hostile_bytes_raise_nothing_else(noise: bytes, start: bytes) -> None:
    """Any bytes are a message or `Undecodable`, whose text can be sent to the client."""
    try:
        message: Struct = decode(start + noise)
    except Undecodable as error:
        message = client.Error(error.code, str(error), retryable=False, id=error.id or "")
    assert client.encode(message)


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (
            client.Welcome("u", "s", "d", "n1", "n2", 7, "gap", 20.0, 1, client.Limits(65536, 64, 100)),
            (
                '{"type":"welcome","user":"u","session":"s","device":"d","node":"n1","owner":"n2","epoch":7,'
                '"resumed":"gap","heartbeat_s":20.0,"server_time":1,'
                '"limits":{"message_bytes":65536,"in_flight":64,"rooms":100}}'
            ),
        ),
        (
            client.Message(None, None, "7-1", Raw(b"[1]"), 5, redelivered=True),
            '{"type":"message","from":null,"id":null,"seq":"7-1","data":[1],"sent_at":5,"redelivered":true}',
        ),
        (
            client.Room("r", "alice", "m", Raw(b"[1]"), 5),
            '{"type":"room","room":"r","from":"alice","id":"m","data":[1],"sent_at":5}',
        ),
        (
            client.Receipt("m", "delivered", "client"),
            '{"type":"receipt","id":"m","status":"delivered","by":"client"}',
        ),
        (client.Receipt("m", "queued"), '{"type":"receipt","id":"m","status":"queued"}'),
        (
            client.Receipt("m", "failed", code=ErrorCode.BUSY, message="wait"),
            '{"type":"receipt","id":"m","status":"failed","code":"busy","message":"wait"}',
        ),
        (client.Ok("o"), '{"type":"ok","id":"o"}'),
        (
            client.Error(ErrorCode.INTERNAL, "x", retryable=True),
            '{"type":"error","code":"internal","message":"x","retryable":true}',
        ),
        (
            client.Error(ErrorCode.EXPIRED, "x", retryable=False, id="e"),
            '{"type":"error","code":"expired","message":"x","retryable":false,"id":"e"}',
        ),
        (
            client.Error(ErrorCode.BUSY, "x", retryable=True, room="r"),
            '{"type":"error","code":"busy","message":"x","retryable":true,"room":"r"}',
        ),
        (client.Pong("p"), '{"type":"pong","id":"p"}'),
        (client.Reconnect(250, "drain"), '{"type":"reconnect","after_ms":250,"reason":"drain"}'),
    ],
    ids=lambda value: value.split('"')[3] if isinstance(value, str) else "",
)
def test_server_messages_on_the_wire(message: client.ServerMessage, wire: str) -> None:
    """Each message is written as the contract says, without what is unset, and read back by a client."""
    assert client.encode(message).decode() == wire
    read = decode_server(wire.encode())
    assert read is not None
    assert type(read) is type(message)
    assert client.encode(read).decode() == wire


def test_every_server_message_has_its_tag() -> None:
    """The types that are known when a frame is refused are the types that decode."""
    assert {kind.__struct_config__.tag for kind in get_args(client.ServerMessage)} == client._SERVER_TYPES
    assert {kind.__struct_config__.tag for kind in get_args(client.ClientMessage)} == client._CLIENT_TYPES


def test_a_client_ignores_what_it_does_not_know() -> None:
    """A type of a later release is None, unknown fields of a known one are skipped."""
    assert decode_server(b'{"type":"presence","user":"bob","online":true}') is None
    assert decode_server(b'{"type":"pong","id":"p","later":1}') == client.Pong("p")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'{"type":7}',
        b'{"id":"p"}',
        b'{"type":"pong"}',
        b'{"type":"pong","x":' + NESTED + b"}",
        NESTED,
    ],
)
def test_a_client_refuses_what_is_no_message(payload: bytes) -> None:
    """What no node would send is an error, of whatever depth."""
    with pytest.raises(BadRequest, match="the server sent no message"):
        decode_server(payload)


@modest
@given(st.integers(min_value=0, max_value=10**18 - 1), st.integers(min_value=0, max_value=10**18 - 1))
def test_positions_round_trip(epoch: int, number: int) -> None:
    """A position in a mailbox survives being written, and fits what peers and Redis hold."""
    assert client.parse_seq(client.format_seq(epoch, number)) == (epoch, number)
    assert max(epoch, number) < 1 << 63


@pytest.mark.parametrize(
    "seq",
    [
        "",
        "-",
        "7",
        "7-",
        "-7",
        "a-1",
        "1-a",
        "1--1",
        "+1-1",
        " 1-1",
        "1-1\n",
        "1_0-1",
        "\u0661-\u0661",
        "1-1-1",
        "9" * 19 + "-1",
        "1-" + "9" * 19,
    ],
)
def test_invalid_positions(seq: str) -> None:
    """What no node has sent is refused, also where it is a number too large for a node to hold."""
    with pytest.raises(BadRequest, match=r"^seq: "):
        client.parse_seq(seq)


@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
def test_data_may_be_nested_to_a_bound_of_ours(opened: bytes) -> None:
    """What one parser takes another might not, where its stack is deeper: the bound is the same for all."""
    closed = {b"[": b"]", b'{"a":': b"}"}[opened]
    client.check_depth(opened * client.MAX_DEPTH + b"1" + closed * client.MAX_DEPTH)
    with pytest.raises(BadRequest, match="nested more than 128 deep"):
        client.check_depth(opened * (client.MAX_DEPTH + 1) + b"1" + closed * (client.MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "data",
    [
        b'["' + b"[" * 500 + b'"]',
        b'["\\"' + b"[" * 500 + b'"]',
        b"[" + b"[]," * 500 + b"1]",
        b'{"a":[' + b"{}," * 300 + b"1]}",
    ],
)
def test_brackets_are_counted_where_they_nest(data: bytes) -> None:
    """Not those in strings, nor those that are closed again."""
    client.check_depth(data)
