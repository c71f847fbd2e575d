"""A listening socket on the pump: accepts what comes, and survives every way that accepting can fail."""

import errno
import socket
from collections.abc import Callable

import structlog

from ring.protocol.codes import ErrorCode
from ring.transport.address import CannotListen, join_address, open_listener
from ring.transport.agenda import ACCEPTS_PER_TICK, Agenda
from ring.transport.handshake import Arrival, Door
from ring.transport.wheel import Timer

_logger = structlog.get_logger()

_BACKLOG = 4096
_SPARE = 64  # connections beyond the most allowed that are taken in all the same, to be told so

_OF_THE_CONNECTION = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR})
"""What accept() reports of a connection that ended, or was forbidden, while it waited: the next may do."""


class Listener:
    """Accepts connections and hands each to an `Arrival`; made by `Pump.listen`.

    Attributes:
        address: the real "host:port".
        connections: how many of its connections are open, those in the handshake included.
        refused: how many requests were answered with a refusal, by error code.
    """

    __slots__ = (
        "_agenda",
        "_door",
        "_handshake_s",
        "_listening",
        "_max_connections",
        "_on_gone",
        "_pause",
        "_proxied",
        "_sock",
        "_troubled",
        "address",
        "connections",
        "refused",
    )

    def __init__(
        self,
        agenda: Agenda,
        address: str,
        door: Door,
        *,
        handshake_s: float,
        max_connections: int | None,
        proxied: Callable[[str], bool],
    ) -> None:
        self._agenda = agenda
        self._door = door
        self._handshake_s = handshake_s
        self._max_connections = max_connections
        self._proxied = proxied
        self._sock = open_listener(address)
        self._pause: Timer | None = None  # while it does not accept
        self._troubled = False  # could not accept, and has said so
        self._on_gone = self._count_gone  # bound once: it is held by every connection
        self.address = join_address(self._sock.getsockname())
        self.connections = 0
        self.refused: dict[ErrorCode, int] = {}
        self._listening = False

    def start(self) -> None:
        """Accepts from now on; until then who connects is refused, though the address is taken.

        Raises:
            CannotListen: somebody else listens there by now.
        """
        try:
            self._sock.listen(_BACKLOG)
        except OSError as error:
            self._sock.close()
            raise CannotListen(f"cannot listen at {self.address}: {error.strerror}") from error
        self._listening = True
        self._agenda.add(self._sock.fileno(), self)

    def stop(self) -> None:
        """Accepts nothing more; connections that are open already go on."""
        if self._sock.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        elif self._listening:
            self._agenda.remove(self._sock.fileno())
        self._sock.close()

    def on_ready(self, events: int) -> None:
        """Accepts what waits, up to the bound of one tick."""
        for _ in range(ACCEPTS_PER_TICK):
            most = self._max_connections
            if most is not None and self.connections >= most + _SPARE:
                self._rest()
                return
            try:
                sock, name = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _OF_THE_CONNECTION:
                    self._on_trouble(error)
                    return
                continue
            self._troubled = False
            self._take(sock, join_address(name), full=most is not None and self.connections >= most)

    def _take(self, sock: socket.socket, peername: str, *, full: bool) -> None:
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # it ended already (macOS says so here)
            sock.close()
            return
        self.connections += 1
        Arrival(
            self._agenda,
            sock,
            self._handshake_s,
            door=self._door,
            peername=peername,
            on_gone=self._on_gone,
            refused=self.refused,
            proxied=self._proxied(peername),
            full=full,
        )

    def _count_gone(self) -> None:
        self.connections -= 1

    def _on_trouble(self, error: OSError) -> None:
        """No descriptors, no memory: what waits stays readable, so to go on at once would be to spin."""
        if not self._troubled:
            self._troubled = True
            _logger.error("cannot accept connections", address=self.address, reason=error.strerror)
        self._rest()

    def _rest(self) -> None:
        if self._pause is not None:
            return
        self._agenda.remove(self._sock.fileno())
        self._pause = self._agenda.wheel.call_later(self._agenda.patience.pause_s, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._agenda.add(self._sock.fileno(), self)

    def abort(self) -> None:
        """Something nobody expected: tries again a little later."""
        self._rest()

    def on_pump_closed(self) -> None:
        """Stops."""
        self.stop()
