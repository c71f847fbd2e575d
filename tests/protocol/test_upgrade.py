"""The HTTP/1.1 upgrade: requests read, judged and answered, and both sides against `websockets`."""

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.http11 import Request as TheirRequest
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from ring.protocol.codes import ErrorCode, RingError
from ring.protocol.upgrade import (
    Request,
    UpgradeRefused,
    accept_response,
    check_response,
    check_upgrade,
    client_request,
    parse_request,
    refuse_response,
)

# The pair that RFC 6455 section 1.3 works out.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FIELDS = {
    "Host": "ring.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
ANSWER = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n"
)
modest = settings(max_examples=60, deadline=None)


def request(first: str = "GET /v1/connect?user=bob HTTP/1.1", *more: str, **changed: str | None) -> bytes:
    """A valid request's head, with fields changed (`_` for `-`), left out (None), or added as whole lines."""
    changes = {name.replace("_", "-"): value for name, value in changed.items()}
    fields = {name: changes.pop(name.lower(), value) for name, value in FIELDS.items()}
    lines = [f"{name}: {value}" for name, value in (fields | changes).items() if value is not None]
    return "\r\n".join([first, *lines, *more, "", ""]).encode("latin-1")


def parsed(first: str = "GET / HTTP/1.1", *more: str, **changed: str | None) -> Request:
    """The same, read."""
    return parse_request(request(first, *more, **changed))


def refusal_of(head: bytes) -> UpgradeRefused:
    """How a head is refused, on being read or judged."""
    with pytest.raises(UpgradeRefused) as caught:
        check_upgrade(parse_request(head))
    assert caught.value.code is ErrorCode.BAD_REQUEST
    return caught.value


def test_a_request_is_read() -> None:
    """Method, target, path, query and fields come out as they were sent; names of fields in any case."""
    read = parsed("GET /v1/connect?user=b%20b&x=?y HTTP/1.1", "X-Empty:", "x-a:  1 \t", "X-A: 2\t3")
    assert (read.method, read.target) == ("GET", "/v1/connect?user=b%20b&x=?y")
    assert (read.path, read.query) == ("/v1/connect", "user=b%20b&x=?y")
    assert read.headers.get("host") == "ring.example"
    assert read.headers.get("x-empty") == ""
    assert read.headers.get("x-a") == "1"
    assert read.headers.all("x-a") == ["1", "2\t3"]
    assert read.headers.get("x-b") is None
    assert read.headers.all("x-b") == []
    assert check_upgrade(read) == KEY


def test_the_empty_line_may_be_missing() -> None:
    """The head is the same with and without the empty line that ends it."""
    assert check_upgrade(parse_request(request().removesuffix(b"\r\n\r\n"))) == KEY


