"""Membership when nodes or the server fail, forget or differ."""

from typing import Any

import pytest
import trio
from msgspec.structs import replace
from structlog.testing import capture_logs

from ring.cluster.scripts import Answer, Scripts, set_weight
from ring.cluster.view import RingView
from ring.protocol.codes import RingError
from ring.store.connection import StoreUnavailable
from ring.store.embedded import EmbeddedServer
from tests.cluster.seats import KEYS, QUICK, SLOW, Cluster, Seat, agree, eventually, node


async def test_a_node_whose_name_was_taken_over_stops(cluster: Cluster) -> None:
    """It was cut off for more than a ttl; when it is back, another incarnation has its name."""
    cable = await cluster.cable()
    old = Seat(cable.redis, node("n1"), ttl_s=QUICK)

    async def take_over() -> None:
        await old.until_names("n1")
        cable.cut()
        await cluster.start(node("n1", "i2"), ttl_s=QUICK)
        cable.mend()

    cluster.nursery.start_soon(take_over)
    with (
        pytest.raises(RingError, match="another node took over the name n1 in cluster demo"),
        trio.fail_after(5),
    ):
        await old.run()


async def test_an_evicted_node_joins_again(cluster: Cluster) -> None:
    """Cut off for more than a ttl, its name still free: it is back with a higher epoch and its weight."""
    cable = await cluster.cable()
    first = await cluster.start(node("n1"), cable, QUICK)
    second = await cluster.start(node("n2"), ttl_s=QUICK)
    await set_weight((await cluster.cable()).redis, KEYS, "n1", 3)
    await first.until(lambda view: view.names == ("n1", "n2") and view.members[0].weight == 3)
    cable.cut()
    await second.until_names("n2")
    epoch = second.view.epoch
    assert first.member  # the ring is frozen for it
    cable.mend()
    view = await first.until(lambda view: view.epoch > epoch)
    assert view.members[0] == replace(node("n1"), weight=3)
    assert first.member


async def test_an_emptied_server_does_not_move_the_ring(cluster: Cluster) -> None:
    """The nodes tell it what it forgot; the epoch rises, the members and so the owners stay."""
    first = await cluster.start(node("n1"))
    second = await cluster.start(node("n2"))
    before = await agree(first, second)
    await (await cluster.cable()).redis.flushall()
    first.renew_soon()
    await first.until(lambda view: view.epoch > before.epoch)
    after = await agree(first, second)
    assert after.members == before.members
    assert after.owners == before.owners
    assert all(view.members == before.members for view in first.views[first.views.index(before) :])


