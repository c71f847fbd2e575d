"""What a node does when the ring changes: sessions move, what has no answer goes again, mailboxes are handed
over.

The order is the promise (docs/architecture.md). A new view is entered in one step: *entered* goes out first,
then attachments and repeats, then mailboxes, then *handed*; and a link keeps order. `cluster.barrier` decides
when.
"""

from collections import deque
from collections.abc import Callable
from time import monotonic

import structlog

from ring.cluster.placement import NOBODY
from ring.cluster.view import RingView
from ring.mailbox.handover import pack, take
from ring.mailbox.mailbox import Mailbox
from ring.mailbox.owner import Mailboxes
from ring.peers.link import PeerLink
from ring.protocol import peer
from ring.protocol.names import SLOTS, slot_of
from ring.router.attachments import Attachments
from ring.router.router import Router
from ring.router.routing import HeldSlot, Routing
from ring.transport.wheel import Timer, TimerWheel

STEP_S = 0.05
"""How often a change that waits for somebody looks at the time."""

ABREAST_BYTES = 2 * 1024 * 1024
"""Mailboxes are handed over while less than this is queued on the new owner's link: live traffic shares it.
"""

UNREACHED_S = 5.0
"""A mailbox whose new owner cannot be reached for this long is dropped: its senders' gateways send again."""

_log = structlog.get_logger()


