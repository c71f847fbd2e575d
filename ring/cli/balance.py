"""`ring balance`: how evenly the slots are spread over the nodes, as a chart."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from ring.cli.inspect import DIFFERENCE, print_json
from ring.cli.reach import ApiOption, ClusterOption, JsonOption, KeyOption, RedisOption, find

if TYPE_CHECKING:
    from ring.cli.chart import Bar
    from ring.cli.survey import NodeReport, Survey

BOUND = 1.05
"""No node should own more than this times its fair share, rounded up to a slot: ring.cluster.placement."""

LEAST_BAR = 10
"""Cells that bars get, if the terminal is as narrow as that."""

PLAIN_BAR = 50
"""Cells that bars get where standard output is no terminal."""

MOST_BAR = 80


class NodeBalance(Struct, kw_only=True):
    """A node's part of the slots; `of_fair` is None where it should have none, `sessions` where it was not
    asked."""

    name: str
    state: str
    weight: int
    slots: int
    share: float
    fair_share: float
    bound_share: float
    of_fair: float | None
    sessions: int | None


class Extreme(Struct):
    """A node, and what it has of its fair share."""

    name: str
    of_fair: float


class Balance(Struct, kw_only=True):
    """What `ring balance --json` prints. The extremes are None if nobody may own."""

    cluster: str
    epoch: int
    source: str
    bound: float
    largest: Extreme | None
    smallest: Extreme | None
    deviation: float
    nodes: list[NodeBalance]
    over: list[str]


def balance(
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write the chart there too, as SVG.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Shows each node's share of the ring beside its fair one. Exits 1 if a node has more than it may."""
    import trio

    from ring.cli.survey import survey

    found = weigh(trio.run(survey, find(api, api_key_file, redis, cluster)))
    if svg is not None:
        _write_svg(svg, found)
    if as_json:
        print_json(found)
    else:
        _print(found)
        if svg is not None:
            typer.echo(f"written: {svg}")
    if found.over:
        raise typer.Exit(DIFFERENCE)


def weigh(found: "Survey") -> Balance:
    """How even it is. Pure."""
    from statistics import pstdev

    nodes = [_weigh(node) for node in found.nodes]
    ranked = sorted(
        (Extreme(node.name, node.of_fair) for node in nodes if node.of_fair is not None),
        key=lambda extreme: extreme.of_fair,
    )
    return Balance(
        cluster=found.cluster,
        epoch=found.epoch,
        source=found.source,
        bound=BOUND,
        largest=ranked[-1] if ranked else None,
        smallest=ranked[0] if ranked else None,
        deviation=round(pstdev(extreme.of_fair for extreme in ranked), 6) if ranked else 0.0,
        nodes=nodes,
        over=[node.name for node in nodes if node.share > node.bound_share],
    )


def _weigh(node: "NodeReport") -> NodeBalance:
    return NodeBalance(
        name=node.name,
        state=node.state,
        weight=node.weight,
        slots=node.slots,
        share=node.share,
        fair_share=node.fair_share,
        bound_share=node.bound_share,
        of_fair=round(node.share / node.fair_share, 4) if node.fair_share else None,
        sessions=node.sessions,
    )


def _title(found: Balance) -> str:
    asked = "its nodes" if found.source == "nodes" else "Redis alone"
    return f"cluster {found.cluster}, epoch {found.epoch}, shares of the ring as told by {asked}"


def _summary(found: Balance) -> str:
    if found.largest is None or found.smallest is None:
        return "no node may own any slot: all of them drain"
    largest, smallest = found.largest, found.smallest
    return (
        f"of its fair share: largest {largest.of_fair:.3f} ({largest.name}), smallest "
        f"{smallest.of_fair:.3f} ({smallest.name}), standard deviation {found.deviation:.3f}, bound {BOUND}"
    )


def _write_svg(path: Path, found: Balance) -> None:
    from ring.cli.chart import svg
    from ring.cli.printable import printable

    bars = [_bar(node) for node in found.nodes]
    path.write_text(svg(printable(_title(found)), printable(_summary(found)), bars), "utf-8")


def _bar(node: NodeBalance) -> "Bar":
    from ring.cli.chart import Bar
    from ring.cli.printable import printable

    of_fair = "" if node.of_fair is None else f", {node.of_fair:.2f} of fair"
    sessions = "" if node.sessions is None else f", {node.sessions} sessions"
    return Bar(
        name=printable(node.name),
        share=node.share,
        fair=node.fair_share,
        bound=node.bound_share,
        figures=f"{node.share:.1%}, {node.slots} slots{of_fair}{sessions}",
    )


def _print(found: Balance) -> None:
    from rich.text import Text

    from ring.cli.chart import pieces, reach_of
    from ring.cli.picture import warning_line
    from ring.cli.printable import printable
    from ring.cli.sheet import GAP, Column, console, fit, per_cent, sheet, width_of

    terminal = console()
    nodes = found.nodes
    columns = [
        Column("node", [node.name for node in nodes], right=False),
        Column("share", [per_cent(node.share) for node in nodes]),
        Column("slots", [node.slots for node in nodes], rank=1),
        Column("of fair", ["-" if node.of_fair is None else f"{node.of_fair:.2f}" for node in nodes], rank=2),
        Column("weight", [node.weight for node in nodes], rank=4),
        Column("sessions", [node.sessions for node in nodes], rank=3),
    ]
    columns = fit(columns, terminal.width - LEAST_BAR - GAP)
    room = terminal.width - width_of(columns) - GAP if terminal.is_terminal else PLAIN_BAR
    width = max(LEAST_BAR, min(MOST_BAR, room))
    bars = [_bar(node) for node in nodes]
    reach = reach_of(bars)
    ascii_only = terminal.options.ascii_only
    colours = {"bar": "blue", "over": "red", "fair": "bold", "bound": "yellow", "": ""}
    drawn = [
        Text.assemble(
            *((piece, colours[kind]) for piece, kind in pieces(bar, reach, width, ascii_only=ascii_only))
        )
        for bar in bars
    ]
    columns.insert(1, Column("", drawn, right=False))
    terminal.print(Text(printable(_title(found))), "", sep="\n", soft_wrap=True)
    terminal.print(sheet(columns, terminal))
    fair, most = ("|", ":") if ascii_only else ("│", "┊")
    terminal.print(Text(f"{fair} fair share   {most} bound, {BOUND} of it"), soft_wrap=True)
    terminal.print(Text(printable(_summary(found))), soft_wrap=True)
    for name in found.over:
        line = f"{name} owns more than its bound: do all nodes run one release? see ring status"
        terminal.print(warning_line(line), soft_wrap=True)
