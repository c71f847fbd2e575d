"""The client against a scripted server in memory: connecting, back-off, refusals, and what is sent again."""

import ssl
from typing import Any

import pytest
import trio
import trio.testing

from ring.protocol.codes import BadRequest
from ring.store.address import Address
from ring.store.client import Redis
from ring.store.connection import StoreRefused, StoreUnavailable
from tests.store.wires import Harbour


async def test_run_starts_once_logged_in(harbour: Harbour, nursery: trio.Nursery) -> None:
    """`nursery.start(redis.run)` returns when the first connection has logged in."""
    redis = harbour.redis()
    started = trio.Event()

    async def start() -> None:
        await nursery.start(redis.run)
        started.set()

    nursery.start_soon(start)
    peer = await harbour.peer()
    await trio.testing.wait_all_tasks_blocked()
    assert (started.is_set(), redis.connected, redis.connections_made) == (False, False, 0)
    await peer.greet()
    await started.wait()
    assert (redis.connected, redis.connections_made) == (True, 1)


async def test_commands_wait_for_the_connection(harbour: Harbour, nursery: trio.Nursery) -> None:
    """A command called before there is a connection is sent once there is one; `wait_connected` waits too."""
    redis = harbour.redis()
    results: list[Any] = []

    async def call() -> None:
        await redis.wait_connected()
        results.append(await redis.set("k", "v"))

    nursery.start_soon(call)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(redis.run)
    peer = await harbour.peer()
    await peer.greet()
    assert await peer.command() == [b"SET", b"k", b"v"]
    await peer.answer(b"+OK\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert results == [True]


async def test_waiting_can_be_cancelled(harbour: Harbour) -> None:
    """Callers own the time-outs, also while there is no connection."""
    redis = harbour.redis()
    with trio.CancelScope() as scope:
        scope.cancel()
        await redis.wait_connected()
    assert scope.cancelled_caught


async def test_it_reconnects(
    harbour: Harbour, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A lost connection is replaced; `connected`, `connections_made` and `trouble` tell."""
    redis = harbour.redis()
    nursery.start_soon(redis.run)
    for made in (1, 2, 3):
        peer = await harbour.peer()
        assert not redis.connected
        await peer.greet()
        await redis.wait_connected()
        assert (redis.connected, redis.connections_made, redis.trouble) == (True, made, "")
        await peer.cut()
        await trio.testing.wait_all_tasks_blocked()
        assert not redis.connected
        assert "closed" in redis.trouble


async def test_the_backoff_grows_to_a_second(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Retries begin 40 to 80 ms apart and grow to between 0.5 and 1 s, for however long the store is away."""
    harbour = Harbour(refuse=2000)
    redis = harbour.redis()
    nursery.start_soon(redis.run)
    peer = await harbour.peer()
    gaps = [later - earlier for earlier, later in zip(harbour.dials, harbour.dials[1:], strict=False)]
    assert 0.04 <= gaps[0] <= 0.08
    assert all(0.5 <= gap <= 1 for gap in gaps[5:])
    assert (
        len({round(gap, 6) for gap in gaps}) > 1000
    )  # jitter: the nodes of a cluster do not come all at once
    assert "Connection refused" in redis.trouble

    await peer.greet()
    await redis.wait_connected()
    lost = trio.current_time()
    await peer.cut()
    await harbour.peer()
    assert 0.02 <= harbour.dials[-1] - lost <= 0.04  # from the beginning again


async def test_trouble_is_logged_once_per_outage(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """An outage is two lines of the log, its beginning and its end, not one per attempt."""
    harbour = Harbour(refuse=5)
    redis = harbour.redis()
    nursery.start_soon(redis.run)
    await (await harbour.peer()).greet()
    await redis.wait_connected()
    logged = capsys.readouterr()
    lines = (logged.out + logged.err).splitlines()
    assert len(lines) == 2
    assert "store away" in lines[0]
    assert "Connection refused" in lines[0]
    assert "store connected" in lines[1]


async def test_a_mute_server_times_out(
    harbour: Harbour, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A server that accepts and never answers HELLO is given up after 5 s, hung up on, and tried again."""
    redis = harbour.redis()
    nursery.start_soon(redis.run)
    mute = await harbour.peer()
    await mute.ends()
    assert trio.current_time() == 5
    await (await harbour.peer()).greet()
    await redis.wait_connected()
    assert trio.current_time() < 5.2


async def test_a_hanging_dial_times_out(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """So is one whose SYN nobody answers; the 5 s are for dial and log-in together."""
    redis = Redis(Address(), client_name="test", dial=trio.sleep_forever)
    nursery.start_soon(redis.run)
    await trio.sleep(5.01)
    assert redis.trouble == "no answer within 5 s"


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (OSError("no route"), "no route"),
        (trio.BrokenResourceError("broken"), "broken"),
        (StoreUnavailable("no primary"), "no primary"),
    ],
)
async def test_errors_of_the_network_are_tried_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, error: Exception, trouble: str
) -> None:
    """Whatever the network does is no reason to give up."""
    harbour = Harbour()
    failures = [error]

    async def dial() -> trio.abc.Stream:
        if failures:
            await trio.lowlevel.checkpoint()
            raise failures.pop()
        return await harbour.dial()

    redis = Redis(Address(), client_name="test", dial=dial)
    nursery.start_soon(redis.run)
    await trio.testing.wait_all_tasks_blocked()
    assert redis.trouble == trouble
    await (await harbour.peer()).greet()
    await redis.wait_connected()


async def test_trouble_names_what_is_behind_a_group(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A name with several addresses fails with a group; `trouble` says what the first one said."""

    async def dial() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError("all attempts failed") from ExceptionGroup(
            "", [OSError("one\nrefused"), OSError("two")]
        )

    redis = Redis(Address(), client_name="test", dial=dial)
    nursery.start_soon(redis.run)
    await trio.testing.wait_all_tasks_blocked()
    assert redis.trouble == "one refused"


async def test_loading_is_tried_again(
    harbour: Harbour, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A server that loads its data answers HELLO but not PING: it is not connected until PING is answered."""
    redis = harbour.redis()
    nursery.start_soon(redis.run)
    peer = await harbour.peer()
    await peer.answer(b"%1\r\n+proto\r\n:3\r\n-LOADING Redis is loading the dataset in memory\r\n")
    await peer.ends()
    await trio.testing.wait_all_tasks_blocked()
    assert not redis.connected
    assert "LOADING" in redis.trouble
    await (await harbour.peer()).greet()
    await redis.wait_connected()


async def test_a_refusal_ends_run(harbour: Harbour, nursery: trio.Nursery) -> None:
    """Wrong credentials are raised out of `start`, bare; commands that waited and those after fail."""
    redis = harbour.redis()
    told = trio.Event()

    async def serve() -> None:
        await (await harbour.peer()).answer(b"-WRONGPASS no\r\n-NOAUTH no\r\n")

    async def wait() -> None:
        with pytest.raises(StoreUnavailable, match="stopped"):
            await redis.get("k")
        told.set()

    nursery.start_soon(serve)
    nursery.start_soon(wait)
    with pytest.raises(StoreRefused, match="password"):
        await nursery.start(redis.run)
    await trio.testing.wait_all_tasks_blocked()
    assert told.is_set()
    assert len(harbour.dials) == 1
    with pytest.raises(StoreUnavailable, match="stopped"):
        await redis.get("k")


async def test_a_refusal_after_a_reconnect_ends_run_too(
    harbour: Harbour, autojump_clock: trio.testing.MockClock
) -> None:
    """A password that was changed meanwhile comes out of `run`, bare."""
    redis = harbour.redis()

    async def serve() -> None:
        peer = await harbour.peer()
        await peer.greet()
        await peer.cut()
        await (await harbour.peer()).answer(b"-WRONGPASS no\r\n-NOAUTH no\r\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(StoreRefused):
            await redis.run()


async def test_cancelling_run_stops_it(harbour: Harbour, nursery: trio.Nursery) -> None:
    """Cancelling `run` hangs up; a command under way learns that its outcome is unknown. It can run again."""
    redis = harbour.redis()
    errors: list[Exception] = []

    async def call() -> None:
        try:
            await redis.set("k", "v")
        except StoreUnavailable as error:
            errors.append(error)

    async with trio.open_nursery() as inner:
        inner.start_soon(redis.run)
        peer = await harbour.peer()
        await peer.greet()
        nursery.start_soon(call)
        assert await peer.command() == [b"SET", b"k", b"v"]
        inner.cancel_scope.cancel()
    await peer.ends()
    await trio.testing.wait_all_tasks_blocked()
    assert "unknown" in str(errors[0])
    assert not redis.connected

    nursery.start_soon(redis.run)
    await (await harbour.peer()).greet()
    await redis.wait_connected()


def test_from_url_reads_the_url() -> None:
    """`from_url` refuses what `parse_url` refuses."""
    assert Redis.from_url("redis://h:7000/2", client_name="n1").address == Address("h", 7000, db=2)
    tls = Redis.from_url("rediss://h", client_name="n1").address.tls
    assert isinstance(tls, ssl.SSLContext)
    with pytest.raises(BadRequest):
        Redis.from_url("http://h", client_name="n1")
