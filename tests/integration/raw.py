"""A client that hides nothing: every frame as it came, doubles too, and every answer to every send.

It stands on the sans-I/O codec alone. Sending is a plain function, so that a test can say at which moment so
many messages were under way.
"""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode

import msgspec
import trio

from ring.protocol import client as wire
from ring.protocol.upgrade import UpgradeRefused, check_response, client_request
from ring.protocol.websocket import CLOSE, PING, PONG, TEXT, Decoder, encode_frame, parse_close
from ring.transport.address import split_address

AGAIN_S = 0.05  # between two tries to get in again
_READ_BYTES = 64 * 1024
_LONGEST_FRAME = 1 << 24


class Watch:
    """Waiting for what many clients have seen together."""

    def __init__(self) -> None:
        self.answers = 0
        self.arrivals = 0
        self._changed: trio.Event | None = None

    def changed(self) -> None:
        """Something is to be seen: whoever waits looks again."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when the condition holds; callers own the deadline."""
        await trio.lowlevel.checkpoint()
        while not condition():
            if self._changed is None:
                self._changed = trio.Event()
            await self._changed.wait()


class Text(msgspec.Struct):
    """What the tests' messages carry: the n-th of a sender."""

    n: int
    pad: str = ""


_decode_text = msgspec.json.Decoder(Text).decode


