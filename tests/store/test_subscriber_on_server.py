"""The subscriber against real servers: thousands of channels, kills, restarts, slow takers, denials."""

import shutil
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ring.store.client import Redis
from ring.store.embedded import EmbeddedServer, find_server, free_port
from ring.store.keys import Keys
from ring.store.subscriber import Broke, Event, Missed, Published, Standing, Subscriber

SECONDS = 30  # the deadline of each test
ROOMS = 2000
PROGRAMS = sorted({find_server(), shutil.which("redis-server") or find_server()})


@pytest.fixture(autouse=True)
async def _deadline() -> AsyncIterator[None]:
    with trio.fail_after(SECONDS):
        yield


async def take(subscriber: Subscriber, count: int) -> list[Event]:
    """The next `count` events."""
    events: list[Event] = []
    while len(events) < count:
        events += await subscriber.take(count - len(events))
    return events


async def publish(redis: Redis, channels: list[bytes], payload: bytes) -> None:
    """Publishes to all of them, in one piece; each must have one subscriber."""
    batch = redis.pipeline(transaction=False)
    for channel in channels:
        batch.publish(channel, payload)
    assert await batch.execute() == [1] * len(channels)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_thousands_of_rooms_across_a_kill_and_a_restart(program: str, nursery: trio.Nursery) -> None:
    """All stand, get what is published, and stand again after the connection was killed, or the server."""
    keys = Keys("demo")
    channels = [keys.channel(f"räum {number}") for number in range(ROOMS)]
    port = free_port()
    subscriber = Subscriber.from_url(f"redis://127.0.0.1:{port}", client_name="ring-test-rooms")
    nursery.start_soon(subscriber.run)
    for channel in channels:
        subscriber.subscribe(channel)
    for made in (1, 3):
        async with EmbeddedServer(program=program, port=port) as server:
            redis = Redis.from_url(server.url, client_name="ring-test")
            async with trio.open_nursery() as commands:
                await commands.start(redis.run)
                assert await take(subscriber, ROOMS) == [
                    Standing(channel, again=made > 1) for channel in channels
                ]
                assert subscriber.connections_made == made
                await publish(redis, channels, b"1")
                assert await take(subscriber, ROOMS) == [Published(channel, b"1") for channel in channels]

                assert await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub") == 1
                assert await take(subscriber, 1) == [Broke()]
                assert await take(subscriber, ROOMS) == [
                    Standing(channel, again=True) for channel in channels
                ]
                assert subscriber.connections_made == made + 1
                await publish(redis, channels, b"2")
                assert await take(subscriber, ROOMS) == [Published(channel, b"2") for channel in channels]
                assert [client["name"] for client in await redis.client_list(_type="pubsub")] == [
                    "ring-test-rooms"
                ]
                commands.cancel_scope.cancel()
        assert await take(subscriber, 1) == [Broke()]
    assert (subscriber.received, subscriber.dropped) == (4 * ROOMS, 0)


async def test_what_is_left_is_left(redis_url: str, nursery: trio.Nursery) -> None:
    """The server forgets what was unsubscribed from, and a channel in two minds ends as it was last said."""
    subscriber = Subscriber.from_url(redis_url, client_name="ring-test-rooms")
    redis = Redis.from_url(redis_url, client_name="ring-test")
    await nursery.start(subscriber.run)
    await nursery.start(redis.run)
    for turn in range(30):
        for channel in (b"a", b"b", b"c"):
            subscriber.subscribe(channel)
        if turn % 3:
            await redis.ping()
        subscriber.unsubscribe(b"a")
        subscriber.unsubscribe(b"b")
        if turn % 2:
            await redis.ping()
    subscriber.subscribe(b"b")
    subscriber.subscribe(b"d")
    while Standing(b"d", again=False) not in await subscriber.take(100):
        pass
    numbers = await redis.pubsub_numsub("a", "b", "c", "d")
    assert numbers == [(b"a", 0), (b"b", 1), (b"c", 1), (b"d", 1)]
    await publish(redis, [b"b", b"c", b"d"], b"x")
    assert await take(subscriber, 3) == [Published(channel, b"x") for channel in (b"b", b"c", b"d")]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_slow_taker_is_not_cut_off(program: str) -> None:
    """Who takes nothing costs messages, which it is told; the server never has a reason to cut us off."""
    options = ["--client-output-buffer-limit", "pubsub", "1mb", "0", "0"]
    async with EmbeddedServer(program=program, options=options) as server, trio.open_nursery() as services:
        subscriber = Subscriber.from_url(server.url, client_name="ring-test-rooms")
        redis = Redis.from_url(server.url, client_name="ring-test")
        await services.start(subscriber.run)
        await services.start(redis.run)
        subscriber.subscribe(b"a")
        subscriber.subscribe(b"b")
        await take(subscriber, 2)
        payload = b"x" * 10_000
        for _ in range(300):  # 30 MB, three times what may wait, in pieces below the server's limit
            await publish(redis, [b"a"] * 10, payload)
        while subscriber.received < 3000:
            await redis.ping()
        assert subscriber.connections_made == 1
        assert subscriber.dropped > 0
        events = await subscriber.take(10_000)
        assert events == [Published(b"a", payload)] * (3000 - subscriber.dropped) + [Missed(b"a")]
        await publish(redis, [b"a", b"b"], b"y")
        assert await take(subscriber, 2) == [Published(b"a", b"y"), Published(b"b", b"y")]
        assert subscriber.connections_made == 1
        services.cancel_scope.cancel()


