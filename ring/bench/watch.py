"""How the members' leases stand during a load, as Redis has it: a node that is too busy shows there first."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import trio

from ring.bench.store import ANSWER_S, connected
from ring.store.client import Redis
from ring.store.keys import Keys

LOOK_S = 0.05
"""How often it is looked at: a lease's age grows by that much unseen."""


@dataclass(slots=True)
class Watched:
    """What was seen.

    Attributes:
        lease_age_s: the longest that a member has not renewed its lease.
        epochs: that the ring was in, in order: one, if nobody came or went.
        looks: how often it was looked at.
    """

    lease_age_s: float = 0.0
    epochs: list[int] = field(default_factory=list)
    looks: int = 0

    def look(self, now_ms: float, ttl_ms: float, lapse_ms: list[float], epoch: int) -> None:
        """The time, how long leases last, when each member's lapses, and the epoch: all of one moment."""
        self.looks += 1
        ages = [(ttl_ms - (lapse - now_ms)) / 1000 for lapse in lapse_ms]
        self.lease_age_s = max(self.lease_age_s, *ages, 0.0)
        if self.epochs[-1:] != [epoch]:
            self.epochs.append(epoch)


@contextmanager
def watching(url: str, cluster: str) -> Iterator[Watched]:
    """Looks on while the block runs; what was seen is known at its end.

    In a thread: the block is a load that is busy itself.

    Raises:
        RingError: Redis does not answer; at the end, if it began to.
    """
    watched, begun = Watched(), threading.Event()
    scope, failed = trio.CancelScope(), list[BaseException]()
    token: list[trio.lowlevel.TrioToken] = []

    async def watch() -> None:
        token.append(trio.lowlevel.current_trio_token())
        with scope:
            async with connected(url) as redis:
                while True:
                    with trio.fail_after(ANSWER_S):
                        await _look(redis, Keys(cluster), watched)
                    begun.set()
                    await trio.sleep(LOOK_S)

    def thread() -> None:
        try:
            trio.run(watch)
        except BaseException as error:  # it is the caller's
            failed.append(error)
        finally:
            begun.set()

    watcher = threading.Thread(target=thread, name="watch")
    watcher.start()
    begun.wait()
    try:
        if not failed:
            yield watched
    finally:
        with suppress(trio.RunFinishedError):
            token[0].run_sync_soon(scope.cancel)
        watcher.join()
    if failed:
        raise failed[0]


async def _look(redis: Redis, keys: Keys, watched: Watched) -> None:
    pipeline = redis.pipeline(transaction=True)  # all of one moment
    pipeline.time()
    pipeline.hget(keys.geometry, "ttl_ms")
    pipeline.zrange(keys.leases, 0, -1, withscores=True)
    pipeline.hget(keys.epoch, "epoch")
    (seconds, micros), ttl_ms, leases, epoch = await pipeline.execute()
    watched.look(
        seconds * 1000 + micros / 1000, float(ttl_ms or 0), [score for _, score in leases], int(epoch or 0)
    )
