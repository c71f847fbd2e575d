"""One node's routing without sockets: what peers say is said by hand, and what it says is kept."""

from typing import Any, cast

from ring.cluster.view import Member, RingView
from ring.mailbox.letter import By, Status
from ring.mailbox.owner import Mailboxes
from ring.mailbox.pending import Pending
from ring.mailbox.spill import Spill
from ring.protocol import peer
from ring.protocol.codes import ErrorCode
from ring.protocol.names import SLOTS, slot_of
from ring.router.attachments import Attachments
from ring.router.router import Router
from ring.router.routing import Routing
from ring.router.transition import Transition
from ring.router.whois import WhoIs
from ring.transport.wheel import TimerWheel
from tests.mailbox.vault_model import ModelVault


class FakeLink:
    """A link that keeps what is sent on it."""

    def __init__(self, name: str, incarnation: str) -> None:
        self.name = name
        self.incarnation = incarnation
        self.busy = False
        self.version = 2
        self.epoch = 0
        self.queued_bytes = 0
        self.items: list[peer.Item] = []
        self.urgent: list[peer.Item] = []

    def send(self, item: peer.Item) -> None:
        # As the wire would: what is changed later has been sent already.
        self.items.append(peer.decode_batch(peer.encode(peer.Batch(0, 0, [item]))).items[0])

    def send_urgent(self, item: peer.Item) -> None:
        self.urgent.append(item)

    def said(self, *kinds: type) -> list[Any]:
        """What was sent since it was last asked; of these types, if any are named."""
        items, self.items, urgent, self.urgent = self.items, [], self.urgent, []
        return [item for item in urgent + items if not kinds or type(item) in kinds]


class FakeSender:
    """A session that sends, as the router sees it."""

    def __init__(self, user: str = "alice", name: str = "n1.1") -> None:
        self.user = user
        self.name = name
        self.refs: dict[str, int] = {}
        self.receipts: list[tuple[str, Status, ErrorCode | None]] = []

    def receipt(
        self, message_id: str, status: Status, by: By | None, code: ErrorCode | None, message: str | None
    ) -> None:
        self.receipts.append((message_id, status, code))


class FakeSession(FakeSender):
    """A session that is attached, too."""

    sid = 0
    settled = True

    def __init__(self, user: str, device: str = "phone") -> None:
        FakeSession.sid += 1
        super().__init__(user, f"n1.{FakeSession.sid}")
        self.sid = FakeSession.sid
        self.handle = 0
        self.device = device
        self.address = "here"
        self.slot = slot_of(user)
        self.since_ms = self.sid
        self.owner = ""
        self.attachment: Any = None
        self.welcomed = False
        self.resume: str | None = None
        self.by: By = "client"
        self.sent_epoch = self.sent_number = self.acked_epoch = self.acked_number = 0
        self.earlier: list[peer.Seq] = []
        self.got: list[bytes] = []
        self.welcomes: list[object] = []
        self.closed: int | None = None

    def welcome(self, resumed: object, start: peer.Seq) -> None:
        self.welcomed = True
        self.welcomes.append(resumed)
        self.sent_epoch, self.sent_number = self.acked_epoch, self.acked_number = start

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        self.sent_epoch, self.sent_number = epoch, number
        self.got.append(body)

    def expel(self, code: int, reason: str) -> None:
        self.attachment = None
        self.closed = code

    def reconnect(self, after_ms: int, reason: str) -> None:
        raise AssertionError("nobody drains here")


