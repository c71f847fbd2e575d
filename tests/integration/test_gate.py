"""The gates that the tests of faults stand on do what they say: else those tests would prove nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from ring.peers.mesh import connect
from ring.peers.proof import hello
from ring.protocol import peer
from ring.protocol.upgrade import client_request
from ring.protocol.websocket import BINARY, encode_frame
from ring.transport.address import join_address, split_address
from tests.integration.gate import Gate, reset

DEADLINE_S = 10
SILENT_S = 0.3


Dial = Callable[[], Awaitable[trio.SocketStream]]


class Echo:
    """Says what it hears, and ends when the other side does."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = trio.Event()

    async def listen(self, stream: trio.SocketStream) -> None:
        """To one connection."""
        with suppress(trio.BrokenResourceError):
            async for data in stream:
                self.heard += data
                await stream.send_all(data)
        self.ended.set()


@asynccontextmanager
async def gate_to_an_echo(
    echo: Echo | None = None, *, peers: bool = False
) -> AsyncIterator[tuple[Gate, Dial]]:
    """A gate that is open, and how to dial it; all ends with the block."""
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery, AsyncExitStack() as lines:
            listeners = await nursery.start(
                partial(trio.serve_tcp, (echo or Echo()).listen, 0, host="127.0.0.1")
            )
            gate = Gate(join_address(listeners[0].socket.getsockname()), peers=peers)
            await nursery.start(gate.run)

            async def dial() -> trio.SocketStream:
                return await lines.enter_async_context(
                    await trio.open_tcp_stream(*split_address(gate.address))
                )

            yield gate, dial
            nursery.cancel_scope.cancel()


async def hears(stream: trio.SocketStream, words: bytes) -> None:
    """Returns when it has heard just this."""
    heard = b""
    while len(heard) < len(words):
        data = await stream.receive_some()
        assert data, heard
        heard += data
    assert heard == words


async def is_silent(stream: trio.SocketStream) -> None:
    """Returns when nothing has come for a while."""
    with trio.move_on_after(SILENT_S):
        raise AssertionError(await stream.receive_some())


async def test_an_open_gate() -> None:
    """What is said comes through, and the end too."""
    async with gate_to_an_echo() as (_, dial):
        stream = await dial()
        await stream.send_all(b"words")
        await hears(stream, b"words")
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_a_gate_that_is_cut() -> None:
    """Connections are reset, dials refused; later it is as it was."""
    async with gate_to_an_echo() as (gate, dial):
        stream = await dial()
        await stream.send_all(b"words")
        await hears(stream, b"words")
        gate.cut()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(ConnectionRefusedError):
            await connect(gate.address)
        gate.mend()
        again = await dial()
        await again.send_all(b"words")
        await hears(again, b"words")


async def test_a_silent_gate() -> None:
    """Nothing comes back, a dial is not even refused, an end is not seen; then all arrives late."""
    async with gate_to_an_echo() as (gate, dial):
        streams = [await dial(), await dial()]
        for stream in streams:
            await stream.send_all(b"first")
            await hears(stream, b"first")
        gate.silence()
        await streams[0].send_all(b"second")
        await streams[1].send_eof()
        await is_silent(streams[0])
        await is_silent(streams[1])
        with trio.move_on_after(SILENT_S) as unanswered:
            await connect(gate.address)
        assert unanswered.cancelled_caught
        gate.mend()
        await hears(streams[0], b"second")
        assert await streams[1].receive_some() == b""
        again = await dial()
        await again.send_all(b"words")
        await hears(again, b"words")


async def test_what_was_given_up_in_silence() -> None:
    """A dialer that has reset its connection sends nothing again: what the silence swallowed is lost."""
    echo = Echo()
    async with gate_to_an_echo(echo) as (gate, dial):
        stream = await dial()
        await stream.send_all(b"first")
        await hears(stream, b"first")
        gate.silence()
        await stream.send_all(b"second")
        await is_silent(stream)
        reset(stream.socket)
        stream.socket.close()
        gate.mend()
        await echo.ended.wait()
        assert echo.heard == b"first"


async def test_one_dialer_is_silenced() -> None:
    """The peer that named itself so is heard no more; others are, but who dials anew is not answered."""
    async with gate_to_an_echo(peers=True) as (gate, dial):
        streams = {}
        for name in ("n1", "n2"):
            request, _ = client_request(gate.address, peer.PEER_PATH, [peer.SUBPROTOCOL])
            frame = encode_frame(BINARY, peer.encode(hello("test", name, "a life", 1)), mask=True)
            streams[name] = await dial()
            for part in (request, frame):
                await streams[name].send_all(part)
                await hears(streams[name], part)
        gate.silence("n1")
        await streams["n2"].send_all(b"words")
        await hears(streams["n2"], b"words")
        await streams["n1"].send_all(b"words")
        await is_silent(streams["n1"])
        with trio.move_on_after(SILENT_S) as unanswered:
            await connect(gate.address)
        assert unanswered.cancelled_caught
