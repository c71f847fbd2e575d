"""RingView: the frozen picture of the ring."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ring.cluster.placement import NOBODY, place, table_hash
from ring.cluster.view import Member, RingView, members_hash
from ring.protocol.names import SLOTS, slot_of

N1 = Member("n1", "i1", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", 1, "up", "1.0")
N2 = replace(N1, name="n2", weight=2)
N3 = replace(N1, name="n3")


@given(st.text(min_size=1))
def test_a_user_belongs_to_the_owner_of_its_slot(user: str) -> None:
    """`owner` looks up the slot that HAProxy computes too."""
    view = VIEW
    assert view.owner(user) == view.owner_of_slot(slot_of(user)) == view.owners[slot_of(user)]


VIEW = RingView.build("demo", 7, [N3, N1, N2])


def test_a_view_holds_members_sorted_and_their_table() -> None:
    """Whatever order the members come in, the view is the same."""
    assert (VIEW.cluster, VIEW.epoch, VIEW.members, VIEW.names) == (
        "demo",
        7,
        (N1, N2, N3),
        ("n1", "n2", "n3"),
    )
    assert VIEW.owners == place([N1, N2, N3])
    assert VIEW.table_hash == table_hash(VIEW.owners)
    assert VIEW.members_hash == members_hash([N2, N3, N1])


def test_members_are_found_by_name() -> None:
    """Who is no member is None."""
    assert VIEW.member("n2") == N2
    assert VIEW.member("n4") is None


def test_shares_count_the_slots_of_each_member() -> None:
    """Also of those that own nothing."""
    counts = Counter(VIEW.owners)
    assert VIEW.shares() == dict(counts)
    assert RingView.build("demo", 8, [N1, replace(N2, state="draining")]).shares() == {"n1": SLOTS, "n2": 0}


def test_a_table_that_is_known_is_not_computed() -> None:
    """A view of what Redis has keeps the owners that Redis has."""
    owners = ["n1"] * SLOTS
    assert RingView.build("demo", 7, [N1, N2], owners).owners is owners


def test_successors_of_slots_are_computed_once_per_owner() -> None:
    """`successor_of_slot` says who would own the slot if its owner went, and remembers it."""
    view = RingView.build("demo", 7, [N1, N2, N3])
    without = {"n1": place([N2, N3]), "n2": place([N1, N3]), "n3": place([N1, N2])}
    for slot in range(SLOTS):
        owner = view.owner_of_slot(slot)
        assert view.successor_of_slot(slot) == without[owner][slot] != owner
    assert view._without == without


def test_a_single_member_has_no_successor() -> None:
    """Without its owner a ring of one has nobody."""
    assert RingView.build("demo", 7, [N1]).successor_of_slot(0) == NOBODY


def test_nobody_has_no_successor() -> None:
    """In a ring in which all drain nobody owns, and nobody follows."""
    view = RingView.build("demo", 7, [replace(N1, state="draining")])
    assert view.owner("alice") == view.successor_of_slot(0) == NOBODY


@pytest.mark.parametrize(
    "change",
    [
        {"name": "n9"},
        {"incarnation": "i9"},
        {"edge": "127.0.0.1:9"},
        {"peer": "127.0.0.1:9"},
        {"api": "127.0.0.1:9"},
        {"weight": 9},
        {"state": "draining"},
    ],
)
def test_the_members_hash_covers_what_nodes_must_agree_on(change: dict[str, object]) -> None:
    """Each of these differs: another hash."""
    assert members_hash([N1, N2]) != members_hash([replace(N1, **change), N2])


def test_the_members_hash_ignores_order_and_release() -> None:
    """During a rolling upgrade nodes of two releases agree on the members."""
    assert members_hash([N1, N2]) == members_hash([N2, replace(N1, version="2.0")])
    assert members_hash([]) == 0
    assert 0 < members_hash([N1]) < 1 << 48
