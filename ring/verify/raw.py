"""A client of the crowd that hides nothing: every frame is told to the oracle as it came, doubles too.

It stands on the sans-I/O codec alone and does what docs/protocol.md asks of a client: it acknowledges,
connects again when it is cut, resumes, and sends again, marked, what has no answer. And it can misbehave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal
from urllib.parse import urlencode

import trio

from ring.protocol import client as wire
from ring.protocol.codes import BadRequest
from ring.protocol.upgrade import UpgradeRefused, check_response, client_request
from ring.protocol.websocket import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    Decoder,
    ProtocolViolation,
    close_payload,
    encode_frame,
)
from ring.transport.address import split_address
from ring.verify.oracle import Oracle
from ring.verify.record import By, Device, Key, Session, Status
from ring.verify.text import Strange, body, by_of, code_of, key_of, key_of_id

READ_BYTES = 64 * 1024

LONGEST_MESSAGE = 1 << 20
"""Far beyond anything that the crowd sends."""

WELCOME_S = 5.0
"""From dialling to the welcome; then the next node is tried."""

AGAIN_S = (0.05, 0.2)
"""Between two tries to get in again, at random."""

SIP_BYTES, SIP_S = 128, 0.1
"""A slow reader reads so little, so seldom: three messages in a second."""

UNANSWERED = 100
"""With so many messages without an answer a client sends no new ones: a node takes 256 of a session."""

Manners = Literal["good", "slow", "deaf", "mute"]
"""How a client reads: as it should, slowly, not at all; or it reads, and acknowledges nothing."""


@dataclass(slots=True)
class Life:
    """One connection."""

    stream: trio.SocketStream
    output: bytearray
    work: trio.Event
    heard_at: float
    session: Session | None = None
    heartbeat_s: float = 0.0
    seq: str | None = None  # the last that came, and was not acknowledged

    def write(self, opcode: int, payload: bytes) -> None:
        """Sends a frame, soon."""
        self.output += encode_frame(opcode, payload, mask=True)
        self.work.set()


class Hangup(Exception):
    """This connection is over."""


class RawClient:
    """A device of a user. `run` is its life: one connection after the other.

    Args:
        oracle: told of everything.
        edges: where nodes are; asked anew for each connection.
        user: whose device.
        name: of the device among the user's.
        by: how it acknowledges.
        ack_every_s: with `by="client"`, how long it gathers what it acknowledges; 0: at once.
        random: where it connects.

    Attributes:
        manners: how it reads; may be changed at any time.
        closes: why its connections ended.
    """

    def __init__(
        self,
        oracle: Oracle,
        edges: Callable[[], Sequence[str]],
        user: str,
        name: str,
        *,
        by: By,
        ack_every_s: float = 0.0,
        random: Random,
    ) -> None:
        self.user = user
        self.device: Device = oracle.device(user, name, by)
        self.manners: Manners = "good"
        self.closes: list[str] = []
        self._oracle = oracle
        self._edges = edges
        self._ack_every_s = ack_every_s
        self._random = random
        self._unanswered: dict[str, tuple[Key, str]] = {}
        self._last_seq: str | None = None
        self._life: Life | None = None
        self._present = trio.Event()
        self._present.set()

    # --- what it does

    @property
    def connected(self) -> bool:
        """Whether it has been welcomed, and not been cut since."""
        return self._life is not None and self._life.session is not None

    @property
    def ready(self) -> bool:
        """Whether it can send something new."""
        return self.connected and self.manners not in ("deaf", "slow") and len(self._unanswered) < UNANSWERED

    @property
    def waits(self) -> bool:
        """Whether it waits for an answer."""
        return bool(self._unanswered)

    def send(self, to: str, pad: str) -> None:
        """Sends the next message."""
        assert self._life is not None
        key = self._oracle.issue(self.user, to)
        message_id = str(key)
        self._unanswered[message_id] = (key, pad)
        self._write_send(self._life, message_id, again=False)

    def go_away(self, *, politely: bool) -> None:
        """Closes, or cuts the connection, and does not come back until `come_back`."""
        self._present = trio.Event()
        self.hang_up(politely=politely)

    def come_back(self) -> None:
        """Connects again."""
        self._present.set()

    def hang_up(self, *, politely: bool) -> None:
        """Ends this connection."""
        life = self._life
        if life is not None:
            if politely and life.session is not None:
                life.write(CLOSE, close_payload(1000))
            else:
                life.stream.socket.close()

    def behave(self, manners: Manners) -> None:
        """From now on it reads so."""
        if self.manners in ("deaf", "slow"):
            self._oracle.deaf(self.user, trio.current_time())
        was, self.manners = self.manners, manners
        if was == "mute":
            self._acknowledge()

    # --- its life

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._present.wait()
            edges = list(self._edges())
            if edges:
                why = await self._live(self._random.choice(edges))
                self._oracle.ended(self.device, trio.current_time(), why)
                self.closes.append(why)
                del self.closes[:-10]
            await trio.sleep(self._random.uniform(*AGAIN_S))

    async def _live(self, edge: str) -> str:
        """One connection; returns why it ended."""
        why = "it ended"
        with trio.move_on_after(WELCOME_S) as patience:
            try:
                stream = await trio.open_tcp_stream(*split_address(edge))
            except OSError as error:
                return str(error)
            life = self._life = Life(stream, bytearray(), trio.Event(), trio.current_time())
            try:
                rest = await self._upgrade(life, edge)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, life)
                    nursery.start_soon(self._watch, life)
                    if self._ack_every_s:
                        nursery.start_soon(self._acknowledge_steadily)
                    await self._read(life, rest, patience)
            except* (OSError, UpgradeRefused, Hangup) as group:
                why = str(group.exceptions[0])
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            except* (ProtocolViolation, BadRequest) as group:
                why = f"a frame that broke the protocol: {group.exceptions[0]}"
                self._oracle.strange(self.device, trio.current_time(), why)
            finally:
                self._life = None
                stream.socket.close()
        return why

    async def _upgrade(self, life: Life, edge: str) -> bytes:
        query = {"user": self.user, "device": self.device.name, "ack": self._ack}
        if self._last_seq is not None:
            query["resume"] = self._last_seq
            self._oracle.acknowledged(self.device, trio.current_time())  # whoever resumes has got all of it
        request, key = client_request(edge, f"{wire.CONNECT_PATH}?{urlencode(query)}", [wire.SUBPROTOCOL])
        await life.stream.send_all(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = await life.stream.receive_some(READ_BYTES)
            if not data:
                raise Hangup("it ended in the handshake")
            answer += data
        head, _, rest = answer.partition(b"\r\n\r\n")
        check_response(head + b"\r\n\r\n" + rest, key, [wire.SUBPROTOCOL])
        return rest

    @property
    def _ack(self) -> str:
        return "client" if self.device.by == "client" else "auto"

    async def _write(self, life: Life) -> None:
        while True:
            await life.work.wait()
            life.work = trio.Event()
            data, life.output = life.output, bytearray()
            await life.stream.send_all(data)

    async def _watch(self, life: Life) -> None:
        """A client that sees pings takes their absence for the loss of the connection."""
        while True:
            patience_s = 2 * life.heartbeat_s + 1 if life.heartbeat_s else WELCOME_S
            quiet_at = life.heard_at + patience_s
            if quiet_at <= trio.current_time():
                raise Hangup(f"nothing heard for {patience_s:g} s")
            await trio.sleep_until(quiet_at)

    async def _read(self, life: Life, data: bytes, patience: trio.CancelScope) -> None:
        decoder = Decoder(role="client", max_message=LONGEST_MESSAGE)
        while True:
            for opcode, payload in decoder.feed(data):
                if opcode == TEXT:
                    try:
                        self._hear(life, payload)
                    except Strange as strange:
                        self._oracle.strange(self.device, trio.current_time(), str(strange))
                    if life.session is not None:
                        patience.deadline = float("inf")
                elif opcode == PING:
                    self._pong(life, payload)
                elif opcode == CLOSE:
                    code = int.from_bytes(payload[:2], "big")
                    raise Hangup(f"closed {code} {payload[2:].decode(errors='replace')}".rstrip())
            if not self._ack_every_s:
                self._acknowledge()
            data = await self._receive(life)
            if not data:
                raise Hangup("the connection was lost")

    async def _receive(self, life: Life) -> bytes:
        while self.manners == "deaf":
            life.heard_at = trio.current_time()  # it would not know
            await trio.sleep(SIP_S)
        if self.manners == "slow":
            await trio.sleep(SIP_S)
            data = await life.stream.receive_some(SIP_BYTES)
        else:
            data = await life.stream.receive_some(READ_BYTES)
        life.heard_at = trio.current_time()
        return bytes(data)

    def _pong(self, life: Life, payload: bytes) -> None:
        if payload and self.device.by == "pong":
            if self.manners == "mute":
                return
            self._oracle.acknowledged(self.device, trio.current_time())
        life.write(PONG, payload)

    # --- what it hears

    def _hear(self, life: Life, payload: bytes) -> None:
        now = trio.current_time()
        message = wire.decode_server(payload)
        match message:
            case wire.Message():
                self._take(life, now, message)
            case wire.Receipt():
                self._settle(now, message.id, message.status, code_of(message), by_of(message))
            case wire.Error() if isinstance(message.id, str):
                self._settle(now, message.id, "failed", str(message.code))
            case wire.Error():
                self._oracle.strange(self.device, now, f"error {message.code}: {message.message}")
            case wire.Welcome():
                self._begin(life, now, message)
            case wire.Reconnect():
                # It closes by itself when the time has come; what it asks for is to come back, which we do.
                pass
            case _:
                self._oracle.strange(self.device, now, f"a frame of no known use: {payload[:80]!r}")

    def _begin(self, life: Life, now: float, welcome: wire.Welcome) -> None:
        life.heartbeat_s = welcome.heartbeat_s
        life.session = self._oracle.welcomed(
            self.device,
            now,
            session=welcome.session,
            node=welcome.node,
            owner=welcome.owner,
            resumed=welcome.resumed,
        )
        for message_id in self._unanswered:
            self._write_send(life, message_id, again=True)

    def _take(self, life: Life, now: float, message: wire.Message) -> None:
        self._oracle.arrived(
            self.device, now, key_of(message), message.seq, marked=message.redelivered is True
        )
        self._last_seq = life.seq = message.seq

    def _settle(
        self, now: float, message_id: str, status: Status, code: str | None = None, by: By | None = None
    ) -> None:
        key = key_of_id(message_id)
        if key.sender != self.user:
            raise Strange(f"a receipt for {message_id!r}, which another has sent")
        self._unanswered.pop(message_id, None)
        self._oracle.answered(key, now, status, code=code, by=by)

    def _write_send(self, life: Life, message_id: str, *, again: bool) -> None:
        assert life.session is not None
        key, pad = self._unanswered[message_id]
        self._oracle.wrote(key, trio.current_time(), life.session, again=again)
        frame = wire.Send(to=key.to, data=body(key, pad), id=message_id, again=again)
        life.write(TEXT, wire.encode(frame))

    def _acknowledge(self) -> None:
        """Acknowledges all that came in this session."""
        life = self._life
        if (
            life is not None
            and life.seq is not None
            and self.device.by == "client"
            and self.manners != "mute"
        ):
            seq, life.seq = life.seq, None
            self._oracle.acknowledged(self.device, trio.current_time())
            life.write(TEXT, wire.encode(wire.Ack(seq)))

    async def _acknowledge_steadily(self) -> None:
        while True:
            await trio.sleep(self._ack_every_s)
            self._acknowledge()
