"""An echo server to compare with: picows (Cython) on uvloop. Needs both; see ring/bench/echo_load.py."""

import json
import os
import sys

import picows
import uvloop


class Echo(picows.WSListener):
    """Answers every message with the same."""

    def on_ws_frame(self, transport, frame):
        """Answers."""
        if frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())


async def main():
    """Serves until it is killed."""
    server = await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    ready = {"event": "ready", "part": "echo", "edge": f"{host}:{port}", "pid": os.getpid()}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    await server.serve_forever()


uvloop.run(main())
