"""The servers that `make bench` compares: how each is found, started as a cluster of nodes, and ended."""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.nats import NatsDialect
from ring.bench.clients import Dialect
from ring.bench.dialect import RingDialect
from ring.bench.edge import Edge
from ring.bench.local import environment_without_ring, local_cluster
from ring.bench.meter import NODES, REDIS, Meter, of_processes
from ring.bench.stage import Placement, in_turn, on_owner
from ring.cli.bench_target import ask_local
from ring.store.embedded import find_server, free_port

HERE = Path(__file__).parent
PEERS = HERE / "peers"
PYTHON = HERE.parent / ".venvs" / "bench" / "bin" / "python"
"""Made by `make bench-peers`: the Python peers and what they need."""

SYSTEM_PROGRAMS = "/usr/sbin"
"""Where Debian puts servers, and not everybody's PATH leads."""

READY_S = 30.0
_STOP_S = 5.0
_SETTLE_S = 1.0  # nodes have subscribed, links are up, caches are warm or never will be


class DoesNotStart(Exception):
    """A server that is installed does not come up."""


@dataclass(frozen=True)
class Cluster:
    """Nodes of one kind that run.

    Attributes:
        edges: where clients connect.
        meter: of all their processes, and of Redis where they use one.
        owner_of: places users on their owners; None where a server knows no such thing.
        redis: where a cluster of Ring keeps what it stores.
        name: its own, there.
    """

    edges: list[Edge]
    meter: Meter
    owner_of: Placement | None = None
    redis: str = ""
    name: str = ""


@dataclass(frozen=True)
class Server:
    """A kind of server.

    Attributes:
        name: in tables.
        variants: in which the direct messages are measured; see `Variant`.
        missing: what lacks for it to run here; empty if nothing.
        run: starts a cluster of so many nodes; ends it with the block.
    """

    name: str
    variants: tuple["Variant", ...]
    missing: Callable[[], str]
    run: Callable[[int], AbstractContextManager[Cluster]]


@dataclass(frozen=True)
class Variant:
    """How a server is used.

    Attributes:
        name: in tables, behind the server's; may be empty.
        dialect: what its clients speak.
        on_owner: users connect to their owner; else in turn.
    """

    name: str
    dialect: Dialect
    on_owner: bool = False


class _Processes:
    """Processes that end with a block, or with this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, part: str, *command: str) -> subprocess.Popen[bytes]:
        """Starts one; what it has to complain of goes to our own stderr."""
        tied = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [*tied, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=PEERS,
            env={**os.environ, "NODE_ENV": "production"},
            start_new_session=True,
        )
        self._running.append((part, process))
        return process

    def stop(self) -> None:
        """Ends them all."""
        for _, process in self._running:
            process.terminate()
        for _, process in self._running:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def meter(self) -> Meter:
        """Of all of them."""
        parts: dict[str, list[int]] = {}
        for part, process in self._running:
            parts.setdefault(part, []).append(process.pid)
        return of_processes(parts)


@contextmanager
def _processes() -> Iterator[_Processes]:
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as directory:
        processes = _Processes(Path(directory))
        try:
            yield processes
        finally:
            processes.stop()


def _wait_ready(process: subprocess.Popen[bytes]) -> Edge:
    """Where a server that says so in a line of JSON is."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], READY_S)[0] or not (line := process.stdout.readline()):
        raise DoesNotStart(f"{process.args!r} did not say that it is ready")
    return Edge.parse(json.loads(line)["edge"])


def _wait_for(what: str, there: Callable[[], bool]) -> None:
    end = time.monotonic() + READY_S
    while not there():
        if time.monotonic() > end:
            raise DoesNotStart(f"{what} was not ready after {READY_S:.0f} s")
        time.sleep(0.05)


