"""The first moments of a connection: an HTTP head in, an HTTP head out, then a WebSocket.

`Arrival` is the server's side of it, for the connections of a listener; `Departure` the client's, for those
that were dialled. Each is on the selector until its `Socket`, or the end, takes its place.
"""

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from ring.protocol import proxy
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode
from ring.protocol.upgrade import (
    Fields,
    Request,
    UpgradeRefused,
    accept_response,
    check_response,
    check_upgrade,
    client_request,
    parse_request,
    refuse_response,
)
from ring.transport.agenda import AGAIN, READ_BYTES, Agenda
from ring.transport.lingering import Lingering, reset
from ring.transport.socket import Endpoint, Socket

_logger = structlog.get_logger()

HEAD_BYTES = 16 * 1024
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Accept:
    """A door's yes.

    Attributes:
        endpoint: who sits on the WebSocket.
        subprotocol: which of the offered is chosen.
        max_message: bytes of the longest message that is read; beyond it 1009.
        max_queued: bytes of output beyond which the other side is too slow, 4008; None for no bound.
    """

    endpoint: Endpoint
    subprotocol: str | None
    max_message: int
    max_queued: int | None


@dataclass(frozen=True, slots=True)
class Refuse:
    """A door's no, as the HTTP answer says it."""

    status: int
    code: ErrorCode
    message: str
    headers: Fields = ()


Door = Callable[[Request, str], Accept | Refuse]
"""Who may come in: from the request and the peer's "ip:port". Called in the pump's tick; must not block."""


class _Handshake(ABC):
    """Collects a head: bounded in size and, by the wheel, in time."""

    __slots__ = ("_agenda", "_head", "_sock", "_timer")

    def __init__(self, agenda: Agenda, sock: socket.socket, time_out_s: float) -> None:
        self._agenda = agenda
        self._sock = sock
        self._head = b""
        self._timer = agenda.wheel.call_later(time_out_s, self._on_late)
        agenda.add(sock.fileno(), self)

    def on_ready(self, events: int) -> None:
        """Reads what there is of the head."""
        if self._over or self._whole:  # it has what it needs and waits for its turn
            return
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_end()
            return
        self._agenda.bytes_in += len(data)
        self._head += data
        if not self._unwrap():
            return
        end = self._head.find(_END_OF_HEAD, 0, HEAD_BYTES)
        if end >= 0:
            self._on_head()
        elif len(self._head) > HEAD_BYTES:
            self._on_oversize()
        elif not self._is_plausible():
            self._on_garbage()

    @property
    def _over(self) -> bool:
        """True once somebody else has the connection, or nobody."""
        return self._timer.callback is None

    @property
    def _whole(self) -> bool:
        """True once the head is there."""
        return _END_OF_HEAD in self._head

    def _unwrap(self) -> bool:
        """Takes off what may stand before the head; False if there is nothing to look at behind it."""
        return True

    def _is_plausible(self) -> bool:
        """False as soon as the first line shows that no head will come."""
        line, newline, _ = self._head.partition(b"\n")
        return line[:1].isalpha() and line[:1].isupper() and (not newline or line.endswith(b"\r"))

    def _split(self) -> tuple[bytes, bytes]:
        """The head, with its empty line, and what came behind it."""
        end = self._head.index(_END_OF_HEAD) + len(_END_OF_HEAD)
        return self._head[:end], self._head[end:]

    @abstractmethod
    def abort(self) -> None:
        """Gives up."""

    @abstractmethod
    def _on_head(self) -> None: ...

    @abstractmethod
    def _on_late(self) -> None: ...

    @abstractmethod
    def _on_oversize(self) -> None: ...

    @abstractmethod
    def _on_garbage(self) -> None: ...

    @abstractmethod
    def _on_end(self) -> None: ...

    def _forget(self) -> None:
        self._timer.cancel()

    def _drop(self) -> None:
        self._forget()
        self._agenda.doom(self)

    def on_pump_closed(self) -> None:
        """Closes."""
        self._forget()
        self.release()

    def release(self) -> None:
        """Closes the descriptor."""
        self._agenda.close(self._sock)


