"""A command that does not outlive whoever started it; and the echo server, which serves as that command."""

import json
import subprocess
import sys
from typing import Any

import pytest
import trio
from trio_websocket import open_websocket_url

ECHO = ("bench", "echo", "--listen", "127.0.0.1:0")


def start(module: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """The command as a process; what it says comes through pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def ready(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """The line that it prints when it serves."""
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def test_it_ends_with_its_standard_input() -> None:
    """The kernel closes the other end when whoever held it is gone, however it went."""
    with start("ring.cli.child", *ECHO) as process:
        assert ready(process)["event"] == "ready"
        assert process.stdin is not None
        process.stdin.write(b"what is typed is none of its business\n")
        process.stdin.flush()
        process.stdin.close()
        assert process.wait(10) == 0


def test_it_is_the_command() -> None:
    """Arguments and exit codes are those of `ring`."""
    with start("ring.cli.child", "version") as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"ring "
        assert process.wait(10) == 0


async def test_echo() -> None:
    """Text comes back as text, binary as binary; SIGTERM ends the server with exit code 0."""
    with start("ring", *ECHO) as process:
        try:
            line = await trio.to_thread.run_sync(ready, process)
            assert (line["event"], line["part"], line["pid"]) == ("ready", "echo", process.pid)
            with trio.fail_after(10):
                async with open_websocket_url(f"ws://{line['edge']}") as websocket:
                    for message in ("héllo", b"\x00\xff", ""):
                        await websocket.send_message(message)
                        assert await websocket.get_message() == message
        finally:
            process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("listen", ["127.0.0.1", "nowhere:x"])
def test_no_address_to_echo_at(listen: str) -> None:
    """A line, and exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "ring", "bench", "echo", "--listen", listen],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ring: not an address")
