"""Other people's WebSockets at the other end, in both roles: `websockets` (in a thread) and trio-websocket.

Each case is run by every pairing, since a pump that only talks to itself may share its mistakes.
"""

import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import pytest
import trio
import trio_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from ring.protocol.codes import ErrorCode
from ring.protocol.upgrade import Request
from ring.transport.handshake import Accept, Refuse
from ring.transport.pump import Pump
from ring.transport.socket import Socket

DEADLINE_S = 20
LIMIT = 2 << 20
MESSAGES: list[str | bytes] = [
    "",
    "hello",
    "\u00e9\u4e16\U0001f600" * 100,
    b"\x00\xff" * 200,
    "x" * 70_000,
    b"y" * (1 << 20),
]


class Echo:
    """The same back; "close" closes with 4001."""

    def on_open(self, socket: Socket) -> None:
        self.socket = socket

    def on_text(self, payload: bytes) -> None:
        if payload == b"close":
            self.socket.close(4001, "as you wish")
        else:
            self.socket.send_text(payload)

    def on_binary(self, payload: bytes) -> None:
        self.socket.send_binary(payload)

    def on_pong(self, payload: bytes) -> None: ...
    def on_drained(self) -> None: ...
    def on_close(self, code: int, reason: str) -> None: ...


class Collector(Echo):
    """Keeps what comes, and tells when it is what was waited for."""

    def __init__(self) -> None:
        self.send, self.events = trio.open_memory_channel[tuple[object, ...]](100)

    def on_open(self, socket: Socket) -> None:
        super().on_open(socket)
        self.send.send_nowait(("open",))

    def on_text(self, payload: bytes) -> None:
        self.send.send_nowait((payload.decode(),))

    def on_binary(self, payload: bytes) -> None:
        self.send.send_nowait((payload,))

    def on_pong(self, payload: bytes) -> None:
        self.send.send_nowait(("pong", payload))

    def on_close(self, code: int, reason: str) -> None:
        self.send.send_nowait(("close", code, reason))


def door(request: Request, peername: str) -> Accept | Refuse:
    """Everybody but those who ask for /closed."""
    if request.path == "/closed":
        return Refuse(403, ErrorCode.FORBIDDEN, "not here")
    subprotocol = "ring.v1" if "ring.v1" in request.subprotocols else None
    return Accept(Echo(), subprotocol, LIMIT, 2 * LIMIT)


@pytest.fixture
async def url(nursery: trio.Nursery) -> str:
    """Our echo server's."""
    pump = Pump()
    await nursery.start(pump.run)
    return f"ws://{pump.listen('127.0.0.1:0', door).address}/"


async def in_thread(
    url: str, work: Callable[[ClientConnection], None], subprotocols: Sequence[Subprotocol] = ()
) -> None:
    """Runs `work` with a connection of `websockets`, beside the pump."""

    def run() -> None:
        with connect(url, max_size=None, subprotocols=subprotocols or None) as connection:
            work(connection)

    with trio.fail_after(DEADLINE_S):
        await trio.to_thread.run_sync(run, abandon_on_cancel=True)


