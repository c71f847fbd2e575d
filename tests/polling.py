"""Waiting for what tells no event: a file, another process, HTTP, HAProxy."""

from collections.abc import Awaitable, Callable

import trio

EVERY_S = 0.02


async def until_listening(port: int) -> None:
    """Returns once somebody listens there."""

    async def somebody() -> bool:
        try:
            await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        except OSError:
            return False
        return True

    await until(somebody)


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Returns once it holds; callers own the deadline."""
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        await trio.sleep(EVERY_S)