def test_lists_go_over_several_fields() -> None:
    """A list is the elements of all fields of its name without empty ones; tokens compare in any case."""
    read = parsed(
        "GET / HTTP/1.1",
        "Connection: UPGRADE",
        "Upgrade: h2c, WebSocket",
        "Sec-WebSocket-Protocol: ring.v1,, ring.token.abc ,",
        "Sec-WebSocket-Protocol: other",
        upgrade="foo",
        connection="keep-alive,",
    )
    assert check_upgrade(read) == KEY
    assert read.subprotocols == ["ring.v1", "ring.token.abc", "other"]
    assert read.headers.tokens("connection") == ["keep-alive", "UPGRADE"]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a%2Fb?", "/a%2Fb", ""),
        ("//x/y", "//x/y", ""),
        ("http://ring.example", "/", ""),
        ("HTTPS://ring.example:443/v1/connect?user=a", "/v1/connect", "user=a"),
        ("ws://ring.example?user=a/b", "/", "user=a/b"),
        ("wss://ring.example/x", "/x", ""),
    ],
)
def test_targets(target: str, path: str, query: str) -> None:
    """Targets in origin and in absolute form give path and query, without decoding."""
    read = parsed(f"GET {target} HTTP/1.1")
    assert (read.target, read.path, read.query) == (target, path, query)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n\r\n",
        b"\r\n" + request(),
        request("GET  / HTTP/1.1"),
        request("GET /\tHTTP/1.1"),
        request("GET / HTTP/1.1 "),
        request(" GET / HTTP/1.1"),
        request("GET / http/1.1"),
        request("GET / HTTP/1.10"),
        request("GET /"),
        request("G(T / HTTP/1.1"),
        request("GET /é HTTP/1.1"),
        request("GET /#there HTTP/1.1"),
        request("GET * HTTP/1.1"),
        request("GET ring.example:80 HTTP/1.1"),
        request("GET ftp://ring.example/ HTTP/1.1"),
        request("GET / HTTP/1.1", "X-Name : 1"),
        request("GET / HTTP/1.1", "X Name: 1"),
        request("GET / HTTP/1.1", ": 1"),
        request("GET / HTTP/1.1", "no colon"),
        request("GET / HTTP/1.1", "X-A: 1", " folded"),
        request("GET / HTTP/1.1", "X-A: 1\n2"),
        request("GET / HTTP/1.1", "X-A: 1\r2"),
        request("GET / HTTP/1.1", "X-A: 1\0"),
        request("GET / HTTP/1.1", "X-É: 1"),
        request("GET / HTTP/1.1", ""),
        request().replace(b"\r\n", b"\n"),
    ],
)
def test_unreadable_heads_are_400(head: bytes) -> None:
    """What is no clear HTTP/1.1 head (also: what another reader may take for something else) is refused."""
    assert refusal_of(head).status == 400


@pytest.mark.parametrize("version", ["0.9", "1.0", "1.2", "2.0"])
def test_other_http_versions_are_505(version: str) -> None:
    """HTTP/1.1 alone can be upgraded."""
    assert refusal_of(request(f"GET / HTTP/{version}")).status == 505


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "CONNECT", "get"])
def test_other_methods_are_405(method: str) -> None:
    """A WebSocket starts with GET; the refusal says so in Allow."""
    refused = refusal_of(request(f"{method} / HTTP/1.1"))
    assert (refused.status, refused.headers) == (405, (("Allow", "GET"),))


