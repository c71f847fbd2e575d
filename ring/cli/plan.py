"""`ring plan`: what would move if nodes came, went or got other weights. It changes nothing."""

from typing import TYPE_CHECKING, Annotated

import typer

from ring.cli.inspect import print_json
from ring.cli.reach import ApiOption, ClusterOption, JsonOption, KeyOption, RedisOption, find

if TYPE_CHECKING:
    from ring.cli.change import NodePlan, Plan
    from ring.cli.sheet import Column
    from ring.cli.standing import StandingRing

MOST_MOVES = 20
"""So many pairs of nodes are listed; `--json` lists all. Of n nodes there may be n times n - 1."""


def plan(
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="NAME[=WEIGHT]", help="A node that comes, of weight 1 if not said."),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="NAME", help="A node that goes.")
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option("--weight", metavar="NAME=WEIGHT", help="Another weight for a node.")
    ] = None,
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
    as_json: JsonOption = False,
) -> None:
    """Shows what a change of the ring would move, and changes nothing.

    All that is given is one change; the options may be repeated.
    """
    import msgspec
    import trio

    from ring.cli import change
    from ring.cli.standing import standing

    wanted = change.Change.parse(add or [], remove or [], weight or [])
    ring = trio.run(standing, find(api, api_key_file, redis, cluster))
    planned = change.plan(ring.members, ring.owners, wanted, ring.sessions)
    if as_json:
        about = {"cluster": ring.cluster, "epoch": ring.epoch, "source": ring.source}
        print_json({**about, **msgspec.to_builtins(planned), "warnings": ring.warnings})
    else:
        _print(ring, planned)


def _print(ring: "StandingRing", planned: "Plan") -> None:
    from rich.text import Text

    from ring.cli.picture import warning_line
    from ring.cli.printable import printable
    from ring.cli.sheet import console, fit, sheet

    terminal = console()

    def say(line: str) -> None:
        terminal.print(Text(printable(line)), soft_wrap=True)

    def show(columns: "list[Column]") -> None:
        terminal.print()
        terminal.print(sheet(fit(columns, terminal.width), terminal))

    asked = "its nodes" if ring.source == "nodes" else "Redis alone"
    say(f"cluster {ring.cluster}, epoch {ring.epoch}, as told by {asked}")
    terminal.print()
    say(_slots(planned))
    say(_sessions(planned))
    if planned.moves:
        show(_moves(planned))
        if (rest := planned.moves[MOST_MOVES:]) and (slots := sum(move.slots for move in rest)):
            say(f"and {slots} slots between {len(rest)} further pairs of nodes: --json lists them")
    show(_nodes(planned.nodes))
    for warning in ring.warnings:
        terminal.print(warning_line(warning), soft_wrap=True)


def _slots(planned: "Plan") -> str:
    if not planned.slots:
        return "slots     none would move"
    return (
        f"slots     {planned.slots} would move, {planned.share:.1%} of all; the least possible for these "
        f"shares is {planned.least_slots}, {planned.least_share:.1%}"
    )


def _sessions(planned: "Plan") -> str:
    if planned.sessions is None:
        return "sessions  unknown: no node was asked"
    return f"sessions  {planned.sessions} of {planned.sessions_known} would get another owner"


def _moves(planned: "Plan") -> "list[Column]":
    from ring.cli.sheet import Column, per_cent
    from ring.protocol.names import SLOTS

    moves = planned.moves[:MOST_MOVES]
    return [
        Column("from", [move.source or "(nobody)" for move in moves], right=False),
        Column("to", [move.to for move in moves], right=False),
        Column("slots", [move.slots for move in moves]),
        Column("share", [per_cent(move.slots / SLOTS) for move in moves], rank=2),
        Column("sessions", [move.sessions for move in moves], rank=1),
    ]


def _nodes(nodes: "list[NodePlan]") -> "list[Column]":
    from ring.cli.sheet import Column, per_cent

    return [
        Column("node", [node.name for node in nodes], right=False),
        Column("weight", [_weight(node) for node in nodes], rank=3),
        Column("before", [per_cent(node.share_before) for node in nodes]),
        Column("after", [per_cent(node.share_after) for node in nodes]),
        Column("fair", [per_cent(node.fair_share_after) for node in nodes], rank=1),
        Column("slots", [f"{node.slots_after - node.slots_before:+}" for node in nodes], rank=2),
    ]


def _weight(node: "NodePlan") -> str:
    before, after = node.weight_before, node.weight_after
    if before is None:
        return f"new, {after}"
    if after is None:
        return "gone"
    return str(after) if after == before else f"{before} to {after}"
