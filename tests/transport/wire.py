"""What the transport's tests put around the pump: an endpoint that tells, and a raw client."""

import socket
import struct
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from ring.protocol.upgrade import Request
from ring.protocol.websocket import BINARY, CLOSE, TEXT, Decoder, close_payload, encode_frame, parse_close
from ring.transport.address import split_address
from ring.transport.handshake import Accept, Door, Refuse
from ring.transport.listener import Listener
from ring.transport.socket import Socket

DEADLINE_S = 10  # of everything that a test waits for
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


class Recorder:
    """An endpoint whose test waits for what it hears: tuples of the event's name and its arguments.

    Each `hears` consumes one event. `reactions` are called, by name of the event, before it is told.
    """

    def __init__(self, **reactions: Callable[..., None]) -> None:
        self._tell, self._told = trio.open_memory_channel[tuple[Any, ...]](100_000)
        self._reactions = reactions
        self.socket: Socket | None = None
        self.closes = 0

    @property
    def ws(self) -> Socket:
        """The socket, once it is open."""
        assert self.socket is not None
        return self.socket

    def _heard(self, name: str, *arguments: object) -> None:
        self._tell.send_nowait((name, *arguments))
        if name in self._reactions:
            self._reactions[name](self, *arguments)

    def on_open(self, socket: Socket) -> None:
        self.socket = socket
        self._heard("open")

    def on_text(self, payload: bytes) -> None:
        self._heard("text", payload)

    def on_binary(self, payload: bytes) -> None:
        self._heard("binary", payload)

    def on_pong(self, payload: bytes) -> None:
        self._heard("pong", payload)

    def on_drained(self) -> None:
        self._heard("drained")

    def on_close(self, code: int, reason: str) -> None:
        self.closes += 1
        self._heard("close", code, reason)

    async def hears(self, name: str) -> Any:
        """The arguments of the next event, which must be of this name: one alone, or all."""
        with trio.fail_after(DEADLINE_S):
            event = await self._told.receive()
        assert event[0] == name, event
        return event[1] if len(event) == 2 else event[1:]

    async def hears_at_last(self, name: str) -> Any:
        """The same, whatever comes before it."""
        with trio.fail_after(DEADLINE_S):
            while True:
                event = await self._told.receive()
                if event[0] == name:
                    return event[1] if len(event) == 2 else event[1:]

    def heard_nothing(self) -> bool:
        """True if no event waits to be asked for."""
        return not self._told.statistics().current_buffer_used


def echo(**reactions: Callable[..., None]) -> Recorder:
    """An endpoint that answers every message with the same."""
    return Recorder(
        text=lambda recorder, payload: recorder.ws.send_text(payload),
        binary=lambda recorder, payload: recorder.ws.send_binary(payload),
        **reactions,
    )


def door_to(
    *endpoints: Recorder,
    max_message: int = 1 << 20,
    max_queued: int | None = 1 << 20,
    subprotocol: str | None = None,
) -> Door:
    """A door that lets one connection in for each endpoint, in order."""
    waiting = list(endpoints)

    def door(request: Request, peername: str) -> Accept | Refuse:
        return Accept(waiting.pop(0), subprotocol, max_message, max_queued)

    return door


def request(target: str = "/", *extra: str) -> bytes:
    """A valid request for a WebSocket."""
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: ring",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY.decode()}",
        "Sec-WebSocket-Version: 13",
        *extra,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame."""
    return encode_frame(opcode, payload, mask=True)


class Wire:
    """A client that is as rude as its test wants; every wait has a deadline.

    Its connection is closed when the test lets go of it.
    """

    def __init__(self, raw: socket.socket) -> None:
        # Not __del__: in a cycle the socket might go first, unclosed.
        weakref.finalize(self, raw.close)
        self.raw = raw
        raw.setblocking(False)
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw))
        self.received = b""
        self._decoder = Decoder(role="client", max_message=1 << 30)
        self._messages: list[tuple[int, bytes]] = []

    @classmethod
    async def to(cls, address: str) -> "Wire":
        """A new connection. The kernel completes it, whether it was accepted or not: nothing waits here."""
        await trio.lowlevel.checkpoint()
        return cls(socket.create_connection(split_address(address)))

    @classmethod
    async def upgraded(cls, address: str, target: str = "/") -> "Wire":
        """A new connection, as a WebSocket."""
        wire = await cls.to(address)
        await wire.send(request(target))
        head = await wire.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return wire

    async def send(self, data: bytes) -> None:
        """Sends these bytes."""
        with trio.fail_after(DEADLINE_S):
            await self.stream.send_all(data)

    async def text(self, payload: bytes) -> None:
        """Sends a text message."""
        await self.send(masked(TEXT, payload))

    async def binary(self, payload: bytes) -> None:
        """Sends a binary message."""
        await self.send(masked(BINARY, payload))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Sends a close frame."""
        await self.send(masked(CLOSE, close_payload(code, reason)))

    async def some(self) -> bytes:
        """Some bytes; none at the end, be it orderly or a reset."""
        with trio.fail_after(DEADLINE_S):
            try:
                return bytes(await self.stream.receive_some())
            except trio.BrokenResourceError:
                return b""

    async def floods(self, data: bytes) -> None:
        """Sends `data` again and again, until the connection is broken."""
        with trio.fail_after(DEADLINE_S), suppress(trio.BrokenResourceError):
            while True:
                await self.stream.send_all(data)

    async def head(self) -> bytes:
        """The head of an answer; what follows stays to be read."""
        while b"\r\n\r\n" not in self.received:
            data = await self.some()
            assert data, f"it ended after {self.received!r}"
            self.received += data
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        return head

    async def message(self) -> tuple[int, bytes]:
        """The next message or control frame."""
        while not self._messages:
            data, self.received = self.received, b""
            if not data:
                data = await self.some()
                assert data, "it ended without a message"
            self._messages = self._decoder.feed(data)
        return self._messages.pop(0)

    async def closed_with(self) -> tuple[int, str]:
        """The code and reason of the close frame that comes next."""
        opcode, payload = await self.message()
        assert opcode == CLOSE, (opcode, payload)
        return parse_close(payload)

    async def all(self) -> bytes:
        """Everything up to the end."""
        data, self.received = [self.received], b""
        while chunk := await self.some():
            data.append(chunk)
        return b"".join(data)

    async def ends(self) -> None:
        """Returns when the other side has ended the connection; nothing may come before."""
        assert await self.all() == b""

    def reset(self) -> None:
        """Breaks the connection: the other side gets a reset."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; other tasks, the pump among them, run meanwhile."""
    with trio.fail_after(DEADLINE_S):
        while not condition():
            await trio.lowlevel.checkpoint()


async def connections_of(listener: Listener, count: int) -> None:
    """Returns when the listener holds so many connections."""
    await until(lambda: listener.connections == count)
