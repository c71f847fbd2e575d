"""What a node routes by, shared by the router of messages, that of sessions, and the transition between
rings.

Everything runs in the pump's tick, or in one step between ticks: nobody sees these tables half changed.
"""

from collections.abc import Callable
from typing import Any

from ring.cluster.barrier import Barrier
from ring.cluster.placement import NOBODY
from ring.cluster.view import RingView
from ring.peers.link import PeerLink
from ring.protocol import peer
from ring.protocol.names import SLOTS


class HeldSlot:
    """Traffic for a slot that this node gained at `epoch` and does not serve yet, in order."""

    __slots__ = ("attaches", "epoch", "sends")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.sends: list[tuple[str, peer.Send, int]] = []  # with gateways, and epochs they were routed by
        self.attaches: list[Callable[[], None]] = []


class Routing:
    """The ring as this node has entered it, the links, and who handles what comes over them.

    Args:
        node: this node's name, and `incarnation` its life.
        links: the links that are up, by peer name; the mesh keeps it.
    """

    def __init__(self, *, node: str, incarnation: str, links: dict[str, PeerLink]) -> None:
        self.node = node
        self.incarnation = incarnation
        self.links = links
        self.view: RingView | None = None
        self.owners = [NOBODY] * SLOTS
        self.first_epoch = 0  # that this life of the node was a member in
        self.barrier = Barrier()
        self.held: dict[int, HeldSlot] = {}
        """Slots that this node gained and does not serve yet."""
        self.losing: set[int] = set()
        """Slots that this node lost and has not handed over yet."""
        self._handlers: dict[type, Callable[[PeerLink, Any], None]] = {}

    def handle(self, item: type, handler: Callable[[PeerLink, Any], None]) -> None:
        """Has items of this type passed to `handler`, with the link that they came by."""
        self._handlers[item] = handler

    def on_items(self, link: PeerLink, items: list[peer.Item]) -> None:
        """What a peer said, in order."""
        handlers = self._handlers
        for item in items:
            handlers[type(item)](link, item)
