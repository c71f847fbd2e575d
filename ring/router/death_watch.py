"""Has a member removed as soon as its process has died, and not only when its lease lapses.

    link down --> probe its address --refused--> suspect it in Redis --250 ms--> evicted, or it has renewed
                     |                                                                (`cluster.membership`)
                     +--anything else: again every 50 ms, for a ttl; then its lease has lapsed, or it lives

A frozen process refuses nobody, since its kernel still answers, and one that is cut off is silent: both go
by the lease. A wrong suspicion is refuted: whoever lives renews when it loses a link. One that was refuted
`REFUTALS` times, since nobody can dial the address that it names, is left to its lease until it is linked.
While Redis is away, `frozen_ring` does the same without it.
"""

from collections.abc import Awaitable, Callable, Collection

import structlog
import trio

from ring.cluster.lease import Standing
from ring.cluster.view import Member
from ring.peers.link import PeerLink
from ring.router.frozen_ring import FrozenRing
from ring.router.routing import Routing
from ring.store.connection import StoreError, StoreUnavailable

PROBE_EVERY_S = 0.05
LINKED_S = 0.5
"""How long members take to be linked, at most, where all is well."""

ALIVE_S = 0.1
"""How often this node renews its lease while it has lost somebody: whoever lost it may suspect it, and only a
renewal behind that refutes it."""

REPEAT_S = 0.1
"""How soon a suspicion is said again that nobody has shared yet, or that did not get to Redis."""

ANSWER_S = 2.0
"""The longest that a suspicion may take, its grace included: Redis may stand still."""

REFUTALS = 3
"""After so many a member is left to its lease. The first may be a renewal that was under way when it died."""

_log = structlog.get_logger()


class DeathWatch:
    """See the module. All but `run` are plain calls on Trio's thread.

    Args:
        routing: the ring and the links.
        probe: whether the process of a member is gone, as `Mesh.probe` finds out.
        suspect: says so to Redis, as `Membership.suspect` does: while this node's lease is held.
        renew: has the lease renewed soon, as `Membership.renew_soon` does.
        go_on_without: has them removed in a ring that is frozen, as `Membership.go_on_without` does.
        standing: where this node stands.
        ttl_s: how long a lease lasts.

    Attributes:
        evicted, refuted: how many suspicions of this node ended so.
        frozen: does the same while Redis is away; told by this one of whatever happens.
    """

    def __init__(
        self,
        routing: Routing,
        *,
        probe: Callable[[Member], Awaitable[bool]],
        suspect: Callable[[Member], Awaitable[str]],
        renew: Callable[[], None],
        go_on_without: Callable[[Collection[str], bool], None],
        standing: Callable[[], Standing],
        ttl_s: float,
    ) -> None:
        self.evicted = self.refuted = 0
        self.frozen = FrozenRing(routing, probe=probe, go_on_without=go_on_without)
        self._routing = routing
        self._probe = probe
        self._suspect = suspect
        self._renew = renew
        self._standing = standing
        self._ttl_s = ttl_s
        self._watched: dict[tuple[str, str], trio.Event] = {}  # names and incarnations: set once one is lost
        self._watching = trio.Event()
        self._spared: set[tuple[str, str]] = set()  # that live, though their addresses refuse
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watches until it is cancelled; losses of links before that are nobody's business."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self.frozen.run)
            self._nursery.start_soon(self._show_life)
            self.look()
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # links end behind this, as all ends

    def link_down(self, link: PeerLink) -> None:
        """A link has ended: watches the member that it led to, if it led to one."""
        self.frozen.link_down()
        view = self._routing.view
        member = None if view is None else view.member(link.name)
        self._spared.discard((link.name, link.incarnation))
        if member is not None and member.incarnation == link.incarnation:
            self._begin(member, 0.0)

    def look(self) -> None:
        """The ring, or this node's standing in it, is another: whom no link leads to may have died before."""
        view = self._routing.view
        self._spared.intersection_update(
            () if view is None else [(member.name, member.incarnation) for member in view.members]
        )
        for member in () if view is None else view.members:
            if member.name != self._routing.node and member.name not in self._routing.links:
                self._begin(member, LINKED_S)

    def on_standing(self, standing: Standing) -> None:
        """This node's lease has lapsed, or is held again, or the peers have said what that means."""
        self.frozen.on_standing(standing)
        if standing == "held":
            self.look()

    def news(self, epoch: int, members_hash: int) -> None:
        """A peer routes by another ring than this node."""
        self.frozen.news(epoch, members_hash)

    def _begin(self, member: Member, after_s: float) -> None:
        key = (member.name, member.incarnation)
        if self._nursery is not None and key not in self._watched and key not in self._spared:
            self._watched[key] = trio.Event()
            self._watching.set()
            self._nursery.start_soon(self._watch, member, key, after_s)
        if not after_s and key in self._watched:
            self._watched[key].set()

    async def _show_life(self) -> None:
        while True:
            await self._watching.wait()
            while self._watched:
                self._renew()
                await trio.sleep(ALIVE_S)
            self._watching = trio.Event()

    async def _watch(self, member: Member, key: tuple[str, str], after_s: float) -> None:
        try:
            with trio.move_on_after(after_s):
                await self._watched[key].wait()
            await self._until_known(member)
        except Exception:
            # Nobody expected it; the member still goes by its lease, and this node must not go before it.
            _log.exception("watching a peer failed", peer=member.name)
        finally:
            del self._watched[key]

    async def _until_known(self, member: Member) -> None:
        refutals, told = 0, False
        patience = trio.current_time() + self._ttl_s
        while self._concerns(member) and trio.current_time() < patience:
            pause_s, gone = PROBE_EVERY_S, False
            with trio.move_on_at(patience):
                gone = await self._probe(member)
            if gone and self._concerns(member):
                if not told:
                    told = True
                    _log.warning("peer seems dead: suspecting it", peer=member.name, address=member.peer)
                verdict = await self._accuse(member)
                if verdict in ("evicted", "gone"):
                    self.evicted += verdict == "evicted"
                    _log.info("dead peer removed from the ring", peer=member.name)
                    return
                refutals += verdict == "refuted"
                self.refuted += verdict == "refuted"
                if refutals >= REFUTALS:
                    self._spared.add((member.name, member.incarnation))
                    _log.warning("peer renews, though nobody listens at its address", peer=member.name)
                    return
                pause_s, patience = REPEAT_S, trio.current_time() + self._ttl_s
            await trio.sleep(pause_s)

    async def _accuse(self, member: Member) -> str:
        with trio.move_on_after(ANSWER_S):
            try:
                return await self._suspect(member)
            except (StoreUnavailable, StoreError):
                pass  # a renewal that fails says so in the log
        return "unheard"

    def _concerns(self, member: Member) -> bool:
        """Whether this life of the member is in the ring and not linked, and this node is one to judge."""
        view = self._routing.view
        known = None if view is None else view.member(member.name)
        unlinked = member.name not in self._routing.links
        listed = known is not None and known.incarnation == member.incarnation
        return listed and unlinked and self._standing() == "held"
