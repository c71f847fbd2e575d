"""`ring dev`: a cluster on this machine to try things on."""

import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ring.child import Event

MAX_NODES = 64


def dev(
    nodes: Annotated[int, typer.Option(min=1, max=MAX_NODES, help="How many nodes.")] = 3,
    edge_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where clients connect to the first node; 0: free ports.")
    ] = 8001,
    peer_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where other nodes connect to the first one; 0: free ports.")
    ] = 9001,
    api_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where the first node's HTTP API is; 0: free ports.")
    ] = 7001,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where clients connect to HAProxy; 0: a free port.")
    ] = 8000,
    stats_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where HAProxy's statistics are; 0: a free port.")
    ] = 8404,
    haproxy: Annotated[bool, typer.Option(help="Whether to have HAProxy in front.")] = True,
) -> None:
    """Runs a cluster on this machine, with a Redis of its own and HAProxy in front, until Ctrl-C.

    A port that is taken is replaced by a free one. Where standard output is no terminal, it carries a JSON
    line per event: `ready` for each part, `cluster-ready`, `exited`, `stopped`.
    """
    import trio

    from ring.dev.cluster import Ports, run
    from ring.logs import logging

    ports = Ports(edge_port, peer_port, api_port, port if haproxy else None, stats_port)
    report = partial(_tell, {}) if sys.stdout.isatty() else _print_json
    with logging("warning", "console", "dev"):
        trio.run(run, nodes, ports, report)


def _print_json(event: "Event") -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
    sys.stdout.flush()


def _tell(pids: dict[str, int], event: "Event") -> None:
    """Says an event to a person; remembers in `pids` what the last of them needs."""
    match event["event"], event.get("part"):
        case "ready", "node":
            pids[event["name"]] = event["pid"]
            where = f"clients at {event['edge']}, API at {event['api']}"
            typer.echo(f"{event['name']} is ready: {where}, pid {event['pid']}")
        case "ready", part:
            typer.echo(f"{part} is ready at {event['url']}")
        case "missing", part:
            typer.echo(f"{part} is not in front: {event['why']}")
        case "exited", _:
            code = event["code"]
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            typer.echo(f"{event['name']} {how}; the others go on")
        case "cluster-ready", _:
            typer.echo(_welcome(pids, event))
        case "stopped", _:
            typer.echo("stopped: nothing is left running")


def _welcome(pids: dict[str, int], event: "Event") -> str:
    ring = _ring()
    name, pid = max(pids.items())
    return f"""
The cluster is up. In other terminals, try:

  {ring} chat --user alice --to bob          talk ...
  {ring} chat --user bob --to alice          ... from another node, as likely as not
  {ring} send --user carol bob 'hello'       one message, and what became of it
  {ring} chat --user carol --room lobby      talk to all who are in the room
  {ring} status                              the nodes and their shares
  {ring} balance                             how evenly they share the users
  {ring} owner bob                           where bob belongs, and where bob is

  kill -9 {pid}    kills {name}: its users move to other nodes within seconds
  kill {pid}       lets it drain instead: nobody notices
  {ring} serve {shlex.join(event["add"])}
                   adds a node

Any WebSocket client can connect: {event["url"]}?user=dave
{_balanced(event)}Ctrl-C stops everything.
"""


def _balanced(event: "Event") -> str:
    """What HAProxy adds."""
    if event["url"] == f"ws://{event['edge'][0]}/v1/connect":
        return ""
    return "HAProxy is in front: every client lands on the node that owns its user (see `off-owner`).\n"


def _ring() -> str:
    """How this very command was called, as it can be typed again."""
    called = Path(sys.argv[0])
    if called.name != "ring":
        return f"{sys.executable} -m ring"
    return "ring" if shutil.which("ring") == str(called) else str(called)
