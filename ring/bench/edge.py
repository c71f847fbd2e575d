"""Where clients of a load connect: a node's edge, a balancer, or another server."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from ring.protocol.codes import BadRequest, ErrorCode, RingError

PROBE_S = 3.0
"""How long one of a host's several addresses may take to answer before the next is tried."""


class NoSuchHost(RingError):
    """A host has no address."""

    code = ErrorCode.OWNER_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Edge:
    """Where clients connect.

    Attributes:
        path: of the WebSocket; empty where the address names none.
        query: of the address itself; what a session needs is put behind it.
    """

    host: str
    port: int
    tls: bool = False
    path: str = ""
    query: str = ""

    @classmethod
    def parse(cls, address: str) -> Self:
        """`host:port`, `ws://host[:port][/path]` or `wss://…`.

        Raises:
            BadRequest: it is no such address.
        """
        url = address if "://" in address else f"ws://{address}"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadRequest(f"edge: {error}: {address!r}") from None
        tls = parts.scheme == "wss"
        if parts.scheme not in ("ws", "wss") or not parts.hostname or (port is None and "://" not in address):
            raise BadRequest(f"edge: write host:port, ws://host or wss://host, not {address!r}")
        return cls(parts.hostname, port or (443 if tls else 80), tls, parts.path, parts.query)

    def place(self) -> tuple[socket.AddressFamily, Any]:
        """The family and address of the host to connect to: of several, the first where anybody listens.

        `localhost` may be two addresses, of which a server has one.

        Raises:
            NoSuchHost: it has none.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NoSuchHost(f"edge: {self.host} has no address: {error.strerror}") from None
        places = [(family, address) for family, _, _, _, address in found]
        for family, address in places[:-1]:
            with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(PROBE_S)
                probe.connect(address)
                return family, address
        return places[-1]

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def target(self, path: str, query: str) -> str:
        """The request's target: our own path, or else `path`; our own query, and `query` behind it."""
        return "?".join(filter(None, (self.path or path, "&".join(filter(None, (self.query, query))))))
