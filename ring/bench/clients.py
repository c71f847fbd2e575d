"""All clients of a load on one poll loop: bare sockets, a node's own codec, and nothing that hides a double.

A load must cost much less than the servers that it measures. So there is no task and no object per message:
a tick reads what is ready, and hands each message to the client's `Session`. What that makes clients say is
sent before the next one is read, as by clients that know nothing of each other: to send it all at the end of
the tick costs the load less, but hands the servers batches that no real clients would. The loads (`direct`,
`rooms`, `storm`) own a `Switchboard` and drive it.
"""

import os
import select
import socket
import ssl
from collections.abc import Callable
from functools import cached_property
from time import perf_counter_ns
from typing import Any, Protocol, Self

from ring.bench.edge import Edge
from ring.protocol.codes import ErrorCode
from ring.protocol.upgrade import UpgradeRefused, check_response, client_request
from ring.protocol.websocket import (
    CLOSE,
    PING,
    PONG,
    Decoder,
    ProtocolViolation,
    close_payload,
    encode_frame,
    parse_close,
)
from ring.transport.poller import READ, WRITE, make_poller

READ_BYTES = 256 * 1024
"""Read from a socket at once. More than a record of TLS: no rest of one stays where no selector sees it."""

MAX_MESSAGE = 64 * 2**20
"""The longest message that is read. A bound of ours should not be in the way of what is measured."""

_HEAD_BYTES = 64 * 1024  # of an answer to the upgrade
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Session(Protocol):
    """What a client says and understands; made by a `Dialect`."""

    def opened(self) -> None:
        """The WebSocket is open: the place to log in."""

    def read(self, payload: bytes) -> None:
        """A message came: what it means is told to the switchboard's ear."""


class Ear:
    """What a load hears of its clients; here, nothing of it matters."""

    def on_welcome(self, client: "Client") -> None:
        """The client is logged in."""

    def on_text(self, client: "Client", text: str) -> None:
        """A message that somebody of the load sent, or another one's: `text` is what was sent."""

    def on_receipt(self, client: "Client", number: int, failure: str) -> None:
        """The fate of the client's message `number`: `failure` is the error's code, empty if delivered."""

    def on_ok(self, client: "Client") -> None:
        """What the client asked for last (but no direct message) is done."""

    def on_error(self, client: "Client", code: str) -> None:
        """The server refused something."""

    def on_closed(self, client: "Client", reason: str) -> None:
        """The connection ended, or did not come about, other than by us."""


class Dialect(Protocol):
    """What clients and servers of one kind say to each other.

    Attributes:
        opcode: of the frames that clients send: TEXT or BINARY.
        path: of the WebSocket, where the edge names none.
        subprotocols: what is offered.
        receipts: whether every direct message is answered by a receipt.
    """

    opcode: int
    path: str
    subprotocols: tuple[str, ...]
    receipts: bool

    def query(self, user: str) -> str:
        """Of the target of the user's upgrade, encoded."""

    def session(self, client: "Client") -> Session:
        """A new client's."""

    def direct(self, number: int, to: str, text: str) -> bytes:
        """A client's direct message; `text` is ASCII and needs no escaping."""

    def join(self, room: str) -> bytes:
        """A client becomes a member; answered by something that `on_ok` tells."""

    def publish(self, number: int, room: str, text: str) -> bytes:
        """A client's message to all members."""


