"""HAProxy's configuration, from a template: the same for all clusters but for what is asked here."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Literal

from ring.protocol.codes import BadRequest
from ring.transport.address import split_address

RouteBy = Literal["user", "token"]

MOST_PLACES = 1000
"""More nodes than a ring has."""

OTHERS = 500
"""Connections beside the clients': checks, statistics, commands."""

_BY_USER = ("http-request set-var(txn.user) url_param(user),url_dec(1)",)
_BY_TOKEN = (
    "http-request set-var(txn.token) url_param(token)",
    "http-request set-var(txn.key) req.hdr(authorization)",
    r"http-request set-var(txn.token) var(txn.key),word(2,\ ) if { var(txn.key) -m found }",
    "http-request set-var(txn.offer) req.hdr(sec-websocket-protocol,-1)",
    "http-request set-var(txn.token) var(txn.offer),bytes(11) if { var(txn.offer) -m beg ring.token. }",
    "http-request set-var(txn.user) var(txn.token),jwt_payload_query('$.sub')",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What differs.

    Attributes:
        listen: "host:port" for clients, plain; None for none. The host may be `*`.
        tls_listen: the same with TLS; needs a certificate.
        certificate: a PEM file with the certificates and their key.
        operations: "host:port" of the statistics, and of Prometheus' metrics.
        directory: where the stats socket, the map and the servers' state are.
        places: for so many nodes.
        max_clients: at one time.
        address_connections: at one time, of one source address.
        address_rate: new ones of it in 10 s.
        run_as: the user and group that HAProxy becomes, and that may use the stats socket; None: those that
            start it.
        route_by: the query's `user`, or the `sub` of a token.
        command: that is named in the first line.
    """

    listen: str | None = "*:8000"
    tls_listen: str | None = None
    certificate: str | None = None
    operations: str = "127.0.0.1:8404"
    directory: str = "/run/ring-haproxy"
    places: int = 16
    max_clients: int = 50_000
    address_connections: int = 1000
    address_rate: int = 1000
    run_as: str | None = None
    route_by: RouteBy = "user"
    command: str = "ring haproxy render"


def render(options: Options) -> str:
    """The configuration.

    Raises:
        BadRequest: it would not be one; says why.
    """
    binds = []
    if options.listen is not None:
        binds.append(f"bind {_address(options.listen)}")
    if options.tls_listen is not None:
        if options.certificate is None:
            raise BadRequest("TLS needs a certificate: give --certificate FILE, a PEM with its key")
        certificate = _quotable(options.certificate)
        binds.append(f'bind {_address(options.tls_listen)} ssl crt "{certificate}" alpn http/1.1')
    if not binds:
        raise BadRequest("nobody could connect: give --listen, or --tls-listen and --certificate")
    if not 1 <= options.places <= MOST_PLACES:
        raise BadRequest(f"places is 1 to {MOST_PLACES}, not {options.places}")
    template = Template(resources.files(__package__).joinpath("haproxy.cfg.template").read_text("utf-8"))
    return template.substitute(
        command=options.command,
        binds=_lines(binds),
        directory=_quotable(options.directory),
        operations=_address(options.operations),
        socket_mode="600"
        if options.run_as is None
        else f"660 user {_word(options.run_as)} group {_word(options.run_as)}",
        run_as="" if options.run_as is None else f"\n    user {options.run_as}\n    group {options.run_as}",
        places=options.places,
        max_clients=options.max_clients,
        max_connections=options.max_clients + OTHERS,
        address_connections=options.address_connections,
        address_rate=options.address_rate,
        user=_lines(_BY_USER if options.route_by == "user" else _BY_TOKEN),
    )


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _address(text: str) -> str:
    """As HAProxy reads it."""
    host, port = split_address(text)
    return f"{host}:{port}"


def _word(name: str) -> str:
    """The name of a user."""
    if not all(character.isalnum() or character in "._-" for character in name) or not name:
        raise BadRequest(f"no name of a user: {name!r}")
    return name


def _quotable(path: str) -> str:
    """A path between double quotes, in which HAProxy replaces variables and reads escapes."""
    if any(character in path for character in '"$\\\n'):
        raise BadRequest(f"no path for HAProxy's configuration: {path!r}")
    return path
