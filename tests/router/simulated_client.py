"""Clients of a cluster in memory, and their sessions as the router sees them."""

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from msgspec import UNSET

from ring.mailbox.attachment import Attachment
from ring.mailbox.letter import By, Status
from ring.protocol import client, peer
from ring.protocol.codes import ErrorCode
from ring.protocol.names import slot_of

if TYPE_CHECKING:
    from tests.router.simulation import Node


@dataclass(eq=False)
class Client:
    """A client of one user and device, that may reconnect: what it got, what it was told.

    One that `lags` reads what came to its connection when the test says so, not at once.
    """

    user: str
    device: str
    lags: bool = False
    got: list[client.Message] = field(default_factory=list)
    acked: set[str | None] = field(default_factory=set)
    again: list[client.Message] = field(default_factory=list)  # came though it had been acknowledged
    receipts: dict[str, list[tuple[Status, ErrorCode | None]]] = field(default_factory=dict)
    unanswered: dict[str, peer.Send] = field(default_factory=dict)
    session: "Session | None" = None
    resumed: list[bool | str] = field(default_factory=list)

    def has_read(self) -> None:
        """It says so of all that it got."""
        self.acked.update(message.id for message in self.got)


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
        self.wire: deque[client.Message | client.Receipt] = deque()  # what the client has not read yet
        self.read_to = (0, 0)
        self.resumed: bool | str = False
        self.got: list[str | None] = []
        self.told: set[str | None] = set()  # what it has acknowledged

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
        self.resumed = resumed
        self.client.resumed.append(resumed)

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        assert self.welcomed
        assert (epoch, number) > (self.sent_epoch, self.sent_number)
        if epoch != self.sent_epoch:
            self.earlier.append((self.sent_epoch, self.sent_number))
        self.sent_epoch, self.sent_number = epoch, number
        message = client.decode_server(body)
        assert isinstance(message, client.Message)
        self._write(message)

    def expel(self, code: int, reason: str) -> None:
        self.closed = code
        self.attachment = None
        if self.client.session is self:
            self.client.session = None
        self.node.close(self)

    def reconnect(self, after_ms: int, reason: str) -> None:
        raise AssertionError("nobody drains here")

    def receipt(
        self, message_id: str, status: Status, by: By | None, code: ErrorCode | None, message: str | None
    ) -> None:
        to, redis = self.node.cluster.sent[message_id].to, self.node.cluster.redis
        if status == "queued":
            assert redis is not None
            assert (to, message_id) in redis.stored, f"{message_id} was {status} before Redis had it"
        if status == "delivered":
            recipients = [one for one in self.node.cluster.clients if one.user == to]
            assert any(message_id in one.acked for one in recipients), f"nobody acknowledged {message_id}"
        self._write(client.Receipt(message_id, status, code=code or UNSET))

    def _write(self, frame: client.Message | client.Receipt) -> None:
        if self.closed is None:
            self.wire.append(frame)
            if not self.client.lags:
                self.read(1)

    def read(self, frames: int) -> None:
        """The client reads what has come to it."""
        while frames and self.wire:
            frames -= 1
            frame = self.wire.popleft()
            if isinstance(frame, client.Message):
                self.client.got.append(frame)
                self.got.append(frame.id)
                # Behind a cursor what was stored may come again, marked.
                known = self.client.acked if frame.redelivered is not True else self.told
                if frame.id in known and frame.id not in self.node.cluster.resent:
                    self.client.again.append(frame)
                self.read_to = client.parse_seq(frame.seq)
            else:
                code = None if frame.code is UNSET else frame.code
                self.client.receipts.setdefault(frame.id, []).append((frame.status, code))
                self.client.unanswered.pop(frame.id, None)

    def acknowledge(self) -> None:
        """The client has all that it has read."""
        if (self.acked_epoch, self.acked_number) < self.read_to:
            self.client.has_read()
            self.told.update(self.got)
            self.node.act(partial(self._acknowledge, self.read_to))

    def _acknowledge(self, seq: peer.Seq) -> None:
        if self.closed is None and (self.acked_epoch, self.acked_number) < seq:
            self.acked_epoch, self.acked_number = seq
            self.node.attachments.acknowledge(self)
