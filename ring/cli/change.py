"""What a change of the members would move: the facts behind `ring plan`. Pure.

The table after the change is computed as the nodes would compute it, by `place`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct, field

from ring.cli.survey import listed
from ring.cluster.membership import check_node_name
from ring.cluster.placement import NOBODY, fair, place
from ring.cluster.scripts import MAX_WEIGHT
from ring.protocol.codes import BadRequest
from ring.protocol.names import SLOTS


class Seat(Struct, frozen=True):
    """A member, as placement sees it."""

    name: str
    weight: int
    state: str


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to the members at once: weights of the new ones, names of those that go, new weights."""

    add: Mapping[str, int]
    remove: frozenset[str]
    weight: Mapping[str, int]

    @classmethod
    def parse(cls, add: Sequence[str], remove: Sequence[str], weight: Sequence[str]) -> "Change":
        """As the options say it: NAME or NAME=WEIGHT, NAME, NAME=WEIGHT.

        Raises:
            BadRequest: one cannot be understood, or a name is there twice.
        """
        added = [_named(value, "--add", default=1) for value in add]
        weighed = [_named(value, "--weight") for value in weight]
        if not (added or remove or weighed):
            raise BadRequest("say what to change: --add NAME[=WEIGHT], --remove NAME, --weight NAME=WEIGHT")
        counts = Counter([*(name for name, _ in added + weighed), *remove])
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise BadRequest(f"{twice} is named {counts[twice]} times: say one thing of each node")
        return cls(dict(added), frozenset(remove), dict(weighed))

    def apply(self, members: Iterable[Seat]) -> list[Seat]:
        """The members after it.

        Raises:
            BadRequest: it does not fit them, or nobody would be left to own anything.
        """
        before = {member.name: member for member in members}
        for name in self.add.keys() & before.keys():
            raise BadRequest(
                f"--add {name}: it is a member; to change its weight, use --weight {name}=WEIGHT"
            )
        for name in sorted((self.remove | self.weight.keys()) - before.keys()):
            option = "--remove" if name in self.remove else "--weight"
            raise BadRequest(f"{option} {name}: no such member; there are {listed(sorted(before))}")
        after = [
            Seat(member.name, self.weight.get(member.name, member.weight), member.state)
            for member in before.values()
            if member.name not in self.remove
        ]
        after += [Seat(name, weight, "up") for name, weight in self.add.items()]
        if not any(due.most for due in fair(after).values()):
            raise BadRequest(
                "nobody would be left to own the slots: leave a member that does not drain, or --add one"
            )
        return after


def _named(value: str, option: str, default: int | None = None) -> tuple[str, int]:
    name, equals, digits = value.partition("=")
    weight = default
    if equals:
        weight = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0
    if weight is None or not 1 <= weight <= MAX_WEIGHT:
        raise BadRequest(f"{option} {value}: write NAME=WEIGHT, with a weight of 1 to {MAX_WEIGHT}")
    return check_node_name(name) if option == "--add" else name, weight


class Move(Struct, kw_only=True):
    """Slots that go from one node to another, and the sessions of their users. From None: owned by nobody."""

    source: str | None = field(name="from")
    to: str
    slots: int
    sessions: int | None


class NodePlan(Struct, kw_only=True):
    """A node before and after; the weight is None where it is not a member."""

    name: str
    weight_before: int | None
    weight_after: int | None
    slots_before: int
    slots_after: int
    share_before: float
    share_after: float
    fair_share_after: float


class Plan(Struct, kw_only=True):
    """What a change would move."""

    slots: int
    share: float
    least_slots: int
    """Any table in which the nodes had these shares would move as many."""
    least_share: float
    sessions: int | None
    """Whose owner changes, of `sessions_known`; None where no node was there to ask."""
    sessions_known: int | None
    moves: list[Move]
    """Largest first."""
    nodes: list[NodePlan]


def plan(
    members: Sequence[Seat],
    owners: Sequence[str],
    change: Change,
    sessions: Mapping[int, int] | None = None,
) -> Plan:
    """What the change would do to this ring.

    Args:
        members: those there are.
        owners: the slot table by which they route.
        change: to be planned.
        sessions: how many there are, by slot; None if that is not known.

    Raises:
        BadRequest: the change does not fit the members.
    """
    after = change.apply(members)
    table = place(after)
    moved: Counter[tuple[str, str]] = Counter()
    taken: Counter[tuple[str, str]] = Counter()
    for slot, pair in enumerate(zip(owners, table, strict=True)):
        if pair[0] != pair[1]:
            moved[pair] += 1
            taken[pair] += 0 if sessions is None else sessions.get(slot, 0)
    had, has = Counter(owners), Counter(table)
    least = sum((has - had).values())
    return Plan(
        slots=moved.total(),
        share=round(moved.total() / SLOTS, 6),
        least_slots=least,
        least_share=round(least / SLOTS, 6),
        sessions=None if sessions is None else taken.total(),
        sessions_known=None if sessions is None else sum(sessions.values()),
        moves=[
            Move(
                source=None if pair[0] == NOBODY else pair[0],
                to=pair[1],
                slots=slots,
                sessions=None if sessions is None else taken[pair],
            )
            for pair, slots in sorted(moved.items(), key=lambda move: (-move[1], move[0]))
        ],
        nodes=_nodes(members, after, had, has),
    )


def _nodes(
    before: Sequence[Seat], after: Sequence[Seat], had: Mapping[str, int], has: Mapping[str, int]
) -> list[NodePlan]:
    old, new = ({member.name: member.weight for member in members} for members in (before, after))
    due = fair(after)
    return [
        NodePlan(
            name=name,
            weight_before=old.get(name),
            weight_after=new.get(name),
            slots_before=had.get(name, 0),
            slots_after=has.get(name, 0),
            share_before=round(had.get(name, 0) / SLOTS, 6),
            share_after=round(has.get(name, 0) / SLOTS, 6),
            fair_share_after=round(due[name].slots / SLOTS, 6) if name in due else 0.0,
        )
        for name in sorted(old.keys() | new.keys())
    ]
