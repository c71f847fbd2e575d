"""From an HTTP head to a WebSocket: what is let in, what is refused and how, who runs out of time."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from ring.protocol.codes import ErrorCode
from ring.protocol.proxy import SIGNATURE
from ring.protocol.upgrade import Request, accept_response, check_upgrade, parse_request
from ring.protocol.websocket import TEXT, encode_frame
from ring.transport.agenda import UPGRADES_PER_TICK
from ring.transport.handshake import HEAD_BYTES, Accept, Departure, Refuse
from ring.transport.pump import Pump
from tests.transport.wire import DEADLINE_S, Recorder, Wire, connections_of, door_to, echo, masked, request

PROXIED = SIGNATURE + bytes([0x21, 0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 0x13, 0x88, 0x01, 0xBB])
"""From 203.0.113.7, port 5000."""


async def refused(wire: Wire) -> tuple[int, str]:
    """Status and error code of the answer, after which the connection must end without a reset."""
    with trio.fail_after(DEADLINE_S):
        answer = wire.received + b"".join([bytes(chunk) async for chunk in wire.stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert b"Connection: close" in b"\r\n".join(lines)
    assert b"Content-Length: %d" % len(body) in lines
    return int(lines[0].split()[1]), json.loads(body)["error"]["code"]


class TestArrival:
    """The server's side."""

    async def test_the_door_sees_the_request(self, pump: Pump) -> None:
        """With the address that the connection comes from; the endpoint's first words follow the 101."""
        seen: list[tuple[Request, str]] = []

        def door(request: Request, peername: str) -> Accept:
            seen.append((request, peername))
            greeter = Recorder(open=lambda recorder: recorder.ws.send_text(b"welcome"))
            return Accept(greeter, "ring.v1", max_message=100, max_queued=None)

        listener = pump.listen("127.0.0.1:0", door)
        wire = await Wire.to(listener.address)
        await wire.send(request("/v1/connect?user=bob", "Sec-WebSocket-Protocol: ring.v1"))
        head = await wire.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Protocol: ring.v1" in head
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455 section 1.3
        assert await wire.message() == (TEXT, b"welcome")
        (seen_request, peername) = seen[0]
        assert (seen_request.path, seen_request.query) == ("/v1/connect", "user=bob")
        assert peername == "{}:{}".format(*wire.stream.socket.getsockname())

    @pytest.mark.parametrize("parts", [1, 2, 100])
    async def test_a_balancer_says_for_whom_it_speaks(self, pump: Pump, parts: int) -> None:
        """By the PROXY protocol, if this one is believed; in however many parts it comes."""
        seen: list[str] = []

        def door(_request: Request, peername: str) -> Accept:
            seen.append(peername)
            return Accept(echo(), None, max_message=100, max_queued=None)

        listener = pump.listen("127.0.0.1:0", door, proxied=lambda name: name.startswith("127.0.0.1:"))
        wire = await Wire.to(listener.address)
        sent = PROXIED + request()
        ends = [len(PROXIED)] if parts == 2 else [len(sent) * n // parts for n in range(1, parts)]
        for begin, end in pairwise([0, *ends, len(sent)]):
            await wire.send(sent[begin:end])
            await wait_all_tasks_blocked()
        assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
        wire = await Wire.to(listener.address)  # without it, too: a health check, say
        await wire.send(request())
        assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
        assert seen == ["203.0.113.7:5000", "{}:{}".format(*wire.stream.socket.getsockname())]

    async def test_who_is_not_believed_cannot_say_it(self, pump: Pump) -> None:
        """To others it is no HTTP."""
        listener = pump.listen("127.0.0.1:0", door_to(echo()))
        wire = await Wire.to(listener.address)
        await wire.send(PROXIED + request())
        assert await refused(wire) == (400, "bad_request")

    @pytest.mark.parametrize("sent", [b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", PROXIED + PROXIED + request()])
    async def test_what_is_no_proxy_protocol(self, pump: Pump, sent: bytes) -> None:
        """Nor is it said twice."""
        listener = pump.listen("127.0.0.1:0", door_to(echo()), proxied=lambda _: True)
        wire = await Wire.to(listener.address)
        await wire.send(sent)
        assert await refused(wire) == (400, "bad_request")

    async def test_a_head_may_come_byte_by_byte(self, pump: Pump) -> None:
        """As slowly as the network brings it."""
        listener = pump.listen("127.0.0.1:0", door_to(echo()))
        wire = await Wire.to(listener.address)
        for byte in request():
            await wire.send(bytes([byte]))
            await wait_all_tasks_blocked()
        assert (await wire.head()).startswith(b"HTTP/1.1 101 ")

    async def test_what_follows_the_head_is_the_websockets(self, pump: Pump) -> None:
        """A client need not wait for the 101; a frame may even be cut where the read of the head ended."""
        listener = pump.listen("127.0.0.1:0", door_to(echo()))
        wire = await Wire.to(listener.address)
        frames = masked(TEXT, b"one") + masked(TEXT, b"two")
        await wire.send(request() + frames[:-2])
        await wire.head()
        assert await wire.message() == (TEXT, b"one")
        await wire.send(frames[-2:])
        assert await wire.message() == (TEXT, b"two")

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            pytest.param(b"GET / HTTP/1.1\r\nHost: ring\r\n\r\n", 426, id="a plain GET"),
            pytest.param(
                b"POST / HTTP/1.1\r\nHost: ring\r\nContent-Length: 5\r\n\r\nhello", 405, id="a POST"
            ),
            pytest.param(request().replace(b": 13", b": 8"), 426, id="an old version"),
            pytest.param(request().replace(b"Host: ring\r\n", b""), 400, id="no host"),
            pytest.param(request().replace(b"HTTP/1.1", b"HTTP/1.0"), 505, id="HTTP/1.0"),
            pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="TLS"),
            pytest.param(b"hello\r\n", 400, id="lower case"),
            pytest.param(b"GET / HTTP/1.1\nHost: ring\n\n", 400, id="bare newlines"),
            pytest.param(b"NONSENSE\r\n\r\n", 400, id="no request line"),
            pytest.param(b"GET /" + b"x" * HEAD_BYTES, 431, id="an endless target"),
            pytest.param(request("/", "X: " + "x" * HEAD_BYTES), 431, id="too long a head, ended"),
        ],
    )
    async def test_what_is_no_upgrade_is_answered(self, patient_pump: Pump, sent: bytes, status: int) -> None:
        """At once, in HTTP with a JSON body; the client reads it whole, whatever it had sent beyond."""
        listener = patient_pump.listen("127.0.0.1:0", door_to())
        wire = await Wire.to(listener.address)
        await wire.send(sent)
        assert (await refused(wire))[0] == status
        await wire.stream.aclose()
        await connections_of(listener, 0)

    async def test_the_door_can_refuse(self, patient_pump: Pump) -> None:
        """With its own status, code and headers."""

        def door(request: Request, peername: str) -> Refuse:
            return Refuse(429, ErrorCode.TOO_MANY_CONNECTIONS, "later", [("Retry-After", "7")])

        wire = await Wire.to(patient_pump.listen("127.0.0.1:0", door).address)
        await wire.send(request())
        head = await wire.head()
        wire.received = head + b"\r\n\r\n" + wire.received
        assert b"Retry-After: 7" in head
        assert await refused(wire) == (429, "too_many_connections")

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(ZeroDivisionError("a bug"), id="it raises"),
            pytest.param(Refuse(400, ErrorCode.BAD_REQUEST, "", [("X", "a\r\nb")]), id="an unsafe header"),
            pytest.param(Accept(Recorder(), "ring\r\n", 1, 1), id="an unsafe sub-protocol"),
        ],
    )
    async def test_a_door_that_fails_refuses(self, pump: Pump, answer: Accept | Refuse | Exception) -> None:
        """With 500; it is logged once, whole, and the next one is let in."""
        answers = [answer, Accept(echo(), None, 100, 100)]

        def door(request: Request, peername: str) -> Accept | Refuse:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        listener = pump.listen("127.0.0.1:0", door)
        wire = await Wire.to(listener.address)
        with capture_logs() as logs:
            await wire.send(request())
            assert await refused(wire) == (500, "internal")
        assert [(log["event"], log["exc_info"]) for log in logs] == [("a door failed", True)]
        await Wire.upgraded(listener.address)

    @pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: ri"])
    async def test_a_head_that_does_not_come_is_a_408(self, pump: Pump, sent: bytes) -> None:
        """However it is spun out: the clock runs from the start of the connection."""
        listener = pump.listen("127.0.0.1:0", door_to(), handshake_s=0.1)
        wire = await Wire.to(listener.address)
        if sent:
            await wire.send(sent)
        assert await refused(wire) == (408, "bad_request")

    async def test_a_trickle_does_not_buy_time(self, pump: Pump, nursery: trio.Nursery) -> None:
        """A slow-loris that sends a byte now and then is answered in the same time."""
        listener = pump.listen("127.0.0.1:0", door_to(), handshake_s=0.1)
        wire = await Wire.to(listener.address)

        async def trickle() -> None:
            for byte in b"GET / HTTP/1.1\r\nX: " + bytes(10_000):
                await wire.stream.send_all(bytes([byte or 120]))
                await wait_all_tasks_blocked()

        async with trio.open_nursery() as trickling:
            trickling.start_soon(trickle)
            assert (await wire.head()).startswith(b"HTTP/1.1 408 ")
            trickling.cancel_scope.cancel()

    @pytest.mark.parametrize("sent", [b"", b"GET / HT"])
    async def test_who_leaves_before_the_end_is_forgotten(self, pump: Pump, sent: bytes) -> None:
        """A balancer's health check that only connects leaves nothing behind."""
        listener = pump.listen("127.0.0.1:0", door_to())
        wire = await Wire.to(listener.address)
        if sent:
            await wire.send(sent)
        await connections_of(listener, 1)
        await wire.stream.aclose()
        await connections_of(listener, 0)

    async def test_who_resets_is_forgotten(self, pump: Pump) -> None:
        """The same, broken instead of ended."""
        listener = pump.listen("127.0.0.1:0", door_to())
        wire = await Wire.to(listener.address)
        await wire.send(b"GET / HT")
        await connections_of(listener, 1)
        wire.reset()
        await connections_of(listener, 0)

    async def test_a_storm_is_upgraded_in_portions(self, pump: Pump) -> None:
        """Of many requests that lie ready a tick takes a bounded number; all are answered."""
        per_tick: dict[int, int] = {}

        def door(request: Request, peername: str) -> Accept:
            per_tick[pump.ticks] = per_tick.get(pump.ticks, 0) + 1
            return Accept(echo(), None, 100, 100)

        listener = pump.listen("127.0.0.1:0", door)
        wires = [await Wire.to(listener.address) for _ in range(3 * UPGRADES_PER_TICK)]
        await connections_of(listener, len(wires))
        for wire in wires:
            wire.raw.send(request())  # no checkpoint: they lie ready together
        for wire in wires:
            assert (await wire.head()).startswith(b"HTTP/1.1 101 ")
        assert max(per_tick.values()) == UPGRADES_PER_TICK
        assert len(per_tick) == 3

    async def test_waiting_for_a_turn_ends_with_the_time(
        self, pump: Pump, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A request that the storm keeps waiting for too long is answered 408, not upgraded behind that."""
        monkeypatch.setattr("ring.transport.pump.UPGRADES_PER_TICK", 0)
        listener = pump.listen("127.0.0.1:0", door_to(), handshake_s=0.1)
        wire = await Wire.to(listener.address)
        await wire.send(request())
        assert await refused(wire) == (408, "bad_request")

    async def test_a_client_that_does_not_take_the_answer(self, pump: Pump) -> None:
        """One that has reset its connection when the refusal is sent: it is forgotten."""

        def door(request: Request, peername: str) -> Refuse:
            wire.reset()
            return Refuse(403, ErrorCode.FORBIDDEN, "no")

        listener = pump.listen("127.0.0.1:0", door)
        wire = await Wire.to(listener.address)
        await wire.send(request())
        await connections_of(listener, 0)

    async def test_lingering_has_an_end(self, pump: Pump) -> None:
        """A client that never closes, and goes on sending, is cut after the refusal."""
        listener = pump.listen("127.0.0.1:0", door_to())
        wire = await Wire.to(listener.address)
        await wire.send(b"nonsense\r\n")
        assert (await wire.head()).startswith(b"HTTP/1.1 400 ")
        await wire.floods(b"more")


class TestDeparture:
    """The client's side, against servers that a test plays."""

    @asynccontextmanager
    async def dialled(
        self, pump: Pump, endpoint: Recorder, handshake_s: float = DEADLINE_S
    ) -> AsyncIterator[tuple[trio.SocketStream, Departure]]:
        """A connection that was adopted, and the server's end of it."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            dialled = socket.create_connection(server.getsockname())
            self.raw, _ = server.accept()
        self.raw.setblocking(False)
        dialled.setblocking(False)
        departure = pump.adopt(
            dialled,
            endpoint,
            host="ring:1",
            target="/v1/peer",
            subprotocols=["ring.peer.v1"],
            headers=[("X-Ring", "n1")],
            max_message=1000,
            max_queued=1000,
            handshake_s=handshake_s,
        )
        async with trio.SocketStream(trio.socket.from_stdlib_socket(self.raw)) as stream:
            yield stream, departure

    async def test_it_upgrades(self, pump: Pump) -> None:
        """Both roles on one pump: the endpoints talk to each other, the client's frames masked."""
        server, client = echo(), Recorder()
        listener = pump.listen("127.0.0.1:0", door_to(server, subprotocol="ring.peer.v1"))
        dialled = socket.create_connection(("127.0.0.1", int(listener.address.split(":")[1])))
        dialled.setblocking(False)
        pump.adopt(
            dialled,
            client,
            host=listener.address,
            target="/",
            subprotocols=["ring.peer.v1"],
            max_message=100,
            max_queued=100,
        )
        await client.hears("open")
        assert client.ws.subprotocol == server.ws.subprotocol == "ring.peer.v1"
        assert client.ws.peername == listener.address
        client.ws.send_text(b"hello")
        client.ws.send_binary(b"\x00")
        assert await client.hears("text") == b"hello"
        assert await client.hears("binary") == b"\x00"
        client.ws.close(1000, "done")
        assert await client.hears("close") == (1000, "done")
        assert await server.hears_at_last("close") == (1000, "done")
        await connections_of(listener, 0)

    async def test_a_frame_may_follow_the_answer_at_once(self, pump: Pump) -> None:
        """In the same packet."""
        client = Recorder()
        async with self.dialled(pump, client) as (stream, _):
            await answer(stream, behind=encode_frame(TEXT, b"welcome"))
            await client.hears("open")
            assert await client.hears("text") == b"welcome"

    async def test_a_refusal_is_told(self, pump: Pump) -> None:
        """With the status and the beginning of the body."""
        client = Recorder()
        async with self.dialled(pump, client) as (stream, departure):
            await stream.send_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
            assert await client.hears("close") == (1006, "HTTP 401 no")
            departure.abort()  # too late: nothing more happens
        assert client.closes == 1

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (b"garbage\r\n", "the server does not answer in HTTP"),
            (b"HTTP/1.1 101 " + b"x" * HEAD_BYTES, "the server's answer to the upgrade is too long"),
            (b"HTTP/1.1 101 Fine\r\n\r\n", "the server upgrades to something else than a WebSocket"),
        ],
    )
    async def test_a_broken_server_is_told(self, pump: Pump, sent: bytes, reason: str) -> None:
        """As a close with 1006, and why."""
        client = Recorder()
        async with self.dialled(pump, client) as (stream, _):
            await stream.send_all(sent)
            assert await client.hears("close") == (1006, reason)

    async def test_a_server_that_leaves_is_told(self, pump: Pump) -> None:
        """Without an answer."""
        client = Recorder()
        async with self.dialled(pump, client) as (stream, _):
            await stream.receive_some()
            await stream.aclose()
            code, reason = await client.hears("close")
        assert code == 1006
        assert "without an answer" in reason

    async def test_a_silent_server_is_given_up(self, pump: Pump) -> None:
        """In the time that was asked for."""
        client = Recorder()
        async with self.dialled(pump, client, handshake_s=0.05):
            code, reason = await client.hears("close")
        assert (code, reason) == (1006, "the server did not answer the upgrade in time")

    async def test_an_answer_that_crosses_the_abort(self, pump: Pump) -> None:
        """Goes nowhere: the endpoint is told of the abort alone."""
        client = Recorder()
        async with self.dialled(pump, client) as (stream, departure):
            self.raw.send(accept(bytes(await stream.receive_some())))
            departure.abort()
            pump._tick(pump._agenda.poller.poll())
            assert await client.hears("close") == (1006, "aborted")
        assert client.heard_nothing()

    async def test_it_can_be_aborted(self, pump: Pump) -> None:
        """While it waits; the server sees the connection cut."""
        client = Recorder()
        async with self.dialled(pump, client) as (stream, departure):
            departure.abort()
            assert await client.hears("close") == (1006, "aborted")
            await stream.receive_some()  # the request
            with trio.fail_after(DEADLINE_S), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert client.closes == 1

    async def test_a_request_that_cannot_be_sent(self, pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection that is broken already: told like every other failure, never raised."""
        client = Recorder()
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            ours.shutdown(socket.SHUT_WR)
            Departure(
                pump._agenda,
                ours,
                1,
                client,
                host="ring",
                target="/",
                subprotocols=[],
                headers=[],
                peername="",
                max_message=1,
                max_queued=1,
            )
            assert await client.hears("close") == (1006, "the request for the upgrade could not be sent")

    async def test_bad_arguments_leave_the_socket_to_the_caller(self, pump: Pump) -> None:
        """A header with a newline in it is the caller's mistake."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            dialled = socket.create_connection(server.getsockname())
            with dialled, pytest.raises(ValueError, match="not for an HTTP head"):
                pump.adopt(dialled, Recorder(), host="ring\n", target="/", max_message=1, max_queued=1)
            server.accept()[0].close()


def accept(head: bytes) -> bytes:
    """The answer that accepts the upgrade."""
    return accept_response(check_upgrade(parse_request(head)), "ring.peer.v1")


async def answer(stream: trio.SocketStream, behind: bytes = b"") -> None:
    """Accepts the upgrade that comes by `stream`."""
    await stream.send_all(accept(bytes(await stream.receive_some())) + behind)
