"""A cluster of its own whose Redis, networks and processes can be broken: what `ring verify` works on.

    clients --------------------> edge  +------+  redis gate -----> Redis, its data in files
                                        | node |
    peers ---> peer gate -------> peer  +------+  api <------------ Site asks how it is

Every node reaches Redis through a gate of its own and is reached by its peers through another, so that each
can be cut off from the one, from the others, or from all. Clients and HTTP reach it always, at the same ports
in all its lives. Nothing outlives the site, however it ends.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import trio

from ring.child import COMMAND
from ring.protocol.codes import RingError
from ring.verify.gate import WAYS, Way
from ring.verify.node import NodeProcess, SiteFailed, SiteNode
from ring.verify.server import CALM_S, Store
from ring.verify.standing import Standing

if TYPE_CHECKING:
    from ring.verify.front import Front

CLUSTER = "verify"

MAX_NODES = 64
"""As many as `ring dev` takes."""


class Site(Standing):
    """`async with Site() as site`: Redis and all nodes run, and are linked. Its tasks are the block's.

    Args:
        nodes: how many: "n1", "n2", …; fewer than one can be started later, by `start`.
        ttl_s: the lease of a node.
        options: further options of every node, by their names in the settings (`{"spill_after_s": "1"}`).
        command: what a node is started with, before `serve`; see `NodeProcess.start`.
        directory: for the files of Redis and the nodes' logs, one for each life; by default one of its own,
            removed at the end.
        cluster: its name.

    Attributes:
        nodes: by name, those that are to be there: a fault may keep one of them away for a while.
        log: what happened, and when by Trio's clock.
        front: the HAProxy before it, while there is one (`ring.verify.front`).

    Raises:
        SiteFailed: it does not come up.
        RingError: there is no Redis server to start.
    """

    def __init__(
        self,
        *,
        nodes: int = 4,
        ttl_s: float = 1.0,
        options: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
        directory: Path | None = None,
        cluster: str = CLUSTER,
    ) -> None:
        if not 0 <= nodes <= MAX_NODES:
            raise RingError(f"a cluster to break has 1 to {MAX_NODES} nodes, not {nodes}")
        super().__init__()
        self.cluster = cluster
        self.ttl_s = ttl_s
        self.log: list[tuple[float, str]] = []
        self.front: Front | None = None
        self.directory: Path
        self._given_directory = directory
        self._initial = [f"n{number}" for number in range(1, nodes + 1)]
        self._options = {"cluster": cluster, "ttl_s": f"{ttl_s:g}", **(options or {})}
        self._command = command
        self._made: list[SiteNode] = []
        self._processes: list[NodeProcess] = []
        self._stack = AsyncExitStack()
        self._nursery: trio.Nursery

    # --- what there is

    @property
    def names(self) -> tuple[str, ...]:
        """Of all nodes."""
        return tuple(self.nodes)

    @property
    def redis_url(self) -> str:
        """Redis itself, past all gates."""
        return self.store.url

    def edge(self, name: str) -> str:
        """Where clients of this node connect; the same in all its lives."""
        return self.nodes[name].seats["edge"].address

    def serving(self) -> list[str]:
        """The nodes that clients should try: those that run and are neither frozen nor cut off."""
        return [
            name for name, node in self.nodes.items() if node.serves and not (node.frozen or node.unreachable)
        ]

    def note(self, text: str) -> None:
        """Writes down what happens now."""
        self.log.append((trio.current_time(), text))

    def complaints(self) -> list[tuple[str, dict[str, Any]]]:
        """What nodes have logged as errors, in all their lives."""
        return [(process.name, line) for process in self._processes for line in process.complaints()]

    # --- begin and end

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _begin(self) -> None:
        if self._given_directory is None:
            self.directory = Path(
                self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ring-verify-"))
            )
        else:
            self.directory = self._given_directory
        self.store = await self._stack.enter_async_context(Store(self.directory, self.cluster))
        self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        self._stack.push_async_callback(self._end_nodes)
        for name in self._initial:
            await self.add(name)
        failures: list[SiteFailed] = []

        async def start(name: str) -> None:
            try:
                await self.start(name)
            except SiteFailed as failure:  # a nursery would put it in a group
                failures.append(failure)
                starting.cancel_scope.cancel()

        async with trio.open_nursery() as starting:
            for name in self._initial:
                starting.start_soon(start, name)
        if failures:
            raise failures[0]
        if self._initial:
            await self.whole(CALM_S)
        await self.store.copy()

    async def _end(self) -> None:
        await self._stack.aclose()

    async def _end_nodes(self) -> None:
        for node in self._made:
            node.serves = False  # or its end would be a surprise
        for process in self._processes:  # all at once: none is to complain of the others' end
            if process.alive:
                process.kill()
        for process in self._processes:
            await process.end()
        self._nursery.cancel_scope.cancel()
        for node in self._made:
            await node.close()

    # --- nodes

    async def add(self, name: str) -> SiteNode:
        """Makes room for a node, with gates of its own; `start` starts it."""
        node = self.nodes[name] = SiteNode(name, self.store.address)
        self._made.append(node)
        for gate in (node.redis, node.peers):
            await self._nursery.start(gate.run)
        return node

    async def start(self, name: str, command: Sequence[str] | None = None) -> SiteNode:
        """Starts a node, a new one or one that has ended; returns when it serves.

        Args:
            name: of the node.
            command: what it is started with, if not as the others: another release, say.

        Raises:
            SiteFailed: it does not.
        """
        node = self.nodes[name] if name in self.nodes else await self.add(name)
        if node.lives:
            await node.process.process.wait()  # or its next life would find its places taken
        node.lives += 1
        log = self.directory / f"{name}.{node.lives}.log"
        if not node.unreachable:
            node.peers.mend()
        node.process = process = await NodeProcess.start(
            name, {**node.places, **self._options}, log, command or self._command
        )
        self._processes.append(process)
        await process.wait_ready()
        node.serves = True
        self._nursery.start_soon(self._see_end, node, process, node.lives)
        self.note(f"{name} serves")
        return node

    async def _see_end(self, node: SiteNode, process: NodeProcess, life: int) -> None:
        code = await process.process.wait()
        if node.lives == life:
            node.peers.cut()  # its machine refuses whoever dials it from now on
            if node.serves:
                node.serves = False
                self.note(f"{node.name} ended by itself, with code {code}: {process.last_words()}")

    def kill(self, name: str) -> None:
        """SIGKILL: its machine refuses whoever dials it from now on."""
        node = self.nodes[name]
        node.serves = node.frozen = False
        node.process.kill()
        node.peers.cut()
        self.note(f"{name} is killed")

    async def stop(self, name: str) -> None:
        """SIGTERM; returns when it has drained and ended.

        Raises:
            SiteFailed: not with code 0.
        """
        node = self.nodes[name]
        node.serves = False
        self.note(f"{name} is told to stop")
        await node.process.stop()
        self.note(f"{name} has stopped")

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self.nodes[name].frozen = True
        self.nodes[name].process.freeze()
        self.note(f"{name} is frozen")

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self.nodes[name].process.thaw()
        self.nodes[name].frozen = False
        self.note(f"{name} goes on")

    # --- networks

    def cut_link(self, one: str, other: str) -> None:
        """Resets the link between two nodes, and has each refuse whoever dials it."""
        for name, dialer in ((one, other), (other, one)):
            self.nodes[name].peers.cut(dialer)
        self.note(f"{one} and {other} are cut off from each other")

    def silence_link(self, source: str, sink: str, *, one_way: bool = False) -> None:
        """Nothing that `source` says to `sink` arrives, nor the other way round unless `one_way`."""
        forth: tuple[Way, ...] = ("in",) if one_way else WAYS
        back: tuple[Way, ...] = ("out",) if one_way else WAYS
        self.nodes[sink].peers.silence(source, ways=forth)  # where source has dialled
        self.nodes[source].peers.silence(sink, ways=back)  # where sink has
        self.note(f"nothing that {source} says reaches {sink}" + ("" if one_way else ", nor the other way"))

    def swallowed(self, source: str, sink: str) -> int:
        """How many bytes of what `source` says to `sink` silence has swallowed."""
        return self.nodes[sink].peers.held("in", source) + self.nodes[source].peers.held("out", sink)

    def cut_off(self, name: str) -> None:
        """Pulls the cable of a node: it reaches neither Redis nor peers, and none of them reaches it."""
        node = self.nodes[name]
        node.unreachable = True
        node.redis.silence()
        node.peers.silence()
        for other in self.nodes.values():
            if other is not node:
                other.peers.silence(name)
        self.note(f"{name} is cut off from Redis and all others")

    def restore(self) -> None:
        """All networks are whole again."""
        for node in self.nodes.values():
            node.unreachable = False
            node.redis.mend()
            if node.process.alive:
                node.peers.mend()
        self.note("all networks are whole")
