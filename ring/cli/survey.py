"""What a cluster says of itself, gathered from its nodes or from Redis: the facts behind `ring status`."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
import trio
from msgspec import Struct

from ring.cli.reach import Reach, Unreachable, api_url, client, get, get_any, read_redis
from ring.cluster.placement import Fair, fair
from ring.cluster.scripts import Reading
from ring.protocol.codes import RingError
from ring.protocol.names import SLOTS

T = TypeVar("T")

ASKED_AT_ONCE = 32
"""So many nodes are asked at a time: to read what 128 say at once may take longer than one has to answer."""

FEW = 3
"""A warning names so many nodes; of further ones it says how many."""

LEAST_OF_FAIR = 0.5
"""A node with less than this part of its fair share is worth a warning: placement gives 0.73 at the least, to
one of 128."""

COUNTED_FROM = 32
"""Fair shares of fewer slots are not judged: one slot more or less is much of them."""


class NodeReport(Struct, kw_only=True):
    """A node as `ring status` shows it; None where nobody could say."""

    name: str
    state: str
    weight: int
    slots: int
    share: float
    fair_share: float = 0.0
    bound_share: float = 0.0
    """The most that it may own."""
    edge: str
    api: str
    version: str
    lease_age_s: float | None = None
    epoch: int | None = None
    sessions: int | None = None
    users: int | None = None
    off_owner: int | None = None
    links_up: int | None = None
    lag_ms: float | None = None
    degraded: list[str] | None = None


class Total(Struct, kw_only=True):
    """Of the nodes that say so, `of` them; a user who is on two nodes counts twice."""

    sessions: int = 0
    users: int = 0
    off_owner: int = 0
    of: int = 0


class Survey(Struct, kw_only=True):
    """A cluster as `ring status` shows it."""

    cluster: str
    epoch: int
    source: str
    nodes: list[NodeReport]
    warnings: list[str]
    total: Total = msgspec.field(default_factory=Total)


class Own(Struct):
    """What a node says of itself in GET /v1/nodes."""

    state: str
    epoch: int
    degraded: list[str]
    lease_age_s: float | None = None
    sessions: int | None = None
    users: int | None = None
    off_owner: int | None = None
    lag_ms: float | None = None


class Entry(NodeReport, kw_only=True):
    """A node in the answer to GET /v1/nodes."""

    own: Own | None = msgspec.field(default=None, name="self")
    link: str | None = None


class Nodes(Struct):
    """The answer to GET /v1/nodes."""

    nodes: list[Entry]


class _Ring(Struct):
    cluster: str
    epoch: int


class _Findings:
    """What is wrong: one line for all nodes of which the same is to be said, however many they are."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], list[str]] = {}

    def add(self, name: str, one: str, many: str | None = None) -> None:
        """Notes it of a node: in words for one, and for several."""
        self._said.setdefault((one, many or one), []).append(name)

    def lines(self) -> list[str]:
        """All that was noted, in the order in which it was."""
        return [
            f"{names[0]} {one}" if len(names) == 1 else f"{listed(names)} {many}"
            for (one, many), names in self._said.items()
        ]


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: all, or the first few."""
    if len(names) <= FEW:
        return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    return f"{', '.join(names[:FEW])} and {len(names) - FEW} more"


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


async def ask_each(reach: Reach, entries: Iterable[Entry], path: str, kind: type[T]) -> dict[str, T]:
    """What each node answers to GET `path`, by its name; those that do not answer so are left out."""
    seen: dict[str, T] = {}
    turn = trio.CapacityLimiter(ASKED_AT_ONCE)
    async with client(reach) as http:

        async def ask(entry: Entry) -> None:
            with suppress(RingError):
                async with turn:
                    seen[entry.name] = await get(http, api_url(entry.api), path, kind)

        async with trio.open_nursery() as nursery:
            for entry in entries:
                nursery.start_soon(ask, entry)
    return seen


async def _from_nodes(reach: Reach) -> Survey:
    async with client(reach) as http:
        ring = await get_any(http, reach, "/v1/ring", _Ring)
        listing = (await get_any(http, reach, "/v1/nodes", Nodes)).nodes
    seen = await ask_each(reach, listing, "/v1/nodes", Nodes)
    found = Survey(cluster=ring.cluster, epoch=ring.epoch, source="nodes", nodes=[], warnings=[])
    findings = _Findings()
    due = fair(listing)
    for entry in listing:
        report = msgspec.convert(entry, NodeReport, from_attributes=True)
        _judge_share(report, due[entry.name], findings)
        found.nodes.append(report)
        if (says := seen.get(entry.name)) is None:
            findings.add(entry.name, f"does not answer at {entry.api}")
        elif (own := next((other.own for other in says.nodes if other.name == entry.name), None)) is None:
            findings.add(entry.name, f"is not who answers at {entry.api}")
        else:
            _take(own, report, found.total)
            _judge(own, found.epoch, entry.name, findings)
            _take_links(says, report, findings)
    found.warnings = findings.lines()
    return found


def _take(own: Own, report: NodeReport, total: Total) -> None:
    """What the node says of itself goes into its report."""
    report.state, report.epoch, report.degraded = own.state, own.epoch, own.degraded
    report.lease_age_s = None if own.lease_age_s is None else round(own.lease_age_s, 3)
    report.lag_ms = None if own.lag_ms is None else round(own.lag_ms, 3)
    report.sessions, report.users, report.off_owner = own.sessions, own.users, own.off_owner
    if own.sessions is not None and own.users is not None and own.off_owner is not None:
        total.sessions += own.sessions
        total.users += own.users
        total.off_owner += own.off_owner
        total.of += 1


def _take_links(says: Nodes, report: NodeReport, findings: _Findings) -> None:
    others = (node for node in says.nodes if node.name != report.name)
    links = {other.name: other.link for other in others if other.link is not None}
    report.links_up = sum(1 for link in links.values() if link == "up")
    for name, link in links.items():
        if link != "up":
            findings.add(report.name, f"has no link to {name}: {link}", f"have no link to {name}: {link}")


def _judge(own: Own, epoch: int, name: str, findings: _Findings) -> None:
    if own.state not in ("up", "draining"):
        findings.add(name, f"is {own.state}", f"are {own.state}")
    if own.epoch != epoch:
        other = f"by epoch {own.epoch}, not by {epoch}"
        findings.add(name, f"routes {other}", f"route {other}")
    for what in own.degraded:
        if what == "frozen":
            frozen = "on in a frozen ring: no node can join or leave until Redis is back"
            findings.add(name, f"goes {frozen}", f"go {frozen}")
        else:
            findings.add(name, f"does without {what}", f"do without {what}")


def _judge_share(report: NodeReport, due: Fair, findings: _Findings) -> None:
    report.share = round(report.share, 6)
    report.fair_share, report.bound_share = round(due.slots / SLOTS, 6), round(due.most / SLOTS, 6)
    owns = f"owns {report.slots} slots"
    if report.slots > due.most:
        findings.add(report.name, f"{owns}, more than the {due.most} that it should at most")
    elif due.slots >= COUNTED_FROM and report.slots < LEAST_OF_FAIR * due.slots:
        findings.add(report.name, f"{owns}, far from its fair share of {due.slots:.0f}")


def _from_redis(reading: Reading) -> Survey:
    view = reading.view
    shares = view.shares()
    due = fair(view.members)
    found = Survey(cluster=view.cluster, epoch=view.epoch, source="redis", nodes=[], warnings=[])
    findings = _Findings()
    for member in view.members:
        age = reading.renewed_s.get(member.name)
        report = NodeReport(
            name=member.name,
            state=member.state,
            weight=member.weight,
            slots=shares[member.name],
            share=shares[member.name] / SLOTS,
            edge=member.edge,
            api=member.api,
            version=member.version,
            lease_age_s=None if age is None else round(age, 3),
        )
        found.nodes.append(report)
        _judge_share(report, due[member.name], findings)
        if age is None or age > reading.ttl_s:
            findings.add(
                member.name,
                "has not renewed its lease: it is down, or cut off from Redis",
                "have not renewed their leases: they are down, or cut off from Redis",
            )
    found.warnings = findings.lines()
    return found
