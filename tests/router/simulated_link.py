"""A link of a cluster in memory: two ends, each a queue of what its node has said."""

from collections import deque
from typing import TYPE_CHECKING, Any

from ring.protocol import peer

if TYPE_CHECKING:
    from tests.router.simulation import Node


class Link:
    """One direction's end of a link: what is sent here arrives at the other node, when the test says so."""

    def __init__(self, here: "Node", there: "Node") -> None:
        self.name = there.name
        self.incarnation = there.incarnation
        self.busy = False
        self.queued_bytes = 0
        self.here = here
        self.there = there
        self.data: deque[tuple[int, Any]] = deque()
        self.urgent: deque[Any] = deque()
        self.twin: Link
        self.broken = False  # nothing goes in any more

    def send(self, item: peer.Item) -> None:
        if not self.broken:
            self.data.append((self.here.epoch, copied(item)))

    def send_urgent(self, item: peer.Item) -> None:
        if not self.broken:
            self.urgent.append(copied(item))

    def can_step(self) -> bool:
        """An item may arrive; one from a higher epoch waits until the other node has entered it."""
        if self.there.frozen:
            return False
        return bool(self.urgent) or bool(self.data and self.data[0][0] <= self.there.epoch)

    def step(self) -> None:
        item = self.urgent.popleft() if self.urgent else self.data.popleft()[1]
        if self.there.links.get(self.here.name) is self.twin:
            self.there.routing.on_items(self.twin, [item])  # type: ignore[arg-type] # of the simulation

    def snap(self, kept: int) -> None:
        """The connection breaks: the oldest of what is on its way may still arrive."""
        self.broken = True
        while len(self.data) > kept:
            self.data.pop()
        while len(self.urgent) > kept:
            self.urgent.pop()

    def lose(self) -> None:
        """This side notices that the link has gone."""
        if self.here.links.get(self.name) is self:
            del self.here.links[self.name]
            self.here.attachments.link_down(self)  # type: ignore[arg-type] # a link of the simulation


def copied(item: Any) -> Any:
    """As the wire would: nobody shares a message with another node."""
    return peer.decode_batch(peer.encode(peer.Batch(0, 0, [item]))).items[0]
