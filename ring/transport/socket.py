"""A WebSocket on the pump: input to its endpoint, output to the kernel, and every way that it can end.

Endpoints, on whichever task of Trio's thread, call `send_*`, `ping`, `close` and `abort`. None of these calls
the endpoint back: what they cause comes at the end of the tick.
"""

import socket
import sys
from collections.abc import Callable
from typing import Literal, Protocol

import structlog

from ring.protocol.codes import CloseCode
from ring.protocol.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Decoder,
    ProtocolViolation,
    close_payload,
    encode_frame,
    header,
    parse_close,
)
from ring.transport.agenda import AGAIN, MESSAGES_PER_SOCKET, READ_BYTES, Agenda
from ring.transport.lingering import Lingering, reset
from ring.transport.output import Output
from ring.transport.poller import READ, WRITE
from ring.transport.wheel import Timer

_logger = structlog.get_logger()

_OPEN = 0
_CLOSING = 1  # we sent a close frame and wait for the other's
_ENDING = 2  # nothing is read any more; once the output is gone the connection ends
_GONE = 3

_VIOLATION = -1  # stands, among messages, where the other side broke the protocol
_ENDS = frozenset({CLOSE, _VIOLATION})
_SHORT = 126  # payloads below this have a header of two bytes
_SHORT_TEXT = [header(TEXT, size) for size in range(_SHORT)]
_JOINED_BYTES = 4096  # a payload up to this is cheaper to copy behind its header than to queue beside it


class Endpoint(Protocol):
    """Who sits on a WebSocket. All are plain calls from the pump's tick, on Trio's thread.

    What one raises is logged, ends its own socket with 1011 and disturbs nobody else.
    """

    def on_open(self, socket: "Socket") -> None:
        """The upgrade is done; it may send at once."""

    def on_text(self, payload: bytes) -> None:
        """A whole text message, of valid UTF-8."""

    def on_binary(self, payload: bytes) -> None:
        """A whole binary message."""

    def on_pong(self, payload: bytes) -> None:
        """An answer to a ping; or a pong that nobody asked for."""

    def on_drained(self) -> None:
        """The queued output fell to `Socket.low_water` after it had been above."""

    def on_close(self, code: int, reason: str) -> None:
        """It is over: called exactly once, last, as soon as nothing can be sent and nothing will come.

        The code is the other side's, or ours if we began to close, or 1006 if it broke. The farewell on the
        wire may go on behind this.
        """


class _Nobody:
    """The endpoint of a socket that is over."""

    def on_open(self, socket: "Socket") -> None: ...
    def on_text(self, payload: bytes) -> None: ...
    def on_binary(self, payload: bytes) -> None: ...
    def on_pong(self, payload: bytes) -> None: ...
    def on_drained(self) -> None: ...
    def on_close(self, code: int, reason: str) -> None: ...


_NOBODY = _Nobody()


