"""What `ring bench` prints: a table of all runs, JSON, a picture; and how far it is, on a terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ring.bench.mailbox import FIGURES
from ring.bench.meter import NODES, REDIS
from ring.bench.results import BOTTLENECK, STEPS, Run, Spread, summary
from ring.bench.stage import Progress

WIDTH = 200
"""Columns where standard output is no terminal."""

_ALWAYS_SHOWN = ("sent", "delivered", "lost", "doubled", "misrouted", "reordered")
"""Other counts have a row if any run has one of them."""


def warnings(runs: Sequence[Run]) -> list[str]:
    """What a reader of the figures must know."""
    found = []
    if any(run.generator_share > BOTTLENECK for run in runs):
        found.append(
            f"the load itself used {max(run.generator_share for run in runs):.0%} of a core: it may have "
            "been the bottleneck, and latencies and rates its own"
        )
    if any(run.cpu_us is None or NODES not in run.cpu_us for run in runs):
        found.append(
            "what the nodes spent is unknown: no /metrics was found (--api), and they are not --local"
        )
    elif any(REDIS not in (run.cpu_us or {}) for run in runs):
        found.append("what Redis spent is unknown: give --redis")
    return found


def document(load: str, target: str, plan: dict[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """The JSON of a command."""
    return {
        "load": load,
        "target": target,
        "plan": plan,
        "runs": runs,
        "summary": summary(runs),
        "warnings": warnings(runs),
        "ok": not any(run.faults for run in runs),
    }


def print_report(title: str, unit: str, runs: Sequence[Run]) -> None:
    """A row for each figure, a column for each run.

    Args:
        title: what was measured.
        unit: what a run counts: "message", "copy", "connection", "user".
        runs: at least one.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for index in range(len(runs)):
        table.add_column(f"run {index + 1}", justify="right", no_wrap=True)
    several = len(runs) > 1
    if several:
        table.add_column("median", justify="right", no_wrap=True)
        table.add_column("range", justify="right", no_wrap=True)
    for name, values in _rows(unit, runs):
        cells = [_figure(value) for value in values]
        if several:
            spread = Spread.of(values)
            cells += ["?", ""] if spread is None else [_figure(spread.median), _extent(spread)]
        table.add_row(name, *cells)
    console.print(f"{title}\n", markup=False)
    console.print(table)
    for number, run in enumerate(runs, 1):
        if run.faults:
            told = ", ".join(f"{what}: {count}" for what, count in run.faults.items())
            console.print(f"run {number} is not as it should be: {told}", style="red", markup=False)
    for warning in warnings(runs):
        console.print(f"warning: {warning}", style="yellow", markup=False)


def _rows(unit: str, runs: Sequence[Run]) -> Iterator[tuple[str, list[float | None]]]:
    yield f"{unit}s/s", [run.per_s for run in runs]
    yield f"CPU us per {unit}", [run.cpu_total_us for run in runs]
    for name, what in (
        ("cpu_us", "  {}"),
        ("memory_kib", f"memory KiB per {unit}, {{}}"),
        ("idle_cpu_us", f"CPU us per idle {unit} and second, {{}}"),
    ):
        for part in (NODES, REDIS):
            values = [(getattr(run, name) or {}).get(part) for run in runs]
            if any(value is not None for value in values):
                yield what.format(part), values
    for name in dict.fromkeys(name for run in runs for name in run.figures):
        yield FIGURES[name], [run.figures.get(name) for run in runs]
    for timed in runs[0].latency_ms:
        for step, label in STEPS.items():
            yield (
                f"{timed.replace('_', ' ')} ms {label}",
                [getattr(run.latency_ms[timed], step) if timed in run.latency_ms else None for run in runs],
            )
    for name in runs[0].counts:
        values = [run.counts[name] for run in runs]
        if name in _ALWAYS_SHOWN or any(values):
            yield name, list(values)
    yield "errors", [sum(run.errors.values()) for run in runs]
    yield f"load: CPU us per {unit}", [run.generator_us for run in runs]
    yield "load: share of a core", [run.generator_share for run in runs]


def _figure(value: float | None) -> str:
    if value is None:
        return "?"
    if value == round(value) or value >= 1000:
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _extent(spread: Spread) -> str:
    return f"{_figure(spread.low)}-{_figure(spread.high)}"


def write_plot(file: Path, title: str, runs: Sequence[Run]) -> None:
    """Draws the latencies of all runs.

    Raises:
        RingError: there are none, or the file cannot be written.
    """
    from ring.bench.plot import plot
    from ring.protocol.codes import RingError

    lines = {
        f"{timed.replace('_', ' ')}, run {index + 1}": latency
        for index, run in enumerate(runs)
        for timed, latency in run.latency_ms.items()
    }
    if not lines:
        raise RingError("--plot: there is nothing to draw, since nothing arrived")
    try:
        file.write_text(plot(title, lines), "utf-8")
    except OSError as error:
        raise RingError(f"--plot: cannot write {file}: {error.strerror}") from None


@contextmanager
def progress(runs: int) -> Iterator[Callable[[int], Progress]]:
    """Tells how far it is on standard error, if that is a terminal. Called with the number of a run."""
    if not sys.stderr.isatty():
        yield lambda _run: _silent
        return
    from rich import progress as rich_progress
    from rich.console import Console

    with rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("starting", total=1.0)

        def of_run(run: int) -> Progress:
            return lambda what, share: bar.update(
                task, description=f"run {run} of {runs}: {what}", completed=share
            )

        yield of_run


def _silent(_what: str, _share: float) -> None:
    pass
