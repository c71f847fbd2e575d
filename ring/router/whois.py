"""Where a user is: asked on any node, answered by the user's owner. For the API, not for messages."""

from time import time_ns

import trio

from ring.mailbox.owner import Mailboxes
from ring.peers.link import PeerLink
from ring.protocol import peer
from ring.protocol.codes import ErrorCode, RingError
from ring.protocol.names import slot_of
from ring.router.routing import Routing


class WhoIs:
    """Asks and answers. Callers own the time-out."""

    def __init__(self, routing: Routing, mailboxes: Mailboxes) -> None:
        self._routing = routing
        self._mailboxes = mailboxes
        self._next = time_ns() // 1000
        self._waiting: dict[int, tuple[trio.Event, list[peer.ThisIs]]] = {}
        routing.handle(peer.WhoIs, self._on_who_is)
        routing.handle(peer.ThisIs, self._on_this_is)

    async def ask(self, user: str) -> list[peer.SessionEntry]:
        """The sessions of `user`, as the owner knows them.

        Raises:
            RingError: `owner_unavailable`: there is no link to the owner, or the slot is moving just now.
        """
        await trio.lowlevel.checkpoint()
        owner = self._routing.owners[slot_of(user)]
        if owner == self._routing.node:
            return self._sessions(user)
        link = self._routing.links.get(owner)
        if link is None:
            raise RingError(
                f"the owner of this user cannot be asked: no link to {owner or 'any node'}",
                code=ErrorCode.OWNER_UNAVAILABLE,
            )
        self._next = ref = self._next + 1
        event, answers = trio.Event(), list[peer.ThisIs]()
        self._waiting[ref] = event, answers
        try:
            link.send(peer.WhoIs(ref, user))
            await event.wait()
        finally:
            del self._waiting[ref]
        sessions = answers[0].sessions
        if sessions is None:
            raise RingError("the user's slot is moving: ask again", code=ErrorCode.OWNER_UNAVAILABLE)
        return sessions

    def _sessions(self, user: str) -> list[peer.SessionEntry]:
        box = self._mailboxes.boxes.get(user)
        if box is None:
            return []
        return [
            peer.SessionEntry(a.session, a.device, a.gateway, a.address, a.position - a.acked)
            for a in box.attachments
        ]

    def _on_who_is(self, link: PeerLink, item: peer.WhoIs) -> None:
        mine = self._routing.owners[slot_of(item.user)] == self._routing.node
        link.send(peer.ThisIs(item.ref, self._sessions(item.user) if mine else None))

    def _on_this_is(self, link: PeerLink, item: peer.ThisIs) -> None:
        waiting = self._waiting.get(item.ref)
        if waiting is not None:
            event, answers = waiting
            answers.append(item)
            event.set()