class TestClients:
    """Their clients, our server."""

    async def test_websockets_echo(self, url: str) -> None:
        """Messages of every kind and size, whole and in fragments, with an extension that we decline."""

        def work(connection: ClientConnection) -> None:
            assert connection.subprotocol == "ring.v1"
            for message in MESSAGES:
                connection.send(message)
                assert connection.recv() == message
            connection.send(["frag", "ment", "s"])
            assert connection.recv() == "fragments"
            assert connection.ping("there?").wait(DEADLINE_S)

        await in_thread(url, work, [Subprotocol("other"), Subprotocol("ring.v1")])

    async def test_websockets_closes(self, url: str) -> None:
        """Cleanly, by either side."""

        def theirs(connection: ClientConnection) -> None:
            connection.close(4000, "bye")
            assert connection.close_code == 4000

        def ours(connection: ClientConnection) -> None:
            connection.send("close")
            with pytest.raises(ConnectionClosed):
                connection.recv()
            assert (connection.close_code, connection.close_reason) == (4001, "as you wish")

        await in_thread(url, theirs)
        await in_thread(url, ours)

    async def test_websockets_is_refused(self, url: str) -> None:
        """It sees the status and the body."""
        with trio.fail_after(DEADLINE_S), pytest.raises(InvalidStatus) as refused:
            await trio.to_thread.run_sync(connect, url + "closed")
        assert refused.value.response.status_code == 403
        assert b"not here" in (refused.value.response.body or b"")

    async def test_websockets_sends_too_much(self, url: str) -> None:
        """It is told 1009."""

        def work(connection: ClientConnection) -> None:
            connection.send(bytes(LIMIT + 1))
            with pytest.raises(ConnectionClosed):
                connection.recv()
            assert connection.close_code == 1009

        await in_thread(url, work)

    async def test_trio_websocket_echo(self, url: str) -> None:
        """The same, from Trio."""
        address = urlsplit(url)
        with trio.fail_after(DEADLINE_S):
            # Its own function to connect may leave the TCP connection to the garbage collector.
            stream = await trio.open_tcp_stream(address.hostname or "", address.port or 0)
            async with stream, trio.open_nursery() as nursery:
                connection = await trio_websocket.wrap_client_stream(
                    nursery, stream, address.netloc, "/", subprotocols=["ring.v1"], max_message_size=LIMIT
                )
                assert connection.subprotocol == "ring.v1"
                for message in MESSAGES:
                    await connection.send_message(message)
                    assert await connection.get_message() == message
                await connection.ping(b"there?")
                await connection.send_message("close")
                with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                    await connection.get_message()
        reason = closed.value.reason
        assert reason is not None
        assert (reason.code, reason.reason) == (4001, "as you wish")


@asynccontextmanager
async def websockets_server() -> AsyncIterator[int]:
    """The port of an echo server of `websockets`, in a thread."""

    def answer(connection: ServerConnection) -> None:
        for message in connection:
            if message == "close":
                connection.close(4002, "as you wish")
            connection.send(message)

    server: Server = serve(answer, "127.0.0.1", 0, max_size=None)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        await trio.to_thread.run_sync(server.shutdown)
        await trio.to_thread.run_sync(thread.join)


@asynccontextmanager
async def trio_websocket_server() -> AsyncIterator[int]:
    """The port of an echo server of trio-websocket."""

    async def answer(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        try:
            while True:
                message = await connection.get_message()
                if message == "close":
                    await connection.aclose(4002, "as you wish")
                await connection.send_message(message)
        except trio_websocket.ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(trio_websocket.serve_websocket, answer, "127.0.0.1", 0, None, max_message_size=LIMIT)
        )
        yield server.port
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("server", [websockets_server, trio_websocket_server])
class TestServers:
    """Their servers, our client."""

    @staticmethod
    async def dialled(nursery: trio.Nursery, port: int) -> Collector:
        """An endpoint whose socket is open."""
        pump = Pump()
        await nursery.start(pump.run)
        endpoint = Collector()
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setblocking(False)
        pump.adopt(
            sock, endpoint, host=f"127.0.0.1:{port}", target="/", max_message=LIMIT, max_queued=2 * LIMIT
        )
        with trio.fail_after(DEADLINE_S):
            assert await endpoint.events.receive() == ("open",)
        return endpoint

    async def test_echo(
        self, nursery: trio.Nursery, server: Callable[[], AbstractAsyncContextManager[int]]
    ) -> None:
        """Our frames are masked as they want them, theirs are understood, pings come back."""
        with trio.fail_after(DEADLINE_S):
            async with server() as port:
                endpoint = await self.dialled(nursery, port)
                for message in MESSAGES:
                    if isinstance(message, str):
                        endpoint.socket.send_text(message.encode())
                    else:
                        endpoint.socket.send_binary(message)
                    assert await endpoint.events.receive() == (message,)
                endpoint.socket.ping(b"there?")
                assert await endpoint.events.receive() == ("pong", b"there?")
                endpoint.socket.close(1000, "done")
                assert await endpoint.events.receive() == ("close", 1000, "done")

    async def test_they_close(
        self, nursery: trio.Nursery, server: Callable[[], AbstractAsyncContextManager[int]]
    ) -> None:
        """With their code."""
        with trio.fail_after(DEADLINE_S):
            async with server() as port:
                endpoint = await self.dialled(nursery, port)
                endpoint.socket.send_text(b"close")
                assert await endpoint.events.receive() == ("close", 4002, "as you wish")