class Node:
    """Node n1 with its peers n2 and n3; `owners` says whose a user is, n1 owns all others.

    With a `store`, what nobody acknowledges goes there when the test says so (`carry`).
    """

    def __init__(
        self,
        *,
        epoch: int = 5,
        peers: tuple[str, ...] = ("n2", "n3"),
        store: ModelVault | None = None,
        **owners: str,
    ) -> None:
        self.now = 1000.0
        self.store = store
        self.spill = None if store is None else Spill(connected=lambda: True, clock=self.clock)
        self.wheel = TimerWheel(self.clock)
        self.links: dict[str, FakeLink] = {}
        self.mailboxes = Mailboxes(
            node="n1",
            incarnation="n1/1",
            wheel=self.wheel,
            notify=lambda *fate: self.router.notify(*fate),
            spill=self.spill,
            clock=self.clock,
        )
        self.pending = Pending(clock=self.clock)
        self.routing = Routing(node="n1", incarnation="n1/1", links=cast("Any", self.links))
        self.attachments = Attachments(self.routing, self.mailboxes)
        self.router = Router(self.routing, self.mailboxes, self.pending)
        self.settled = 0
        self.transition = Transition(
            self.routing,
            self.mailboxes,
            self.attachments,
            self.router,
            self.wheel,
            on_settled=self._on_settled,
            clock=self.clock,
        )
        self.whois = WhoIs(self.routing, self.mailboxes)
        self.members = {
            name: Member(name, f"{name}/1", "e", "p", "a", 1, "up", "0") for name in ("n1", *peers)
        }
        self.table = ["n1"] * SLOTS
        for name in peers:
            self.up(name)
        for user, owner in owners.items():
            self.table[slot_of(user)] = owner
        self.enter(epoch)
        self.done(epoch)
        for link in self.links.values():
            link.said()

    def _on_settled(self) -> None:
        self.settled += 1

    def clock(self) -> float:
        return self.now

    def up(self, name: str, incarnation: str | None = None) -> FakeLink:
        """A link stands."""
        link = self.links[name] = FakeLink(name, incarnation or f"{name}/1")
        self.transition.link_up(cast("Any", link))
        return link

    def down(self, name: str) -> None:
        """A link broke."""
        self.attachments.link_down(cast("Any", self.links.pop(name)))

    def says(self, name: str, *items: peer.Item) -> None:
        """What a peer says."""
        self.routing.on_items(cast("Any", self.links[name]), list(items))

    def enter(self, epoch: int, *, skipped: bool = False, **owners: str) -> None:
        """The node enters the next view, in which these users are others'; or one behind the next."""
        before = self.routing.view.epoch if self.routing.view is not None else 0
        for user, owner in owners.items():
            self.table[slot_of(user)] = owner
        view = RingView.build(
            "c",
            epoch,
            self.members.values(),
            list(self.table),
            previous=epoch - 1 if skipped else before,
        )
        self.transition.enter(view)

    def entered(self, epoch: int) -> None:
        """All peers say that they have entered."""
        for name in tuple(self.links):
            self.says(name, peer.Entered(epoch))

    def done(self, epoch: int) -> None:
        """All peers say that they have entered, and handed over."""
        self.entered(epoch)
        for name in tuple(self.links):
            self.says(name, peer.Handed(epoch))

    def send(
        self,
        sender: FakeSender,
        message_id: str | None,
        to: str,
        *,
        receipt: bool = True,
        again: bool = False,
    ) -> peer.Send:
        """A client's message."""
        send = peer.Send(0, sender.user, message_id, to, b"1", 5, again, "", 0)
        self.router.send(sender, send, receipt=receipt)
        return send

    def open(self, user: str, device: str = "phone", *, resume: str | None = None) -> FakeSession:
        """A client connects."""
        session = FakeSession(user, device)
        session.resume = resume
        self.attachments.open(cast("Any", session))
        return session

    def carry(self) -> int:
        """The store does all that it is asked for; returns how many jobs that were."""
        assert self.store is not None
        assert self.spill is not None
        done = 0
        while (batch := self.spill.take()).jobs:
            self.store.now_ms = round(self.now * 1000)
            self.spill.settle(batch, [self.store.do(job) for job in batch.jobs])
            done += len(batch.jobs)
        return done

    def pass_time(self, seconds: float) -> None:
        """Time goes by, and what is due happens when it is due."""
        end = self.now + seconds
        while (due := self.wheel.next_due()) is not None and due <= end:
            self.now = max(self.now, due)
            self.wheel.advance(self.now)
        self.now = end


def message(message_id: str | None, to: str = "bob", *, ref: int = 1, again: bool = False) -> peer.Send:
    """A message as a peer sends it."""
    return peer.Send(ref, "carol", message_id, to, b"1", 5, again, "", 0)
