"""The numbers of a node, read from all its parts; `table` says which metric shows which.

The parts count in plain attributes, an addition per message at most; nothing here runs before somebody asks.
"""

from collections.abc import Callable
from typing import Protocol, get_args

from ring.api.app import NodeState
from ring.api.metrics import Distribution, Value
from ring.cluster.membership import Membership
from ring.config import Settings
from ring.edge.admission import Admission
from ring.mailbox.letter import By
from ring.mailbox.owner import Mailboxes
from ring.mailbox.pending import Pending
from ring.mailbox.spill import FAILURES
from ring.peers.link import PeerLink
from ring.peers.waiting import Traffic
from ring.protocol.codes import CLOSINGS, CloseCode, ErrorCode
from ring.rooms.rooms import Rooms
from ring.router.attachments import Attachments
from ring.router.death_watch import DeathWatch
from ring.router.router import Router
from ring.router.routing import Routing
from ring.router.transition import Transition
from ring.transport.listener import Listener
from ring.transport.pump import Pump
from ring.transport.timing import TICK_BOUNDS_S

_CLOSES = frozenset(CLOSINGS) | {CloseCode.NO_STATUS, CloseCode.ABNORMAL}
"""Codes that are told apart: a client may close with any of thousands."""

_LINKS = ("up", "refused", "timeout", "refused_by_peer", "none")
"""What a link to a member may be: as `GET /v1/nodes` says it."""


class Lasting(Protocol):
    """A connection to the store that is made again when it breaks."""

    connections_made: int

    @property
    def connected(self) -> bool:
        """True while it stands."""


class Parts(Protocol):
    """What a node is made of, as far as its numbers are read here."""

    name: str
    settings: Settings
    pump: Pump
    routing: Routing
    mailboxes: Mailboxes
    pending: Pending
    attachments: Attachments
    router: Router
    transition: Transition
    admission: Admission
    rooms: Rooms
    deaths: DeathWatch

    @property
    def state(self) -> NodeState:
        """Whether the node serves clients."""

    @property
    def degraded(self) -> list[str]:
        """What the node has to do without."""

    def links(self) -> dict[str, str]:
        """The state of the link to each other member."""


