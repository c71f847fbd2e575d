"""What a change of the members would move, computed."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.cli.change import Change, Plan, Seat, plan
from ring.cluster.placement import NOBODY, place
from ring.protocol.codes import BadRequest
from ring.protocol.names import SLOTS


def seats(size: int, **weights: int) -> list[Seat]:
    """Members of weight 1, or of another."""
    return [
        Seat(name, weights.get(name, 1), "up") for name in (f"n{number}" for number in range(1, size + 1))
    ]


def planned(members: list[Seat], change: Change, sessions: dict[int, int] | None = None) -> Plan:
    """The plan for a ring that is as placement would have it."""
    return plan(members, place(members), change, sessions)


def change(
    *, add: tuple[str, ...] = (), remove: tuple[str, ...] = (), weight: tuple[str, ...] = ()
) -> Change:
    """As the options say it."""
    return Change.parse(add, remove, weight)


class TestParse:
    def test_options(self) -> None:
        """Newcomers weigh 1 if nothing is said."""
        parsed = change(add=("n4", "n5=3"), remove=("n1",), weight=("n2=1000",))
        assert parsed == Change({"n4": 1, "n5": 3}, frozenset({"n1"}), {"n2": 1000})

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({}, "say what to change: --add"),
            ({"add": ("n4=0",)}, "--add n4=0: write NAME=WEIGHT, with a weight of 1 to 1000"),
            ({"add": ("n4=",)}, "--add n4=: write NAME=WEIGHT"),
            ({"add": ("n4=1.5",)}, "write NAME=WEIGHT"),
            ({"add": ("n4=²",)}, "write NAME=WEIGHT"),
            ({"add": ("n4=" + "9" * 5000,)}, "write NAME=WEIGHT"),
            ({"add": ("n4=-1",)}, "write NAME=WEIGHT"),
            ({"add": ("n 4",)}, "node name 'n 4': 1 to 64 of"),
            ({"add": ("",)}, "node name '': 1 to 64 of"),
            ({"weight": ("n1=1001",)}, "--weight n1=1001: write NAME=WEIGHT"),
            ({"weight": ("n1",)}, "--weight n1: write NAME=WEIGHT"),
            ({"add": ("n4", "n4=2")}, "n4 is named 2 times: say one thing of each node"),
            ({"remove": ("n1",), "weight": ("n1=2",)}, "n1 is named 2 times"),
            ({"remove": ("n1", "n1")}, "n1 is named 2 times"),
        ],
    )
    def test_what_cannot_be_understood(self, options: dict[str, tuple[str, ...]], says: str) -> None:
        """The message says what to write."""
        with pytest.raises(BadRequest) as raised:
            change(**options)
        assert says in str(raised.value)


class TestApply:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"add": ("n2",)}, "--add n2: it is a member; to change its weight, use --weight n2="),
            ({"remove": ("n4",)}, "--remove n4: no such member; there are n1, n2 and n3"),
            ({"weight": ("n4=2",)}, "--weight n4: no such member"),
            ({"remove": ("n1", "n2", "n3")}, "nobody would be left to own the slots"),
        ],
    )
    def test_what_does_not_fit(self, options: dict[str, tuple[str, ...]], says: str) -> None:
        """The message says why."""
        with pytest.raises(BadRequest) as raised:
            change(**options).apply(seats(3))
        assert says in str(raised.value)

    def test_the_last_that_does_not_drain(self) -> None:
        """One that drains owns nothing: it is not enough."""
        with pytest.raises(BadRequest, match="nobody would be left"):
            change(remove=("n1",)).apply([*seats(1), Seat("n2", 1, "draining")])

    def test_all_others(self) -> None:
        """One stays, or comes instead."""
        assert change(remove=("n1", "n2")).apply(seats(3)) == [Seat("n3", 1, "up")]
        assert change(remove=("n1",), add=("n2=5",)).apply(seats(1)) == [Seat("n2", 5, "up")]


class TestPlan:
    def test_a_newcomer(self) -> None:
        """It takes from all, and what moves is what it takes."""
        found = planned(seats(3), change(add=("n4",)))
        assert {(move.source, move.to) for move in found.moves} == {("n1", "n4"), ("n2", "n4"), ("n3", "n4")}
        assert [node.name for node in found.nodes] == ["n1", "n2", "n3", "n4"]
        new = found.nodes[3]
        assert (new.weight_before, new.weight_after, new.slots_before) == (None, 1, 0)
        assert found.slots == found.least_slots == new.slots_after
        assert found.share == pytest.approx(found.slots / SLOTS, abs=1e-6)
        assert new.fair_share_after == 0.25

    def test_one_that_goes(self) -> None:
        """All that it owned moves, and little else."""
        found = planned(seats(3), change(remove=("n3",)))
        gone = found.nodes[2]
        assert (gone.weight_after, gone.slots_after, gone.share_after, gone.fair_share_after) == (
            None,
            0,
            0,
            0,
        )
        assert found.slots >= found.least_slots >= gone.slots_before > 5000

    def test_another_weight(self) -> None:
        """Shares follow the weights."""
        found = planned(seats(2), change(weight=("n1=3",)))
        first, second = found.nodes
        assert (first.weight_before, first.weight_after) == (1, 3)
        assert (first.fair_share_after, second.fair_share_after) == (0.75, 0.25)
        assert {move.to for move in found.moves} == {"n1"}

    def test_all_at_once(self) -> None:
        """It is one change, not one after the other."""
        members = seats(4)
        found = planned(members, change(add=("n5=2",), remove=("n1",), weight=("n2=3",)))
        after = Counter(place([Seat("n2", 3, "up"), *members[2:], Seat("n5", 2, "up")]))
        assert {node.name: node.slots_after for node in found.nodes} == {"n1": 0, **after}

    def test_nothing_moves(self) -> None:
        """A weight that it has already; a node that drains anyway."""
        members = [*seats(2), Seat("n3", 1, "draining")]
        for nothing in (change(weight=("n1=1",)), change(remove=("n3",)), change(weight=("n3=7",))):
            found = planned(members, nothing, {1: 5})
            assert (found.slots, found.least_slots, found.moves, found.sessions) == (0, 0, [], 0)

    def test_slots_of_nobody(self) -> None:
        """Where all drain, a newcomer takes the slots from nobody."""
        found = planned([Seat("n1", 1, "draining")], change(add=("n2",)))
        [move] = found.moves
        assert (move.source, move.to, move.slots) == (None, "n2", SLOTS)

    def test_sessions(self) -> None:
        """Those of the slots that move, to where their slots do."""
        members = seats(3)
        before, after = place(members), place([*members, Seat("n4", 1, "up")])
        sessions = {slot: slot % 3 for slot in range(0, SLOTS, 7)}
        found = planned(members, change(add=("n4",)), sessions)
        moved = {slot: count for slot, count in sessions.items() if before[slot] != after[slot]}
        assert (found.sessions, found.sessions_known) == (sum(moved.values()), sum(sessions.values()))
        for move in found.moves:
            assert move.sessions == sum(n for slot, n in moved.items() if before[slot] == move.source)

    def test_sessions_that_nobody_told(self) -> None:
        """They are unknown, not none."""
        found = planned(seats(3), change(add=("n4",)))
        assert (found.sessions, found.sessions_known) == (None, None)
        assert {move.sessions for move in found.moves} == {None}

    @settings(max_examples=15, deadline=None)
    @given(
        st.lists(st.integers(1, 8), min_size=2, max_size=8),
        st.dictionaries(st.sampled_from(["x", "y"]), st.integers(1, 8), max_size=2),
        st.dictionaries(st.sampled_from(["n1", "n2"]), st.one_of(st.none(), st.integers(1, 9)), min_size=1),
    )
    def test_the_books_balance(
        self, weights: list[int], add: dict[str, int], others: dict[str, int | None]
    ) -> None:
        """Whatever is changed: what nodes lose and gain is what moves, largest first, and no less than the
        least possible."""
        members = [Seat(f"n{number}", weight, "up") for number, weight in enumerate(weights, 1)]
        gone = frozenset(name for name, weight in others.items() if weight is None)
        if len(gone) == len(members) and not add:
            gone = frozenset()
        found = planned(members, Change(add, gone, {n: w for n, w in others.items() if w is not None}))
        assert sum(move.slots for move in found.moves) == found.slots >= found.least_slots
        assert [move.slots for move in found.moves] == sorted((m.slots for m in found.moves), reverse=True)
        for node in found.nodes:
            gained = sum(move.slots for move in found.moves if move.to == node.name)
            lost = sum(move.slots for move in found.moves if move.source == node.name)
            assert node.slots_after - node.slots_before == gained - lost
        assert sum(node.slots_after for node in found.nodes) == SLOTS
        assert NOBODY not in {move.to for move in found.moves}
