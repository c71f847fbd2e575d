"""What becomes of commands: which are sent again, which are not, and which are refused."""

from typing import Any

import pytest
import trio
import trio.testing

from ring.protocol.codes import BadRequest
from ring.store.connection import StoreUnavailable
from tests.store.wires import PONG, Harbour


async def test_a_write_is_not_sent_again(
    harbour: Harbour, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A write whose connection broke before the answer raises StoreUnavailable and is not repeated."""
    redis = harbour.redis()
    errors: list[Exception] = []

    async def call() -> None:
        try:
            await redis.rpush("k", "v")
        except StoreUnavailable as error:
            errors.append(error)

    nursery.start_soon(redis.run)
    peer = await harbour.peer()
    await peer.greet()
    nursery.start_soon(call)
    await peer.command()
    await peer.cut()
    peer = await harbour.peer()
    await peer.greet()
    assert "outcome is unknown" in str(errors[0])
    assert await peer.command() == [b"PING"]  # that of an idle connection: nothing came before


async def test_a_read_is_sent_again_once(
    harbour: Harbour, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A command that changes nothing is sent on the next connection, and given up when that breaks too."""
    redis = harbour.redis()
    results: list[Any] = []

    async def call() -> None:
        try:
            results.append(await redis.get("k"))
        except StoreUnavailable as error:
            results.append(error)

    async def meet() -> None:
        await peer.greet()
        assert await peer.command() == [b"GET", b"k"]

    nursery.start_soon(redis.run)
    nursery.start_soon(call)
    peer = await harbour.peer()
    await meet()
    await peer.cut()
    peer = await harbour.peer()
    await meet()
    await peer.answer(b"$1\r\nv\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert results == [b"v"]

    nursery.start_soon(call)
    assert await peer.command() == [b"GET", b"k"]
    await peer.cut()
    peer = await harbour.peer()
    await meet()
    await peer.cut()
    await trio.testing.wait_all_tasks_blocked()
    assert isinstance(results[1], StoreUnavailable)


async def test_a_read_that_the_server_cannot_do_now_is_not_repeated(
    harbour: Harbour, nursery: trio.Nursery
) -> None:
    """An answer is an answer: what MASTERDOWN or BUSY refuse is for the caller to try again."""
    redis = harbour.redis()

    async def serve() -> None:
        peer = await harbour.peer()
        await peer.greet()
        await peer.command()
        await peer.answer(b"-MASTERDOWN Link with MASTER is down\r\n")

    nursery.start_soon(serve)
    await nursery.start(redis.run)
    with pytest.raises(StoreUnavailable, match="MASTERDOWN"):
        await redis.get("k")


async def test_a_write_that_was_not_sent_goes_out_on_the_next_connection(
    harbour: Harbour, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """What was still queued when the connection broke was not executed: nobody needs to know of it."""
    redis = harbour.redis()
    nursery.start_soon(redis.run)
    peer = await harbour.peer()
    await peer.greet()
    await redis.wait_connected()
    pump = peer.client_end.send_stream.send_all_hook
    assert pump is not None
    blocked = trio.Event()

    async def block() -> None:
        blocked.set()
        await trio.sleep_forever()

    async def pipeline() -> None:
        batch = redis.pipeline(transaction=False)
        batch.rpush("k", "piped")
        assert await batch.execute() == [2]

    async def single() -> None:
        assert await redis.rpush("k", "single") == 1

    peer.client_end.send_stream.send_all_hook = block
    nursery.start_soon(redis.ping)
    await blocked.wait()
    nursery.start_soon(single)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(pipeline)
    await trio.testing.wait_all_tasks_blocked()
    await peer.cut()

    peer = await harbour.peer()
    await peer.greet()
    commands = [await peer.command() for _ in range(3)]
    assert sorted(commands) == [[b"PING"], [b"RPUSH", b"k", b"piped"], [b"RPUSH", b"k", b"single"]]
    answers = {b"PING": PONG, b"piped": b":2\r\n", b"single": b":1\r\n"}
    await peer.answer(b"".join(answers[command[-1]] for command in commands))
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(
    "command",
    [
        "SUBSCRIBE c",
        "subscribe c",
        "MULTI",
        "WATCH k",
        "SELECT 1",
        "BLPOP k 0",
        "MONITOR",
        "CLIENT REPLY OFF",
        "client reply off",
        "XREAD BLOCK 0 STREAMS s $",
        "XREADGROUP GROUP g c COUNT 1 block 0 STREAMS s >",
    ],
)
async def test_commands_that_need_their_own_connection_are_refused(harbour: Harbour, command: str) -> None:
    """What would block everybody, or shift the replies, is a BadRequest before it is sent."""
    redis = harbour.redis()
    with pytest.raises(BadRequest, match="connection of its own"):
        await redis.execute_command(*command.split())
    with pytest.raises(BadRequest, match="connection of its own"):
        redis.pipeline().execute_command(*command.split())


async def test_redis_pys_own_way_to_say_it_is_refused_too(harbour: Harbour) -> None:
    """So it is through the command methods, whose names may have two words."""
    redis = harbour.redis()
    for call in (redis.blpop(["k"], 0), redis.xread({"s": "$"}, block=0), redis.client_reply("OFF")):
        with pytest.raises(BadRequest, match="connection of its own"):
            await call
