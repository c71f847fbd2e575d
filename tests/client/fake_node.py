"""A node that speaks the client protocol and does what a test tells it to; in memory, or on loopback."""

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import msgspec
import trio
import trio.testing
from trio_websocket import (
    CloseReason,
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)

from ring.client import Client, Message, Receipt, RoomEnded, RoomGap, RoomMessage
from ring.client.wire import Address, Wire
from ring.protocol import client as protocol
from ring.protocol.codes import ErrorCode, RingError

DEADLINE_S = 30.0


class Peer:
    """The node's end of one connection."""

    def __init__(
        self, websocket: WebSocketConnection, query: dict[str, str], stream: trio.abc.Stream
    ) -> None:
        self.websocket = websocket
        self.query = query
        self.stream = stream

    async def welcome(
        self,
        *,
        resumed: bool | Literal["gap"] = False,
        heartbeat_s: float = 0,
        in_flight: int = 16,
        message_bytes: int = 65536,
    ) -> None:
        """The first frame."""
        welcome = protocol.Welcome(
            user=self.query.get("user", "alice"),
            session="s1",
            device=self.query["device"],
            node="n1",
            owner="n2",
            epoch=1,
            resumed=resumed,
            heartbeat_s=heartbeat_s,
            server_time=0,
            limits=protocol.Limits(message_bytes=message_bytes, in_flight=in_flight),
        )
        await self.tell(welcome)

    async def tell(self, message: protocol.ServerMessage) -> None:
        """Any message."""
        await self.websocket.send_message(protocol.encode(message).decode())

    async def message(self, number: int, *, message_id: str | None = "", sender: str = "bob") -> None:
        """A direct message whose data is its number."""
        name = f"m{number}" if message_id == "" else message_id
        data = msgspec.Raw(str(number).encode())
        await self.tell(protocol.Message(from_=sender, id=name, seq=f"1-{number}", data=data, sent_at=number))

    async def receipt(
        self, send: protocol.Send, status: Literal["delivered", "queued", "failed"] = "delivered"
    ) -> None:
        """The answer to a send."""
        assert send.id is not None
        await self.tell(protocol.Receipt(id=send.id, status=status, by="client"))

    async def hear(self) -> protocol.ClientMessage:
        """The client's next message."""
        with trio.fail_after(DEADLINE_S):
            text = await self.websocket.get_message()
        assert isinstance(text, str)
        return protocol.decode(text.encode())

    async def hear_send(self) -> protocol.Send:
        """The client's next message, which is a send."""
        message = await self.hear()
        assert isinstance(message, protocol.Send)
        return message

    async def hear_join(self, room: str) -> str:
        """The id of the client's next message, which asks to join the room."""
        message = await self.hear()
        assert isinstance(message, protocol.Join), message
        assert message.room == room
        return message.id

    async def hear_leave(self, room: str) -> str:
        """The id of the client's next message, which asks to leave the room."""
        message = await self.hear()
        assert isinstance(message, protocol.Leave), message
        assert message.room == room
        return message.id

    async def hear_publish(self) -> protocol.Publish:
        """The client's next message, which publishes."""
        message = await self.hear()
        assert isinstance(message, protocol.Publish), message
        return message

    async def grant(self, frame_id: str) -> None:
        """The answer to a frame that is granted."""
        await self.tell(protocol.Ok(id=frame_id))

    async def refuse(self, frame_id: str, code: ErrorCode, message: str = "no") -> None:
        """The answer to a frame that is not."""
        await self.tell(protocol.Error(code, message, code.retryable, id=frame_id))

    async def say(self, number: int, room: str = "lobby", sender: str | None = "bob") -> None:
        """A message of a room whose data is its number."""
        data = msgspec.Raw(str(number).encode())
        await self.tell(protocol.Room(room=room, from_=sender, id=f"r{number}", data=data, sent_at=number))

    async def hear_ack(self) -> str:
        """The position of the client's next message, which is an acknowledgement."""
        message = await self.hear()
        assert isinstance(message, protocol.Ack)
        return message.seq

    async def hear_end(self) -> CloseReason | None:
        """How the client ended the connection, having said nothing more."""
        with trio.fail_after(DEADLINE_S):
            try:
                text = await self.websocket.get_message()
            except ConnectionClosed as closed:
                return closed.reason
        raise AssertionError(f"the client said {text!r}")

    async def close(self, code: int, reason: str | None = None) -> None:
        """Closes as a node does."""
        await self.websocket.aclose(code, reason)

    async def cut(self) -> None:
        """The connection breaks."""
        await trio.aclose_forcefully(self.stream)


Plan = Callable[[WebSocketRequest, "FakeNode", trio.abc.Stream], Awaitable[None]]


def query_of(request: WebSocketRequest) -> dict[str, str]:
    """The query's parameters."""
    return {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}


