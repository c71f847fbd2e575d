"""Which member owns which slot: consistent hashing with bounded loads, the same on every node.

Pure: a function of the members' names, weights and states. Integer arithmetic and MD5 points alone, so that
every release of Python, every platform and every order of the members give the same table. What would change
a table must change `ALGORITHM`, by which nodes that would compute different tables refuse each other. Called
in a worker thread when a view is built (ring/cluster/view.py).
"""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from typing import NamedTuple, Protocol

from uhashring import HashRing

from ring.protocol.names import SLOTS

ALGORITHM = "ketama80-bounded105-1"
"""Names what `place` computes, in Redis: nodes of another algorithm are refused."""

NOBODY = ""
"""The owner of a slot that no member may own."""

_VNODES = 80
"""Virtual nodes per unit of weight, of four points each. Twice ketama's usual 40: a join to 8 members moves
1.04 times the least possible instead of 1.07, for 5 us of MD5 each, once."""

_MOST_UNITS = 8
"""A heavier member gets no more points than this weight would: the bounds see to its share, a change of the
ring moves 0.02 to 0.05 of the slots more than it had to, and the time is bounded whatever people call 1."""


class Weighted(Protocol):
    """What placement knows of a member."""

    @property
    def name(self) -> str:
        """Unique among the members."""

    @property
    def weight(self) -> int:
        """How much it should own, beside the others'."""

    @property
    def state(self) -> str:
        """`draining`, or another."""


def place(members: Iterable[Weighted]) -> list[str]:
    """The owner of each of the 16,384 slots, `NOBODY` everywhere if no member may own.

    A slot goes to the first member, clockwise from the slot's point, that is not full; a member is full at
    1.05 times its share by weight, rounded up. Members that drain or weigh nothing own nothing. Slots choose
    in the order of their numbers, which has nothing to do with their points: of the orders tried it moved as
    little as any.
    """
    weights = _weights(members)
    names = sorted(weights)
    if not names:
        return [NOBODY] * SLOTS
    total = sum(weights.values())
    room = [bound(weights[name], total) for name in names]
    starts, holders = _circle([(name, weights[name]) for name in names])
    owners = [NOBODY] * SLOTS
    for slot, start in enumerate(starts):
        point = start
        while not room[holder := holders[point]]:
            point += 1
        room[holder] -= 1
        owners[slot] = names[holder]
    return owners


def bound(weight: int, total: int) -> int:
    """The most slots that a member of this weight may own, where all weights sum to `total`."""
    return -(-21 * SLOTS * weight // (20 * total))


class Fair(NamedTuple):
    """What a member should have of the slots."""

    slots: float
    """Its share by weight."""
    most: int
    """Its bound."""


def fair(members: Iterable[Weighted]) -> dict[str, Fair]:
    """What each member should have, by name; (0, 0) for those that may own nothing. `place` comes near it."""
    everyone = tuple(members)
    weights = _weights(everyone)
    total = sum(weights.values())
    return {
        member.name: Fair(SLOTS * weight / total, bound(weight, total))
        if (weight := weights.get(member.name, 0))
        else Fair(0.0, 0)
        for member in everyone
    }


def _weights(members: Iterable[Weighted]) -> dict[str, int]:
    """The weights of those that may own."""
    return {
        member.name: member.weight for member in members if member.state != "draining" and member.weight > 0
    }


def table_hash(owners: Sequence[str]) -> str:
    """A fingerprint of a slot table, by which nodes find out that they computed different ones."""
    return blake2b("\n".join(owners).encode(), digest_size=16).hexdigest()


def _circle(weighted: list[tuple[str, int]]) -> tuple[list[int], list[int]]:
    """Where each slot starts to look, and the index of the member at each point.

    The points are listed twice, so that a walk that starts anywhere passes all of them without a wrap.
    """
    points = sorted(
        (position, index)
        for index, (name, weight) in enumerate(weighted)
        for position in _positions(name, _VNODES * min(weight, _MOST_UNITS))
    )
    holders = [index for _, index in points]
    starts = [0] * SLOTS
    point = 0
    for position, slot in _slot_positions():
        while point < len(points) and points[point][0] < position:
            point += 1
        starts[slot] = point
    return starts, holders + holders


@lru_cache(maxsize=1024)
def _positions(name: str, vnodes: int) -> tuple[int, ...]:
    """The points of one member on the ketama circle: a change computes those of the newcomer alone."""
    circle = HashRing({name: {"vnodes": vnodes}}, hash_fn="ketama")
    return tuple(position for position, _ in circle.get_points())


@cache
def _slot_positions() -> list[tuple[int, int]]:
    """(point, slot) in the order of the points. Members' names have no colon: no slot hashes like one."""
    hashed = HashRing({}, hash_fn="ketama").hashi
    return sorted((hashed(f"slot:{slot}"), slot) for slot in range(SLOTS))
