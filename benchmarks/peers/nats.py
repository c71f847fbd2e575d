"""How clients speak to a NATS server through its WebSocket listener: its own protocol, in binary frames.

A user is the subject `user.<name>`, a room `room.<name>`. Messages are a stream of lines in which frames have
no meaning: several may come in one, or one in several.
"""

import json

from ring.bench.clients import Client, Dialect, Session
from ring.protocol.websocket import BINARY

_LOGIN = {
    "verbose": False,
    "pedantic": False,
    "echo": False,
    "lang": "ring-bench",
    "version": "1",
    "protocol": 1,
}


class NatsDialect(Dialect):
    """See the module."""

    opcode = BINARY
    path = "/"
    subprotocols = ()
    receipts = False

    def query(self, user: str) -> str:
        """See `Dialect`: users say who they are when they log in."""
        return ""

    def session(self, client: Client) -> Session:
        """See `Dialect`."""
        return _NatsSession(client)

    def direct(self, number: int, to: str, text: str) -> bytes:
        """See `Dialect`."""
        return f"PUB user.{to} {len(text)}\r\n{text}\r\n".encode()

    def join(self, room: str) -> bytes:
        """See `Dialect`: what follows is answered when this is done."""
        return f"SUB room.{room} 2\r\nPING\r\n".encode()

    def publish(self, number: int, room: str, text: str) -> bytes:
        """See `Dialect`."""
        return f"PUB room.{room} {len(text)}\r\n{text}\r\n".encode()


class _NatsSession(Session):
    __slots__ = ("_client", "_rest", "_welcomed")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._rest = b""
        self._welcomed = False

    def opened(self) -> None:
        """See `Session`."""
        self._client.send(
            f"CONNECT {json.dumps(_LOGIN)}\r\nSUB user.{self._client.user} 1\r\nPING\r\n".encode()
        )

    def read(self, payload: bytes) -> None:
        """See `Session`."""
        data = self._rest + payload if self._rest else payload
        position = 0
        while (end := data.find(b"\r\n", position)) >= 0:
            line = data[position:end]
            position_after = end + 2
            if line.startswith(b"MSG "):
                size = int(line[line.rindex(b" ") + 1 :])
                if len(data) < position_after + size + 2:
                    break  # the rest comes in another frame
                self._client.ear.on_text(self._client, data[position_after : position_after + size].decode())
                position_after += size + 2
            else:
                self._control(line)
            position = position_after
        self._rest = data[position:]

    def _control(self, line: bytes) -> None:
        client = self._client
        if line.startswith(b"PING"):
            client.send(b"PONG\r\n")
        elif line.startswith(b"PONG"):
            if self._welcomed:
                client.ear.on_ok(client)
            else:
                self._welcomed = True
                client.ear.on_welcome(client)
        elif line.startswith(b"-ERR"):
            client.ear.on_error(client, line[5:].decode(errors="replace").strip("'"))