class Socket(Output):
    """One WebSocket, from its upgrade to its end.

    Attributes:
        low_water: see `Endpoint.on_drained`; a quarter of `max_queued` unless set.
        peername: "ip:port" of the other side.
        subprotocol: what the upgrade agreed on.
    """

    __slots__ = (
        "_decoder",
        "_endpoint",
        "_masked",
        "_on_gone",
        "_pending",
        "_pong",
        "_state",
        "_timer",
        "low_water",
        "peername",
        "subprotocol",
    )

    def __init__(
        self,
        agenda: Agenda,
        sock: socket.socket,
        endpoint: Endpoint,
        *,
        role: Literal["server", "client"],
        peername: str,
        subprotocol: str | None,
        max_message: int,
        max_queued: int | None,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(agenda, sock, sys.maxsize if max_queued is None else max_queued)
        self._endpoint = endpoint
        self._decoder = Decoder(role=role, max_message=max_message)
        self._masked = role == "client"
        self._on_gone = on_gone
        self._state = _OPEN
        self._timer: Timer | None = None
        self._pending: list[tuple[int, bytes]] | None = None  # input that this tick had no room for
        self._pong: bytes | None = None  # to be sent when the output is no longer backed up
        self.low_water = self._max_queued // 4
        self.peername = peername
        self.subprotocol = subprotocol
        agenda.connections += 1
        agenda.watched[sock.fileno()] = self

    @property
    def open(self) -> bool:
        """True until either side began to close, or the connection broke."""
        return self._state == _OPEN

    def send_text(self, payload: bytes) -> None:
        """Queues a text message (UTF-8); does nothing if the socket is no longer open."""
        if self._state:
            return
        size = len(payload)
        if size < _SHORT and not self._masked:
            self._queue(_SHORT_TEXT[size] + payload)
        else:
            self._queue_message(TEXT, payload)

    def send_binary(self, payload: bytes) -> None:
        """Queues a binary message; does nothing if the socket is no longer open."""
        if not self._state:
            self._queue_message(BINARY, payload)

    def send_frame(self, frame: bytes) -> None:
        """Queues what `encode_frame` made: the same bytes can go to many. Not for a client's socket."""
        if not self._state:
            self._queue(frame)

    def ping(self, payload: bytes = b"") -> None:
        """Queues a ping; `payload`, up to 125 bytes, comes back in the pong."""
        if not self._state:
            self._queue(encode_frame(PING, payload, mask=self._masked))

    def close(self, code: int, reason: str = "") -> None:
        """Begins the closing handshake, behind what is queued; without an answer in time it is cut.

        Raises:
            ValueError: `code` may not be sent.
        """
        if self._state:
            return
        self._add(encode_frame(CLOSE, close_payload(code, reason), mask=self._masked))
        self._leave_open(_CLOSING, code, reason)

    def abort(self) -> None:
        """Cuts the connection; what is queued is lost."""
        if self._state == _GONE:
            return
        reset(self._sock)
        self._lose("aborted")

    def _queue_message(self, opcode: int, payload: bytes) -> None:
        if self._masked or len(payload) <= _JOINED_BYTES:
            self._queue(encode_frame(opcode, payload, mask=self._masked))
        else:
            self._add(header(opcode, len(payload)))
            self._queue(payload)

    def _on_overflow(self) -> None:
        self._drop_queued()  # a close frame cannot overtake it
        self._fail(CloseCode.SLOW_CONSUMER, "output is read too slowly")

    def _catch_up(self) -> None:
        pong, self._pong = self._pong, None
        if pong is not None and self._state == _OPEN:
            self._add(encode_frame(PONG, pong, mask=self._masked))

    def flush(self) -> None:
        """Hands the kernel what is queued, and does what was waiting for that."""
        if self._rest is None and self._out:
            self._write()
        if self._state or self._failed or self._peak > self.low_water:
            self._after_write()

    def _after_write(self) -> None:
        """What was waiting for a write, and whatever calls others: never from within somebody's `send_*`."""
        if self._state == _GONE:
            return
        if self._failed:
            # The other side is gone, but may have said why: its close frame may lie in the kernel, unread.
            if self._state == _OPEN:
                self.on_ready(READ)
            self._lose("the connection broke")
        elif self._state == _ENDING:
            self._part_if_flushed()
        elif self._peak > self.low_water and self.queued <= self.low_water:
            self._peak = 0
            try:
                self._endpoint.on_drained()
            except Exception:
                self._on_endpoint_failed()

    def begin(self, response: bytes, rest: bytes) -> None:
        """Opens: queues our part of the upgrade, tells the endpoint, takes what came behind the head."""
        if response:
            self._add(response)
        try:
            self._endpoint.on_open(self)
        except Exception:
            self._on_endpoint_failed()
        if rest:
            self._take(rest)

    def on_ready(self, events: int) -> None:
        """Reads, writes or goes on with what was read; the pump calls it."""
        if events != READ:
            self._on_other(events)
            return
        if self._pending or self._state == _GONE:  # what came before has not been handled; or all has
            return
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror or "the connection broke")
            return
        if not data:
            self._lose("the connection ended without a close frame")
            return
        self._agenda.bytes_in += len(data)
        self._take(data)

    def _on_other(self, events: int) -> None:
        """What is less usual than something to read."""
        if events == AGAIN:
            messages, self._pending = self._pending, None
            if messages:
                self._deliver(messages)
            return
        if events & WRITE:
            self._write_rest()
            self._after_write()
        if events != WRITE:
            self.on_ready(READ)

    def _take(self, data: bytes) -> None:
        if self._state >= _ENDING:
            return
        try:
            messages = self._decoder.feed(data)
        except ProtocolViolation as violation:
            messages = violation.messages
            messages.append((_VIOLATION, close_payload(violation.code, violation.reason)))
        if messages:
            self._deliver(messages)

    def _deliver(self, messages: list[tuple[int, bytes]]) -> None:
        if len(messages) > MESSAGES_PER_SOCKET:
            self._pending = messages[MESSAGES_PER_SOCKET:]
            del messages[MESSAGES_PER_SOCKET:]
            self._agenda.again.append((self._sock.fileno(), AGAIN))
        self._agenda.messages_in += len(messages)
        endpoint = self._endpoint
        try:
            for opcode, payload in messages:
                if self._state:
                    if opcode in _ENDS:
                        self._on_control(opcode, payload)
                elif opcode == TEXT:
                    endpoint.on_text(payload)
                elif opcode == BINARY:
                    endpoint.on_binary(payload)
                else:
                    self._on_control(opcode, payload)
        except Exception:
            self._on_endpoint_failed()

    def _on_control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            if self._rest is None:
                self._add(encode_frame(PONG, payload, mask=self._masked))
            else:  # backed up: the latest alone needs an answer (RFC 6455 section 5.5.3)
                self._pong = payload
        elif opcode == PONG:
            self._endpoint.on_pong(payload)
        elif opcode == CLOSE:
            self._on_close_frame(payload)
        else:
            self._fail(int.from_bytes(payload[:2], "big"), payload[2:].decode())

    def _on_close_frame(self, payload: bytes) -> None:
        try:
            code, reason = parse_close(payload)
        except ProtocolViolation as violation:
            self._fail(violation.code, violation.reason)
        else:
            self._finish(code, reason, close_payload(code))

    def _fail(self, code: int, reason: str) -> None:
        """Ends the connection for what the other side, or its endpoint, did."""
        self._finish(code, reason, close_payload(code, reason))

    def _finish(self, code: int, reason: str, farewell: bytes) -> None:
        """Reads nothing more, and ends the connection behind what is queued and one close frame."""
        if self._state == _OPEN:
            self._add(encode_frame(CLOSE, farewell, mask=self._masked))
            self._leave_open(_ENDING, code, reason)
        elif self._state == _CLOSING:
            self._state = _ENDING
            self._part_if_flushed()

    def _on_endpoint_failed(self) -> None:
        """To be called from the `except` of a call to the endpoint."""
        name = getattr(self._endpoint, "name", None)  # what the session is called, or the peer
        _logger.exception(
            "an endpoint failed; its connection is closed", endpoint=name, peername=self.peername
        )
        self._fail(CloseCode.INTERNAL_ERROR, "internal error")

    def _lose(self, reason: str) -> None:
        """The connection is broken, or no longer wanted."""
        if self._state == _OPEN:
            self._leave_open(_GONE, CloseCode.ABNORMAL, reason)
        elif self._state == _GONE:
            return
        self._state = _GONE
        self._agenda.doom(self)

    def _leave_open(self, state: int, code: int, reason: str) -> None:
        """The only way out of `_OPEN`: nothing reaches the endpoint any more but the news of the end."""
        self._state = state
        if state != _GONE:
            self._timer = self._agenda.wheel.call_later(self._agenda.patience.close_s, self.abort)
        endpoint, self._endpoint = self._endpoint, _NOBODY  # else it and we would keep each other alive
        self._agenda.end(endpoint.on_close, code, reason)

    def _part_if_flushed(self) -> None:
        if self.queued:
            return
        self._forget()
        Lingering(self._agenda, self._sock, finish=not self._masked)

    def on_pump_closed(self) -> None:
        """Says goodbye, if the kernel takes it."""
        if self._state == _OPEN:
            self._add(encode_frame(CLOSE, close_payload(CloseCode.GOING_AWAY), mask=self._masked))
            self._leave_open(_ENDING, CloseCode.GOING_AWAY, "")
        if self._rest is None and self._out:
            self._write()
        self.release()

    def release(self) -> None:
        """Closes the descriptor."""
        self._agenda.close(self._sock)
        self._forget()

    def _forget(self) -> None:
        """Lets go of all that it holds: who holds it still must hold no more than a name."""
        self._state = _GONE
        self._agenda.connections -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._on_gone is not None:
            self._on_gone()
            self._on_gone = None
        self._out.clear()
        self._rest = self._pong = self._pending = None
        self.queued = 0
