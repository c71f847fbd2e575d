"""The tick: fairness, wake-ups, hooks, failures of ours, and the end."""

import socket
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from ring.protocol.upgrade import Request
from ring.protocol.websocket import CLOSE, TEXT
from ring.transport.agenda import MESSAGES_PER_SOCKET, MESSAGES_PER_TICK, Watched
from ring.transport.handshake import Accept, Arrival
from ring.transport.lingering import Lingering
from ring.transport.listener import Listener
from ring.transport.poller import Poller, SelectorPoller, make_poller
from ring.transport.pump import Pump
from ring.transport.socket import Socket
from tests.transport.conftest import IMPATIENT
from tests.transport.test_socket import backed_up
from tests.transport.wire import (
    DEADLINE_S,
    Recorder,
    Wire,
    connections_of,
    door_to,
    echo,
    masked,
    request,
    until,
)


@pytest.fixture
def descriptors() -> Iterator[None]:
    """The test must leave as many descriptors open as there were."""
    before = len(list(Path("/dev/fd").iterdir()))
    yield
    assert len(list(Path("/dev/fd").iterdir())) == before


class TestTick:
    """What a tick does, and for whom."""

    @pytest.mark.parametrize("make", [make_poller, SelectorPoller])
    async def test_it_counts(self, nursery: trio.Nursery, make: Callable[[], Poller]) -> None:
        """On the selector of this platform, and on the one for the others."""
        pump = Pump(poller=make())
        await nursery.start(pump.run)
        listener = pump.listen("127.0.0.1:0", door_to(echo()))
        wire = await Wire.upgraded(listener.address)
        await wire.text(b"hello")
        assert await wire.message() == (TEXT, b"hello")
        assert pump.ticks >= 3
        assert pump.events >= 3
        assert pump.bytes_in == len(request()) + 11
        assert pump.bytes_out == 129 + 7
        assert pump.messages_in == 1
        assert pump.connections == 1

    async def test_a_flood_does_not_starve_others(self) -> None:
        """Of what lies ready from two floods a tick handles a part, then it is somebody else's turn."""
        pump = Pump()
        handled = 0
        seen: list[int] = []

        def count(recorder: Recorder, payload: bytes) -> None:
            nonlocal handled
            handled += 1

        flooded = [Recorder(text=count), Recorder(text=count)]
        victim = echo()
        listener = pump.listen("127.0.0.1:0", door_to(*flooded, victim))
        async with trio.open_nursery() as nursery:
            await nursery.start(pump.run)
            floods = [await Wire.upgraded(listener.address) for _ in flooded]
            wire = await Wire.upgraded(listener.address)
            await victim.hears("open")
            many = 5000
            for flood in floods:
                assert flood.raw.send(masked(TEXT, b"") * many) == 6 * many
            seen.append(handled)
            await wire.text(b"hello")
            assert await wire.message() == (TEXT, b"hello")
            seen.append(handled)
            await until(lambda: handled == 2 * many)
            nursery.cancel_scope.cancel()
        assert seen[0] == 0
        assert seen[1] <= 10 * MESSAGES_PER_SOCKET

    async def test_a_tick_has_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many sockets flood: after some messages other tasks run, then it goes on where it was."""
        monkeypatch.setattr("ring.transport.pump.MESSAGES_PER_TICK", 2 * MESSAGES_PER_SOCKET)
        assert MESSAGES_PER_TICK > 2 * MESSAGES_PER_SOCKET
        pump = Pump()
        per_tick: dict[int, set[int]] = {}
        endpoints = [
            Recorder(text=lambda _, payload: per_tick.setdefault(pump.ticks, set()).add(payload[0]))
            for _ in range(7)
        ]
        listener = pump.listen("127.0.0.1:0", door_to(*endpoints))
        async with trio.open_nursery() as nursery:
            await nursery.start(pump.run)
            wires = [await Wire.upgraded(listener.address) for _ in endpoints]
            await until(lambda: pump.connections == len(endpoints))
            for index, wire in enumerate(wires):
                wire.raw.send(masked(TEXT, bytes([index])) * (3 * MESSAGES_PER_SOCKET))
            await until(lambda: pump.messages_in == 7 * 3 * MESSAGES_PER_SOCKET)
            nursery.cancel_scope.cancel()
        turns = [sorted(per_tick[tick]) for tick in sorted(per_tick)]
        assert all(len(turn) == 2 for turn in turns[:10])
        assert set().union(*turns[:4]) == set(range(7))  # each had its turn before the first had its second

    async def test_hooks_run_before_the_flush(self, pump: Pump) -> None:
        """What they send goes out with the tick's other output; one that fails is logged, the others run."""
        endpoint = Recorder()
        listener = pump.listen("127.0.0.1:0", door_to(endpoint))
        wire = await Wire.upgraded(listener.address)
        await endpoint.hears("open")
        collected: list[bytes] = []

        def fail() -> None:
            raise ZeroDivisionError

        def write() -> None:
            while collected:
                endpoint.ws.send_text(collected.pop(0))

        pump.before_flush += [fail, write]
        with capture_logs() as logs:
            collected.append(b"batch")
            pump.flush_soon()
            assert await wire.message() == (TEXT, b"batch")
            pump.before_flush.clear()
        assert [log["event"] for log in logs] == ["a hook before the flush failed"]

    async def test_what_the_end_of_a_tick_causes_is_done_at_once(self, pump: Pump) -> None:
        """However long the chain: each one that ends tells the next, by whichever task."""
        endpoints = [Recorder() for _ in range(6)]
        listener = pump.listen("127.0.0.1:0", door_to(*endpoints))
        wires = [await Wire.upgraded(listener.address) for _ in endpoints]
        for endpoint in endpoints:
            await endpoint.hears("open")
        for endpoint, following in pairwise(endpoints):
            endpoint._reactions["close"] = lambda *_, following=following: following.ws.close(4009)
        await wait_all_tasks_blocked()
        endpoints[0].ws.close(4009)
        for wire in wires:
            assert (await wire.closed_with())[0] == 4009

    async def test_timers_fire_by_themselves(self, pump: Pump) -> None:
        """An idle pump sleeps until the wheel is due, also if that comes to be earlier; output goes out."""
        endpoint = Recorder()
        listener = pump.listen("127.0.0.1:0", door_to(endpoint))
        wire = await Wire.upgraded(listener.address)
        await endpoint.hears("open")
        pump.wheel.call_later(60, lambda: endpoint.ws.send_text(b"late"))
        await wait_all_tasks_blocked()
        pump.wheel.call_later(0.01, lambda: endpoint.ws.send_text(b"early"))
        assert await wire.message() == (TEXT, b"early")

    async def test_a_stale_event_does_no_harm(self, pump: Pump) -> None:
        """One for a descriptor that another connection got meanwhile, or that nobody has."""
        endpoint = echo()
        behind = Recorder()
        listener = pump.listen("127.0.0.1:0", door_to(endpoint, behind))
        arrival = await Wire.to(listener.address)
        await connections_of(listener, 1)
        wire = await Wire.upgraded(listener.address)
        await endpoint.hears("open")
        slow = await Wire.upgraded(listener.address)
        await backed_up(behind)
        refused = await Wire.to(listener.address)
        await refused.send(b"nonsense\r\n")
        await refused.head()
        watched = pump._agenda.watched
        kinds = {type(what) for what in watched if what is not None}
        assert kinds >= {Arrival, Socket, Lingering, Listener}
        queued = behind.ws.queued
        refused.stream.socket.close()
        for bits in (0, 1, 4, 5):
            pump._tick([(fd, bits) for fd in range(len(watched))] * 2)
        assert behind.ws.queued == queued
        del slow
        await wire.text(b"hello")
        assert await wire.message() == (TEXT, b"hello")
        await arrival.send(b"nonsense\r\n")
        assert (await arrival.head()).startswith(b"HTTP/1.1 400 ")

    @pytest.mark.parametrize("method", ["on_ready", "flush"])
    async def test_a_bug_of_ours_ends_one_connection(
        self, pump: Pump, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        """Logged, whole; the pump and the other connections go on."""
        victim, neighbour = echo(), echo()
        listener = pump.listen("127.0.0.1:0", door_to(victim, neighbour))
        wire, other = await Wire.upgraded(listener.address), await Wire.upgraded(listener.address)
        await victim.hears("open")
        real = getattr(Socket, method)

        def fail(ws: Socket, *events: int) -> None:
            if ws is victim.ws:
                raise ZeroDivisionError
            real(ws, *events)

        monkeypatch.setattr(Socket, method, fail)
        with capture_logs() as logs:
            await wire.text(b"hello")
            assert await victim.hears_at_last("close") == (1006, "aborted")
        assert [log["exc_info"] for log in logs] == [True]
        await other.text(b"hello")
        assert await other.message() == (TEXT, b"hello")

    @pytest.mark.parametrize("kind", ["Arrival", "Lingering", "Listener"])
    async def test_a_bug_of_ours_elsewhere(
        self, pump: Pump, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """The same for what is not yet, or no longer, a WebSocket, and for a listener: that tries again."""
        listener = pump.listen("127.0.0.1:0", door_to(echo()))
        owners: dict[str, type[Watched]] = {"Arrival": Arrival, "Lingering": Lingering, "Listener": Listener}
        owner = owners[kind]
        real = owner.on_ready
        failures = [ZeroDivisionError()]

        def fail(what: Watched, events: int) -> None:
            if failures:
                raise failures.pop()
            real(what, events)

        monkeypatch.setattr(owner, "on_ready", fail)
        with capture_logs() as logs:
            wire = await Wire.to(listener.address)
            if kind != "Listener":
                await wire.send(b"nonsense\r\n" * 2)
                await wire.all()
                wire.reset()
            await until(lambda: not failures)
        assert [log["event"] for log in logs] == ["a connection failed"]
        await Wire.upgraded(listener.address)


class TestEnd:
    """Cancelling it."""

    async def test_everything_is_closed(self, descriptors: None) -> None:
        """Whatever state it is in: endpoints are told once, clients get a 1001 or an end."""
        pump = Pump()
        server, behind, closing, client, dialling = Recorder(), Recorder(), Recorder(), Recorder(), Recorder()
        async with trio.open_nursery() as nursery:
            await nursery.start(pump.run)
            listener = pump.listen("127.0.0.1:0", door_to(server, behind, closing))
            wires = [await Wire.upgraded(listener.address) for _ in range(3)]
            for endpoint in (server, behind, closing):
                await endpoint.hears("open")
            behind.ws._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            behind.ws.send_binary(bytes(900_000))
            closing.ws.close(4001)
            arrival, refused = await Wire.to(listener.address), await Wire.to(listener.address)
            await arrival.send(b"GET /")
            await refused.send(b"nonsense\r\n")
            await refused.head()
            with socket.create_server(("127.0.0.1", 0)) as silent:
                dialled = socket.create_connection(silent.getsockname())
                pump.adopt(dialled, dialling, host="ring", target="/", max_message=1, max_queued=1)
                await connections_of(listener, 4)
                nursery.cancel_scope.cancel()
        assert await server.hears("close") == (1001, "")
        assert await behind.hears_at_last("close") == (1001, "")
        assert await closing.hears("close") == (4001, "")
        assert await dialling.hears("close") == (1006, "the pump ended")
        assert client.heard_nothing()
        assert await wires[0].closed_with() == (1001, "")
        await wires[0].ends()
        assert await wires[2].closed_with() == (4001, "")
        await arrival.ends()
        await refused.all()
        assert pump.connections == listener.connections == 0
        del wires, arrival, refused

    async def test_an_endpoint_may_send_when_it_is_told(self) -> None:
        """To sockets that are closed already: nothing happens."""
        pump = Pump()
        other = Recorder()

        def send(*_: object) -> None:
            other.ws.send_text(b"x")
            other.ws.abort()
            pump.flush_soon()

        endpoint = Recorder(close=send)
        async with trio.open_nursery() as nursery:
            await nursery.start(pump.run)
            listener = pump.listen("127.0.0.1:0", door_to(endpoint, other))
            wires = [await Wire.upgraded(listener.address) for _ in range(2)]
            await other.hears("open")
            nursery.cancel_scope.cancel()
        for wire in wires:
            assert (await wire.closed_with())[0] == 1001
        assert other.closes == endpoint.closes == 1

    async def test_an_ended_pump_takes_nothing_more(self) -> None:
        """Neither listeners nor sockets, and it does not run again."""
        pump = Pump()
        async with trio.open_nursery() as nursery:
            await nursery.start(pump.run)
            nursery.cancel_scope.cancel()
        with pytest.raises(RuntimeError, match="has ended"):
            pump.listen("127.0.0.1:0", door_to())
        with socket.socket() as sock, pytest.raises(RuntimeError, match="has ended"):
            pump.adopt(sock, Recorder(), host="", target="/", max_message=1, max_queued=1)
        with pytest.raises(RuntimeError, match="has ended"):
            await pump.run()

    async def test_a_broken_pump_closes_too(self, descriptors: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the selector itself fails, the error comes out of `run`, and nothing stays open."""
        pump = Pump(patience=IMPATIENT)
        listener = pump.listen("127.0.0.1:0", door_to())
        paused = pump.listen("127.0.0.1:0", door_to())
        paused.abort()
        pump.listen("127.0.0.1:0", door_to(), start=False)

        def fail(_: object) -> None:
            raise OSError("a broken selector")

        monkeypatch.setattr(type(pump._agenda.poller), "poll", fail)
        wire = await Wire.to(listener.address)
        with (
            trio.fail_after(DEADLINE_S),
            pytest.RaisesGroup(pytest.RaisesExc(OSError, match="a broken selector")),
        ):
            await pump.run()
        del wire
        assert listener._sock.fileno() == -1

    async def test_what_was_queued_before_it_ran_is_sent(self) -> None:
        """Listeners may be opened, and timers set, before `run`."""
        pump = Pump()
        endpoint = Recorder(open=lambda recorder: recorder.ws.send_text(b"hello"))
        listener = pump.listen("127.0.0.1:0", door_to(endpoint))
        wire = await Wire.to(listener.address)
        await wire.send(request())
        pump.flush_soon()
        fired = trio.Event()
        pump.wheel.call_later(0, fired.set)
        async with trio.open_nursery() as nursery:
            await nursery.start(pump.run)
            await wire.head()
            assert await wire.message() == (TEXT, b"hello")
            with trio.fail_after(DEADLINE_S):
                await fired.wait()
            nursery.cancel_scope.cancel()
        assert (await wire.message())[0] == CLOSE


class QuietEndpoint:
    """As small as an endpoint can be."""

    __slots__ = ("ws",)

    def on_open(self, socket: Socket) -> None:
        self.ws = socket

    def on_text(self, payload: bytes) -> None:
        self.ws.send_text(payload)

    def on_binary(self, payload: bytes) -> None: ...
    def on_pong(self, payload: bytes) -> None: ...
    def on_drained(self) -> None: ...
    def on_close(self, code: int, reason: str) -> None: ...


async def test_an_idle_connection_is_small(pump: Pump) -> None:
    """At most 1 KiB of Python's memory, endpoint included, after it has echoed something."""

    def door(request: Request, peername: str) -> Accept:
        return Accept(QuietEndpoint(), None, 1000, 1000)

    listener = pump.listen("127.0.0.1:0", door)
    address = ("127.0.0.1", int(listener.address.rpartition(":")[2]))
    count = 300
    sockets = [socket.create_connection(address) for _ in range(count)]
    warm_up = [sock.send(request() + masked(TEXT, b"x" * 100)) for sock in sockets[:50]]
    await until(lambda: pump.messages_in == len(warm_up))
    await wait_all_tasks_blocked()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for sock in sockets[50:]:
        sock.send(request() + masked(TEXT, b"x" * 100))
    await until(lambda: pump.messages_in == count)
    await wait_all_tasks_blocked()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    for sock in sockets:
        sock.close()
    assert used / (count - len(warm_up)) < 1024
