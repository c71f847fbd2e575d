"""What the tests of mailboxes stand on: mailboxes, sessions that remember, time moved by hand."""

from dataclasses import dataclass, field
from typing import Literal

from msgspec import Raw

from ring.mailbox.attachment import Attachment
from ring.mailbox.letter import By, Status
from ring.mailbox.mailbox import Mailbox
from ring.mailbox.owner import Mailboxes
from ring.mailbox.spill import Batch, Spill
from ring.mailbox.vault import Job, Result
from ring.protocol import client
from ring.protocol.codes import ErrorCode
from ring.protocol.names import slot_of
from ring.protocol.peer import Attach, Send, Seq
from ring.transport.wheel import TimerWheel
from tests.mailbox.vault_model import ModelVault

EPOCH = 7

Fate = tuple[str, Status, ErrorCode | None]
"""What a gateway was told: (gateway, status, code)."""


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Seat:
    """A session at its owner, and what came to it."""

    office: "Office"
    name: str
    got: list[tuple[Seq, client.Message, bool]] = field(default_factory=list)
    closed: int | None = None
    attachment: Attachment | None = None
    resumed: bool | Literal["gap"] | None = None
    start: Seq | None = None
    left: bool = False

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        message = _text(body)
        assert message.seq == f"{epoch}-{number}"
        assert not self.got or self.got[-1][0] < (epoch, number), "sequences rise"
        self.got.append(((epoch, number), message, tracked))

    def expel(self, code: int, reason: str) -> None:
        assert self.closed is None
        self.closed = code

    @property
    def ids(self) -> list[str | None]:
        """The ids of the messages that came, in order."""
        return [message.id for _, message, _ in self.got]

    @property
    def numbers(self) -> list[int]:
        """The counters of the messages that came, in order."""
        return [seq[1] for seq, _, _ in self.got]

    @property
    def marked(self) -> list[str | None]:
        """The ids of those that were marked as redelivered."""
        return [message.id for _, message, _ in self.got if message.redelivered is True]

    @property
    def last(self) -> Seq:
        """The sequence of the latest message."""
        return self.got[-1][0]

    def ack(self, seq: Seq | None = None, *, by: By = "client") -> None:
        """Acknowledges up to `seq`, or all that came."""
        assert self.attachment is not None
        self.office.mailboxes.acknowledge(self.attachment, *(seq or self.last), by)

    def leave(self, *, clean: bool) -> None:
        """The connection ends, maybe before the session was attached."""
        self.left = True
        if self.attachment is not None:
            self.office.mailboxes.detach(self.attachment, clean=clean)


