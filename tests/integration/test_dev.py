"""`ring dev` as a person uses it: real nodes, real terminals' worth of `ring chat`, and real kills."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

DEADLINE_S = 40.0


class Program:
    """A `ring` command whose lines are waited for."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = trio.Event()

    async def read(self) -> None:
        """Collects what it prints, until it has ended."""
        assert self.process.stdout is not None
        rest = b""
        async for chunk in self.process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            self.lines += [line.decode() for line in lines]
            self._changed.set()
            self._changed = trio.Event()

    async def line(self, matches: Callable[[str], Any], after: int = 0) -> str:
        """The first line that matches, once there is one."""
        while True:
            for line in self.lines[after:]:
                if matches(line):
                    return line
            await self._changed.wait()

    async def event(self, kind: str) -> dict[str, Any]:
        """The first event of this kind."""
        found: dict[str, Any] = json.loads(await self.line(lambda line: json.loads(line)["event"] == kind))
        return found

    async def type(self, line: str) -> None:
        """A line on its standard input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")

    async def end_of_input(self) -> int:
        """Ctrl-D; its exit code."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        return await self.process.wait()


class Terminal:
    """Where commands are typed: they find the cluster by the note in this folder."""

    def __init__(self, nursery: trio.Nursery, state: Path) -> None:
        self._nursery = nursery
        self._programs: list[Program] = []
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("RING_")}
        self._environ |= {"XDG_STATE_HOME": str(state), "HOME": str(state)}

    async def start(self, *arguments: str) -> Program:
        """Starts `ring …`."""
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "ring", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environ,
        )
        program = Program(process)
        self._programs.append(program)
        self._nursery.start_soon(program.read)
        return program

    async def close(self) -> None:
        """Ends what a test that failed has left."""
        with trio.CancelScope(shield=True):
            for program in self._programs:
                program.process.kill()
                await program.process.wait()

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of `ring …`."""
        done = await trio.run_process(
            [sys.executable, "-m", "ring", *arguments], capture_stdout=True, check=False, env=self._environ
        )
        return done.returncode, done.stdout.decode()


@pytest.fixture
async def terminal(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Terminal]:
    """A terminal with a folder of its own, in which nothing is left running."""
    terminal = Terminal(nursery, tmp_path)
    yield terminal
    await terminal.close()


@asynccontextmanager
async def cluster(terminal: Terminal, nodes: int = 3) -> AsyncIterator[Program]:
    """A cluster that is ready, and a deadline for all that is done with it."""
    with trio.fail_after(DEADLINE_S):
        ports = (f"--{what}port=0" for what in ("", "stats-", "edge-", "peer-", "api-"))
        dev = await terminal.start("dev", "--nodes", str(nodes), *ports)
        await dev.event("cluster-ready")
        yield dev


def node_events(dev: Program) -> dict[str, dict[str, Any]]:
    """What each node said when it was ready."""
    events = map(json.loads, dev.lines)
    return {event["name"]: event for event in events if event["event"] == "ready" and event["part"] == "node"}


async def until_gone(pid: int) -> None:
    """Returns when the process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def stop(dev: Program, how: signal.Signals = signal.SIGINT) -> None:
    """Stops the cluster, and sees to it that nothing is left."""
    pids = [event["pid"] for event in node_events(dev).values()]
    dev.process.send_signal(how)
    for pid in pids:
        await until_gone(pid)
    await dev.process.wait()


def is_message(text: str) -> Callable[[str], bool]:
    """Whether a line is this message."""
    return lambda line: line == text


async def node_of(chat: Program) -> str:
    """The node that a conversation is on, at first."""
    match = re.search(r"on node (\w+);", await chat.line(lambda line: line.startswith("* you are")))
    assert match is not None
    return match[1]


