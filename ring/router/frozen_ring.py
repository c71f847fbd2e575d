"""Removes the dead from a ring that is frozen: while Redis is away no lease lapses, and nobody else would.

The *coordinator* speaks for the ring: of the members that are linked with each other, the one of the lowest
name. It goes on without the members whose process is gone, in a ring of the next epoch, and the others enter
that as they do any other: a frame shows it, and they ask for its members (docs/decisions/0006).

Where links are cut in part, two may take themselves for the coordinator, and propose different rings of one
epoch. Whoever of them still is the coordinator then proposes again, after a pause of random length: the first
to do so has the higher epoch, and that one wins.
"""

import random
from collections.abc import Awaitable, Callable, Collection

import structlog
import trio

from ring.cluster.lease import Standing
from ring.cluster.view import Member, RingView
from ring.router.routing import Routing

LOOK_EVERY_S = 0.1
PROBE_S = 0.25
"""An address that is silent for so long has not refused: its node may live."""

DISPUTE_S = 0.3
"""The longest pause before a ring that another coordinator's contradicts is proposed again: a few times what
it takes for a proposal to be entered by all."""

_log = structlog.get_logger()


class FrozenRing:
    """See the module. All but `run` are plain calls on Trio's thread.

    Args:
        routing: the ring and the links.
        probe: whether the process of a member is gone, as `Mesh.probe` finds out.
        go_on_without: as `Membership.go_on_without`, and whether it is disputed.
    """

    def __init__(
        self,
        routing: Routing,
        *,
        probe: Callable[[Member], Awaitable[bool]],
        go_on_without: Callable[[Collection[str], bool], None],
    ) -> None:
        self._routing = routing
        self._probe = probe
        self._go_on_without = go_on_without
        self._frozen = trio.Event()
        self._stirred = trio.Event()
        self._disputed = 0  # an epoch of which a peer knows other members

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._frozen.wait()
            await self._look()
            with trio.move_on_after(LOOK_EVERY_S):
                await self._stirred.wait()
            self._stirred = trio.Event()

    def on_standing(self, standing: Standing) -> None:
        """Nobody is removed while Redis may say who lives, or this node may be the one that is cut off."""
        if standing == "frozen":
            self._frozen.set()
        elif self._frozen.is_set():
            self._frozen = trio.Event()

    def link_down(self) -> None:
        """Looks at once for who has died."""
        self._stirred.set()

    def news(self, epoch: int, members_hash: int) -> None:
        """A peer routes by another ring."""
        view = self._routing.view
        if view is not None and epoch == view.epoch and members_hash != view.members_hash:
            self._disputed = epoch

    async def _look(self) -> None:
        view = self._routing.view
        if view is None or not self._speaks_for(view):
            return
        disputed = self._disputed == view.epoch
        dead = await self._dead(view)
        if disputed:
            await trio.sleep(DISPUTE_S * random.random())  # noqa: S311 - spreads them, hides nothing
        if (dead or disputed) and self._frozen.is_set() and self._speaks_for(view):
            _log.warning("removing the dead from the frozen ring", dead=sorted(dead), epoch=view.epoch)
            self._go_on_without(dead, disputed)

    def _speaks_for(self, view: RingView) -> bool:
        """Whether this node is the coordinator of this view, and has entered no other."""
        routing = self._routing
        mine = view.member(routing.node)
        if view is not routing.view or mine is None or mine.incarnation != routing.incarnation:
            return False
        return not any(name < routing.node and name in routing.links for name in view.names)

    async def _dead(self, view: RingView) -> set[str]:
        dead: set[str] = set()

        async def look_at(member: Member) -> None:
            try:
                with trio.move_on_after(PROBE_S):
                    if await self._probe(member):
                        dead.add(member.name)
            except Exception:
                # Nobody expected it, and it says nothing of the member: this node must not go by it.
                _log.exception("probing a peer failed", peer=member.name, address=member.peer)

        async with trio.open_nursery() as nursery:
            for member in view.members:
                if member.name != self._routing.node and member.name not in self._routing.links:
                    nursery.start_soon(look_at, member)
        return dead - self._routing.links.keys()  # whoever is linked by now has answered for itself
