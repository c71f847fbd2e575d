"""Accepting: addresses, storms, limits, and a system that has run out of descriptors."""

import errno
import socket
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from ring.protocol.upgrade import Request
from ring.protocol.websocket import TEXT
from ring.transport.address import CannotListen
from ring.transport.agenda import ACCEPTS_PER_TICK
from ring.transport.handshake import Accept
from ring.transport.pump import Pump
from tests.transport.wire import DEADLINE_S, Recorder, Wire, connections_of, door_to, echo, request, until


def echoes(request: Request, peername: str) -> Accept:
    """A door that is open to everybody."""
    return Accept(echo(), None, 1000, 1000)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_it_listens_on_both_families(pump: Pump, host: str) -> None:
    """And says its real address, which names the other side's family too."""
    endpoint = Recorder()
    listener = pump.listen(f"{host}:0", door_to(endpoint))
    wire = await Wire.upgraded(listener.address)
    await endpoint.hears("open")
    name = wire.raw.getsockname()
    assert endpoint.ws.peername == (f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}")
    assert listener.address.rpartition(":")[0] == endpoint.ws.peername.rpartition(":")[0]


async def test_small_messages_are_not_held_back(pump: Pump) -> None:
    """Nagle's algorithm is off on both sides' sockets."""
    server, client = Recorder(), Recorder()
    listener = pump.listen("127.0.0.1:0", door_to(server))
    wire = await Wire.to(listener.address)
    pump.adopt(wire.raw.dup(), client, host="ring", target="/", max_message=1, max_queued=1)
    await client.hears("open")
    for ws in (server.ws, client.ws):
        assert ws._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_storm_of_connections(pump: Pump) -> None:
    """Five hundred at once: all are let in and all are answered."""
    listener = pump.listen("127.0.0.1:0", echoes)
    wires = [await Wire.to(listener.address) for _ in range(500)]
    for wire in wires:
        await wire.send(request())
        await wire.text(b"hello")
    for wire in wires:
        await wire.head()
        assert await wire.message() == (TEXT, b"hello")
    assert listener.connections == pump.connections == 500
    del wires, wire
    await connections_of(listener, 0)


