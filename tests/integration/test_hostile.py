"""Whoever breaks the rules, or the wire, is dealt with by the right code, and nobody else notices.

Two users talk on two nodes through all of it (conversation.py).
"""

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from msgspec import Raw
from structlog.testing import capture_logs

from ring.api import app as api
from ring.cluster.view import Member, RingView
from ring.node import Node
from ring.peers.link import PeerLink
from ring.peers.mesh import Mesh
from ring.peers.proof import Handshake, hello
from ring.protocol import client, peer
from ring.protocol.codes import CloseCode
from ring.protocol.websocket import BINARY, CLOSE, PING, TEXT, encode_frame, parse_close
from ring.store.embedded import free_port
from ring.transport.address import split_address
from ring.transport.pump import Pump
from tests.integration.cluster import nodes, settings
from tests.integration.conversation import Conversation, conversation
from tests.integration.raw import RawClient, Watch
from tests.transport.wire import Wire, masked, request, until

DEADLINE_S = 60
MESSAGE_BYTES = 4096
OUTPUT_BYTES = 64 * 1024
TLS_HELLO = bytes.fromhex("1603010200010001fc0303")
SECRET = b"the secret of this cluster"


@asynccontextmanager
async def cluster(redis_url: str, directory: Path) -> AsyncIterator[tuple[Node, Node, Conversation]]:
    """Two nodes with a secret and low limits, on which two users talk; they log no error."""
    secret = directory / "secret"
    secret.write_bytes(SECRET)
    limits: dict[str, Any] = {"message_bytes": MESSAGE_BYTES, "output_bytes": OUTPUT_BYTES}
    with trio.fail_after(DEADLINE_S), capture_logs() as logs:
        async with nodes(redis_url, "n1", "n2", secret_file=secret, **limits) as running:
            n1, n2 = running["n1"], running["n2"]
            async with conversation(n1, n2) as talk:
                yield n1, n2, talk
    assert [log for log in logs if log["log_level"] in ("error", "critical")] == []


def connect(user: str) -> str:
    """The target of a client's request."""
    return f"{client.CONNECT_PATH}?user={user}"


async def farewell(wire: Wire) -> tuple[int, str]:
    """Code and reason with which a connection is closed; what comes before is skipped."""
    while True:
        opcode, payload = await wire.message()
        if opcode == CLOSE:
            await wire.send(masked(CLOSE, payload[:2]))
            return parse_close(payload)


async def refusal(wire: Wire) -> tuple[int, dict[str, str]]:
    """Status and error of an HTTP answer."""
    answer = (await wire.all()).decode()
    head, _, body = answer.partition("\r\n\r\n")
    error: dict[str, str] = json.loads(body)["error"]
    return int(head.split()[1]), error


FRAMES = [
    ("not masked", b"\x81\x05hello", CloseCode.PROTOCOL_ERROR),
    ("reserved bit", b"\xc1\x80abcd", CloseCode.PROTOCOL_ERROR),
    ("reserved opcode", b"\x83\x80abcd", CloseCode.PROTOCOL_ERROR),
    ("continues nothing", b"\x80\x80abcd", CloseCode.PROTOCOL_ERROR),
    ("long ping", masked(PING, b"x" * 126), CloseCode.PROTOCOL_ERROR),
    ("half a close code", masked(CLOSE, b"\x03"), CloseCode.PROTOCOL_ERROR),
    ("binary", masked(BINARY, b'{"type":"ping","id":"1"}'), CloseCode.UNSUPPORTED_DATA),
    ("not UTF-8", masked(TEXT, b"\xff\xfe"), CloseCode.INVALID_DATA),
    ("oversize", masked(TEXT, b"x" * (4 * MESSAGE_BYTES)), CloseCode.TOO_BIG),
    ("oversize, as it says", b"\x81\xff" + b"\x7f" * 8 + b"mask", CloseCode.TOO_BIG),
    ("a length of 64 bits", b"\x81\xff" + b"\xff" * 8 + b"mask", CloseCode.PROTOCOL_ERROR),
]


async def test_frames_that_break_the_protocol(redis_url: str, tmp_path: Path) -> None:
    """Their sender is told why, and the connection ends."""
    async with cluster(redis_url, tmp_path) as (n1, _, talk):
        for what, sent, code in FRAMES:
            wire = await Wire.upgraded(n1.addresses["edge"], connect("mallory"))
            await wire.send(sent)
            assert (await farewell(wire))[0] == code, what
            assert await wire.all() == b"", what
            await talk.goes_on()


