"""A site, what `ring verify` works on: a cluster whose parts break on command, and of which nothing stays."""

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import PIPE

import msgspec
import pytest
import trio

from ring.protocol.codes import RingError
from ring.verify import node as node_module
from ring.verify.node import NodeProcess, SiteFailed
from ring.verify.site import Site

DEADLINE_S = 90
WHOLE_S = 20.0
TTL_S = 1.0


@pytest.fixture(autouse=True)
async def _deadline() -> AsyncIterator[None]:
    with trio.fail_after(DEADLINE_S):
        yield


async def test_a_node_comes_back_where_it_was(tmp_path: Path) -> None:
    """Clients find it at the same place in each life; what happened to it is in the log."""
    async with Site(nodes=2, ttl_s=TTL_S, directory=tmp_path) as site:
        assert site.names == ("n1", "n2")
        assert site.serving() == ["n1", "n2"]
        edge, first = site.edge("n2"), site.nodes["n2"].process
        assert first.edge == edge
        site.kill("n2")
        assert site.serving() == ["n1"]
        await site.until("without n2", lambda report: "n2" not in report.members, WHOLE_S, ["n1"])
        await site.start("n2")
        await site.whole(WHOLE_S)
        second = site.nodes["n2"].process
        assert (second.edge, site.edge("n2")) == (edge, edge)
        assert second.process.pid != first.process.pid
        await site.stop("n2")
        assert [text for _, text in site.log][2:] == [
            "n2 is killed",
            "n2 serves",
            "n2 is told to stop",
            "n2 has stopped",
        ]
        assert [at for at, _ in site.log] == sorted(at for at, _ in site.log)
    # A directory that was given stays, with a log of each life.
    assert [name for name in left_in(tmp_path) if name.endswith(".log")] == [
        "n1.1.log",
        "n2.1.log",
        "n2.2.log",
    ]


async def test_what_nodes_are_told() -> None:
    """Further options reach every node."""
    async with Site(nodes=1, options={"weight": "3"}) as site:
        nodes = (await site.nodes["n1"].http.get("/v1/nodes")).json()["nodes"]
        assert [entry["weight"] for entry in nodes] == [3]


async def test_what_keeps_it_from_being_whole() -> None:
    """That, and where, is said."""
    async with Site(nodes=2, ttl_s=TTL_S) as site:

        async def missing() -> str:
            with pytest.raises(SiteFailed) as failed:
                await site.whole(3 * TTL_S)
            return str(failed.value)

        site.freeze("n2")
        assert site.serving() == ["n1"]
        assert await missing() == "not whole within 3 s: n2 does not answer"
        site.thaw("n2")
        await site.whole(WHOLE_S)

        site.store.freeze()
        assert "n1 is up redis" in await missing()
        site.store.thaw()
        await site.whole(WHOLE_S)

        site.cut_link("n1", "n2")
        assert "n1 has no link to n2" in await missing()
        site.restore()
        await site.whole(WHOLE_S)

        site.cut_off("n1")
        assert site.serving() == ["n2"]
        await site.until("isolated", lambda report: report.state == "isolated", WHOLE_S, ["n1"])
        assert "n1 is isolated" in await missing()
        site.restore()
        assert site.serving() == ["n1", "n2"]
        await site.whole(WHOLE_S)


async def test_redis_may_be_all_that_is_missing() -> None:
    """Nodes whose leases outlive an outage lack nothing yet: Redis must know their ring as well."""
    async with Site(nodes=2, ttl_s=30) as site:
        for node in site.nodes.values():
            node.redis.silence()  # else their next renewals would found it anew
        await site.store.flush()
        with pytest.raises(SiteFailed, match=r"Redis knows a ring of nobody in epoch 0$"):
            await site.whole(2)
        site.store.freeze()
        with pytest.raises(SiteFailed, match=r"^not whole within 3 s: Redis does not answer$"):
            await site.whole(3)


async def test_a_node_that_ends_by_itself() -> None:
    """It is noted, and told with its code and its last words."""
    async with Site(nodes=2, ttl_s=TTL_S) as site:
        os.kill(site.nodes["n2"].process.process.pid, signal.SIGABRT)
        with pytest.raises(SiteFailed, match=r"^not whole within 1 s: n2 has ended with code -6: \{"):
            await site.whole(1)
        assert site.serving() == ["n1"]
        assert site.log[-1][1].startswith("n2 ended by itself, with code -6: {")


async def test_a_state_that_does_not_last() -> None:
    """`stays` sees it end."""
    async with Site(nodes=2, ttl_s=TTL_S) as site:
        await site.stays("whole", lambda report: "n2" in report.members, TTL_S, ["n1"])
        site.kill("n2")
        with pytest.raises(SiteFailed, match=r"^n1 did not stay whole: n1 is up  in epoch \d+ with n1$"):
            await site.stays("whole", lambda report: "n2" in report.members, 10 * TTL_S, ["n1"])
        with pytest.raises(SiteFailed, match=r"^not up within 0.3 s: n2 does not answer$"):
            await site.until("up", lambda report: True, 0.3, ["n2"])


