"""What the pump has to do before it may sleep, shared by everything that sits on its selector.

Sockets, handshakes and listeners put themselves on these lists; the pump works them off at the end of each
tick. So nobody is called back from within its own call, and no file descriptor is closed while a tick still
has events for it.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from ring.transport.poller import Poller
from ring.transport.wheel import TimerWheel

READ_BYTES = 64 * 1024  # of one socket in one tick
MESSAGES_PER_SOCKET = 64  # in one tick; what a read brought beyond them waits for the next
MESSAGES_PER_TICK = 2048  # of all sockets: some 20 ms of work, then other tasks get their turn
AGAIN = 0  # instead of a selector's bits: a tick has passed
ACCEPTS_PER_TICK = 64  # of one listener
UPGRADES_PER_TICK = 32  # a door may have to verify a signature


class Watched(Protocol):
    """Something with a file descriptor on the selector. The pump alone calls it."""

    def on_ready(self, events: int) -> None:
        """The selector reports `events`, bits of `ring.transport.poller`; or `AGAIN`, as it has asked for.

        May be called without cause, for what had the same descriptor before.
        """

    def abort(self) -> None:
        """It failed in a way that nobody expected, and is to be given up."""

    def on_pump_closed(self) -> None:
        """The pump ends: say goodbye, without waiting, and close the descriptor."""


class Outlet(Protocol):
    """Something with output. The pump alone calls it."""

    def flush(self) -> None:
        """Hands the kernel what is queued."""

    def abort(self) -> None:
        """As of `Watched`."""


class Releasable(Protocol):
    """Something that is through with its file descriptor."""

    def release(self) -> None:
        """Closes the descriptor. Once more does nothing."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the pump's sockets wait for the other side.

    Attributes:
        close_s: for the answer to a close frame, and for the rest of the output before one.
        linger_s: for the end of the connection after the last byte was sent.
        pause_s: before a listener tries again that could not accept, for want of descriptors.
    """

    close_s: float = 5.0
    linger_s: float = 1.0
    pause_s: float = 0.1


class Agenda:
    """The lists, the selector, the wheel and the counters of one pump."""

    __slots__ = (
        "again",
        "bytes_in",
        "bytes_out",
        "connections",
        "dirty",
        "doomed",
        "ended",
        "events",
        "flush_wanted",
        "in_tick",
        "messages_in",
        "patience",
        "poller",
        "sleeper",
        "ticks",
        "upgrades_left",
        "watched",
        "wheel",
    )

    def __init__(self, poller: Poller, wheel: TimerWheel, patience: Patience) -> None:
        self.poller = poller
        self.wheel = wheel
        self.patience = patience
        self.watched: list[Watched | None] = []  # by file descriptor
        self.again: list[tuple[int, int]] = []  # (fd, AGAIN) with input left over; only put there in a tick
        self.dirty: list[Outlet] = []  # has output
        self.ended: list[tuple[Callable[[int, str], None], int, str]] = []  # whom to tell that it is over
        self.doomed: list[Releasable] = []  # whose descriptor can be closed
        self.flush_wanted = False
        self.in_tick = False
        self.sleeper: trio.lowlevel.Task | None = None  # does what is added outside a tick
        self.upgrades_left = 0
        self.ticks = 0
        self.events = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.messages_in = 0
        self.connections = 0

    @property
    def settled(self) -> bool:
        """True if there is nothing to tell, to send or to close."""
        return not (self.dirty or self.ended or self.doomed or self.flush_wanted)

    def add(self, fd: int, what: Watched) -> None:
        """Puts a new `fd` on the selector, for `what`. To hand it on, overwrite its place in `watched`."""
        self.poller.register(fd)
        if fd >= len(self.watched):
            self.watched.extend([None] * (fd + 1 - len(self.watched)))
        self.watched[fd] = what

    def remove(self, fd: int) -> None:
        """Takes `fd` off the selector."""
        self.watched[fd] = None
        self.poller.unregister(fd)

    def close(self, sock: socket.socket) -> None:
        """Takes a socket off the selector and closes it, if that has not been done."""
        fd = sock.fileno()
        if fd >= 0:
            self.remove(fd)
            sock.close()

    def wake(self) -> None:
        """Something was put on a list: if no tick is under way, the pump's other task is woken to do it.

        No system call: the task is rescheduled within Trio. To be called on Trio's thread.
        """
        if not self.in_tick and self.sleeper is not None:
            task, self.sleeper = self.sleeper, None
            trio.lowlevel.reschedule(task)

    def end(self, tell: Callable[[int, str], None], code: int, reason: str) -> None:
        """Has `tell(code, reason)` called at the end of this tick, or soon."""
        self.ended.append((tell, code, reason))
        self.wake()

    def doom(self, what: Releasable) -> None:
        """Has `what` released at the end of this tick, or soon."""
        self.doomed.append(what)
        self.wake()