class Client:
    """One connection: being made, open, or closed; see `Switchboard.connect`."""

    __slots__ = (
        "_advance",
        "_board",
        "_decoder",
        "_edge",
        "_head",
        "_key",
        "_opcode",
        "_out",
        "_session",
        "_sock",
        "_unsent",
        "closed",
        "fd",
        "index",
        "started_ns",
        "user",
    )

    def __init__(self, board: "Switchboard", sock: socket.socket, index: int, user: str, edge: Edge) -> None:
        self._board = board
        self._sock = sock
        self._edge = edge
        self._opcode = board.dialect.opcode
        self._decoder = Decoder(role="client", max_message=MAX_MESSAGE)
        self._session = board.dialect.session(self)
        self._out: list[bytes] = []  # written since the last flush
        self._unsent = b""  # what the kernel did not take
        self._head = b""
        self._key = ""
        self._advance: Callable[[int], None] = self._on_connected
        self.fd = sock.fileno()
        self.index = index
        self.user = user
        self.closed = False
        self.started_ns = perf_counter_ns()

    @property
    def ear(self) -> Ear:
        """Whom to tell."""
        return self._board.ear

    def send(self, payload: bytes) -> None:
        """Writes a message; what one event made it say goes out together. Into the void if it is closed."""
        self._write(encode_frame(self._opcode, payload, mask=True))

    def on_ready(self, bits: int) -> None:
        """The selector has something to say of it."""
        try:
            self._advance(bits)
        except _BLOCKED as blocked:  # in a handshake of TLS
            self._board.want_write(self, isinstance(blocked, ssl.SSLWantWriteError))
        except (OSError, UpgradeRefused) as error:
            status = getattr(error, "status", 0)
            self.fail(f"http_{status}" if status else _reason(error))
        except ProtocolViolation:
            self.fail("protocol_violation")

    def _on_connected(self, _bits: int) -> None:
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._board.want_write(self, False)
        if self._edge.tls:
            self._sock = self._board.tls.wrap_socket(
                self._sock, server_hostname=self._edge.host, do_handshake_on_connect=False
            )
            self._advance = self._on_tls
            self._on_tls(0)
        else:
            self._ask()

    def _on_tls(self, _bits: int) -> None:
        assert isinstance(self._sock, ssl.SSLSocket)
        self._sock.do_handshake()
        self._board.want_write(self, False)
        self._ask()

    def _ask(self) -> None:
        dialect = self._board.dialect
        target = self._edge.target(dialect.path, dialect.query(self.user))
        request, self._key = client_request(self._edge.authority, target, dialect.subprotocols)
        self._advance = self._on_answer
        self._write(request)

    def _on_answer(self, bits: int) -> None:
        if bits & WRITE:
            self.flush()
        if not bits & ~WRITE:
            return
        data = self._sock.recv(READ_BYTES)
        self._head += data
        if b"\r\n\r\n" not in self._head:
            if not data:
                raise ConnectionResetError
            if len(self._head) > _HEAD_BYTES:
                raise UpgradeRefused(0, ErrorCode.BAD_REQUEST, "an endless head")
            return
        check_response(self._head, self._key, self._board.dialect.subprotocols)
        rest = self._head.partition(b"\r\n\r\n")[2]
        self._head = b""
        self._advance = self._on_open
        self._session.opened()
        self._take(rest)

    def _on_open(self, bits: int) -> None:
        if bits & WRITE:
            self.flush()
        if bits & ~WRITE:
            data = self._sock.recv(READ_BYTES)
            if not data:
                self.fail("connection_lost")
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        read = self._session.read
        violated = False
        try:
            messages = self._decoder.feed(data)
        except ProtocolViolation as violation:
            messages, violated = violation.messages, True
        for opcode, payload in messages:
            if opcode < CLOSE:
                read(payload)
            elif opcode == PING:
                self._write(encode_frame(PONG, payload, mask=True))
            elif opcode == CLOSE:
                self.fail(f"close_{parse_close(payload)[0]}")
            if self.closed:
                return
        if violated:
            self.fail("protocol_violation")

    def _write(self, data: bytes) -> None:
        if not self._out and not self.closed:
            self._board.dirty.append(self)
        self._out.append(data)

    def flush(self) -> None:
        """Sends what was written, as far as the kernel takes it."""
        if self.closed:
            return
        data = self._unsent + b"".join(self._out)
        self._out.clear()
        if not data:
            return
        had_unsent = bool(self._unsent)
        try:
            sent = self._sock.send(data)
        except _BLOCKED:
            sent = 0
        except OSError as error:
            self.fail(_reason(error))
            return
        self._unsent = data[sent:]
        if had_unsent != bool(self._unsent):
            self._board.want_write(self, bool(self._unsent))

    def fail(self, reason: str) -> None:
        """It ended, other than by us."""
        if not self.closed:
            self._drop()
            self.ear.on_closed(self, reason)

    def close(self) -> None:
        """Says goodbye (close 1000), if the kernel takes it, and ends."""
        if not self.closed:
            self._write(encode_frame(CLOSE, close_payload(1000), mask=True))
            self.flush()
            self._drop()

    def _drop(self) -> None:
        self.closed = True
        self._out.clear()
        self._board.forget(self)
        self._sock.close()


