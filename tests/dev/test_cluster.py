"""The local cluster as a parent of processes: real ones, which are no nodes but behave as the test says."""

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from ring.child import Event
from ring.dev import cluster, context
from ring.dev.cluster import Ports, run
from ring.protocol.codes import RingError

FREE = Ports(0, 0, 0, None)

GOOD = """
import json, os, signal, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("not JSON, and none of anybody's business", flush=True)
said = {"event": "ready", "part": "node", "name": options["--name"], "pid": os.getpid(), "options": options}
print(json.dumps(said | {"edge": options["--edge"], "api": options["--api"]}), flush=True)
signal.sigwait({signal.SIGTERM})
"""


class Watched:
    """The events of a cluster, as they come."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = trio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for(self, kind: str, count: int = 1) -> list[Event]:
        """The events of a kind, once there are so many."""
        with trio.fail_after(20):
            while len(found := [event for event in self.events if event["event"] == kind]) < count:
                await self._changed.wait()
        return found


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says what a node does, in Python."""

    def behave(code: str) -> None:
        block = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        monkeypatch.setattr(cluster, "NODE", (sys.executable, "-c", block + code))

    behave(GOOD)
    return behave


@asynccontextmanager
async def running(size: int = 2, ports: Ports = FREE) -> AsyncIterator[Watched]:
    """A cluster that is told to stop at the end, and must have left nothing."""
    watched = Watched()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, size, ports, watched)
        await watched.wait_for("cluster-ready")
        yield watched
        os.kill(os.getpid(), signal.SIGTERM)
        await watched.wait_for("stopped")
    for node in watched.events:
        if "pid" in node:
            assert not alive(node["pid"])
            assert not Path(node["options"]["--secret-file"]).parent.exists()
    assert not context.path().exists()


def alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_the_nodes_are_told(behave: Callable[[str], None]) -> None:
    """One cluster, one store, one secret that only we can read; names in order, loopback, ports."""
    async with running(3) as watched:
        [redis] = [event for event in watched.events if event.get("part") == "redis"]
        nodes = sorted(
            (event for event in watched.events if event.get("part") == "node"), key=lambda e: e["name"]
        )
        assert [node["name"] for node in nodes] == ["n1", "n2", "n3"]
        options: list[dict[str, str]] = [node["options"] for node in nodes]
        for told in options:
            assert told["--cluster"] == "dev"
            assert told["--redis"] == redis["url"]
            assert (told["--edge"], told["--peer"], told["--api"]) == ("127.0.0.1:0",) * 3
        [secret] = {Path(told["--secret-file"]) for told in options}
        assert len(secret.read_text()) == 64
        assert secret.stat().st_mode & 0o777 == 0o600
        assert secret.parent.stat().st_mode & 0o777 == 0o700


async def test_what_is_announced(behave: Callable[[str], None]) -> None:
    """Where everything is, how to add a node, and the note for the other commands."""
    async with running() as watched:
        [ready] = await watched.wait_for("cluster-ready")
        assert ready["url"] == f"ws://{ready['edge'][0]}/v1/connect"
        assert len(ready["edge"]) == len(ready["api"]) == 2
        assert ready["add"][:2] == ["--name", "n3"]
        assert ready["redis"] in ready["add"]
        apis = [f"http://{address}" for address in ready["api"]]
        assert context.read() == context.Context("dev", ready["redis"], apis, ready["edge"], os.getpid())
        json.dumps(watched.events)


async def test_without_haproxy(behave: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and clients connect to nodes."""
    monkeypatch.setattr("ring.haproxy.program.find", lambda: None)
    async with running(2, Ports(0, 0, 0, 0, 0)) as watched:
        [missing] = await watched.wait_for("missing")
        assert (missing["part"], "apt-get install haproxy" in missing["why"]) == ("haproxy", True)
        [ready] = await watched.wait_for("cluster-ready")
        assert ready["url"] == f"ws://{ready['edge'][0]}/v1/connect"


async def test_ports_that_are_taken(behave: Callable[[str], None]) -> None:
    """The next node gets the next port; one that somebody has is replaced by a free one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(2, Ports(edge=port, peer=0, api=0, front=None)) as watched:
            [ready] = await watched.wait_for("cluster-ready")
            assert ready["edge"][0] == "127.0.0.1:0"
            assert ready["edge"][1] in (f"127.0.0.1:{port + 1}", "127.0.0.1:0")
    assert cluster._free(port, 0) == port


async def test_a_node_that_is_killed(behave: Callable[[str], None]) -> None:
    """It is reported, with the signal; the others go on."""
    async with running() as watched:
        first, second = (event for event in watched.events if event.get("part") == "node")
        os.kill(first["pid"], signal.SIGKILL)
        [exited] = await watched.wait_for("exited")
        assert exited == {"event": "exited", "part": "node", "name": first["name"], "code": -signal.SIGKILL}
        assert alive(second["pid"])


async def test_a_signal_for_the_whole_group(behave: Callable[[str], None]) -> None:
    """Ctrl-C reaches everything in the terminal's group: nodes are in one of their own."""
    async with running() as watched:
        for event in watched.events:
            if event.get("part") == "node":
                assert os.getpgid(event["pid"]) != os.getpgid(0)


async def test_a_node_that_does_not_start(behave: Callable[[str], None]) -> None:
    """The cluster fails as a whole, and says which node it was."""
    behave("import sys; sys.exit(2)")
    watched = Watched()
    with (
        trio.fail_after(20),
        pytest.RaisesGroup(
            pytest.RaisesExc(RingError, match=r"^n1 ended with code 2 before it was ready"),
            flatten_subgroups=True,
        ),
    ):
        await run(1, FREE, watched)
    assert [event["event"] for event in watched.events] == ["ready"]


async def test_a_node_that_never_is_ready(
    behave: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded."""
    behave("signal.sigwait({signal.SIGTERM})")
    monkeypatch.setattr(cluster, "READY_S", 0.1)
    with (
        trio.fail_after(20),
        pytest.RaisesGroup(
            pytest.RaisesExc(RingError, match=r"^n1 was not ready after 0 s"), flatten_subgroups=True
        ),
    ):
        await run(1, FREE, Watched())


async def test_a_node_that_does_not_drain(
    behave: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed in the end."""
    behave(GOOD + "signal.sigwait({signal.SIGUSR1})")
    monkeypatch.setattr(cluster, "GRACE_S", 0.1)
    async with running():
        pass


async def test_a_second_signal(behave: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the nodes' time to drain."""
    behave(GOOD + "signal.sigwait({signal.SIGUSR1})")
    monkeypatch.setattr(cluster, "GRACE_S", 1000)
    async with running():
        os.kill(os.getpid(), signal.SIGINT)  # the other one comes at the end


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_standard_input_is_the_leash(behave: Callable[[str], None]) -> None:
    """Its other end is ours alone, so that it closes when we are gone: no node inherits another's."""
    behave("import os\n" + GOOD.replace('"pid":', '"fds": sorted(os.listdir("/proc/self/fd")), "pid":'))
    async with running() as watched:
        nodes: list[dict[str, Any]] = [event for event in watched.events if event.get("part") == "node"]
        # 0, 1, 2, and that of the listing
        assert [node["fds"] for node in nodes] == [["0", "1", "2", "3"]] * 2
