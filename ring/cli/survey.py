"""What a cluster says of itself, gathered from its nodes or from Redis: the facts behind `ring status`."""

import msgspec
import trio
from msgspec import Struct

from ring.cli.reach import Reach, Unreachable, api_url, client, get, get_from_any, read_redis
from ring.cluster.scripts import Reading
from ring.protocol.codes import RingError
from ring.protocol.names import SLOTS


class NodeReport(Struct, kw_only=True):
    """A node as `ring status` shows it; None where nobody could say."""

    name: str
    state: str
    weight: int
    slots: int
    share: float
    edge: str
    api: str
    version: str
    lease_age_s: float | None = None
    epoch: int | None = None
    sessions: int | None = None
    users: int | None = None
    links_up: int | None = None


class Survey(Struct, kw_only=True):
    """A cluster as `ring status` shows it."""

    cluster: str
    epoch: int
    source: str
    nodes: list[NodeReport]
    warnings: list[str]


class _Own(Struct):
    """What a node says of itself in GET /v1/nodes."""

    state: str
    epoch: int
    degraded: list[str]
    lease_age_s: float | None = None
    sessions: int | None = None
    users: int | None = None


class _Entry(NodeReport, kw_only=True):
    own: _Own | None = msgspec.field(default=None, name="self")
    link: str | None = None


class _Nodes(Struct):
    nodes: list[_Entry]


class _Ring(Struct):
    cluster: str
    epoch: int


async def survey(reach: Reach) -> Survey:
    """Asks every node; Redis, if none answers.

    Raises:
        Unreachable: nobody answers.
        RingError: the API refuses.
    """
    if reach.api:
        try:
            return await _from_nodes(reach)
        except Unreachable as error:
            if reach.redis is None:
                raise
            found = _from_redis(await read_redis(reach))
            found.warnings.insert(0, str(error))
            return found
    return _from_redis(await read_redis(reach))


async def _from_nodes(reach: Reach) -> Survey:
    async with client(reach) as http:
        ring = msgspec.convert(await get_from_any(http, reach, "/v1/ring"), _Ring)
        listed = msgspec.convert(await get_from_any(http, reach, "/v1/nodes"), _Nodes).nodes
        found = Survey(cluster=ring.cluster, epoch=ring.epoch, source="nodes", nodes=[], warnings=[])
        seen: dict[str, _Nodes] = {}

        async def ask(entry: _Entry) -> None:
            try:
                seen[entry.name] = msgspec.convert(await get(http, api_url(entry.api), "/v1/nodes"), _Nodes)
            except RingError:
                found.warnings.append(f"{entry.name} does not answer at {entry.api}")

        async with trio.open_nursery() as nursery:
            for entry in listed:
                nursery.start_soon(ask, entry)
    for entry in listed:
        found.nodes.append(_report(entry, seen.get(entry.name), found))
    return found


def _report(entry: _Entry, says: _Nodes | None, found: Survey) -> NodeReport:
    """The entry of a node, with what the node says of itself."""
    report = msgspec.convert(entry, NodeReport, from_attributes=True)
    if says is None:
        return report
    own = next((other.own for other in says.nodes if other.name == entry.name), None)
    if own is None:
        found.warnings.append(f"{entry.name} is not who answers at {entry.api}")
        return report
    links = {other.name: other.link for other in says.nodes if other.link is not None}
    report.links_up = sum(1 for link in links.values() if link == "up")
    report.lease_age_s, report.epoch = own.lease_age_s, own.epoch
    report.sessions, report.users = own.sessions, own.users
    report.state = own.state
    if own.epoch != found.epoch:
        found.warnings.append(f"{entry.name} routes by epoch {own.epoch}, not by {found.epoch}")
    found.warnings.extend(f"{entry.name} does without {what}" for what in own.degraded)
    found.warnings.extend(
        f"{entry.name} has no link to {name}: {link}" for name, link in links.items() if link != "up"
    )
    if own.state not in ("up", "draining"):
        found.warnings.append(f"{entry.name} is {own.state}")
    return report


def _from_redis(reading: Reading) -> Survey:
    view = reading.view
    shares = view.shares()
    found = Survey(cluster=view.cluster, epoch=view.epoch, source="redis", nodes=[], warnings=[])
    for member in view.members:
        age = reading.renewed_s.get(member.name)
        found.nodes.append(
            NodeReport(
                name=member.name,
                state=member.state,
                weight=member.weight,
                slots=shares[member.name],
                share=shares[member.name] / SLOTS,
                edge=member.edge,
                api=member.api,
                version=member.version,
                lease_age_s=age,
            )
        )
        if age is None or age > reading.ttl_s:
            found.warnings.append(
                f"{member.name} has not renewed its lease: it is down, or cut off from Redis"
            )
    return found
