"""What is published to channels of the store: one Pub/Sub connection, kept alive, for any number of channels.

A node's rooms service owns the one `Subscriber`, says which channels it wants, and takes what comes. The
server cuts off whoever reads too slowly (`client-output-buffer-limit pubsub`), and with that every room of
the node. So the connection is read as fast as the server sends, whatever the taker does (1.3 us of CPU for
a message of 200 bytes, with taking it), and what waits for the taker is bounded here: beyond that messages
are dropped, counted, and the taker is told of which channels.

    server -> Connection._receive -> pushed() -> _waiting -> take() -> the taker
    subscribe(), unsubscribe() -> _to_join, _to_leave -> refill() -> Connection._send -> server

Two things are kept apart: what is wanted (`_Want`, which outlives connections) and what the server was told
on this connection (`_Line`). The server answers in order, so a channel stands when the answer to the last
of its commands has come, and that command was SUBSCRIBE.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, NamedTuple, NoReturn, Self

import structlog
import trio
from trio.lowlevel import Abort, checkpoint, current_task, reschedule, wait_task_rescheduled

from ring.protocol.codes import RingError
from ring.store.address import Address, parse_url
from ring.store.connection import Connection, Slot, StoreError, pack
from ring.store.lasting import Lasting

WAITING_BYTES = 8 * 1024 * 1024  # messages that came and were not taken yet: some 0.1 s of a busy connection
MESSAGE_OVERHEAD = 120  # what Python needs for one that waits, beside its payload
CHANNELS_PER_COMMAND = 500  # the server runs a command in one go, and others wait meanwhile
CHANNELS_IN_FLIGHT = 2000  # told and not answered: bounds what both sides buffer when there are many to tell
STALE_ENTRIES = 1000  # unsubscribes between two clearings of the queue; each leaves two entries without bytes

_log: structlog.stdlib.BoundLogger = structlog.get_logger("ring.store")


class Published(NamedTuple):
    """A message."""

    channel: bytes
    payload: bytes


class Standing(NamedTuple):
    """From here on all that is published to the channel comes. `again`: it stood before; there is a gap."""

    channel: bytes
    again: bool


class Missed(NamedTuple):
    """Messages of the channel were dropped, since too much waited; none of them later than now."""

    channel: bytes


class Broke(NamedTuple):
    """The connection broke: nothing of any channel comes until it stands again."""


Event = Published | Standing | Missed | Broke


class _Want:
    """A channel, from `subscribe` to `unsubscribe`."""

    __slots__ = ("channel", "missed", "over", "standing", "stood")

    def __init__(self, channel: bytes) -> None:
        self.channel = channel
        self.over = False  # unsubscribed: what waits of it is not for the taker any more
        self.standing = False  # now, on this connection
        self.stood = False  # before, on an earlier one or on this
        self.missed = False  # a Missed of it waits


class _Line:
    """What the server was told about a channel."""

    __slots__ = ("awaited", "on")

    def __init__(self) -> None:
        self.on = False  # the last command was SUBSCRIBE
        self.awaited = 0  # answers to come


class _Ask(Slot):
    """Where the answers to (UN)SUBSCRIBE go: a push for each channel, or one error for all of them."""

    __slots__ = ("answered", "channels", "kind")

    def __init__(self, kind: bytes, channels: list[bytes]) -> None:
        super().__init__(0, None)
        self.kind = kind
        self.channels = channels
        self.answered = 0


class _Listener(Connection):
    """A connection that listens to what its subscriber wants, from `begin` on."""

    def __init__(self, stream: trio.abc.Stream, subscriber: "Subscriber", wants: dict[bytes, _Want]) -> None:
        super().__init__(stream)
        self._subscriber = subscriber
        self._wants = wants
        self._lines: dict[bytes, _Line] = {}
        # Ordered sets. To join: wanted, and not told so; to leave: told, and not wanted any more.
        self._to_join: dict[bytes, None] = {}
        self._to_leave: dict[bytes, None] = {}
        self._unanswered = 0  # channels, once for each command
        self._per_command = CHANNELS_PER_COMMAND
        self._refusal_told = False

    def begin(self) -> None:
        """We are logged in: subscribes to all that is wanted."""
        self._to_join = dict.fromkeys(self._wants)
        self.wake()

    def changed(self, channel: bytes) -> None:
        """The channel is wanted now, or not any more; the server is told with the next send."""
        if self.broken:
            return  # the next connection begins with all that is wanted then
        line, want = self._lines.get(channel), self._wants.get(channel)
        if want is None:
            self._to_join.pop(channel, None)
            if line is not None and line.on:
                self._to_leave[channel] = None
        else:
            self._to_leave.pop(channel, None)
            if line is None or not line.on:
                self._to_join[channel] = None
            elif not line.awaited:
                self._subscriber.stands(want)  # UNSUBSCRIBE was not sent yet: it never stopped standing
        self.wake()

    def refill(self) -> None:
        """Puts the next commands, as long as little enough is unanswered."""
        while self._unanswered < CHANNELS_IN_FLIGHT:
            if self._to_join:
                self._ask(b"subscribe", _pop_some(self._to_join, self._per_command))
            elif self._to_leave:
                self._ask(b"unsubscribe", _pop_some(self._to_leave, self._per_command))
            else:
                return

    def _ask(self, kind: bytes, channels: list[bytes]) -> None:
        for channel in channels:
            if (line := self._lines.get(channel)) is None:
                line = self._lines[channel] = _Line()
            line.on = kind == b"subscribe"
            line.awaited += 1
        self._unanswered += len(channels)
        self.put(_Ask(kind, channels), pack((kind, *channels)))

    def pushed(self, push: list[Any]) -> None:
        """Takes a message, or the answer about a channel."""
        try:
            kind, channel, payload = push
            if kind == b"message":
                want = self._wants.get(channel)
                if want is not None and want.standing:
                    self._subscriber.message(want, payload)
                return
        except (TypeError, ValueError) as error:
            raise trio.BrokenResourceError("a push that is no message and no answer") from error
        ask = self._pending[0] if self._pending else None
        if not isinstance(ask, _Ask) or (kind, channel) != (ask.kind, ask.channels[ask.answered]):
            raise trio.BrokenResourceError("an answer that nobody asked for")
        ask.answered += 1
        if ask.answered == len(ask.channels):
            self._settle_ask(ask)
        if self._is_on(channel) and (want := self._wants.get(channel)) is not None:
            self._subscriber.stands(want)

    def deliver(self, reply: Any) -> None:
        """Takes a reply that is no push: if the oldest command is one of ours, the server refuses that."""
        ask = self._pending[0] if self._pending else None
        if not isinstance(ask, _Ask):
            super().deliver(reply)
        elif isinstance(reply, StoreError) and not ask.answered:
            self._settle_ask(ask)
            self._refused(ask, reply)
        elif isinstance(reply, RingError):  # BUSY and its kind: another connection waits until it has passed
            raise reply
        else:
            raise trio.BrokenResourceError("a reply that nobody asked for")

    def _settle_ask(self, ask: _Ask) -> None:
        self.settle()
        self._unanswered -= len(ask.channels)
        self.wake()

    def _refused(self, ask: _Ask, error: StoreError) -> None:
        alone = len(ask.channels) == 1
        for channel in ask.channels:
            if self._is_on(channel, refused=True) and channel in self._wants and not alone:
                self._to_join[channel] = None
        if not alone:
            # One channel that we have no right to fails the whole command: from here on each by itself.
            self._per_command = 1
        elif not self._refusal_told:
            self._refusal_told = True
            self._subscriber.note_refusal(error)

    def _is_on(self, channel: bytes, *, refused: bool = False) -> bool:
        """Counts an answer. True if no later command is on its way, and the last was SUBSCRIBE."""
        line = self._lines[channel]
        line.awaited -= 1
        if line.awaited:
            return False
        if refused or not line.on:
            del self._lines[channel]
        return line.on


def _pop_some(channels: dict[bytes, None], most: int) -> list[bytes]:
    some = list(islice(channels, most))
    for channel in some:
        del channels[channel]
    return some


class Subscriber(Lasting[_Listener]):
    """Listens to channels and keeps what they say for one taker. Nothing comes but while `run` is running.

    `subscribe` and `unsubscribe` are plain calls, whether there is a connection or not. What `take` returns
    is in order: `Standing` before a channel's messages, `Missed` and `Broke` where something may be missing.

    Args:
        address: whom to log in to.
        client_name: shown in the server's CLIENT LIST.
        dial: opens a stream, each time anew; by default to `address`.
        waiting_bytes: so much may wait to be taken; further messages are dropped.
    """

    def __init__(
        self,
        address: Address,
        *,
        client_name: str,
        dial: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        waiting_bytes: int = WAITING_BYTES,
    ) -> None:
        super().__init__(address, client_name=client_name, dial=dial, connection="rooms")
        self.received = 0  # messages of channels that stood, the dropped ones among them
        self.dropped = 0
        self._most_bytes = waiting_bytes
        self._bytes = 0  # of the messages in _waiting
        self._wants: dict[bytes, _Want] = {}
        self._waiting: deque[tuple[_Want, bytes | Event]] = deque()
        self._stale = 0  # unsubscribes since _waiting was last known to hold nothing of what is over
        self._taker: trio.lowlevel.Task | None = None  # when it sleeps
        self._broke_taken = trio.Event()
        self._broke_taken.set()

    @classmethod
    def from_url(cls, url: str, *, client_name: str) -> Self:
        """A subscriber for a redis://, rediss:// or unix:// URL (see `parse_url`).

        Raises:
            BadRequest: the URL is malformed.
        """
        return cls(parse_url(url), client_name=client_name)

    def subscribe(self, channel: bytes) -> None:
        """Wants a channel: `Standing` comes once the server has confirmed it. If it is wanted, does nothing.

        A channel that the server denies us is logged and never stands; who waits for it needs a time-out.
        """
        if channel not in self._wants:
            self._wants[channel] = _Want(channel)
            self._tell(channel)

    def unsubscribe(self, channel: bytes) -> None:
        """Does not want it any more: nothing of it is taken after this, not even what waits already."""
        want = self._wants.pop(channel, None)
        if want is None:
            return
        want.over = True
        self._stale += 1
        if self._stale > STALE_ENTRIES + len(self._wants):
            self._clear_stale()
        self._tell(channel)

    async def take(self, limit: int) -> list[Event]:
        """Waits until there is something and returns at most `limit` of it, in order. One task takes.

        Nothing is lost if this is cancelled.
        """
        await checkpoint()
        while not (taken := self._take(limit)):
            if self._taker is not None:
                raise trio.BusyResourceError("another task takes already")
            self._taker = current_task()
            await wait_task_rescheduled(self._stop_taker)
        return taken

    def _take(self, limit: int) -> list[Event]:
        taken: list[Event] = []
        waiting = self._waiting
        while waiting and len(taken) < limit:
            want, what = waiting.popleft()
            if isinstance(what, bytes):
                self._bytes -= len(what) + MESSAGE_OVERHEAD
                if not want.over:
                    taken.append(Published(want.channel, what))
                continue
            if type(what) is Missed:
                want.missed = False
            elif type(what) is Broke:
                self._broke_taken.set()
            if not want.over:
                taken.append(what)
        if not waiting:
            self._stale = 0
        return taken

    def _stop_taker(self, _: object) -> Abort:
        self._taker = None
        return Abort.SUCCEEDED

    def message(self, want: _Want, payload: bytes) -> None:
        """For the connection: a message of a channel that stands."""
        self.received += 1
        size = self._bytes + len(payload) + MESSAGE_OVERHEAD
        if size <= self._most_bytes:
            self._bytes = size
            self._put(want, payload)
            return
        self.dropped += 1
        if not want.missed:
            # One until it is taken: who takes it knows of all that was dropped up to then.
            want.missed = True
            self._put(want, Missed(want.channel))

    def stands(self, want: _Want) -> None:
        """For the connection: everything of the channel comes from here on."""
        want.standing = True
        self._put(want, Standing(want.channel, again=want.stood))
        want.stood = True

    def note_refusal(self, error: RingError) -> None:
        """For the connection: the server denies us a channel, and maybe others."""
        user = self.address.username or "default"
        _log.error(
            "store denies a room's channel",
            **self._labels,
            reason=" ".join(str(error).split()),
            hint=f"grant it with ACL SETUSER {user} +subscribe +unsubscribe &ring:*",
        )

    def _put(self, want: _Want, what: bytes | Event) -> None:
        self._waiting.append((want, what))
        if (taker := self._taker) is not None:
            self._taker = None
            reschedule(taker)

    def _clear_stale(self) -> None:
        # Else a taker that does not come, and rooms that come and go, would let the queue grow without end.
        kept = [entry for entry in self._waiting if not entry[0].over]
        self._waiting.clear()
        self._waiting.extend(kept)
        self._bytes = sum(len(what) + MESSAGE_OVERHEAD for _, what in kept if isinstance(what, bytes))
        self._stale = 0

    def _tell(self, channel: bytes) -> None:
        if self._connection is not None:
            self._connection.changed(channel)

    def _wrap(self, stream: trio.abc.Stream) -> _Listener:
        return _Listener(stream, self, self._wants)

    def _begin(self, connection: _Listener) -> None:
        connection.begin()

    async def _hold(self, task_status: trio.TaskStatus[None]) -> NoReturn:
        # One break at a time: however often the connection breaks, a taker that does not come finds one Broke
        # and one Standing for each channel. Nobody else waits longer: the back-off outlasts a taker's turn.
        await self._broke_taken.wait()
        try:
            await super()._hold(task_status)
        finally:
            if self._connection is not None:
                self._connection = None
                for want in self._wants.values():
                    want.standing = False
                self._broke_taken = trio.Event()
                self._put(_Want(b""), Broke())
