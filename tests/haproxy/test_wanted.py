"""What HAProxy should have of a ring."""

import pytest

from ring.cluster.view import Member, RingView
from ring.haproxy.wanted import EPOCH, Server, rows, wanted
from ring.protocol.names import SLOTS


def view(*states: str, epoch: int = 5) -> RingView:
    """A ring of n1, n2, … in these states."""
    members = [
        Member(f"n{n}", "1", f"10.0.0.{n}:8001", "", f"10.0.0.{n}:7001", 1, state, "1")  # type: ignore[arg-type] # as the test says
        for n, state in enumerate(states, 1)
    ]
    return RingView.build("test", epoch, members)


def test_each_slot_has_its_owner_and_who_owns_next() -> None:
    """As the ring has them, in this order."""
    ring = view("up", "up", "up")
    found = wanted(ring)
    assert found.servers["n2"] == Server("10.0.0.2:8001", "10.0.0.2:7001")
    assert (found.epoch, len(found.slots)) == (5, SLOTS)
    for slot in range(0, SLOTS, 97):
        assert found.slots[slot] == (ring.owner_of_slot(slot), ring.successor_of_slot(slot))


def test_who_drains_gets_nobody() -> None:
    """It is no server; others own its slots by now."""
    found = wanted(view("up", "draining"))
    assert found.servers.keys() == {"n1"}
    assert set(found.slots) == {("n1",)}


@pytest.mark.parametrize("states", [(), ("draining",)])
def test_a_ring_of_nobody(states: tuple[str, ...]) -> None:
    """Nobody takes clients."""
    found = wanted(view(*states))
    assert found.servers == {}
    assert set(found.slots) == {()}


def test_the_rows_of_the_map() -> None:
    """Slots by the servers that nodes have in HAProxy; a node without one is left out."""
    found = wanted(view("up", "up"))
    both = dict(rows(found, {"n1": "p1", "n2": "p2"}))
    assert both.pop(EPOCH) == "5"
    assert set(both.values()) == {"p1:p2", "p2:p1"}
    assert sorted(map(int, both)) == list(range(SLOTS))
    one = dict(rows(found, {"n2": "p2"}))
    assert set(one.values()) == {"5", "p2"}
    assert rows(found, {}) == [(EPOCH, "5")]
