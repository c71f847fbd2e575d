"""One connection of a client, from the welcome to its end: reading, writing, acknowledging, noticing silence.

The connection (connection.py) makes one after the other and owns what outlives them: the inbox, the outbox
and the rooms. A single task writes, so that a `send` which is cancelled leaves no half of a frame behind. A
single task reads and never waits for the application, so that receipts don't.
"""

import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, TypeVar, assert_never

import trio
from msgspec import UnsetType
from trio_websocket import ConnectionClosed, WebSocketConnection

from ring.client.backoff import Ending
from ring.client.inbox import Inbox
from ring.client.messages import Receipt
from ring.client.outbox import Outbox
from ring.client.rooms import Rooms
from ring.client.wire import Wire
from ring.protocol import client as protocol
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode

ACK_DELAY_S = 0.02
"""An acknowledgement waits at most this long for others to go with it, while there is more to take."""

ACK_MESSAGES = 64
"""So many messages are acknowledged without waiting for more."""

_log = logging.getLogger("ring.client")


class Observer(Protocol):
    """Sees every message as it is on the wire, doubles too, which the library keeps to itself.

    Not for applications: `ring verify` judges a cluster by it.
    """

    def received(self, message: protocol.ServerMessage | None) -> None:
        """A node sent this, and nothing was made of it yet; None if its type is unknown."""

    def resuming(self, seq: str) -> None:
        """A node is about to be dialled, and told that this client has everything up to there."""

    def sending(self, message: protocol.ClientMessage) -> None:
        """This is about to be written."""


