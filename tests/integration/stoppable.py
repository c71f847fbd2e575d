"""A Redis that fails on command: stopped, emptied, rolled back or frozen, on one port."""

import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import randrange
from typing import Self

import trio

from ring.cluster.scripts import Reading, read_ring
from ring.store.client import Redis
from ring.store.embedded import EmbeddedServer
from ring.store.keys import Keys

CALM_S = 30.0  # for what is no fault's business, on a machine that is busy with other things


class Store:
    """A Redis on one port, with files, that can be stopped, emptied, rolled back and frozen."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._dump = directory / "dump.rdb"
        self._copy = directory / "copy.rdb"
        self._server = EmbeddedServer(directory, port=quiet_port())

    @property
    def address(self) -> str:
        """Where it is, or was."""
        return f"127.0.0.1:{self._server.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server.pid:
            self.thaw()
            await self._server.__aexit__()

    async def start(self) -> None:
        """With what it had when it was stopped; returns when it answers."""
        with trio.fail_after(CALM_S):
            await self._server.__aenter__()

    async def stop(self) -> None:
        """What it has is kept in its file."""
        await self._save()
        await self._server.__aexit__()

    def empty(self) -> None:
        """It has lost its data, once it is started again."""
        self._dump.unlink()

    async def copy(self) -> None:
        """Keeps what it has now, for `roll_back`."""
        await self._save()
        shutil.copy(self._dump, self._copy)

    def roll_back(self) -> None:
        """It has what it had at `copy`, once it is started again."""
        shutil.copy(self._copy, self._dump)

    def freeze(self) -> None:
        """SIGSTOP: the kernel still makes connections for it, and nobody answers."""
        os.kill(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self._server.pid, signal.SIGCONT)

    async def read(self) -> Reading:
        """The ring as it is stored."""
        async with self._client() as redis:
            return await read_ring(redis, Keys("test"))

    async def _save(self) -> None:
        async with self._client() as redis:
            await redis.save()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Redis]:
        redis = Redis.from_url(self._server.url, client_name="test")
        with trio.fail_after(CALM_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(redis.run)
                yield redis
                nursery.cancel_scope.cancel()


def quiet_port() -> int:
    """A free port that no outgoing connection gets meanwhile: below those that the kernel gives them."""
    while True:
        port = randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