@pytest.mark.parametrize(
    "head",
    [
        request(upgrade=None),
        request(upgrade="h2c"),
        request(sec_websocket_version="8"),
        request(sec_websocket_version="13, 8"),
        request(sec_websocket_version=None),
    ],
)
def test_no_websocket_or_another_version_is_426(head: bytes) -> None:
    """Who speaks plain HTTP, or another version, is told what to speak."""
    refused = refusal_of(head)
    assert refused.status == 426
    assert refused.headers == (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


@pytest.mark.parametrize(
    "head",
    [
        request(host=None),
        request("GET / HTTP/1.1", "host: other"),
        request(connection=None),
        request(connection="close"),
        request("GET / HTTP/1.1", "Sec-WebSocket-Version: 13"),
        request("GET / HTTP/1.1", f"Sec-WebSocket-Key: {KEY}"),
        request(sec_websocket_key=None),
        request(sec_websocket_key=""),
        request(sec_websocket_key="dG9vIHNob3J0"),
        request(sec_websocket_key=KEY.rstrip("=")),
        request(sec_websocket_key="!" + KEY),
        request(sec_websocket_key="é" * 24),
        request(content_length="5"),
        request(transfer_encoding="chunked"),
    ],
)
def test_invalid_upgrades_are_400(head: bytes) -> None:
    """Missing, repeated or malformed fields, and bodies, are refused."""
    assert refusal_of(head).status == 400


def test_an_empty_body_is_no_body() -> None:
    """Content-Length: 0 does no harm."""
    assert check_upgrade(parsed(content_length="0")) == KEY


def test_accepting() -> None:
    """The 101 carries the accept value of the RFC's example, and the sub-protocol if there is one."""
    assert accept_response(KEY, None) == ANSWER.encode() + b"\r\n"
    assert accept_response(KEY, "ring.v1") == ANSWER.encode() + b"Sec-WebSocket-Protocol: ring.v1\r\n\r\n"


def test_refusing() -> None:
    """A refusal is whole: status, JSON body with its length, and the end of the connection."""
    answer = refuse_response(503, ErrorCode.INTERNAL, 'drains: "é"\r\n', [("Retry-After", "2")])
    head, body = answer.split(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 503 Service Unavailable"
    assert set(lines[1:]) == {
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Retry-After: 2",
    }
    assert json.loads(body) == {"error": {"code": "internal", "message": 'drains: "é"\r\n'}}


def test_refusing_with_426_names_upgrade_in_connection() -> None:
    """A refusal that sends Upgrade lists it in Connection, as HTTP requires."""
    refused = refusal_of(request(upgrade=None))
    answer = refuse_response(refused.status, refused.code, str(refused), refused.headers)
    assert b"\r\nConnection: close, Upgrade\r\n" in answer


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\n", "\0", "é"])
def test_heads_cannot_be_injected_into(value: str) -> None:
    """No value that we write can start another header field."""
    with pytest.raises(ValueError, match="HTTP head"):
        refuse_response(400, ErrorCode.BAD_REQUEST, "", [("X-A", value)])
    with pytest.raises(ValueError, match="HTTP head"):
        accept_response(KEY, value)
    with pytest.raises(ValueError, match="HTTP head"):
        client_request(value, "/")
    with pytest.raises(ValueError, match="HTTP"):
        client_request("ring.example", "/?" + value)


@pytest.mark.parametrize("target", ["", "v1/peer", "/v1/peer HTTP/1.0"])
def test_client_targets_are_checked(target: str) -> None:
    """A request is not written for what is no target."""
    with pytest.raises(ValueError, match="target"):
        client_request("ring.example", target)


def test_a_client_request_is_what_our_server_reads() -> None:
    """Both sides agree, on the sub-protocol and on further headers too; each request has its own key."""
    head, key = client_request("n2:9001", "/v1/peer?a=b", ["ring.peer.v1", "x"], [("X-Ring", "1")])
    read = parse_request(head)
    assert check_upgrade(read) == key
    assert (read.target, read.subprotocols) == ("/v1/peer?a=b", ["ring.peer.v1", "x"])
    assert (read.headers.get("host"), read.headers.get("x-ring")) == ("n2:9001", "1")
    offered = ["ring.peer.v1", "x"]
    assert check_response(accept_response(key, "ring.peer.v1"), key, offered) == "ring.peer.v1"
    assert check_response(accept_response(key, None), key) is None
    assert parse_request(client_request("n2", "/")[0]).subprotocols == []
    assert client_request("n2", "/")[1] != client_request("n2", "/")[1]


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (b"", 0, "HTTP/1.1"),
        (b"HTTP/1.0 101 Switching Protocols\r\n\r\n", 0, "HTTP/1.1"),
        (b"+PONG\r\n\r\n", 0, "HTTP/1.1"),
        (ANSWER.encode() + b"bad field\r\n\r\n", 101, "readable"),
        (ANSWER.replace("websocket", "h2c").encode(), 101, "something else"),
        (ANSWER.replace("Connection: Upgrade", "Connection: close").encode(), 101, "Connection"),
        (ANSWER.replace(ACCEPT, KEY).encode(), 101, "Accept"),
        (ANSWER.replace(ACCEPT, "é").encode("latin-1"), 101, "Accept"),
        (ANSWER.replace("Sec-WebSocket-Accept", "X-Accept").encode(), 101, "Accept"),
        ((ANSWER + f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n").encode(), 101, "Accept"),
        (ANSWER.encode() + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 101, "extension"),
        (ANSWER.encode() + b"Sec-WebSocket-Protocol: other\r\n\r\n", 101, "sub-protocol"),
        (
            ANSWER.encode() + b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n\r\n",
            101,
            "sub-protocol",
        ),
    ],
)
def test_answers_that_are_no_upgrade(answer: bytes, status: int, message: str) -> None:
    """An answer that does not prove a WebSocket as it was asked for is refused, with what is wrong."""
    with pytest.raises(UpgradeRefused, match=message) as caught:
        check_response(answer.removesuffix(b"\r\n\r\n") + b"\r\n\r\n", KEY, ["a"])
    assert (caught.value.status, caught.value.headers) == (status, ())


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (refuse_response(401, ErrorCode.UNAUTHENTICATED, "who?"), 401, '"message":"who?"}}'),
        (b"HTTP/1.1 404 Not Found\r\n\r\nno such page\r\nsecond line", 404, "HTTP 404 no such page"),
        (b"HTTP/1.1 302\r\nLocation: /\r\n\r\n", 302, "HTTP 302"),
        (b"HTTP/1.1 500 \xe9\r\n\r\n\x1b[31m\xff" + b"x" * 999, 500, "HTTP 500 ?[31m?" + "x" * 194),
    ],
)
def test_refusals_are_told(answer: bytes, status: int, message: str) -> None:
    """The error carries the status and the first line of the body, fit for a log line."""
    with pytest.raises(RingError) as caught:
        check_response(answer, KEY)
    assert isinstance(caught.value, UpgradeRefused)
    assert caught.value.status == status
    assert str(caught.value).endswith(message)


