"""Ring changes in a cluster in memory: what section "What is promised" of docs/architecture.md says."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.router.simulated_client import Client
from tests.router.simulation import Cluster

USERS = [f"u{i}" for i in range(8)]


def populated(seed: int, nodes: int) -> Cluster:
    """A cluster in which every user has a client on some node, and user 0 two."""
    cluster = Cluster(seed)
    cluster.clients = [Client(user, "d") for user in USERS]
    cluster.clients.append(Client(USERS[0], "second"))
    for index in range(nodes):
        cluster.start(f"n{index}")
    cluster.settle()
    for one in cluster.clients:
        cluster.reconnect(one)
    cluster.settle()
    # So that nobody is called new by what follows: the first epochs' waiting is over.
    for _ in range(60):
        cluster.pass_time(0.05)
        cluster.settle()
    return cluster


def step(cluster: Cluster) -> None:
    """One thing happens that may happen in a healthy network."""
    choice = cluster.random.random()
    links = cluster.live_links()
    if choice < 0.25:
        sender = cluster.random.choice([one for one in cluster.clients if one.session is not None])
        cluster.send(sender, cluster.random.choice([user for user in USERS if user != sender.user]))
    elif choice < 0.80 and links:
        cluster.random.choice(links).step()
    elif choice < 0.92:
        one = cluster.random.choice(cluster.clients)
        if one.session is not None:
            one.session.acknowledge()
    elif behind := cluster.behind():
        node = cluster.random.choice(behind)
        assert cluster.view is not None
        node.enter(cluster.view)


def steps(cluster: Cluster, count: int) -> None:
    """Some things happen."""
    for _ in range(count):
        if any(one.session for one in cluster.clients):
            step(cluster)


def lose(cluster: Cluster, victim: str) -> None:
    """A node dies, its clients come back elsewhere, and the ring goes on without it."""
    cluster.kill(victim)
    steps(cluster, cluster.random.randrange(30))
    for one in cluster.clients:
        if one.session is None:
            cluster.reconnect(one)
    cluster.evict(victim)


def finish(cluster: Cluster, seconds: float = 13.0) -> None:
    """Everything arrives, and everything that waits for a time-out gets it."""
    cluster.settle()
    for _ in range(round(seconds / 0.25)):
        cluster.pass_time(0.25)
        cluster.settle()


def pairs_in_order(cluster: Cluster, one: Client, *, first_sight: bool) -> None:
    """Messages of one sender come in the order of their sending."""
    position = {message_id: index for index, (message_id, _) in enumerate(cluster.order)}
    sender = dict(cluster.order)
    seen: set[str | None] = set()
    last: dict[Client, int] = {}
    for message in one.got:
        if first_sight and message.id in seen:
            continue
        seen.add(message.id)
        assert message.id is not None
        at = position[message.id]
        by = sender[message.id]
        assert at > last.get(by, -1), f"{message.id} came after a later message of {by.user}"
        last[by] = at


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 4))
def test_planned_changes_lose_double_and_reorder_nothing(seed: int, nodes: int) -> None:
    """Joins and drains amid traffic: every session gets every message of its user once, in order; all
    delivered."""
    cluster = populated(seed, nodes)
    joined = nodes
    for _ in range(cluster.random.randrange(1, 5)):
        steps(cluster, cluster.random.randrange(10, 60))
        up = [name for name, member in cluster._members.items() if member.state == "up"]
        if len(up) > 1 and cluster.random.random() < 0.5:
            cluster.drain(cluster.random.choice(up))
        else:
            cluster.start(f"n{joined}")
            joined += 1
        steps(cluster, cluster.random.randrange(40))
    moving = sum(len(node.routing.held) + len(node.routing.losing) for node in cluster.nodes.values())
    cluster.settle()
    finish(cluster)
    assert cluster.sent
    for one in cluster.clients:
        due = Counter(send.id for send in cluster.sent.values() if send.to == one.user)
        assert Counter(message.id for message in one.got) == due, moving
        pairs_in_order(cluster, one, first_sight=False)
        assert not any(message.redelivered is True for message in one.got)
        mine = {m for m, send in cluster.sent.items() if send.sender == one.user}
        assert all(receipts == [("delivered", None)] for receipts in one.receipts.values())
        assert not one.unanswered
        assert set(one.receipts) <= mine


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 5))
def test_crashes_and_cuts_lose_nothing_that_was_receipted(seed: int, nodes: int) -> None:
    """Nodes die and links break with messages in flight: every send is answered once, and no answer lies."""
    cluster = populated(seed, nodes)
    for _ in range(3):
        steps(cluster, cluster.random.randrange(10, 60))
        alive = list(cluster.nodes)
        if len(alive) > 2 and cluster.random.random() < 0.6:
            lose(cluster, cluster.random.choice(alive))
        elif len(alive) > 1:
            here, there = cluster.random.sample(alive, 2)
            if there in cluster.nodes[here].links:
                cluster.cut(cluster.nodes[here], cluster.nodes[there])
        steps(cluster, cluster.random.randrange(40))
    finish(cluster)
    arrived: dict[str | None, set[str]] = {}
    for one in cluster.clients:
        doubles_say_so(one)
        for message in one.got:
            arrived.setdefault(message.id, set()).add(one.user)
    for one in cluster.clients:
        assert not one.unanswered
        for message_id, receipts in one.receipts.items():
            assert len(receipts) == 1
            if receipts[0][0] == "delivered":
                assert cluster.sent[message_id].to in arrived.get(message_id, set())


def doubles_say_so(one: Client) -> None:
    """Of what comes twice at least one is marked: not always the second, which may be the first, delayed."""
    copies: dict[str | None, list[bool]] = {}
    for message in one.got:
        copies.setdefault(message.id, []).append(message.redelivered is True)
    assert all(len(marks) - sum(marks) <= 1 for marks in copies.values())


@pytest.mark.parametrize("seed", range(5))
def test_a_restarted_name_is_known_by_its_incarnation(seed: int) -> None:
    """A node comes back under its name with nothing in memory: its peers tell it again what it had."""
    cluster = populated(seed, 3)
    steps(cluster, 80)
    cluster.kill("n1")
    for one in cluster.clients:
        if one.session is None:
            cluster.reconnect(one)
    cluster.start("n1")
    steps(cluster, 80)
    finish(cluster)
    for one in cluster.clients:
        assert not one.unanswered
        assert all(len(receipts) == 1 for receipts in one.receipts.values())
