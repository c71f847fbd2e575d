"""Clusters for tests: nodes in this program, whose code is then measured, or processes that can be killed."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from ring.config import Settings
from ring.node import Node
from ring.verify.node import READY_S, NodeProcess


def settings(name: str, redis: str, **others: Any) -> Settings:
    """Of a node on free ports."""
    places = dict.fromkeys(("edge", "peer", "api"), "127.0.0.1:0")
    return Settings(name=name, cluster="test", redis=redis, **{**places, **others})


@asynccontextmanager
async def nodes(redis: str, *names: str, **others: Any) -> AsyncIterator[dict[str, Node]]:
    """Nodes that serve and are linked, in this program. They end with the block, without a farewell."""
    async with trio.open_nursery() as nursery:
        running = {name: Node(settings(name, redis, **others)) for name in names}
        with trio.fail_after(READY_S):
            async with trio.open_nursery() as starting:
                for node in running.values():
                    starting.start_soon(nursery.start, node.run)
            for node in running.values():
                await node.mesh.wait_linked(names)
        yield running
        nursery.cancel_scope.cancel()


class Processes:
    """A cluster of node processes; made by `processes`."""

    def __init__(self, redis: str, directory: Path, options: Mapping[str, str]) -> None:
        self.redis = redis
        self.started: list[NodeProcess] = []
        self._directory = directory
        self._options = options

    async def spawn(self, name: str, places: Mapping[str, str] | None = None) -> NodeProcess:
        """Starts a node, at these places if given; it is not ready yet."""
        log = self._directory / f"{name}.{len(self.started)}.log"
        where = {what: "127.0.0.1:0" if places is None else places[what] for what in ("edge", "peer", "api")}
        options = {"cluster": "test", "redis": self.redis, **where, **self._options}
        node = await NodeProcess.start(name, options, log)
        self.started.append(node)
        return node

    async def start(self, *names: str) -> list[NodeProcess]:
        """Starts nodes; they are ready."""
        started = [await self.spawn(name) for name in names]
        for node in started:
            await node.wait_ready()
        return started


def by_name(flags: Sequence[str]) -> dict[str, str]:
    """Options of `ring serve` by their names in the settings."""
    return {
        flag.removeprefix("--").replace("-", "_"): value
        for flag, value in zip(flags[::2], flags[1::2], strict=True)
    }


@asynccontextmanager
async def processes(redis: str, directory: Path, *options: str) -> AsyncIterator[Processes]:
    """A cluster of processes, of which none outlives the block; their logs may hold no error."""
    cluster = Processes(redis, directory, by_name(options))
    try:
        yield cluster
    finally:
        for node in cluster.started:  # all at once: none is to complain of the others' end
            if node.alive:
                node.kill()
        for node in cluster.started:
            await node.end()
    for node in cluster.started:
        assert node.complaints() == [], node.name
