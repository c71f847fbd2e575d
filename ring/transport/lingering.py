"""The end of a TCP connection: everything is sent, the other side has still to see it.

Closing a socket with unread input makes the kernel send a reset, and a reset throws away what the other side
has not read: the very answer that says why. So the last byte is followed by a FIN, and input is read and
thrown away until the other side closes too, or for a second.
"""

import socket
import struct
from contextlib import suppress

from ring.transport.agenda import READ_BYTES, Agenda

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time


def reset(sock: socket.socket) -> None:
    """Has the closing of `sock` throw away its output: a reader that is stuck must not hold kernel memory."""
    with suppress(OSError):  # a socket that is broken already may refuse; it has nothing left to throw away
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class Lingering:
    """Takes over a connection that has nothing more to say, until it can be closed without harm.

    Args:
        finish: whether we end our direction first, as a server does (RFC 6455 section 7.1.1).
    """

    __slots__ = ("_agenda", "_sock", "_timer")

    def __init__(self, agenda: Agenda, sock: socket.socket, *, finish: bool) -> None:
        self._agenda = agenda
        self._sock = sock
        self._timer = agenda.wheel.call_later(agenda.patience.linger_s, self.abort)
        agenda.watched[sock.fileno()] = self
        if finish:
            with suppress(OSError):  # the other side is gone: reading will say so
                sock.shutdown(socket.SHUT_WR)

    def on_ready(self, events: int) -> None:
        """Reads what nobody wants any more, up to the end."""
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._timer.cancel()
            self._agenda.doom(self)

    def on_pump_closed(self) -> None:
        """Waits no longer."""
        self._timer.cancel()
        self.release()

    def abort(self) -> None:
        """The other side has had its time."""
        self._timer.cancel()
        reset(self._sock)
        self._agenda.doom(self)

    def release(self) -> None:
        """Closes the descriptor."""
        self._agenda.close(self._sock)
