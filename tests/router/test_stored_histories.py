"""Stored mailboxes amid joins, drains, crashes, cuts, frozen nodes and a Redis that goes or forgets.

A soak: `RING_HISTORIES=20000 pytest tests/router/test_stored_histories.py`, for so many histories of a kind.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ring.mailbox import mailbox
from ring.mailbox.vault import Push
from tests.router.histories import CALM, FAULTY, FORGETFUL, PLANNED, USERS, History, Step, thaw
from tests.router.regressions import REGRESSIONS
from tests.router.simulated_link import Link
from tests.router.simulated_redis import Carrier
from tests.router.simulation import Node

WINDOW, PAGE, HISTORY = 3, 6, 12  # small, so that they are met; a page is two windows, as it is in earnest

many = settings(
    max_examples=int(os.environ.get("RING_HISTORIES", "70")),
    deadline=None,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module", autouse=True)
def small_mailboxes() -> Iterator[None]:
    """Windows and histories that a few messages fill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mailbox, "WINDOW_LETTERS", WINDOW)
        patch.setattr(mailbox, "HISTORY_LETTERS", HISTORY)
        yield


def histories(weights: dict[str, int]) -> st.SearchStrategy[list[Step]]:
    """Steps in any order, some more often than others."""
    names = st.sampled_from([name for name, weight in weights.items() for _ in range(weight)])
    step = st.tuples(names, st.integers(0, 2**20))
    return st.integers(10, 200).flatmap(lambda count: st.lists(step, min_size=count, max_size=count))


def healthy(nodes: int, steps: list[Step]) -> None:
    """Nothing is lost, doubled or reordered, and nothing fails, but for what a `ttl_s` ends."""
    history = History.begin(nodes=nodes, healthy=True, page_letters=PAGE)
    history.run(steps)
    history.heal()
    history.check_answers()
    history.check_doubles()
    history.check_order()
    history.check_once()
    history.check_store()


def faulty(nodes: int, steps: list[Step], letters: int = 1000) -> None:
    """No answer lies, what comes twice says so, and nothing stays behind in Redis."""
    history = History.begin(nodes=nodes, letters=letters, page_letters=PAGE)
    history.run(steps)
    history.heal()
    history.check_answers()
    history.check_doubles()
    history.check_store()


def forgetful(nodes: int, steps: list[Step]) -> None:
    """Of what was sent after Redis forgot no answer lies; what stays behind goes when its user comes next."""
    history = History.begin(nodes=nodes, page_letters=PAGE)
    history.run(steps)
    history.heal()
    history.come_back()
    history.check_answers()
    history.check_doubles()
    history.check_store()


@many
@given(st.integers(1, 4), histories(CALM))
def test_users_who_come_and_go(nodes: int, steps: list[Step]) -> None:
    """Some are away, some read slowly or do not acknowledge: all that was sent to them arrives, in order."""
    healthy(nodes, steps)


@many
@given(st.integers(1, 4), histories(PLANNED))
def test_planned_changes(nodes: int, steps: list[Step]) -> None:
    """Joins and drains, at any moment of what is stored, read and removed: likewise."""
    healthy(nodes, steps)


@many
@given(st.integers(1, 4), st.sampled_from([1000, 1000, 4]), histories(FAULTY))
def test_faults(nodes: int, letters: int, steps: list[Step]) -> None:
    """Nodes die, stand still and go on behind their successors' backs, links break, Redis goes and comes."""
    faulty(nodes, steps, letters)


@many
@given(st.integers(1, 4), histories(FORGETFUL))
def test_a_redis_that_forgets(nodes: int, steps: list[Step]) -> None:
    """It is emptied, rolled back, or reads late what a broken connection left."""
    forgetful(nodes, steps)


@pytest.mark.parametrize("about", REGRESSIONS)
def test_what_was_broken_once(about: str) -> None:
    """Histories that were found so: small, and rare among random ones."""
    kind, nodes, steps = REGRESSIONS[about]
    {"healthy": healthy, "faulty": faulty, "forgetful": forgetful}[kind](nodes, steps)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 2**20), min_size=30, max_size=60))
def test_redis_is_not_asked_while_all_are_there(nodes: int, numbers: list[int]) -> None:
    """Who is online and acknowledges costs Redis nothing, however many messages there are."""
    history = History.begin(nodes=nodes, healthy=True)
    asked = len(history.redis.jobs)
    for number in numbers:
        history.run([("send", number)])
        history.cluster.settle()
        history.cluster.pass_time(0.25)
    history.pass_time(5.0)
    assert len(history.redis.jobs) == asked
    history.check_answers()


def until_it_stores(history: History, node: Node) -> None:
    """Things happen until the node has taken letters to store, and Redis has not heard of them."""
    way = node.carrier
    assert way is not None
    while way.batch is None:
        ways: list[Link | Carrier] = [*history.cluster.live_links(), *history.cluster.carriers()]
        ways[0].step()
    assert isinstance(way.batch.jobs[0], Push)


@pytest.mark.parametrize("reached", ["before", "after"])
def test_an_owner_that_stands_still_while_it_stores(reached: str) -> None:
    """What reaches Redis before its successor reads is read; what comes later is refused, and sent again."""
    history = History.begin(nodes=2)
    cluster = history.cluster
    assert cluster.view is not None
    user = USERS[1]
    old = cluster.nodes[cluster.view.owner(user)]
    [new] = [node for node in cluster.nodes.values() if node is not old]
    bob = next(one for one in cluster.clients if one.user == user)
    alice = next(one for one in cluster.clients if one.user != user)
    for one in (bob, alice):
        cluster.leave(one, clean=True)
    cluster.attach(alice, new)
    cluster.settle()
    cluster.send(alice, user)
    until_it_stores(history, old)
    old.frozen = True
    assert old.carrier is not None
    if reached == "before":
        old.carrier.do()
    cluster.evict(old.name)
    cluster.snap(old.links[new.name], 0)
    for end in [end for end in cluster.snapped if end.here is not old]:
        cluster.notice(end)
    for _ in range(20):
        cluster.settle()
        cluster.pass_time(0.25)
    cluster.attach(bob, new)
    cluster.settle()
    if reached == "after":
        old.carrier.do()
        assert old.carrier.results == [["fenced"]]
    assert [message.from_ for message in bob.got] == [alice.user]
    thaw(old)
    history.heal()
    history.check_answers()
    history.check_store()
    assert len(bob.got) == 1
