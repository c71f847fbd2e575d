"""What a run of a load has measured, as JSON and tables have it, and what several runs come to."""

import math
from collections.abc import Iterable, Sequence
from statistics import median

from msgspec import Struct

from ring.bench.ledger import FAULTS, Tally
from ring.bench.meter import NODES, Spent

BOTTLENECK = 0.9
"""Of a CPU core: a load that used more of its one core may have been what was measured."""


STEPS = {"p50": "p50", "p90": "p90", "p99": "p99", "p99_9": "p99.9", "max": "max"}
"""The percentiles of a `Latency`, and what they are called."""


class Latency(Struct):
    """Percentiles, by nearest rank, in milliseconds."""

    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of(cls, values_ns: Iterable[int]) -> "Latency | None":
        """Of these; None if there are none."""
        ordered = sorted(values_ns)
        if not ordered:
            return None
        return cls(*(round(percentile(ordered, share) / 1e6, 3) for share in (0.5, 0.9, 0.99, 0.999, 1.0)))


def percentile(ordered: Sequence[int], share: float) -> int:
    """The smallest of the ascending values that at least this share of them does not exceed."""
    # The product of 0.07 and 100 is a hair above 7: ranks are whole numbers.
    rank = math.ceil(round(share * len(ordered), 9))
    return ordered[max(rank, 1) - 1]


class Run(Struct, kw_only=True):
    """One run of one load.

    Attributes:
        done: messages or copies delivered, or connections made: what `cpu_us` and `per_s` are per.
        counts: `sent`, `delivered`, `late`, and every kind of fault.
        errors: how often the servers refused, or a connection failed, by code.
        latency_ms: by what was timed: `one_way`, `receipt`, `welcome`.
        cpu_us: CPU of the servers per thing done, by part; None if it is unknown.
        memory_kib: memory of the servers per connection, by part; None if unknown or not asked.
        idle_cpu_us: CPU of the servers per second and connection, while nothing was sent; None likewise.
        generator_us: CPU of the load itself per thing done.
        generator_share: of one core that the load used.
        figures: what else a load measures, by name; what is unknown is left out.
    """

    seconds: float
    done: int
    per_s: float
    counts: dict[str, int]
    errors: dict[str, int]
    latency_ms: dict[str, Latency]
    cpu_us: dict[str, float] | None
    generator_us: float
    generator_share: float
    memory_kib: dict[str, float] | None = None
    idle_cpu_us: dict[str, float] | None = None
    figures: dict[str, float] = {}

    @property
    def faults(self) -> dict[str, int]:
        """What happened that must not, errors included."""
        found = {name: self.counts[name] for name in FAULTS if self.counts.get(name)}
        return found | {f"error {code}": count for code, count in self.errors.items() if count}

    @property
    def cpu_total_us(self) -> float | None:
        """Of all parts that are known; None if the nodes are not among them."""
        return sum(self.cpu_us.values()) if self.cpu_us and NODES in self.cpu_us else None


def make_run(
    tally: Tally,
    *,
    done: int,
    spent: Spent,
    latencies: dict[str, Latency | None],
) -> Run:
    """A run from what was counted and read.

    Args:
        tally: the counts.
        done: how many things were done.
        spent: what that took.
        latencies: by what was timed; None where nothing was.
    """
    per = max(done, 1)
    seconds, cpu_us, own_cpu_s = spent.seconds, spent.cpu_us, spent.own_cpu_s
    return Run(
        seconds=round(seconds, 3),
        done=done,
        per_s=round(done / seconds, 1) if seconds else 0.0,
        counts={name: getattr(tally, name) for name in ("sent", "delivered", "late", *FAULTS)},
        errors=dict(tally.errors),
        latency_ms={name: each for name, each in latencies.items() if each is not None},
        cpu_us=None if cpu_us is None else {part: round(spent / per, 2) for part, spent in cpu_us.items()},
        generator_us=round(own_cpu_s * 1e6 / per, 2),
        generator_share=round(own_cpu_s / seconds, 3) if seconds else 0.0,
    )


class Spread(Struct):
    """A figure over several runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Over these; None if any is unknown, or there are none."""
        listed = list(values)
        known = [value for value in listed if value is not None]
        if not listed or len(known) != len(listed):
            return None
        return cls(median(known), min(known), max(known))


def summary(runs: Sequence[Run]) -> dict[str, Spread]:
    """Medians and ranges of every figure that all runs have, by a dotted name."""
    figures: dict[str, list[float | None]] = {
        "per_s": [run.per_s for run in runs],
        "cpu_us": [run.cpu_total_us for run in runs],
        "generator_us": [run.generator_us for run in runs],
        "generator_share": [run.generator_share for run in runs],
    }
    for name in ("cpu_us", "memory_kib", "idle_cpu_us"):
        for part in sorted({part for run in runs for part in getattr(run, name) or {}}):
            figures[f"{name}.{part}"] = [(getattr(run, name) or {}).get(part) for run in runs]
    for name in dict.fromkeys(name for run in runs for name in run.figures):
        figures[name] = [run.figures.get(name) for run in runs]
    for timed in sorted({timed for run in runs for timed in run.latency_ms}):
        for step in Latency.__struct_fields__:
            figures[f"{timed}_ms.{step}"] = [
                getattr(run.latency_ms[timed], step) if timed in run.latency_ms else None for run in runs
            ]
    spreads = {name: Spread.of(values) for name, values in figures.items()}
    return {name: spread for name, spread in spreads.items() if spread is not None}
