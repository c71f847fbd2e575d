"""A local cluster, as processes: a store, and nodes that can be killed like those of a real one.

`ring dev` runs it. Nothing outlives it: nodes are stopped when it is, and if it is killed outright, they see
the end of their standard input, of which it held the other end (`ring.cli.child`).
"""

import os
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from ring import child
from ring.child import Event
from ring.dev import context
from ring.dev.context import Context
from ring.haproxy.config import Options
from ring.haproxy.program import Balancer, NoHAProxy
from ring.haproxy.source import Nodes
from ring.haproxy.sync import sync
from ring.protocol.codes import RingError
from ring.store.embedded import EmbeddedServer, free_port

CLUSTER = "dev"

READY_S = 30.0
"""How long a node may take until it serves."""

GRACE_S = 8.0
"""How long a node may take to drain; then it is killed."""

NODE = (*child.COMMAND, "serve")
"""The command that a node is."""

Report = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ports:
    """The first port of each kind; node 2 gets the next. 0: free ones."""

    edge: int = 8001
    peer: int = 9001
    api: int = 7001
    front: int | None = 8000
    """Of HAProxy, in front of all nodes; None: there shall be none."""
    operations: int = 8404
    """Of HAProxy's statistics and metrics."""


@dataclass(frozen=True, slots=True)
class Store:
    """What a node must be told to join the cluster."""

    url: str
    secret_file: Path


