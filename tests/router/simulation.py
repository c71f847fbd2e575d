"""A cluster in memory: real routers and mailboxes, links that are lists, time that a test moves.

Whatever a network may do within its promises can be chosen here step by step: which link carries its next
item, which node enters a new view when, who dies, who stands still. A link keeps order, except that urgent
items overtake. What is stored goes to `redis`, if there is one.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from ring.cluster.view import Member, RingView
from ring.mailbox.owner import Mailboxes
from ring.mailbox.pending import Pending
from ring.protocol import peer
from ring.protocol.names import SLOTS, slot_of
from ring.router.attachments import Attachments
from ring.router.router import Router
from ring.router.routing import Routing
from ring.router.transition import Transition
from ring.transport.wheel import TimerWheel
from tests.router.simulated_client import Client, Session
from tests.router.simulated_link import Link, copied
from tests.router.simulated_redis import Carrier, SimulatedRedis


class Node:
    """A node without sockets."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.incarnation = f"{name}/{cluster.next_number()}"
        self.wheel = TimerWheel(cluster.clock)
        self.links: dict[str, Link] = {}
        self.frozen = False  # neither sees nor does anything: as after SIGSTOP
        self.later: list[Callable[[], None]] = []  # what its clients did meanwhile
        self.carrier = Carrier(cluster.redis, cluster.clock) if cluster.redis is not None else None
        self.mailboxes = Mailboxes(
            node=name,
            incarnation=self.incarnation,
            wheel=self.wheel,
            notify=lambda *fate: self.router.notify(*fate),
            spill=None if self.carrier is None else self.carrier.spill,
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

    def act(self, action: Callable[[], None]) -> None:
        """A client does something: what comes to a node that stands still waits for it."""
        if self.frozen:
            self.later.append(action)
        else:
            action()

    def close(self, session: Session, *, clean: bool = False) -> None:
        self.pending.drop(session)
        self.attachments.close(session, clean=clean)

    def enter(self, view: RingView) -> None:
        self.epoch = view.epoch
        self.cluster.connect_all(self, view)
        self.transition.enter(view)


class Cluster:
    """Nodes, their links, their clients, and the newest view of the ring."""

    def __init__(self, seed: int, redis: SimulatedRedis | None = None) -> None:
        self.random = random.Random(seed)
        self.redis = redis
        self.now = 1000.0
        self.nodes: dict[str, Node] = {}
        self.clients: list[Client] = []
        self.sent: dict[str, peer.Send] = {}
        self.resent: set[str | None] = set()
        self.snapped: list[Link] = []  # ends whose node has not noticed yet
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
        if dead.carrier is not None:
            dead.carrier.die()
        for link in tuple(dead.links.values()):
            link.twin.lose()
        self.snapped = [link for link in self.snapped if link.here is not dead and link.there is not dead]
        for one in self.clients:
            if one.session is not None and one.session.node is dead:
                one.session = None

    def cut(self, here: Node, there: Node) -> None:
        """A link breaks and is there again: what was on its way is lost."""
        self.connect(here, there)

    def snap(self, link: Link, kept: int) -> None:
        """A link breaks; either side notices when the test says so."""
        for end in (link, link.twin):
            end.snap(kept)
            if end.here.links.get(end.name) is end:
                self.snapped.append(end)

    def cut_off(self, node: Node) -> None:
        """All links of a node break, and the others notice; what was on its way is lost."""
        for link in tuple(node.links.values()):
            self.snap(link, 0)
        for end in [end for end in self.snapped if end.there is node]:
            self.notice(end)

    def notice(self, end: Link) -> None:
        """A node finds that a link is broken."""
        self.snapped.remove(end)
        end.lose()

    def connect(self, here: Node, there: Node) -> None:
        """Makes a link; an older one has broken then."""
        for node, other in ((here, there), (there, here)):
            if other.name in node.links:
                node.links[other.name].lose()
        self.snapped = [end for end in self.snapped if {end.here, end.there} != {here, there}]
        ends = Link(here, there), Link(there, here)
        for end, twin in (ends, ends[::-1]):
            end.here.links[end.name], end.twin = end, twin
        for end in ends:
            end.here.transition.link_up(end)  # type: ignore[arg-type] # a link of the simulation

    def connect_all(self, node: Node, view: RingView) -> None:
        for name in view.names:
            other = self.nodes.get(name)
            if other is not None and other is not node and name not in node.links and not other.frozen:
                self.connect(node, other)

    # --- clients

    def attach(self, one: Client, node: Node, resume: str | None = None) -> None:
        """A client connects, and sends again what has no receipt."""
        session = one.session = Session(node, self.next_number(), one, resume)
        if resume is not None:
            one.has_read()
        node.act(partial(node.attachments.open, session))
        for send in tuple(one.unanswered.values()):
            self.resent.add(send.id)
            again = replace(send, again=True)
            node.act(partial(self._route, session, again))

    def leave(self, one: Client, *, clean: bool) -> None:
        """A client goes, with what it has read."""
        session, one.session = one.session, None
        assert session is not None
        session.closed = 1000 if clean else 1006
        session.node.act(partial(session.node.close, session, clean=clean))

    def reconnect(self, one: Client) -> None:
        """A client comes back on any node, behind the last message that it had."""
        self.attach(one, self.random.choice(list(self.nodes.values())), one.got[-1].seq if one.got else None)

    def send(self, one: Client, to: str, ttl_ms: int = 0) -> None:
        """A client sends a message of its own id."""
        assert one.session is not None
        message_id = f"m{self.next_number()}"
        send = peer.Send(0, one.user, message_id, to, b"1", round(self.now * 1000), False, "", ttl_ms)
        self.sent[message_id] = one.unanswered[message_id] = send
        self.order.append((message_id, one))
        one.session.node.act(partial(self._route, one.session, copied(send)))

    def _route(self, session: Session, send: peer.Send) -> None:
        if session.closed is None:
            session.node.router.send(session, send, receipt=True)

    # --- steps

    def live_links(self) -> list[Link]:
        standing = {link: None for node in self.nodes.values() for link in node.links.values()}
        late = dict.fromkeys(end.twin for end in self.snapped)
        return [link for link in standing | late if link.can_step()]

    def behind(self) -> list[Node]:
        assert self.view is not None
        return [node for node in self.nodes.values() if node.epoch < self.view.epoch and not node.frozen]

    def carriers(self) -> list[Carrier]:
        """Of nodes whose way to Redis can go a step."""
        ways = [node.carrier for node in self.nodes.values() if node.carrier is not None and not node.frozen]
        return [way for way in ways if way.can_step()]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for node in tuple(self.nodes.values()):
            if node.frozen:
                continue
            node.wheel.advance(self.now)
            if node.carrier is not None:
                node.carrier.pass_time()
            for held in node.pending.overdue():
                node.router.route_again(held)

    def settle(self) -> None:
        """All that can happen without time passing happens."""
        assert self.view is not None
        while True:
            for node in self.behind():
                node.enter(self.view)
            ways: list[Link | Carrier] = [*self.live_links(), *self.carriers()]
            if ways:
                self.random.choice(ways).step()
                continue
            for one in self.clients:
                if one.session is not None:
                    one.session.read(len(one.session.wire))
                    one.session.acknowledge()
            if not (self.live_links() or self.carriers()):
                return
