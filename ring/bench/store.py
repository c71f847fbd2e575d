"""What a Redis server says of itself and what it keeps: a load may have to tell its CPU from the nodes'."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from ring.bench.meter import Usage
from ring.logs import logging
from ring.protocol.codes import ErrorCode, RingError
from ring.protocol.names import slot_of
from ring.store.client import Redis
from ring.store.keys import Keys

ANSWER_S = 3.0
"""How long it may take to answer."""

_BATCH = 1000  # questions at once: Redis has other work between


class StoreSilent(RingError):
    """It does not answer."""

    code = ErrorCode.STORE_UNAVAILABLE


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Redis]:
    """A client of the server while the block runs, which bounds what it asks by `ANSWER_S`.

    Raises:
        RingError: `url` is none, or nothing answers there, or not in time.
    """
    redis = Redis.from_url(url, client_name="ring bench")
    try:
        with logging("error", "console", "bench"):
            async with trio.open_nursery() as nursery:
                with trio.fail_after(ANSWER_S):
                    await nursery.start(redis.run)
                yield redis
                nursery.cancel_scope.cancel()
    except ExceptionGroup as group:
        if group.subgroup(trio.TooSlowError) is None:
            raise
        raise StoreSilent(f"no answer from Redis at {redis.address} ({redis.trouble or 'silent'})") from None


async def read_info(url: str) -> dict[str, object]:
    """The answer to INFO.

    Raises:
        RingError: `url` is none, or nothing answers there.
    """
    async with connected(url) as redis:
        with trio.fail_after(ANSWER_S):
            info: dict[str, object] = await redis.execute_command("INFO")
        return info


def usage(info: dict[str, object]) -> Usage:
    """CPU and memory of the server that gave this answer to INFO."""
    cpu = float(str(info["used_cpu_user"])) + float(str(info["used_cpu_sys"]))
    return Usage(cpu, int(str(info["used_memory_rss"])))


async def used_memory(url: str) -> int:
    """Bytes that the server has allocated, without the buffers of its clients, which come and go: unlike
    resident memory, this falls when something is removed.

    Raises:
        RingError: nothing answers there.
    """
    info = await read_info(url)
    return int(str(info["used_memory"])) - int(str(info.get("mem_clients_normal", 0)))


async def count_mailboxes(url: str, cluster: str, users: Sequence[str]) -> int:
    """How many of these users of a cluster have a stored mailbox.

    Raises:
        RingError: nothing answers there.
    """
    keys, found = Keys(cluster), 0
    async with connected(url) as redis:
        for first in range(0, len(users), _BATCH):
            pipeline = redis.pipeline(transaction=False)
            for user in users[first : first + _BATCH]:
                pipeline.exists(keys.box(slot_of(user), user))
            with trio.fail_after(ANSWER_S):
                found += sum(await pipeline.execute())
    return found
