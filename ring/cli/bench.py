"""`ring bench`: loads for a cluster, and a bare echo server to measure with."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial, wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ring.cli.reach import ApiOption, ClusterOption, JsonOption, KeyOption, RedisOption

if TYPE_CHECKING:
    from ring.bench.results import Run
    from ring.bench.stage import Stage
    from ring.cli.bench_target import Where

bench = typer.Typer(
    help="Loads for a cluster: what it does, how fast, and at what cost.", no_args_is_help=True
)

DEFAULT_RATE = 500.0
"""Messages per second of an open loop, where nothing else is said."""

DEFAULT_DURATION_S = 10.0
"""How long an open loop runs, where neither its messages nor its duration are given."""

MAX_LOCAL = 64


class Mode(StrEnum):
    """When the next message is sent."""

    CLOSED = "closed"
    OPEN = "open"


class Placed(StrEnum):
    """Where users connect."""

    OWNER = "owner"
    RANDOM = "random"


EdgeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--edge", metavar="ADDRESS", help="Connect here: host:port, ws://… or wss://…; may be given again."
    ),
]
LocalOption = Annotated[
    int | None,
    typer.Option(
        "--local", min=1, max=MAX_LOCAL, metavar="N", help="Start N nodes on this machine for each run."
    ),
]
PlacementOption = Annotated[
    Placed | None,
    typer.Option(
        help="Users connect to their owner, or to any node in turn; owner, if the API tells who that is."
    ),
]
RunsOption = Annotated[int, typer.Option(min=1, max=100, help="How often; every run is reported.")]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the latencies there.")
]
ModeOption = Annotated[
    Mode, typer.Option(help="closed: the next when the last has come; open: at --rate, whatever comes.")
]
RateOption = Annotated[
    float | None, typer.Option(min=0.01, help=f"Per second, of an open loop; {DEFAULT_RATE:.0f} if left out.")
]
InFlightOption = Annotated[
    int, typer.Option(min=1, max=100_000, help="Under way at once per sender, in a closed loop.")
]
BytesOption = Annotated[int, typer.Option("--bytes", min=24, max=16 * 2**20, help="Bytes of each text.")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="How many are on their way at once.")]
DurationOption = Annotated[
    float | None, typer.Option("--duration-s", min=0.1, help="For so long, in place of a number.")
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say that all loads have."""

    where: "Where"
    placement: Placed | None
    runs: int
    as_json: bool
    plot: Path | None


def _asked(
    edge: EdgeOption = None,
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
    local: LocalOption = None,
    placement: PlacementOption = None,
    runs: RunsOption = 3,
    as_json: JsonOption = False,
    plot: PlotOption = None,
) -> Asked:
    from ring.cli.bench_target import Where

    where = Where(edge or [], api, api_key_file, redis, cluster, local)
    return Asked(where, placement, runs, as_json, plot)


def _load(command: Callable[..., None]) -> None:
    """Makes a command of a load: its own options, and those of all, which it gets as `asked`."""
    shared = signature(_asked).parameters
    _, *own = signature(command).parameters.values()

    @wraps(command)
    def run(**options: Any) -> None:
        asked = _asked(**{name: options.pop(name) for name in shared})
        command(asked, **options)

    # typer reads a command's options off its signature.
    run.__signature__ = Signature([*shared.values(), *own])  # type: ignore[attr-defined] # as inspect documents
    bench.command()(run)


