"""`make bench`: Ring and what is installed of its peers, on the same work from the same load, in turn.

    python -m benchmarks [--quick]

Writes docs/benchmarks.json (every run) and the tables of docs/benchmarks.md; with --quick, a fraction of the
work, and the tables to the screen alone.
"""

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic

import msgspec

from benchmarks import machine, page
from benchmarks.data import Data, EchoCost, Entry
from benchmarks.servers import (
    ECHO,
    PYTHON,
    RING,
    RING_RECEIPTS,
    SERVERS,
    DoesNotStart,
    Server,
    Variant,
    placement,
)
from benchmarks.work import FULL, QUICK, Work
from ring.bench.direct import run_direct
from ring.bench.echo_load import measure
from ring.bench.mailbox import run_mailbox
from ring.bench.results import Run
from ring.bench.rooms import run_rooms
from ring.bench.stage import Stage
from ring.bench.storm import run_idle
from ring.protocol.codes import RingError

Tell = Callable[[str], None]


def play(server: Server, nodes: int, work: Work, repetition: int, tell: Tell) -> list[Entry]:
    """Everything that is measured on a cluster of this size, on one such cluster."""
    entries: list[Entry] = []

    def note(load: str, variant: Variant, run: Run) -> None:
        entry = Entry(
            server=server.name, variant=variant.name, nodes=nodes, load=load, repetition=repetition, run=run
        )
        entries.append(entry)
        tell(_line(entry, run))

    with server.run(nodes) as cluster:

        def stage(variant: Variant) -> Stage:
            gc.collect()
            return Stage(variant.dialect, placement(cluster, variant), cluster.meter)

        if nodes in work.sizes:
            plan = replace(work.direct, warm_up=work.warm_up(nodes))
            for variant in server.variants:
                note("direct", variant, run_direct(stage(variant), plan))
        if nodes == work.open_size:
            for variant in server.variants:
                note("open", variant, run_direct(stage(variant), work.open))
        if nodes == work.room_size:
            variant = replace(server.variants[0], name="")
            note("rooms", variant, run_rooms(stage(variant), work.rooms))
    return entries


def play_idle(server: Server, work: Work, repetition: int, tell: Tell) -> list[Entry]:
    """Idle connections, each time to one new node."""
    entries = []
    loads = {"idle": work.idle} | ({"many idle": work.many_idle} if server is RING else {})
    for load, plan in loads.items():
        with server.run(1) as cluster:
            variant = server.variants[0]
            stage = Stage(variant.dialect, placement(cluster, variant), cluster.meter)
            run = run_idle(stage, plan)
        entry = Entry(server=server.name, variant="", nodes=1, load=load, repetition=repetition, run=run)
        entries.append(entry)
        tell(_line(entry, run))
    return entries


def play_mailbox(work: Work, repetition: int, tell: Tell) -> list[Entry]:
    """Stored messages: on a new cluster, whose Redis has nothing yet."""
    nodes, variant = work.mailbox_size, RING_RECEIPTS
    with RING.run(nodes) as cluster:
        gc.collect()
        place = placement(cluster, variant)
        stage = Stage(variant.dialect, place, cluster.meter, redis=cluster.redis, cluster=cluster.name)
        run = run_mailbox(stage, work.mailbox)
    entry = Entry(server=RING.name, variant="", nodes=nodes, load="mailbox", repetition=repetition, run=run)
    tell(_line(entry, run))
    return [entry]


def play_echo(servers: Sequence[str], work: Work, repetition: int, tell: Tell) -> list[Entry]:
    """The bare echo servers."""
    entries = []
    for load, plan in work.echo_loads().items():
        for name in servers:
            cost = measure(ECHO[name], plan)
            echo = EchoCost(round(cost.cpu_us, 2), round(cost.per_s))
            entries.append(
                Entry(server=name, variant="", nodes=1, load=load, repetition=repetition, echo=echo)
            )
            tell(f"{repetition} {load:9} {name:31} {'':24} {echo.cpu_us:8.2f} us")
    return entries


def _line(entry: Entry, run: Run) -> str:
    cpu = run.cpu_total_us
    faults = ", ".join(f"{what}: {count}" for what, count in run.faults.items())
    return (
        f"{entry.repetition} {entry.load:9} {entry.server:31} {entry.variant:24} {entry.nodes} nodes "
        f"{'?' if cpu is None else f'{cpu:.2f}':>8} us  {run.per_s:>8.0f}/s  "
        f"load {run.generator_share:.0%}  {faults}"
    ).rstrip()


def turned(servers: Sequence[Server], repetition: int) -> list[Server]:
    """In another order each time: what a machine does beside it should not meet the same one always."""
    shift = (repetition - 1) % max(len(servers), 1)
    return [*servers[shift:], *servers[:shift]]


def bench(servers: Sequence[Server], work: Work, tell: Tell) -> Data:
    """Measures all servers that can take part."""
    missing = {server.name: server.missing() for server in servers}
    taking_part = [server for server in servers if not missing[server.name]]
    left_out = {name: why for name, why in missing.items() if why}
    echoes = [name for name in ECHO if name != "picows" or PYTHON.exists()]
    for name, why in left_out.items():
        tell(f"left out: {name}: {why}")
    entries: list[Entry] = []
    sizes = sorted({*work.sizes, work.open_size, work.room_size})
    for repetition in range(1, work.repetitions + 1):
        order = turned(taking_part, repetition)
        for nodes in sizes:
            for server in order:
                entries += play(server, nodes, work, repetition, tell)
        for server in order:
            entries += play_idle(server, work, repetition, tell)
        if RING in order:
            entries += play_mailbox(work, repetition, tell)
        entries += play_echo(echoes, work, repetition, tell)
    return Data(machine=machine.describe(), left_out=left_out, work=work.words(), entries=entries)


def main(arguments: Sequence[str]) -> int:
    """Runs it; returns the exit code: 1 if Ring lost, doubled, misrouted, reordered or refused anything."""
    quick = "--quick" in arguments
    start = monotonic()

    def tell(line: str) -> None:
        sys.stderr.write(f"{monotonic() - start:5.0f} s  {line}\n")

    try:
        data = bench(SERVERS, QUICK if quick else FULL, tell)
    except (RingError, DoesNotStart) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    if quick:
        sys.stdout.write("\n\n".join(page.tables(data).values()) + "\n")
    else:
        page.JSON.write_bytes(msgspec.json.format(msgspec.json.encode(data), indent=1) + b"\n")
        page.PAGE.write_text(page.render(page.PAGE.read_text("utf-8"), data), "utf-8")
    broken = [entry for entry in data.entries if entry.server == RING.name and entry.run and entry.run.faults]
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
