"""Membership against a real server: joining, draining, leaving, names."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from ring.cluster.membership import Membership, boottime, check_node_name
from ring.cluster.scripts import Answer, Scripts, read_ring
from ring.cluster.view import Member, RingView
from ring.protocol.codes import BadRequest, RingError
from ring.protocol.names import SLOTS
from ring.protocol.peer import Members
from ring.store.client import Redis
from ring.store.connection import StoreUnavailable
from tests.cluster.seats import KEYS, QUICK, SLOW, Cluster, Seat, agree, connected, eventually, node


async def test_a_node_that_joined_owns_the_ring(cluster: Cluster) -> None:
    """It is started with its first view, which on_view got too, and its lease is fresh."""
    seat = await cluster.start(node("n1"))
    assert seat.views == [seat.view]
    assert seat.view.shares() == {"n1": SLOTS}
    assert seat.member
    assert 0 <= seat.lease_age_s < 5
    assert seat.document() == Members(seat.view.epoch, [node("n1")])


async def test_the_lease_counts_from_before_joining(redis_url: str) -> None:
    """Not from when the node was made, nor from when the answer came."""
    now = 0.0
    ages = []

    class Slow(Scripts):
        async def join(self, me: Member, seen: int) -> Answer:
            nonlocal now
            answer = await super().join(me, seen)
            now += 0.5
            return answer

    async with connected(redis_url) as redis:
        membership = Membership(
            redis, KEYS, node("n1"), on_view=lambda _: ages.append(membership.lease_age_s), clock=lambda: now
        )
        membership._scripts = Slow(redis, KEYS, ttl_ms=3000)
        now = 100.0
        async with trio.open_nursery() as nursery:
            await nursery.start(membership.run)
            nursery.cancel_scope.cancel()
    assert ages == [0.5]


async def test_renewals_come_three_times_a_ttl_and_sooner_after_a_failure(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A ttl of 12 s: every 4 s, and every second while the server fails."""
    times: list[float] = []

    class Flaky(Scripts):
        async def join(self, me: Member, seen: int) -> Answer:
            return Answer("joined", 1, 0, (me,))

        async def renew(self, me: Member, seen: int, view: RingView) -> Answer:
            times.append(trio.current_time())
            if 3 <= len(times) <= 5:
                raise StoreUnavailable("the server is out of memory")
            return Answer("renewed")

        async def table(self, view: RingView) -> Answer:
            return Answer("written")

    redis = Redis.from_url("redis://127.0.0.1:1", client_name="tests")
    membership = Membership(redis, KEYS, node("n1"), ttl_s=12, on_view=lambda _: None)
    membership._scripts = Flaky(redis, KEYS)
    await nursery.start(membership.run)
    await trio.sleep(18)
    assert [round(after - before) for before, after in pairwise(times)] == [4, 4, 1, 1, 1, 4]


async def test_nodes_that_join_at_once_compute_one_table(cluster: Cluster) -> None:
    """All come to the same epoch, members and table, which Redis has too; each saw epochs rise."""
    seats = [Seat((await cluster.cable()).redis, node(f"n{number}"), ttl_s=SLOW) for number in range(1, 5)]
    for seat in seats:
        cluster.nursery.start_soon(seat.sit)
    for seat in seats:
        await seat.until(lambda _: True)
    view = await agree(*seats)
    assert view.names == ("n1", "n2", "n3", "n4")
    assert len({(seat.view.members_hash, seat.view.table_hash) for seat in seats}) == 1
    redis = (await cluster.cable()).redis

    async def told() -> bool:
        return await redis.hget(KEYS.table, "epoch") == b"%d" % view.epoch

    await eventually(told)
    reading = await read_ring(redis, KEYS)
    assert (reading.view.table_hash, reading.view.epoch) == (view.table_hash, view.epoch)
    assert set(reading.renewed_s) == {"n1", "n2", "n3", "n4"}
    for seat in seats:
        epochs = [each.epoch for each in seat.views]
        assert epochs == sorted(set(epochs))
        assert seat.member


async def test_a_node_that_leaves_is_gone_at_once(cluster: Cluster) -> None:
    """The others need no lease to lapse, and a node of the same name may join."""
    first = await cluster.start(node("n1"))
    second = await cluster.start(node("n2"))
    await second.leave()
    first.renew_soon()
    await first.until_names("n1")
    third = await cluster.start(node("n2", "i2"))
    assert third.view.names == ("n1", "n2")


async def test_a_node_that_dies_is_evicted_by_the_others(cluster: Cluster) -> None:
    """Its lease lapses; nobody has to be told."""
    first = await cluster.start(node("n1"), ttl_s=QUICK)
    second = await cluster.start(node("n2"), ttl_s=QUICK)
    await first.until_names("n1", "n2")
    second.scope.cancel()
    await first.until_names("n1")


async def test_draining_gives_up_all_slots(cluster: Cluster) -> None:
    """drain() returns when this node owns nothing; when all drain nobody owns."""
    first = await cluster.start(node("n1"))
    second = await cluster.start(node("n2"))
    await agree(first, second)
    await first.drain()
    assert first.view.shares() == {"n1": 0, "n2": SLOTS}
    await agree(first, second)
    await second.drain()
    assert second.view.shares() == {"n1": 0, "n2": 0}
    await first.drain()


