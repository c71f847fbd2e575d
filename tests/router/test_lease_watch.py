"""Asking the peers about a lease that lapses, and answering them."""

from typing import Any, cast

import pytest

from ring.cluster.lease import Outcome, Standing
from ring.protocol import peer
from ring.router.lease_watch import LeaseWatch
from tests.router.node import Node


class Watched:
    """A node whose lease is watched; it was renewed at 100, by a clock that stands at 100."""

    def __init__(self) -> None:
        self.node = Node()
        self.now = 100.0
        self.renewed_at = 100.0
        self.run_s = 60.0
        self.dials: dict[str, Outcome | None] = {}
        self.outpaced = False
        self.standings: list[Standing] = []
        self.watch = LeaseWatch(
            self.node.routing,
            self.node.wheel,
            ttl_s=3.0,
            dial_outcome=self.dials.get,
            outpaced=lambda: self.outpaced,
            on_standing=self.standings.append,
            clock=lambda: self.now,
        )
        for link in self.node.links.values():
            link.said()

    def asked(self) -> list[str]:
        """Who was asked since this was last looked at."""
        return [name for name, link in self.node.links.items() if link.said(peer.LeaseAsked)]

    def pass_time(self, seconds: float) -> None:
        """Time goes by without a tick but for the wheel's."""
        self.now += seconds
        self.node.pass_time(seconds)


@pytest.fixture
def watched() -> Watched:
    """Watched from the beginning of its lease."""
    watched = Watched()
    watched.watch.watch(cast("Any", watched))
    return watched


def test_nobody_is_asked_while_the_lease_is_renewed(watched: Watched) -> None:
    """A tick costs a look at the clock."""
    for _ in range(10):
        watched.pass_time(1.0)
        watched.renewed_at = watched.now
        watched.watch.check()
        watched.watch.look()
    assert watched.asked() == []
    assert watched.standings == []
    assert watched.watch.standing == "held"


def test_peers_are_asked_before_the_lease_lapses(watched: Watched) -> None:
    """Their answers are there in time, so nothing stops where the ring is frozen."""
    watched.pass_time(2.69)
    assert watched.asked() == []
    watched.pass_time(0.02)
    assert watched.asked() == ["n2", "n3"]
    watched.node.says("n2", peer.Lease(2300, 60_000))
    assert watched.standings == []
    watched.pass_time(0.31)
    assert watched.standings == ["frozen"]
    watched.renewed_at = watched.now
    watched.pass_time(0.31)
    assert watched.standings == ["frozen", "held"]


def test_an_answer_is_acted_upon_at_once(watched: Watched) -> None:
    """Nobody has answered when the lease lapses; then somebody does."""
    watched.pass_time(3.01)
    assert watched.standings == ["unsure"]
    watched.node.says("n3", peer.Lease(200, 60_000))
    assert watched.standings == ["unsure", "superseded"]


def test_a_node_that_stood_still_knows_at_the_first_tick(watched: Watched) -> None:
    """Whatever task runs first: no message is handled as if nothing had happened."""
    watched.now += 60.0
    watched.watch.check()
    assert watched.standings == ["unsure"]
    assert watched.asked() == ["n2", "n3"]
    watched.watch.check()
    assert watched.asked() == []


def test_a_peer_of_the_previous_release_is_not_asked(watched: Watched) -> None:
    """It could not read the question."""
    for link in watched.node.links.values():
        link.version = 1
    watched.pass_time(3.01)
    assert watched.asked() == []
    assert watched.standings == ["frozen"]


def test_a_link_that_shows_a_later_ring_is_enough(watched: Watched) -> None:
    """The peers have removed this node already."""
    watched.node.links["n2"].epoch = 9
    watched.pass_time(3.01)
    assert watched.standings == ["superseded"]


def test_a_peer_that_refuses_and_shows_a_later_ring_is_enough(watched: Watched) -> None:
    """Another life of this node may be in that: this one must not take the refusals for deaths, and own."""
    watched.node.links.clear()
    watched.dials.update(n2="refused_by_peer", n3="refused_by_peer")
    watched.outpaced = True
    watched.pass_time(3.01)
    assert watched.standings == ["superseded"]


def test_a_new_link_owes_nothing(watched: Watched) -> None:
    """What was asked on an earlier link was lost with it: no silence, and no reason to send clients away."""
    watched.pass_time(3.01)
    assert watched.standings == ["unsure"]
    lost = dict(watched.node.links)
    watched.node.links.clear()
    watched.pass_time(1.4)
    watched.node.links.update(lost)
    for link in lost.values():
        watched.watch.link_up(cast("Any", link))
    watched.pass_time(0.4)
    assert watched.asked() == ["n2", "n3"]
    assert watched.standings == ["unsure"]
    watched.pass_time(1.5)
    assert watched.standings == ["unsure", "isolated"]


def test_who_is_not_linked_counts_by_its_dial(watched: Watched) -> None:
    """Nobody can be reached."""
    watched.node.links.clear()
    watched.dials.update(n2="timeout", n3="refused")
    watched.pass_time(3.01)
    assert watched.standings == ["isolated"]


def test_questions_are_answered() -> None:
    """With the age of the lease and the length of the run; not before there is a lease."""
    watched = Watched()
    watched.watch.look()
    watched.node.says("n2", peer.LeaseAsked())
    assert watched.node.links["n2"].said(peer.Lease) == []
    watched.watch.watch(cast("Any", watched))
    watched.now += 1.5
    watched.node.says("n2", peer.LeaseAsked())
    assert watched.node.links["n2"].said(peer.Lease) == [peer.Lease(1500, 60_000)]


def test_before_the_first_ring_there_are_no_peers(watched: Watched) -> None:
    """A lease without a view: nobody can have taken anything."""
    watched.node.routing.view = None
    watched.node.links.clear()
    watched.pass_time(3.01)
    assert watched.standings == ["frozen"]