class Transition:
    """Carries the node from one view of the ring to the next.

    Args:
        routing: the tables that change.
        mailboxes: what is handed over.
        attachments, router: who move sessions and messages.
        wheel: for the barrier's limits.
        on_settled: called when this node has handed over and serves all that is its own.
    """

    def __init__(
        self,
        routing: Routing,
        mailboxes: Mailboxes,
        attachments: Attachments,
        router: Router,
        wheel: TimerWheel,
        *,
        on_settled: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.barrier = routing.barrier
        self.lost_mailboxes = 0  # with letters without a fate, whose new owner could not be reached
        self._routing = routing
        self._mailboxes = mailboxes
        self._attachments = attachments
        self._router = router
        self._wheel = wheel
        self._on_settled = on_settled
        self._clock = clock
        self._handing: deque[Mailbox] | None = None
        self._began = 0.0
        self._timer: Timer | None = None
        self._suspended = False
        routing.handle(peer.Entered, self._on_entered)
        routing.handle(peer.Handed, self._on_handed)
        routing.handle(peer.HandOver, self._on_hand_over)

    @property
    def settled(self) -> bool:
        """True if nothing of the last change is still under way."""
        return self.barrier.released and self.barrier.handed_over and self._handing is None

    def enter(self, view: RingView) -> None:
        """Routes by `view` from now on."""
        routing, me, now = self._routing, self._routing.node, self._clock()
        before, owners = routing.owners, view.owners
        changed = [slot for slot in range(SLOTS) if before[slot] != owners[slot]]
        gained = {slot for slot in changed if owners[slot] == me}
        lost = [slot for slot in changed if before[slot] == me]
        unsure: set[int] = set()
        skipped = routing.view is not None and routing.view.epoch != view.previous
        if skipped:
            # Epochs were skipped: another node may have owned in between what was, or still is, this node's.
            unsure = routing.losing.union(slot for slot in range(SLOTS) if before[slot] == me)
        kept = {slot for slot in unsure if owners[slot] == me}
        if routing.view is None:
            routing.first_epoch = view.epoch
        routing.view, routing.owners = view, owners
        peers = [member.name for member in view.members if member.name != me]
        self._mailboxes.moved(view.epoch, gained | unsure, unsure.union(lost))
        routing.losing.difference_update(gained)
        routing.losing.update(lost)
        for gateway in self._mailboxes.gateways():
            if view.member(gateway) is None:
                self._mailboxes.forget_gateway(gateway)

        if peers:
            for slot in gained | kept:
                self._hold(slot, view.epoch)
        else:
            self._mailboxes.serve(gained | unsure)
        for link in routing.links.values():
            link.send(peer.Entered(view.epoch))
        self._attachments.move()
        self._router.move()
        if skipped or view.member(me) is None:
            # The members have let go of this node's sessions, as of one that is dead; or did so in between.
            for link in routing.links.values():
                self._attachments.link_up(link)
        self._handing = None
        self._began = now
        self.barrier.begin(view.epoch, peers, now)
        _log.info(
            "epoch entered",
            epoch=view.epoch,
            members=len(view.members),
            gained=len(gained),
            lost=len(routing.losing),
        )
        self.step()

    def _hold(self, slot: int, epoch: int) -> None:
        routing = self._routing
        held = HeldSlot(epoch)
        before = routing.held.get(slot)
        routing.held[slot] = held
        if before is not None:
            # Gained, lost and gained again before it was served: what came in the first of these times is
            # older than what the owner in between hands over.
            held.attaches = before.attaches
            for gateway, send, routed in before.sends:
                self._mailboxes.accept(gateway, send, routed)

    def suspend(self) -> None:
        """Serves no slot any more, and holds what comes: until `resume`, or a view that takes them."""
        routing = self._routing
        if self._suspended or routing.view is None:
            return
        self._suspended = True
        for slot in range(SLOTS):
            if routing.owners[slot] == routing.node and slot not in routing.held:
                routing.held[slot] = HeldSlot(self.barrier.epoch)

    def resume(self) -> None:
        """Serves again what is this node's own, and first what was held."""
        if self._suspended:
            self._suspended = False
            self.step()

    # --- steps

    def step(self) -> None:
        """Does what the barrier allows by now; looks again soon while something is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        if self.barrier.may_hand_over(now):
            self._handing = self._leaving_boxes()
        # Again while there are any: a peer that entered late may have made one meanwhile.
        while self._handing and self._hand_over(self._handing, now):
            self._handing = self._leaving_boxes()
        if self._handing is not None and not self._handing:
            self._handing = None
            self._mailboxes.handed_over(self._routing.losing)
            self._routing.losing.clear()
            for link in self._routing.links.values():
                link.send(peer.Handed(self.barrier.epoch))
        released = self.barrier.may_release(now)
        if released and (silent := self.barrier.silent()):
            _log.warning("serving without having heard from all", epoch=self.barrier.epoch, silent=silent)
        if not self._suspended and (released or (self.barrier.released and self._routing.held)):
            self._release()
        if self.settled:
            self._on_settled()
        else:
            self._timer = self._wheel.call_later(STEP_S, self.step)

    def _leaving_boxes(self) -> deque[Mailbox]:
        routing = self._routing
        losing = routing.losing
        # Gained and lost again before it was served: what was held goes on, behind what was handed over here.
        for slot in losing.intersection(routing.held):
            held = routing.held.pop(slot)
            for gateway, send, routed in held.sends:
                self._mailboxes.accept(gateway, send, routed)
        if not losing:
            return deque()
        return deque(box for box in self._mailboxes.boxes.values() if slot_of(box.user) in losing)

    def _hand_over(self, boxes: deque[Mailbox], now: float) -> bool:
        """Sends mailboxes to their new owners; False if some must wait."""
        routing = self._routing
        waiting: list[Mailbox] = []
        sent: dict[str, int] = {}  # in this step, and so not yet in the link's own count
        while boxes:
            box = boxes.popleft()
            owner = routing.owners[slot_of(box.user)]
            link = routing.links.get(owner)
            if owner == routing.node or self._mailboxes.boxes.get(box.user) is not box:
                continue
            if link is None:
                if now - self._began < UNREACHED_S and owner != NOBODY:
                    waiting.append(box)
                    continue
                if letters := len(box.unsettled()):
                    self.lost_mailboxes += 1
                    _log.error(
                        "mailbox dropped: it has no owner that can be reached", letters=letters, owner=owner
                    )
            elif link.queued_bytes + sent.get(owner, 0) > ABREAST_BYTES:
                waiting.append(box)
                continue
            else:
                for item in pack(box, now):
                    link.send(item)
                sent[owner] = sent.get(owner, 0) + box.kept_bytes
            self._mailboxes.drop(box)
        boxes.extend(waiting)
        return not boxes

    def _release(self) -> None:
        """Serves the slots that were gained: behind what was handed over, what was held."""
        routing = self._routing
        served = [slot for slot in routing.held if slot not in routing.losing]
        held = [routing.held.pop(slot) for slot in served]
        self._mailboxes.serve(served)
        for slot in held:
            for attach in slot.attaches:
                attach()
            for gateway, send, _ in slot.sends:
                self._mailboxes.accept(gateway, send)
        if not routing.held:
            self._attachments.none_held()

    # --- what peers say

    def link_up(self, link: PeerLink) -> None:
        """Tells a new link how far this node is, and what the other must know."""
        self.barrier.peer_up(link.name, link.incarnation)
        if self._routing.view is not None:
            link.send(peer.Entered(self.barrier.epoch))  # what comes on this link was never routed by another
            self._attachments.link_up(link)
            self._router.link_up(link)
            link.send(peer.Reconciled())
            if self.barrier.handed_over and self._handing is None:
                link.send(peer.Handed(self.barrier.epoch))

    def _on_entered(self, link: PeerLink, item: peer.Entered) -> None:
        self.barrier.entered(link.name, item.epoch, self._clock())
        if not self.settled:
            self.step()

    def _on_handed(self, link: PeerLink, item: peer.Handed) -> None:
        self.barrier.handed(link.name, item.epoch)
        if not self.settled:
            self.step()

    def _on_hand_over(self, link: PeerLink, item: peer.HandOver) -> None:
        routing, slot = self._routing, slot_of(item.user)
        owner = routing.owners[slot]
        if owner == routing.node or slot in routing.losing:
            take(self._mailboxes, item, self._clock())
            return
        onward = routing.links.get(owner)
        if onward is not None:
            onward.send(item)
        elif letters := sum(letter.status is None or letter.home is not None for letter in item.letters):
            self.lost_mailboxes += 1
            _log.error("a handed-over mailbox cannot be passed on", owner=owner, letters=letters)
