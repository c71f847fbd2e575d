"""Nodes for the tests of meshes: each with a pump of its own, all in one Trio program, on real sockets."""

from dataclasses import dataclass, field
from typing import Literal

import trio
from structlog.typing import EventDict

from ring.cluster.view import Member, RingView
from ring.peers.link import PeerLink
from ring.peers.mesh import Mesh
from ring.protocol.names import SLOTS
from ring.transport.address import split_address
from ring.transport.pump import Pump
from tests.peers.fakes import SECRET, Recorder

DEADLINE_S = 10
"""No test waits longer for what it expects."""


class Node:
    """The part of a node that has to do with peers."""

    def __init__(
        self,
        name: str,
        incarnation: str = "i1",
        *,
        cluster: str = "demo",
        secret: bytes = SECRET,
        listens: bool = True,
        ping_s: float = 5.0,
        handshake_s: float = 5.0,
        state: Literal["up", "draining"] = "up",
    ) -> None:
        self.pump = Pump()
        self.recorder = Recorder()
        self.scope = trio.CancelScope()
        self.mesh_scope = trio.CancelScope()
        address = "127.0.0.1:1"
        if listens:
            address = self.pump.listen(
                "127.0.0.1:0", lambda request, peer: self.mesh.door(request, peer)
            ).address
        self.member = Member(name, incarnation, "", address, "", 1, state, "1.0")
        self.mesh = Mesh(
            pump=self.pump,
            me=self.member,
            cluster=cluster,
            secret=secret,
            receiver=self.recorder,
            ping_s=ping_s,
            handshake_s=handshake_s,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The pump and the mesh, until `scope` is cancelled; after `DEADLINE_S` it fails the test."""
        with trio.fail_after(DEADLINE_S), self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.pump.run)
                await nursery.start(self._run_mesh)
                task_status.started()

    async def _run_mesh(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.mesh_scope:
            await self.mesh.run(task_status=task_status)

    def link(self, name: str) -> PeerLink:
        """The link to that node, which must be up."""
        link = self.mesh.links.get(name)
        assert link is not None
        return link

    def cut(self, name: str) -> None:
        """Cuts the link to that node as a broken network would."""
        socket = self.link(name)._socket
        assert socket is not None
        socket.abort()


def view(epoch: int, *members: Node | Member) -> RingView:
    """A view of these; who owns what does not matter to links."""
    entries = [member.member if isinstance(member, Node) else member for member in members]
    return RingView.build("demo", epoch, entries, [""] * SLOTS)


async def link_all(epoch: int, *nodes: Node) -> None:
    """Every node enters a view of all, and is linked to all."""
    for node in nodes:
        node.mesh.update(view(epoch, *nodes))
    for node in nodes:
        await node.mesh.wait_linked(other.member.name for other in nodes)


@dataclass
class Proxy:
    """A network between two nodes that can be cut, or be made to stand still."""

    target: str
    address: str = ""
    hides_ends: bool = False
    """Whether one side's end is kept from the other, as by a router that forgot the connection."""
    streams: list[tuple[trio.SocketStream, trio.SocketStream]] = field(default_factory=list)
    _flowing: trio.Event = field(default_factory=trio.Event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forwards until it is cancelled."""
        self._flowing.set()
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._forward, 0)
            self.address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            task_status.started()

    async def _forward(self, near: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream(*split_address(self.target)) as far:
            self.streams.append((near, far))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, near, far)
                nursery.start_soon(self._copy, far, near)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                await self._flowing.wait()
                await sink.send_all(data)
            if self.hides_ends:
                await trio.sleep_forever()
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if self.hides_ends:
                await trio.sleep_forever()
            await sink.aclose()

    def stall(self) -> None:
        """Nothing passes any more; nobody is told."""
        self._flowing = trio.Event()

    def flow(self) -> None:
        """Everything passes again, also what was held up."""
        self._flowing.set()

    async def cut(self) -> None:
        """Ends every connection."""
        streams, self.streams = self.streams, []
        for near, far in streams:
            await near.aclose()
            await far.aclose()


async def start(nursery: trio.Nursery, one: Node, other: Node) -> tuple[Node, Node]:
    """Runs both."""
    await nursery.start(one.run)
    await nursery.start(other.run)
    return one, other


async def until_logged(logs: list[EventDict], words: str) -> EventDict:
    """The first log entry whose reason has these words, once it is there."""
    while True:
        for entry in logs:
            if words in str(entry.get("why")):
                return entry
        await trio.lowlevel.checkpoint()


async def until_outcome(node: Node, name: str, outcome: str) -> None:
    """Returns once the dialling of that peer has come out so."""
    while node.mesh.dial_outcome(name) != outcome:
        await trio.lowlevel.checkpoint()
