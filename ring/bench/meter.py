"""What servers spend: CPU and memory, of local processes by their number, of others by what they tell."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize

from ring.protocol.codes import RingError

NODES, REDIS = "nodes", "redis"
"""The parts of a cluster whose cost is told apart."""

_CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED, of <linux/posix-timers.h>: what clock_getcpuclockid(3) puts there


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU since the start, user and system, and resident memory, of all processes of a part."""

    cpu_s: float
    memory_bytes: int


Reading = dict[str, Usage]
Meter = Callable[[], Reading | None]
"""Reads what each part has used up to now; a part of which nobody can tell is left out."""


class ServerEnded(RingError):
    """A server that was to be measured is gone."""


def cpu_s(pid: int) -> float:
    """CPU seconds of a process: of all its threads, those that have ended too, in nanoseconds.

    By the clock that the kernel keeps for it. `/proc/PID/stat` has the same in steps of 10 ms, and the
    `schedstat` of its threads forgets those that have ended.
    """
    return time.clock_gettime_ns(~pid << 3 | _CLOCK_OF_PROCESS) / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * getpagesize()


def of_processes(parts: Mapping[str, Sequence[int]]) -> Meter:
    """A meter of processes of this machine, by part.

    Raises (when read):
        ServerEnded: one of them is gone.
    """

    def read() -> Reading | None:
        if sys.platform != "linux":
            return None
        try:
            return {
                part: Usage(sum(map(cpu_s, pids)), sum(map(resident_bytes, pids)))
                for part, pids in parts.items()
            }
        except OSError:
            raise ServerEnded("a server has ended while it was measured: see what it logged") from None

    return read


def cpu_between(before: Reading | None, after: Reading | None) -> dict[str, float] | None:
    """Microseconds of CPU between two readings, by part; None if nobody can tell, or a server began anew."""
    if before is None or after is None or before.keys() != after.keys():
        return None
    spent = {part: (after[part].cpu_s - before[part].cpu_s) * 1e6 for part in after}
    return None if min(spent.values(), default=0) < 0 else spent or None


@dataclass(slots=True)
class Spent:
    """What a part of a load took.

    Attributes:
        seconds: from its beginning to its end.
        cpu_us: of the servers, by part, in total; None if nobody can tell.
        own_cpu_s: of the load itself.
        before: what the servers had used when it began.
    """

    seconds: float = 0.0
    cpu_us: dict[str, float] | None = None
    own_cpu_s: float = 0.0
    before: Reading | None = None


@contextmanager
def spending(meter: Meter) -> Iterator[Spent]:
    """What the block takes: known at its end. Reading the servers' meters is no part of it."""
    spent = Spent(before=meter())
    own, start = time.process_time(), time.perf_counter_ns()
    yield spent
    spent.seconds, spent.own_cpu_s = (time.perf_counter_ns() - start) / 1e9, time.process_time() - own
    spent.cpu_us = cpu_between(spent.before, meter())


def memory_between(before: Reading | None, after: Reading | None) -> dict[str, float] | None:
    """How many KiB of resident memory came between two readings, by part; None if nobody can tell."""
    if before is None or after is None or before.keys() != after.keys():
        return None
    return {part: (after[part].memory_bytes - before[part].memory_bytes) / 1024 for part in after}