def _reason(error: BaseException) -> str:
    """In a word or two: errors are counted by it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate_refused"
    if isinstance(error, ConnectionRefusedError):
        return "connection_refused"
    return "connection_lost" if isinstance(error, ConnectionError) else f"os_error_{error!s}"[:60]


class Switchboard:
    """The clients of one load, and the loop that drives them. A context manager: its end closes them all.

    Args:
        dialect: what they speak.

    Attributes:
        ear: hears what they hear; a load puts itself there.
        dirty: clients that have something to send.
        now_ns: when the messages that are being handled were read, by `perf_counter_ns`.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.ear = Ear()
        self.dirty: list[Client] = []
        self.now_ns = perf_counter_ns()
        self._poller = make_poller()
        self._by_fd: dict[int, Client] = {}
        self._places: dict[Edge, tuple[socket.AddressFamily, Any]] = {}

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Of all clients: to load the system's authorities takes longer than a handshake."""
        return ssl.create_default_context()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in list(self._by_fd.values()):
            client.close()
        self._poller.close()

    def connect(self, index: int, user: str, edge: Edge) -> Client:
        """Begins to connect; `on_welcome` or `on_closed` will tell what came of it.

        Raises:
            NoSuchHost: the host has no address.
            OSError: this process may open no more sockets.
        """
        if edge not in self._places:
            self._places[edge] = edge.place()
        family, name = self._places[edge]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        client = Client(self, sock, index, user, edge)
        self._by_fd[client.fd] = client
        self._poller.register(client.fd)
        self._poller.want_write(client.fd, True)
        try:
            sock.connect(name)
        except BlockingIOError:
            pass
        except OSError as error:
            client.fail(_reason(error))
        return client

    def want_write(self, client: Client, wanted: bool) -> None:
        """Begins or ends to tell the client that it can write."""
        self._poller.want_write(client.fd, wanted)

    def forget(self, client: Client) -> None:
        """The client is about to be closed."""
        del self._by_fd[client.fd]
        self._poller.unregister(client.fd)

    def tick(self, wait_s: float) -> bool:
        """Handles what is ready, waiting up to `wait_s` for anything to be; says whether anything was."""
        self.flush()
        ready = self._poller.poll()
        if not ready and wait_s > 0:
            # Not by a time-out of the poller's own, which counts whole milliseconds: an open loop is finer.
            select.select([self._poller.fileno()], [], [], wait_s)
            ready = self._poller.poll()
        by_fd = self._by_fd
        for fd, bits in ready:
            client = by_fd.get(fd)
            if client is not None:
                self.now_ns = perf_counter_ns()
                client.on_ready(bits if bits & (READ | WRITE) else READ)
                self.flush()
        return bool(ready)

    def flush(self) -> None:
        """Sends what was written."""
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for client in dirty:
                client.flush()

    def quiet(self, for_s: float) -> None:
        """Goes on until nothing has come for so long (at most ten times that): a double may be on its way."""
        end = perf_counter_ns() + int(10 * for_s * 1e9)
        while self.tick(for_s) and perf_counter_ns() < end:
            pass
