"""The sessions of this node, at their owners: attaching them, moving them, and what owners send to them."""

from collections.abc import Callable
from functools import partial
from time import time_ns
from typing import Literal, Protocol

from ring.cluster.placement import NOBODY
from ring.mailbox.attachment import Attachment
from ring.mailbox.handover import put_behind
from ring.mailbox.letter import By
from ring.mailbox.owner import Mailboxes
from ring.peers.link import PeerLink
from ring.protocol import peer
from ring.protocol.names import slot_of
from ring.router.routing import Routing


class Session(Protocol):
    """A client of this node, as the router needs it."""

    sid: int  # of this node, for its life and all earlier ones
    handle: int  # of its present attachment
    user: str
    device: str
    address: str
    slot: int
    since_ms: int
    owner: str
    attachment: Attachment | None  # while this node owns the user
    welcomed: bool
    resume: str | None
    by: By
    sent_epoch: int
    sent_number: int
    earlier: list[peer.Seq]  # how far it was sent letters in earlier epochs
    acked_epoch: int
    acked_number: int
    refs: dict[str, int]  # of its messages without a receipt

    @property
    def settled(self) -> bool:
        """True if the client waits for no receipt and no answer."""

    @property
    def name(self) -> str:
        """What the session is called: no other ever is."""

    def welcome(self, resumed: bool | Literal["gap"], start: peer.Seq) -> None:
        """The owner knows the session; what it gets comes after `start`."""

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        """Passes a `message` to the client."""

    def expel(self, code: int, reason: str) -> None:
        """Closes the connection."""

    def reconnect(self, after_ms: int, reason: str) -> None:
        """Asks the client to connect again, elsewhere, and closes."""


class RemoteSession:
    """The owner's end of a session on another node."""

    __slots__ = ("_handle", "_link")

    def __init__(self, link: PeerLink, handle: int) -> None:
        self._link = link
        self._handle = handle

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        """Sends a `message` to the session's gateway."""
        self._link.send(peer.Deliver(self._handle, epoch, number, body, tracked))

    def expel(self, code: int, reason: str) -> None:
        """Has the gateway close the session."""
        self._link.send(peer.Expel(self._handle, code, reason))