async def test_two_users_on_two_nodes_talk(terminal: Terminal) -> None:
    """What is typed on one node is shown on another, and the commands tell where everybody is."""
    async with cluster(terminal) as dev:
        edges = {name: event["edge"] for name, event in node_events(dev).items()}
        alice = await terminal.start("chat", "--user", "alice", "--edge", edges["n1"])
        bob = await terminal.start("chat", "--user", "bob", "--to", "alice", "--edge", edges["n2"])
        assert (await node_of(alice), await node_of(bob)) == ("n1", "n2")
        await alice.type("bob: hello")
        await bob.line(is_message("alice: hello"))
        await bob.type("and hello to you")
        await alice.line(is_message("bob: and hello to you"))

        assert await terminal.run("send", "--user", "carol", "bob", "from carol") == (
            0,
            "delivered: its client acknowledged it\n",
        )
        await bob.line(is_message("carol: from carol"))
        code, out = await terminal.run("owner", "bob", "--json")
        assert (code, [session["gateway"] for session in json.loads(out)["sessions"]]) == (0, ["n2"])
        code, out = await terminal.run("status", "--json")
        status = json.loads(out)
        assert (code, status["warnings"]) == (0, [])
        assert status["total"]["off_owner"] == sum(node["off_owner"] for node in status["nodes"])
        assert [(node["name"], node["sessions"], node["links_up"]) for node in status["nodes"]] == [
            ("n1", 1, 2),
            ("n2", 1, 2),
            ("n3", 0, 2),
        ]
        assert sum(node["slots"] for node in status["nodes"]) == 16384

        assert (await alice.end_of_input(), await bob.end_of_input()) == (0, 0)
        await stop(dev)
        assert dev.process.returncode == 0
        assert json.loads(dev.lines[-1]) == {"event": "stopped"}
        assert (await terminal.run("status"))[0] == 3


async def test_a_node_is_killed_and_they_go_on_talking(terminal: Terminal) -> None:
    """The user whose node it was is connected elsewhere, and what was said meanwhile arrives."""
    async with cluster(terminal) as dev:
        bob = await terminal.start("chat", "--user", "bob", "--to", "alice")
        lost = await node_of(bob)
        nodes = node_events(dev)
        edge = next(event["edge"] for name, event in nodes.items() if name != lost)
        alice = await terminal.start("chat", "--user", "alice", "--to", "bob", "--edge", edge)
        await node_of(alice)
        await alice.type("before")
        await bob.line(is_message("alice: before"))

        os.kill(nodes[lost]["pid"], signal.SIGKILL)
        assert await dev.event("exited") == {"event": "exited", "part": "node", "name": lost, "code": -9}
        await alice.type("meanwhile")
        await bob.line(lambda line: line.startswith("* connected again, on node"))
        await bob.line(is_message("alice: meanwhile"))
        await bob.type("here I am")
        await alice.line(is_message("bob: here I am"))
        assert not [line for line in alice.lines if line.startswith("* not delivered")]

        assert (await alice.end_of_input(), await bob.end_of_input()) == (0, 0)
        await stop(dev, signal.SIGTERM)
        assert dev.process.returncode == 0


@pytest.mark.alone  # a node that is kept from answering for a second is passed over
async def test_through_haproxy_everybody_is_on_his_owner(terminal: Terminal) -> None:
    """Commands that are told of no node connect by it."""
    async with cluster(terminal) as dev:
        assert "haproxy" in [json.loads(line).get("part") for line in dev.lines]
        chats = []
        for n in range(6):
            chats.append(await terminal.start("chat", "--user", f"user {n}"))
            await node_of(chats[-1])
        code, out = await terminal.run("status", "--json")
        status = json.loads(out)
        assert (code, status["total"]["sessions"], status["total"]["off_owner"]) == (0, 6, 0)
        for chat in chats:
            assert await chat.end_of_input() == 0
        await stop(dev)


async def test_a_node_is_added(terminal: Terminal) -> None:
    """The arguments that `ring dev` prints start another node, which joins and leaves by itself."""
    async with cluster(terminal, nodes=1) as dev:
        added = await terminal.start("serve", *(await dev.event("cluster-ready"))["add"])
        assert (await added.event("ready"))["name"] == "n2"
        code, out = await terminal.run("status", "--json")
        assert [node["name"] for node in json.loads(out)["nodes"]] == ["n1", "n2"]
        added.process.send_signal(signal.SIGTERM)
        assert await added.process.wait() == 0
        code, out = await terminal.run("status", "--json")
        assert (code, [node["slots"] for node in json.loads(out)["nodes"]]) == (0, [16384])
        await stop(dev)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open")
async def test_nothing_outlives_it(terminal: Terminal) -> None:
    """Killed outright, it takes its nodes and its store along; commands know that it is gone."""
    async with cluster(terminal, nodes=2) as dev:
        redis = (await dev.event("cluster-ready"))["redis"]
        haproxy = next(event for event in map(json.loads, dev.lines) if event.get("part") == "haproxy")
        await stop(dev, signal.SIGKILL)
        await until_gone(haproxy["pid"])
        code, _ = await terminal.run("status")
        assert code == 3
        assert (await terminal.run("status", "--redis", redis, "--cluster", "dev"))[0] == 3