@_load
def direct(
    asked: Asked,
    mode: ModeOption = Mode.CLOSED,
    rate: RateOption = None,
    clients: Annotated[int, typer.Option(min=2, help="Users that are connected.")] = 400,
    senders: Annotated[int | None, typer.Option(min=1, help="How many of them send; 64 of 400.")] = None,
    in_flight: InFlightOption = 4,
    size: BytesOption = 100,
    messages: Annotated[
        int | None, typer.Option(min=1, help="How many; 20000 if no --duration-s is given.")
    ] = None,
    duration_s: DurationOption = None,
    receipts: Annotated[
        bool, typer.Option(help="Every message acknowledged and receipted; or at most once.")
    ] = True,
) -> None:
    """Direct messages between users. Exits 1 if any is lost, doubled, misrouted or reordered, or refused."""
    from ring.bench.direct import DirectPlan, run_direct

    rate = _rate(mode, rate)
    if messages is None and duration_s is None:
        messages, duration_s = (20_000, None) if rate is None else (None, DEFAULT_DURATION_S)
    senders = min(64, clients) if senders is None else senders
    if senders > clients:
        raise typer.BadParameter(f"{senders} senders of {clients} clients: give more --clients")
    plan = DirectPlan(
        clients=clients,
        senders=senders,
        in_flight=in_flight,
        rate=rate,
        size=size,
        messages=messages,
        duration_s=duration_s,
    )
    loop = f"{senders} senders x {in_flight} in flight" if rate is None else f"{rate:g} messages/s"
    how = "receipts" if receipts else "at most once"
    _measure(
        "direct",
        f"direct messages, {how}: {clients} clients, {loop}, {size} bytes",
        "message",
        plan,
        lambda stage: run_direct(stage, plan),
        asked,
        receipts=receipts,
    )


@_load
def rooms(
    asked: Asked,
    mode: ModeOption = Mode.CLOSED,
    rate: RateOption = None,
    members: Annotated[int, typer.Option(min=1, help="Of the room.")] = 200,
    publishers: Annotated[int, typer.Option(min=1, help="They take turns, and are no members.")] = 1,
    in_flight: InFlightOption = 4,
    size: BytesOption = 100,
    publishes: Annotated[
        int | None, typer.Option(min=1, help="How many; 500 if no --duration-s is given.")
    ] = None,
    duration_s: DurationOption = None,
) -> None:
    """Messages to a room. Exits 1 if a copy is lost or doubled, or members see another order."""
    from ring.bench.rooms import RoomPlan, run_rooms

    rate = _rate(mode, rate)
    if publishes is None and duration_s is None:
        publishes, duration_s = (500, None) if rate is None else (None, DEFAULT_DURATION_S)
    plan = RoomPlan(
        members=members,
        publishers=publishers,
        in_flight=in_flight,
        rate=rate,
        size=size,
        publishes=publishes,
        duration_s=duration_s,
    )
    loop = f"{in_flight} in flight" if rate is None else f"{rate:g} publishes/s"
    _measure(
        "rooms",
        f"a room: {members} members, {publishers} publishing, {loop}, {size} bytes",
        "copy",
        plan,
        lambda stage: run_rooms(stage, plan),
        asked,
    )


@_load
def storm(
    asked: Asked,
    connections: Annotated[int, typer.Option(min=1, help="How many clients connect.")] = 2000,
    concurrency: ConcurrencyOption = 64,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Per second, at most.")] = None,
) -> None:
    """Clients that connect as fast as they may. Exits 1 if any is refused."""
    from ring.bench.storm import StormPlan, run_storm

    plan = StormPlan(connections=connections, concurrency=concurrency, rate=rate)
    pace = f"{concurrency} at once" + ("" if rate is None else f", {rate:g}/s")
    _measure(
        "storm",
        f"{connections} clients connect, {pace}",
        "connection",
        plan,
        lambda stage: run_storm(stage, plan),
        asked,
    )


@_load
def idle(
    asked: Asked,
    connections: Annotated[int, typer.Option(min=1, help="How many are held.")] = 2000,
    hold_s: Annotated[float, typer.Option("--hold-s", min=0.1, help="For how long.")] = 10.0,
) -> None:
    """Clients that do nothing: the memory and CPU that each costs. Exits 1 if any is refused or cut."""
    from ring.bench.storm import IdlePlan, run_idle

    plan = IdlePlan(connections=connections, hold_s=hold_s)
    _measure(
        "idle",
        f"{connections} idle connections, held for {hold_s:g} s",
        "connection",
        plan,
        lambda stage: run_idle(stage, plan),
        asked,
    )


