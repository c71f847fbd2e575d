"""`ring status` and `ring owner`: what a cluster is doing, and where a user is."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ring.cli.reach import ApiOption, ClusterOption, JsonOption, KeyOption, Reach, RedisOption, find

if TYPE_CHECKING:
    from ring.cli.survey import Survey

PLAIN_WIDTH = 200
"""Columns where standard output is no terminal: enough for every address."""

DIFFERENCE = 1
"""The exit code of a command that found something wrong."""


def status(
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
    as_json: JsonOption = False,
) -> None:
    """Shows the nodes of a cluster. Exits 1 if something about them is wrong."""
    import trio

    from ring.cli.survey import survey

    found = trio.run(survey, find(api, api_key_file, redis, cluster))
    if as_json:
        _print_json(found)
    else:
        _print_status(found)
    if found.warnings:
        raise typer.Exit(DIFFERENCE)


def _print_json(value: object) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(value))


def _print_status(found: "Survey") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("node", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("weight", "slots", "share", "sessions", "links", "lease"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("edge", no_wrap=True)
    for node in found.nodes:
        links = None if node.links_up is None else f"{node.links_up}/{len(found.nodes) - 1}"
        age = None if node.lease_age_s is None else f"{node.lease_age_s:.1f} s"
        cells = (node.weight, node.slots, f"{node.share:.1%}", node.sessions, links, age)
        table.add_row(
            node.name, node.state, *("?" if cell is None else str(cell) for cell in cells), node.edge
        )
    asked = "its nodes" if found.source == "nodes" else "Redis alone"
    nodes = "1 node" if len(found.nodes) == 1 else f"{len(found.nodes)} nodes"
    typer.echo(f"cluster {found.cluster}, epoch {found.epoch}, {nodes}, as told by {asked}\n")
    console.print(table)
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)


def owner(
    user: Annotated[str, typer.Argument(help="The user.", show_default=False)],
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
    as_json: JsonOption = False,
) -> None:
    """Shows which node owns a user, and where the user is connected."""
    import trio

    from ring.protocol.names import check_name

    check_name(user, "user")
    found = trio.run(_whereabouts, find(api, api_key_file, redis, cluster), user)
    if as_json:
        _print_json(found)
    else:
        _print_owner(found)


async def _whereabouts(reach: Reach, user: str) -> dict[str, Any]:
    """As GET /v1/users answers it; from Redis alone the sessions are None."""
    import trio

    from ring.cli.reach import Unreachable, client, get_from_any, read_redis
    from ring.protocol.names import slot_of

    if reach.api:
        try:
            async with client(reach) as http:
                found: dict[str, Any] = await get_from_any(http, reach, "/v1/users", user=user)
                return found
        except Unreachable:
            if reach.redis is None:
                raise
    view = (await read_redis(reach)).view
    slot = slot_of(user)
    return {
        "user": user,
        "slot": slot,
        "owner": view.owner_of_slot(slot) or None,
        "successor": await trio.to_thread.run_sync(view.successor_of_slot, slot) or None,
        "epoch": view.epoch,
        "sessions": None,
    }


def _print_owner(found: dict[str, Any]) -> None:
    typer.echo(f"user       {found['user']}")
    typer.echo(f"slot       {found['slot']}")
    typer.echo(f"owner      {found['owner'] or 'nobody: no node may own'}")
    typer.echo(f"successor  {found['successor'] or 'nobody: there is no other node'}")
    typer.echo(f"epoch      {found['epoch']}")
    if found["sessions"] is None:
        typer.echo("sessions   unknown: no node answered, this is what Redis says")
        return
    if not found["sessions"]:
        typer.echo("sessions   none: the user is offline")
    for session in found["sessions"]:
        hops = "on the owner" if session["gateway"] == found["owner"] else "one hop from the owner"
        typer.echo(
            f"session    {session['session']}: device {session['device']} at {session['address']}, "
            f"on {session['gateway']} ({hops}), {session['unacknowledged']} unacknowledged"
        )
