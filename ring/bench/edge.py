"""Where clients of a load connect: a node's edge, a balancer, or another server."""

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from ring.protocol.codes import BadRequest


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

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def target(self, path: str, query: str) -> str:
        """The request's target: our own path, or else `path`; our own query, and `query` behind it."""
        return "?".join(filter(None, (self.path or path, "&".join(filter(None, (self.query, query))))))
