"""Faults of Redis: restarted, emptied, stopped, rolled back, frozen."""

from random import Random

import trio

from ring.verify.effect import (
    MARGIN_S,
    Effect,
    FaultFailed,
    epoch,
    hold,
    lacks_redis,
    until_true,
)
from ring.verify.server import CALM_S
from ring.verify.site import Site

LAG_S = 1.0
"""A copy is at least so old when Redis is rolled back to it."""

DEAF_S = 0.5
"""A server that has not answered a PING by then stands still."""

SHORT_TTLS = 2.0
"""How many leases long an outage is that is not a long one."""


async def _stop(site: Site) -> None:
    await site.store.stop()
    site.note("Redis is stopped")
    await until_true(
        "cut off from Redis, all of them",
        lambda: not any(node.redis.crossings for node in site.nodes.values()),
        MARGIN_S,
    )


async def _start(site: Site) -> None:
    await site.store.start()
    site.note("Redis is back")


async def _told_again(site: Site, before: int) -> float:
    """Returns once the nodes have told Redis what it has forgotten: each time that is another epoch."""
    return await site.until(
        "in an epoch after what Redis has lost",
        lambda report: report.epoch > before,
        site.ttl_s + MARGIN_S,
        site.serving(),
    )


async def restart(site: Site, random: Random) -> Effect:
    """Stopped, and started again with its data."""
    began, pid = trio.current_time(), site.store.pid
    await _stop(site)
    await _start(site)
    if site.store.pid == pid:
        raise FaultFailed("Redis is the process that it was")
    healed = trio.current_time()
    return Effect((), f"away for {healed - began:.2f} s", began, healed)


async def empty(site: Site, random: Random) -> Effect:
    """FLUSHALL, as it runs."""
    before, began = await epoch(site), trio.current_time()
    with trio.fail_after(CALM_S):
        await site.store.flush()
    site.note("Redis is emptied")
    healed = trio.current_time()
    told_s = await _told_again(site, before)
    return Effect((), f"all nodes knew after {told_s:.2f} s", began, healed)


async def empty_restart(site: Site, random: Random) -> Effect:
    """Stopped, and started again without its data: at once, or after all leases have lapsed."""
    before, began = await epoch(site), trio.current_time()
    await _stop(site)
    site.store.empty()
    away_s = random.choice((0.0, SHORT_TTLS * site.ttl_s))
    await trio.sleep(away_s)
    await _start(site)
    healed = trio.current_time()
    told_s = await _told_again(site, before)
    return Effect((), f"away for {healed - began:.2f} s; all nodes knew {told_s:.2f} s later", began, healed)


async def stop(site: Site, random: Random, outage_s: float) -> Effect:
    """Stopped for that long, and started again with its data."""
    began = trio.current_time()
    await _stop(site)
    noticed_s = await site.until("without Redis", lacks_redis, site.ttl_s + MARGIN_S, site.serving())
    await hold(site, began + outage_s - trio.current_time(), "without Redis", lacks_redis, site.serving())
    await _start(site)
    healed = trio.current_time()
    return Effect(
        (), f"away for {healed - began:.2f} s, noticed by all after {noticed_s:.2f} s", began, healed
    )


async def roll_back(site: Site, random: Random) -> Effect:
    """Stopped, and started again with an older copy of its data, as a fail-over to a lagging replica is.

    The copy is one of now, or what was left of an earlier fault or of the beginning.
    """
    store = site.store
    if random.random() < 0.5:
        await store.copy()
    await trio.sleep_until(store.copied_at + LAG_S)
    began = trio.current_time()
    await _stop(site)
    if not store.roll_back():
        raise FaultFailed("Redis had written nothing since the copy was made")
    await _start(site)
    healed = trio.current_time()
    return Effect((), f"to a copy {began - store.copied_at:.1f} s old", began, healed)


async def freeze(site: Site, random: Random, outage_s: float) -> Effect:
    """SIGSTOP for a short time beyond the lease, or for long; SIGCONT."""
    began = trio.current_time()
    site.store.freeze()
    site.note("Redis is frozen")
    try:
        if await site.store.answers(DEAF_S):
            raise FaultFailed("a frozen Redis has answered")
        noticed_s = await site.until("without Redis", lacks_redis, site.ttl_s + MARGIN_S, site.serving())
        for_s = random.choice((SHORT_TTLS * site.ttl_s, outage_s))
        await hold(
            site, max(0.0, began + for_s - trio.current_time()), "without Redis", lacks_redis, site.serving()
        )
    finally:
        site.store.thaw()
        site.note("Redis goes on")
    healed = trio.current_time()
    return Effect((), f"for {healed - began:.2f} s, noticed by all after {noticed_s:.2f} s", began, healed)
