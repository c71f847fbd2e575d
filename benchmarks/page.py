"""The tables of docs/benchmarks.md, made from docs/benchmarks.json: no figure gets there by hand.

    python -m benchmarks.page [--check]

A table stands between two marks, `<!-- NAME -->` and `<!-- /NAME -->`; what is around them is the author's.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from statistics import median

import msgspec

from benchmarks.data import Data, Entry
from benchmarks.servers import HERE, NATS, NODE, RING
from ring.bench.ledger import FAULTS
from ring.bench.mailbox import FIGURES
from ring.bench.meter import NODES, REDIS
from ring.bench.results import Run, Spread

PAGE = HERE.parent / "docs" / "benchmarks.md"
JSON = HERE.parent / "docs" / "benchmarks.json"

NOTHING = "Nothing has been measured yet: `make bench`."

MAILBOX_TIMES = {
    "stored_receipt": "from when a message was sent until it was stored",
    "welcome": "from when a user began to connect until the welcome",
    "served": "the same, until it had its messages",
    "live_before": "receipts of others, before",
    "live_in_the_storm": "receipts of others, meanwhile",
}

_SHOWN_FAULTS = ("lost", "doubled", "misrouted", "reordered")

Figure = Callable[[Run], float | None]
Series = dict[str, list[Entry]]
"""Entries by what a row of a table is called."""


def load() -> Data | None:
    """What was measured last; None if nothing was."""
    try:
        return msgspec.json.decode(JSON.read_bytes(), type=Data)
    except FileNotFoundError:
        return None


def render(text: str, data: Data | None) -> str:
    """The page, with the tables of `data` between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    for name, table in tables(data).items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise ValueError(f"the page must have {start} and {end} once each")
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n\n{table}\n\n{end}{after}"
    return text


def tables(data: Data | None) -> dict[str, str]:
    """Every table, by its mark."""
    if data is None:
        names = ("machine", "direct", "ratios", "open", "rooms", "idle", "mailbox", "echo")
        return dict.fromkeys(names, NOTHING)
    return {
        "machine": _machine(data),
        "direct": _direct(data),
        "ratios": _ratios(data),
        "open": _open(data),
        "rooms": _rooms(data),
        "idle": _idle(data),
        "mailbox": _mailbox(data),
        "echo": _echo(data),
    }


