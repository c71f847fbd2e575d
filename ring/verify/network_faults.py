"""Faults of networks: between two nodes, between a node and Redis, between a node and everything."""

from random import Random

import trio

from ring.peers.link import PING_S
from ring.verify.effect import (
    MARGIN_S,
    Condition,
    Effect,
    hold,
    lacks_redis,
    until_true,
    victims,
)
from ring.verify.node import Report
from ring.verify.node_faults import evicted, pause_s
from ring.verify.site import Site

SHORT_TTLS = 2.0
"""How many leases long a link is away that is not away for long."""

SPOKEN_S = PING_S + MARGIN_S
"""Within this each side of a link says something, be it a ping."""

ISOLATED_S = 4.0 + MARGIN_S
"""Beyond the lease: until a node knows that nobody can be reached."""


def unlinked(name: str) -> Condition:
    """Has no link to this node."""
    return lambda report: report.links.get(name) != "up"


def isolated(report: Report) -> bool:
    """Sends its clients away and takes no more."""
    return (report.status, report.state) == (503, "isolated")


def _for_s(site: Site, random: Random, outage_s: float) -> float:
    return random.choice((SHORT_TTLS * site.ttl_s, outage_s))


async def cut_link(site: Site, random: Random, outage_s: float) -> Effect:
    """The link of two nodes is reset and each refuses the other, for a short time or for long."""
    one, other = victims(site, random, 2)
    began = trio.current_time()
    site.cut_link(one, other)
    try:
        await site.until(f"without a link to {other}", unlinked(other), MARGIN_S, [one])
        await site.until(f"without a link to {one}", unlinked(one), MARGIN_S, [other])
        await hold(site, _for_s(site, random, outage_s), f"without a link to {other}", unlinked(other), [one])
    finally:
        site.restore()
    healed = trio.current_time()
    return Effect((one, other), f"reset, for {healed - began:.2f} s", began, healed)


async def silence_link(site: Site, random: Random, outage_s: float, *, one_way: bool = False) -> Effect:
    """What two nodes say to each other, or the one to the other, gets lost, for a short time or for long."""
    source, sink = victims(site, random, 2)
    began = trio.current_time()
    site.silence_link(source, sink, one_way=one_way)
    try:
        await until_true(
            f"anything lost from {source} to {sink}", lambda: site.swallowed(source, sink) > 0, SPOKEN_S
        )
        if not one_way:
            await until_true(
                f"anything lost from {sink} to {source}", lambda: site.swallowed(sink, source) > 0, SPOKEN_S
            )
        await trio.sleep(_for_s(site, random, outage_s))
        lost = site.swallowed(source, sink) + site.swallowed(sink, source)
    finally:
        site.restore()
    healed = trio.current_time()
    return Effect((source, sink), f"{lost} bytes were held up, for {healed - began:.2f} s", began, healed)


async def node_without_redis(site: Site, random: Random, *, silent: bool = False) -> Effect:
    """A node is cut off from Redis alone, by resets or by silence, until the others have gone on."""
    (victim,) = victims(site, random)
    gate = site.nodes[victim].redis
    began = trio.current_time()
    if silent:
        gate.silence()
    else:
        gate.cut()
    site.note(f"{victim} is cut off from Redis")
    try:
        evicted_s = await evicted(site, victim)
        await site.until("without Redis", lacks_redis, MARGIN_S, [victim])
        if not silent:
            await until_true(f"{victim} disconnected from Redis", lambda: not gate.crossings, MARGIN_S)
        await hold(site, pause_s(site, random), "without Redis", lacks_redis, [victim])
    finally:
        gate.mend()
        site.note(f"{victim} reaches Redis again")
    return Effect((victim,), f"the others went on after {evicted_s:.2f} s", began, trio.current_time())


async def cut_off(site: Site, random: Random) -> Effect:
    """A node reaches neither Redis nor another node; its clients reach it, until it sends them away."""
    (victim,) = victims(site, random)
    began = trio.current_time()
    site.cut_off(victim)
    try:
        evicted_s = await evicted(site, victim)
        await site.until("isolated", isolated, site.ttl_s + ISOLATED_S, [victim])
        isolated_s = trio.current_time() - began
        await hold(site, pause_s(site, random), "isolated", isolated, [victim])
    finally:
        site.restore()
    return Effect(
        (victim,),
        f"the others went on after {evicted_s:.2f} s, it sent its clients away after {isolated_s:.2f} s",
        began,
        trio.current_time(),
    )