async def test_what_is_no_message(redis_url: str, tmp_path: Path) -> None:
    """It is answered, and the connection stays: the next one may be better."""
    async with cluster(redis_url, tmp_path) as (n1, _, _talk):
        wire = await Wire.upgraded(n1.addresses["edge"], connect("mallory"))
        assert json.loads((await wire.message())[1])["type"] == "welcome"
        big = "x" * MESSAGE_BYTES
        for sent, answer in [
            (b"", ("error", None, "bad_request")),
            (b"{", ("error", None, "bad_request")),
            (b"[" * 4000, ("error", None, "bad_request")),
            (b'{"type":"explode","id":"1"}', ("error", "1", "unknown_type")),
            (b'{"type":"ack","seq":"9999999999-9"}', ("error", None, "bad_request")),
            (b'{"type":"ack","seq":"yes"}', ("error", None, "bad_request")),
            (b'{"type":"send","id":"2","to":"","data":1}', ("receipt", "2", "bad_request")),
            (b'{"type":"send","id":"3","to":"bob","data":01}', ("error", None, "bad_request")),
            (b'{"type":"send","id":"4","to":"bob","data":1,"ttl_s":-1}', ("receipt", "4", "bad_request")),
            (
                b'{"type":"send","id":"5","to":"bob","data":"%s"}' % big.encode(),
                ("receipt", "5", "too_large"),
            ),
            (b'{"type":"send","id":"6","to":"a\\u0000b","data":1}', ("receipt", "6", "bad_request")),
        ]:
            await wire.text(sent)
            said = json.loads((await wire.message())[1])
            assert (said["type"], said.get("id"), said["code"]) == answer, sent
        await wire.text(b'{"type":"ping","id":"7"}')
        assert json.loads((await wire.message())[1]) == {"type": "pong", "id": "7"}


async def test_half_a_frame_and_then_the_end(redis_url: str, tmp_path: Path) -> None:
    """The connection is gone; nothing of its half message is acted upon, nothing is left of its session."""
    async with cluster(redis_url, tmp_path) as (n1, _, talk):
        text = client.encode(client.Send(to="first", data=Raw(b'"half"'), id="1"))
        frame = encode_frame(TEXT, text, mask=True)
        for cut in (1, 5, len(frame) - 1):
            wire = await Wire.upgraded(n1.addresses["edge"], connect("mallory"))
            await wire.message()
            assert len(n1.attachments.sessions) == 2
            await wire.send(frame[:cut])
            await wire.stream.send_eof()
            await wire.ends()
            assert len(n1.attachments.sessions) == 1
            await talk.goes_on()
        assert {arrival.sender for arrival in talk.first.arrivals} == {"second"}


async def test_handshakes_without_end(redis_url: str, tmp_path: Path) -> None:
    """After the time that a handshake has they are answered 408."""

    async def dawdle(address: str, sent: bytes) -> None:
        wire = await Wire.to(address)
        await wire.send(sent)
        answer = await wire.stream.receive_some()  # a Wire's own deadline is just this long
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"
        await wire.ends()

    async with cluster(redis_url, tmp_path) as (n1, _, _talk), trio.open_nursery() as nursery:
        for sent in (b"", b"GET /v1/conn", b"GET /v1/connect?user=mallory HTTP/1.1\r\nHost: ring\r\n"):
            for address in (n1.addresses["edge"], n1.addresses["peer"]):
                nursery.start_soon(dawdle, address, sent)


REQUESTS = [
    ("TLS", TLS_HELLO, 400, "not HTTP"),
    ("zeros", b"\0" * 100, 400, "not HTTP"),
    ("a browser's tab", b"GET / HTTP/1.1\r\nHost: ring\r\n\r\n", 426, "WebSocket client"),
    ("POST", b"POST /v1/connect HTTP/1.1\r\nHost: ring\r\n\r\n", 405, "GET"),
    ("HTTP/1.0", b"GET /v1/connect HTTP/1.0\r\n\r\n", 505, "HTTP/1.1"),
    ("a folded header", b"GET /v1/connect HTTP/1.1\r\n folded\r\n\r\n", 400, "header"),
    ("an endless head", b"GET /" + b"x" * 20_000, 431, "16384"),
    ("a name of no UTF-8", request("/v1/connect?user=%ff"), 400, "UTF-8"),
    ("a name of a control character", request("/v1/connect?user=%00"), 400, "user"),
    ("a long name", request("/v1/connect?user=" + "x" * 256), 400, "user"),
    ("a strange page", request(connect("mallory"), "Origin: https://evil.example"), 403, "origin"),
]


