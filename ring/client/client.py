"""The library's face: `connect`, and the `Client` with which an application sends and takes messages.

What keeps it connected is in connection.py. How to use it: docs/how-to/client.md.
"""

import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal, overload

import msgspec
import trio

from ring.client.backoff import Backoff
from ring.client.connection import Connection, Token
from ring.client.messages import Incoming, Receipt
from ring.client.outbox import Outgoing
from ring.client.rooms import Asked
from ring.client.wire import parse_url
from ring.protocol.client import Send, Welcome
from ring.protocol.codes import BadRequest, ErrorCode, RingError
from ring.protocol.names import check_name

_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Client:
    """One user's connection to a cluster, kept alive. `connect` makes it.

    Any number of tasks may send, publish, join and leave at a time; one may iterate.
    """

    def __init__(self, connection: Connection, device: str) -> None:
        self._connection = connection
        self._device = device
        self._iterating = False
        # No other client's ids begin so: a node knows a message that is sent again by its sender and id.
        self._id_prefix = secrets.token_hex(6)
        self._ids = 0

    @property
    def user(self) -> str:
        """The user that the cluster knows this client as."""
        return self._welcome.user

    @property
    def device(self) -> str:
        """The name of this client among the user's; it stays the same for the client's life."""
        return self._device

    @property
    def session(self) -> str:
        """The present session, or the last one."""
        return self._welcome.session

    @property
    def node(self) -> str:
        """The node that this client is, or was last, connected to."""
        return self._welcome.node

    @property
    def owner(self) -> str:
        """The node that owned the user when the session began."""
        return self._welcome.owner

    @property
    def connected(self) -> bool:
        """Whether there is a session now. There need not be one to send: sending waits for it."""
        return self._connection.session is not None

    @property
    def reconnects(self) -> int:
        """How often this client was welcomed again."""
        return self._connection.reconnects

    @property
    def gaps(self) -> int:
        """How often a node could not tell whether this client has everything since the last connection."""
        return self._connection.gaps

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms that this client has joined. After a cut it becomes a member again by itself."""
        return self._connection.rooms.wanted

    @property
    def _welcome(self) -> Welcome:
        assert self._connection.welcome is not None  # `connect` gives the client away after the first one
        return self._connection.welcome

    @overload
    async def send(
        self, to: str, data: object, *, ttl_s: float | None = None, receipt: Literal[True] = True
    ) -> Receipt: ...

    @overload
    async def send(
        self, to: str, data: object, *, ttl_s: float | None = None, receipt: Literal[False]
    ) -> None: ...

    @overload
    async def send(
        self, to: str, data: object, *, ttl_s: float | None = None, receipt: bool
    ) -> Receipt | None: ...

    async def send(
        self, to: str, data: object, *, ttl_s: float | None = None, receipt: bool = True
    ) -> Receipt | None:
        """Sends a direct message, and waits until its fate is known.

        While there is no connection it waits for one; after a cut it is sent again, and the recipient's
        library drops the double. There is no time limit: put one around the call. A call that is cancelled
        may have sent the message all the same.

        Args:
            to: the recipient.
            data: what `msgspec.json.encode` takes: JSON types, dataclasses, structs, datetimes...
            ttl_s: seconds for which it is worth delivering; None: as long as the cluster keeps messages.
            receipt: False returns None once the message is written: it is delivered at most once and never
                stored, and nobody learns what became of it.

        Raises:
            BadRequest: it cannot be sent as it is; nothing was. `code` is `too_large` if it is that.
            ConnectionEnded: there is no connection and there will be none.
        """
        connection = self._connection
        frame = self._frame(to, data, ttl_s, receipt)
        if connection.ended:
            raise connection.end()
        settled = trio.Event()
        outgoing = Outgoing(frame, settled.set)
        connection.outbox.add(outgoing)
        if connection.session is not None:
            connection.session.wake()
        try:
            await settled.wait()
        except trio.Cancelled:
            connection.outbox.abandon(outgoing)
            raise
        if outgoing.receipt is None and (receipt or not outgoing.written):
            raise connection.end()
        return outgoing.receipt

    def _frame(self, to: str, data: object, ttl_s: float | None, receipt: bool) -> Send:
        check_name(to, "to")
        if ttl_s is not None and not ttl_s > 0:
            raise BadRequest(f"ttl_s: more than 0 seconds, not {ttl_s}")
        body = self._encode(data)
        self._ids += 1
        message_id = f"{self._id_prefix}-{self._ids}" if receipt else None
        return Send(to=to, data=body, id=message_id, receipt=receipt, ttl_s=ttl_s)

    async def join(self, room: str) -> None:
        """Becomes a member of a room: what is published to it from now on comes in the iteration.

        While there is no connection it waits for one. Membership lasts until `leave`: after a cut the library
        joins again, and tells of what may be missing by a `RoomGap`, or by a `RoomEnded` if a node refuses
        for good. To join a room again while this is under way waits for it. There is no time limit: put one
        around the call. A call that is cancelled joins nothing.

        Raises:
            BadRequest: `room` is no name.
            RingError: a node refused: `too_many_rooms`, `rooms_unavailable`, `forbidden`... The room is not
                joined. `not_joined` if another task left it meanwhile.
            ConnectionEnded: there is no connection and there will be none.
        """
        check_name(room, "room")
        await self._ask(lambda settle: self._connection.rooms.join(room, settle))

    async def leave(self, room: str) -> None:
        """Ends a membership: nothing of the room is handed out from now on, not even what waits already.

        Waits until the node knows. A call that is cancelled leaves the room all the same.

        Raises:
            BadRequest: `room` is no name.
            RingError: `not_joined`, or what else a node refused it by.
            ConnectionEnded: there is no connection and there will be none.
        """
        check_name(room, "room")
        await self._ask(lambda settle: self._connection.rooms.leave(room, settle))

    async def publish(self, room: str, data: object, *, echo: bool = False) -> None:
        """Sends a message to all members of a room, at most once; returns when the node has passed it on.

        While there is no connection it waits for one. There is no time limit: put one around the call. A call
        that is cancelled may have published all the same.

        Args:
            room: the room; to have joined it is not needed.
            data: as of `send`.
            echo: True: if this client is a member, it gets a copy too.

        Raises:
            BadRequest: it cannot be published as it is; nothing was. `code` is `too_large` if it is that.
            RingError: a node refused it; or, by `rooms_unavailable` as well, the connection broke before the
                answer, and it may have been published.
            ConnectionEnded: there is no connection and there will be none.
        """
        check_name(room, "room")
        body = self._encode(data)
        await self._ask(lambda settle: self._connection.rooms.publish(room, body, echo, settle))

    async def _ask(self, ask: Callable[[Callable[[], None]], Asked]) -> None:
        connection = self._connection
        if connection.ended:
            raise connection.end()
        settled = trio.Event()
        asked = ask(settled.set)
        if connection.session is not None:
            connection.session.wake()
        try:
            await settled.wait()
        except trio.Cancelled:
            connection.rooms.abandon(asked)
            raise
        if asked.refusal is not None:
            code, message = asked.refusal
            raise RingError(message, code=code)
        if not asked.answered:
            raise connection.end()

    def _encode(self, data: object) -> msgspec.Raw:
        try:
            body = msgspec.json.encode(data)
            # A Raw in it may be anything, and a frame that no node can read is answered to nobody.
            _check_json(body)
            body.decode()
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise BadRequest(f"data: no JSON: {error}") from error
        limit = self._welcome.limits.message_bytes
        if len(body) > limit:
            raise BadRequest(f"data: at most {limit} bytes, not {len(body)}", code=ErrorCode.TOO_LARGE)
        return msgspec.Raw(body)

    def __aiter__(self) -> "Client":
        return self

    async def __anext__(self) -> Incoming:
        """The next message; with rooms, also what comes of them, in the order in which it came.

        To hand a `Message` out is to acknowledge it: its sender's receipt says `delivered`. As long as no
        room is joined, there is nothing else.

        Raises:
            StopAsyncIteration: the `async with` block of this client was left.
            ConnectionEnded: there is no connection and there will be none. What was not taken was not
                acknowledged either.
            trio.BusyResourceError: another task is iterating.
        """
        connection = self._connection
        inbox = connection.inbox
        if self._iterating:
            raise trio.BusyResourceError("another task is iterating over this client")
        self._iterating = True
        try:
            await trio.lowlevel.checkpoint()
            while not inbox or connection.left:
                if connection.left:
                    raise StopAsyncIteration
                if connection.ended:
                    raise connection.end()
                await connection.wait_arrival()
        finally:
            self._iterating = False
        # From here on the application has it: nothing may wait between taking and returning.
        incoming = inbox.take()
        if connection.session is not None:
            connection.session.acknowledge()
            if inbox.overrun and not inbox.waiting:
                connection.session.renew("there is room for what was left to the node")
        return incoming


@asynccontextmanager
async def connect(
    url: str | Sequence[str],
    user: str | None = None,
    *,
    device: str | None = None,
    token: Token | None = None,
    on_gap: Callable[[], None] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    backoff: Backoff | None = None,
) -> AsyncIterator[Client]:
    """Connects to a cluster, and stays connected inside the block; leaving it says goodbye.

    Entering waits until a node has welcomed the client, for as long as the caller lets it.

    Args:
        url: `ws://host:port` or `wss://host:port`, of a balancer or a node; several are tried in turn.
        user: who to be; may be left out where the token says it.
        device: the name of this client among the user's. The same again replaces the old one. Random if None.
        token: the user's token, or a callable (plain or async) that gets one; it is asked again when a node
            refuses the last one. What it raises ends the client.
        on_gap: called when a node could not tell whether this client has everything since the last
            connection.
        ssl_context: for `wss://`; Python's default one if None.
        backoff: when to connect again.

    Raises:
        BadRequest: an argument is malformed.
        ConnectionEnded: a node refused this client for good.
    """
    addresses = [parse_url(each) for each in ([url] if isinstance(url, str) else url)]
    if not addresses:
        raise BadRequest("url: at least one")
    device = secrets.token_hex(8) if device is None else check_name(device, "device")
    connection = Connection(
        addresses,
        user=None if user is None else check_name(user, "user"),
        device=device,
        token=token,
        on_gap=on_gap,
        ssl_context=ssl_context,
        backoff=backoff or Backoff(),
    )
    async with attached(connection, device) as client:
        yield client


@asynccontextmanager
async def attached(connection: Connection, device: str) -> AsyncIterator[Client]:
    """The block of `connect`, around a connection that is made already."""
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            try:
                await connection.wait_ready()
                if connection.ended:
                    raise connection.end()
                yield Client(connection, device)
            except BaseException as error:
                raised = error
                raise
            finally:
                await connection.leave()
    except BaseExceptionGroup:
        # The nursery wraps what the block raised, which nobody expects of `async with connect()`.
        # Cancelled stays as it is: its scope reads groups.
        if raised is None or isinstance(raised, trio.Cancelled):
            raise
    if raised is not None:
        raise raised
