"""`ring drain`, `ring weight` and `ring haproxy`, as they are typed, at real nodes."""

import json
import signal
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
import trio

from ring.haproxy.config import Options
from ring.haproxy.program import Balancer
from ring.haproxy.wanted import wanted
from ring.node import Node
from tests.integration.cluster import nodes
from tests.polling import until
from tests.ports import own_port

DEADLINE_S = 60


async def typed(*arguments: str) -> tuple[int, str, str]:
    """The exit code of a command, and what it says on its outputs."""
    with trio.fail_after(DEADLINE_S):
        command = [sys.executable, "-m", "ring", *arguments]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def shares(node: Node) -> dict[str, int]:
    """The ring as this node has it."""
    assert node.view is not None
    return node.view.shares()


@pytest.mark.parametrize("way", ["api", "redis"])
async def test_weight(redis_url: str, way: str) -> None:
    """All nodes place by it at once, whether one of them is asked or Redis."""
    there: tuple[str, ...] = ("--redis", redis_url, "--cluster", "test")
    async with nodes(redis_url, "n1", "n2") as cluster:
        if way == "api":
            there = ("--api", cluster["n2"].addresses["api"])
        code, out, _ = await typed("weight", "n1", "3", *there)
        with trio.fail_after(DEADLINE_S):
            await until(lambda: all(shares(node)["n1"] >= 10_000 for node in cluster.values()))
        view = cluster["n2"].view
        assert view is not None
        assert (code, out) == (0, f"n1 has weight 3 from epoch {view.epoch} on\n")
        assert [member.weight for member in view.members] == [3, 1]
        code, _, err = await typed("weight", "n9", "3", *there)
        assert (code, "n9" in err) == (2, True), err
        code, _, err = await typed("weight", "n1", "0", *there)
        assert (code, "weight: 1 to 1000, not 0" in err) == (2, True), err
    nobody = ("--redis", "redis://127.0.0.1:1/0") if way == "redis" else ("--api", "127.0.0.1:1")
    code, _, err = await typed("weight", "n1", "3", *nobody)
    assert (code, "127.0.0.1:1" in err) == (3, True)


async def test_a_redis_that_is_named_is_meant(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the environment names a node, which may be another cluster's."""
    async with nodes(redis_url, "n1", "n2") as cluster:
        monkeypatch.setenv("RING_API", "127.0.0.1:1")
        code, out, err = await typed("weight", "n1", "3", "--redis", redis_url, "--cluster", "test")
        assert (code, out.startswith("n1 has weight 3 from epoch ")) == (0, True), err
        code, _, err = await typed("weight", "n1", "3")
        assert (code, "127.0.0.1:1" in err) == (3, True)
        assert set(cluster) == {"n1", "n2"}


async def test_drain(redis_url: str) -> None:
    """A node that does not go, and one that is unknown: each is said."""
    async with nodes(redis_url, "n1", "n2") as cluster:
        api = ("--api", cluster["n1"].addresses["api"])
        told = "n2 drains: its slots go to the others, then its clients\n"
        assert await typed("drain", "n2", *api, "--wait", "0") == (0, told, "")
        assert cluster["n2"].drain_asked.is_set()
        code, out, err = await typed("drain", "n2", *api, "--wait", "0.3")  # nobody here ends its process
        assert (code, out) == (1, told)
        assert err.startswith("n2 is still there after 0.3 s: ")
        unknown = "ring: the ring has no node 'n9': it has n1, n2\n"
        assert await typed("drain", "n9", *api) == (2, "", unknown)


async def test_haproxy(redis_url: str, tmp_path: Path) -> None:
    """`check` says what `sync` would do, from the nodes and from Redis."""
    listen, operations = f"127.0.0.1:{own_port()}", f"127.0.0.1:{own_port()}"
    options = Options(listen=listen, operations=operations, max_clients=99)
    async with nodes(redis_url, "n1", "n2") as cluster, Balancer(tmp_path, options) as balancer:
        api = ("--api", cluster["n1"].addresses["api"])
        redis = ("--redis", redis_url, "--cluster", "test")
        runtime = ("--runtime", balancer.runtime.address)
        for source in (api, redis):
            code, out, _ = await typed("haproxy", "check", *runtime, *source)
            assert (code, len(out.splitlines())) == (1, 3)
            assert out.startswith(f"{balancer.runtime.address}: n1 at 127.0.0.1:")
        view = cluster["n1"].view
        assert view is not None
        await balancer.agent().reconcile(wanted(view))
        for source in (api, redis):
            told = "HAProxy agrees with the ring\n"
            assert await typed("haproxy", "check", *runtime, *source) == (0, told, "")
        code, _, err = await typed("haproxy", "check", "--runtime", "/nobody/here", *api)
        assert (code, err.startswith("ring: HAProxy at /nobody/here: ")) == (3, True), err
        code, _, err = await typed("haproxy", "render", "--listen", "")
        assert (code, "nobody could connect" in err) == (2, True)
        code, out, _ = await typed("haproxy", "render")
        assert (code, "bind *:8000\n" in out) == (0, True)


async def test_sync_as_a_service(redis_url: str, tmp_path: Path) -> None:
    """`ring haproxy sync` logs what it changes, as JSON where nobody looks on, and ends at SIGINT."""
    listen, operations = f"127.0.0.1:{own_port()}", f"127.0.0.1:{own_port()}"
    options = Options(listen=listen, operations=operations, max_clients=99)
    async with nodes(redis_url, "n1") as cluster, Balancer(tmp_path, options) as balancer:
        command = [sys.executable, "-m", "ring", "haproxy", "sync", "--directory", str(tmp_path)]
        command += ["--runtime", balancer.runtime.address, "--api", cluster["n1"].addresses["api"]]
        agent = await trio.lowlevel.open_process(command, stderr=PIPE)
        assert agent.stderr is not None
        said = b""
        with trio.fail_after(DEADLINE_S):
            async with agent.stderr:
                while b"the map is that of epoch" not in said:
                    said += await agent.stderr.receive_some()
                assert all("event" in json.loads(line) for line in said.splitlines()[:1])
                agent.send_signal(signal.SIGINT)
                assert await agent.wait() == 130