def _machine(data: Data) -> str:
    about = data.machine
    versions = about["versions"]
    assert isinstance(versions, dict)
    lines = [
        _sentence(about),
        "",
        "Releases: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    if data.left_out:
        told = "; ".join(f"{name} ({why})" for name, why in data.left_out.items())
        lines += ["", f"Left out: {told}."]
    return "\n".join(lines)


def _sentence(about: dict[str, object]) -> str:
    return (
        f"{about['date']}, commit {about['commit']}; {about['cpu']}, {about['cores']} cores, "
        f"{about['memory_gib']} GiB, {about['system']}."
    )


def _of(data: Data, load: str) -> Series:
    """The entries of a load, by server and variant, in the order in which they came first."""
    found: Series = {}
    for entry in sorted(
        (entry for entry in data.entries if entry.load == load), key=lambda entry: _rank(data, entry)
    ):
        found.setdefault(_name(entry), []).append(entry)
    return found


def _rank(data: Data, entry: Entry) -> int:
    names = list(dict.fromkeys(_name(each) for each in data.entries))
    return names.index(_name(entry))


def _name(entry: Entry) -> str:
    return f"{entry.server}, {entry.variant}" if entry.variant else entry.server


def _runs(entries: Iterable[Entry]) -> list[Run]:
    return [entry.run for entry in entries if entry.run is not None]


def cell(values: Iterable[float | None]) -> str:
    """A median and its range."""
    listed = list(values)
    spread = Spread.of(listed)
    if spread is None:
        return "unknown" if listed else "-"
    return f"{_short(spread.median)} ({_short(spread.low)}-{_short(spread.high)})"


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def faults(entries: Iterable[Entry]) -> str:
    """What went wrong in all of these together: lost/doubled/misrouted/reordered, and what else did."""
    runs = _runs(entries)
    text = "/".join(str(sum(run.counts[name] for run in runs)) for name in _SHOWN_FAULTS)
    others: dict[str, int] = {}
    for run in runs:
        for name in FAULTS:
            if name not in _SHOWN_FAULTS and run.counts[name]:
                others[name] = others.get(name, 0) + run.counts[name]
        for code, count in run.errors.items():
            others[code] = others.get(code, 0) + count
    return ", ".join([text, *(f"{name}: {count}" for name, count in others.items())])


def _at(entries: Iterable[Entry], nodes: int) -> list[Entry]:
    return [entry for entry in entries if entry.nodes == nodes]


def _cpu(run: Run) -> float | None:
    return run.cpu_total_us


def _latency(timed: str, step: str) -> Figure:
    def figure(run: Run) -> float | None:
        return getattr(run.latency_ms[timed], step) if timed in run.latency_ms else None

    return figure


def _by_size(series: Series, figure: Figure) -> str:
    sizes = sorted({entry.nodes for entries in series.values() for entry in entries})
    rows = []
    for name, entries in series.items():
        cells = [cell(map(figure, _runs(_at(entries, nodes)))) for nodes in sizes]
        rows.append([name, *cells, faults(entries)])
    return _table(["", *(f"{nodes} nodes" for nodes in sizes), "lost/doubled/misrouted/reordered"], rows)


def _direct(data: Data) -> str:
    series = _of(data, "direct")
    busiest = max(run.generator_share for entries in series.values() for run in _runs(entries))
    return "\n".join(
        [
            data.work["direct"] + ".",
            "",
            "CPU of all servers, Redis included, in microseconds per delivered message:",
            "",
            _by_size(series, _cpu),
            "",
            "Messages per second, of servers and load on the same cores:",
            "",
            _by_size(series, lambda run: run.per_s),
            "",
            f"The load used at most {busiest:.0%} of a core.",
        ]
    )


def _ratios(data: Data) -> str:
    """Ring's medians in relation to others'."""
    series = _of(data, "direct")
    sizes = sorted({entry.nodes for entries in series.values() for entry in entries})

    def middle(name: str, nodes: int) -> float | None:
        known = [cpu for run in _runs(_at(series.get(name, []), nodes)) if (cpu := _cpu(run)) is not None]
        return median(known) if known else None

    rows = []
    others = [server.name for server in (NATS, NODE) if server.name in series]
    for variant in RING.variants:
        name = f"{RING.name}, {variant.name}"
        rows += [
            [f"{name} : {other}", *(_ratio(middle(name, n), middle(other, n)) for n in sizes)]
            for other in others
        ]
    for where in ("on owners", "at random"):
        once, with_receipts = f"{RING.name}, {where}, at most once", f"{RING.name}, {where}, receipts"
        cells = [_ratio(middle(with_receipts, n), middle(once, n)) for n in sizes]
        rows.append([f"{with_receipts} : at most once", *cells])
    table = _table(["medians of CPU per message", *(f"{nodes} nodes" for nodes in sizes)], rows)
    growth = []
    for name in series:
        first, last = middle(name, sizes[0]), middle(name, sizes[-1])
        growth.append([name, _ratio(last, first)])
    grown = f"from {sizes[0]} to {sizes[-1]} nodes, CPU per message grows" if sizes else "growth"
    return f"{table}\n\n{_table([grown, 'times'], growth)}"


def _ratio(one: float | None, other: float | None) -> str:
    return "-" if one is None or not other else f"{one / other:.2f}"


def _figures(series: Series, columns: dict[str, Figure]) -> str:
    rows = [
        [name, *(cell(map(figure, _runs(entries))) for figure in columns.values()), faults(entries)]
        for name, entries in series.items()
    ]
    return _table(["", *columns, "lost/doubled/misrouted/reordered"], rows)


def _open(data: Data) -> str:
    columns = {
        "CPU us/message": _cpu,
        "p50 ms": _latency("one_way", "p50"),
        "p90 ms": _latency("one_way", "p90"),
        "p99 ms": _latency("one_way", "p99"),
        "p99.9 ms": _latency("one_way", "p99_9"),
        "receipt p99 ms": _latency("receipt", "p99"),
    }
    table = _figures(_of(data, "open"), columns).replace("unknown", "-")
    return f"{data.work['open']}.\n\n{table}"


def _rooms(data: Data) -> str:
    columns: dict[str, Figure] = {
        "CPU us/copy": _cpu,
        "of that Redis": lambda run: (run.cpu_us or {}).get("redis", 0.0),
        "copies/s": lambda run: run.per_s,
        "p50 ms": _latency("one_way", "p50"),
        "p99 ms": _latency("one_way", "p99"),
    }
    return f"{data.work['rooms']}.\n\n{_figures(_of(data, 'rooms'), columns)}"


def _idle(data: Data) -> str:
    columns: dict[str, Figure] = {
        "KiB of the node's memory each": lambda run: (run.memory_kib or {}).get("nodes"),
        "CPU us to connect one": _cpu,
        "connected per second": lambda run: run.per_s,
    }
    many = {f"{name}, {data.work['many idle']}": each for name, each in _of(data, "many idle").items()}
    return f"{data.work['idle']}.\n\n{_figures(_of(data, 'idle') | many, columns)}"


def _mailbox(data: Data) -> str:
    """Ring alone: a row for each figure."""
    entries = [entry for entry in data.entries if entry.load == "mailbox"]
    if not entries:
        return NOTHING
    rows = [[label, cell(run.figures.get(name) for run in _runs(entries))] for name, label in FIGURES.items()]
    rows += [
        ["users served per second", cell(run.per_s for run in _runs(entries))],
        *(
            [f"CPU us per user served, {part}", cell((run.cpu_us or {}).get(part) for run in _runs(entries))]
            for part in (NODES, REDIS)
        ),
    ]
    for timed, label in MAILBOX_TIMES.items():
        rows += [
            [f"{label}, {step} ms", cell(map(_latency(timed, step), _runs(entries)))]
            for step in ("p50", "p99", "max")
        ]
    rows.append(["lost/doubled/misrouted/reordered", faults(entries)])
    return f"{data.work['mailbox']}.\n\n{_table(['', 'median (range)'], rows)}"


def _echo(data: Data) -> str:
    rows = []
    closed, at_rate = _of(data, "echo"), _of(data, "echo open")
    for name, entries in closed.items():
        costs = [entry.echo for entry in entries if entry.echo]
        at = [entry.echo for entry in at_rate.get(name, []) if entry.echo]
        rows.append(
            [
                name,
                cell(cost.cpu_us for cost in costs),
                cell(cost.per_s for cost in costs),
                cell(cost.cpu_us for cost in at),
            ]
        )
    head = ["", "CPU us/message, closed loop", "messages/s", "CPU us/message, at a rate"]
    return f"{data.work['echo']}; {data.work['echo open']}.\n\n{_table(head, rows)}"


def main(arguments: Sequence[str]) -> int:
    """Writes the page; or says whether it is what it should be."""
    text = PAGE.read_text("utf-8")
    made = render(text, load())
    if "--check" not in arguments:
        PAGE.write_text(made, "utf-8")
    elif made != text:
        sys.stderr.write(
            "docs/benchmarks.md is not what docs/benchmarks.json says: python -m benchmarks.page\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
