"""`ring haproxy`: HAProxy's configuration, the agent that keeps it equal to the ring, and what differs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ring.cli.reach import ClusterOption, KeyOption, RedisOption

if TYPE_CHECKING:
    from ring.haproxy.agent import Agent
    from ring.haproxy.source import Source

haproxy = typer.Typer(
    help="HAProxy in front of the cluster: its configuration, and the agent that keeps it equal to the ring.",
    no_args_is_help=True,
)

ApiOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--api",
        envvar="RING_API",
        metavar="URL",
        help="The HTTP API of a node; may be given several times. They name the others.",
    ),
]
RuntimeOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="ADDRESS",
        help="HAProxy's stats socket: a path, or host:port; may be given several times.",
    ),
]
RUNTIME = "/run/ring-haproxy/admin.sock"


@haproxy.command()
def render(
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where clients connect, plain; if empty, with TLS alone.")
    ] = "*:8000",
    tls_listen: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where clients connect with TLS.")
    ] = None,
    certificate: Annotated[
        str | None, typer.Option(metavar="FILE", help="PEM: the certificates and their key.")
    ] = None,
    operations: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where statistics and Prometheus' metrics are.")
    ] = "127.0.0.1:8404",
    directory: Annotated[
        str, typer.Option(metavar="PATH", help="Of the stats socket, the map and the servers' state.")
    ] = "/run/ring-haproxy",
    places: Annotated[int, typer.Option(help="For so many nodes.")] = 16,
    max_clients: Annotated[int, typer.Option(min=1, help="At one time.")] = 50_000,
    address_connections: Annotated[
        int, typer.Option(min=1, help="At one time, of one source address.")
    ] = 1000,
    address_rate: Annotated[
        int, typer.Option(min=1, help="New connections of one source address in 10 s.")
    ] = 1000,
    run_as: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="User and group that it becomes, if root starts it; the agent's, too."
        ),
    ] = None,
    route_by: Annotated[
        Literal["user", "token"],
        typer.Option(help="What tells the user: the query's `user`, or the `sub` of a token."),
    ] = "user",
) -> None:
    """Writes HAProxy's configuration to standard output."""
    from ring.haproxy import config

    options = config.Options(
        listen=listen or None,
        tls_listen=tls_listen,
        certificate=certificate,
        operations=operations,
        directory=directory,
        places=places,
        max_clients=max_clients,
        address_connections=address_connections,
        address_rate=address_rate,
        run_as=run_as,
        route_by=route_by,
    )
    sys.stdout.write(config.render(options))


@haproxy.command()
def sync(
    runtime: RuntimeOptions = None,
    api: ApiOptions = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
    directory: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="HAProxy's, if it is on this machine: a reload finds the ring in there."
        ),
    ] = None,
) -> None:
    """Keeps HAProxy equal to the ring until it is stopped. It keeps no state of its own."""
    import trio

    from ring.haproxy.agent import Agent
    from ring.haproxy.runtime import Runtime
    from ring.haproxy.sync import sync
    from ring.logs import logging

    addresses = runtime or [RUNTIME]
    agents = [Agent(Runtime(address), directory) for address in addresses]
    source = _source(api, api_key_file, redis, cluster)
    with logging("info", "console" if sys.stderr.isatty() else "json", "haproxy"):
        trio.run(sync, source, agents)


@haproxy.command()
def check(
    runtime: RuntimeOptions = None,
    api: ApiOptions = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
) -> int:
    """Says where HAProxy differs from the ring; exit code 1 if it does."""
    import trio

    from ring.haproxy.agent import Agent
    from ring.haproxy.runtime import Runtime

    source = _source(api, api_key_file, redis, cluster)
    found = False
    for address in runtime or [RUNTIME]:
        differences = trio.run(_differences, source, Agent(Runtime(address)))
        for words in differences:
            typer.echo(f"{address}: {words}")
        found = found or bool(differences)
    if not found:
        typer.echo("HAProxy agrees with the ring")
    return int(found)


async def _differences(source: "Source", agent: "Agent") -> list[str]:
    import trio

    from ring.haproxy.wanted import wanted
    from ring.logs import logging

    with logging("error", "console", "haproxy"):
        async with trio.open_nursery() as nursery:
            await nursery.start(source.run)
            found = await agent.differences(wanted(await source.read()))
            nursery.cancel_scope.cancel()
    return found


def _source(api: list[str] | None, api_key_file: Path | None, redis: str | None, cluster: str) -> "Source":
    """Where the options say, or else the note of a running `ring dev`."""
    from ring.cli.reach import api_url, find
    from ring.haproxy.source import Nodes, Store

    reach = find(api[0] if api else None, api_key_file, redis, cluster)
    urls = [api_url(url) for url in api or reach.api]
    if urls:
        return Nodes(urls, reach.key)
    assert reach.redis is not None  # or there is nothing to reach
    return Store(reach.redis, reach.cluster)
