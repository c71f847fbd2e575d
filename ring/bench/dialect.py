"""How clients of Ring speak (docs/protocol.md), as lean as a load needs it."""

from collections.abc import Callable
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from ring.bench.clients import Client, Dialect, Session
from ring.protocol.client import CONNECT_PATH, SUBPROTOCOL
from ring.protocol.websocket import TEXT


class _Frame(Struct, gc=False):
    """What a load reads of a frame, of whatever type; unknown fields cost nothing."""

    type: str
    id: str | None = None
    seq: str = ""
    data: str = ""
    status: str = ""
    code: str = ""


_decode: Callable[[bytes], _Frame] = msgspec.json.Decoder(_Frame).decode


class RingDialect(Dialect):
    """JSON text frames.

    Args:
        receipts: every message is acknowledged by its recipient (`ack=client`), and answered by a receipt;
            without, messages are at most once.
        subprotocols: what is offered.
    """

    opcode = TEXT
    path = CONNECT_PATH

    def __init__(self, *, receipts: bool = False, subprotocols: tuple[str, ...] = (SUBPROTOCOL,)) -> None:
        self.receipts = receipts
        self.subprotocols = subprotocols

    def query(self, user: str) -> str:
        """See `Dialect`."""
        return urlencode({"user": user, "ack": "client" if self.receipts else "auto"})

    def session(self, client: Client) -> Session:
        """See `Dialect`."""
        return _RingSession(client, acknowledge=self.receipts)

    def direct(self, number: int, to: str, text: str) -> bytes:
        """See `Dialect`."""
        how = f'"id":"{number}"' if self.receipts else '"receipt":false'
        return f'{{"type":"send",{how},"to":"{to}","data":"{text}"}}'.encode()

    def join(self, room: str) -> bytes:
        """See `Dialect`."""
        return f'{{"type":"join","id":"join","room":"{room}"}}'.encode()

    def publish(self, number: int, room: str, text: str) -> bytes:
        """See `Dialect`."""
        return f'{{"type":"publish","id":"{number}","room":"{room}","data":"{text}"}}'.encode()


class _RingSession(Session):
    __slots__ = ("_acknowledge", "_client")

    def __init__(self, client: Client, *, acknowledge: bool) -> None:
        self._client = client
        self._acknowledge = acknowledge

    def opened(self) -> None:
        """See `Session`: the server greets by itself."""

    def read(self, payload: bytes) -> None:
        """See `Session`."""
        client = self._client
        try:
            frame = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            client.ear.on_error(client, "unreadable_frame")
            return
        match frame.type:
            case "message":
                if self._acknowledge:
                    client.send(f'{{"type":"ack","seq":"{frame.seq}"}}'.encode())
                client.ear.on_text(client, frame.data)
            case "room":
                client.ear.on_text(client, frame.data)
            case "receipt":
                self._receipt(frame)
            case "ok":
                client.ear.on_ok(client)
            case "error":
                self._error(frame)
            case "welcome":
                client.ear.on_welcome(client)

    def _receipt(self, frame: _Frame) -> None:
        # `queued` is final, too, but nobody had it: who was connected should have.
        failure = "" if frame.status == "delivered" else frame.code or frame.status or "unreadable_frame"
        if frame.id is not None and frame.id.isdecimal():
            self._client.ear.on_receipt(self._client, int(frame.id), failure)
        else:
            self._client.ear.on_error(self._client, failure or "unreadable_frame")

    def _error(self, frame: _Frame) -> None:
        # Of a join, a publish, or something that has no id. A refused `send` gets a receipt.
        self._client.ear.on_error(self._client, frame.code or "unreadable_frame")