async def test_only_one_node_restores_what_was_forgotten(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second sees that the server is ahead, and takes the members from it."""
    seat = await cluster.start(node("n1"))
    epoch = seat.view.epoch
    real = seat._scripts.restore

    async def beaten(*args: Any) -> Any:
        await real(*args)
        return await real(*args)

    monkeypatch.setattr(seat._scripts, "restore", beaten)
    await (await cluster.cable()).redis.flushall()
    seat.renew_soon()
    await seat.until(lambda view: view.epoch > epoch)


async def test_a_table_that_differs_is_an_alarm(cluster: Cluster) -> None:
    """The node is told to give up its slots; that it stays a member tells the others that it lives."""
    redis = (await cluster.cable()).redis
    seat = await cluster.start(node("n1"))
    await eventually(lambda: seat._compared == seat.view.epoch)  # else it may yet write a table of its own
    assert not seat.disagreed.is_set()
    epoch = 2_000_000_000
    await redis.hset(KEYS.table, mapping={"epoch": epoch, "hash": "other", "data": b""})
    await redis.hset(KEYS.epoch, "epoch", epoch)
    with capture_logs() as logs:
        seat.renew_soon()
        with trio.fail_after(5):
            await seat.disagreed.wait()
    assert [log["log_level"] for log in logs if log["event"].startswith("table mismatch")] == ["error"]
    await cluster.start(node("n2"))
    seat.renew_soon()
    await seat.until_names("n1", "n2")


async def test_a_table_is_compared_in_its_own_epoch_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ring changed between renewing and comparing: that epoch's table is of no interest any more."""
    redis = (await cluster.cable()).redis
    seat = await cluster.start(node("n1"))
    await eventually(lambda: seat._compared == seat.view.epoch)
    real = seat._scripts.table
    answers: list[Answer] = []

    async def late(view: RingView) -> Any:
        if not answers:
            await set_weight(redis, KEYS, "n1", 5)
        answers.append(await real(view))
        return answers[-1]

    monkeypatch.setattr(seat._scripts, "table", late)
    await set_weight(redis, KEYS, "n1", 4)
    seat.renew_soon()
    await eventually(lambda: bool(answers))
    seat.renew_soon()
    await seat.until(lambda view: view.members[0].weight == 5)
    await eventually(lambda: [answer.status for answer in answers] == ["stale", "written"])


async def test_joining_again_never_waits_for_a_name(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evicted, and the name was taken between the renewal and the join: the node stops."""
    redis = (await cluster.cable()).redis
    seat = Seat(redis, node("n1"), ttl_s=SLOW)
    scripts = Scripts(redis, KEYS, ttl_ms=round(SLOW * 1000))
    real = seat._scripts.join

    async def overtaken(*args: Any) -> Any:
        if seat.views:
            await scripts.join(node("n1", "i2"), 0)
        return await real(*args)

    monkeypatch.setattr(seat._scripts, "join", overtaken)

    async def evict() -> None:
        await seat.until_names("n1")
        await scripts.leave(node("n1"), 0)
        seat.renew_soon()

    cluster.nursery.start_soon(evict)
    with pytest.raises(RingError, match="another node took over"), trio.fail_after(5):
        await seat.run()


async def test_a_server_that_refuses_writes_is_tried_again(cluster: Cluster) -> None:
    """Out of memory: joining and renewing go on, and the log says so once."""
    async with EmbeddedServer() as server:
        other = Cluster(server.url, cluster.nursery)
        redis = (await other.cable()).redis
        seat = Seat((await other.cable()).redis, node("n1"), ttl_s=QUICK)
        with capture_logs() as logs:
            await redis.config_set("maxmemory", 1)
            cluster.nursery.start_soon(seat.sit)
            await eventually(lambda: any(log["event"] == "waiting to join" for log in logs))
            await redis.config_set("maxmemory", 0)
            await seat.until_names("n1")
            await redis.config_set("maxmemory", 1)
            await eventually(lambda: seat.lease_age_s > 2 * QUICK)
            await redis.config_set("maxmemory", 0)
            await eventually(lambda: seat.lease_age_s < QUICK)
        failures = [log["reason"] for log in logs if log["event"] == "the lease cannot be renewed"]
        assert len(failures) == 1
        assert "OOM" in failures[0]
        assert seat.views == [seat.view]


async def test_leaving_goes_on_trying(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown outcome is no goodbye: it is said again."""
    seat = await cluster.start(node("n1"), ttl_s=QUICK)
    redis = (await cluster.cable()).redis
    real, failures = seat._scripts.leave, 2

    async def leave(*args: Any) -> Answer:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StoreUnavailable("the connection broke")
        return await real(*args)

    monkeypatch.setattr(seat._scripts, "leave", leave)
    await seat.leave()
    assert not await redis.exists(KEYS.members)


async def test_a_server_error_does_not_end_a_member(cluster: Cluster) -> None:
    """An error that nobody foresaw leaves the node in the ring that it has, and trying."""
    redis = (await cluster.cable()).redis
    seat = await cluster.start(node("n1"), ttl_s=QUICK)
    await redis.rename(KEYS.leases, "aside")
    await redis.set(KEYS.leases, "not a sorted set")
    await eventually(lambda: seat.lease_age_s > QUICK)
    assert seat.member
    await redis.rename("aside", KEYS.leases)
    await eventually(lambda: seat.lease_age_s < QUICK / 2)


async def test_a_run_of_renewals_begins_anew_after_a_lapse(cluster: Cluster) -> None:
    """Peers ask for it: who renews first after an outage has not gone on renewing."""
    now = 100.0
    cable = await cluster.cable()
    seat = await cluster.start(node("n1"), cable, ttl_s=SLOW, clock=lambda: now)
    await eventually(lambda: seat._compared == seat.view.epoch)
    for later, run_s in ((SLOW - 1, SLOW - 1), (SLOW, 0), (1, 1)):
        now += later
        seat.renew_soon()
        await eventually(lambda: seat.lease_age_s == 0)
        assert seat.run_s == run_s
