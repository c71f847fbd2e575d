"""The ways in which `ring verify` breaks a site, by name.

Each fault chooses whom it hits, injects, sees for itself that it is in effect, holds it, and heals what it
broke. A fault that did not happen proves nothing: it raises `FaultFailed`. What it leaves to its caller is to
wait until the site is whole again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random

import trio

from ring.verify import front_faults, network_faults, node_faults, redis_faults
from ring.verify.effect import MARGIN_S, START_S, Effect, FaultFailed
from ring.verify.network_faults import ISOLATED_S, SPOKEN_S
from ring.verify.node import SiteFailed
from ring.verify.node_faults import DRAIN_S, MOST_TTLS
from ring.verify.site import Site

TTL_S = 1.0
"""The lease that a site's nodes have by default."""

OUTAGE_S = 30.0
"""How long a long outage is: many leases, and more than the patience with any connection."""

Inject = Callable[[Site, Random], Awaitable[Effect]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break a site.

    Attributes:
        name: as it is typed.
        text: what it does, in a line.
        planned: a change that the nodes are told of: nothing may come twice or out of order through it. After
            all others what is sent again may come again, marked.
        forgets: Redis loses what it has stored, and with it, perhaps, messages that were `queued`.
        holds: what is on its way may stand still, and come when it is over.
        longest_s: how long it lasts at most, until what it broke is healed.
        inject: does it.
    """

    name: str
    text: str
    planned: bool
    forgets: bool
    longest_s: float
    inject: Inject
    holds: bool = False

    async def run(self, site: Site, random: Random) -> Effect:
        """Injects it, sees that it is in effect, holds it, and heals it.

        Args:
            site: whole.
            random: chooses the victims, and how long it is held.

        Raises:
            FaultFailed: it was not in effect, or could not be healed.
        """
        try:
            with trio.fail_after(self.longest_s):
                effect = await self.inject(site, random)
        except SiteFailed as failure:
            raise FaultFailed(f"{self.name}: {failure}") from failure
        except trio.TooSlowError as late:
            raise FaultFailed(f"{self.name} was not over after {self.longest_s:g} s") from late
        others = "HAProxy" if self.name.startswith("haproxy") else "Redis"
        hit = " and ".join(effect.victims) or others
        site.note(f"{self.name} of {hit} is over: {effect.detail}")
        return effect


def faults(
    *, nodes: int = 4, ttl_s: float = TTL_S, outage_s: float = OUTAGE_S, haproxy: bool = False
) -> dict[str, Fault]:
    """All faults, by name.

    Args:
        nodes: how many the site has.
        ttl_s: the site's lease.
        outage_s: how long the long ones last; more than a lease.
        haproxy: whether there is one in front of the site.
    """
    if outage_s <= ttl_s:
        raise ValueError(f"an outage of {outage_s:g} s proves nothing where a lease is {ttl_s:g} s")
    seen_s = ttl_s + MARGIN_S
    away_s = MOST_TTLS * ttl_s
    back_s = START_S
    gone_s = seen_s + away_s
    link_s = outage_s + 2 * MARGIN_S

    def fault(
        name: str,
        text: str,
        longest_s: float,
        inject: Inject,
        *,
        planned: bool = False,
        forgets: bool = False,
        holds: bool = False,
    ) -> Fault:
        return Fault(name, text, planned, forgets, longest_s + MARGIN_S, inject, holds)

    table = (
        fault("kill", "kill -9 of a node, started again after a while", gone_s + back_s, node_faults.kill),
        fault(
            "kill-restart",
            "kill -9 of a node, started again at once",
            back_s + seen_s,
            node_faults.kill_restart,
        ),
        fault(
            "freeze",
            "SIGSTOP of a node beyond its lease, then SIGCONT",
            gone_s,
            node_faults.freeze,
            holds=True,
        ),
        fault(
            "freeze-short",
            "SIGSTOP of a node for less than its lease, then SIGCONT",
            seen_s,
            node_faults.freeze_short,
            holds=True,
        ),
        fault(
            "stop",
            "SIGTERM of a node, started again after a while",
            DRAIN_S + gone_s + back_s,
            node_faults.stop,
            planned=True,
        ),
        fault(
            "rolling-restart",
            "SIGTERM and a start of one node after the other",
            nodes * (DRAIN_S + back_s + seen_s),
            node_faults.rolling_restart,
            planned=True,
        ),
        fault("redis-restart", "Redis restarted with its data", 2 * MARGIN_S, redis_faults.restart),
        fault("redis-empty", "FLUSHALL while Redis runs", seen_s, redis_faults.empty, forgets=True),
        fault(
            "redis-empty-restart",
            "Redis restarted without its data",
            away_s + seen_s + 2 * MARGIN_S,
            redis_faults.empty_restart,
            forgets=True,
        ),
        fault(
            "redis-stop",
            f"Redis stopped for {outage_s:g} s",
            outage_s + seen_s + MARGIN_S,
            partial(redis_faults.stop, outage_s=outage_s),
        ),
        fault(
            "redis-rollback",
            "Redis restarted with an older copy of its data",
            3 * MARGIN_S,
            redis_faults.roll_back,
            forgets=True,
        ),
        fault(
            "redis-freeze",
            f"SIGSTOP of Redis beyond the lease, at most {outage_s:g} s",
            outage_s + seen_s,
            partial(redis_faults.freeze, outage_s=outage_s),
        ),
        fault(
            "link-cut",
            "the link of two nodes reset, both ways refused",
            link_s,
            partial(network_faults.cut_link, outage_s=outage_s),
        ),
        fault(
            "link-silence",
            "the link of two nodes silent both ways, as with a pulled cable",
            link_s + 2 * SPOKEN_S,
            partial(network_faults.silence_link, outage_s=outage_s),
            holds=True,
        ),
        fault(
            "link-cut-one-way",
            "the link of two nodes silent one way",
            link_s + SPOKEN_S,
            partial(network_faults.silence_link, outage_s=outage_s, one_way=True),
            holds=True,
        ),
        fault(
            "node-without-redis",
            "a node cut off from Redis alone, by resets",
            gone_s + 2 * MARGIN_S,
            network_faults.node_without_redis,
        ),
        fault(
            "node-without-redis-silence",
            "a node cut off from Redis alone, by silence",
            gone_s + 2 * MARGIN_S,
            partial(network_faults.node_without_redis, silent=True),
        ),
        fault(
            "node-cut-off",
            "a node cut off from Redis and all other nodes",
            gone_s + seen_s + ISOLATED_S,
            network_faults.cut_off,
            holds=True,
        ),
    )
    balancer = (
        fault(
            "haproxy-restart",
            "HAProxy restarted with its files",
            front_faults.LONGEST_S,
            partial(front_faults.restart, empty=False),
        ),
        fault(
            "haproxy-empty-restart",
            "HAProxy restarted with nothing on its disk",
            front_faults.LONGEST_S,
            partial(front_faults.restart, empty=True),
        ),
    )
    return {row.name: row for row in (*table, *(balancer if haproxy else ()))}