class Telemetry:
    """Reads the numbers of a node. All calls are plain ones on Trio's thread.

    Attributes:
        node: whose numbers.
        ring_changes: epochs that the node has entered.
        edge, membership, store: what a node has once it runs; `store` are its connections to Redis, by their
            use.
    """

    def __init__(self, node: Parts) -> None:
        self.node = node
        self.census = node.admission.census
        self.ring_changes = 0
        self.edge: Listener | None = None
        self.membership: Membership | None = None
        self.store: dict[str, Lasting] = {}
        self._traffic: dict[str, Traffic] = {}  # of the last link to each peer
        self._carried: dict[str, Traffic] = {}  # by all before it

    def link_up(self, link: PeerLink) -> None:
        """A link stands; what earlier ones to the same peer have carried still counts."""
        self.peers()  # those that are gone are forgotten, also where nobody scrapes
        before = self._traffic.get(link.name)
        if before is not None:
            self._carried.setdefault(link.name, Traffic()).add(before)
        self._traffic[link.name] = link.traffic

    def figures(self) -> dict[str, float]:
        """The node's own counts, as `GET /v1/nodes` shows them; once it is a member."""
        node, (here, away) = self.node, self.sessions()
        assert self.membership is not None
        return {
            "sessions": here + away,
            "users": self.users(),
            "off_owner": away,
            "mailboxes": len(node.mailboxes.boxes),
            "pending": len(node.pending),
            "links": len(node.routing.links),
            "lease_age_s": round(self.membership.lease_age_s, 3),
            "lag_ms": round(node.pump.greatest_lag_s * 1000, 1),
            "dropped_untracked": node.mailboxes.dropped_untracked,
            "late_deliveries": node.attachments.late_deliveries,
            "lost_mailboxes": node.transition.lost_mailboxes,
            "refused": sum(node.admission.refused.values()),
        }

    # --- what takes more than a look

    def sessions(self) -> tuple[int, int]:
        """Sessions of this node: of users whom it owns, and of others."""
        sessions = self.node.attachments.sessions
        here = sum(session.owner == self.node.name for session in sessions.values())
        return here, len(sessions) - here

    def users(self) -> int:
        """Users who have a session here."""
        return len({session.user for session in self.node.attachments.sessions.values()})

    def closed(self) -> Value:
        """Ends of client connections, by close code."""
        names = [*map(str, map(int, sorted(_CLOSES))), "other"]
        counts: dict[tuple[str, ...], float] = {(name,): 0 for name in names}
        for code, count in self.census.closed.items():
            counts[(str(int(code)) if code in _CLOSES else "other",)] += count
        return counts

    def refused(self) -> dict[ErrorCode, int]:
        """Refusals by HTTP, and those that are told a browser once it is in."""
        counts = dict(self.census.farewells)
        for code, count in (self.edge.refused if self.edge is not None else {}).items():
            counts[code] = counts.get(code, 0) + count
        return counts

    def receipts(self) -> Value:
        """Receipts, by what became of the message."""
        receipts = self.census.receipts
        counts: dict[tuple[str, ...], float] = {("queued", "", ""): receipts["queued"]}
        counts |= {("delivered", by, ""): receipts[by] for by in get_args(By)}
        counts |= {("failed", "", code.value): receipts[code] for code in ErrorCode}
        return counts

    def unacknowledged(self) -> int:
        """Letters in the mailboxes here that have no fate yet."""
        boxes = self.node.mailboxes.boxes.values()
        return sum(len(box.unsettled()) for box in boxes if box.unsettled_bytes)

    def spilled(self, what: str) -> float:
        """A count of stored mailboxes; 0 where nothing is stored."""
        spill = self.node.mailboxes.spill
        return 0 if spill is None else getattr(spill, what)

    def unstored(self) -> Value:
        """Messages that could not be stored, by reason."""
        spill = self.node.mailboxes.spill
        return {(reason,): 0 if spill is None else spill.failed[reason] for reason in FAILURES}

    def peers(self) -> list[str]:
        """Each other node that is a member or linked; what others have carried is forgotten."""
        names = {*self.node.routing.links, *self.node.links()}
        for name in self._traffic.keys() - names:
            del self._traffic[name]
            self._carried.pop(name, None)
        return sorted(names)

    def linked(self, read: Callable[[PeerLink], float]) -> Value:
        """A number of the link to each peer; 0 where there is none."""
        links = self.node.routing.links
        return {(name,): read(links[name]) if name in links else 0 for name in self.peers()}

    def carried(self, what: str) -> Value:
        """What the links have carried: `frames`, `items` or `bytes`, by peer and direction."""
        counts: dict[tuple[str, ...], float] = {}
        for name in self.peers():
            total = Traffic()
            if name in self._carried:
                total.add(self._carried[name])
            if name in self._traffic:
                total.add(self._traffic[name])
            for way in ("in", "out"):
                counts[name, way] = getattr(total, f"{what}_{way}")
        return counts

    def linkage(self) -> Value:
        """How many of the other members can be reached, and why not the others."""
        states = list(self.node.links().values())
        return {(state,): states.count(state) for state in (*_LINKS, *sorted({*states}.difference(_LINKS)))}

    def epoch(self) -> int:
        """Of the ring that the node routes by; 0 while it is joining."""
        view = self.node.routing.view
        return 0 if view is None else view.epoch

    def members(self) -> int:
        """How many nodes are in that ring."""
        view = self.node.routing.view
        return 0 if view is None else len(view.members)

    def slots(self) -> int:
        """Slots that this node owns by its ring."""
        return self.node.routing.owners.count(self.node.name)

    def tick_times(self) -> Distribution:
        """How long ticks took."""
        timing = self.node.pump.timing
        return Distribution(TICK_BOUNDS_S, list(timing.ticks), timing.busy_s)
