"""docs/examples/blog_chat on a cluster: the chat that everybody builds, as a browser would run it."""

import json
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from ring.verify.node import NodeProcess
from tests.integration.cluster import processes
from tests.integration.foreign import Closed, OfTrioWebsocket, browser

DEADLINE_S = 60.0
_PROGRAM = Path(__file__).with_name("blog_chat.mjs")


class Visitor:
    """A visitor's page, without the page.

    Attributes:
        user: the id that it was welcomed with.
        perhaps: what it sees only if it happens to be connected then.
    """

    def __init__(self, process: trio.Process) -> None:
        self.user = ""
        self.perhaps: list[tuple[str, Any]] = []
        self._process = process
        self._told = b""

    async def event(self) -> tuple[str, Any]:
        """What it sees next."""
        assert self._process.stdout is not None
        while True:
            while b"\n" not in self._told:
                data = await self._process.stdout.receive_some()
                assert data, "the chat ended"
                self._told += data
            line, _, self._told = self._told.partition(b"\n")
            [seen] = json.loads(line).items()
            if seen not in self.perhaps:
                return str(seen[0]), seen[1]

    async def enters(self) -> str:
        """Returns once it is in the room; on which node that is."""
        kind, welcome = await self.event()
        assert kind == "welcome"
        assert re.fullmatch("[0-9a-f]{12}", welcome["user"])
        assert self.user in ("", welcome["user"])
        self.user = welcome["user"]
        assert await self.event() == ("joined", "lobby")
        return str(welcome["node"])

    async def comes_back(self) -> None:
        """Returns once it is in the room, however often it has to try."""
        while (seen := await self.event()) != ("joined", "lobby"):
            assert seen[0] in ("welcome", "closed"), seen

    async def says(self, text: str) -> None:
        """Says something to the others."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(text).encode() + b"\n")

    async def hears(self, sayer: "Visitor", text: str) -> None:
        """What it sees next is that somebody said this."""
        assert await self.event() == ("said", {"from": sayer.user, "data": text})

    async def is_closed(self) -> dict[str, Any]:
        """What it sees next is how its connection ends."""
        kind, end = await self.event()
        assert kind == "closed"
        return dict(end)


@asynccontextmanager
async def visitor(*nodes: NodeProcess) -> AsyncIterator[Visitor]:
    """One who has come to the first of these nodes, and knows the others."""
    process = await trio.lowlevel.open_process(
        [*browser(), str(_PROGRAM), *(f"ws://{node.edge}" for node in nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        chat = Visitor(process)
        assert await chat.enters() == nodes[0].name
        yield chat
    finally:
        process.kill()
        with trio.CancelScope(shield=True):  # short: nothing survives SIGKILL
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()


@pytest.fixture(autouse=True)
def _node_js() -> None:
    browser()  # without one nothing need be started


async def test_what_one_says_reaches_all_others(redis_url: str, tmp_path: Path) -> None:
    """Whichever nodes they are on, and not itself. A node that is stopped with SIGINT sends its visitors away
    with a proper close; the others do not notice, and those come back elsewhere and go on."""
    with trio.fail_after(DEADLINE_S):
        async with processes(redis_url, tmp_path) as cluster, AsyncExitStack() as block:
            n1, n2, n3 = await cluster.start("n1", "n2", "n3")
            enter = block.enter_async_context
            ann, bert = await enter(visitor(n1)), await enter(visitor(n1))
            cleo, dora = await enter(visitor(n2, n1, n3)), await enter(visitor(n2, n3, n1))
            emil = await enter(visitor(n3))
            everybody = (ann, bert, cleo, dora, emil)
            assert len({one.user for one in everybody}) == len(everybody)

            for sayer in (ann, cleo, emil):
                await sayer.says("hello, all")
                for one in everybody:
                    if one is not sayer:
                        await one.hears(sayer, "hello, all")  # and the sayer, next, what another says

            query = urlencode({"user": "watcher"})
            watcher = await enter(OfTrioWebsocket.connect(f"ws://{n2.edge}/v1/connect?{query}", ["ring.v1"]))
            assert json.loads(await watcher.receive())["type"] == "welcome"
            n2.process.send_signal(signal.SIGINT)
            cleo.perhaps = dora.perhaps = [("said", {"from": emil.user, "data": "go on"})]
            await emil.says("go on")
            for one in (ann, bert):
                await one.hears(emil, "go on")
            assert json.loads(await watcher.receive())["type"] == "reconnect"
            with pytest.raises(Closed) as closed:
                await watcher.receive()
            assert (closed.value.code, closed.value.reason) == (1012, "the node drains")
            for one, elsewhere in ((cleo, "n1"), (dora, "n3")):
                end = await one.is_closed()
                assert (end["code"], end["reason"]) == (1012, "the node drains")
                assert 0 <= end["again_ms"] <= 2000  # what the node asked for
                assert await one.enters() == elsewhere
            assert await n2.process.wait() == 0

            for sayer in (cleo, ann, dora):
                await sayer.says("and on")
                for one in everybody:
                    if one is not sayer:
                        await one.hears(sayer, "and on")


async def test_visitors_of_a_node_that_is_killed_come_back(redis_url: str, tmp_path: Path) -> None:
    """They find out by themselves, try in turn, and hear what is said once they are in again."""
    with trio.fail_after(DEADLINE_S):
        async with processes(redis_url, tmp_path) as cluster, AsyncExitStack() as block:
            n1, n2 = await cluster.start("n1", "n2")
            enter = block.enter_async_context
            ann, cleo = await enter(visitor(n1)), await enter(visitor(n2, n2, n1))
            n2.kill()
            ends = [await cleo.is_closed(), await cleo.is_closed()]
            assert [end["code"] for end in ends] == [
                1006,
                1006,
            ]  # cut, and refused by the node that is no more
            await cleo.comes_back()
            await ann.says("welcome back")
            await cleo.hears(ann, "welcome back")


async def test_visitors_of_a_node_that_is_frozen_go_elsewhere(redis_url: str, tmp_path: Path) -> None:
    """Scripts cannot see a node's pings: their own, which have no answer, tell them."""
    with trio.fail_after(DEADLINE_S):
        options = ("--heartbeat-s", "1")
        async with processes(redis_url, tmp_path, *options) as cluster, AsyncExitStack() as block:
            n1, n2 = await cluster.start("n1", "n2")
            cleo = await block.enter_async_context(visitor(n2, n1))
            n2.freeze()
            end = await cleo.is_closed()
            assert (end["code"], end["reason"]) == (1006, "the node does not answer")
            await cleo.comes_back()
            with trio.move_on_after(4) as longer:  # than it takes to give a node up
                await cleo.event()
            assert longer.cancelled_caught, "pings that are answered are no reason to go"
