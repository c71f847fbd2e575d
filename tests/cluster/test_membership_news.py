"""Membership and what peers tell: views that come without the server."""

import threading
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from ring.cluster.scripts import Scripts, read_ring, set_weight
from ring.cluster.view import RingView
from ring.protocol.peer import Members
from ring.store.client import Redis
from tests.cluster.seats import KEYS, SLOW, Cluster, Seat, eventually, node


async def test_news_from_a_peer_are_entered_while_the_server_is_away(cluster: Cluster) -> None:
    """The members that a peer offers make the view; when the server is back it is told them."""
    cable = await cluster.cable()
    seat = await cluster.start(node("n1"), cable)
    cable.cut()
    epoch = seat.view.epoch + 100
    seat.heard(epoch, 1)
    seat.offer(Members(epoch, [node("n1"), node("n2")]))
    view = await seat.until_names("n1", "n2")
    assert view.epoch == epoch
    assert seat.member
    cable.mend()
    await seat.until(lambda view: view.epoch > epoch)


async def test_what_a_peer_knows_no_better_is_no_news(cluster: Cluster) -> None:
    """A frame of an earlier epoch, or of this very ring, changes nothing and makes nobody renew."""
    seat = await cluster.start(node("n1"))
    seat._urgent = trio.Event()
    seat.heard(seat.view.epoch - 1, 7)
    seat.heard(seat.view.epoch, seat.view.members_hash)
    assert seat._seen == seat.view.epoch
    assert not seat._urgent.is_set()


async def test_an_epoch_that_was_only_heard_of_is_surpassed(cluster: Cluster) -> None:
    """Nobody tells the members of a peer's higher epoch: the server then raises its own above it."""
    seat = await cluster.start(node("n1"))
    epoch = seat.view.epoch + 1000
    seat.heard(epoch, 7)
    seat.renew_soon()
    await seat.until(lambda view: view.epoch == epoch + 1)


async def test_a_node_that_has_not_joined_hears_nothing(redis_url: str) -> None:
    """Peers may talk before the first view."""
    seat = Seat(Redis.from_url(redis_url, client_name="tests"), node("n1"), ttl_s=SLOW)
    seat.heard(1, 1)
    seat.offer(Members(1, []))
    assert not seat.member


async def test_other_members_of_the_same_epoch_are_settled_by_the_server(cluster: Cluster) -> None:
    """A peer that shows another hash of this epoch makes a node renew, once; so does an offer of it."""
    redis = (await cluster.cable()).redis
    seat = await cluster.start(node("n1"))
    await set_weight(redis, KEYS, "n1", 2)
    seat.heard(seat.view.epoch, 7)
    await seat.until(lambda view: view.members[0].weight == 2)
    await set_weight(redis, KEYS, "n1", 3)
    seat.offer(Members(seat.view.epoch, [node("n9")]))
    await seat.until(lambda view: view.members[0].weight == 3)
    epoch = seat.view.epoch
    seat.offer(Members(epoch - 1, [node("n9")]))
    assert seat._pending is None
    seat.heard(epoch, 7)
    seat._urgent = trio.Event()
    seat.heard(epoch, 7)
    assert not seat._urgent.is_set()


async def test_a_node_that_misses_itself_in_an_offer_joins_again(cluster: Cluster) -> None:
    """It was evicted and learns it from a peer first: it owns nothing until it is back."""
    redis = (await cluster.cable()).redis
    seat = await cluster.start(node("n1"))
    await cluster.start(node("n2"))
    await Scripts(redis, KEYS).leave(node("n1"), 0)
    reading = await read_ring(redis, KEYS)
    seat.offer(Members(reading.view.epoch, list(reading.view.members)))
    without = await seat.until_names("n2")
    assert without.epoch == reading.view.epoch
    assert not seat.member
    await seat.until_names("n1", "n2")
    assert seat.member


async def test_another_incarnations_slots_are_not_owned(cluster: Cluster) -> None:
    """A view with this node's name for another node says that this one has been replaced."""
    cable = await cluster.cable()
    seat = await cluster.start(node("n1"), cable)
    cable.cut()
    seat.offer(Members(seat.view.epoch + 1, [replace(node("n1", "i2"), weight=9)]))
    await seat.until(lambda view: view.members[0].incarnation == "i2")
    assert not seat.member
    assert seat._me.weight == 1


async def test_only_the_newest_members_are_entered(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is overtaken while its table is computed is skipped."""
    cable = await cluster.cable()
    seat = await cluster.start(node("n1"), cable)
    cable.cut()
    epoch = seat.view.epoch
    started, go_on = threading.Event(), threading.Event()
    real = RingView.build

    def build(cluster: str, epoch: int, members: Any, *, previous: int) -> RingView:
        started.set()
        assert go_on.wait(5)
        return real(cluster, epoch, members, previous=previous)

    monkeypatch.setattr(RingView, "build", build)
    seat.offer(Members(epoch + 1, [node("n1"), node("n2")]))
    await eventually(started.is_set)
    seat.offer(Members(epoch + 3, [node("n1"), node("n3")]))
    seat.offer(Members(epoch + 2, [node("n1"), node("n4")]))
    go_on.set()
    await seat.until_names("n1", "n3")
    assert [view.epoch for view in seat.views] == [epoch, epoch + 3]
