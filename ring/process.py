"""A node as a process: file limit, signals that drain and stop it, the line that says that it serves."""

import gc
import resource
import signal
import sys
from os import getpid

import msgspec
import trio

from ring.config import Settings
from ring.node import Node


async def serve(settings: Settings) -> None:
    """Runs a node as a process: prints a line when it serves, drains at SIGTERM or SIGINT or when it is
    asked to (`POST /v1/drain`), stops at a second signal.

    Raises:
        RingError: it cannot join.
    """
    _raise_file_limit()
    node = Node(settings)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def obey() -> None:
                async for _ in signals:
                    node.drain_asked.set()
                    break
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            async def leave() -> None:
                await node.drain_asked.wait()
                if node.view is not None:  # else it is no member yet
                    await node.drain()
                nursery.cancel_scope.cancel()

            nursery.start_soon(obey)
            nursery.start_soon(leave)
            await nursery.start(node.run)
            gc.collect()
            gc.freeze()
            addresses: dict[str, object] = {**node.addresses}
            ready = {"event": "ready", "part": "node", "name": node.name, **addresses, "pid": getpid()}
            sys.stdout.write(f"{msgspec.json.encode(ready).decode()}\n")
            sys.stdout.flush()


def _raise_file_limit() -> None:
    """A socket is a descriptor; the soft limit is often 1,024, and the hard one needs no asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