class Arrival(_Handshake):
    """An accepted connection, until the door has answered.

    Args:
        on_gone: called once when it, or the socket that it becomes, is gone.
        refused: counts refusals.
        proxied: whether a balancer may say first for whom it speaks (`protocol.proxy`).
        full: whether there are too many connections already: it is refused, politely.
    """

    __slots__ = ("_door", "_full", "_on_gone", "_peername", "_proxied", "_refused")

    def __init__(
        self,
        agenda: Agenda,
        sock: socket.socket,
        time_out_s: float,
        *,
        door: Door,
        peername: str,
        on_gone: Callable[[], None],
        refused: dict[ErrorCode, int],
        proxied: bool,
        full: bool,
    ) -> None:
        super().__init__(agenda, sock, time_out_s)
        self._door = door
        self._peername = peername
        self._on_gone: Callable[[], None] | None = on_gone
        self._refused = refused
        self._proxied = proxied
        self._full = full

    def on_ready(self, events: int) -> None:
        """Reads; or it is its turn to be upgraded."""
        if events != AGAIN:
            super().on_ready(events)
        elif not self._over and self._whole:  # not refused meanwhile
            self._on_head()

    def abort(self) -> None:
        """Gives up without an answer."""
        self._drop()

    @property
    def _whole(self) -> bool:
        return not self._proxied and _END_OF_HEAD in self._head  # which is in the signature, too

    def _unwrap(self) -> bool:
        if not self._proxied or self._head[0] != proxy.SIGNATURE[0]:
            self._proxied = False
            return True
        try:
            said = proxy.parse(self._head)
        except BadRequest as error:
            self._refuse(400, ErrorCode.BAD_REQUEST, str(error))
            return False
        if said is None:
            return False
        address, length = said
        self._peername = address or self._peername
        self._proxied, self._head = False, self._head[length:]
        return bool(self._head)

    def _on_head(self) -> None:
        if not self._agenda.upgrades_left:
            self._agenda.again.append((self._sock.fileno(), AGAIN))
            return
        self._agenda.upgrades_left -= 1
        head, rest = self._split()
        try:
            if self._full:
                raise UpgradeRefused(
                    503, ErrorCode.TOO_MANY_CONNECTIONS, "too many connections: try another node"
                )
            request = parse_request(head)
            key = check_upgrade(request)
            answer = self._door(request, self._peername)
            if isinstance(answer, Refuse):
                self._refuse(answer.status, answer.code, answer.message, answer.headers)
                return
            response = accept_response(key, answer.subprotocol)
        except UpgradeRefused as refused:
            self._refuse(refused.status, refused.code, str(refused), refused.headers)
        except Exception:
            _logger.exception("a door failed", peername=self._peername)
            self._refuse(500, ErrorCode.INTERNAL, "internal error")
        else:
            self._upgrade(answer, response, rest)

    def _upgrade(self, answer: Accept, response: bytes, rest: bytes) -> None:
        on_gone, self._on_gone = self._on_gone, None
        self._forget()
        upgraded = Socket(
            self._agenda,
            self._sock,
            answer.endpoint,
            role="server",
            peername=self._peername,
            subprotocol=answer.subprotocol,
            max_message=answer.max_message,
            max_queued=answer.max_queued,
            on_gone=on_gone,
        )
        upgraded.begin(response, rest)

    def _refuse(self, status: int, code: ErrorCode, message: str, headers: Fields = ()) -> None:
        self._forget()
        self._refused[code] = self._refused.get(code, 0) + 1
        try:
            # An answer is far smaller than an empty send buffer; what does not fit is not worth a wait.
            self._agenda.bytes_out += self._sock.send(refuse_response(status, code, message, headers))
        except OSError:
            self._agenda.doom(self)
        else:
            Lingering(self._agenda, self._sock, finish=True)

    def _on_late(self) -> None:
        self._refuse(408, ErrorCode.BAD_REQUEST, "the request did not come in time")

    def _on_oversize(self) -> None:
        self._refuse(431, ErrorCode.TOO_LARGE, f"the head of the request has more than {HEAD_BYTES} bytes")

    def _on_garbage(self) -> None:
        self._refuse(400, ErrorCode.BAD_REQUEST, "this is not HTTP: connect with a WebSocket client")

    def _on_end(self) -> None:
        self._drop()

    def _forget(self) -> None:
        super()._forget()
        if self._on_gone is not None:
            self._on_gone()
            self._on_gone = None


class Departure(_Handshake):
    """A dialled connection, until the server has answered; `Pump.adopt` makes it.

    A refusal, and whatever else goes wrong, is told to the endpoint as a close with 1006 and the reason.
    """

    __slots__ = ("_endpoint", "_key", "_max_message", "_max_queued", "_peername", "_subprotocols")

    def __init__(
        self,
        agenda: Agenda,
        sock: socket.socket,
        time_out_s: float,
        endpoint: Endpoint,
        *,
        host: str,
        target: str,
        subprotocols: Sequence[str],
        headers: Fields,
        peername: str,
        max_message: int,
        max_queued: int | None,
    ) -> None:
        request, self._key = client_request(host, target, subprotocols, headers)
        super().__init__(agenda, sock, time_out_s)
        self._endpoint: Endpoint | None = endpoint
        self._subprotocols = subprotocols
        self._peername = peername
        self._max_message = max_message
        self._max_queued = max_queued
        try:
            sent = sock.send(request)
        except OSError:
            sent = 0
        agenda.bytes_out += sent
        if sent < len(request):  # never for a new connection that works
            self._fail("the request for the upgrade could not be sent")

    def abort(self) -> None:
        """Gives up, if the handshake is still under way; the endpoint is told 1006."""
        if not self._over:
            reset(self._sock)
            self._fail("aborted")

    def _on_head(self) -> None:
        endpoint = self._endpoint
        assert endpoint is not None
        _, rest = self._split()
        try:
            subprotocol = check_response(self._head, self._key, self._subprotocols)
        except UpgradeRefused as refused:
            self._fail(str(refused))
            return
        self._endpoint = None
        self._forget()
        upgraded = Socket(
            self._agenda,
            self._sock,
            endpoint,
            role="client",
            peername=self._peername,
            subprotocol=subprotocol,
            max_message=self._max_message,
            max_queued=self._max_queued,
        )
        upgraded.begin(b"", rest)

    def _fail(self, reason: str) -> None:
        endpoint, self._endpoint = self._endpoint, None
        assert endpoint is not None
        self._agenda.end(endpoint.on_close, CloseCode.ABNORMAL, reason)
        self._drop()

    def _on_late(self) -> None:
        self._fail("the server did not answer the upgrade in time")

    def _on_oversize(self) -> None:
        self._fail("the server's answer to the upgrade is too long")

    def _on_garbage(self) -> None:
        self._fail("the server does not answer in HTTP")

    def _on_end(self) -> None:
        self._fail("the server ended the connection without an answer to the upgrade")

    def on_pump_closed(self) -> None:
        """Tells the endpoint, and closes."""
        self._fail("the pump ended")
        self.release()