class FakeNode:
    """Welcomes every client, unless it has other plans for the next one.

    Attributes:
        plans: what to do with the next connections, the first first.
        requests: every upgrade that was asked for, and the time.
        url: where it is.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.plans: deque[Plan] = deque()
        self.requests: list[tuple[WebSocketRequest, float]] = []
        self.dialled: list[tuple[Address, float]] = []
        self.url = "ws://memory:1"
        self._nursery = nursery
        self._send_peer, self._peers = trio.open_memory_channel[Peer](100)

    async def listen(self) -> None:
        """Serves loopback from now on."""
        serve = partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await self._nursery.start(serve)
        self.url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    async def dial(self, address: Address, ssl_context: object) -> Wire:
        """Stands for `ring.client.wire.dial`."""
        await trio.lowlevel.checkpoint()
        self.dialled.append((address, trio.current_time()))
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return Wire(ours)

    async def peer(self) -> Peer:
        """The next connection that was welcomed, or handed over by its plan."""
        with trio.fail_after(DEADLINE_S):
            return await self._peers.receive()

    async def hand_over(self, peer: Peer) -> None:
        """Gives a connection to the test."""
        await self._send_peer.send(peer)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            self.requests.append((request, trio.current_time()))
            plan = self.plans.popleft() if self.plans else welcome()
            await plan(request, self, stream)


def welcome(
    *,
    resumed: bool | Literal["gap"] = False,
    heartbeat_s: float = 0,
    in_flight: int = 16,
    message_bytes: int = 65536,
) -> Plan:
    """Welcomes the client."""

    async def plan(request: WebSocketRequest, node: FakeNode, stream: trio.abc.Stream) -> None:
        peer = Peer(await request.accept(subprotocol=protocol.SUBPROTOCOL), query_of(request), stream)
        await peer.welcome(
            resumed=resumed, heartbeat_s=heartbeat_s, in_flight=in_flight, message_bytes=message_bytes
        )
        await node.hand_over(peer)

    return plan


def unwelcomed() -> Plan:
    """Accepts the upgrade and leaves the rest to the test."""

    async def plan(request: WebSocketRequest, node: FakeNode, stream: trio.abc.Stream) -> None:
        await node.hand_over(Peer(await request.accept(), query_of(request), stream))

    return plan


def close(code: int, reason: str) -> Plan:
    """Welcomes the client, only to close."""

    async def plan(request: WebSocketRequest, node: FakeNode, stream: trio.abc.Stream) -> None:
        peer = Peer(await request.accept(), query_of(request), stream)
        await peer.welcome()
        await peer.close(code, reason)

    return plan


def refuse(status: int, body: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None) -> Plan:
    """Refuses the upgrade."""

    async def plan(request: WebSocketRequest, node: FakeNode, stream: trio.abc.Stream) -> None:
        await request.reject(status, body=body, extra_headers=headers)

    return plan


def answer(raw: bytes) -> Plan:
    """Answers the upgrade with these bytes, and hangs up."""

    async def plan(request: WebSocketRequest, node: FakeNode, stream: trio.abc.Stream) -> None:
        await stream.send_all(raw)
        await stream.aclose()

    return plan


class Asking:
    """A `join`, `leave` or `publish` that runs in the background."""

    def __init__(self, nursery: trio.Nursery, ask: Callable[[], Awaitable[None]]) -> None:
        self.scope = trio.CancelScope()
        self._done = trio.Event()
        self._error: RingError | None = None
        nursery.start_soon(self._run, ask)

    @property
    def done(self) -> bool:
        """Whether it has returned or raised."""
        return self._done.is_set()

    async def granted(self) -> None:
        """Returns when it has returned, or raises what it raised."""
        with trio.fail_after(DEADLINE_S):
            await self._done.wait()
        if self._error is not None:
            raise self._error

    async def _run(self, ask: Callable[[], Awaitable[None]]) -> None:
        with self.scope:
            try:
                await ask()
            except RingError as error:
                self._error = error
        self._done.set()


class Sending:
    """A `send` that runs in the background."""

    def __init__(self, nursery: trio.Nursery, client: Client, data: object, *, receipt: bool = True) -> None:
        self.scope = trio.CancelScope()
        self._done = trio.Event()
        self._receipt: Receipt | None = None
        self._error: RingError | None = None
        nursery.start_soon(self._run, client, data, receipt)

    @property
    def done(self) -> bool:
        """Whether it has returned or raised."""
        return self._done.is_set()

    async def result(self) -> Receipt | None:
        """What it returned, or raises what it raised."""
        with trio.fail_after(DEADLINE_S):
            await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._receipt

    async def _run(self, client: Client, data: object, receipt: bool) -> None:
        with self.scope:
            try:
                self._receipt = await client.send("bob", data, receipt=receipt)
            except RingError as error:
                self._error = error
        self._done.set()


async def take(client: Client, count: int) -> list[object]:
    """The data of the next messages."""
    with trio.fail_after(DEADLINE_S):
        return [(await take_message(client)).data for _ in range(count)]


async def take_message(client: Client) -> Message:
    """The next of all that comes, which is a direct message."""
    message = await anext(client)
    assert isinstance(message, Message)
    return message


async def be_in(client: Client, peer: Peer, *rooms: str) -> None:
    """Joins rooms, which the node grants."""
    for room in rooms:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.join, room)
            await peer.grant(await peer.hear_join(room))


async def next_of_room(client: Client) -> RoomMessage | RoomGap | RoomEnded:
    """The next of all that comes, which is of a room."""
    with trio.fail_after(DEADLINE_S):
        incoming = await anext(client)
    assert not isinstance(incoming, Message)
    return incoming
