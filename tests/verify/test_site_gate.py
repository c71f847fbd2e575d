"""The gates that faults stand on do what they say: else what is verified behind them would prove nothing."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from random import randbytes

import pytest
import trio

from ring.peers.dial import connect
from ring.peers.proof import hello
from ring.protocol import peer
from ring.protocol.codes import RingError
from ring.protocol.upgrade import client_request
from ring.protocol.websocket import BINARY, encode_frame
from ring.transport.address import join_address, split_address
from ring.verify import gate as gate_module
from ring.verify.gate import WAYS, Gate, Seat, Way, bound, reset

DEADLINE_S = 10
SILENT_S = 0.3
MUCH_BYTES = 32 * 1024 * 1024


Dial = Callable[[], Awaitable[trio.SocketStream]]


class Echo:
    """Says what it hears, and ends when the other side does."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.ended = trio.Event()
        self.streams: list[trio.SocketStream] = []

    async def listen(self, stream: trio.SocketStream) -> None:
        """To one connection."""
        self.streams.append(stream)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
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
    heard = bytearray()
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


async def named(gate: Gate, dial: Dial, *names: str) -> dict[str, trio.SocketStream]:
    """Connections whose dialers have said their names, as peers do."""
    streams = {}
    for name in names:
        request, _ = client_request(gate.address, peer.PEER_PATH, [peer.SUBPROTOCOL])
        frame = encode_frame(BINARY, peer.encode(hello("test", name, "a life", 1)), mask=True)
        streams[name] = await dial()
        for part in (request, frame):
            await streams[name].send_all(part)
            await hears(streams[name], part)
    return streams


async def test_one_dialer_is_silenced() -> None:
    """The peer that named itself so is heard no more; others are, but who dials anew is not answered."""
    async with gate_to_an_echo(peers=True) as (gate, dial):
        streams = await named(gate, dial, "n1", "n2")
        gate.silence("n1")
        await streams["n2"].send_all(b"words")
        await hears(streams["n2"], b"words")
        await streams["n1"].send_all(b"words")
        await is_silent(streams["n1"])
        with trio.move_on_after(SILENT_S) as unanswered:
            await connect(gate.address)
        assert unanswered.cancelled_caught


async def test_one_dialer_is_cut() -> None:
    """The peer that named itself so is reset; others are not, but who dials anew is refused."""
    async with gate_to_an_echo(peers=True) as (gate, dial):
        streams = await named(gate, dial, "n1", "n2")
        gate.cut("n1")
        with pytest.raises(trio.BrokenResourceError):
            await streams["n1"].receive_some()
        await streams["n2"].send_all(b"words")
        await hears(streams["n2"], b"words")
        assert [crossing.dialer for crossing in gate.crossings] == ["n2"]
        with pytest.raises(ConnectionRefusedError):
            await connect(gate.address)


@pytest.mark.parametrize("way", WAYS)
async def test_silence_of_one_way(way: Way) -> None:
    """What is said the other way arrives; what is not is counted, and arrives late."""
    echo = Echo()
    async with gate_to_an_echo(echo) as (gate, dial):
        stream = await dial()
        await stream.send_all(b"first")
        await hears(stream, b"first")
        assert gate.held(way) == 0
        gate.silence(ways=(way,))
        if way == "in":
            await stream.send_all(b"second")
            await is_silent(stream)
            assert (bytes(echo.heard), gate.held("in"), gate.held("out")) == (b"first", 6, 0)
            await echo.streams[0].send_all(b"third")
            await hears(stream, b"third")
        else:
            await stream.send_all(b"second")
            await is_silent(stream)
            assert (bytes(echo.heard), gate.held("in"), gate.held("out")) == (b"firstsecond", 0, 6)
        with trio.move_on_after(SILENT_S) as unanswered:
            await connect(gate.address)
        assert unanswered.cancelled_caught
        gate.mend()
        await hears(stream, b"second")
        assert echo.heard == b"firstsecond"


async def test_an_end_travels_with_what_is_said() -> None:
    """A reset is seen across the way that flows, and not across the one that is silent."""
    echo = Echo()
    async with gate_to_an_echo(echo) as (gate, dial):
        streams = [await dial(), await dial()]
        for stream in streams:
            await stream.send_all(b"first")
            await hears(stream, b"first")
        gate.silence(ways=("in",))
        reset(echo.streams[0].socket)
        echo.streams[0].socket.close()
        with pytest.raises(trio.BrokenResourceError):
            await streams[0].receive_some()
        await echo.ended.wait()
        echo.ended = trio.Event()
        reset(streams[1].socket)
        streams[1].socket.close()
        with trio.move_on_after(SILENT_S) as unseen:
            await echo.ended.wait()
        assert unseen.cancelled_caught
        gate.mend()
        await echo.ended.wait()


async def test_a_reset_does_not_come_back_in_silence() -> None:
    """Who speaks to a side that has reset the connection learns it only where that side is heard."""
    echo = Echo()
    async with gate_to_an_echo(echo) as (gate, dial):
        stream = await dial()
        await stream.send_all(b"first")
        await hears(stream, b"first")
        gate.silence(ways=("out",))
        reset(echo.streams[0].socket)
        echo.streams[0].socket.close()
        await stream.send_all(b"second")
        await is_silent(stream)
        gate.mend()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_much_passes_whole() -> None:
    """Both ways at once, more than any buffer holds."""
    much = randbytes(MUCH_BYTES)
    async with gate_to_an_echo() as (_, dial):
        stream = await dial()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, much)
            await hears(stream, much)


async def test_mending_what_is_whole_disturbs_nobody() -> None:
    """Who has just dialled, and is not accepted yet, is served."""
    async with gate_to_an_echo() as (gate, _):
        with socket.create_connection(split_address(gate.address)) as sock:  # the gate gets no turn
            gate.mend()
            sock.setblocking(False)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            await stream.send_all(b"words")
            await hears(stream, b"words")


async def test_nobody_is_behind_it() -> None:
    """A dialer sees its connection end."""
    async with gate_to_an_echo() as (gate, dial):
        seat = Seat()
        gate.target = seat.address
        stream = await dial()
        assert await stream.receive_some() == b""
        seat.close()


async def test_a_kernel_that_knows_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a full backlog does not make a port deaf there is no silence, and that is said."""
    monkeypatch.setattr(gate_module, "MOST_FILLERS", 0)
    async with gate_to_an_echo() as (gate, _):
        with pytest.raises(RingError, match="answers dials that nobody accepts"):
            gate.silence()


def test_a_seat_is_kept() -> None:
    """Nobody listens there, and nobody else gets the port, until it is given up."""
    seat = Seat()
    assert seat.port == seat.name[1]
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(seat.name)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(seat.name)
    with bound(seat.name) as server:
        server.listen()
    seat.close()
    with socket.socket() as other:
        other.bind(seat.name)