@_load
def mailbox(
    asked: Asked,
    mailboxes: Annotated[
        int, typer.Option(min=1, help="Users who are not there, and get messages.")
    ] = 100_000,
    messages: Annotated[int, typer.Option(min=1, help="Stored for each.")] = 1,
    size: BytesOption = 200,
    senders: Annotated[int, typer.Option(min=1, help="Who fill them.")] = 64,
    in_flight: InFlightOption = 16,
    connections: Annotated[int, typer.Option(min=1, help="How many of these users then connect.")] = 5000,
    concurrency: ConcurrencyOption = 256,
    live: Annotated[
        float, typer.Option(min=0, help="Messages per second of others meanwhile; 0 for none.")
    ] = 50.0,
    empty: Annotated[
        bool | None,
        typer.Option(
            "--empty/--leave", help="At the end all connect, so that nothing stays; so if not --local."
        ),
    ] = None,
) -> None:
    """Messages for users who connect later. Exits 1 if any is lost, doubled, reordered, or not stored."""
    from ring.bench.mailbox import MailboxPlan, run_mailbox

    plan = MailboxPlan(
        mailboxes=mailboxes,
        messages=messages,
        size=size,
        senders=senders,
        in_flight=in_flight,
        connections=min(connections, mailboxes),
        concurrency=concurrency,
        live=live,
        empty=asked.where.local is None if empty is None else empty,
    )
    _measure(
        "mailbox",
        f"{mailboxes} mailboxes with {messages} of {size} bytes each; {plan.connections} users come for it",
        "user",
        plan,
        lambda stage: run_mailbox(stage, plan),
        asked,
        receipts=True,
    )


def _rate(mode: Mode, rate: float | None) -> float | None:
    if mode is Mode.OPEN:
        return DEFAULT_RATE if rate is None else rate
    if rate is not None:
        raise typer.BadParameter("--rate is of an open loop: add --mode open")
    return None


def _measure(
    load: str,
    title: str,
    unit: str,
    plan: Any,
    run: Callable[["Stage"], "Run"],
    asked: Asked,
    *,
    receipts: bool = False,
) -> None:
    """Runs a load some times, and says what came of it."""
    from dataclasses import asdict

    import msgspec

    from ring.bench.dialect import RingDialect
    from ring.bench.stage import Stage
    from ring.cli.bench_report import document, print_report, progress, write_plot
    from ring.cli.bench_target import target

    done = []
    name = ""
    with progress(asked.runs) as tell:
        for number in range(1, asked.runs + 1):
            tell(number)("starting", 0.0)
            with target(asked.where) as found:
                placed, place = found.placement(asked.placement)
                name = f"{found.name}, {'users on their owners' if placed == 'owner' else 'users anywhere'}"
                dialect = RingDialect(receipts=receipts)
                stage = Stage(dialect, place, found.meter, tell(number), found.redis, found.cluster)
                done.append(run(stage))
    if asked.plot is not None:
        write_plot(asked.plot, title, done)
    if asked.as_json:
        planned = asdict(plan) | ({"receipts": receipts} if load == "direct" else {})
        typer.echo(msgspec.json.encode(document(load, name, planned, done)))
    else:
        print_report(f"{title}\n{name}", unit, done)
    if any(each.faults for each in done):
        raise typer.Exit(1)


@bench.command()
def echo(
    listen: Annotated[str, typer.Option(help="Where; port 0 takes a free one.")] = "127.0.0.1:8100",
    message_bytes: Annotated[int, typer.Option(min=1, help="The longest message that is taken.")] = 64
    * 2**20,
) -> None:
    """A bare WebSocket echo server on the pump and codec of a node, until it is told to stop."""
    import trio

    from ring.logs import logging

    with logging("warning", "console", "echo"):
        trio.run(_until_told, listen, message_bytes)


async def _until_told(listen: str, message_bytes: int) -> None:
    import signal

    import trio

    from ring.bench.echo import serve_echo

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_echo, listen, max_message=message_bytes))
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()