async def test_what_is_no_request_for_a_websocket(redis_url: str, tmp_path: Path) -> None:
    """It gets an answer of HTTP, with an error in JSON that says what to do."""
    async with cluster(redis_url, tmp_path) as (n1, _, talk):
        for what, sent, status, word in REQUESTS:
            wire = await Wire.to(n1.addresses["edge"])
            await wire.send(sent)
            answered, error = await refusal(wire)
            assert answered == status, what
            assert word in error["message"], what
            await talk.goes_on()


def deaf(address: str, target: str) -> socket.socket:
    """A connection that takes in as little as it can."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(split_address(address))
    sock.sendall(request(target))
    return sock


async def test_a_client_that_never_reads(
    redis_url: str, tmp_path: Path, record: Callable[[str, object], None]
) -> None:
    """Whoever writes to it gets an answer to each message: it is stored until the client reads."""
    async with cluster(redis_url, tmp_path) as (n1, n2, talk), trio.open_nursery() as nursery:
        sender = RawClient([n2.addresses["edge"]], "sender", watch=Watch())
        await nursery.start(sender.run)
        with deaf(n1.addresses["edge"], connect("mallory") + "&ack=client"):
            await wait_for_sessions(n1, 2)
            for _ in range(2):
                for _ in range(200):
                    sender.send("mallory", pad="x" * 3000)
                await sender.watch.until(lambda: not sender.unanswered)
        assert {(sent.status, len(sent.answers)) for sent in sender.sent} == {("queued", 1)}
        assert sender.closes == []
        record("longest that a word of others took", f"{talk.longest_s:.3f} s")
        nursery.cancel_scope.cancel()


async def test_a_client_that_asks_and_never_reads(
    redis_url: str, tmp_path: Path, record: Callable[[str, object], None]
) -> None:
    """What waits for it is bounded: it is cut, and if it reads at last it learns why."""
    async with cluster(redis_url, tmp_path) as (n1, _, talk):
        wire = Wire(deaf(n1.addresses["edge"], connect("mallory")))
        await wait_for_sessions(n1, 2)
        question = masked(TEXT, b'{"type":"ping","id":"%s"}' % (b"x" * 1000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.floods, question * 20)
            await wait_for_sessions(n1, 1)
            nursery.cancel_scope.cancel()
        await talk.goes_on()
        await wire.head()
        assert await farewell(wire) == (CloseCode.SLOW_CONSUMER, "output is read too slowly")
        record("longest that a word of others took", f"{talk.longest_s:.3f} s")


async def wait_for_sessions(node: Node, count: int) -> None:
    """Returns when a node has so many sessions."""
    await until(lambda: len(node.attachments.sessions) == count)


async def test_a_peer_with_another_secret(redis_url: str, tmp_path: Path) -> None:
    """It is refused with 4003, both sides go on, and the operators of both are told what to check."""
    other = b"the secret of another cluster"
    async with cluster(redis_url, tmp_path) as (n1, _, talk), trio.open_nursery() as nursery:
        wire = await to_peer(n1)
        proof = Handshake(hello("test", "n0", "a life", 1), other, dials="n1", admit=lambda _: None)
        await wire.binary(proof.start())
        await wire.binary(proof.receive((await wire.message())[1]))
        assert await farewell(wire) == (CloseCode.FORBIDDEN, "refused")

        assert n1.view is not None
        me = Member("n0", "a life", "", "", "", 1, "up", "1")
        pump = Pump()
        await nursery.start(pump.run)
        mesh = Mesh(pump=pump, me=me, cluster="test", secret=other, receiver=Nobody())
        mesh.update(RingView.build("test", n1.view.epoch, (me, *n1.view.members)))
        with capture_logs() as logs:
            await nursery.start(mesh.run)
            await until(lambda: mesh.dial_outcome("n1") == mesh.dial_outcome("n2") == "refused_by_peer")
        told = {log["why"] for log in logs if log["event"] == "no peer link"}
        assert any("another secret" in words for words in told)
        assert any("refused this node: check that both have the same secret" in words for words in told)
        assert set(n1.links().values()) == {"up"}
        await talk.goes_on()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_comes_too_early(
    redis_url: str, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a node starts nobody listens for its peers; who knew its earlier life has to try again."""
    starting, may_go_on = trio.Event(), trio.Event()
    run = api.run

    async def slowly(*arguments: Any, task_status: trio.TaskStatus[str]) -> None:
        starting.set()
        await may_go_on.wait()
        await run(*arguments, task_status=task_status)

    monkeypatch.setattr("ring.node.api.run", slowly)
    node = Node(settings("n1", redis_url, peer=f"127.0.0.1:{free_port()}"))
    with trio.fail_after(DEADLINE_S):
        nursery.start_soon(node.run)
        await starting.wait()
        with pytest.raises(ConnectionRefusedError):
            await Wire.to(node.settings.peer)
        may_go_on.set()
        await until(lambda: node.state == "up")
        await to_peer(node)
    nursery.cancel_scope.cancel()


