"""One client of this node: its commands in, messages and receipts out. An endpoint on the pump, not a task.

Made by `edge.admission` when a client may come in. It decodes and checks; the router decides where things go.
"""

from collections.abc import Callable
from random import uniform
from time import time
from typing import Any, Literal

from msgspec import UNSET

from ring.edge.early import has_room
from ring.edge.gateway import Gateway
from ring.edge.rooming import RoomCommand, obey
from ring.mailbox.attachment import Attachment
from ring.mailbox.letter import By, Status
from ring.protocol import client, peer
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode
from ring.protocol.names import check_id, check_name, slot_of
from ring.rooms.member import Member
from ring.transport.socket import Socket
from ring.transport.wheel import Timer

PING_S = 0.1
"""`ack=auto`: at most one ping per session in this time carries a sequence."""

WELCOME_S = 10.0
"""How long the owner may take to answer for a new session."""

EARLIER_EPOCHS = 8
"""Of so many epochs a session knows how far it got. What is unsettled of older ones comes again, marked."""

MISSED_BEATS = 2
"""Heartbeats in a row without any sign of life end the connection."""


class ClientSession:
    """A client's session at its gateway. Attributes are those that `attachments.Session` names."""

    __slots__ = (
        "_alive",
        "_beat_timer",
        "_early",
        "_gateway",
        "_missed",
        "_timer",
        "acked_epoch",
        "acked_number",
        "address",
        "attachment",
        "by",
        "device",
        "earlier",
        "expires_at",
        "handle",
        "member",
        "owner",
        "pinged_epoch",
        "pinged_number",
        "refs",
        "resume",
        "sent_epoch",
        "sent_number",
        "sid",
        "since_ms",
        "slot",
        "socket",
        "user",
        "welcomed",
    )

    def __init__(
        self,
        *,
        sid: int,
        user: str,
        device: str,
        address: str,
        by: By,
        resume: str | None,
        expires_at: float | None,
        gateway: Gateway,
    ) -> None:
        self.sid = sid
        self.handle = 0
        self.user = user
        self.device = device
        self.address = address
        self.by: By = by
        self.resume = resume
        self.expires_at = expires_at  # Unix seconds
        self.slot = slot_of(user)
        self.since_ms = round(time() * 1000)
        self.owner = ""
        self.attachment: Attachment | None = None
        self.socket: Socket | None = None
        self.welcomed = False
        self.sent_epoch = self.sent_number = 0
        self.earlier: list[peer.Seq] = []
        self.acked_epoch = self.acked_number = 0
        self.pinged_epoch = self.pinged_number = 0
        self.refs: dict[str, int] = {}
        self._gateway = gateway
        self._early: list[bytes] | None = None
        self.member: Member | None = None  # from the first room command on
        self._timer: Timer | None = None  # until the welcome, then between pings that carry a sequence
        self._beat_timer: Timer | None = None
        self._alive = True
        self._missed = 0

    @property
    def name(self) -> str:
        """What the session is called; no other of the cluster ever is, in no life of the node."""
        return f"{self._gateway.node}.{self.sid:x}"

    @property
    def settled(self) -> bool:
        """True if the client waits for no receipt and no answer."""
        return not self.refs and (self.member is None or not self.member.unanswered)

    # --- the endpoint

    def on_open(self, socket: Socket) -> None:
        """Asks the owner for the session; the welcome is the first frame."""
        self.socket = socket
        self._gateway.census.enter(self.name, self.address)
        self._timer = self._gateway.wheel.call_later(WELCOME_S, self._on_no_welcome)
        heartbeat_s = self._gateway.heartbeat_s
        # Spread, or all that connected in one second would be pinged in one second for ever.
        first_s = uniform(heartbeat_s / 2, heartbeat_s)  # noqa: S311 - nobody gains by guessing it
        self._beat_timer = self._gateway.wheel.call_later(first_s, self._beat)
        self._gateway.attachments.open(self)

    def on_text(self, payload: bytes) -> None:
        """A command."""
        self._alive = True
        if not self.welcomed:
            early = self._early = self._early or []
            if has_room(early, payload):
                early.append(payload)
            else:
                self.close(CloseCode.TRY_AGAIN_LATER, "too much before the welcome")
            return
        try:
            message = client.decode(payload)
        except client.Undecodable as error:
            self._refuse(error)
            return
        if type(message) is client.Send:
            self.on_send(message)
        else:
            _HANDLERS[type(message)](self, message)

    def on_binary(self, payload: bytes) -> None:
        """Ring speaks text alone."""
        self.close(CloseCode.UNSUPPORTED_DATA, "JSON text frames only; put base64 inside data")

    def on_pong(self, payload: bytes) -> None:
        """An answer to a heartbeat, or to a ping that carried a sequence: then it acknowledges."""
        self._alive = True
        if not payload:
            return
        try:
            epoch, number = client.parse_seq(payload.decode("ascii", "replace"))
        except BadRequest:
            return  # a pong that nobody asked for is allowed, and says nothing
        if (self.acked_epoch, self.acked_number) < (epoch, number) <= (self.pinged_epoch, self.pinged_number):
            self.acked_epoch, self.acked_number = epoch, number
            self._gateway.attachments.acknowledge(self)

    def on_drained(self) -> None:
        """Only rooms' messages wait for that: of direct ones, the window bounds what is on its way."""
        if self.member is not None:
            self.member.on_drained()

    def on_close(self, code: int, reason: str) -> None:
        """The connection is over."""
        for timer in (self._timer, self._beat_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._beat_timer = None
        self._gateway.census.leave(self.name, self.address, code)
        self._gateway.pending.drop(self)
        self._gateway.attachments.close(self, clean=code == CloseCode.NORMAL)
        if self.member is not None:
            self._gateway.rooms.close(self.member)
            self.member = None
        self.socket = None

    # --- from the router

    def welcome(self, resumed: bool | Literal["gap"], start: peer.Seq) -> None:
        """The owner knows the session."""
        assert self.socket is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.welcomed = True
        self.resume = None
        self.sent_epoch, self.sent_number = start
        self.acked_epoch, self.acked_number = start
        gateway = self._gateway
        welcome = client.Welcome(
            user=self.user,
            session=self.name,
            device=self.device,
            node=gateway.node,
            owner=self.owner,
            epoch=self._gateway.mailboxes.epoch,
            resumed=resumed,
            heartbeat_s=gateway.heartbeat_s,
            server_time=round(time() * 1000),
            limits=client.Limits(gateway.message_bytes, gateway.in_flight, gateway.rooms.rooms_per_session),
            expires_at=UNSET if self.expires_at is None else round(self.expires_at * 1000),
        )
        self.socket.send_text(client.encode(welcome))
        early, self._early = self._early, None
        for payload in early or ():
            self.on_text(payload)

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        """Passes a `message` to the client; one without a receipt gives way if the client reads slowly."""
        socket = self.socket
        if socket is None:
            return
        if not tracked and socket.queued > self._gateway.output_bytes // 2:
            self._gateway.mailboxes.dropped_untracked += 1
            return
        if epoch != self.sent_epoch:
            self.earlier = [*self.earlier[1 - EARLIER_EPOCHS :], (self.sent_epoch, self.sent_number)]
        self.sent_epoch, self.sent_number = epoch, number
        socket.send_text(body)
        self._gateway.census.delivered += 1
        if tracked and self.by == "pong" and self._timer is None:
            self._timer = self._gateway.wheel.call_later(PING_S, self._on_ping_over)
            self._gateway.due.append(self)

    def expel(self, code: int, reason: str) -> None:
        """Closes the session for the owner."""
        self.attachment = None  # the owner has forgotten it already
        self.close(code, reason)

    def receipt(
        self, message_id: str, status: Status, by: By | None, code: ErrorCode | None, message: str | None
    ) -> None:
        """Tells the client what became of its message."""
        if self.socket is not None:
            self._gateway.census.receipts[by or code or status] += 1
            receipt = client.Receipt(message_id, status, by or UNSET, code or UNSET, message or UNSET)
            self.socket.send_text(client.encode(receipt))

    # --- commands

    def on_send(self, message: client.Send) -> None:
        """A direct message."""
        message_id, gateway = message.id, self._gateway
        data = bytes(message.data)
        try:
            to = check_name(message.to, "to")
            if message_id is not None:
                check_id(message_id)
            elif message.receipt:
                raise BadRequest("send: id is missing; only receipt:false goes without")
            if message.ttl_s is not None and not message.ttl_s > 0:
                raise BadRequest("send: ttl_s is a number of seconds above 0")
            if len(data) > gateway.message_bytes:
                raise BadRequest(
                    f"data: at most {gateway.message_bytes} bytes of JSON", code=ErrorCode.TOO_LARGE
                )
            client.check_depth(data)
            if message.receipt and message_id in self.refs:
                if message.again:
                    return  # the receipt that is to come answers this one too
                raise BadRequest("send: a message of this id has no receipt yet")
            if message.receipt and len(self.refs) >= gateway.in_flight:
                raise BadRequest(
                    f"at most {gateway.in_flight} messages without a receipt", code=ErrorCode.BUSY
                )
        except BadRequest as error:
            self._fail(message_id, error.code, str(error))
            return
        send = peer.Send(
            0,
            self.user,
            message_id,
            to,
            data,
            round(time() * 1000),
            message.again,
            "",
            0 if message.ttl_s is None else max(1, round(min(message.ttl_s * 1000, _MAX_TTL_MS))),
        )
        self._gateway.router.send(self, send, receipt=message.receipt)

    def on_ack(self, message: client.Ack) -> None:
        """The client has what it was sent, up to a sequence."""
        frame_id = message.id or None
        try:
            epoch, number = client.parse_seq(message.seq)
            if (epoch, number) > (self.sent_epoch, self.sent_number):
                raise BadRequest("ack: beyond what this session was sent; ignored")
        except BadRequest as error:
            self._error(frame_id, error.code, str(error))
            return
        if (epoch, number) > (self.acked_epoch, self.acked_number):
            self.acked_epoch, self.acked_number = epoch, number
            self._gateway.attachments.acknowledge(self)
        if frame_id is not None and self.socket is not None:
            self.socket.send_text(client.encode(client.Ok(frame_id)))

    def on_room_command(self, message: RoomCommand) -> None:
        """To join, to leave, or to publish."""
        obey(self._gateway, self, message)

    def on_ping(self, message: client.Ping) -> None:
        """A client that cannot see pings asks whether the node is there."""
        if self.socket is not None:
            self.socket.send_text(client.encode(client.Pong(message.id)))

    def on_refresh(self, message: client.Refresh) -> None:
        """A new token."""
        self._error(message.id, ErrorCode.BAD_REQUEST, "refresh: this node asks for no tokens")

    def _refuse(self, error: client.Undecodable) -> None:
        if error.type == "send" and error.id is not None:
            self._fail(error.id, error.code, str(error))
        else:
            self._error(error.id, error.code, str(error))

    def _fail(self, message_id: str | None, code: ErrorCode, message: str) -> None:
        """A message that goes nowhere: a receipt, or an error where there is no id to name."""
        if message_id is None:
            self._error(None, code, message)
        else:
            self.receipt(message_id, "failed", None, code, message)

    def _error(self, frame_id: str | None, code: ErrorCode, message: str) -> None:
        if self.socket is not None:
            self._gateway.census.errors[code] += 1
            error = client.Error(code, message, code.retryable, UNSET if frame_id is None else frame_id)
            self.socket.send_text(client.encode(error))

    # --- time

    def ping_now(self) -> None:
        """At the end of a tick that brought messages: the pong will acknowledge them all."""
        if self.socket is not None:
            self.pinged_epoch, self.pinged_number = self.sent_epoch, self.sent_number
            self.socket.ping(b"%d-%d" % (self.sent_epoch, self.sent_number))

    def _on_ping_over(self) -> None:
        self._timer = None
        if (self.pinged_epoch, self.pinged_number) < (self.sent_epoch, self.sent_number):
            self._timer = self._gateway.wheel.call_later(PING_S, self._on_ping_over)
            self.ping_now()

    def _beat(self) -> None:
        self._missed = 0 if self._alive else self._missed + 1
        self._alive = False
        if self._missed >= MISSED_BEATS:
            self.close(CloseCode.HEARTBEAT_LOST, "no sign of life")
        else:
            assert self.socket is not None  # its end ends the beat
            self.socket.ping()
            self._beat_timer = self._gateway.wheel.call_later(self._gateway.heartbeat_s, self._beat)

    def _on_no_welcome(self) -> None:
        self._timer = None
        self.close(CloseCode.TRY_AGAIN_LATER, "the owner of this user cannot be reached now")

    def reconnect(self, after_ms: int, reason: str) -> None:
        """Asks the client to connect again, elsewhere, and closes."""
        if self.socket is not None:
            self.socket.send_text(client.encode(client.Reconnect(after_ms, reason)))
            self.close(CloseCode.SERVICE_RESTART, reason)

    def close(self, code: int, reason: str) -> None:
        """Begins the closing handshake."""
        if self.socket is not None:
            self.socket.close(code, reason)


_MAX_TTL_MS = 2**31

_HANDLERS: dict[type, Callable[[ClientSession, Any], None]] = {
    client.Ack: ClientSession.on_ack,
    client.Join: ClientSession.on_room_command,
    client.Leave: ClientSession.on_room_command,
    client.Publish: ClientSession.on_room_command,
    client.Ping: ClientSession.on_ping,
    client.Refresh: ClientSession.on_refresh,
}
