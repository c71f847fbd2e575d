"""From a URL to an open WebSocket: addresses, the stream below, TLS, and what an answer that is none says."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
import trustme
from trio.testing import MockClock
from trio_websocket import ConnectionRejected

from ring.client.backoff import Ending
from ring.client.wire import Address, HandshakeBroken, Wire, dial, parse_url, unreachable
from ring.protocol.codes import BadRequest, ErrorCode
from tests.client.fake_node import FakeNode, answer, refuse


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("ws://node", Address("node", 80, False, "/v1/connect", ""), "node"),
        ("ws://node:8001", Address("node", 8001, False, "/v1/connect", ""), "node:8001"),
        ("wss://node/", Address("node", 443, True, "/v1/connect", ""), "node"),
        ("wss://node:80", Address("node", 80, True, "/v1/connect", ""), "node:80"),
        (
            "ws://127.0.0.1:1/ring/v1/connect?x=1",
            Address("127.0.0.1", 1, False, "/ring/v1/connect", "x=1"),
            "127.0.0.1:1",
        ),
        ("ws://[::1]:8001", Address("::1", 8001, False, "/v1/connect", ""), "[::1]:8001"),
    ],
)
def test_url_names_an_address(url: str, address: Address, authority: str) -> None:
    """The port and the path have defaults, and what is given stays."""
    assert parse_url(url) == address
    assert address.authority == authority


@pytest.mark.parametrize("url", ["", "node:8001", "http://node", "ws://", "ws://node:port", "ws://[::1"])
def test_url_without_an_address_is_refused(url: str) -> None:
    """What is no WebSocket URL is an error of the caller, at once."""
    with pytest.raises(BadRequest, match="url: "):
        parse_url(url)


def test_target_is_form_encoded() -> None:
    """Names of any characters survive the query, and the URL's own parameters stay first."""
    parameters = {"user": "a b/ü&", "device": "d"}

    assert parse_url("ws://node").target(parameters) == "/v1/connect?user=a+b%2F%C3%BC%26&device=d"
    assert parse_url("ws://node?x=1").target({"user": "a"}) == "/v1/connect?x=1&user=a"


@pytest.mark.parametrize(
    ("body", "reason", "code"),
    [
        (b'{"error":{"code":"forbidden","message":"not you"}}', "not you", ErrorCode.FORBIDDEN),
        (b'{"error":{"code":"of a later release","message":"no"}}', "no", None),
        (b"<html>Forbidden</html>", "HTTP 403", None),
        (None, "HTTP 403", None),
    ],
)
def test_refusal_says_what_the_node_said(body: bytes | None, reason: str, code: ErrorCode | None) -> None:
    """A node's JSON is read; a balancer's page leaves the status."""
    rejected = ConnectionRejected(403, (), body)

    assert unreachable(rejected) == Ending(reason, status=403, code=code)


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"7", 7.0), (b"999999", 3600.0), (b"Fri, 31 Dec 1999 23:59:59 GMT", 0.0)]
)
def test_retry_after_is_read_in_seconds(value: bytes, seconds: float) -> None:
    """Retry-After is obeyed up to an hour; a date is not read."""
    rejected = ConnectionRejected(503, ((b"Server", b"x"), (b"Retry-After", value)), None)

    assert unreachable(rejected).retry_after_s == seconds


def test_errors_without_words_are_named() -> None:
    """A reason is never empty."""
    assert unreachable(trio.BrokenResourceError()).reason == "BrokenResourceError"
    assert unreachable(OSError("nobody there")) == Ending("nobody there")


async def test_wire_hears_every_byte(autojump_clock: MockClock) -> None:
    """It knows when anything last came, be it half a frame."""
    ours, theirs = trio.testing.memory_stream_pair()
    wire = Wire(ours)
    assert wire.heard_at == trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.receive_some)
        await trio.sleep(3)
        assert wire.heard_at == trio.current_time() - 3
        await theirs.send_all(b"x")
    assert wire.heard_at == trio.current_time()


