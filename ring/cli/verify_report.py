"""What `ring verify` prints: how far it is, the table of faults, broken promises with their stories; JSON."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import typer

from ring import __version__
from ring.cli.printable import printable
from ring.cli.sheet import Column, console, fit, sheet
from ring.verify.campaign import Outcome, Progress
from ring.verify.faults import Fault
from ring.verify.misconduct import Misconduct
from ring.verify.plan import Plan
from ring.verify.record import Promise
from ring.verify.tally import Row

_SUMS = (
    "sent",
    "delivered",
    "queued",
    "abandoned",
    "lost",
    "forgotten",
    "doubled",
    "unmarked",
    "doubled_to_application",
    "reordered",
    "breaches",
)

MOST_TOLD = 10
"""So many breaches are told with their story; `--json` has more."""


def print_list(faults: Sequence[Fault | Misconduct]) -> None:
    """The faults there are."""
    terminal = console()
    columns = [
        Column("fault", [fault.name for fault in faults], right=False),
        Column("at most", [f"{fault.longest_s:g} s" for fault in faults]),
        Column(
            "",
            ["planned" if fault.planned else "forgets" if fault.forgets else "" for fault in faults],
            right=False,
        ),
        Column("", [fault.text for fault in faults], right=False),
    ]
    terminal.print(sheet(columns, terminal))


def print_start(plan: Plan, *, to_stderr: bool) -> None:
    """The seed, before anything can go wrong."""
    front = " behind HAProxy" if plan.haproxy else ""
    typer.echo(
        f"seed {plan.seed}: {len(plan.order)} faults on {plan.nodes} nodes{front}, {plan.users} users, "
        f"{plan.rate:g} messages/s; at most {_minutes(plan.longest_s)}",
        err=to_stderr,
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(1.0, seconds / 60):.0f} min"


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """Tells how far it is, on standard error: as it goes on a terminal, else a line for each fault."""
    if not sys.stderr.isatty():
        yield _tell_rows
        return
    from rich import progress as rich_progress
    from rich.console import Console

    terminal = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        console=terminal,
        transient=True,
    ) as bar:
        task = bar.add_task("starting", total=None)

        def tell(now: Progress) -> None:
            bar.update(
                task,
                description=f"{now.what}, {now.sent} messages",
                completed=now.done,
                total=now.of or None,
            )
            if now.row is not None:
                terminal.print(_line(now.row), style="red" if now.row.breaches else None)

        yield tell


def _tell_rows(now: Progress) -> None:
    if now.row is not None:
        typer.echo(f"{now.done}/{now.of} {_line(now.row)}", err=True)


def _line(row: Row) -> str:
    """A fault that is over; of what it stored, more may still come."""
    of = f" of {', '.join(row.victims)}" if row.victims else ""
    counts = {
        "sent": row.sent,
        "delivered": row.delivered,
        "queued": row.queued,
        **{f"failed: {code}": count for code, count in row.failed.items()},
        "doubled": row.doubled,
        "unmarked": row.unmarked,
        "doubled to an application": row.doubled_to_application,
        "reordered": row.reordered,
        "BREACHES": row.breaches,
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "sent")
    served = "" if row.served_s is None else f"; served again after {row.served_s:.2f} s"
    return printable(f"{row.name}{of} ({row.detail}): {told}{served}")


def print_report(outcome: Outcome) -> None:
    """The table, what was broken, and the verdict."""
    terminal = console()
    terminal.print(sheet(fit(_columns(outcome.rows), terminal.width), terminal))
    for promise, count in outcome.breached.items():
        terminal.print(f"\nBROKEN {count} times: {promise.value}", style="red")
        told = [breach for breach in outcome.breaches if breach.promise is promise]
        for breach in told[:MOST_TOLD]:
            name = "" if breach.key is None else f"{breach.key}: "
            terminal.print(f"  {name}{breach.words}, at {breach.at - outcome.origin:.3f} s")
            for line in breach.story:
                terminal.print(f"    {line}")
    for failure in outcome.failures:
        terminal.print(f"\nproves nothing: {printable(failure)}", style="red")
    for complaint in outcome.complaints:
        terminal.print(f"\na node logged an error: {printable(complaint)}", style="red")
    for note in outcome.notes:
        terminal.print(f"note: {note}", style="yellow")
    terminal.print(f"\n{verdict(outcome)}", style="green" if outcome.ok else "red")


def verdict(outcome: Outcome) -> str:
    """The last line."""
    sent = sum(row.sent for row in outcome.rows)
    what = f"{sent} messages, {outcome.tried} faults, {outcome.seconds:.0f} s, seed {outcome.plan.seed}"
    if outcome.ok:
        return f"all promises were kept: {what}"
    wrong = {
        "promises broken": sum(outcome.breached.values()),
        "faults that prove nothing": len(outcome.failures),
        "errors logged by nodes": len(outcome.complaints),
    }
    return f"NOT as promised: {', '.join(f'{n} {name}' for name, n in wrong.items() if n)}: {what}"


def _columns(rows: Sequence[Row]) -> list[Column]:
    def total(name: str) -> int:
        return sum(getattr(row, name) for row in rows)

    def counts(head: str, name: str, rank: int = 0) -> Column:
        return Column(head, [*(getattr(row, name) or "-" for row in rows), total(name)], rank)

    failed = [sum(row.failed.values()) for row in rows]
    return [
        Column("fault", [*(row.name for row in rows), "all"], right=False),
        Column("hit", [*(",".join(row.victims) for row in rows), ""], 3, right=False),
        counts("sent", "sent"),
        counts("delivered", "delivered"),
        counts("queued", "queued"),
        Column("failed", [*(count or "-" for count in failed), sum(failed)]),
        counts("given up", "abandoned", 4),
        counts("lost", "lost"),
        counts("forgotten", "forgotten"),
        counts("doubled", "doubled"),
        counts("unmarked", "unmarked", 1),
        counts("to app", "doubled_to_application"),
        counts("reordered", "reordered"),
        Column("served s", [*(_seconds(row.served_s) for row in rows), _seconds(_longest(rows, "served_s"))]),
        Column(
            "silence s",
            [*(_seconds(row.silence_s) for row in rows), _seconds(_longest(rows, "silence_s"))],
            2,
        ),
    ]


def _longest(rows: Sequence[Row], name: str) -> float | None:
    return max((getattr(row, name) for row in rows if getattr(row, name) is not None), default=None)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def document(outcome: Outcome) -> dict[str, Any]:
    """The JSON of a run."""
    plan, rows = outcome.plan, outcome.rows
    failed: Counter[str] = Counter()
    for row in rows:
        failed.update(row.failed)
    total = {name: sum(getattr(row, name) for row in rows) for name in _SUMS}
    return {
        "version": __version__,
        "ok": outcome.ok,
        "verdict": verdict(outcome),
        "seed": plan.seed,
        "plan": {name: value for name, value in asdict(plan).items() if name not in ("command", "seed")},
        "tried": outcome.tried,
        "seconds": round(outcome.seconds, 3),
        "rows": [row.document(outcome.origin) for row in rows],
        "total": {
            "sent": total["sent"],
            "delivered": total["delivered"],
            "queued": total["queued"],
            "failed": dict(failed),
            "abandoned": total["abandoned"],
            "lost": total["lost"],
            "forgotten": total["forgotten"],
            "doubled_raw": total["doubled"],
            "doubled_raw_unmarked": total["unmarked"],
            "doubled_to_application": total["doubled_to_application"],
            "reordered": total["reordered"],
            "breaches": total["breaches"],
        },
        "promises": [
            {
                "promise": promise.name.lower(),
                "words": promise.value,
                "broken": outcome.breached.get(promise, 0),
            }
            for promise in Promise
        ],
        "breaches": [
            {
                "promise": breach.promise.name.lower(),
                "at_s": round(breach.at - outcome.origin, 3),
                "message": None if breach.key is None else str(breach.key),
                "words": breach.words,
                "story": list(breach.story),
            }
            for breach in outcome.breaches
        ],
        "failures": outcome.failures,
        "complaints": outcome.complaints,
        "notes": outcome.notes,
    }
