"""A cluster for one run: `ring dev` as a process, on free ports, ended when the run is."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from ring.bench import meter, store
from ring.bench.meter import Meter
from ring.protocol.codes import RingError

START_S = 60.0
"""How long the cluster may take: eight Python processes start on what cores there are."""

STOP_S = 15.0
"""How long it may take to end, before it is killed: above what `ring dev` gives its nodes."""

# `ring dev` that ends with us, however we end.
_COMMAND = (
    *(sys.executable, "-m", "ring.cli.child", "dev"),
    *("--no-haproxy", "--edge-port=0", "--peer-port=0", "--api-port=0"),
)


class NoCluster(RingError):
    """The local cluster does not start."""


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """A cluster that runs on this machine."""

    edges: dict[str, str]
    """By node."""
    apis: list[str]
    redis: str
    pids: dict[str, list[int]]
    """By part."""

    @property
    def meter(self) -> Meter:
        """Of all its processes."""
        return meter.of_processes(self.pids)


@contextmanager
def local_cluster(nodes: int, environ: Mapping[str, str] | None = None) -> Iterator[LocalCluster]:
    """Runs a cluster of so many nodes while the block does.

    Args:
        nodes: how many.
        environ: of its processes; by default ours.

    Raises:
        NoCluster: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as state:
        # Its note is none of a `ring dev` that somebody works with.
        environ = dict(os.environ if environ is None else environ) | {"XDG_STATE_HOME": state}
        with subprocess.Popen(  # noqa: S603 - our own command
            [*_COMMAND, "--nodes", str(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            start_new_session=True,  # Ctrl-C is for us, who stop it
        ) as process:
            try:
                yield _wait_ready(process)
            finally:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # its nodes see the end of their input, and end too


def _wait_ready(process: subprocess.Popen[bytes]) -> LocalCluster:
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    edges: dict[str, str] = {}
    pids: list[int] = []
    said = b""
    while True:
        if not select.select([process.stdout], [], [], START_S)[0]:
            raise NoCluster(
                f"the local cluster was not ready after {START_S:.0f} s: see what it logged above"
            )
        part = process.stdout.read()
        if not part:
            raise NoCluster("the local cluster did not start: see what it logged above")
        *lines, said = (said + part).split(b"\n")
        for event in map(_event, lines):
            match event.get("event"), event.get("part"):
                case "ready", "node":
                    edges[event["name"]] = event["edge"]
                    pids.append(event["pid"])
                case "cluster-ready", _:
                    redis = trio.run(store.read_info, event["redis"])
                    parts = {meter.NODES: pids, meter.REDIS: [int(str(redis["process_id"]))]}
                    return LocalCluster(edges, event["api"], event["redis"], parts)


def _event(line: bytes) -> dict[str, Any]:
    return msgspec.json.decode(line, type=dict[str, Any])


def environment_without_ring() -> dict[str, str]:
    """Ours without RING_…: what is measured for others to see runs with the defaults."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RING_")}
