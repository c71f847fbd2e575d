"""`ring status` and `ring owner`: what a cluster is doing, and where a user is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ring.cli.reach import ApiOption, ClusterOption, JsonOption, KeyOption, Reach, RedisOption, find

if TYPE_CHECKING:
    from ring.cli.survey import Survey

DIFFERENCE = 1
"""The exit code of a command that found something wrong."""


def status(
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
    as_json: JsonOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.", show_default=False)
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, metavar="SECONDS", help="How often, with --watch.")
    ] = 2.0,
) -> None:
    """Shows the nodes of a cluster. Exits 1 if something about them is wrong."""
    import trio

    from ring.cli.survey import survey

    reach = find(api, api_key_file, redis, cluster)
    if watch:
        trio.run(_watch, reach, every, as_json)
    found = trio.run(survey, reach)
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    if found.warnings:
        raise typer.Exit(DIFFERENCE)


def print_json(value: object) -> None:
    """Prints a line of JSON."""
    import msgspec

    typer.echo(msgspec.json.encode(value))


def _print_status(found: "Survey") -> None:
    from ring.cli.picture import Picture
    from ring.cli.sheet import console

    terminal = console()
    Picture(found, terminal).show(terminal)


async def _watch(reach: Reach, every: float, as_json: bool) -> None:
    """Looks until Ctrl-C. Once somebody has answered, it waits for those who do not any more.

    Raises:
        Unreachable: nobody answers, from the first.
        RingError: the API refuses.
    """
    import trio

    from ring.cli.reach import Unreachable
    from ring.cli.survey import survey

    found, trouble = await survey(reach), None
    with _showing(as_json) as show:
        while True:
            show(found, trouble)
            await trio.sleep(every)
            try:
                found, trouble = await survey(reach), None
            except Unreachable as error:
                trouble = str(error)


@contextmanager
def _showing(as_json: bool) -> "Iterator[Callable[[Survey, str | None], None]]":
    """What shows a survey, or the last one with the reason why there is no newer: on a screen of its own if
    there is a terminal, else line below line."""
    from rich.console import Group
    from rich.live import Live

    from ring.cli.picture import Picture
    from ring.cli.sheet import console

    def print_it(found: "Survey", trouble: str | None) -> None:
        if trouble is not None:
            typer.echo(f"ring: {trouble}", err=True)
        elif as_json:
            print_json(found)
        else:
            Picture(found, terminal).show(terminal)
            terminal.print()

    terminal = console()
    if as_json or not terminal.is_terminal:
        yield print_it
        return
    with Live(console=terminal, screen=True, auto_refresh=False) as live:
        yield lambda found, trouble: live.update(
            Group(*Picture(found, terminal).screen(trouble)), refresh=True
        )


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
        print_json(found)
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
                return await get_from_any(http, reach, "/v1/users", user=user)
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
