"""A node that cannot renew its lease while others can: it stops owning, and goes on as a gateway."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ring.protocol.names import SLOTS
from tests.router.node import FakeSender, Node, message
from tests.router.simulation import Cluster
from tests.router.test_transition import doubles_say_so, finish, populated, steps


def test_a_suspended_node_serves_nobody_and_loses_nothing() -> None:
    """What comes for its slots, from its own clients and from peers, waits until it may serve again."""
    node = Node(carol="n2")
    bob = node.open("bob")
    node.transition.suspend()
    node.transition.suspend()
    alice = FakeSender()
    node.send(alice, "m1", "bob")
    node.says("n2", message("m2", ref=7))
    late = node.open("bob", "tablet")
    assert bob.got == []
    assert late.welcomes == []
    assert set(node.routing.held) == {slot for slot in range(SLOTS) if node.table[slot] == "n1"}
    node.transition.resume()
    node.transition.resume()
    assert [b'"m1"' in body for body in bob.got] == [True, False]
    assert [b'"m2"' in body for body in bob.got] == [False, True]
    assert late.welcomed
    assert node.routing.held == {}


def test_before_the_first_ring_there_is_nothing_to_suspend() -> None:
    """A node that has not joined owns nothing."""
    node = Node()
    node.routing.view = None
    node.transition.suspend()
    assert node.routing.held == {}


def test_a_change_of_the_ring_does_not_end_a_suspension() -> None:
    """The barrier may be over: the lease is what the node waits for."""
    node = Node()
    bob = node.open("bob")
    node.transition.suspend()
    node.send(FakeSender(), "m1", "bob")
    node.enter(6)
    node.done(6)
    assert node.transition.settled
    assert bob.got == []
    node.transition.resume()
    assert len(bob.got) == 1


def test_a_node_that_was_removed_attaches_its_sessions_anew() -> None:
    """The members took it for dead: also owners that have not changed have let go of its sessions."""
    node = Node(carol="n2")
    carol = node.open("carol")
    first = carol.handle
    node.links["n2"].said()
    del node.members["n1"]
    node.table = ["n3" if owner == "n1" else owner for owner in node.table]
    node.enter(6)
    attached = [item for item in node.links["n2"].said() if getattr(item, "user", "") == "carol"]
    assert [item.handle for item in attached] == [carol.handle]
    assert carol.handle != first


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 5))
def test_a_node_cut_off_from_the_store_alone_loses_nothing(seed: int, nodes: int) -> None:
    """It is suspended, removed, goes on as a gateway, and joins again, amid traffic: every message arrives.

    Copies may come twice, since nobody planned it; but marked, and no answer lies.
    """
    cluster = populated(seed, nodes)
    for _ in range(cluster.random.randrange(1, 3)):
        name = cluster.random.choice(list(cluster.nodes))
        node = cluster.nodes[name]
        steps(cluster, cluster.random.randrange(10, 60))
        node.transition.suspend()
        steps(cluster, cluster.random.randrange(30))
        if cluster.random.random() < 0.7:
            removed = cluster._members.pop(name)
            cluster.change()
            steps(cluster, cluster.random.randrange(60))
            if cluster.random.random() < 0.5:
                cluster.settle()
            steps(cluster, cluster.random.randrange(30))
            cluster._members[name] = removed
            cluster.change()
        if cluster.random.random() < 0.5:
            steps(cluster, cluster.random.randrange(30))
        node.transition.resume()
        steps(cluster, cluster.random.randrange(40))
    finish(cluster)
    nothing_lost(cluster)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_a_gateway_that_owns_nothing_serves_its_clients(seed: int) -> None:
    """For as long as it is no member: what its clients send and what is sent to them arrives."""
    cluster = populated(seed, 3)
    node = cluster.nodes["n1"]
    cluster.attach(cluster.clients[0], node)
    cluster.settle()
    node.transition.suspend()
    del cluster._members["n1"]
    cluster.change()
    finish(cluster, 2.0)
    for _ in range(3):
        steps(cluster, 60)
        finish(cluster, 2.0)
    finish(cluster)
    nothing_lost(cluster)


def nothing_lost(cluster: Cluster) -> None:
    """Every message was delivered, as its receipt says: to one device at least."""
    assert cluster.sent
    arrived: dict[str, set[str | None]] = {one.user: set() for one in cluster.clients}
    for one in cluster.clients:
        doubles_say_so(one)
        assert not one.unanswered
        assert all(receipts == [("delivered", None)] for receipts in one.receipts.values())
        arrived[one.user].update(message.id for message in one.got)
    for message_id, send in cluster.sent.items():
        assert message_id in arrived[send.to]