@dataclass(eq=False)
class Sent:
    """A message, and all that was answered to it, with the time of each."""

    sender: str
    n: int
    to: str
    at: float
    answers: list[tuple[float, wire.Receipt | wire.Error]] = field(default_factory=list)
    sessions: int = 1  # in how many of the client's sessions it was written

    @property
    def status(self) -> str | None:
        """That of the first receipt; None while there is none."""
        if not self.answers:
            return None
        answer = self.answers[0][1]
        return answer.status if isinstance(answer, wire.Receipt) else "error"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message at its recipient."""

    at: float
    sender: str
    n: int
    redelivered: bool
    seq: str


class RawClient:
    """A user's client. `run` is its life: one session; or, if it roams, one after the other.

    Args:
        edges: where to connect, in turn.
        user: who it is.
        device: among the user's.
        ack: how it acknowledges.
        ack_every_s: with `ack="client"`, how often; at once if 0.
        roams: connects again when it is cut: resumes, and sends again what has no answer.
        watch: told of everything.
    """

    def __init__(
        self,
        edges: Sequence[str],
        user: str,
        *,
        device: str = "raw",
        ack: Literal["client", "auto"] = "client",
        ack_every_s: float = 0.0,
        roams: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.edges = list(edges)
        self.user = user
        self.device = device
        self.watch = watch or Watch()
        self.welcomes: list[wire.Welcome] = []
        self.arrivals: list[Arrival] = []
        self.sent: list[Sent] = []
        self.errors: list[wire.Error] = []  # without an id
        self.closes: list[tuple[int, str]] = []
        self.unanswered: dict[str, Sent] = {}
        self._ack = ack
        self._ack_every_s = ack_every_s
        self._roams = roams
        self._by_id: dict[str, Sent] = {}
        self._sock: socket.socket | None = None
        self._last_seq: str | None = None  # that came
        self._unacknowledged: str | None = None  # that came in this session
        self._standstill: trio.Event | None = None

    @property
    def welcome(self) -> wire.Welcome:
        """The last one."""
        return self.welcomes[-1]

    # --- what it does

    def send(self, to: str, *, pad: str = "") -> Sent:
        """Sends the next message; without a session it goes with the next one."""
        sent = Sent(self.user, len(self.sent), to, trio.current_time())
        self.sent.append(sent)
        message_id = f"{self.user}/{sent.n}"
        self._by_id[message_id] = self.unanswered[message_id] = sent
        if self._sock is None:
            sent.sessions = 0
        else:
            self._write_send(message_id, sent, again=False, pad=pad)
        return sent

    def acknowledge(self) -> None:
        """Acknowledges all that came in this session."""
        if self._unacknowledged is not None:
            seq, self._unacknowledged = self._unacknowledged, None
            self.write(TEXT, wire.encode(wire.Ack(seq)))

    def write(self, opcode: int, payload: bytes) -> None:
        """Sends a frame."""
        frame = encode_frame(opcode, payload, mask=True)
        if self._sock is not None:
            with suppress(ConnectionError):  # who reads learns why
                written = self._sock.send(frame)
                assert written == len(frame), "a test must not fill the kernel's buffers"

    def _write_send(self, message_id: str, sent: Sent, *, again: bool, pad: str = "") -> None:
        data = msgspec.Raw(msgspec.json.encode(Text(sent.n, pad)))
        self.write(TEXT, wire.encode(wire.Send(to=sent.to, data=data, id=message_id, again=again)))

    def stand_still(self) -> None:
        """Reads nothing until `go_on`: what comes fills the kernel's buffers, and then the node's."""
        self._standstill = trio.Event()

    def go_on(self) -> None:
        """Reads again."""
        assert self._standstill is not None
        self._standstill.set()
        self._standstill = None

    # --- its life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Returns when it is cut, if it does not roam; started at the first welcome.

        Raises:
            OSError: it does not roam, and nobody answers.
            UpgradeRefused: it does not roam, and was not let in.
        """
        turn = 0
        while True:
            try:
                await self._live(self.edges[turn % len(self.edges)], task_status)
            except (OSError, UpgradeRefused):
                if not self._roams:
                    raise
            if not self._roams:
                return
            turn += 1
            await trio.sleep(AGAIN_S)  # a client that cannot get in keeps trying at this pace

    async def _live(self, edge: str, task_status: trio.TaskStatus[None]) -> None:
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = trio.socket.from_stdlib_socket(sock)
            await stream.connect(split_address(edge))
            rest = await self._upgrade(stream, edge)
            try:
                async with trio.open_nursery() as nursery:
                    if self._ack_every_s:
                        nursery.start_soon(self._acknowledge_steadily)
                    await self._read(sock, stream, rest, task_status)
                    nursery.cancel_scope.cancel()
            finally:
                self._sock = None
                self.watch.changed()

    async def _upgrade(self, stream: trio.socket.SocketType, edge: str) -> bytes:
        query = {"user": self.user, "device": self.device, "ack": self._ack}
        if self._last_seq is not None:
            query["resume"] = self._last_seq
        request, key = client_request(edge, f"{wire.CONNECT_PATH}?{urlencode(query)}", [wire.SUBPROTOCOL])
        await stream.send(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = await stream.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("it ended in the handshake")
            answer += data
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert check_response(head + b"\r\n\r\n", key, [wire.SUBPROTOCOL]) == wire.SUBPROTOCOL
        return rest

    async def _read(
        self,
        sock: socket.socket,
        stream: trio.socket.SocketType,
        data: bytes,
        task_status: trio.TaskStatus[None],
    ) -> None:
        decoder = Decoder(role="client", max_message=_LONGEST_FRAME)
        self._unacknowledged = None
        while True:
            now = trio.current_time()
            for opcode, payload in decoder.feed(data):
                if opcode == TEXT:
                    self._hear(now, payload, sock, task_status)
                elif opcode == PING:
                    self.write(PONG, payload)
                elif opcode == CLOSE:
                    self.closes.append(parse_close(payload))
                    self.write(CLOSE, payload[:2])
                    return
            if not self._ack_every_s and self._ack == "client":
                self.acknowledge()
            self.watch.changed()
            if self._standstill is not None:
                await self._standstill.wait()
            try:
                data = await stream.recv(_READ_BYTES)
            except ConnectionError:
                data = b""
            if not data:
                self.closes.append((1006, ""))
                return

    def _hear(
        self, now: float, payload: bytes, sock: socket.socket, task_status: trio.TaskStatus[None]
    ) -> None:
        message = wire.decode_server(payload)
        match message:
            case wire.Message():
                text = _decode_text(message.data)
                assert message.from_ is not None
                redelivered = message.redelivered is True
                self.arrivals.append(Arrival(now, message.from_, text.n, redelivered, message.seq))
                self._last_seq = message.seq
                if self._ack == "client":
                    self._unacknowledged = message.seq
                self.watch.arrivals += 1
            case wire.Receipt() | wire.Error() if isinstance(message.id, str):
                self._by_id[message.id].answers.append((now, message))
                self.unanswered.pop(message.id, None)
                self.watch.answers += 1
            case wire.Error():
                self.errors.append(message)
            case wire.Welcome():
                self._sock = sock
                self.welcomes.append(message)
                for message_id, sent in self.unanswered.items():
                    self._write_send(message_id, sent, again=sent.sessions > 0)
                    sent.sessions += 1
                if len(self.welcomes) == 1:
                    task_status.started()

    async def _acknowledge_steadily(self) -> None:
        while True:
            await trio.sleep(self._ack_every_s)  # the pace of a client that is slow to acknowledge
            self.acknowledge()
