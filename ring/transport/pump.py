"""The pump: one Trio task that owns a selector with every socket of the node.

A tick reads what is ready, lets plain functions handle it, and sends all output at its end; so the price of a
wake-up, of a system call and of a batch is shared by everything that came in meanwhile.
"""

import socket
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence

import structlog
import trio

from ring.protocol.upgrade import Fields
from ring.transport.address import join_address
from ring.transport.agenda import MESSAGES_PER_TICK, UPGRADES_PER_TICK, Agenda, Patience
from ring.transport.handshake import Departure, Door
from ring.transport.listener import Listener
from ring.transport.poller import EVENTS_PER_POLL, Poller, make_poller
from ring.transport.socket import Endpoint
from ring.transport.timing import TICK_BOUNDS_S, Timing
from ring.transport.wheel import TimerWheel

_logger = structlog.get_logger()

# After a tick of so many events there will be more by now: to look costs 4 to 8 % less per message than to
# have Trio wait. After a smaller one there will not: to look first makes a lonely message 15 to 20 % dearer.
_BUSY_EVENTS = 4

# Of telling, flushing and closing in one tick: what the first round causes is mostly done by the second.
_ROUNDS = 2


class Pump:
    """Listeners, WebSockets of both roles, timers; see the module.

    The constructor takes a selector from the system and starts nothing; `run` gives it back. All methods are
    to be called on Trio's thread; all but `run` return at once.

    Args:
        clock: seconds, never going back: the wheel's.
        patience: how long sockets wait for the other side.
        poller: the selector, if not the best of this platform.

    Attributes:
        wheel: for the time-outs of whatever lives on the pump.
        before_tick: called in order before anything is handled that came meanwhile, timers included.
        before_flush: called in order at the end of each tick, before its output is sent: the place to write
            what was collected during the tick. Whoever collects outside a tick calls `flush_soon`.
        timing: of its ticks and timers.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience: Patience | None = None,
        poller: Poller | None = None,
    ) -> None:
        self._clock = clock
        self.timing = Timing(clock())
        self.wheel = TimerWheel(clock, on_earlier=self._set_alarm)
        self._agenda = Agenda(poller or make_poller(), self.wheel, patience or Patience())
        self._left: list[tuple[int, int]] = []  # events that the last tick had no time for
        self._alarm: trio.CancelScope | None = None  # what the wheel's task sleeps in
        self._listeners: list[Listener] = []  # those that wait are not on the selector, but have a descriptor
        self._closed = False
        self.before_tick: list[Callable[[], None]] = []
        self.before_flush: list[Callable[[], None]] = []

    @property
    def ticks(self) -> int:
        """How often it woke up and did something."""
        return self._agenda.ticks

    @property
    def events(self) -> int:
        """How many events the selector has reported."""
        return self._agenda.events

    @property
    def bytes_in(self) -> int:
        """Bytes read from connections, handshakes included."""
        return self._agenda.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes that the kernel has taken."""
        return self._agenda.bytes_out

    @property
    def messages_in(self) -> int:
        """Messages and control frames received."""
        return self._agenda.messages_in

    @property
    def greatest_lag_s(self) -> float:
        """How late a timer fired at worst, of late."""
        return self.timing.greatest_lag_s(self._clock())

    @property
    def connections(self) -> int:
        """WebSockets now, until the closing handshake is over."""
        return self._agenda.connections

    def listen(
        self,
        address: str,
        door: Door,
        *,
        handshake_s: float = 10.0,
        max_connections: int | None = None,
        proxied: Callable[[str], bool] = lambda peername: False,
        start: bool = True,
    ) -> Listener:
        """Takes `address` ("host:port", port 0 for a free one) and listens there.

        Args:
            address: where.
            door: asked about every request for a WebSocket.
            handshake_s: the time in which the whole head must come; then 408.
            max_connections: beyond these, requests are answered 503.
            proxied: of which "ip:port" a connection may begin with the PROXY protocol, version 2, and then
                comes from where that says.
            start: at once; else when `Listener.start` is called, so that an address can be told before.

        Raises:
            BadRequest: it is not an address.
            CannotListen: it cannot be listened at.
        """
        self._check_open()
        listener = Listener(
            self._agenda,
            address,
            door,
            handshake_s=handshake_s,
            max_connections=max_connections,
            proxied=proxied,
        )
        if start:
            listener.start()
        self._listeners.append(listener)
        return listener

    def adopt(
        self,
        sock: socket.socket,
        endpoint: Endpoint,
        *,
        host: str,
        target: str,
        subprotocols: Sequence[str] = (),
        headers: Fields = (),
        max_message: int,
        max_queued: int | None,
        handshake_s: float = 10.0,
    ) -> Departure:
        """Makes a WebSocket, in the client's role, of a connected socket, which it owns from now on.

        If the upgrade fails, `endpoint.on_close(1006, reason)` is all that the endpoint hears.

        Args:
            sock: connected and non-blocking.
            endpoint: who sits on it.
            host: for the request's Host.
            target: path and query, encoded.
            subprotocols: what is offered; `Socket.subprotocol` says what the server chose.
            headers: what is sent beside the necessary.
            max_message: bytes of the longest message that is read.
            max_queued: bytes of output beyond which it is closed with 4008; None for no bound.
            handshake_s: the time in which the answer must come.

        Raises:
            OSError: `sock` is not connected.
            ValueError: an argument holds what must not be in a request.
        """
        self._check_open()
        peername = join_address(sock.getpeername())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Departure(
            self._agenda,
            sock,
            handshake_s,
            endpoint,
            host=host,
            target=target,
            subprotocols=subprotocols,
            headers=headers,
            peername=peername,
            max_message=max_message,
            max_queued=max_queued,
        )

    def flush_soon(self) -> None:
        """Has `before_flush` and the flush run at the end of this tick, or soon if none is under way."""
        self._agenda.flush_wanted = True
        self._agenda.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the pump has ended")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pumps until it is cancelled; then every socket gets a 1001, if the kernel takes it, and is closed.

        Who wants an orderly end closes the sockets, waits for `connections` to be 0, and cancels then.
        """
        self._check_open()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self._flush_late)
                task_status.started()
                await self._turn()
        finally:
            self._close()

    async def _turn(self) -> None:
        agenda, poller = self._agenda, self._agenda.poller
        handled = 0
        while True:
            work = self._left
            if work or handled >= _BUSY_EVENTS or not agenda.settled:
                await trio.lowlevel.checkpoint()
                if len(work) < EVENTS_PER_POLL:
                    work += poller.poll()
            if not work and agenda.settled:
                await trio.lowlevel.wait_readable(poller.fileno())
                work = poller.poll()
            handled = len(work)
            self._tick(work)

    def _tick(self, work: list[tuple[int, int]]) -> None:
        """Handles as much of `work` as one tick may; the rest comes first in the next."""
        agenda, began = self._agenda, self._clock()
        self._begin()
        agenda.ticks += 1
        agenda.events += len(work)
        agenda.upgrades_left = UPGRADES_PER_TICK
        watched = agenda.watched
        limit = agenda.messages_in + MESSAGES_PER_TICK
        done = 0
        for fd, bits in work:
            if agenda.messages_in >= limit:
                break
            done += 1
            what = watched[fd]
            if what is None:
                continue
            try:
                what.on_ready(bits)
            except Exception:
                _logger.exception("a connection failed", fd=fd)
                what.abort()
        self._left = work[done:] + agenda.again
        agenda.again.clear()
        self._settle()
        timing, took = self.timing, self._clock() - began
        timing.busy_s += took
        timing.ticks[bisect_left(TICK_BOUNDS_S, took)] += 1

    def _begin(self) -> None:
        self._agenda.in_tick = True
        for hook in self.before_tick:
            try:
                hook()
            except Exception:
                _logger.exception("a hook before the tick failed")

    def _settle(self) -> None:
        """The end of a tick: tells who must be told, sends what is to be sent, closes what can be closed."""
        agenda = self._agenda
        agenda.in_tick = True
        for _ in range(_ROUNDS):
            agenda.flush_wanted = False
            if agenda.ended:
                self._tell()
            for hook in self.before_flush:
                try:
                    hook()
                except Exception:
                    _logger.exception("a hook before the flush failed")
            dirty, agenda.dirty = agenda.dirty, []
            for outlet in dirty:
                try:
                    outlet.flush()
                except Exception:
                    _logger.exception("a connection failed")
                    outlet.abort()
            if agenda.doomed:
                doomed, agenda.doomed = agenda.doomed, []
                for connection in doomed:
                    connection.release()
            if agenda.settled:
                break
        agenda.in_tick = False

    def _tell(self) -> None:
        ended, self._agenda.ended = self._agenda.ended, []
        for tell, code, reason in ended:
            try:
                tell(code, reason)
            except Exception:
                endpoint = getattr(tell, "__self__", None)
                _logger.exception("an endpoint failed at its end", endpoint=getattr(endpoint, "name", None))

    async def _flush_late(self) -> None:
        """Does what other tasks add outside the ticks: they wake it, without a system call."""
        agenda = self._agenda

        def stop(_: object) -> trio.lowlevel.Abort:
            agenda.sleeper = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if agenda.settled:
                agenda.sleeper = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(stop)
            else:
                await trio.lowlevel.checkpoint()
            self._settle()

    async def _keep_time(self) -> None:
        """Turns the wheel when something on it is due."""
        while True:
            with trio.CancelScope() as self._alarm:
                self._set_alarm()
                await trio.sleep_forever()
            self._alarm = None
            now, due = self._clock(), self.wheel.next_due()
            if due is not None:
                self.timing.fired(now, max(now - due, 0.0))
            self._begin()
            self.wheel.advance(now)
            self._settle()

    def _set_alarm(self) -> None:
        due = self.wheel.next_due()
        if self._alarm is not None and due is not None:
            self._alarm.deadline = trio.current_time() + max(due - self._clock(), 0)

    def _close(self) -> None:
        self._closed = True
        agenda = self._agenda
        self._settle()
        agenda.in_tick = True  # there is nobody left to wake
        for what in (*self._listeners, *agenda.watched):
            if what is not None:
                what.on_pump_closed()
        self._tell()
        agenda.poller.close()
