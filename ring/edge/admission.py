"""Who may come in: the door of the client listener.

Refusals are HTTP, with a JSON body. A browser's script cannot see those: an admissible page is let in, told
one `error` and closed with the code that stands for it.
"""

from dataclasses import dataclass
from secrets import token_urlsafe
from time import time_ns
from typing import Protocol
from urllib.parse import urlsplit

from ring.config import Network
from ring.edge.census import Census
from ring.edge.forwarded import client_address, is_trusted
from ring.edge.gateway import Gateway
from ring.edge.session import ClientSession
from ring.protocol import client
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode, RingError
from ring.protocol.names import check_name, parse_query
from ring.protocol.upgrade import Request
from ring.transport.handshake import Accept, Refuse
from ring.transport.listener import Listener
from ring.transport.pump import Pump
from ring.transport.socket import Socket

FRAME_FACTOR = 2
"""A frame up to this many times `message_bytes` is read, so that what is somewhat too large gets a receipt
that says so."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_CLOSES = {401: CloseCode.UNAUTHENTICATED, 403: CloseCode.FORBIDDEN, 429: CloseCode.TOO_MANY}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is; `expires_at` in Unix seconds, None for ever."""

    user: str
    expires_at: float | None = None


class Authentication(Protocol):
    """How a node knows its clients."""

    def identify(self, request: Request, query: dict[str, str]) -> Identity:
        """Who makes this request.

        Raises:
            RingError: with code `unauthenticated`, `token_expired`, `forbidden` or `bad_request`.
        """


class Believing:
    """`--auth none`: the client says who it is."""

    def identify(self, request: Request, query: dict[str, str]) -> Identity:
        """The `user` of the query."""
        user = query.get("user")
        if user is None:
            raise BadRequest("connect: say who you are, as in /v1/connect?user=alice")
        return Identity(check_name(user, "user"))


class Admission:
    """Lets clients in, as sessions.

    Args:
        authentication: how clients are known.
        gateway: what the sessions work with.
        origins: web pages that may connect beside those of this host; `*` for all.
        max_connections: clients at one time; None for as many as the system lets in.
        trusted: proxies that say where a client is.
    """

    def __init__(
        self,
        *,
        authentication: Authentication,
        gateway: Gateway,
        origins: tuple[str, ...] = (),
        max_connections: int | None = None,
        trusted: tuple[Network, ...] = (),
    ) -> None:
        self.open = False  # the node opens and closes it
        self.refused: dict[ErrorCode, int] = {}
        self._authentication = authentication
        self.census = gateway.census
        self._gateway = gateway
        self._origins = origins
        self._max_connections = max_connections
        self._trusted = trusted
        self._next_sid = time_ns() // 1000

    def listen(self, pump: Pump, address: str) -> Listener:
        """Where clients connect. It has to be started."""
        return pump.listen(
            address, self.door, max_connections=self._max_connections, proxied=self._is_proxy, start=False
        )

    def _is_proxy(self, peername: str) -> bool:
        return is_trusted(peername, self._trusted)

    def door(self, request: Request, peername: str) -> Accept | Refuse:
        """Judges a request for a WebSocket."""
        if request.path != client.CONNECT_PATH:
            return Refuse(404, ErrorCode.BAD_REQUEST, f"clients connect at {client.CONNECT_PATH}")
        origin = request.headers.get("origin")
        if origin is not None and not self._admissible(origin, request.headers.get("host")):
            return self._refuse(
                403, ErrorCode.FORBIDDEN, "pages of this origin may not connect: see allow_origin"
            )
        try:
            session, subprotocol = self._admit(request, peername)
        except RingError as error:
            status = _STATUS.get(error.code, 400)
            if origin is not None and status in _CLOSES:
                self.refused[error.code] = self.refused.get(error.code, 0) + 1
                farewell = Farewell(error, _CLOSES[status], self._gateway.census)
                return Accept(farewell, _subprotocol(request, strict=False), 1024, self._gateway.output_bytes)
            return self._refuse(status, error.code, str(error))
        return Accept(
            session, subprotocol, self._gateway.message_bytes * FRAME_FACTOR, self._gateway.output_bytes
        )

    def _refuse(self, status: int, code: ErrorCode, message: str) -> Refuse:
        self.refused[code] = self.refused.get(code, 0) + 1
        return Refuse(status, code, message, (("Retry-After", "1"),) if status in (429, 503) else ())

    def _admit(self, request: Request, peername: str) -> tuple[ClientSession, str | None]:
        if not self.open:
            raise RingError("this node takes no clients now", code=ErrorCode.OWNER_UNAVAILABLE)
        if (
            self._max_connections is not None
            and len(self._gateway.attachments.sessions) >= self._max_connections
        ):
            raise RingError("this node is full", code=ErrorCode.TOO_MANY_CONNECTIONS)
        subprotocol = _subprotocol(request, strict=True)
        query = parse_query(request.query)
        identity = self._authentication.identify(request, query)
        device = query.get("device")
        if device is None:
            device = token_urlsafe(12)
        ack = query.get("ack", "auto")
        if ack not in ("auto", "client"):
            raise BadRequest("connect: ack is auto or client")
        self._next_sid = sid = self._next_sid + 1
        session = ClientSession(
            sid=sid,
            user=identity.user,
            device=check_name(device, "device"),
            address=client_address(request, peername, self._trusted),
            by="client" if ack == "client" else "pong",
            resume=query.get("resume"),
            expires_at=identity.expires_at,
            gateway=self._gateway,
        )
        return session, subprotocol

    def _admissible(self, origin: str, host: str | None) -> bool:
        """A page may connect if it is listed, came from this very host, or is on the user's own machine."""
        if "*" in self._origins or origin in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            return parts.netloc == host or parts.hostname in LOOPBACK
        except ValueError:
            return False


class Farewell:
    """An endpoint that tells a browser why it may not come in."""

    def __init__(self, error: RingError, close_code: CloseCode, census: Census) -> None:
        self._error = error
        self._close_code = close_code
        self._census = census

    def on_open(self, socket: Socket) -> None:
        """Says it and closes."""
        code = self._error.code
        self._census.turn_away(code)
        socket.send_text(client.encode(client.Error(code, str(self._error), code.retryable)))
        socket.close(self._close_code, code)

    def on_text(self, payload: bytes) -> None:
        """Nothing is heard any more."""

    def on_binary(self, payload: bytes) -> None:
        """Nothing is heard any more."""

    def on_pong(self, payload: bytes) -> None:
        """Nothing is heard any more."""

    def on_drained(self) -> None:
        """Nothing is sent any more."""

    def on_close(self, code: int, reason: str) -> None:
        """Nothing is kept."""
        self._census.closed[code] += 1


_STATUS = {
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.TOKEN_EXPIRED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.TOO_MANY_CONNECTIONS: 503,
    ErrorCode.OWNER_UNAVAILABLE: 503,
}


def _subprotocol(request: Request, *, strict: bool) -> str | None:
    offered = request.subprotocols
    if client.SUBPROTOCOL in offered:
        return client.SUBPROTOCOL
    if offered and strict:
        raise BadRequest(f"connect: the sub-protocol is {client.SUBPROTOCOL}; offer it, or none")
    return None
