"""One link to another node: what is said on it, in which order, and what happens when one side is slow.

Out: `send` and `send_urgent` append to one of two lists. At the end of the tick the mesh's hook turns what it
brought into one frame, a batch, with the urgent items in front. While the socket is backed up the rest waits,
encoded, so that urgent items can still overtake and its bytes are known.

In: a batch is handed to the receiver whole. One from a higher epoch than this node has entered waits until it
has (`HOLD_S` at most): the sender may have routed it by a ring that this node does not know yet.

Data keeps its order on a link. What is queued when a link breaks is lost: its sender holds it still, and
sends it again on the next.
"""

from math import inf
from typing import Protocol

import msgspec
import structlog
import trio

from ring.peers.proof import Handshake, ProofRefused
from ring.peers.waiting import Backlog, Held, Traffic
from ring.protocol.codes import CloseCode
from ring.protocol.peer import (
    BATCH_BYTES,
    NEWEST_VERSION,
    SUBPROTOCOL,
    Batch,
    Item,
    MembersWanted,
    decode_batch,
    encode,
)
from ring.transport.socket import Socket
from ring.transport.wheel import Timer, TimerWheel

LOW_WATER = 64 * 1024
HIGH_WATER = 256 * 1024
"""More is not given to a socket that has this much: it could no longer be overtaken."""

BUSY_BYTES = 4 * 1024 * 1024
"""Queued bytes beyond which a link is `busy`."""

BROKEN_BYTES = 64 * 1024 * 1024
"""Queued bytes beyond which a link is broken: what passes a busy link all the same (receipts, deliveries) has
filled it, so the other side no longer reads."""

HELD_BYTES = 16 * 1024 * 1024
"""Held frames beyond which a link is broken: within `HOLD_S` no ring that works brings as much."""

HOLD_S = 1.0  # a batch waits so long for this node to enter its epoch
PING_S = 5.0
MISSES = 2  # pings in a row without a sign of life end the link
HANDSHAKE_S = 5.0  # for the proof
FAREWELL_S = 5.0  # for what is queued, before a link that is retired is cut

_WHOLE_ITEMS = 256
"""Up to this many items are encoded in one go; the rare frame that comes out too long is cut up then."""

_logger = structlog.get_logger()


class Receiver(Protocol):
    """Who is told what links bring. All are plain calls on Trio's thread that must not raise."""

    def link_up(self, link: "PeerLink") -> None:
        """The other side has proven itself; `link` can be sent to."""

    def link_down(self, link: "PeerLink") -> None:
        """`link` has ended: nothing more comes, and what is sent to it is lost. Once per `link_up`."""

    def on_items(self, link: "PeerLink", items: list[Item]) -> None:
        """The items of a batch, in order; none in a link's first. The list is the receiver's."""

    def news(self, link: "PeerLink", epoch: int, members_hash: int) -> None:
        """The other side knows another ring than this node; called before the items that came with it.

        If its epoch is the higher one, the link asks for its members by itself.
        """


class Home(Protocol):
    """What a link sees of the mesh that it belongs to."""

    epoch: int
    members_hash: int
    ping_s: float
    handshake_s: float
    wheel: TimerWheel
    receiver: Receiver
    dirty: "list[PeerLink]"
    """Those that have something to send."""

    def wake(self) -> None:
        """`dirty` is not empty: it has to be worked off at the end of the tick, or soon."""

    def proven(self, link: "PeerLink") -> None:
        """The other side has proven who it is."""

    def ended(self, link: "PeerLink") -> None:
        """The link is over, proven or not."""

    def complain(self, link: "PeerLink", words: str) -> None:
        """Why there is no link."""