class Attachments:
    """Attaches this node's sessions to the owners of their users, and other nodes' sessions to mailboxes
    here.

    Args:
        routing: the ring as it is now.
        mailboxes: of the users that this node owns.
    """

    def __init__(self, routing: Routing, mailboxes: Mailboxes) -> None:
        self.sessions: dict[int, Session] = {}
        self.late_deliveries = 0  # from a node that no longer owns the session's user
        self._routing = routing
        self._mailboxes = mailboxes
        self._handles: dict[int, Session] = {}  # of those whose owner is another node
        self._next_handle = time_ns() // 1000
        # What came of a session whose attachment waits: for its slot to be served, then for what Redis keeps.
        self._early: dict[tuple[str, int], list[Callable[[], None]]] = {}
        self._reading: dict[tuple[str, int], list[Callable[[], None]]] = {}
        routing.handle(peer.Deliver, self._on_deliver)
        routing.handle(peer.Ack, self._on_ack)
        routing.handle(peer.Attach, self._on_attach)
        routing.handle(peer.Attached, self._on_attached)
        routing.handle(peer.Astray, self._on_astray)
        routing.handle(peer.Detach, self._on_detach)
        routing.handle(peer.Expel, self._on_expel)
        routing.handle(peer.Reconciled, self._on_reconciled)

    def open(self, session: Session) -> None:
        """A client has connected; it is welcomed once its owner knows it."""
        self.sessions[session.sid] = session
        self.attach(session)

    def close(self, session: Session, *, clean: bool) -> None:
        """A client has gone; `clean` if it said goodbye."""
        if self.sessions.pop(session.sid, None) is None:
            return
        self._handles.pop(session.handle, None)
        attachment = session.attachment
        if attachment is not None:
            session.attachment = None
            self._mailboxes.detach(attachment, clean=clean)
        elif session.owner != self._routing.node:
            link = self._routing.links.get(session.owner)
            if link is not None:
                link.send(peer.Detach(session.handle, clean))

    def attach(self, session: Session) -> None:
        """Tells the owner of the session's user that it is here, and how far it has got."""
        self._handles.pop(session.handle, None)
        owner = session.owner = self._routing.owners[session.slot]
        if owner == self._routing.node:
            waiting = self._routing.held.get(session.slot)
            if waiting is None:
                self._attach_here(session)
            else:
                waiting.attaches.append(partial(self._attach_here, session))
            return
        link = self._routing.links.get(owner)
        if link is not None:  # else when it is up
            self._attach_there(session, link)

    def _attach_there(self, session: Session, link: PeerLink) -> None:
        self._handles.pop(session.handle, None)
        self._next_handle = session.handle = self._next_handle + 1
        self._handles[session.handle] = session
        link.send(_attach(session))

    def acknowledge(self, session: Session) -> None:
        """A session's cursor has moved to `acked`."""
        attachment = session.attachment
        if attachment is not None:
            self._mailboxes.acknowledge(attachment, session.acked_epoch, session.acked_number, session.by)
            return
        link = self._routing.links.get(session.owner)
        if link is not None:  # else the new link, or the new owner, is told with the attachment
            link.send(peer.Ack(session.handle, session.acked_epoch, session.acked_number, session.by))

    def _attach_here(self, session: Session) -> None:
        if (
            session.sid not in self.sessions
            or session.owner != self._routing.node
            or session.attachment is not None
        ):
            return
        attach = _attach(session)
        if not self._mailboxes.ready(session.user, partial(self._attach_here, session), attach.sent):
            return
        put_behind(self._mailboxes, attach)
        attached = self._mailboxes.attach(attach, self._routing.node, self._routing.incarnation, session)
        if attached is None:
            return
        session.attachment, resumed = attached
        if not session.welcomed:
            session.welcome(resumed, self._mailboxes.before(session.attachment))
        self._mailboxes.start(session.attachment)

    def _on_attach(self, link: PeerLink, item: peer.Attach) -> None:
        slot = slot_of(item.user)
        waiting = self._routing.held.get(slot)
        if waiting is not None:
            waiting.attaches.append(partial(self._attach_remote, link.name, link.incarnation, item))
            self._early[link.name, item.handle] = []
        elif self._routing.owners[slot] == self._routing.node:
            self._attach_remote(link.name, link.incarnation, item)
        else:
            link.send(peer.Astray(item.handle, self._routing.barrier.epoch))

    def _attach_remote(self, gateway: str, incarnation: str, item: peer.Attach) -> None:
        key = gateway, item.handle
        early = self._early.pop(key, None) or self._reading.pop(key, [])
        link = self._routing.links.get(gateway)
        if link is None or link.incarnation != incarnation:
            return  # it attaches again when it is back
        if self._routing.owners[slot_of(item.user)] != self._routing.node:
            return  # its gateway attaches it to the new owner
        again = partial(self._attach_remote, gateway, incarnation, item)
        if not self._mailboxes.ready(item.user, again, item.sent):
            self._reading[key] = early
            return
        put_behind(self._mailboxes, item)
        attached = self._mailboxes.attach(item, gateway, incarnation, RemoteSession(link, item.handle))
        if attached is None:
            return
        attachment, resumed = attached
        if item.sent is None:
            link.send(peer.Attached(item.handle, self._mailboxes.before(attachment), resumed))
        self._mailboxes.start(attachment)
        for later in early:
            later()

    def _on_astray(self, link: PeerLink, item: peer.Astray) -> None:
        session = self._handles.get(item.handle)
        if session is None:
            return
        if item.epoch > self._routing.barrier.epoch:
            session.owner = NOBODY  # this node is behind, and attaches it when it enters the next epoch
        else:
            self.attach(session)

    def _on_attached(self, link: PeerLink, item: peer.Attached) -> None:
        session = self._handles.get(item.handle)
        if session is not None and not session.welcomed:
            session.welcome(item.resumed, item.start)

    def _on_ack(self, link: PeerLink, item: peer.Ack) -> None:
        if self._early or self._reading:
            acknowledge = partial(
                self._mailboxes.acknowledge_remote, link.name, item.handle, item.epoch, item.number, item.by
            )
            self._after_attach(link, item.handle, acknowledge)
        else:
            self._mailboxes.acknowledge_remote(link.name, item.handle, item.epoch, item.number, item.by)

    def _on_detach(self, link: PeerLink, item: peer.Detach) -> None:
        detach = partial(self._mailboxes.detach_remote, link.name, item.handle, clean=item.clean)
        self._after_attach(link, item.handle, detach)

    def _after_attach(self, link: PeerLink, handle: int, action: Callable[[], None]) -> None:
        """Acts on a session, or keeps the action until the session's attachment is no longer held."""
        key = link.name, handle
        early = self._early.get(key)
        if early is None:
            early = self._reading.get(key)
        if early is None:
            action()
        else:
            early.append(action)

    def _on_expel(self, link: PeerLink, item: peer.Expel) -> None:
        session = self._handles.get(item.handle)
        if session is not None:
            session.expel(item.code, item.reason)

    def _on_deliver(self, link: PeerLink, item: peer.Deliver) -> None:
        session = self._handles.get(item.handle)
        if session is None:
            # From an earlier owner, or to a session that is gone: it goes over with the mailbox, and comes
            # again.
            self.late_deliveries += 1
        else:
            session.deliver(item.epoch, item.number, item.body, item.tracked)

    # --- links and rings

    def link_up(self, link: PeerLink) -> None:
        """A link stands: the owner behind it is told of every session again."""
        self._mailboxes.forget_gateway(link.name, but=link.incarnation)
        for session in self.sessions.values():
            if session.owner == link.name:
                self._attach_there(session, link)

    def link_down(self, link: PeerLink) -> None:
        """A link broke. Its sessions keep their places: it may be back at once."""
        self._mailboxes.suspend(link.name)

    def _on_reconciled(self, link: PeerLink, item: peer.Reconciled) -> None:
        self._mailboxes.reconciled(link.name)

    def move(self) -> None:
        """The ring has changed: sessions go to the new owners of their users."""
        owners = self._routing.owners
        for session in self.sessions.values():
            if session.owner == owners[session.slot]:
                continue
            if session.attachment is not None:
                self._mailboxes.release(session.attachment)
                session.attachment = None
            self.attach(session)

    def none_held(self) -> None:
        """Nothing is held any more: what came early for sessions has been done, or is void."""
        self._early.clear()


def _attach(session: Session) -> peer.Attach:
    sent = (session.sent_epoch, session.sent_number) if session.welcomed else None
    return peer.Attach(
        session.handle,
        session.user,
        session.device,
        session.name,
        session.address,
        session.since_ms,
        sent,
        (session.acked_epoch, session.acked_number) if session.welcomed else None,
        session.by,
        None if session.welcomed else session.resume,
        session.earlier,
    )