def left_in(directory: Path) -> list[str]:
    """The names of what is there."""
    return sorted(path.name for path in directory.iterdir())


def stub(says: str, code: int = 0, *, end: bool = False) -> tuple[str, ...]:
    """A command that is no node: it says one line, and waits to be stopped, or does not."""
    obey = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))"
    wait = "sys.exit(3)" if end else "signal.pause()"
    return sys.executable, "-c", f"{obey}; print({says!r}, flush=True); {wait}"


async def test_a_node_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error is no group of errors, and says the last that the node did; nothing stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SiteFailed, match=r"^n\d ended with code 3 before it served: it said nothing$"):
        async with Site(nodes=2, command=stub("no JSON", end=True)):
            pass
    assert left_in(tmp_path) == []
    monkeypatch.setattr(node_module, "READY_S", 0.5)
    with pytest.raises(SiteFailed, match=r"^n1 was not ready after 0 s: it said nothing$"):
        async with Site(nodes=1, command=stub('{"event":"other"}')):
            pass
    assert left_in(tmp_path) == []


async def test_a_node_that_does_not_drain_well(tmp_path: Path) -> None:
    """Another code than 0 is an error."""
    process = await NodeProcess.start("n1", {}, tmp_path / "log", stub('{"event":"ready"}', 5))
    try:
        await process.wait_ready()
        with pytest.raises(SiteFailed, match=r"^n1 ended with code 5 when it was told to: it said nothing$"):
            await process.stop()
    finally:
        await process.end()


async def test_what_nodes_complain_of() -> None:
    """Errors of all lives are to be had."""
    async with Site(nodes=1) as site:
        assert site.complaints() == []
        with site.nodes["n1"].process.log.open("a") as log:
            log.write('{"event":"it broke","level":"error"}\n{"event":"half of a li')
        assert site.complaints() == [("n1", {"event": "it broke", "level": "error"})]
        assert site.nodes["n1"].logged("it broke")


async def test_errors_in_the_block_come_out_as_they_are() -> None:
    """Not in a group, though the site has tasks of its own."""
    with pytest.raises(ZeroDivisionError):
        async with Site(nodes=0):
            raise ZeroDivisionError


async def test_how_many_nodes() -> None:
    """There are bounds."""
    with pytest.raises(RingError, match=r"^a cluster to break has 1 to 64 nodes, not 65$"):
        Site(nodes=65)


PARENT = """
import json, os, sys, trio
from ring.logs import logging
from ring.verify.site import Site

async def main():
    async with Site(nodes=2) as site:
        site.freeze("n2")
        await trio.sleep(0.1)
        pids = [node.process.process.pid for node in site.nodes.values()] + [site.store.pid]
        print(json.dumps({"pids": pids, "directory": str(site.directory)}), flush=True)
        await trio.sleep_forever()

with logging("warning", "console", "test"):
    trio.run(main)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watching a process of others needs Linux's pidfd")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=lambda end: end.name)
async def test_nothing_outlives_it(end: signal.Signals, tmp_path: Path) -> None:
    """Neither a Ctrl-C nor a SIGKILL leaves a node behind, be it frozen, or Redis."""
    parent = await trio.lowlevel.open_process(
        [sys.executable, "-c", PARENT],
        stdout=PIPE,
        stderr=PIPE if end == signal.SIGINT else None,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    said = b""
    while not said.endswith(b"\n"):
        said += await parent.stdout.receive_some()
    told = msgspec.json.decode(said)
    assert len(told["pids"]) == 3
    watched = [os.pidfd_open(pid) for pid in told["pids"]]
    parent.send_signal(end)
    await parent.wait()
    for fd in watched:
        await trio.lowlevel.wait_readable(fd)
        os.close(fd)
    if end == signal.SIGINT:
        assert left_in(tmp_path) == []  # SIGKILL leaves the directory: nobody is there to remove it
    for pipe in (parent.stdout, parent.stderr):
        if pipe is not None:
            await pipe.aclose()


async def test_cancelled_while_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was started is ended."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with trio.CancelScope() as scope:

        async def wait_ready(_: NodeProcess) -> None:
            scope.cancel()
            await trio.sleep_forever()

        monkeypatch.setattr(NodeProcess, "wait_ready", wait_ready)
        site = Site(nodes=2, command=stub("nothing of use"))
        async with site:
            pass
    assert scope.cancelled_caught
    assert site._processes
    assert not any(process.alive for process in site._processes)
    assert left_in(tmp_path) == []
