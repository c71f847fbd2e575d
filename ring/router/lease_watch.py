"""Watches the node's lease: asks the peers when it is about to lapse, and tells the node where it stands.

A node that stood still (SIGSTOP, a machine that slept) must not act on a ring that has moved on: `check` is
called at the start of every tick, before anything that came meanwhile is handled.
"""

from collections.abc import Callable
from typing import Protocol

from ring.cluster.lease import ASK_AT, ASK_EVERY, Outcome, Standing, Tenure
from ring.cluster.membership import boottime
from ring.peers.link import PeerLink
from ring.protocol import peer
from ring.router.routing import Routing
from ring.transport.wheel import Timer, TimerWheel

ASKABLE = 2
"""The first version of the peer protocol that knows the question."""


class Lease(Protocol):
    """The node's lease, as `Membership` keeps it."""

    @property
    def renewed_at(self) -> float:
        """When it was renewed last, by the clock of leases."""

    @property
    def run_s(self) -> float:
        """For how long it had not lapsed when it was renewed last."""


class LeaseWatch:
    """See the module.

    Args:
        routing: the ring and the links.
        wheel: for the next look.
        ttl_s: how long a lease lasts.
        dial_outcome: how a member can be reached.
        outpaced: whether a peer that refuses this node has shown a later ring.
        on_standing: called with each new standing, in the tick; the first one, `held`, is taken for granted.
        clock: the clock of leases.
    """

    def __init__(
        self,
        routing: Routing,
        wheel: TimerWheel,
        *,
        ttl_s: float,
        dial_outcome: Callable[[str], Outcome | None],
        outpaced: Callable[[], bool],
        on_standing: Callable[[Standing], None],
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.tenure = Tenure(ttl_s)
        self._routing = routing
        self._wheel = wheel
        self._ttl_s = ttl_s
        self._dial_outcome = dial_outcome
        self._outpaced = outpaced
        self._on_standing = on_standing
        self._clock = clock
        self._lease: Lease | None = None
        self._look_at = float("inf")
        self._ask_at = 0.0
        self._timer: Timer | None = None
        routing.handle(peer.LeaseAsked, self._on_lease_asked)
        routing.handle(peer.Lease, self._on_lease)

    @property
    def standing(self) -> Standing:
        """Where the node stands."""
        return self.tenure.standing

    def watch(self, lease: Lease) -> None:
        """Begins to watch."""
        self._lease = lease
        self.look()

    def link_up(self, link: PeerLink) -> None:
        """A new link: what was asked on an earlier one was lost with it, and is no sign of silence."""
        self.tenure.forgive(link.name)

    def check(self) -> None:
        """Looks, if it is time: cheap enough for every tick."""
        if self._clock() >= self._look_at:
            self.look()

    def look(self) -> None:
        """Asks whoever is to be asked, and judges."""
        lease = self._lease
        if lease is None:  # the first views come before there is anything to watch
            return
        now, renewed_at, standing = self._clock(), lease.renewed_at, self.tenure.standing
        view, links = self._routing.view, self._routing.links
        asking = now - renewed_at >= ASK_AT * self._ttl_s
        if asking and now >= self._ask_at:
            self._ask_at = now + ASK_EVERY * self._ttl_s
            for link in links.values():
                if link.version >= ASKABLE:
                    self.tenure.asked(link.name, now)
                    link.send_urgent(peer.LeaseAsked())
        names = () if view is None else view.names
        peers = {name: self._outcome(name) for name in names if name != self._routing.node}
        behind = view is not None and (
            self._outpaced() or any(link.epoch > view.epoch for link in links.values())
        )
        judged = self.tenure.judge(now, renewed_at, peers, behind=behind)
        self._look_at = self._ask_at if asking else renewed_at + ASK_AT * self._ttl_s
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._wheel.call_later(max(self._look_at - now, 0.0), self.look)
        if judged != standing:
            self._on_standing(judged)

    def _outcome(self, name: str) -> Outcome | None:
        link = self._routing.links.get(name)
        if link is None:
            return self._dial_outcome(name)
        return "up" if link.version >= ASKABLE else "mute"

    def _on_lease_asked(self, link: PeerLink, item: peer.LeaseAsked) -> None:
        if self._lease is not None:
            age_s = self._clock() - self._lease.renewed_at
            link.send_urgent(peer.Lease(round(age_s * 1000), round(self._lease.run_s * 1000)))

    def _on_lease(self, link: PeerLink, item: peer.Lease) -> None:
        assert self._lease is not None  # it has asked
        now = self._clock()
        self.tenure.answered(
            link.name, now - item.age_ms / 1000, item.run_ms / 1000, self._lease.renewed_at, now
        )
        if self.tenure.standing != "held":
            self.look()
