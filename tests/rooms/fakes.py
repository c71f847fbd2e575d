"""What the tests of rooms put at either end: a Redis in memory with its Pub/Sub, and sockets that remember.

`FakeSubscriber` and `FakeRedis` do what those of `ring.store` promise; tests/integration has the real ones.
"""

from collections import defaultdict, deque
from typing import Any, Self, cast

import msgspec
import trio
import trio.testing
from msgspec import Raw

from ring.protocol import broadcast, client
from ring.protocol.broadcast import Broadcast
from ring.protocol.codes import ErrorCode, RingError
from ring.protocol.websocket import TEXT, Decoder
from ring.rooms.member import Member
from ring.rooms.policy import Policies
from ring.rooms.rooms import Rooms
from ring.store.client import Redis
from ring.store.keys import Keys
from ring.store.subscriber import Broke, Event, Missed, Published, Standing, Subscriber
from ring.transport.wheel import TimerWheel

KEYS = Keys("test")


class FakeRedis:
    """Takes what is published, unless it is told to fail; `server` passes it on.

    Attributes:
        pipelines: the commands of each that was executed.
        errors: replies to the next commands, in order; after them they succeed.
        breaks: what the next pipeline raises.
        stalls: pipelines wait for it, if there is one.
    """

    def __init__(self) -> None:
        self.connected = True
        self.pipelines: list[list[tuple[bytes, bytes]]] = []
        self.errors: deque[Exception] = deque()
        self.breaks: RingError | None = None
        self.stalls: trio.Event | None = None
        self.subscribers: list[FakeSubscriber] = []

    def pipeline(self, transaction: bool = True) -> "FakePipeline":
        assert not transaction, "a transaction would hold up everybody for nothing"
        return FakePipeline(self)

    def publish(self, channel: bytes, payload: bytes) -> int:
        for subscriber in self.subscribers:
            subscriber.hear(channel, payload)
        return len(self.subscribers)


class FakePipeline:
    """Commands for a `FakeRedis`."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self._commands: list[tuple[bytes, bytes]] = []

    def execute_command(self, name: str, channel: bytes, payload: bytes) -> Self:
        assert name == "PUBLISH"
        self._commands.append((channel, payload))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[object]:
        assert not raise_on_error
        redis = self._redis
        await trio.lowlevel.checkpoint()
        redis.pipelines.append(self._commands)
        if redis.stalls is not None:
            await redis.stalls.wait()
        if redis.breaks is not None:
            error, redis.breaks = redis.breaks, None
            raise error
        replies: list[object] = []
        for channel, payload in self._commands:
            replies.append(redis.errors.popleft() if redis.errors else redis.publish(channel, payload))
        return replies


class FakeSubscriber:
    """A subscriber whose test says when subscriptions stand, or that they do at once (`prompt`)."""

    def __init__(self, *, prompt: bool = True) -> None:
        self.prompt = prompt
        self.connected = True
        self.connections_made = 1
        self.dropped = 0
        self.wanted: dict[bytes, bool] = {}  # whether they stand
        self.stood: set[bytes] = set()
        self.commands: list[tuple[str, bytes]] = []
        self._waiting: deque[Event] = deque()
        self._something = trio.Event()

    async def run(self) -> None:
        await trio.sleep_forever()

    def subscribe(self, channel: bytes) -> None:
        assert channel not in self.wanted, "once is enough"
        self.commands.append(("subscribe", channel))
        self.wanted[channel] = False
        if self.prompt and self.connected:
            self.stand(channel)

    def unsubscribe(self, channel: bytes) -> None:
        self.commands.append(("unsubscribe", channel))
        del self.wanted[channel]
        self.stood.discard(channel)
        self._waiting = deque(event for event in self._waiting if getattr(event, "channel", b"") != channel)

    async def take(self, limit: int) -> list[Event]:
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            self._something = trio.Event()
            await self._something.wait()
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    # --- for tests

    def tell(self, *events: Event) -> None:
        """This happens."""
        self._waiting.extend(events)
        self._something.set()

    def stand(self, channel: bytes) -> None:
        """The subscription stands from now on."""
        self.tell(Standing(channel, channel in self.stood))
        self.stood.add(channel)
        self.wanted[channel] = True

    def hear(self, channel: bytes, payload: bytes) -> None:
        """Something was published."""
        if self.wanted.get(channel):
            self.tell(Published(channel, payload))

    def miss(self, channel: bytes) -> None:
        """The taker was too slow."""
        self.dropped += 1
        self.tell(Missed(channel))

    def disconnect(self) -> None:
        """The connection breaks."""
        self.connected = False
        self.wanted = dict.fromkeys(self.wanted, False)
        self.tell(Broke())

    def reconnect(self) -> None:
        """It is back, and what is wanted stands."""
        self.connected = True
        self.connections_made += 1
        if self.prompt:
            for channel in self.wanted:
                self.stand(channel)


class FakeSocket:
    """A client's socket whose client reads as the test says."""

    def __init__(self) -> None:
        self.open = True
        self.stalled = False  # the client reads nothing: what is sent stays queued
        self.queued = 0
        self.low_water = 1000
        self.frames: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self._decoder = Decoder(role="client", max_message=1 << 24)

    def send_text(self, payload: bytes) -> None:
        if self.open:
            self.frames.append(msgspec.json.decode(payload))
            self._queue(len(payload) + 2)

    def send_frame(self, frame: bytes) -> None:
        if self.open:
            self.raw.append(frame)
            for opcode, payload in self._decoder.feed(frame):
                assert opcode == TEXT
                self.frames.append(msgspec.json.decode(payload))
            self._queue(len(frame))

    def _queue(self, size: int) -> None:
        if self.stalled:
            self.queued += size

    def heard(self, kind: str | None = None) -> list[dict[str, Any]]:
        """What came since it was last asked; of one type, if it is named (the rest is forgotten)."""
        frames, self.frames = self.frames, []
        return [frame for frame in frames if kind is None or frame["type"] == kind]

    def data(self) -> list[Any]:
        """The data of the messages of rooms that came since."""
        return [frame["data"] for frame in self.heard("room")]


