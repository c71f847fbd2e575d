"""A cluster in memory: real routers and mailboxes, links that are lists, time that a test moves.

Whatever a network may do within its promises can be chosen here step by step: which link carries its next
item, which node enters a new view when, who dies. A link keeps order, except that urgent items overtake.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from ring.cluster.view import Member, RingView
from ring.mailbox.letter import By, Status
from ring.mailbox.mailbox import Attachment
from ring.mailbox.owner import Mailboxes
from ring.mailbox.pending import Pending
from ring.protocol import client, peer
from ring.protocol.codes import ErrorCode
from ring.protocol.names import SLOTS, slot_of
from ring.router.attachments import Attachments
from ring.router.router import Router
from ring.router.routing import Routing
from ring.router.transition import Transition
from ring.transport.wheel import TimerWheel


class Link:
    """One direction's end of a link: what is sent here arrives at the other node, when the test says so."""

    def __init__(self, cluster: "Cluster", here: "Node", there: "Node") -> None:
        self.name = there.name
        self.incarnation = there.incarnation
        self.busy = False
        self.queued_bytes = 0
        self.cluster = cluster
        self.here = here
        self.there = there
        self.data: deque[tuple[int, Any]] = deque()
        self.urgent: deque[Any] = deque()

    def send(self, item: peer.Item) -> None:
        self.data.append((self.here.epoch, _copy(item)))

    def send_urgent(self, item: peer.Item) -> None:
        self.urgent.append(_copy(item))

    def can_step(self) -> bool:
        """An item may arrive; one from a higher epoch waits until the other node has entered it."""
        return bool(self.urgent) or bool(self.data and self.data[0][0] <= self.there.epoch)

    def step(self) -> None:
        item = self.urgent.popleft() if self.urgent else self.data.popleft()[1]
        back = self.there.links.get(self.here.name)
        if back is not None:
            self.there.routing.on_items(back, [item])  # type: ignore[arg-type] # a link of the simulation


def _copy(item: Any) -> Any:
    """As the wire would: nobody shares a message with another node."""
    return peer.decode_batch(peer.encode(peer.Batch(0, 0, [item]))).items[0]


@dataclass(eq=False)
class Client:
    """A client of one user and device, that may reconnect: what it got, what it was told."""

    user: str
    device: str
    got: list[client.Message] = field(default_factory=list)
    receipts: dict[str, list[tuple[Status, ErrorCode | None]]] = field(default_factory=dict)
    unanswered: dict[str, peer.Send] = field(default_factory=dict)
    session: "Session | None" = None
    resumed: list[bool | str] = field(default_factory=list)


class Session:
    """A session of the simulation, as the router sees it."""

    def __init__(self, node: "Node", sid: int, owner: Client, resume: str | None) -> None:
        self.node = node
        self.sid = sid
        self.handle = 0
        self.client = owner
        self.user = owner.user
        self.device = owner.device
        self.address = "here"
        self.slot = slot_of(owner.user)
        self.since_ms = node.cluster.next_number()
        self.owner = ""
        self.attachment: Attachment | None = None
        self.welcomed = False
        self.resume = resume
        self.by: By = "client"
        self.sent_epoch = self.sent_number = 0
        self.acked_epoch = self.acked_number = 0
        self.earlier: list[peer.Seq] = []
        self.refs: dict[str, int] = {}
        self.closed: int | None = None

    @property
    def settled(self) -> bool:
        return not self.refs

    @property
    def name(self) -> str:
        return f"{self.node.name}.{self.sid}"

    def welcome(self, resumed: bool | Literal["gap"], start: peer.Seq) -> None:
        assert not self.welcomed
        self.welcomed = True
        self.sent_epoch, self.sent_number = self.acked_epoch, self.acked_number = start
        self.client.resumed.append(resumed)

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        assert self.welcomed
        assert (epoch, number) > (self.sent_epoch, self.sent_number)
        if epoch != self.sent_epoch:
            self.earlier.append((self.sent_epoch, self.sent_number))
        self.sent_epoch, self.sent_number = epoch, number
        if self.closed is None:
            self.client.got.append(client.decode_server(body))  # type: ignore[arg-type] # it is a message

    def expel(self, code: int, reason: str) -> None:
        self.closed = code
        self.attachment = None
        self.node.close(self)

    def reconnect(self, after_ms: int, reason: str) -> None:
        raise AssertionError("nobody drains here")

    def receipt(
        self, message_id: str, status: Status, by: By | None, code: ErrorCode | None, message: str | None
    ) -> None:
        if self.closed is None:
            self.client.receipts.setdefault(message_id, []).append((status, code))
            self.client.unanswered.pop(message_id, None)

    def acknowledge(self) -> None:
        """The client has all that it was sent."""
        if (self.acked_epoch, self.acked_number) < (self.sent_epoch, self.sent_number):
            self.acked_epoch, self.acked_number = self.sent_epoch, self.sent_number
            self.node.attachments.acknowledge(self)