class Office:
    """The mailboxes of node n1; fates are looked up by the message that they belong to.

    With a `store`, what nobody acknowledges goes there, batch by batch, when the test says so (`carry`).
    """

    def __init__(
        self,
        *,
        epoch: int = EPOCH,
        clock: Clock | None = None,
        node: str = "n1",
        store: ModelVault | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.wheel = TimerWheel(self.clock)
        self.node = node
        self.store = store
        self.redis = True  # is there
        self.spill = None if store is None else Spill(connected=lambda: self.redis, clock=self.clock)
        self.fenced = 0  # times that Redis said so
        self.mailboxes = Mailboxes(
            node=node,
            incarnation=f"{node}/1",
            wheel=self.wheel,
            notify=self._notify,
            spill=self.spill,
            clock=self.clock,
        )
        self.mailboxes.fenced = self._on_fenced
        self.mailboxes.moved(epoch, set(), ())
        self.fates: list[tuple[str, Status, By | None, ErrorCode | None]] = []
        self._told: dict[str, list[Fate]] = {}
        self._ids: dict[int, str] = {}
        self._sessions = 0

    def _notify(
        self,
        gateway: str,
        ref: int,
        status: Status,
        by: By | None,
        code: ErrorCode | None,
        message: str | None,
    ) -> None:
        assert (status == "failed") == (code is not None) == (message is not None)
        assert (status == "delivered") == (by is not None)
        message_id = self._ids[ref]
        self.fates.append((message_id, status, by, code))
        self._told.setdefault(message_id, []).append((gateway, status, code))

    def _on_fenced(self) -> None:
        self.fenced += 1

    def told(self, message_id: str) -> list[Fate]:
        """All that was said about a message, to whom, in order."""
        return self._told.get(message_id, [])

    def code(self, message_id: str) -> ErrorCode | None:
        """Why the message failed; it was told once."""
        [(_, status, code)] = self.told(message_id)
        assert status == "failed"
        return code

    def send(
        self,
        message_id: str | None,
        *,
        to: str = "bob",
        sender: str | None = "alice",
        gateway: str = "n1",
        tracked: bool = True,
        again: bool = False,
        origin: str = "",
        ttl_ms: int = 0,
        data: bytes = b"1",
        ref: int | None = None,
        routed: int = 0,
    ) -> int:
        """A message comes; returns its reference."""
        if ref is None:
            ref = len(self._ids) + 1 if tracked else 0
        if ref and message_id is not None:
            self._ids[ref] = message_id
        send = Send(ref, sender, message_id, to, data, 5, again, origin, ttl_ms)
        self.mailboxes.accept(gateway, send, routed)
        return ref

    def attach(
        self,
        device: str = "phone",
        *,
        user: str = "bob",
        session: str | None = None,
        gateway: str = "n1",
        incarnation: str | None = None,
        handle: int = 0,
        since_ms: int = 0,
        sent: Seq | None = None,
        acked: Seq | None = None,
        by: By = "client",
        resume: str | None = None,
        start: bool = True,
    ) -> Seat:
        """A session comes to its user's mailbox: at once, or when that has been read. Its seat has no
        attachment until then, nor if it was turned away."""
        self._sessions += 1
        seat = Seat(self, session or f"{self.node}.{self._sessions}")
        attach = Attach(handle, user, device, seat.name, "1.2.3.4:5", since_ms, sent, acked, by, resume)

        def come() -> None:
            if seat.left or not self.mailboxes.ready(user, come, sent):
                return
            attached = self.mailboxes.attach(attach, gateway, incarnation or f"{gateway}/1", seat)
            if attached is not None:
                seat.attachment, seat.resumed = attached
                seat.start = self.mailboxes.before(seat.attachment)
                if start:
                    self.mailboxes.start(seat.attachment)

        come()
        return seat

    def box(self, user: str = "bob") -> Mailbox:
        """The user's mailbox, which is there."""
        return self.mailboxes.boxes[user]

    def pass_time(self, seconds: float) -> None:
        """Time goes by, and what is due happens when it is due."""
        end = self.clock.now + seconds
        while (due := self.wheel.next_due()) is not None and due <= end:
            self.clock.now = max(self.clock.now, due)
            self.wheel.advance(self.clock.now)
        self.clock.now = end

    # --- Redis

    @property
    def asked(self) -> Spill:
        """What carries letters to the store."""
        assert self.spill is not None
        return self.spill

    def do(self, batch: Batch) -> list[Job]:
        """The store does what a batch asks for, and answers."""
        self.asked.settle(batch, [self.do_job(job) for job in batch.jobs])
        return batch.jobs

    def carry(self) -> list[Job]:
        """All that is asked of the store is done, and what is asked for then; returns that."""
        done: list[Job] = []
        for _ in range(1000):
            batch = self.asked.take()
            if not batch.jobs:
                return done
            done += self.do(batch)
        raise AssertionError("it never ends")

    def carry_unheard(self) -> Batch:
        """The store does the next batch, and the answer is lost."""
        batch = self.asked.take()
        for job in batch.jobs:
            self.do_job(job)
        self.asked.put_back(batch)
        return batch

    def spend(self, seconds: float) -> list[Job]:
        """As `pass_time`, with a store that answers at once: returns what it has done."""
        done = self.carry()
        end = self.clock.now + seconds
        while (due := self.wheel.next_due()) is not None and due <= end:
            self.pass_time(max(due - self.clock.now, 0))
            done += self.carry()
        self.clock.now = end
        return done

    def be_away(self, seconds: float) -> None:
        """As `pass_time`, with a store that is not there."""
        for _ in range(round(seconds / 0.1)):
            self.pass_time(0.1)
            self.asked.give_up()

    def do_job(self, job: Job) -> Result:
        """What the store answers to a job."""
        assert self.store is not None
        self.store.now_ms = round(self.clock.now * 1000)
        return self.store.do(job)

    @property
    def bobs_slot(self) -> int:
        """Bob's."""
        return slot_of("bob")

    def kept(self, user: str = "bob") -> list[str | None]:
        """The ids of the messages that the store keeps for a user, in order."""
        assert self.store is not None
        return [_text(one.letter.body).id for one in self.store.box(slot_of(user), user).kept]


def _text(body: bytes) -> client.Message:
    message = client.decode_server(body)
    assert isinstance(message, client.Message)
    return message


def body(message_id: str, epoch: int, number: int) -> bytes:
    """A message of alice's as an owner stores it."""
    return client.encode(client.Message("alice", message_id, f"{epoch}-{number}", Raw(b"1"), 5))


def stored_office(**options: int) -> Office:
    """An office with a store of its own."""
    return Office(store=ModelVault(**{"letters": 5000, "size": 2**24, "keep_s": 3600, **options}))


def silent(*ids: str) -> tuple[Office, Seat]:
    """Bob's client, which has been sent these and acknowledges nothing."""
    office = stored_office()
    seat = office.attach()
    office.carry()
    for message_id in ids:
        office.send(message_id)
    return office, seat
