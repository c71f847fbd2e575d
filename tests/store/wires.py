"""What the store's tests put at the other end: a scripted server in memory, and a proxy that can cut."""

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import hiredis
import trio
import trio.testing

from ring.store.address import Address
from ring.store.client import Redis

HELLO = b"%1\r\n+proto\r\n:3\r\n"
PONG = b"+PONG\r\n"


def push(kind: bytes, channel: bytes, last: bytes) -> bytes:
    """A push of three, its last part in RESP."""
    return b">3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n%s" % (len(kind), kind, len(channel), channel, last)


def message(channel: bytes, payload: bytes) -> bytes:
    """What a subscriber is sent when something is published."""
    return push(b"message", channel, b"$%d\r\n%s\r\n" % (len(payload), payload))


def joined(*channels: bytes) -> bytes:
    """The answer to SUBSCRIBE."""
    return b"".join(push(b"subscribe", channel, b":1\r\n") for channel in channels)


def left(*channels: bytes) -> bytes:
    """The answer to UNSUBSCRIBE."""
    return b"".join(push(b"unsubscribe", channel, b":0\r\n") for channel in channels)


class Call:
    """A task that runs `function`, and what came out of it."""

    def __init__(self, nursery: trio.Nursery, function: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        nursery.start_soon(self._run, function)

    async def _run(self, function: Callable[[], Any]) -> None:
        with self.scope:
            try:
                self.result = await function()
            except Exception as error:
                self.error = error
        self.done.set()


class Peer:
    """The server's end of a connection in memory: a test reads commands and writes answers."""

    def __init__(self) -> None:
        self.client_end, self.stream = trio.testing.memory_stream_pair()
        self.sends = 0  # pieces in which the client's bytes arrived
        self._reader = hiredis.Reader()
        self._commands: deque[list[bytes]] = deque()

    async def command(self) -> list[bytes]:
        """The next command."""
        while not self._commands:
            data = await self.stream.receive_some()
            assert data, "the client closed the connection"
            self.sends += 1
            self._reader.feed(bytes(data))
            while (command := self._reader.gets()) is not False:
                self._commands.append(command)
        return self._commands.popleft()

    async def ends(self) -> None:
        """Returns once the client has closed the connection, whatever it sent before."""
        async for _ in self.stream:
            pass

    async def answer(self, data: bytes) -> None:
        """Writes `data`, in RESP."""
        await self.stream.send_all(data)

    async def greet(self) -> None:
        """Lets the client in."""
        assert (await self.command())[0] == b"HELLO"
        assert await self.command() == [b"PING"]
        await self.answer(HELLO + PONG)

    async def cut(self) -> None:
        """Breaks the connection."""
        await trio.aclose_forcefully(self.stream)


class Harbour:
    """A `dial` for `Redis` that leads to a new `Peer` each time, after failing `refuse` times."""

    def __init__(self, *, refuse: float = 0) -> None:
        self.refuse = refuse
        self.dials: list[float] = []  # when
        self._send, self._receive = trio.open_memory_channel[Peer](100)

    async def dial(self) -> trio.abc.Stream:
        """What `Redis` calls."""
        await trio.lowlevel.checkpoint()
        self.dials.append(trio.current_time())
        if len(self.dials) <= self.refuse:
            raise ConnectionRefusedError(111, "Connection refused")
        peer = Peer()
        self._send.send_nowait(peer)
        return peer.client_end

    async def peer(self) -> Peer:
        """The next connection's other end."""
        return await self._receive.receive()

    def redis(self, address: Address | None = None) -> Redis:
        """A client that dials here."""
        return Redis(address or Address(), client_name="test", dial=self.dial)


class Proxy:
    """A TCP proxy before a real server; `run` serves until cancelled."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.connections = 0
        # Called with each piece for the server. After True the server's answer cuts the connection: what was
        # sent has been done by then, and nobody hears of it.
        self.cut_at: Callable[[bytes], bool] = lambda _: False
        self._target = port
        self._scopes: set[trio.CancelScope] = set()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Cuts every connection."""
        for scope in self._scopes:
            scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serves until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, client: trio.SocketStream) -> None:
        self.connections += 1
        cutting = False

        async def ask() -> None:
            nonlocal cutting
            async for data in client:
                cutting = cutting or self.cut_at(bytes(data))
                await server.send_all(data)

        async def answer() -> None:
            async for data in server:
                if cutting:
                    break
                await client.send_all(data)

        async def until_broken(direction: Callable[[], Awaitable[None]]) -> None:
            with suppress(trio.BrokenResourceError):
                await direction()
            scope.cancel()

        async with client, await trio.open_tcp_stream("127.0.0.1", self._target) as server:
            with trio.CancelScope() as scope:
                self._scopes.add(scope)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(until_broken, ask)
                    nursery.start_soon(until_broken, answer)
            self._scopes.discard(scope)