async def test_a_tick_accepts_a_bounded_number(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait in the kernel for the next."""
    accepted: list[int] = []
    real = socket.socket.accept

    def count(sock: socket.socket) -> tuple[socket.socket, Any]:
        result = real(sock)
        accepted.append(pump.ticks)
        return result

    monkeypatch.setattr(socket.socket, "accept", count)
    listener = pump.listen("127.0.0.1:0", echoes)
    wires = [
        socket.create_connection(("127.0.0.1", int(listener.address.rpartition(":")[2]))) for _ in range(100)
    ]
    await connections_of(listener, 100)
    assert accepted.count(accepted[0]) == ACCEPTS_PER_TICK
    for wire in wires:
        wire.close()


class FailingAccept:
    """`accept`, failing with given errors before it works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *errors: int) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.real = socket.socket.accept
        monkeypatch.setattr(socket.socket, "accept", lambda sock: self(sock))

    def __call__(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        self.calls += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, errno.errorcode[number])
        return self.real(sock)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_without_descriptors_it_waits(pump: Pump, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """It tries again a little later, without spinning, and says so once; others are served meanwhile."""
    listener = pump.listen("127.0.0.1:0", echoes)
    other = await Wire.upgraded(listener.address)
    accept = FailingAccept(monkeypatch, error, error, error)
    with capture_logs() as logs:
        wire = await Wire.to(listener.address)
        await wire.send(request())
        await until(lambda: accept.calls > 0)
        ticks = pump.ticks
        await other.text(b"hello")
        assert await other.message() == (TEXT, b"hello")
        await wire.head()
    assert len(logs) == 1
    assert logs[0]["event"] == "cannot accept connections"
    assert accept.calls == 5  # three failures, the success, and the one that finds no more
    assert pump.ticks - ticks < 20
    accept.errors = [error]
    with capture_logs() as logs:
        await Wire.upgraded(listener.address)
    assert len(logs) == 1  # a new trouble is a new message


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EPROTO])
async def test_a_connection_that_ended_in_the_queue(
    pump: Pump, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Is passed over: the next is accepted in the same tick."""
    listener = pump.listen("127.0.0.1:0", echoes)
    accept = FailingAccept(monkeypatch, error, error)
    with capture_logs() as logs:
        await Wire.upgraded(listener.address)
    assert not logs
    assert not accept.errors


async def test_a_connection_that_ended_while_it_was_accepted(
    pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS refuses to set its options: it is passed over, too."""
    real = socket.socket.setsockopt
    failures = [errno.EINVAL]

    def setsockopt(sock: socket.socket, *arguments: Any) -> None:
        if arguments[:2] == (socket.IPPROTO_TCP, socket.TCP_NODELAY) and failures:
            raise OSError(failures.pop(), "invalid")
        real(sock, *arguments)

    listener = pump.listen("127.0.0.1:0", echoes)
    first = await Wire.to(listener.address)
    monkeypatch.setattr(socket.socket, "setsockopt", setsockopt)
    await first.ends()
    await Wire.upgraded(listener.address)


async def test_beyond_the_limit_connections_are_refused(pump: Pump) -> None:
    """With an answer that says so; once one has gone, the next is let in."""
    listener = pump.listen("127.0.0.1:0", echoes, max_connections=2)
    wires = [await Wire.upgraded(listener.address) for _ in range(2)]
    late = await Wire.to(listener.address)
    await late.send(request())
    assert (await late.head()).startswith(b"HTTP/1.1 503 ")
    await connections_of(listener, 2)
    wires.pop()
    await connections_of(listener, 1)
    await Wire.upgraded(listener.address)


async def test_far_beyond_the_limit_connections_wait(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are to be refused take descriptors, too: only so many at a time."""
    monkeypatch.setattr("ring.transport.listener._SPARE", 3)
    listener = pump.listen("127.0.0.1:0", echoes, max_connections=2)
    wires = [await Wire.to(listener.address) for _ in range(8)]
    await connections_of(listener, 5)
    await wait_all_tasks_blocked()
    assert listener.connections == 5
    for wire in wires:
        await wire.send(request())
    heads = [(await wire.head())[:12] for wire in wires]
    assert heads.count(b"HTTP/1.1 101") == 2
    assert heads.count(b"HTTP/1.1 503") == 6


async def test_it_can_be_started_later(pump: Pump) -> None:
    """The address is known, and taken, before anybody can connect; it need not start to be stopped."""
    listener = pump.listen("127.0.0.1:0", echoes, start=False)
    with pytest.raises(ConnectionRefusedError):
        await Wire.to(listener.address)
    listener.start()
    await Wire.upgraded(listener.address)
    pump.listen("127.0.0.1:0", echoes, start=False).stop()


async def test_the_address_may_be_lost_before_it_starts(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_REUSEADDR lets two bind and one listen: the other is told."""

    def listen(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    listener = pump.listen("127.0.0.1:0", echoes, start=False)
    monkeypatch.setattr(socket.socket, "listen", listen)
    with pytest.raises(CannotListen, match="already in use"):
        listener.start()
    assert listener._sock.fileno() == -1


async def test_it_can_be_stopped(pump: Pump) -> None:
    """New connections are refused by the kernel; those that are open go on. Stopping twice does nothing."""
    listener = pump.listen("127.0.0.1:0", echoes)
    wire = await Wire.upgraded(listener.address)
    listener.stop()
    listener.stop()
    with pytest.raises(ConnectionRefusedError):
        await Wire.to(listener.address)
    await wire.text(b"hello")
    assert await wire.message() == (TEXT, b"hello")


async def test_it_can_be_stopped_while_it_waits(pump: Pump, monkeypatch: pytest.MonkeyPatch) -> None:
    """For descriptors: it does not begin again."""
    listener = pump.listen("127.0.0.1:0", echoes)
    accept = FailingAccept(monkeypatch, *[errno.EMFILE] * 100)
    await Wire.to(listener.address)
    await until(lambda: accept.calls > 0)
    listener.stop()
    fired = trio.Event()
    pump.wheel.call_later(0.2, fired.set)
    with trio.fail_after(DEADLINE_S):
        await fired.wait()
    assert accept.calls == 1