class House:
    """A node's rooms, on a Redis in memory, with members."""

    def __init__(
        self,
        node: str = "n1",
        redis: FakeRedis | None = None,
        *,
        policies: Policies | None = None,
        rooms_per_session: int = 3,
        prompt: bool = True,
    ) -> None:
        self.now = 1000.0
        self.wheel = TimerWheel(lambda: self.now)
        self.redis = redis or FakeRedis()
        self.subscriber = FakeSubscriber(prompt=prompt)
        self.redis.subscribers.append(self.subscriber)
        self.rooms = Rooms(
            node=node,
            keys=KEYS,
            wheel=self.wheel,
            policies=policies or Policies(),
            rooms_per_session=rooms_per_session,
        )
        self.sockets: dict[int, FakeSocket] = {}
        self.errors: defaultdict[ErrorCode, int] = defaultdict(int)

    async def run(self) -> None:
        """Until cancelled."""
        await self.rooms.run(cast("Redis", self.redis), cast("Subscriber", self.subscriber))

    async def open(self, nursery: trio.Nursery) -> Self:
        """Runs it."""
        nursery.start_soon(self.run)
        await trio.testing.wait_all_tasks_blocked()
        return self

    def member(self, user: str = "alice", *, backlog_bytes: int = 500) -> Member:
        """A session that has been in no room."""
        sid = len(self.sockets) + 1
        socket = self.sockets[sid] = FakeSocket()
        return Member(sid, user, socket, backlog_bytes, self.errors)

    def of(self, member: Member) -> FakeSocket:
        """The client's end of a member."""
        return self.sockets[member.sid]

    async def joined(self, room: str, *users: str) -> list[Member]:
        """Members of a room, of these users."""
        members = [self.member(user) for user in users]
        for member in members:
            self.rooms.join(member, room, "j")
        await settle()
        for member in members:
            assert self.of(member).heard() == [{"type": "ok", "id": "j"}]
        return members

    def pass_time(self, seconds: float) -> None:
        """The wheel turns."""
        self.now += seconds
        self.wheel.advance(self.now)


async def settle() -> None:
    """Returns when nothing is under way any more."""
    await trio.testing.wait_all_tasks_blocked()


def channel(room: str) -> bytes:
    """The channel of a room."""
    return KEYS.channel(room)


def payload(data: str = "1", *, room: str = "r", node: str = "n9", session: int = 0) -> bytes:
    """What a node publishes."""
    message = client.Room(room, "someone", "p", Raw(data.encode()), 5)
    return broadcast.encode(Broadcast(node, session, client.encode(message)))