class Nobody:
    """Who is never told anything, since no link comes up."""

    def link_up(self, link: PeerLink) -> None:
        raise AssertionError

    link_down = link_up

    def on_items(self, link: PeerLink, items: list[peer.Item]) -> None:
        raise AssertionError

    def news(self, link: PeerLink, epoch: int, members_hash: int) -> None:
        raise AssertionError


async def to_peer(node: Node) -> Wire:
    """A WebSocket to where a node's peers connect."""
    wire = await Wire.to(node.addresses["peer"])
    await wire.send(request(peer.PEER_PATH, f"Sec-WebSocket-Protocol: {peer.SUBPROTOCOL}"))
    assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
    return wire


STRANGERS = [
    ("text", masked(TEXT, b"{}"), CloseCode.UNSUPPORTED_DATA),
    ("no MessagePack", masked(BINARY, b"\xc1"), CloseCode.PROTOCOL_ERROR),
    ("no hello", masked(BINARY, peer.encode(peer.Proof(b"x" * 32))), CloseCode.PROTOCOL_ERROR),
    ("a batch", masked(BINARY, peer.encode(peer.Batch(9, 9, []))), CloseCode.PROTOCOL_ERROR),
    ("a long hello", masked(BINARY, b"x" * 4096), CloseCode.TOO_BIG),
    ("a long frame", b"\x82\xff" + b"\0\0\0\1" * 2 + b"mask", CloseCode.TOO_BIG),
]


async def test_what_is_no_peer(redis_url: str, tmp_path: Path) -> None:
    """It is not linked, and told why."""
    async with cluster(redis_url, tmp_path) as (n1, _, talk):
        for what, sent, code in STRANGERS:
            wire = await to_peer(n1)
            await wire.send(sent)
            assert (await farewell(wire))[0] == code, what
            assert set(n1.links().values()) == {"up"}, what
            await talk.goes_on()


STRANGE_REQUESTS = [
    ("TLS", TLS_HELLO, 400),
    ("a browser's tab", b"GET / HTTP/1.1\r\nHost: ring\r\n\r\n", 426),
    ("a client", request(connect("mallory")), 404),
    ("no sub-protocol", request(peer.PEER_PATH), 400),
]


async def test_what_is_no_request_of_a_peer(redis_url: str, tmp_path: Path) -> None:
    """It gets an answer of HTTP, with an error in JSON."""
    async with cluster(redis_url, tmp_path) as (n1, _, talk):
        for what, sent, status in STRANGE_REQUESTS:
            wire = await Wire.to(n1.addresses["peer"])
            await wire.send(sent)
            assert (await refusal(wire))[0] == status, what
            await talk.goes_on()


async def test_garbage_to_the_api(redis_url: str, tmp_path: Path) -> None:
    """Bytes that are no HTTP get 400 or the end; what is not there, an error in JSON; health goes on."""
    async with cluster(redis_url, tmp_path) as (n1, _, talk):
        for garbage in (TLS_HELLO, b"\0" * 100, b"GET /v1/nodes HTTP/1.1\r\nHo"):
            wire = await Wire.to(n1.addresses["api"])
            await wire.send(garbage)
            await wire.stream.send_eof()
            answer = await wire.all()
            assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 ")), answer
        async with httpx.AsyncClient(base_url=f"http://{n1.addresses['api']}", timeout=DEADLINE_S) as api:
            for method, path, status in [
                ("GET", "/", 404),
                ("GET", "/v1/../../etc/passwd", 404),
                ("POST", "/v1/nodes", 405),
                ("GET", "/v1/users", 400),
                ("GET", "/v1/users?user=%ff", 400),
            ]:
                answered = await api.request(method, path)
                assert (answered.status_code, answered.json()["error"]["code"]) == (status, "bad_request")
            assert (await api.get("/readyz")).json() == {"state": "up", "degraded": []}
        await talk.goes_on()