def test_an_independent_client_is_accepted() -> None:
    """The `websockets` client accepts our answer to its request."""
    client = ClientProtocol(
        parse_uri("ws://ring.example/v1/connect?user=b"), subprotocols=[Subprotocol("ring.v1")]
    )
    client.send_request(client.connect())
    read = parse_request(b"".join(client.data_to_send()))
    assert read.subprotocols == ["ring.v1"]
    client.receive_data(accept_response(check_upgrade(read), "ring.v1"))
    assert client.handshake_exc is None
    assert (client.state, client.subprotocol) == (State.OPEN, "ring.v1")


def test_an_independent_server_accepts_us() -> None:
    """The `websockets` server accepts our request, and we its answer and its refusal."""
    head, key = client_request("ring.example", "/v1/peer", ["ring.peer.v1"])
    server = ServerProtocol(subprotocols=[Subprotocol("ring.peer.v1")])
    server.receive_data(head)
    (event,) = server.events_received()
    assert isinstance(event, TheirRequest)
    server.send_response(server.accept(event))
    assert server.state is State.OPEN
    assert check_response(b"".join(server.data_to_send()), key, ["ring.peer.v1"]) == "ring.peer.v1"
    refusing = ServerProtocol()
    refusing.send_response(refusing.reject(403, "not you\n"))
    with pytest.raises(UpgradeRefused, match="HTTP 403 not you"):
        check_response(b"".join(refusing.data_to_send()), key)


@modest
@given(st.binary(max_size=300), st.booleans())
def test_hostile_heads_are_refused(noise: bytes, inside: bool) -> None:
    """Whatever the bytes: they are a request or are refused with a status, on both sides."""
    head = request("GET / HTTP/1.1", "X-Noise: ").removesuffix(b"\r\n\r\n") if inside else b""
    refusals: list[UpgradeRefused] = []
    try:
        check_upgrade(parse_request(head + noise))
    except UpgradeRefused as refused:
        refusals.append(refused)
    try:
        check_response((ANSWER.encode() if inside else b"") + noise, KEY)
    except UpgradeRefused as refused:
        refusals.append(refused)
    assert {refused.status for refused in refusals} <= {0, 101, 400, 505}
    assert all(str(refused).isprintable() for refused in refusals)


@modest
@given(
    st.lists(
        st.tuples(
            st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=20),
            st.text(string.printable[:95], max_size=40).map(str.strip),
        ),
        max_size=8,
    )
)
def test_fields_go_through(fields: list[tuple[str, str]]) -> None:
    """Any fields that HTTP allows are read as they were written."""
    head, _ = client_request("ring.example", "/", (), [(f"x-{name}", value) for name, value in fields])
    headers = parse_request(head).headers
    for name, _ in fields:
        key = f"x-{name}".lower()
        assert headers.all(key) == [value for other, value in fields if f"x-{other}".lower() == key]
