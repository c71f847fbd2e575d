"""The sending side of a connection: a list of frames, one send per tick, and what the kernel refused.

`Socket` builds on it. Everything that a tick queues for a connection leaves in one system call at its end.
"""

import socket
from abc import ABC, abstractmethod

from ring.transport.agenda import Agenda


class Output(ABC):
    """What is queued for one connection.

    Between the ticks the output is in one of three states: empty; *dirty*, on the agenda's list, to be
    flushed at the end of the tick; or *backed up*: the kernel has refused some (`_rest`), and what comes
    queues behind that until the selector reports that it takes more.

    Attributes:
        queued: bytes that the kernel has not taken, this tick's included.
    """

    __slots__ = (
        "_agenda",
        "_dirty",
        "_failed",
        "_max_queued",
        "_out",
        "_peak",
        "_rest",
        "_sent",
        "_sock",
        "queued",
    )

    def __init__(self, agenda: Agenda, sock: socket.socket, max_queued: int) -> None:
        self._agenda = agenda
        self._sock = sock
        self._max_queued = max_queued
        self._out: list[bytes] = []
        self._rest: bytes | None = None  # output that the kernel took only `_sent` bytes of
        self._sent = 0
        self._dirty = False  # on the agenda's list, or backed up
        self._failed = False  # the kernel refuses output for good
        self._peak = 0  # the most that was queued at a write since `_after_write` looked at it
        self.queued = 0

    def _queue(self, frame: bytes) -> None:
        """Queues a frame, and sees to the bound."""
        self._out.append(frame)
        self.queued = queued = self.queued + len(frame)
        if not self._dirty:
            # As `_mark_dirty`: this is the hot path, and a call costs as much as its work.
            self._dirty = True
            agenda = self._agenda
            agenda.dirty.append(self)
            if not agenda.in_tick:
                agenda.wake()
        if queued > self._max_queued:
            if self._rest is None:
                self._write()  # perhaps the kernel takes it now
            if self.queued > self._max_queued:
                self._on_overflow()

    @abstractmethod
    def _on_overflow(self) -> None:
        """More is queued than is allowed, and the kernel takes no more: the other side reads too slowly."""

    def _add(self, frame: bytes) -> None:
        """Queues a frame without a look at the bound: what ends a connection must not be refused for it."""
        self._out.append(frame)
        self.queued += len(frame)
        if not self._dirty:
            self._mark_dirty()

    def _mark_dirty(self) -> None:
        self._dirty = True
        agenda = self._agenda
        agenda.dirty.append(self)
        if not agenda.in_tick:
            agenda.wake()

    @abstractmethod
    def flush(self) -> None:
        """Hands the kernel what is queued; the pump calls it at the end of a tick."""

    @abstractmethod
    def abort(self) -> None:
        """Cuts the connection; what is queued is lost."""

    def _write(self) -> None:
        """Offers the kernel all of `_out`, at once; begins to wait for it if it refuses any."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if self.queued > self._peak:
            self._peak = self.queued
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._failed = True
            self.queued = 0
            return
        self._agenda.bytes_out += sent
        self.queued -= sent
        if sent < len(data):
            self._rest = data
            self._sent = sent
            self._agenda.poller.want_write(self._sock.fileno(), True)
        else:
            self._dirty = False

    def _write_rest(self) -> None:
        """The kernel takes more: goes on with what it refused, then with what came behind."""
        if self._rest is None:  # it was dropped meanwhile
            return
        if self.queued > self._peak:  # more has been queued behind it
            self._peak = self.queued
        try:
            sent = self._sock.send(memoryview(self._rest)[self._sent :])
        except BlockingIOError:
            return
        except OSError:
            self._failed = True
            return
        self._agenda.bytes_out += sent
        self.queued -= sent
        self._sent += sent
        if self._sent < len(self._rest):
            return
        self._rest = None
        self._dirty = False
        self._agenda.poller.want_write(self._sock.fileno(), False)
        self._catch_up()
        if self._out:
            self._write()

    @abstractmethod
    def _catch_up(self) -> None:
        """What was backed up is gone: the moment to queue what was held back for it."""

    def _drop_queued(self) -> None:
        """Drops what is backed up, but for the end of the frame that the kernel has begun."""
        self._out.clear()
        assert self._rest is not None
        self._rest = self._rest[: frame_end(self._rest, self._sent)]
        self.queued = len(self._rest) - self._sent


def frame_end(data: bytes, offset: int) -> int:
    """The end of the frame in `data` that holds `offset`, or `offset` itself if a frame ends there.

    Args:
        data: whole frames, the head of the upgrade before them perhaps.
    """
    position = data.find(b"\r\n\r\n") + 4 if data.startswith(b"HTTP/") else 0
    while position < offset:
        second = data[position + 1]
        length, size = second & 127, 2
        if length > 125:
            size = 4 if length == 126 else 10
            length = int.from_bytes(data[position + 2 : position + size], "big")
        position += size + (4 if second > 127 else 0) + length
    return position
