"""A bare echo server on the pump and codec of a node, with nothing else of it: to test and to measure."""

import json
import os
import sys

import trio

from ring.protocol.upgrade import Request
from ring.transport.handshake import Accept
from ring.transport.pump import Pump
from ring.transport.socket import Socket

MAX_MESSAGE = 16 * 1024 * 1024


class Echo:
    """Answers every message with the same: text with text, binary with binary."""

    __slots__ = ("_socket",)

    def on_open(self, socket: Socket) -> None:
        """Keeps the socket, to answer."""
        self._socket = socket

    def on_text(self, payload: bytes) -> None:
        """Answers."""
        self._socket.send_text(payload)

    def on_binary(self, payload: bytes) -> None:
        """Answers."""
        self._socket.send_binary(payload)

    def on_pong(self, payload: bytes) -> None:
        """Not asked for."""

    def on_drained(self) -> None:
        """Nothing waits for it."""

    def on_close(self, code: int, reason: str) -> None:
        """Nothing is kept that would have to go."""


async def serve_echo(listen: str, *, max_message: int = MAX_MESSAGE) -> None:
    """Echoes at `listen` ("host:port") until it is cancelled; says on stdout, in one JSON line, when it does.

    Args:
        listen: the address; port 0 takes a free one.
        max_message: bytes of the longest message; two of them may wait for a client that does not read.

    Raises:
        BadRequest: `listen` is not an address.
        CannotListen: it cannot be listened at.
    """

    def door(request: Request, peername: str) -> Accept:
        return Accept(Echo(), subprotocol=None, max_message=max_message, max_queued=2 * max_message)

    pump = Pump()
    async with trio.open_nursery() as nursery:
        listener = pump.listen(listen, door)
        await nursery.start(pump.run)
        ready = {"event": "ready", "part": "echo", "edge": listener.address, "pid": os.getpid()}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
