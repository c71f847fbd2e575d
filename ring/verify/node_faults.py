"""Faults of processes: nodes that are killed, frozen, stopped and started again."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import trio

from ring.verify.effect import (
    MARGIN_S,
    START_S,
    Effect,
    FaultFailed,
    others,
    until_true,
    victims,
    without,
)
from ring.verify.site import Site

DRAIN_S = 10.0 + MARGIN_S
"""How long a node may take to stop: the default of its drain, and then some."""

SIGNAL_S = 2.0
"""How long a signal may take to be in effect."""

SHORT = 0.4
"""Of a lease: renewed after a third of it, it does not lapse."""

LEAST_TTLS, MOST_TTLS = 0.5, 2.0
"""How many leases long a node stays away once that has been seen."""


def pause_s(site: Site, random: Random) -> float:
    """How long a node stays away."""
    return random.uniform(LEAST_TTLS, MOST_TTLS) * site.ttl_s


async def evicted(site: Site, victim: str) -> float:
    """Returns once nobody else counts it as a member: after how many seconds."""
    return await site.until(f"without {victim}", without(victim), site.ttl_s + MARGIN_S, others(site, victim))


async def start(site: Site, name: str) -> None:
    """Starts a node again.

    Raises:
        FaultFailed: it does not serve in time.
    """
    with trio.move_on_after(START_S):
        await site.start(name)
        return
    raise FaultFailed(f"{name} was not ready {START_S:g} s after it was started again")


async def _kill(site: Site, victim: str) -> None:
    process = site.nodes[victim].process
    site.kill(victim)
    await until_true(f"{victim} gone", lambda: not process.alive, SIGNAL_S)
    if (code := process.process.returncode) != -signal.SIGKILL:
        raise FaultFailed(f"{victim} was not killed: it ended with code {code}")


async def kill(site: Site, random: Random) -> Effect:
    """SIGKILL; started again, under its name and at its places, after the others have gone on without it."""
    (victim,) = victims(site, random)
    began = trio.current_time()
    await _kill(site, victim)
    evicted_s = await evicted(site, victim)
    await trio.sleep(pause_s(site, random))
    await start(site, victim)
    return Effect((victim,), f"the others went on after {evicted_s:.2f} s", began, trio.current_time())


async def kill_restart(site: Site, random: Random) -> Effect:
    """SIGKILL, and started again at once."""
    (victim,) = victims(site, random)
    life = (await site.nodes[victim].report()).members.get(victim)
    began = trio.current_time()
    await _kill(site, victim)
    await start(site, victim)
    served = trio.current_time()
    await site.until(
        f"aware of another life of {victim}",
        lambda report: report.members.get(victim, life) != life,
        site.ttl_s + MARGIN_S,
        others(site),
    )
    return Effect((victim,), f"it served again after {served - began:.2f} s", began, served)


@asynccontextmanager
async def _frozen(site: Site, victim: str) -> AsyncIterator[None]:
    """SIGSTOP, in effect from the beginning of the block to its end; SIGCONT."""
    process = site.nodes[victim].process
    site.freeze(victim)
    try:
        await until_true(f"{victim} frozen", lambda: process.stopped, SIGNAL_S)
        yield
        if not process.stopped:
            raise FaultFailed(f"{victim} went on by itself")
    finally:
        site.thaw(victim)


async def freeze(site: Site, random: Random) -> Effect:
    """SIGSTOP until its lease has lapsed and the others have gone on, and for a while longer; SIGCONT."""
    (victim,) = victims(site, random)
    began = trio.current_time()
    async with _frozen(site, victim):
        evicted_s = await evicted(site, victim)
        await trio.sleep(pause_s(site, random))
    return Effect((victim,), f"the others went on after {evicted_s:.2f} s", began, trio.current_time())


async def freeze_short(site: Site, random: Random) -> Effect:
    """SIGSTOP for less than its lease; SIGCONT."""
    (victim,) = victims(site, random)
    began = trio.current_time()
    async with _frozen(site, victim):
        await trio.sleep_until(began + SHORT * site.ttl_s)
    healed = trio.current_time()
    return Effect((victim,), f"for {healed - began:.2f} s", began, healed)


async def _stop(site: Site, victim: str) -> float:
    began = trio.current_time()
    with trio.move_on_after(DRAIN_S):
        await site.stop(victim)
        return trio.current_time() - began
    raise FaultFailed(f"{victim} had not stopped {DRAIN_S:g} s after SIGTERM")


async def stop(site: Site, random: Random) -> Effect:
    """SIGTERM; once it has drained and ended with code 0 it stays away for a while."""
    (victim,) = victims(site, random)
    began = trio.current_time()
    stopped_s = await _stop(site, victim)
    await evicted(site, victim)
    await trio.sleep(pause_s(site, random))
    await start(site, victim)
    return Effect((victim,), f"it had drained after {stopped_s:.2f} s", began, trio.current_time())


async def rolling_restart(site: Site, random: Random) -> Effect:
    """SIGTERM and a start for one node after the other, each once the cluster is whole again."""
    turn = victims(site, random, len(site.serving()))
    began = trio.current_time()
    slowest_s = 0.0
    for name in turn:
        slowest_s = max(slowest_s, await _stop(site, name))
        await start(site, name)
        await site.whole(site.ttl_s + MARGIN_S)
    return Effect(tuple(turn), f"the slowest had drained after {slowest_s:.2f} s", began, trio.current_time())
