"""Clusters for tests: nodes in this program, whose code is then measured, or processes that can be killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from ring.config import Settings
from ring.node import Node

READY_S = 60.0  # for a Python that starts on a busy machine


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


class NodeProcess:
    """A node as a process."""

    def __init__(self, process: trio.Process, name: str, log: Path) -> None:
        self.process = process
        self.name = name
        self.log = log
        self.ready: dict[str, Any] = {}

    @property
    def edge(self) -> str:
        """Where its clients connect."""
        return str(self.ready["edge"])

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.process.pid, signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.process.pid, signal.SIGCONT)

    async def stop(self) -> None:
        """SIGTERM; returns when it has drained and ended."""
        self.process.terminate()
        code = await self.process.wait()
        assert code == 0, f"{self.name} ended with {code}: {self.log.read_text()}"

    async def wait_ready(self) -> None:
        """Returns when it has said that it serves."""
        assert self.process.stdout is not None
        said = b""
        with trio.fail_after(READY_S):
            async for chunk in self.process.stdout:
                said += chunk
                if b"\n" in said:
                    self.ready = json.loads(said)
                    return
        raise AssertionError(f"{self.name} did not start: {self.log.read_text()}")

    def complaints(self) -> list[dict[str, Any]]:
        """What it has logged as an error."""
        lines = map(json.loads, self.log.read_text().splitlines())
        return [line for line in lines if line["level"] in ("error", "critical")]


class Processes:
    """A cluster of node processes; made by `processes`."""

    def __init__(self, redis: str, directory: Path, options: tuple[str, ...]) -> None:
        self.redis = redis
        self.started: list[NodeProcess] = []
        self._directory = directory
        self._options = options

    async def spawn(self, name: str, places: Mapping[str, str] | None = None) -> NodeProcess:
        """Starts a node, at these places if given; it is not ready yet."""
        log = self._directory / f"{name}.{len(self.started)}.log"
        command = [
            "serve",
            "--name",
            name,
            "--cluster",
            "test",
            "--redis",
            self.redis,
            "--log-format",
            "json",
        ]
        for what in ("edge", "peer", "api"):
            command += [f"--{what}", "127.0.0.1:0" if places is None else places[what]]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("RING_")}
        with log.open("wb") as errors:
            # ring.cli.child: `ring` that ends with us, however we end.
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "ring.cli.child", *command, *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environ,
            )
        node = NodeProcess(process, name, log)
        self.started.append(node)
        return node

    async def start(self, *names: str) -> list[NodeProcess]:
        """Starts nodes; they are ready."""
        started = [await self.spawn(name) for name in names]
        for node in started:
            await node.wait_ready()
        return started


@asynccontextmanager
async def processes(redis: str, directory: Path, *options: str) -> AsyncIterator[Processes]:
    """A cluster of processes, of which none outlives the block; their logs may hold no error."""
    cluster = Processes(redis, directory, options)
    try:
        yield cluster
    finally:
        for node in cluster.started:
            if node.process.returncode is None:
                node.kill()
        with trio.CancelScope(shield=True):  # short: nothing survives SIGKILL
            for node in cluster.started:
                await node.process.wait()
                for pipe in (node.process.stdin, node.process.stdout):
                    if pipe is not None:
                        await pipe.aclose()
    for node in cluster.started:
        assert node.complaints() == [], node.name