class PeerLink:
    """A link to one incarnation of one node; the pump's endpoint of its socket.

    Attributes:
        name, incarnation: of the other node. Before the proof the name is what it claims, or whom we
            dialled, and the incarnation is "".
        up: whether it can be sent to.
        busy: True above `BUSY_BYTES`: no new messages may be accepted for it.
        timed_out: the other side has not proven itself in time.
        epoch: the highest that the other side has shown.
        version: of the peer protocol, the newest that both sides speak.
        traffic: what it has carried.
        handshake: as far as the proof has come.
        settled, over: set once the link is up or over, and once it is over.
    """

    def __init__(self, home: Home, handshake: Handshake, *, name: str) -> None:
        self.name = name
        self.incarnation = ""
        self.up = self.busy = self.timed_out = False
        self.traffic = Traffic()
        self.epoch = 0
        self.version = NEWEST_VERSION
        self.settled = trio.Event()
        self.over = trio.Event()
        self._home = home
        self.handshake = handshake
        self._wheel = home.wheel
        self._socket: Socket | None = None
        # Out: the tick's items, and what the socket could not take, encoded.
        self._urgent: list[Item] = []
        self._data: list[Item] = []
        self._dirty = False
        self._late = Backlog()
        self._farewell: tuple[CloseCode, str] | None = None
        # In: what came from epochs that this node has not entered.
        self._held = Held()
        self._overdue: Timer | None = None
        self._waived: float = 0  # batches up to this epoch have waited long enough
        self._asked = 0  # the highest epoch whose members were asked for
        self._alive = True
        self._missed = 0
        self._explained = False
        # The end of the time for the proof; then the next ping; then the end of a farewell.
        self._timer = home.wheel.call_later(home.handshake_s, self._give_up)

    @property
    def address(self) -> str:
        """Where the other side is, for logs; "" before the upgrade."""
        return "" if self._socket is None else self._socket.peername

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent, in this process; items of the present tick do not count yet."""
        return self._late.bytes + (0 if self._socket is None else self._socket.queued)

    # Out

    def send(self, item: Item) -> None:
        """Sends `item` behind all data that was sent before. Lost if the link is over, or ends."""
        self._data.append(item)
        if not self._dirty:
            self._mark_dirty()

    def send_urgent(self, item: Item) -> None:
        """Sends `item` in front of all data that is not on its way yet: receipts, members."""
        self._urgent.append(item)
        if not self._dirty:
            self._mark_dirty()

    def _mark_dirty(self) -> None:
        self._dirty = True
        self._home.dirty.append(self)
        self._home.wake()

    def flush(self) -> None:
        """Gives what the tick brought to the socket, as far as that takes it. The mesh's hook calls it."""
        self._dirty = False
        socket, urgent, data = self._socket, self._urgent, self._data
        if not self.up or socket is None:
            urgent.clear()
            data.clear()
            return
        if not self._late.bytes and len(urgent) + len(data) <= _WHOLE_ITEMS and socket.queued <= HIGH_WATER:
            items = urgent + data if urgent else data
            frame = encode(Batch(self._home.epoch, self._home.members_hash, items))
            if len(frame) <= BATCH_BYTES:
                socket.send_binary(frame)
                self.traffic.sent(len(items), len(frame))
                urgent.clear()
                data.clear()
                return
        self._late.take(urgent, data)
        self._send_late(socket)
        if self.queued_bytes > BROKEN_BYTES:
            self.drop(f"{self.queued_bytes} bytes are queued: the peer does not read")

    def _send_late(self, socket: Socket) -> None:
        home = self._home
        while self._late.bytes and socket.queued <= HIGH_WATER:
            socket.send_binary(self._late.next_frame(home.epoch, home.members_hash, self.traffic))
        self.busy = self.queued_bytes > BUSY_BYTES
        if self._farewell is not None and not self._late.bytes:
            socket.close(*self._farewell)

    def on_drained(self) -> None:
        """The socket takes more."""
        if self.up and self._socket is not None:
            self._send_late(self._socket)

    # In

    def on_open(self, socket: Socket) -> None:
        """The upgrade is done: the proof begins."""
        if self.over.is_set():
            socket.abort()
            return
        self._socket = socket
        if socket.subprotocol != SUBPROTOCOL:
            self._quit(CloseCode.PROTOCOL_ERROR, "no sub-protocol", "is no peer: it chose no sub-protocol")
            return
        socket.low_water = LOW_WATER
        first = self.handshake.start()
        if first:
            socket.send_binary(first)

    def on_text(self, payload: bytes) -> None:
        """Peers speak in binary frames."""
        self._quit(CloseCode.UNSUPPORTED_DATA, "text frames are not spoken here", "sent a text frame")

    def on_binary(self, payload: bytes) -> None:
        """A frame of the proof, or a batch."""
        self._alive = True
        if not self.up:
            self._prove(payload)
            return
        try:
            batch = decode_batch(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._quit(CloseCode.INVALID_DATA, "not a batch", f"sent no batch: {error}")
            return
        self.traffic.received(len(batch.items), len(payload))
        home = self._home
        if batch.epoch == home.epoch and batch.members_hash == home.members_hash and not self._held:
            home.receiver.on_items(self, batch.items)
        else:
            self._on_other_ring(batch, len(payload))

    def _on_other_ring(self, batch: Batch, size: int) -> None:
        home, epoch = self._home, batch.epoch
        self.epoch = max(self.epoch, epoch)
        if epoch != home.epoch or batch.members_hash != home.members_hash:
            home.receiver.news(self, epoch, batch.members_hash)
        if epoch > home.epoch and epoch > self._asked:
            self._asked = epoch
            self.send_urgent(MembersWanted())
        if not self._held and epoch <= max(home.epoch, self._waived):
            home.receiver.on_items(self, batch.items)
            return
        urgent = self._held.hold(epoch, batch.items, size)
        if urgent:
            home.receiver.on_items(self, urgent)
        if self._held.bytes > HELD_BYTES:
            self.drop(f"{self._held.bytes} bytes wait for epoch {self.epoch}, which this node does not enter")
        elif self._held and self._overdue is None:
            self._overdue = self._wheel.call_later(HOLD_S, self._waive)

    def _waive(self) -> None:
        self._overdue = None
        self._waived = self.epoch
        _logger.warning("peer is ahead", peer=self.name, epoch=self.epoch, entered=self._home.epoch)
        self.release()

    def release(self) -> None:
        """Hands on what waited for epochs that this node has entered by now. The mesh calls it."""
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        try:
            for items in self._held.release(max(self._home.epoch, self._waived)):
                self._home.receiver.on_items(self, items)
        except Exception:
            # Not the pump's call, which would see to it: who enters a view must not fail by what a peer sent.
            _logger.exception("peer link failed", peer=self.name)
            self._quit(CloseCode.INTERNAL_ERROR, "internal error", "a batch could not be handled")
        if self._held and not self.over.is_set():
            self._overdue = self._wheel.call_later(HOLD_S, self._waive)

    # Life and end

    def _prove(self, payload: bytes) -> None:
        socket = self._socket
        if self.over.is_set() or socket is None:
            return
        try:
            answer = self.handshake.receive(payload)
        except ProofRefused as refused:
            if refused.answer:
                socket.send_binary(refused.answer)
            if self.handshake.peer is not None and not self.name:
                self.name = self.handshake.peer.name
            self._quit(refused.close_code, refused.reason, str(refused))
            return
        if answer:
            socket.send_binary(answer)
        if self.handshake.proven:
            self._rise()

    def _rise(self) -> None:
        peer = self.handshake.peer
        assert peer is not None
        self.name, self.incarnation, self.epoch = peer.name, peer.incarnation, peer.epoch
        self.version = min(peer.newest, NEWEST_VERSION)
        self.up = True
        self._timer.cancel()
        self._timer = self._wheel.call_later(self._home.ping_s, self._ping)
        # Even without an item: the first batch tells the other side which ring this node knows.
        self._mark_dirty()
        self.settled.set()
        self._home.proven(self)

    def _give_up(self) -> None:
        self.timed_out = True
        self.drop("has not proven itself in time")

    def _ping(self) -> None:
        self._missed = 0 if self._alive else self._missed + 1
        if self._missed >= MISSES or self._socket is None:
            self.drop(f"nothing was heard for {self._home.ping_s * MISSES:g} s")
            return
        self._alive = False
        self._socket.ping()
        self._timer = self._wheel.call_later(self._home.ping_s, self._ping)

    def on_pong(self, payload: bytes) -> None:
        """The other side lives."""
        self._alive = True

    def retire(self, code: CloseCode, reason: str) -> None:
        """Closes the link once its lanes are flushed, or after `FAREWELL_S`; until then it is still read."""
        self._explained = True
        if not self.up or self._socket is None:
            self.drop(reason)
            return
        self._farewell = (code, reason)
        self._timer.cancel()
        self._timer = self._wheel.call_later(FAREWELL_S, lambda: self.drop(reason))
        self._late.take(self._urgent, self._data)
        self._send_late(self._socket)

    def drop(self, words: str) -> None:
        """Ends the link at once: what is queued is lost. `words` say why, to this node's log."""
        self._explain(words)
        if self._socket is not None:
            self._socket.abort()
        self._end()

    def _quit(self, code: CloseCode, reason: str, words: str) -> None:
        """Closes the link for what the other side did: it is told `reason`, the log `words`."""
        self._explain(words)
        assert self._socket is not None
        self._socket.close(code, reason)

    def on_close(self, code: int, reason: str) -> None:
        """The socket is over."""
        words = f"ended with {code} {reason}"
        if code == CloseCode.FORBIDDEN and not self.up:
            words = (
                "refused this node: check that both have the same secret and cluster name, and that their "
                "peer protocol versions meet; the other node's log says which it is"
            )
        if code != CloseCode.GOING_AWAY:  # said in good time
            self._explain(words)
        self._end()

    def _explain(self, words: str) -> None:
        if not self._explained:
            self._explained = True
            self._home.complain(self, words)

    def _end(self) -> None:
        if self.over.is_set():
            return
        self.up = False
        self.over.set()
        self.settled.set()
        self._timer.cancel()
        # What was held was received: it is handed on now rather than lost.
        self._waived = inf
        self.release()
        self._urgent.clear()
        self._data.clear()
        self._late.clear()
        self._home.ended(self)
