"""A message, and where it goes: to a mailbox here, or over the link to the node that owns the recipient.

The router is the gateway's half of delivery (it holds this node's messages until they are safe) and the door
of the owner's half (`mailbox`). It runs in the pump's tick.
"""

from typing import Protocol

from ring.mailbox.letter import By, Status
from ring.mailbox.owner import Mailboxes
from ring.mailbox.pending import Held, Pending
from ring.mailbox.pending import Sender as Receipted
from ring.peers.link import PeerLink
from ring.protocol import peer
from ring.protocol.codes import ErrorCode
from ring.protocol.names import slot_of
from ring.router.routing import Routing


class Sender(Receipted, Protocol):
    """The session that sends."""

    user: str

    @property
    def name(self) -> str:
        """What the session is called: no other ever is."""


class Router:
    """Routes the messages of this node's sessions, and those that peers bring.

    Args:
        routing: the ring as it is now.
        mailboxes: of the users that this node owns.
        pending: messages of this node's sessions without a receipt.
    """

    def __init__(self, routing: Routing, mailboxes: Mailboxes, pending: Pending) -> None:
        self._routing = routing
        self._mailboxes = mailboxes
        self._pending = pending
        self.tracked = self.untracked = 0  # messages of this node's sessions, with and without a receipt
        self.resent = 0  # times that one went again, marked, since no answer had come
        routing.handle(peer.Send, self._on_send)
        routing.handle(peer.Receipt, self._on_receipt)
        routing.handle(peer.Moved, self._on_moved)

    def send(self, session: Sender, send: peer.Send, *, receipt: bool) -> None:
        """Routes a client's message. With `receipt` it is held until its fate is known."""
        slot = slot_of(send.to)
        if send.to == session.user:
            send.session = session.name
        if receipt:
            self.tracked += 1
        else:
            self.untracked += 1
        self.route(send, slot, self._pending.add(session, send) if receipt else None)

    def route(self, send: peer.Send, slot: int, held: Held | None) -> None:
        """Sends a message to the owner of its recipient, by the ring as it is now."""
        owner = self._routing.owners[slot]
        if owner == self._routing.node:
            if held is not None:
                held.owner = owner
            waiting = self._routing.held.get(slot) if self._routing.held else None
            if waiting is None:
                self._mailboxes.accept(owner, send)
            else:
                assert self._routing.view is not None  # else nobody would be the owner
                waiting.sends.append((owner, send, self._routing.view.epoch))
            return
        link = self._routing.links.get(owner)
        if link is None:
            # The ring or the link will change, and then it is sent; until then its sender waits for
            # `send_timeout`.
            if held is None:
                self._mailboxes.dropped_untracked += 1
            return
        if not link.busy:
            if held is not None:
                held.owner = owner
            link.send(send)
        elif held is None:
            self._mailboxes.dropped_untracked += 1
        elif send.again:
            held.owner = None  # an owner may have it: it is no failure before it is tried again
        else:
            self._pending.settle(
                send.ref, "failed", None, ErrorCode.BUSY, "too much waits for the recipient's node"
            )

    def route_again(self, held: Held) -> None:
        """Sends a message without an answer once more, marked, since an owner may have it already."""
        if held.owner is not None:
            held.send.again = True
        if held.send.again:
            self.resent += 1
        self.route(held.send, slot_of(held.send.to), held)

    def notify(
        self,
        gateway: str,
        ref: int,
        status: Status,
        by: By | None,
        code: ErrorCode | None,
        message: str | None,
    ) -> None:
        """An owner's word about a message, to the gateway that holds it."""
        if gateway == self._routing.node:
            self._pending.settle(ref, status, by, code, message)
            return
        link = self._routing.links.get(gateway)
        if link is not None:  # else it asks again when it is back
            link.send_urgent(peer.Receipt(ref, status, by, code, message))

    def _on_send(self, link: PeerLink, item: peer.Send) -> None:
        # A mailbox is only there for a user whom this node owns, or has not handed over yet: most messages
        # need no second look.
        if self._routing.held or self._routing.losing or item.to not in self._mailboxes.boxes:
            self._on_unsure_send(link, item, slot_of(item.to))
        else:
            self._mailboxes.accept(link.name, item)

    def _on_unsure_send(self, link: PeerLink, item: peer.Send, slot: int) -> None:
        routed, waiting = self._routing.barrier.routes_by(link.name), self._routing.held.get(slot)
        if waiting is not None:
            # A peer that has not entered yet routed it by a ring in which this node owned the slot before:
            # then it is older than all that others hand over, and the mailbox numbers it so.
            if routed < waiting.epoch:
                # (By an epoch before this life of the node, another life of it numbered.)
                self._mailboxes.accept(link.name, item, routed if routed >= self._routing.first_epoch else 0)
            else:
                waiting.sends.append((link.name, item, routed))
        elif slot in self._routing.losing:
            self._mailboxes.accept(link.name, item, routed)
        elif self._routing.owners[slot] == self._routing.node:
            self._mailboxes.accept(link.name, item)
        elif (
            not self._routing.barrier.handed_over
            and self._routing.first_epoch <= routed < self._routing.barrier.epoch
        ):
            # This node was the owner at an epoch that it never entered itself: it hands over what came by it.
            self._routing.losing.add(slot)
            self._mailboxes.adopt(slot, routed)
            self._mailboxes.accept(link.name, item, routed)
        elif item.ref:
            link.send_urgent(peer.Moved(item.ref, self._routing.barrier.epoch))
        else:
            self._mailboxes.dropped_untracked += 1

    def _on_receipt(self, link: PeerLink, item: peer.Receipt) -> None:
        self._pending.settle(item.ref, item.status, item.by, item.code, item.message)

    def _on_moved(self, link: PeerLink, item: peer.Moved) -> None:
        held = self._pending.get(item.ref)
        if held is None:
            return
        held.send.again = True
        if item.epoch > self._routing.barrier.epoch:
            held.owner = None  # this node is behind: it is sent when the ring that the peer knows is entered
        else:
            self.route_again(held)

    def link_up(self, link: PeerLink) -> None:
        """A link stands: what has no answer is sent again; repeats are recognised."""
        owners = self._routing.owners
        for held in self._pending:
            if held.owner == link.name or (held.owner is None and owners[slot_of(held.send.to)] == link.name):
                self.route_again(held)

    def move(self) -> None:
        """The ring has changed: what lies with a node that is gone goes to the new owner.

        A node that lives hands over what it has.
        """
        routing = self._routing
        assert routing.view is not None
        for held in self._pending:
            owner = routing.owners[slot_of(held.send.to)]
            if held.owner != owner and (held.owner is None or routing.view.member(held.owner) is None):
                self.route_again(held)