class Node:
    """A node without sockets."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.incarnation = f"{name}/{cluster.next_number()}"
        self.wheel = TimerWheel(cluster.clock)
        self.links: dict[str, Link] = {}
        self.mailboxes = Mailboxes(
            node=name,
            incarnation=self.incarnation,
            wheel=self.wheel,
            notify=lambda *fate: self.router.notify(*fate),
            clock=cluster.clock,
        )
        self.pending = Pending(clock=cluster.clock)
        links: Any = self.links
        self.routing = Routing(node=name, incarnation=self.incarnation, links=links)
        self.attachments = Attachments(self.routing, self.mailboxes)
        self.router = Router(self.routing, self.mailboxes, self.pending)
        self.transition = Transition(
            self.routing,
            self.mailboxes,
            self.attachments,
            self.router,
            self.wheel,
            on_settled=lambda: None,
            clock=cluster.clock,
        )
        self.epoch = 0

    def close(self, session: Session) -> None:
        self.pending.drop(session)
        self.attachments.close(session, clean=False)

    def enter(self, view: RingView) -> None:
        self.epoch = view.epoch
        self.cluster.connect_all(self, view)
        self.transition.enter(view)


class Cluster:
    """Nodes, their links, their clients, and the newest view of the ring."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.nodes: dict[str, Node] = {}
        self.clients: list[Client] = []
        self.sent: dict[str, peer.Send] = {}
        self.order: list[tuple[str, Client]] = []
        self.view: RingView | None = None
        self._number = 0
        self._members: dict[str, Member] = {}

    def clock(self) -> float:
        return self.now

    def next_number(self) -> int:
        self._number += 1
        return self._number

    # --- the ring

    def start(self, name: str) -> Node:
        """A new node joins; it enters the view at once, the others when the test says so."""
        node = self.nodes[name] = Node(self, name)
        self._members[name] = Member(name, node.incarnation, "e", "p", "a", 1, "up", "0")
        node.enter(self.change())
        return node

    def drain(self, name: str) -> None:
        """A node gives up its slots, and stays."""
        self._members[name] = Member(name, self.nodes[name].incarnation, "e", "p", "a", 1, "draining", "0")
        self.change()

    def evict(self, name: str) -> None:
        """A node is no longer a member."""
        del self._members[name]
        self.change()

    def change(self) -> RingView:
        """The next epoch. Users' slots are dealt out by chance, so that many move at once."""
        epoch = self.next_number()
        up = sorted(name for name, member in self._members.items() if member.state == "up")
        dealt = {slot_of(c.user): self.random.choice(up) for c in self.clients} if up else {}
        before = self.view.owners if self.view is not None else [""] * SLOTS
        owners = [owner if owner in up else (up[0] if up else "") for owner in before]
        for slot, owner in dealt.items():
            if owners[slot] not in up or self.random.random() < 0.7:
                owners[slot] = owner
        previous = self.view.epoch if self.view is not None else 0
        self.view = RingView.build("sim", epoch, self._members.values(), owners, previous=previous)
        return self.view

    def kill(self, name: str) -> None:
        """A node dies with all that is on its way from it; its clients notice."""
        dead = self.nodes.pop(name)
        for node in self.nodes.values():
            link = node.links.pop(name, None)
            if link is not None:
                node.attachments.link_down(link)  # type: ignore[arg-type] # a link of the simulation
        for one in self.clients:
            if one.session is not None and one.session.node is dead:
                one.session = None

    def cut(self, here: Node, there: Node) -> None:
        """A link breaks and is there again: what was on its way is lost."""
        for node, other in ((here, there), (there, here)):
            link = node.links.pop(other.name, None)
            if link is not None:
                node.attachments.link_down(link)  # type: ignore[arg-type] # a link of the simulation
        self.connect(here, there)

    def connect(self, here: Node, there: Node) -> None:
        for node, other in ((here, there), (there, here)):
            node.links[other.name] = Link(self, node, other)
        for node, other in ((here, there), (there, here)):
            link: Any = node.links[other.name]
            node.transition.link_up(link)

    def connect_all(self, node: Node, view: RingView) -> None:
        for name in view.names:
            if name in self.nodes and name != node.name and name not in node.links:
                self.connect(node, self.nodes[name])

    # --- clients

    def attach(self, one: Client, node: Node, resume: str | None = None) -> None:
        """A client connects, and sends again what has no receipt."""
        session = one.session = Session(node, self.next_number(), one, resume)
        node.attachments.open(session)
        for send in tuple(one.unanswered.values()):
            again = peer.Send(0, send.sender, send.id, send.to, send.data, send.sent_at, True, "", 0)
            node.router.send(session, again, receipt=True)

    def reconnect(self, one: Client) -> None:
        """A client comes back on any node, behind the last message that it had."""
        self.attach(one, self.random.choice(list(self.nodes.values())), one.got[-1].seq if one.got else None)

    def send(self, one: Client, to: str) -> None:
        """A client sends a message of its own id."""
        session = one.session
        assert session is not None
        message_id = f"m{self.next_number()}"
        send = peer.Send(0, one.user, message_id, to, b"1", 0, False, "", 0)
        self.sent[message_id] = one.unanswered[message_id] = send
        self.order.append((message_id, one))
        session.node.router.send(session, _copy(send), receipt=True)

    # --- steps

    def live_links(self) -> list[Link]:
        return [link for node in self.nodes.values() for link in node.links.values() if link.can_step()]

    def behind(self) -> list[Node]:
        assert self.view is not None
        return [node for node in self.nodes.values() if node.epoch < self.view.epoch]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for node in tuple(self.nodes.values()):
            node.wheel.advance(self.now)
            for held in node.pending.overdue():
                node.router.route_again(held)

    def settle(self) -> None:
        """All that can happen without time passing happens."""
        assert self.view is not None
        while True:
            for node in self.behind():
                node.enter(self.view)
            links = self.live_links()
            if links:
                self.random.choice(links).step()
                continue
            for one in self.clients:
                if one.session is not None:
                    one.session.acknowledge()
            if not self.live_links():
                return