def _answers(url: str) -> dict[str, Any]:
    """What a server answers over HTTP; {} while it does not."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - http, and our own server
            found: dict[str, Any] = json.load(answer)
            return found
    except OSError:
        return {}


@contextmanager
def _run_ring(nodes: int) -> Iterator[Cluster]:
    with local_cluster(nodes, environment_without_ring()) as local:
        found = ask_local(local)
        time.sleep(_SETTLE_S)
        edges, owner_of = list(found.edges.values()), on_owner(found.edges, found.owners)
        yield Cluster(edges, local.meter, owner_of, local.redis, found.cluster)


@contextmanager
def _run_on_redis(nodes: int, *command: str) -> Iterator[Cluster]:
    with _processes() as processes:
        port = str(free_port())
        redis = [find_server(), "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no"]
        started = processes.start(REDIS, *redis, "--dir", str(processes.directory))
        assert started.stdout is not None
        while b"Ready to accept" not in (line := started.stdout.readline()):
            if not line:
                raise DoesNotStart("the Redis server ended")
        url = f"redis://127.0.0.1:{port}"
        running = [processes.start(NODES, *command, url) for _ in range(nodes)]
        edges = [_wait_ready(process) for process in running]
        time.sleep(_SETTLE_S)
        yield Cluster(edges, processes.meter())


@contextmanager
def _run_nats(nodes: int) -> Iterator[Cluster]:
    with _processes() as processes:
        places = [{what: free_port() for what in ("client", "edge", "mesh", "http")} for _ in range(nodes)]
        for index, at in enumerate(places):
            routes = [f"nats://127.0.0.1:{other['mesh']}" for other in places if other is not at]
            config = processes.directory / f"n{index}.conf"
            config.write_text(f"""
server_name: n{index}
listen: "127.0.0.1:{at["client"]}"
http: "127.0.0.1:{at["http"]}"
websocket {{ listen: "127.0.0.1:{at["edge"]}", no_tls: true, compression: false }}
cluster {{ name: bench, listen: "127.0.0.1:{at["mesh"]}", routes: {json.dumps(routes)} }}
""")
            log = str(processes.directory / f"n{index}.log")
            processes.start(NODES, nats_program(), "--config", str(config), "--log", log)
        for at in places:
            url = f"http://127.0.0.1:{at['http']}/routez"
            _wait_for("NATS' mesh", lambda url=url: _answers(url).get("num_routes", -1) >= nodes - 1)  # type: ignore[misc] # a default, to bind it
        time.sleep(_SETTLE_S)
        yield Cluster([Edge("127.0.0.1", at["edge"]) for at in places], processes.meter())


def nats_program() -> str:
    """The NATS server, or "" if there is none."""
    return os.environ.get("NATS_SERVER") or _which("nats-server") or ""


def _which(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=SYSTEM_PROGRAMS)


def _lacks_node() -> str:
    if shutil.which("node") is None:
        return "Node.js is not installed"
    return "" if (PEERS / "node_modules" / "ws").is_dir() else "its packages are not: make bench-peers"


def _lacks_websockets() -> str:
    if not PYTHON.exists():
        return "its environment is not made: make bench-peers"
    found = subprocess.run(  # noqa: S603 - our own command
        [PYTHON, "-c", "import redis, uvloop, websockets"], capture_output=True, check=False
    )
    return "its packages are not in the environment: make bench-peers" if found.returncode else ""


_JSON = RingDialect(subprotocols=())  # the peers agree on no sub-protocol

RING_RECEIPTS = Variant("on owners, receipts", RingDialect(receipts=True), on_owner=True)
RING = Server(
    "Ring",
    (
        Variant("on owners, at most once", RingDialect(), on_owner=True),
        Variant("at random, at most once", RingDialect()),
        RING_RECEIPTS,
        Variant("at random, receipts", RingDialect(receipts=True)),
    ),
    lambda: "",
    _run_ring,
)
NATS = Server(
    "NATS",
    (Variant("", NatsDialect()),),
    lambda: "" if nats_program() else "nats-server is not installed: make bench-peers",
    _run_nats,
)
NODE = Server(
    "Node.js ws, one Redis channel",
    (Variant("", _JSON),),
    _lacks_node,
    lambda nodes: _run_on_redis(nodes, "node", "node_ws_redis.js"),
)
WEBSOCKETS = Server(
    "websockets, a channel per user",
    (Variant("", _JSON),),
    _lacks_websockets,
    lambda nodes: _run_on_redis(nodes, str(PYTHON), "websockets_redis.py"),
)
SERVERS = (RING, NATS, NODE, WEBSOCKETS)


def placement(cluster: Cluster, variant: Variant) -> Placement:
    """Where the users of a variant connect."""
    if variant.on_owner and cluster.owner_of is not None:
        return cluster.owner_of
    return in_turn(cluster.edges)


ECHO = {
    "Ring": [sys.executable, "-m", "ring", "bench", "echo", "--listen", "127.0.0.1:0"],
    "trio-websocket": [sys.executable, str(HERE / "echo_trio_websocket.py")],
    "picows": [str(PYTHON), str(HERE / "echo_picows.py")],
}
"""Bare echo servers: see ring/bench/echo_load.py."""
