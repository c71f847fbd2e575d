"""Networks that fail: a proxy in front of one address, whose connections can be cut, or go silent.

A cut is seen at once: connections are reset, dials refused. Silence is what a pulled cable makes: nothing
comes back, not even a refusal. What was on its way arrives late, when the network is whole again, unless who
sent it has given the connection up.
"""

import socket
import struct
from contextlib import suppress

import trio

from ring.protocol.peer import Hello, decode_hello
from ring.protocol.websocket import BINARY, Decoder
from ring.transport.address import join_address, split_address

BACKLOG = 128
DEAF_S = 0.05  # a connection that loopback has not made by then, it will not make
MOST_FILLERS = 256  # the longest backlog that a kernel may make of one of 0
CHUNK_BYTES = 64 * 1024
HELLO_BYTES = 4096


class Crossing:
    """A connection through a gate. `dialer` is the node that a peer's hello names; "" until then."""

    def __init__(self, near: trio.SocketStream, far: trio.SocketStream, *, peers: bool) -> None:
        self.dialer = ""
        self.scope = trio.CancelScope()
        self.flows = trio.Event()
        self.flows.set()
        self._near = near
        self._far = far
        self._broken = False
        self._head: bytes | None = b"" if peers else None
        self._decoder = Decoder(role="server", max_message=HELLO_BYTES)

    async def run(self) -> None:
        """Carries bytes both ways, until both sides have ended, one has broken, or it is cut."""
        complete = False
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._carry, self._near, self._far)
                    nursery.start_soon(self._carry, self._far, self._near)
                complete = True
        finally:
            for stream in (self._near, self._far):
                if not complete:
                    reset(stream.socket)
                stream.socket.close()

    def hold(self) -> None:
        """Nothing passes."""
        self.flows = trio.Event()

    def resume(self) -> None:
        """What was held goes on; but who has given up sends nothing again, and what was lost stays lost."""
        sides = (self._near.socket, self._far.socket)
        if self._broken or any(side.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for side in sides):
            self.scope.cancel()
        self.flows.set()

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            while True:
                data = await source.receive_some(CHUNK_BYTES)
                if self._head is not None and source is self._near:
                    self._look_for_hello(data)
                await self.flows.wait()
                if not data:
                    await sink.send_eof()
                    return
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._broken = True
            await self.flows.wait()  # the other side hears nothing of the end either
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
        # Bound for good, so that the port stays ours while nobody listens there.
        self._seat = _bound(("127.0.0.1", 0))
        self._name: tuple[str, int] = self._seat.getsockname()
        self.address = join_address(self._name)
        self._listening: list[trio.socket.SocketType] = []
        self._silent = False
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
        self._stop_listening()
        listener = _bound(self._name)
        listener.listen(BACKLOG)
        self._nursery.start_soon(self._accept, self._keep(listener))
        for crossing in self.crossings:
            crossing.resume()

    def cut(self) -> None:
        """Resets all connections; refuses new ones."""
        self._stop_listening()
        for crossing in self.crossings:
            crossing.scope.cancel()

    def silence(self, dialer: str | None = None) -> None:
        """Holds up what comes and goes on the connections of one dialer, or of all; answers nobody's dial."""
        self._stop_listening()
        self._go_deaf()
        self._silent = True
        for crossing in self.crossings:
            if dialer is None or crossing.dialer in ("", dialer):
                crossing.hold()

    def _stop_listening(self) -> None:
        self._silent = False
        while self._listening:
            self._listening.pop().close()

    def _keep(self, sock: socket.socket) -> trio.socket.SocketType:
        sock.setblocking(False)
        kept = trio.socket.from_stdlib_socket(sock)  # whose `close` tells the task that accepts
        self._listening.append(kept)
        return kept

    def _go_deaf(self) -> None:
        """Listens with a backlog that is full: the kernel drops further dials without a word."""
        listener = _bound(self._name)
        listener.listen(0)
        self._keep(listener)
        for _ in range(MOST_FILLERS):
            filler = socket.socket()
            filler.settimeout(DEAF_S)
            try:
                filler.connect(self._name)
            except TimeoutError:
                filler.close()
                return
            self._keep(filler)
        raise AssertionError("the kernel answers dials that nobody accepts")

    async def _accept(self, listener: trio.socket.SocketType) -> None:
        with suppress(trio.ClosedResourceError):
            while True:
                sock, _ = await listener.accept()
                self._nursery.start_soon(self._cross, trio.SocketStream(sock))

    async def _cross(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream(*split_address(self.target))
        except OSError:  # nobody is there
            near.socket.close()
            return
        crossing = Crossing(near, far, peers=self._peers)
        if self._silent:
            crossing.hold()
        self.crossings.add(crossing)
        try:
            await crossing.run()
        finally:
            self.crossings.remove(crossing)


def _bound(name: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(name)
    return sock


def reset(sock: trio.socket.SocketType) -> None:
    """Lets its end be no farewell: what is not sent is lost, and the other side gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
