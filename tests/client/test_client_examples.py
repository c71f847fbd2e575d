"""The example programs, run as a reader would run them, and the guide to the library."""

import ast
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import trio

import ring
from ring.protocol import client as protocol
from ring.protocol.codes import CLOSINGS, ErrorCode
from tests.client.fake_node import DEADLINE_S, FakeNode

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
GUIDE = DOCS / "how-to" / "client.md"


async def test_hello(loopback_node: FakeNode) -> None:
    """It sends one message and prints what became of it."""
    node = loopback_node
    command = [sys.executable, str(EXAMPLES / "hello.py"), node.url, "alice", "bob"]
    printed = b""

    async def run() -> None:
        nonlocal printed
        printed = (await trio.run_process(command, capture_stdout=True)).stdout

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            peer = await node.peer()
            sent = await peer.hear_send()
            await peer.receipt(sent, "queued")

    assert peer.query["user"] == "alice"
    assert (sent.to, msgspec.json.decode(sent.data)) == ("bob", {"text": "Hello, this is alice."})
    assert printed == b"bob: queued\n"


async def test_echo_bot(loopback_node: FakeNode, nursery: trio.Nursery) -> None:
    """It sends back what users send it, and says goodbye on Ctrl-C."""
    node = loopback_node
    command = [sys.executable, str(EXAMPLES / "echo_bot.py"), node.url, "echo"]
    with trio.fail_after(DEADLINE_S):
        process: trio.Process = await nursery.start(trio.run_process, command)
        peer = await node.peer()
        await peer.message(1, sender="bob")
        assert await peer.hear_ack() == "1-1"
        sent = await peer.hear_send()
        assert (sent.to, bytes(sent.data)) == ("bob", b"1")
        await peer.receipt(sent)
        await peer.tell(protocol.Message(from_=None, id="b1", seq="1-2", data=msgspec.Raw(b"2"), sent_at=0))
        assert await peer.hear_ack() == "1-2"
        process.send_signal(signal.SIGINT)
        reason = await peer.hear_end()
        assert await process.wait() == 0

    assert reason is not None
    assert reason.code == 1000


async def test_room(loopback_node: FakeNode, nursery: trio.Nursery) -> None:
    """It joins the room, says hello in it, shows what others say and what may be missing; and ends well."""
    node = loopback_node
    command = [sys.executable, str(EXAMPLES / "room.py"), node.url, "alice", "lobby"]
    shown = b""
    with trio.fail_after(DEADLINE_S):
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        peer = await node.peer()
        await peer.grant(await peer.hear_join("lobby"))
        said = await peer.hear_publish()
        assert (said.room, msgspec.json.decode(said.data)) == ("lobby", {"text": "Hello, this is alice."})
        await peer.grant(said.id)
        await peer.message(1)
        await peer.say(2)
        gap = protocol.Error(ErrorCode.ROOMS_UNAVAILABLE, "Redis was away", retryable=True, room="lobby")
        await peer.tell(gap)
        assert process.stdout is not None
        async with process.stdout as output:
            while shown.count(b"\n") < 3:
                shown += await output.receive_some()
            process.send_signal(signal.SIGINT)
            assert await peer.hear_ack() == "1-1"
            reason = await peer.hear_end()
        assert await process.wait() == 0

    assert (
        shown == b"to me alone, from bob: 1\nlobby: bob: 2\nlobby: something may be missing: Redis was away\n"
    )
    assert reason is not None
    assert reason.code == 1000


def test_code_in_the_guide_compiles() -> None:
    """What the guide shows is Python."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, str(GUIDE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_guide_tells_of_everything_public() -> None:
    """Every name of the package, every attribute of what it hands out, every close code."""
    text = GUIDE.read_text()
    names = [
        f"ring.{name}" for name in ring.__all__ if name not in {"__version__", "Client", "Message", "Receipt"}
    ]
    for value, public in (
        ("client", ring.Client),
        ("message", ring.Message),
        ("message", ring.RoomMessage),
        ("receipt", ring.Receipt),
    ):
        names += [f"{value}.{name}" for name in dir(public) if not name.startswith("_")]
    missing = {name for name in names if name not in text}

    assert missing == {"receipt.id"}  # of use in a log at most
    table = text[text.index("| the connection ended with") :]
    assert {int(code) for code in re.findall(r"\b[14]0\d\d\b", table)} >= set(CLOSINGS)
