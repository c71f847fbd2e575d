"""Where the store is and who we are there: a redis:// URL, read once and checked.

`Redis.from_url` calls it, and so does whoever opens a connection of its own. Nothing here is ever put into a
message or a log whole: a URL carries a password.
"""

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import SSLConnection
from redis.asyncio.connection import parse_url as parse_redis_url
from redis.exceptions import RedisError

from ring.protocol.codes import BadRequest

_LOGIN_OPTIONS = {"username", "password", "db"}
_SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class Address:
    """A server and a login. A `path` is a Unix socket's, and rules out host and port; no `tls`: plain."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    tls: ssl.SSLContext | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0

    def __str__(self) -> str:
        """The place alone, for messages and logs: no user, no password."""
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(url: str) -> Address:
    """Reads a redis://, rediss:// or unix:// URL as redis-py does, but refuses what that would overlook.

    The query may hold `db`, `username`, `password` and, with rediss://, redis-py's TLS options:
    `ssl_ca_certs`, `ssl_cert_reqs=none|optional|required`, `ssl_check_hostname`, `ssl_certfile` and others.

    Raises:
        BadRequest: the URL is malformed; the message says how, and quotes none of it that could be a secret.
    """
    try:
        parts = urlsplit(url)
        scheme, path, _ = parts.scheme, parts.path, parts.port
        options: dict[str, Any] = dict(parse_redis_url(url)) if scheme in _SCHEMES else {}
    except ValueError:
        # `from None`: the text of urllib's errors quotes the part that may be half a password.
        raise BadRequest(
            "store URL: malformed host, port or option; it should read redis://USER:PASSWORD@HOST:PORT/DB, "
            "with '/', '#', '?' and '@' in the password percent-encoded"
        ) from None
    if scheme not in _SCHEMES:
        raise BadRequest("store URL: must begin with redis://, rediss:// (TLS) or unix://")
    options.pop("connection_class", None)
    tls_options = {name: options.pop(name) for name in list(options) if name.startswith("ssl_")}
    if scheme == "unix":
        _check_unix(parts.hostname, path)
    elif path.strip("/") and not path.strip("/").isdecimal():
        raise BadRequest("store URL: what follows the host must be the database's number, as in /0")
    if unknown := options.keys() - _LOGIN_OPTIONS - {"host", "port", "path"}:
        raise BadRequest(
            f"store URL: unknown option {min(unknown)!r}; known are db, username, password and, "
            "with rediss://, ssl_…"
        )
    if tls_options and scheme != "rediss":
        raise BadRequest("store URL: the ssl_… options need rediss://")
    return Address(**options, tls=_tls_context(tls_options) if scheme == "rediss" else None)


def _check_unix(host: str | None, path: str) -> None:
    if host or not path.strip("/"):
        raise BadRequest("store URL: a Unix socket is unix:///absolute/path, with three slashes")


def _tls_context(options: dict[str, Any]) -> ssl.SSLContext:
    try:
        return SSLConnection(**options).ssl_context.get()
    except TypeError:
        raise BadRequest(f"store URL: unknown TLS option among {', '.join(sorted(options))}") from None
    except (OSError, ValueError, RedisError) as error:
        raise BadRequest(f"store URL: TLS options {', '.join(sorted(options))}: {error}") from error
