"""The ring that there is, slot by slot, and the sessions that lie on it: what `ring plan` starts from."""

from collections import Counter
from dataclasses import dataclass

from msgspec import Struct

from ring.cli.change import Seat
from ring.cli.reach import OwnedRange, Reach, Unreachable, client, get_any, read_redis, slot_table
from ring.cli.survey import Nodes, ask_each, listed


@dataclass(frozen=True, slots=True)
class StandingRing:
    """A ring, by its nodes or by Redis."""

    cluster: str
    epoch: int
    source: str
    members: list[Seat]
    owners: list[str]
    sessions: dict[int, int] | None
    """By slot; None if no node was asked."""
    warnings: list[str]


class _Ring(Struct):
    cluster: str
    epoch: int
    nodes: list[Seat]
    owners: list[OwnedRange]


class _Slots(Struct):
    sessions: dict[int, int]


async def standing(reach: Reach) -> StandingRing:
    """Asks a node for the ring and all for their sessions; Redis, if none answers.

    Raises:
        Unreachable: nobody answers.
        RingError: the API refuses.
    """
    if not reach.api:
        return await _from_redis(reach, [])
    try:
        return await _from_nodes(reach)
    except Unreachable as error:
        if reach.redis is None:
            raise
        return await _from_redis(reach, [str(error)])


async def _from_nodes(reach: Reach) -> StandingRing:
    async with client(reach) as http:
        ring = await get_any(http, reach, "/v1/ring", _Ring, table="1")
        nodes = (await get_any(http, reach, "/v1/nodes", Nodes)).nodes
    counted = await ask_each(reach, nodes, "/v1/slots", _Slots)
    silent = [node.name for node in nodes if node.name not in counted]
    whose = "its" if len(silent) == 1 else "their"
    sessions: Counter[int] = Counter()
    for answer in counted.values():
        sessions.update(answer.sessions)
    return StandingRing(
        cluster=ring.cluster,
        epoch=ring.epoch,
        source="nodes",
        members=ring.nodes,
        owners=slot_table(ring.owners),
        sessions=sessions if counted else None,
        warnings=[f"no word from {listed(silent)}: {whose} sessions are not counted"] if silent else [],
    )


async def _from_redis(reach: Reach, warnings: list[str]) -> StandingRing:
    view = (await read_redis(reach)).view
    return StandingRing(
        cluster=view.cluster,
        epoch=view.epoch,
        source="redis",
        members=[Seat(member.name, member.weight, member.state) for member in view.members],
        owners=view.owners,
        sessions=None,
        warnings=warnings,
    )
