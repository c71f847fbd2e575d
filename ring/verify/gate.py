"""Networks that fail: a proxy in front of one address, whose connections can be cut, or go silent.

A cut is seen at once: connections are reset, dials refused. Silence is what a pulled cable makes: nothing
comes back, not even a refusal. What was on its way arrives late, when the network is whole again, unless who
sent it has given the connection up. Silence of one way lets the other one flow; but no dial is answered
either, since that takes both.
"""

import errno
import socket
import struct
from contextlib import suppress
from typing import Literal

import trio

from ring.protocol.codes import RingError
from ring.protocol.peer import Hello, decode_hello
from ring.protocol.websocket import BINARY, Decoder
from ring.transport.address import join_address, split_address

BACKLOG = 128
DEAF_S = 0.05  # a connection that loopback has not made by then, it will not make
MOST_FILLERS = 256  # the longest backlog that a kernel may make of one of 0
CHUNK_BYTES = 256 * 1024  # one read: what a busy link brings passes in few steps
HELLO_BYTES = 4096

Way = Literal["in", "out"]
"""Towards whom the gate stands in front of, or from there back to who has dialled."""

WAYS: tuple[Way, ...] = ("in", "out")


class Seat:
    """A port of loopback that stays ours while nobody listens there: no other program is given it.

    Who listens there has to say SO_REUSEADDR, as servers do.
    """

    def __init__(self) -> None:
        self._socket = bound(("127.0.0.1", 0))
        self.name: tuple[str, int] = self._socket.getsockname()
        self.address = join_address(self.name)

    @property
    def port(self) -> int:
        """Its number."""
        return self.name[1]

    def close(self) -> None:
        """Anybody may have it now."""
        self._socket.close()


class _Flow:
    """One way of a crossing."""

    def __init__(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        self.source = source
        self.sink = sink
        self.open = trio.Event()
        self.open.set()
        self.held = 0  # bytes that came while it was silent


class Crossing:
    """A connection through a gate. `dialer` is the node that a peer's hello names; "" until then."""

    def __init__(self, near: trio.SocketStream, far: trio.SocketStream, *, peers: bool) -> None:
        self.dialer = ""
        self.scope = trio.CancelScope()
        self.flows: dict[Way, _Flow] = {"in": _Flow(near, far), "out": _Flow(far, near)}
        self._streams = (near, far)
        self._broken = False
        self._head: bytes | None = b"" if peers else None
        self._decoder = Decoder(role="server", max_message=HELLO_BYTES)

    async def run(self) -> None:
        """Carries bytes both ways, until both sides have ended, one has broken, or it is cut."""
        complete = False
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, "in", "out")
                    nursery.start_soon(self._carry, "out", "in")
                complete = True
        finally:
            for stream in self._streams:
                if not complete:
                    reset(stream.socket)
                stream.socket.close()

    def hold(self, way: Way) -> None:
        """Nothing passes this way."""
        if (flow := self.flows[way]).open.is_set():
            flow.open, flow.held = trio.Event(), 0

    def resume(self) -> None:
        """What was held goes on; but who has given up sends nothing again, and what was lost stays lost."""
        sides = [stream.socket for stream in self._streams]
        if self._broken or any(side.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for side in sides):
            self.scope.cancel()
        for flow in self.flows.values():
            flow.open.set()

    async def _carry(self, way: Way, back: Way) -> None:
        flow = self.flows[way]
        try:
            while True:
                data = await flow.source.receive_some(CHUNK_BYTES)
                if self._head is not None and way == "in":
                    self._look_for_hello(data)
                if not flow.open.is_set():
                    flow.held += len(data)
                    await flow.open.wait()
                if not data:
                    await flow.sink.send_eof()
                    return
                try:
                    await flow.sink.send_all(data)
                except trio.BrokenResourceError:
                    flow = self.flows[back]  # that is where this news comes from
                    raise
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._broken = True
            await flow.open.wait()  # the other side hears nothing of the end either
            self.scope.cancel()

    def _look_for_hello(self, data: bytes) -> None:
        assert self._head is not None
        self._head += data
        request, end, frames = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._head = request + end
        for opcode, payload in self._decoder.feed(frames):
            if opcode == BINARY:
                hello = decode_hello(payload)
                assert isinstance(hello, Hello)
                self.dialer, self._head = hello.name, None
                return


