"""What a Redis server says of itself: a load may have to tell its CPU from the nodes'."""

import trio

from ring.bench.meter import Usage
from ring.logs import logging
from ring.protocol.codes import ErrorCode, RingError
from ring.store.client import Redis

ANSWER_S = 3.0
"""How long it may take to answer."""


class StoreSilent(RingError):
    """It does not answer."""

    code = ErrorCode.STORE_UNAVAILABLE


async def read_info(url: str) -> dict[str, object]:
    """The answer to INFO.

    Raises:
        RingError: `url` is none, or nothing answers there.
    """
    redis = Redis.from_url(url, client_name="ring bench")
    try:
        with logging("error", "console", "bench"), trio.fail_after(ANSWER_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(redis.run)
                info: dict[str, object] = await redis.execute_command("INFO")
                nursery.cancel_scope.cancel()
                return info
    except trio.TooSlowError:
        raise StoreSilent(f"no answer from Redis at {redis.address} ({redis.trouble or 'silent'})") from None


def usage(info: dict[str, object]) -> Usage:
    """CPU and memory of the server that gave this answer to INFO."""
    cpu = float(str(info["used_cpu_user"])) + float(str(info["used_cpu_sys"]))
    return Usage(cpu, int(str(info["used_memory_rss"])))