async def test_wire_tells_when_it_is_idle() -> None:
    """Idle is from the moment that all which came is passed on until more comes."""
    ours, theirs = trio.testing.memory_stream_pair()
    wire = Wire(ours)
    told: list[bool] = []
    wire.on_idle = lambda: told.append(wire.idle)
    told.append(wire.idle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        assert told == [False, True]
        await theirs.send_all(b"x")
    assert not wire.idle


async def test_open_wire_sends_into_the_void() -> None:
    """What the peer said before it went is still to be read, so sending to one that is gone is no error."""
    ours, theirs = trio.testing.memory_stream_pair()
    wire = Wire(ours)
    await theirs.send_all(b"last words")
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await wire.send_all(b"x")

    wire.opened = True
    await wire.send_all(b"x")
    await wire.wait_send_all_might_not_block()
    assert await wire.receive_some() == b"last words"
    assert await wire.receive_some() == b""


@asynccontextmanager
async def _upgrading(node: FakeNode) -> AsyncIterator[Wire]:
    address = parse_url(node.url)
    wire = await dial(address, None)
    async with wire, trio.open_nursery() as nursery:
        with trio.fail_after(5):
            await wire.upgrade(nursery, address, "/v1/connect?device=d", [(b"X-Test", b"1")])
        yield wire
        nursery.cancel_scope.cancel()


async def test_upgrade_opens_a_websocket(loopback_node: FakeNode) -> None:
    """It offers the sub-protocol and sends the headers that it is given."""
    async with _upgrading(loopback_node) as wire:
        assert wire.opened
    request, _ = loopback_node.requests[0]

    assert request.proposed_subprotocols == ("ring.v1",)
    assert (b"x-test", b"1") in request.headers


async def test_refused_upgrade_comes_out_of_the_nursery(loopback_node: FakeNode) -> None:
    """With its status, headers and body."""
    loopback_node.plans.append(refuse(503, b'{"error":{}}', [(b"Retry-After", b"7")]))
    with pytest.RaisesGroup(
        pytest.RaisesExc(ConnectionRejected, check=lambda error: error.status_code == 503)
    ):
        async with _upgrading(loopback_node):
            raise AssertionError("opened")


async def test_hang_up_during_the_handshake_is_noticed(loopback_node: FakeNode) -> None:
    """A stream that ends before the answer does not leave the client waiting for it."""
    loopback_node.plans.append(answer(b"HTTP/1.1 101 "))
    with pytest.RaisesGroup(HandshakeBroken):
        async with _upgrading(loopback_node):
            raise AssertionError("opened")


async def test_nobody_there_is_an_oserror(loopback_node: FakeNode) -> None:
    """A port that nobody listens on."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()

    with pytest.raises(OSError, match="connect"):
        await dial(Address("127.0.0.1", port, False, "/", ""), None)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Nobody trusts it but who is told to."""
    return trustme.CA()


async def _tls_listener(nursery: trio.Nursery, authority: trustme.CA) -> int:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def echo(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):  # the client does not trust us
            await stream.send_all(await stream.receive_some())

    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, echo, listeners)
    transport = listeners[0].transport_listener
    assert isinstance(transport, trio.SocketListener)
    port: int = transport.socket.getsockname()[1]
    return port


async def test_tls_with_a_trusted_certificate(nursery: trio.Nursery, authority: trustme.CA) -> None:
    """wss:// speaks TLS, by the caller's context."""
    port = await _tls_listener(nursery, authority)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    wire = await dial(Address("127.0.0.1", port, True, "/", ""), context)
    with trio.fail_after(5):
        await wire.send_all(b"hello")
        assert await wire.receive_some() == b"hello"
    await trio.aclose_forcefully(wire)


async def test_tls_with_an_unknown_certificate(nursery: trio.Nursery, authority: trustme.CA) -> None:
    """Python's default context does not trust it, and the ending says so."""
    port = await _tls_listener(nursery, authority)
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError) as caught:
        await dial(Address("127.0.0.1", port, True, "/", ""), None)
    ending = unreachable(caught.value)

    assert ending.untrusted
    assert "certificate verify failed" in ending.reason