class Gate:
    """A proxy on loopback; `run` must be running.

    Args:
        target: "host:port" behind it; may be set later, before the first connection.
        peers: whether it is peer links that pass, whose dialers are to be told apart.
    """

    def __init__(self, target: str = "", *, peers: bool = False) -> None:
        self.target = target
        self.crossings: set[Crossing] = set()
        self._peers = peers
        self._seat = Seat()
        self.address = self._seat.address
        self._listening: list[trio.socket.SocketType] = []
        self._open = False
        self._silent: tuple[Way, ...] = ()
        self._nursery: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Lets everything through, until told otherwise; ends with what passes through it when cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                self.mend()
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._stop_listening()
            self._seat.close()

    def mend(self) -> None:
        """All is well again; what was swallowed arrives now."""
        if not self._open:
            self._stop_listening()
            listener = bound(self._seat.name)
            listener.listen(BACKLOG)
            self._nursery.start_soon(self._accept, self._keep(listener))
            self._open = True
        for crossing in self.crossings:
            crossing.resume()

    def cut(self, dialer: str | None = None) -> None:
        """Resets all connections, or those of one dialer; refuses everybody's dials."""
        self._stop_listening()
        for crossing in self.of(dialer):
            crossing.scope.cancel()

    def silence(self, dialer: str | None = None, *, ways: tuple[Way, ...] = WAYS) -> None:
        """Holds up what comes and goes on the connections of one dialer, or of all; answers nobody's dial."""
        self._stop_listening()
        self._go_deaf()
        self._silent = ways
        for crossing in self.of(dialer):
            for way in ways:
                crossing.hold(way)

    def of(self, dialer: str | None = None) -> list[Crossing]:
        """The connections of a dialer, and those of who has not yet said a name; or all."""
        return [crossing for crossing in self.crossings if dialer is None or crossing.dialer in ("", dialer)]

    def held(self, way: Way, dialer: str | None = None) -> int:
        """How many bytes silence has swallowed on connections that stand."""
        return sum(crossing.flows[way].held for crossing in self.of(dialer))

    def _stop_listening(self) -> None:
        self._open, self._silent = False, ()
        while self._listening:
            self._listening.pop().close()

    def _keep(self, sock: socket.socket) -> trio.socket.SocketType:
        sock.setblocking(False)
        kept = trio.socket.from_stdlib_socket(sock)  # whose `close` tells the task that accepts
        self._listening.append(kept)
        return kept

    def _go_deaf(self) -> None:
        """Listens with a backlog that is full: the kernel drops further dials without a word."""
        listener = bound(self._seat.name)
        listener.listen(0)
        self._keep(listener)
        for _ in range(MOST_FILLERS):
            filler = socket.socket()
            filler.settimeout(DEAF_S)
            try:
                filler.connect(self._seat.name)
            except TimeoutError:
                filler.close()
                return
            self._keep(filler)
        raise RingError("a gate cannot go silent: this machine's kernel answers dials that nobody accepts")

    async def _accept(self, listener: trio.socket.SocketType) -> None:
        with suppress(trio.ClosedResourceError):
            while True:
                try:
                    sock, _ = await listener.accept()
                except OSError as error:
                    if error.errno == errno.EBADF:  # closed when this task was to have its turn
                        return
                    raise
                self._nursery.start_soon(self._cross, trio.SocketStream(sock))

    async def _cross(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream(*split_address(self.target))
        except OSError:  # nobody is there
            near.socket.close()
            return
        crossing = Crossing(near, far, peers=self._peers)
        for way in self._silent:
            crossing.hold(way)
        self.crossings.add(crossing)
        try:
            await crossing.run()
        finally:
            self.crossings.remove(crossing)


def bound(name: tuple[str, int]) -> socket.socket:
    """A socket at this address, which may be somebody's seat."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(name)
    return sock


def reset(sock: trio.socket.SocketType) -> None:
    """Lets its end be no farewell: what is not sent is lost, and the other side gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
