"""A node that stood still beyond its lease, and took messages before it knew that it was replaced."""

import pytest

from tests.router.simulated_client import Client
from tests.router.simulation import Cluster
from tests.router.test_transition import finish, populated


def stand_still(cluster: Cluster, name: str) -> list[Client]:
    """The others go on without the node, and serve its users; it notices nothing of that.

    Returns the clients of other nodes whose users it owned.
    """
    assert cluster.view is not None
    node, member = cluster.nodes.pop(name), cluster._members.pop(name)
    owned = [
        one
        for one in cluster.clients
        if cluster.view.owner(one.user) == name and one.session is not None and one.session.node is not node
    ]
    for other in cluster.nodes.values():
        other.attachments.link_down(other.links.pop(name))  # type: ignore[arg-type] # of the simulation
    cluster.change()
    cluster.settle()
    senders = [one for one in cluster.clients if one.session is not None and one.session.node is not node]
    for one in owned:
        for sender in senders:
            cluster.send(sender, one.user)
    cluster.settle()
    cluster.nodes[name], cluster._members[name] = node, member
    return owned


@pytest.mark.parametrize("seed", range(25))
def test_what_it_took_too_late_is_not_acknowledged_by_what_others_sent(seed: int) -> None:
    """Its numbers lie before those that the sessions have had since: all the same they get it."""
    cluster = populated(seed, nodes=3)
    owned = stand_still(cluster, "n0")
    node = cluster.nodes["n0"]
    senders = [one for one in cluster.clients if one.session is not None and one.session.node is node]
    late = set()
    for one in owned:
        for sender in senders:
            cluster.send(sender, one.user)
            late.add(cluster.order[-1][0])
    # It learns that its links have gone, and joins again.
    for name in list(node.links):
        node.attachments.link_down(node.links.pop(name))  # type: ignore[arg-type] # of the simulation
    cluster.change()
    finish(cluster)

    for message_id, sender in cluster.order:
        to = cluster.sent[message_id].to
        got = [message.id for one in cluster.clients if one.user == to for message in one.got]
        (fate,) = sender.receipts[message_id]
        if fate[0] == "delivered":
            assert message_id in got
        if message_id in late:
            assert fate[0] == "delivered"