class Session:
    """See the module.

    Args:
        websocket: open, and nothing was read from it.
        wire: the stream below it.
        inbox: where messages go.
        outbox: where what is sent comes from, and receipts go.
        rooms: the same for what concerns rooms.
        on_arrival: called when the inbox holds something new.
        observer: told of what is read and written.
    """

    def __init__(
        self,
        websocket: WebSocketConnection,
        wire: Wire,
        inbox: Inbox,
        outbox: Outbox,
        rooms: Rooms,
        on_arrival: Callable[[], None],
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._websocket = websocket
        self._wire = wire
        self._inbox = inbox
        self._outbox = outbox
        self._rooms = rooms
        self._on_arrival = on_arrival
        self._work = trio.Event()  # set: the writer has something to look at
        self._ack_at = math.inf
        self._scope = trio.CancelScope()
        self._ending: Ending | None = None  # decided here, before the node closed
        self._redial: tuple[float, str] | None = None  # a node asked for it: when, and why
        self._closing = False

    async def welcome(self) -> protocol.Welcome | Ending:
        """What the node welcomes this client with, or how the connection ended instead."""
        refused = ""
        try:
            while True:
                received, _ = await self._receive()
                if isinstance(received, protocol.Welcome):
                    return received
                if isinstance(received, protocol.Error):
                    refused = received.message  # the close frame behind it may carry no reason
        except ConnectionClosed as closed:
            ending = _ending(closed)
            return replace(ending, reason=refused or ending.reason)
        except BadRequest as error:
            return Ending(str(error))

    async def run(self, heartbeat_s: float) -> Ending:
        """Serves the connection until it ends, by whoever's doing. The caller drops what is left of it."""
        ending = Ending("the connection was dropped")
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._wire.on_idle = self.acknowledge
                nursery.start_soon(self._write)
                if heartbeat_s > 0:
                    nursery.start_soon(self._watch, 2 * heartbeat_s + 1)
                ending = await self._read()
                if self._closing:
                    await trio.sleep_forever()  # the farewell reads and writes until it cancels everything
                nursery.cancel_scope.cancel()
        if self._redial is None:
            return self._ending or ending
        redial_at, reason = self._redial
        return replace(ending, reason=reason, redial_s=max(0.0, redial_at - trio.current_time()))

    def wake(self) -> None:
        """There is something to write."""
        self._work.set()

    def renew(self, reason: str) -> None:
        """Ends a connection with which nothing is wrong, for another one."""
        self._drop(Ending(reason, redial_s=0.0, by_us=True))

    def _drop(self, ending: Ending) -> None:
        self._ending = ending
        self._scope.cancel()

    def acknowledge(self) -> None:
        """The inbox may have something to acknowledge: at once if nothing else is coming, else with what is.

        Senders wait for it, so idle clients don't delay it; busy ones don't pay a frame for each message.
        """
        if not self._inbox.unacknowledged:
            return
        if self._ack_at == math.inf:
            self._ack_at = trio.current_time() + ACK_DELAY_S
            self._work.set()
        elif self._must_acknowledge():
            self._work.set()

    async def farewell(self) -> None:
        """Acknowledges what is left and closes with 1000: the node need not wait for this client."""
        self._closing = True
        with suppress(ConnectionClosed):
            if self._inbox.unacknowledged:
                await self._acknowledge()
            await self._websocket.aclose(CloseCode.NORMAL)

    async def _receive(self) -> tuple[protocol.ServerMessage | None, int]:
        text = await self._websocket.get_message()
        if isinstance(text, bytes):
            raise BadRequest("the server sent a binary frame")
        payload = text.encode()
        message = protocol.decode_server(payload)
        if self._observer is not None:
            self._observer.received(message)
        return message, len(payload)

    async def _read(self) -> Ending:
        try:
            while True:
                received, size = await self._receive()
                match received:
                    case protocol.Message():
                        if self._inbox.offer(received, size):
                            self._on_arrival()
                        else:
                            self.acknowledge()  # a double
                    case protocol.Room():
                        if self._rooms.offer(received, size):
                            self._on_arrival()
                    case protocol.Receipt():
                        self._settle(_receipt(received))
                    case protocol.Ok():
                        self._answer(received.id, None)
                    case protocol.Error():
                        self._refused(received)
                    case protocol.Reconnect():
                        self._redial_after(received)
                    case protocol.Welcome() | protocol.Pong() | None:
                        pass  # None: of a type that a later release knows
                    case _:
                        assert_never(received)
        except ConnectionClosed as closed:
            return _ending(closed)
        except BadRequest as error:
            return Ending(str(error))

    def _settle(self, receipt: Receipt) -> bool:
        if not self._outbox.answer(receipt):
            return False
        self._work.set()  # there may be room for another in flight
        return True

    def _answer(self, frame_id: str, refusal: tuple[ErrorCode, str] | None) -> None:
        if self._rooms.answer(frame_id, refusal, trio.current_time()):
            self._work.set()  # as above; or there is something to ask for next
            self._on_arrival()  # a gap, or an end

    def _refused(self, error: protocol.Error) -> None:
        """A node answers what it could not read as a `send` by an error: for whoever waits it is the same."""
        if isinstance(error.id, str):
            if not self._settle(Receipt(error.id, "failed", code=error.code, message=error.message)):
                self._answer(error.id, (error.code, error.message))
        elif isinstance(error.room, str):
            if self._rooms.gap(error.room, error.message):
                self._on_arrival()
        else:
            _log.warning("the node refused a frame: %s: %s", error.code, error.message)

    def _redial_after(self, message: protocol.Reconnect) -> None:
        """The node closes this connection itself; if it doesn't, we do when the time has come."""
        redial_at = trio.current_time() + max(0, message.after_ms) / 1000
        self._redial = (redial_at, message.reason)
        self._scope.deadline = redial_at

    @trio.lowlevel.enable_ki_protection  # as Connection.run
    async def _write(self) -> None:
        with suppress(ConnectionClosed):  # the reading task learns why
            while True:
                if self._must_acknowledge():
                    await self._acknowledge()
                    continue
                # One of each in turn: neither holds up the other.
                asked = self._rooms.next(trio.current_time())
                if asked is not None:
                    await self._write_frame(asked)
                outgoing = self._outbox.next()
                if outgoing is not None:
                    try:
                        await self._write_frame(outgoing.frame)
                    finally:
                        if not outgoing.frame.receipt:
                            outgoing.settle()  # at most once: nobody will know more
                elif asked is None:
                    with trio.move_on_at(min(self._ack_at, self._rooms.next_at)):
                        await self._work.wait()
                        self._work = trio.Event()

    async def _write_frame(self, frame: protocol.ClientMessage) -> None:
        if self._observer is not None:
            self._observer.sending(frame)
        await self._websocket.send_message(protocol.encode(frame).decode())

    def _must_acknowledge(self) -> bool:
        waiting = self._inbox.unacknowledged
        if not waiting:
            return False
        idle = self._wire.idle and not self._inbox.waiting
        return idle or waiting >= ACK_MESSAGES or trio.current_time() >= self._ack_at

    async def _acknowledge(self) -> None:
        self._ack_at = math.inf
        await self._write_frame(protocol.Ack(self._inbox.acknowledged()))

    @trio.lowlevel.enable_ki_protection
    async def _watch(self, patience_s: float) -> None:
        """Drops the connection if not even a ping has come for `patience_s`: two heartbeats and a second."""
        while (quiet_at := self._wire.heard_at + patience_s) > trio.current_time():
            await trio.sleep_until(quiet_at)
            # If it was this process that stood still, what came in the meantime is read before it is judged.
            await trio.lowlevel.checkpoint()
        self._drop(Ending(f"nothing heard from the node for {patience_s:g} s"))


def _ending(closed: ConnectionClosed) -> Ending:
    reason = closed.reason
    if reason is None:  # as trio-websocket's types allow
        return Ending("the connection ended")
    return Ending(reason.reason or reason.name.lower().replace("_", " "), close_code=reason.code)


_Value = TypeVar("_Value")


def _known(value: _Value | UnsetType) -> _Value | None:
    return None if isinstance(value, UnsetType) else value


def _receipt(received: protocol.Receipt) -> Receipt:
    return Receipt(
        received.id, received.status, _known(received.by), _known(received.code), _known(received.message)
    )
