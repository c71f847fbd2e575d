"""A Redis that fails on command: stopped, emptied, rolled back or frozen, on one port.

It writes every change to its append-only file before it answers, so that what it is stopped with, it has when
it is started again. `Site` owns it; nodes reach it through gates.
"""

import filecmp
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from typing import Self, TypeVar

import trio

from ring.cluster.scripts import Reading, read_ring
from ring.protocol.codes import RingError
from ring.store.client import Redis
from ring.store.embedded import EmbeddedServer
from ring.store.keys import Keys
from ring.verify.gate import Seat

T = TypeVar("T")

CALM_S = 30.0
"""For what is no fault's business, on a machine that is busy with other things."""

# The file is never rewritten while it runs: `copy` may copy it at any moment.
OPTIONS = ("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0")


class Store:
    """A Redis on one port, with files, that can be stopped, emptied, rolled back and frozen.

    Args:
        directory: for its files.
        cluster: whose ring it stores.
    """

    def __init__(self, directory: Path, cluster: str) -> None:
        self._keys = Keys(cluster)
        self._data = directory / "redis"
        self._copy = directory / "redis.copy"
        self.copied_at = -inf
        """When the last copy was made, by Trio's clock."""
        self._seat = Seat()
        self._server = EmbeddedServer(self._data, port=self._seat.port, options=OPTIONS)

    @property
    def address(self) -> str:
        """Where it is, or was."""
        return self._seat.address

    @property
    def url(self) -> str:
        """The same, as a Redis URL."""
        return self._server.url

    @property
    def pid(self) -> int:
        """Of its process; 0 while it is stopped."""
        return self._server.pid

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self._seat.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self.pid:
                self.thaw()
                await self._server.__aexit__()
        finally:
            self._seat.close()

    async def start(self) -> None:
        """With what it had when it was stopped; returns when it answers."""
        self._data.mkdir(exist_ok=True)
        with trio.fail_after(CALM_S):
            await self._server.__aenter__()

    async def stop(self) -> None:
        """What it has is kept in its files."""
        await self._server.__aexit__()

    def empty(self) -> None:
        """It has lost its data, once it is started again."""
        shutil.rmtree(self._data)

    async def flush(self) -> None:
        """It loses its data as it runs."""
        await self._ask(lambda redis: redis.flushall())

    async def copy(self) -> None:
        """Keeps what it has now, for `roll_back`."""
        self.copied_at = trio.current_time()
        await trio.to_thread.run_sync(_replace, self._copy, self._data)

    def roll_back(self) -> bool:
        """It has what it had at `copy`, once it is started again; returns False if it has that already."""
        different = not _same(self._data, self._copy)
        _replace(self._data, self._copy)
        return different

    def freeze(self) -> None:
        """SIGSTOP: the kernel still makes connections for it, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    async def read(self) -> Reading:
        """The ring as it is stored. Waits while nobody answers, as all that asks does: callers bound it."""
        return await self._ask(lambda redis: read_ring(redis, self._keys))

    async def answers(self, within_s: float) -> bool:
        """Whether it does, in this time."""
        with trio.move_on_after(within_s):
            await self._ask(lambda redis: redis.ping())
            return True
        return False

    async def _ask(self, question: Callable[[Redis], Awaitable[T]]) -> T:
        redis = Redis.from_url(self.url, client_name="ring-verify")  # past all gates
        answer: T | RingError
        async with trio.open_nursery() as nursery:
            nursery.start_soon(redis.run)
            try:
                answer = await question(redis)
            except RingError as error:
                answer = error  # raised below: out of a nursery it would come in a group
            nursery.cancel_scope.cancel()
        if isinstance(answer, RingError):
            raise answer
        return answer


def _replace(target: Path, source: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def _same(one: Path, other: Path) -> bool:
    names = [
        sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file()) for root in (one, other)
    ]
    return names[0] == names[1] and not any(filecmp.cmpfiles(one, other, names[0], shallow=False)[1:])
