"""`ring bench`: servers and loads to measure with."""

from functools import partial
from typing import Annotated

import typer

bench = typer.Typer(help="Servers and loads to measure with.", no_args_is_help=True)


@bench.callback()
def _bench() -> None:
    # With a callback, typer keeps `echo` a command of its own though it is the only one.
    pass


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