async def run(size: int, ports: Ports, report: Report) -> None:
    """Runs a cluster of `size` nodes until SIGINT, SIGTERM or SIGHUP; a second signal stops it at once.

    Args:
        size: how many nodes.
        ports: where they listen; a port that is taken is replaced by a free one.
        report: called with an event for each part that is ready or has ended, and for the cluster.

    Raises:
        RingError: a part does not start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ring-dev-") as directory,
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals,
    ):
        async with EmbeddedServer() as server, trio.open_nursery() as nursery:
            report({"event": "ready", "part": "redis", "url": server.url})
            cluster = _Cluster(Store(server.url, _secret_file(Path(directory))), Path(directory), report)
            nursery.start_soon(cluster.obey, signals)
            try:
                await cluster.run(size, ports)
            finally:
                context.remove(os.getpid())
                nursery.cancel_scope.cancel()
    report({"event": "stopped"})


def node_arguments(name: str, store: Store, *, edge: int = 0, peer: int = 0, api: int = 0) -> list[str]:
    """The arguments of `ring serve` for a node of this cluster."""
    return [
        *(
            "--name",
            name,
            "--cluster",
            CLUSTER,
            "--redis",
            store.url,
            "--secret-file",
            str(store.secret_file),
        ),
        *("--edge", f"127.0.0.1:{edge}", "--peer", f"127.0.0.1:{peer}", "--api", f"127.0.0.1:{api}"),
        *("--trusted-proxies", "127.0.0.1"),
    ]


def _secret_file(directory: Path) -> Path:
    path = directory / "secret"  # the directory is ours alone
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return path


class _Cluster:
    def __init__(self, store: Store, directory: Path, report: Report) -> None:
        self._store = store
        self._directory = directory
        self._report = report
        self._stopping = trio.CancelScope()
        self._graces: list[trio.CancelScope] = []
        self._hurry = False

    async def obey(self, signals: AsyncIterator[int]) -> None:
        """The first signal stops the nodes, the second ends their time to drain."""
        async for _ in signals:
            if self._stopping.cancel_called:
                self._hurry = True
                for grace in self._graces:
                    grace.cancel()
            self._stopping.cancel()

    async def run(self, size: int, ports: Ports) -> None:
        with self._stopping:
            async with trio.open_nursery() as nursery:
                ready: dict[str, Event] = {}
                async with trio.open_nursery() as starting:
                    for index in range(size):
                        starting.start_soon(self._start, nursery, index, ports, ready)
                nodes = [ready[name] for name in sorted(ready, key=lambda name: int(name[1:]))]
                async with self._balanced(nodes, ports) as front:
                    self._announce(nodes, front)
                    await trio.sleep_forever()

    @asynccontextmanager
    async def _balanced(self, nodes: list[Event], ports: Ports) -> AsyncIterator[str | None]:
        """Has HAProxy in front, and an agent that keeps it equal to the ring: where clients connect to it.

        None: there shall be none, or this machine has none, which is said.
        """
        if ports.front is None:
            yield None
            return
        options = Options(
            listen=f"127.0.0.1:{_free(ports.front, 0) or free_port()}",
            operations=f"127.0.0.1:{_free(ports.operations, 0) or free_port()}",
        )
        balancer = Balancer(self._directory / "haproxy", options)
        try:
            await balancer.start()
        except NoHAProxy as missing:
            self._report({"event": "missing", "part": "haproxy", "why": str(missing)})
            yield None
            return
        try:
            async with trio.open_nursery() as nursery:
                synced = trio.Event()
                source = Nodes([f"http://{node['api']}" for node in nodes])
                nursery.start_soon(
                    partial(sync, source, [balancer.agent()], on_synced=lambda *_: synced.set())
                )
                with trio.move_on_after(READY_S):
                    await synced.wait()
                if not synced.is_set():
                    raise RingError("HAProxy has not got the ring: see what was logged above")
                self._report(
                    {
                        "event": "ready",
                        "part": "haproxy",
                        "url": f"ws://{options.listen}/v1/connect",
                        "stats": f"http://{options.operations}/stats",
                        "runtime": balancer.runtime.address,
                        "pid": int(await balancer.runtime.pid()),
                    }
                )
                yield options.listen
                nursery.cancel_scope.cancel()
        finally:
            await balancer.stop()

    async def _start(self, nursery: trio.Nursery, index: int, ports: Ports, ready: dict[str, Event]) -> None:
        name = f"n{index + 1}"
        try:
            with trio.fail_after(READY_S):
                ready[name] = await nursery.start(self._node, name, index, ports)
        except trio.TooSlowError:
            raise RingError(f"{name} was not ready after {READY_S:.0f} s: see what it logged above") from None

    async def _node(
        self, name: str, index: int, ports: Ports, *, task_status: trio.TaskStatus[Event]
    ) -> None:
        wanted = {kind: _free(getattr(ports, kind), index) for kind in ("edge", "peer", "api")}
        arguments = node_arguments(name, self._store, **wanted)
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    [*NODE, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={"RING_LOG_LEVEL": "warning"} | os.environ,
                    check=False,
                    deliver_cancel=self._stop,
                    # Or a Ctrl-C would reach the nodes twice, and the second one stops a node at once.
                    start_new_session=True,
                )
            )
            serving = False
            async for event in child.events(process):
                if event.get("event") == "ready" and not serving:
                    serving = True
                    self._report(event)
                    task_status.started(event)
            code = await process.wait()
        if not serving:
            raise RingError(f"{name} ended with code {code} before it was ready: see what it logged above")
        self._report({"event": "exited", "part": "node", "name": name, "code": code})

    async def _stop(self, process: trio.Process) -> None:
        process.terminate()
        with trio.move_on_after(0 if self._hurry else GRACE_S) as grace:
            self._graces.append(grace)
            await process.wait()
        process.kill()

    def _announce(self, nodes: list[Event], front: str | None) -> None:
        edge, api = [node["edge"] for node in nodes], [node["api"] for node in nodes]
        apis = [f"http://{address}" for address in api]
        context.write(Context(CLUSTER, self._store.url, apis, edge, os.getpid(), front))
        self._report(
            {
                "event": "cluster-ready",
                "url": f"ws://{front or edge[0]}/v1/connect",
                "edge": edge,
                "api": api,
                "redis": self._store.url,
                "add": node_arguments(f"n{len(nodes) + 1}", self._store),
            }
        )


def _free(first: int, index: int) -> int:
    """Port `first + index` if nobody has it, else 0."""
    port = first + index if first else 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
