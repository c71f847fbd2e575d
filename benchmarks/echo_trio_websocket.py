"""An echo server to compare with: trio-websocket, a task per connection. See ring/bench/echo_load.py."""

import json
import os
import sys

import trio
from trio_websocket import ConnectionClosed, serve_websocket


async def echo(request):
    """Answers every message with the same."""
    connection = await request.accept()
    try:
        while True:
            await connection.send_message(await connection.get_message())
    except ConnectionClosed:
        pass


async def main():
    """Serves until it is killed."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, echo, "127.0.0.1", 0, None)
        ready = {"event": "ready", "part": "echo", "edge": f"127.0.0.1:{server.port}", "pid": os.getpid()}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()


trio.run(main)
