"""Nodes, and the scripts alone, on a real server for the tests of membership."""

import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
import trio.testing

from ring.cluster.membership import Membership
from ring.cluster.scripts import Answer, Scripts
from ring.cluster.view import Member, RingView
from ring.store.address import parse_url
from ring.store.client import Redis
from ring.store.connection import open_stream
from ring.store.keys import Keys

KEYS = Keys("demo")
QUICK = 0.3
"""A ttl for tests in which leases lapse. A stall of the machine may end them too: expect no exact epochs."""

SLOW = 60.0
"""A ttl whose renewals come too late for any test: what happens, happens for another reason."""


def node(name: str, incarnation: str = "i1") -> Member:
    """A member that has just started."""
    return Member(name, incarnation, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", 1, "up", "1.0")


class Cable:
    """A node's way to the server, which can be cut."""

    def __init__(self, url: str) -> None:
        self.address = parse_url(url)
        self.redis = Redis(self.address, client_name="tests", dial=self._dial)
        self._whole = trio.Event()
        self._whole.set()
        self._stream: trio.SocketStream | None = None

    async def _dial(self) -> trio.abc.Stream:
        await self._whole.wait()
        stream = await open_stream(self.address)
        assert isinstance(stream, trio.SocketStream)
        self._stream = stream
        return stream

    def cut(self) -> None:
        """The connection breaks, and no other can be made."""
        self._whole = trio.Event()
        assert self._stream is not None
        self._stream.socket.shutdown(socket.SHUT_RD)  # as if the server had closed it

    def mend(self) -> None:
        """The server can be reached again."""
        self._whole.set()


class Seat(Membership):
    """A membership that keeps its views and can be killed."""

    def __init__(self, redis: Redis, me: Member, **options: Any) -> None:
        self.views: list[RingView] = []
        self.scope = trio.CancelScope()
        self._changed = trio.Event()
        super().__init__(redis, KEYS, me, on_view=self._note, **options)

    def _note(self, view: RingView) -> None:
        assert view is self.view
        self.views.append(view)
        self._changed.set()
        self._changed = trio.Event()

    async def sit(self, *, task_status: trio.TaskStatus[RingView] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until `scope` is cancelled, as by kill -9: nobody is told."""
        with self.scope:
            await self.run(task_status=task_status)

    @property
    def member(self) -> bool:
        """Whether this life of the node is in its own view."""
        mine = self._view.member(self._me.name) if self._view is not None else None
        return mine is not None and mine.incarnation == self._me.incarnation

    async def drain(self) -> None:
        """Drains within the time that a test has."""
        with trio.fail_after(5):
            await super().drain()

    async def leave(self) -> None:
        """Leaves within the time that a test has."""
        with trio.fail_after(5):
            await super().leave()

    async def until(self, right: Callable[[RingView], bool]) -> RingView:
        """Waits for a view, and returns it."""
        with trio.fail_after(5):
            while not (self.views and right(self.view)):
                await self._changed.wait()
        return self.view

    async def until_names(self, *names: str) -> RingView:
        """Waits for the view of these members."""
        return await self.until(lambda view: view.names == names)


class Cluster:
    """Starts nodes on one server."""

    def __init__(self, url: str, nursery: trio.Nursery) -> None:
        self.url = url
        self.nursery = nursery

    async def cable(self) -> Cable:
        """A way to the server, in use."""
        cable = Cable(self.url)
        await self.nursery.start(cable.redis.run)
        return cable

    async def start(
        self, me: Member, cable: Cable | None = None, ttl_s: float = SLOW, **options: Any
    ) -> Seat:
        """A node that has joined."""
        seat = Seat((cable or await self.cable()).redis, me, ttl_s=ttl_s, **options)
        with trio.fail_after(5):
            assert await self.nursery.start(seat.sit) is seat.view
        return seat


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Looks again and again, for what has no event; fails after 5 s."""
    with trio.fail_after(5):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await trio.testing.wait_all_tasks_blocked(0.002)


async def agree(*seats: Seat) -> RingView:
    """Makes nodes renew until they have one epoch, and returns the view that they have."""

    def agreed() -> bool:
        for seat in seats:
            seat.renew_soon()
        return len({seat.view.epoch for seat in seats}) == 1

    await eventually(agreed)
    return seats[0].view


TTL = 3000
T0 = 1_700_000_000_000
"""When a test begins, in ms."""

clusters = map("c{}".format, itertools.count())


class Ring:
    """The scripts of one cluster at a time that the test sets, and the server under them."""

    def __init__(self, redis: Redis, ttl_ms: int = TTL) -> None:
        self.redis = redis
        self.keys = Keys(next(clusters))
        self.scripts = Scripts(redis, self.keys, ttl_ms=ttl_ms, now_ms=T0)

    def later(self, ms: int) -> None:
        """Moves the time."""
        assert self.scripts.now_ms is not None
        self.scripts.now_ms += ms

    async def watched(self, ms: int) -> None:
        """Moves the time, in which somebody has looked at the leases again and again."""
        self.later(ms)
        await self.redis.hset(self.keys.epoch, "swept", str(self.scripts.now_ms))

    def view(self, answer: Answer) -> RingView:
        """What a node that got this answer routes by (its table is not of interest)."""
        assert answer.members is not None
        return RingView.build(self.keys.cluster, answer.epoch, answer.members, [])

    async def join(self, member: Member, seen: int = 0) -> RingView:
        """Joins where it must succeed."""
        answer = await self.scripts.join(member, seen)
        assert answer.status == "joined"
        return self.view(answer)

    async def names(self) -> set[str]:
        """The members that the server has."""
        return {member.name for member in await self.members()}

    async def members(self) -> list[Member]:
        """The members as they are stored."""
        records: Any = await self.redis.hvals(self.keys.members)
        return [msgspec.json.decode(record, type=Member) for record in records]

    async def epoch(self) -> int:
        """The epoch that is stored."""
        return int(await self.redis.hget(self.keys.epoch, "epoch") or 0)

    async def leases(self) -> dict[str, int]:
        """Per member when its lease lapses, in ms since the test began."""
        pairs: Any = await self.redis.zrange(self.keys.leases, 0, -1, withscores=True)
        return {name.decode(): int(score) - T0 for name, score in pairs}

    async def forget(self) -> None:
        """What an emptied server remembers of this cluster."""
        keys = self.keys
        await self.redis.delete(keys.members, keys.leases, keys.epoch, keys.geometry, keys.suspects)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Redis]:
    """A client that runs."""
    redis = Redis.from_url(url, client_name="tests")
    async with trio.open_nursery() as nursery:
        await nursery.start(redis.run)
        yield redis
        nursery.cancel_scope.cancel()
