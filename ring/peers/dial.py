"""How a peer is reached, and how it is asked who it is. `mesh` dials; what becomes a link is `link`'s."""

import errno
import os
import socket

import trio

from ring.peers.proof import HANDSHAKE_BYTES, Handshake, ProofRefused
from ring.protocol.codes import CloseCode
from ring.protocol.peer import PEER_PATH, SUBPROTOCOL, Hello
from ring.transport.address import split_address
from ring.transport.pump import Pump
from ring.transport.socket import Socket

_QUEUED_BYTES = 2 * HANDSHAKE_BYTES  # a hello and a goodbye


class Greeting:
    """An exchange of hellos and no more: tells who sits at an address, and makes no link.

    Args:
        handshake: of a dialer who admits nobody, so that it never proves itself.
    """

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake
        self._socket: Socket | None = None
        self._over = trio.Event()

    async def exchange(self, pump: Pump, sock: socket.socket, address: str) -> Hello | None:
        """The hello of whoever sits at the other end of `sock`, None if none came; closes `sock`."""
        try:
            departure = pump.adopt(
                sock,
                self,
                host=address,
                target=PEER_PATH,
                subprotocols=[SUBPROTOCOL],
                max_message=HANDSHAKE_BYTES,
                max_queued=_QUEUED_BYTES,
            )
        except OSError:  # it is broken already
            sock.close()
            return None
        try:
            await self._over.wait()
        finally:
            if not self._over.is_set():
                departure.abort()
                if self._socket is not None:
                    self._socket.abort()
        return self._handshake.peer

    def on_open(self, socket: Socket) -> None:
        """The upgrade is done: this side speaks first."""
        self._socket = socket
        if socket.subprotocol == SUBPROTOCOL:
            socket.send_binary(self._handshake.start())
        else:
            socket.close(CloseCode.PROTOCOL_ERROR, "no sub-protocol")

    def on_binary(self, payload: bytes) -> None:
        """Their hello; whatever is thought of it, this is the end."""
        assert self._socket is not None
        try:
            self._handshake.receive(payload)
        except ProofRefused as refused:
            code = refused.close_code if self._handshake.peer is None else CloseCode.GOING_AWAY
            self._socket.close(code, "that was all")

    def on_text(self, payload: bytes) -> None:
        """Peers speak in binary frames."""
        assert self._socket is not None
        self._socket.close(CloseCode.UNSUPPORTED_DATA, "text frames are not spoken here")

    def on_pong(self, payload: bytes) -> None:
        """Nobody was pinged."""

    def on_drained(self) -> None:
        """There is no more to send."""

    def on_close(self, code: int, reason: str) -> None:
        """It is over."""
        self._over.set()


async def connect(address: str) -> socket.socket:
    """A non-blocking TCP connection to "host:port".

    Raises:
        BadRequest: it is not an address.
        OSError: it cannot be connected to; ConnectionRefusedError if nobody listens there.
    """
    host, port = split_address(address)
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, kind, protocol, _, where in await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(where)
            if code == errno.EINPROGRESS:
                await trio.lowlevel.wait_writable(sock)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0 and sock.getsockname() == where:
                # TCP's simultaneous open: the kernel picked the free port that we dial for our own end.
                code = errno.ECONNREFUSED
        except BaseException:
            sock.close()
            raise
        if code == 0:
            return sock
        sock.close()
        failure = OSError(code, os.strerror(code))
    raise failure
