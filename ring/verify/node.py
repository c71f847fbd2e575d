"""A node as a process that can be killed and frozen, and the gates that stand between it and the others.

`Site` makes them. A process is one life of a node: its seats and gates outlive it, so that a node that is
started again is found where it was.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import trio

from ring import child
from ring.child import COMMAND, Event
from ring.protocol.codes import RingError
from ring.verify.gate import Gate, Seat

READY_S = 60.0
"""For a Python that starts on a busy machine."""

ANSWER_S = 5.0
"""The longest that anything over HTTP may take."""


class SiteFailed(RingError):
    """What was to come about in the cluster did not."""


class NodeProcess:
    """A node as a process; `start` starts it."""

    def __init__(self, process: trio.Process, name: str, log: Path) -> None:
        self.process = process
        self.name = name
        self.log = log
        self.ready: Event = {}

    @classmethod
    async def start(
        cls, name: str, options: Mapping[str, str], log: Path, command: Sequence[str] = COMMAND
    ) -> "NodeProcess":
        """Starts a node; it is not ready yet.

        Args:
            name: its name.
            options: of `ring serve`, by their names in the settings.
            log: the file that it logs to, as JSON.
            command: what the process is started with, before `serve`: it has to end when its standard input
                does.
        """
        given = {"name": name, "log_format": "json", **options}
        flags = [f"--{option.replace('_', '-')}={value}" for option, value in given.items()]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("RING_")}
        with log.open("wb") as errors:
            process = await trio.lowlevel.open_process(
                [*command, "serve", *flags],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environ,
                # A group of its own: Ctrl-C is for us, who stop it. But no session of its own: if we are
                # killed while it is frozen, the kernel thaws and ends it only as an orphan of our session.
                process_group=0,
            )
        return cls(process, name, log)

    @property
    def alive(self) -> bool:
        """False once it has ended."""
        return self.process.returncode is None

    @property
    def edge(self) -> str:
        """Where its clients connect."""
        return str(self.ready["edge"])

    @property
    def stopped(self) -> bool:
        """Whether a SIGSTOP is in effect."""
        state = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        return state is not None and state.si_status == signal.SIGSTOP

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def stop(self) -> None:
        """SIGTERM; returns when it has drained and ended.

        Raises:
            SiteFailed: with another code than 0.
        """
        self.process.terminate()
        code = await self.process.wait()
        if code != 0:
            raise SiteFailed(f"{self.name} ended with code {code} when it was told to: {self.last_words()}")

    async def wait_ready(self) -> None:
        """Returns when it has said that it serves.

        Raises:
            SiteFailed: it has ended before, or says nothing for too long.
        """
        with trio.move_on_after(READY_S):
            async with aclosing(child.events(self.process)) as events:
                async for event in events:
                    if event.get("event") == "ready":
                        self.ready = event
                        return
            code = await self.process.wait()
            raise SiteFailed(f"{self.name} ended with code {code} before it served: {self.last_words()}")
        raise SiteFailed(f"{self.name} was not ready after {READY_S:.0f} s: {self.last_words()}")

    async def end(self) -> None:
        """SIGKILL, if it has not ended; returns when nothing is left of it."""
        if self.alive:
            self.kill()
        with trio.CancelScope(shield=True):  # short: nothing survives SIGKILL
            await self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    await pipe.aclose()

    def logged(self) -> list[dict[str, Any]]:
        """What it has logged; the last line may be half written."""
        lines = self.log.read_bytes().split(b"\n")
        return [msgspec.json.decode(line) for line in lines[:-1] if line.startswith(b"{")]

    def complaints(self) -> list[dict[str, Any]]:
        """What it has logged as an error."""
        return [line for line in self.logged() if line["level"] in ("error", "critical")]

    def last_words(self) -> str:
        """The end of what it has logged."""
        words = self.log.read_text(errors="replace").rstrip().rpartition("\n")[2]
        return words or "it said nothing"


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says of itself and of the ring."""

    status: int  # of /readyz
    state: str
    degraded: list[str]
    epoch: int
    members: dict[str, str]  # name -> incarnation
    slots: dict[str, int]  # name -> how many it owns
    links: dict[str, str]  # name of another -> how it stands with it


class SiteNode:
    """A node of a site over all its lives: where it is, its gate to Redis, and the one from its peers.

    Attributes:
        process: its life; the last one while it is down.
        frozen: SIGSTOP, by us.
        unreachable: it is cut off from Redis and from all others, by us.
    """

    def __init__(self, name: str, store: str) -> None:
        self.name = name
        self.seats = {kind: Seat() for kind in ("edge", "peer", "api")}
        self.redis = Gate(store)
        self.peers = Gate(self.seats["peer"].address, peers=True)
        self.http = httpx.AsyncClient(
            base_url=f"http://{self.seats['api'].address}", timeout=ANSWER_S, trust_env=False
        )
        self.process: NodeProcess
        self.lives = 0
        self.serves = False
        self.frozen = False
        self.unreachable = False

    @property
    def places(self) -> dict[str, str]:
        """The options of `ring serve` that say where it is, and where Redis."""
        listening = {kind: seat.address for kind, seat in self.seats.items()}
        return {**listening, "peer_advertise": self.peers.address, "redis": f"redis://{self.redis.address}/0"}

    async def report(self) -> Report:
        """What it says now.

        Raises:
            SiteFailed: it does not answer, or not as a node does.
        """
        try:
            ready, nodes = await self.http.get("/readyz"), await self.http.get("/v1/nodes")
            nodes.raise_for_status()
            body, entries = ready.json(), nodes.json()["nodes"]
        except (httpx.HTTPError, ValueError) as error:
            raise SiteFailed(f"{self.name} does not answer: {error!r}") from error
        # A node that has been evicted is in its own list no more.
        mine: dict[str, Any] = next((entry["self"] for entry in entries if entry["name"] == self.name), {})
        return Report(
            ready.status_code,
            body["state"],
            body.get("degraded", []),
            mine.get("epoch", 0),
            {entry["name"]: entry["incarnation"] for entry in entries},
            {entry["name"]: entry["slots"] for entry in entries},
            {entry["name"]: entry["link"] for entry in entries if "link" in entry},
        )

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What its last life has logged of one kind."""
        return [line for line in self.process.logged() if line["event"] == event]

    async def close(self) -> None:
        """Gives up its places; its process has ended."""
        for seat in self.seats.values():
            seat.close()
        with trio.CancelScope(shield=True):  # short: it waits for nobody
            await self.http.aclose()
