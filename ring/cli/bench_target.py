"""What `ring bench` measures: a cluster of the user's, found as other commands find it, or one of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from msgspec import Struct

from ring.bench.edge import Edge
from ring.bench.meter import NODES, REDIS, Meter, Reading, Usage
from ring.bench.stage import Placement, in_turn, on_owner
from ring.cli.reach import (
    OwnedRange,
    Reach,
    Unreachable,
    api_url,
    client,
    find,
    get_any,
    read_redis,
    slot_table,
)
from ring.protocol.codes import RingError

if TYPE_CHECKING:
    import httpx

    from ring.bench.local import LocalCluster

_CPU, _MEMORY = "process_cpu_seconds_total", "process_resident_memory_bytes"


@dataclass(frozen=True, slots=True)
class Where:
    """What the options say."""

    edge: list[str]
    api: str | None
    api_key_file: Path | None
    redis: str | None
    cluster: str
    local: int | None

    def __post_init__(self) -> None:
        # An --api may come from the environment, where it stands for all commands: it gives way.
        if self.local is not None and self.edge:
            raise typer.BadParameter("--local starts a cluster of its own: give no --edge with it")


@dataclass(frozen=True, slots=True)
class Target:
    """What was found.

    Attributes:
        name: for people.
        edges: by node, or by address where the nodes are not known.
        owners: the owner of each slot; empty where it is not known.
        meter: what the servers use.
        redis: where the cluster keeps what it stores; empty where nobody says.
        cluster: its name there.
    """

    name: str
    edges: dict[str, Edge]
    owners: Sequence[str]
    meter: Meter
    redis: str = ""
    cluster: str = ""

    def placement(self, wanted: str | None) -> tuple[str, Placement]:
        """Where users connect: `owner`, `random`, or for None the first of these that there is.

        Raises:
            RingError: `owner` is wanted and nobody knows the owners.
        """
        if wanted == "owner" and not self.owners:
            raise RingError("--placement owner: nobody says who owns whom; give --api, not --edge alone")
        if wanted == "random" or not self.owners:
            return "random", in_turn(list(self.edges.values()))
        missing = set(self.owners) - set(self.edges)
        if missing:
            raise Unreachable("some users have no owner now: see ring status, or give --placement random")
        return "owner", on_owner(self.edges, self.owners)


class _Ring(Struct):
    cluster: str
    owners: list[OwnedRange]


class _Node(Struct):
    name: str
    edge: str
    api: str


class _Nodes(Struct):
    nodes: list[_Node]


@contextmanager
def target(where: Where) -> Iterator[Target]:
    """Finds it, or has it while the block runs.

    Raises:
        RingError: nothing is found, or the local cluster does not start.
    """
    import trio

    if where.local is not None:
        from ring.bench.local import local_cluster

        with local_cluster(where.local) as local:
            found = ask_local(local)
            nodes = "1 local node" if where.local == 1 else f"{where.local} local nodes"
            yield Target(nodes, found.edges, found.owners, local.meter, local.redis, found.cluster)
    elif where.edge:
        edges = {address: Edge.parse(address) for address in where.edge}
        meter, cluster = _cluster_meter(Reach(), (), where.redis), where.cluster
        if where.api:  # says what the nodes behind a balancer use
            behind = trio.run(_ask, _reach(where), where.redis)
            meter, cluster = behind.meter, behind.cluster
        yield Target(", ".join(where.edge), edges, (), meter, where.redis or "", cluster)
    else:
        reach = _reach(where)
        yield trio.run(_ask, reach, where.redis or reach.redis)


def ask_local(local: "LocalCluster") -> Target:
    """Where the nodes of a local cluster are, and who owns whom; by their API."""
    import trio

    return trio.run(_ask, Reach(api=tuple(map(api_url, local.apis))))


def _reach(where: Where) -> Reach:
    return find(where.api, where.api_key_file, where.redis, where.cluster)


async def _ask(reach: Reach, redis: str | None = None) -> Target:
    """Where the nodes are, and who owns whom; by their API, or else by Redis."""
    if reach.api:
        async with client(reach) as http:
            ring = await get_any(http, reach, "/v1/ring", _Ring, table="1")
            nodes = (await get_any(http, reach, "/v1/nodes", _Nodes)).nodes
        owners, cluster = slot_table(ring.owners), ring.cluster
    else:
        view = (await read_redis(reach)).view
        owners, cluster = view.owners, view.cluster
        nodes = [_Node(member.name, member.edge, member.api) for member in view.members]
    edges = {node.name: Edge.parse(node.edge) for node in nodes}
    apis = [api_url(node.api) for node in nodes]
    size = "1 node" if len(edges) == 1 else f"{len(edges)} nodes"
    meter = _cluster_meter(reach, apis, redis)
    return Target(f"cluster {cluster}, {size}", edges, owners, meter, redis or "", cluster)


def _cluster_meter(reach: Reach, apis: Sequence[str], redis: str | None) -> Meter:
    """By what the nodes' /metrics and Redis' INFO say; what does not answer is left out."""

    def read() -> Reading:
        import trio

        return trio.run(_read_usage, reach, apis, redis)

    return read


async def _read_usage(reach: Reach, apis: Sequence[str], redis: str | None) -> Reading:
    from ring.bench.store import read_info, usage

    found: Reading = {}
    async with client(reach) as http:
        nodes = [await _read_metrics(http, api) for api in apis]
    known = [each for each in nodes if each is not None]
    if known and len(known) == len(nodes):
        found[NODES] = Usage(sum(each.cpu_s for each in known), sum(each.memory_bytes for each in known))
    if redis is not None:
        found[REDIS] = usage(await read_info(redis))
    return found


async def _read_metrics(http: "httpx.AsyncClient", api: str) -> Usage | None:
    import httpx

    try:
        answer = await http.get(f"{api}/metrics")
    except httpx.HTTPError:
        return None
    if answer.status_code != 200:
        return None
    values = dict(line.split()[:2] for line in answer.text.splitlines() if line.startswith((_CPU, _MEMORY)))
    try:
        return Usage(float(values[_CPU]), int(float(values[_MEMORY])))
    except (KeyError, ValueError):
        return None