@pytest.mark.parametrize("program", PROGRAMS)
async def test_denied_channels(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A user without the right to some channels gets the others, on the same connection; logged once."""
    options = ["--user", "alice", "on", "nopass", "resetchannels", "&ring:*", "+ping", "+subscribe"]
    async with EmbeddedServer(program=program, options=options) as server, trio.open_nursery() as services:
        subscriber = Subscriber.from_url(
            f"redis://alice:x@127.0.0.1:{server.port}", client_name="ring-test-rooms"
        )
        await services.start(subscriber.run)
        for channel in (b"other:a", b"ring:a", b"other:b", b"ring:b"):
            subscriber.subscribe(channel)
        assert await take(subscriber, 2) == [
            Standing(b"ring:a", again=False),
            Standing(b"ring:b", again=False),
        ]
        subscriber.unsubscribe(b"ring:a")  # that is denied as well
        subscriber.subscribe(b"ring:c")
        assert await take(subscriber, 1) == [Standing(b"ring:c", again=False)]
        assert subscriber.connections_made == 1
        services.cancel_scope.cancel()
    logged = capsys.readouterr()
    lines = [line for line in (logged.out + logged.err).splitlines() if "denies" in line]
    assert len(lines) == 1
    assert "ACL SETUSER alice +subscribe +unsubscribe &ring:*" in lines[0]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_right_that_is_withdrawn(program: str) -> None:
    """The server cuts us off; the channel does not stand again, those that we may have do."""
    options = ["--user", "alice", "on", "nopass", "resetchannels", "&ring:*", "+ping", "+subscribe"]
    async with EmbeddedServer(program=program, options=options) as server, trio.open_nursery() as services:
        redis = Redis.from_url(server.url, client_name="ring-test")
        url = f"redis://alice:x@127.0.0.1:{server.port}"
        subscriber = Subscriber.from_url(url, client_name="ring-test-rooms")
        await services.start(redis.run)
        await services.start(subscriber.run)
        subscriber.subscribe(b"ring:a")
        subscriber.subscribe(b"ring:b")
        await take(subscriber, 2)
        await redis.execute_command("ACL", "SETUSER", "alice", "resetchannels", "&ring:b")
        assert await take(subscriber, 2) == [Broke(), Standing(b"ring:b", again=True)]
        services.cancel_scope.cancel()


async def test_it_waits_for_a_server(nursery: trio.Nursery) -> None:
    """Started before its server, it stands within a second or so of that being there."""
    port = free_port()
    subscriber = Subscriber.from_url(f"redis://127.0.0.1:{port}", client_name="ring-test-rooms")
    subscriber.subscribe(b"a")
    started = trio.Event()

    async def start() -> None:
        await nursery.start(subscriber.run)
        started.set()

    nursery.start_soon(start)
    while not subscriber.trouble:
        await wait_all_tasks_blocked()
    async with EmbeddedServer(port=port):
        with trio.fail_after(5):
            await started.wait()
            assert await take(subscriber, 1) == [Standing(b"a", again=False)]