async def test_a_draining_node_stays_so_whatever_the_server_says(cluster: Cluster) -> None:
    """A server that has it as `up` again, or has lost it, is told."""
    seat = await cluster.start(node("n1"))
    await eventually(lambda: seat._compared == seat.view.epoch)
    await seat.drain()
    scripts = Scripts((await cluster.cable()).redis, KEYS)
    for undo in (scripts.state, scripts.leave):
        epoch = seat.view.epoch
        await undo(node("n1"), 0)
        seat.renew_soon()
        await seat.until(_drains_after(epoch))


def _drains_after(epoch: int) -> Callable[[RingView], bool]:
    return lambda view: view.epoch > epoch and view.members[0].state == "draining"


async def test_a_name_is_taken_over_when_its_node_is_dead(cluster: Cluster) -> None:
    """kill -9 and a restart: joining waits for the old incarnation's lease, says so once, and succeeds."""
    old = await cluster.start(node("n1"), ttl_s=QUICK)
    old.scope.cancel()
    with capture_logs() as logs:
        new = await cluster.start(node("n1", "i2"), ttl_s=QUICK)
    assert new.view.epoch > old.view.epoch
    assert new.view.member("n1") == node("n1", "i2")
    reasons = [log["reason"] for log in logs if log["event"] == "waiting to join"]
    assert reasons == ["a live node has this name"]


async def test_a_live_nodes_name_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the first one renews, the second one waits; once it has left, the second one joins."""
    old = await cluster.start(node("n1"), ttl_s=1.0)
    new = Seat((await cluster.cable()).redis, node("n1", "i2"), ttl_s=1.0)
    cluster.nursery.start_soon(new.sit)
    renewals = 0
    real = old._scripts.renew

    async def count(*args: Any) -> Any:
        nonlocal renewals
        renewals += 1
        return await real(*args)

    monkeypatch.setattr(old._scripts, "renew", count)
    await eventually(lambda: renewals >= 4)
    assert not new.views
    assert not new.member
    await old.leave()
    assert (await new.until_names("n1")).member("n1") == node("n1", "i2")


@pytest.mark.parametrize(
    ("what", "value", "message"),
    [
        ("schema", "2", "cluster demo has schema 2, this release works with 1 to 1"),
        ("slots", "1024", "cluster demo has slots 1024, this release has 16384"),
        ("algorithm", "md4", "cluster demo has algorithm md4, this node ketama"),
        ("ttl_ms", "9", "cluster demo has ttl_ms 9, this node another lease"),
        ("secret", "x", "the nodes of cluster demo have another secret: give all the same --secret-file"),
    ],
)
async def test_a_refusal_says_what_differs(cluster: Cluster, what: str, value: str, message: str) -> None:
    """The error of run() is one line that says what to do."""
    await cluster.start(node("n1"))
    redis = (await cluster.cable()).redis
    await redis.hset(KEYS.geometry, what, value)
    with pytest.raises(RingError, match=message):
        await Seat(redis, node("n2"), ttl_s=SLOW).run()


async def test_a_node_with_another_secret_is_refused(cluster: Cluster) -> None:
    """It would own users whom no peer could reach. With the same one it joins."""
    await cluster.start(node("n1"), secret=b"one secret of many")
    with pytest.raises(RingError, match="have another secret"):
        await Seat((await cluster.cable()).redis, node("n2"), ttl_s=SLOW, secret=b"another secret").run()
    seat = await cluster.start(node("n2"), secret=b"one secret of many")
    await seat.until_names("n1", "n2")


async def test_what_on_view_raises_ends_the_run(cluster: Cluster) -> None:
    """With the first view as it is, later in the group of run's tasks; never swallowed."""

    def refuse(view: RingView) -> None:
        if view.names == refused:
            raise ValueError(view.names)

    redis = (await cluster.cable()).redis
    refused: tuple[str, ...] = ("n1",)
    with pytest.raises(ValueError, match="n1"):
        await Membership(redis, KEYS, node("n1"), ttl_s=SLOW, on_view=refuse).run()
    refused = ("n1", "n2")
    membership = Membership(redis, KEYS, node("n1"), ttl_s=SLOW, on_view=refuse)
    with pytest.RaisesGroup(pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="n2"))):
        async with trio.open_nursery() as nursery:
            await nursery.start(membership.run)
            await cluster.start(node("n2"))
            membership.renew_soon()
            await trio.sleep_forever()


async def test_a_ring_needs_names_that_haproxy_and_shells_can_say() -> None:
    """Letters, digits, dot, underscore and dash, beginning with a letter or digit."""
    for name in ("n1", "1", "a.b_c-D", "x" * 64):
        assert check_node_name(name) == name
    for name in ("", "-n", ".n", "n 1", "n:1", "n/1", "é", "n\n", "x" * 65):
        with pytest.raises(BadRequest, match="node name"):
            check_node_name(name)


async def test_the_lease_is_counted_by_a_clock_that_rises() -> None:
    """It goes on while the machine sleeps, which no test can show."""
    assert boottime() <= boottime()
