"""The settings of a node: one table of options, from which flags, environment, file and docs derive.

An option `ttl_s` is `--ttl-s` as a flag, `RING_TTL_S` in the environment and `ttl_s` in the file; flags count
before the environment, and that before the file. `ring serve` calls `load`; the node gets frozen `Settings`.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

from ring.option import Option, metas

EMBEDDED = "embedded"
"""As `redis`: the node starts a private server of its own."""

SECRET_BYTES = 16
"""A secret shorter than this could be guessed."""

Address = Annotated[str, Meta(extra={"expects": "an address, host:port"})]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Delay = Annotated[float, Meta(ge=0, le=86_400)]

Network = IPv4Network | IPv6Network

Policy = Literal["disconnect", "drop_oldest"]
"""What becomes of a room's messages at a member that reads too slowly."""


class SettingsError(ValueError):
    """A setting is missing, unknown or wrong: one line that says which, and what to do."""


class Settings(Struct, frozen=True, kw_only=True):
    """What a node is told: the order and the descriptions are those of the documentation."""

    name: Annotated[str, Meta(description="Name of the node, unlike any other in the cluster")]
    cluster: Annotated[str, Meta(description="Name of the cluster; others may share its Redis")] = "ring"
    redis: Annotated[str, Meta(description="Redis URL, or `embedded` for a private server")] = (
        "redis://127.0.0.1:6379/0"
    )
    edge: Annotated[Address, Meta(description="Where clients connect; port 0 takes a free one")] = (
        "127.0.0.1:8001"
    )
    peer: Annotated[Address, Meta(description="Where the other nodes connect")] = "127.0.0.1:9001"
    api: Annotated[Address, Meta(description="Where HTTP is: health and the ring")] = "127.0.0.1:7001"
    edge_advertise: Annotated[Address | None, Meta(description="How others reach `edge`, if otherwise")] = (
        None
    )
    peer_advertise: Annotated[Address | None, Meta(description="How others reach `peer`, if otherwise")] = (
        None
    )
    api_advertise: Annotated[Address | None, Meta(description="How others reach `api`, if otherwise")] = None
    weight: Annotated[
        int, Meta(ge=1, le=1000, description="Share of the users to own, against the others'")
    ] = 1
    auth: Annotated[
        Literal["none", "jwt"],
        Meta(description="How clients are known: `none` believes them, on loopback alone"),
    ] = "none"
    allow_origin: Annotated[
        tuple[str, ...],
        Meta(description="Origins of web pages that may connect, as in `https://example.org`"),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses and networks, as in `10.0.0.0/8`, whose `X-Forwarded-For`, or PROXY"
            " protocol version 2, says where a client is"
        ),
    ] = ()
    secret_file: Annotated[
        Path | None,
        Meta(description="Holds the secret that the cluster's nodes share; needed beyond loopback"),
    ] = None
    api_key_file: Annotated[
        Path | None, Meta(description="Holds the key that the API asks for; needed beyond loopback")
    ] = None
    peer_insecure: Annotated[
        bool, Meta(description="Peers may talk beyond loopback without TLS: for private networks")
    ] = False
    ttl_s: Annotated[
        float, Meta(ge=0.3, le=3600, description="How long a node stays a member without renewing")
    ] = 3.0
    heartbeat_s: Annotated[
        Seconds, Meta(description="How often a client is pinged; two misses in a row end it")
    ] = 25.0
    linger_s: Annotated[Delay, Meta(description="How long a user is waited for whose connection broke")] = 2.0
    spill_after_s: Annotated[
        Seconds, Meta(description="How long a message waits to be acknowledged before Redis keeps it")
    ] = 2.0
    send_timeout_s: Annotated[Seconds, Meta(description="How long a message waits for any answer")] = 10.0
    drain_timeout_s: Annotated[Delay, Meta(description="How long a node takes to drain, at most")] = 10.0
    reconnects_per_s: Annotated[
        float,
        Meta(gt=0, le=1e6, description="Clients that draining nodes, together, send to others per second"),
    ] = 500.0
    message_bytes: Annotated[
        int,
        Meta(ge=128, le=2**24, description="The longest `data` of a message; a frame may have twice as much"),
    ] = 65536
    in_flight: Annotated[int, Meta(ge=1, le=65536, description="Most unanswered messages of a session")] = 256
    output_bytes: Annotated[
        int,
        Meta(
            ge=1024, description="Output that may wait for one client; beyond is a slow consumer, closed 4008"
        ),
    ] = 2**20
    rooms_per_session: Annotated[int, Meta(ge=1, description="Most rooms that a session may be in")] = 100
    room_policy: Annotated[
        tuple[str, ...],
        Meta(
            description="What a room does to members that read too slowly, as in `news-*=drop_oldest`: the"
            " first pattern that matches counts; `disconnect` (4008) where none does"
        ),
    ] = ()
    mailbox_messages: Annotated[
        int,
        Meta(
            ge=0,
            le=2**20,
            description="Most messages that Redis keeps for one user; 0 keeps none: `offline` is the answer",
        ),
    ] = 1000
    mailbox_bytes: Annotated[
        int, Meta(ge=1024, le=2**30, description="Most bytes that Redis keeps for one user")
    ] = 4 * 2**20
    mailbox_keep_s: Annotated[
        float, Meta(gt=0, le=31_536_000, description="How long a message is kept that has no `ttl_s`")
    ] = 604_800.0
    mailbox_replicas: Annotated[
        int, Meta(ge=0, le=16, description="So many replicas must have a message before it is `queued`")
    ] = 0
    mailbox_fsync: Annotated[
        bool, Meta(description="Redis must have it on disk, too, before it is `queued` (7.2, Valkey)")
    ] = False
    mailbox_wait_s: Annotated[
        float, Meta(gt=0, le=1.5, description="How long is waited for these replicas, and for the disk")
    ] = 1.0
    max_connections: Annotated[int, Meta(ge=1, description="Clients at one time, at most")] = 20_000
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least to log")
    ] = "info"
    log_format: Annotated[Literal["console", "json"], Meta(description="How to log, on stderr")] = "console"

    def room_policies(self) -> list[tuple[str, Policy]]:
        """The patterns of `room_policy`, with their policies.

        Raises:
            SettingsError: one is not of the form PATTERN=POLICY.
        """
        return [_room_policy(given) for given in self.room_policy]

    def trusted_networks(self) -> tuple[Network, ...]:
        """The networks of `trusted_proxies`.

        Raises:
            SettingsError: one of them is none.
        """
        try:
            return tuple(ip_network(given) for given in self.trusted_proxies)
        except ValueError as error:
            raise SettingsError(f"trusted_proxies: {error}: as in 10.0.0.0/8, or 127.0.0.1") from None

    def peer_secret(self) -> bytes:
        """The secret of the cluster; empty if there is none.

        Raises:
            SettingsError: the file cannot be read, or what it holds is no secret.
        """
        return b"" if self.secret_file is None else read_secret(self.secret_file, "secret_file")

    def api_key(self) -> str | None:
        """The key that the API asks for; None if it asks for none.

        Raises:
            SettingsError: the file cannot be read, or what it holds is no key.
        """
        if self.api_key_file is None:
            return None
        try:
            return read_secret(self.api_key_file, "api_key_file").decode("ascii")
        except UnicodeDecodeError:
            raise SettingsError(
                f"api_key_file: {self.api_key_file} holds more than ASCII, which HTTP cannot carry"
            ) from None


def _room_policy(given: str) -> tuple[str, Policy]:
    pattern, _, policy = given.rpartition("=")
    if not pattern:
        raise SettingsError(f"room_policy: {given!r} is not PATTERN=POLICY, as in news-*=drop_oldest")
    for known in get_args(Policy):
        if policy == known:
            return pattern, known
    raise SettingsError(
        f"room_policy: {given!r}: a policy is one of {', '.join(get_args(Policy))}, not {policy!r}"
    )


def _table() -> tuple[Option, ...]:
    hints = get_type_hints(Settings, include_extras=True)
    return tuple(
        Option(
            field.name,
            hints[field.name],
            field.default,
            next(m.description for m in metas(hints[field.name]) if m.description),
        )
        for field in msgspec.structs.fields(Settings)
    )


OPTIONS: tuple[Option, ...] = _table()
"""Every option of a node, in the order of the documentation."""

CONFIG_VARIABLE = "RING_CONFIG"
"""Names the file, where `--config` does not."""

_BY_NAME = {option.name: option for option in OPTIONS}
# Kubernetes and Docker set these in every container beside a service that is called "ring".
_NOT_OURS = re.compile(r"RING_(SERVICE_|PORT$|PORT_)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def load(flags: Mapping[str, object], environ: Mapping[str, str], config: Path | None = None) -> Settings:
    """The settings of a node.

    Args:
        flags: by option name; those that are None or empty were not given.
        environ: the environment; what does not begin with RING_ is none of ours.
        config: the file; None if `RING_CONFIG` is to name it, or if there is none.

    Raises:
        SettingsError: something is missing, unknown, wrong, or would open the node to strangers.
    """
    path = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    values = {} if path is None else _from_file(path)
    values |= _from_environ(environ)
    for name, given in flags.items():
        if given is not None and given != []:
            option = _BY_NAME[name]
            values[name] = _convert(option, given, option.flag, strict=False)
    for option in OPTIONS:
        if option.required and option.name not in values:
            raise SettingsError(
                f"{option.name} is missing: give {option.flag}, {option.variable} or {option.name} in a file"
            )
    settings = Settings(**values)
    _check(settings)
    return settings


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"config: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"config: {path} is no TOML: {error}") from None
    values = {}
    for name, given in document.items():
        option = _BY_NAME.get(name)
        if option is None:
            raise SettingsError(f"{path}: no option is called {name}{_nearest(name, _BY_NAME)}")
        value = _convert(option, given, f"{path}: {name}", strict=True)
        # A relative path in a file is meant from where the file is.
        values[name] = path.parent / value if isinstance(value, Path) else value
    return values


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    by_variable = {option.variable: option for option in OPTIONS}
    values = {}
    for variable, given in environ.items():
        if not variable.startswith("RING_") or variable == CONFIG_VARIABLE or _NOT_OURS.match(variable):
            continue
        option = by_variable.get(variable)
        if option is None:
            known = (*by_variable, CONFIG_VARIABLE)
            raise SettingsError(f"environment: no option is called {variable}{_nearest(variable, known)}")
        if option.name == "api" and "://" in given:
            continue  # the same variable tells `ring status` and its like the URL of a node
        value: object = [part.strip() for part in given.split(",")] if option.many else given
        values[option.name] = _convert(option, value, variable, strict=False)
    return values


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else "; docs/reference/configuration.md lists them"


def _convert(option: Option, given: object, source: str, *, strict: bool) -> Any:
    try:
        return msgspec.convert(given, option.type, strict=strict, dec_hook=_decode_path)
    except msgspec.ValidationError:
        raise SettingsError(f"{source}: {given!r} is not {option.expects}") from None


def _decode_path(kind: type, given: object) -> Path:
    if not isinstance(given, str) or not given:
        raise ValueError(kind)
    return Path(given)


def _check(settings: Settings) -> None:
    for what in ("name", "cluster"):
        if not _NAME.fullmatch(name := getattr(settings, what)):
            raise SettingsError(f"{what}: 1 to 64 of A-Z a-z 0-9 . _ -, letter or digit first, not {name!r}")
    if settings.redis != EMBEDDED and not settings.redis.startswith(("redis://", "rediss://", "unix://")):
        raise SettingsError("redis: give a URL as in redis://127.0.0.1:6379/0, or `embedded`")
    if settings.output_bytes <= settings.message_bytes:
        raise SettingsError(
            "output_bytes: must be above message_bytes, or one message would be too much for a client"
        )
    if settings.mailbox_bytes <= 2 * settings.message_bytes:
        raise SettingsError("mailbox_bytes: must be above twice message_bytes, or one message might not fit")
    if settings.auth == "jwt":
        raise SettingsError("auth: this release has no tokens yet; use `none`, on loopback")
    _check_addresses(settings)
    settings.peer_secret()
    settings.api_key()
    settings.room_policies()
    settings.trusted_networks()


def _check_addresses(settings: Settings) -> None:
    for what in ("edge", "peer", "api"):
        host, _ = split_address(getattr(settings, what), what)
        advertised = getattr(settings, f"{what}_advertise")
        if advertised is not None:
            split_address(advertised, f"{what}_advertise")
        elif host in ("0.0.0.0", "::"):  # noqa: S104 - refused here
            raise SettingsError(
                f"{what}: nobody can connect to {host}: say what others reach by --{what}-advertise"
            )
    if settings.auth == "none" and not is_loopback(settings.edge):
        raise SettingsError(
            "edge: with auth none anybody could be anyone: listen on loopback, as in 127.0.0.1:8001"
        )
    if not is_loopback(settings.peer):
        if settings.secret_file is None:
            raise SettingsError("peer: beyond loopback nodes must prove themselves: give --secret-file")
        if not settings.peer_insecure:
            raise SettingsError(
                "peer: beyond loopback there is no TLS yet: give --peer-insecure if the network is private"
            )
    if settings.api_key_file is None and not is_loopback(settings.api):
        raise SettingsError("api: beyond loopback it must ask for a key: give --api-key-file")


def split_address(address: str, what: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`.

    Raises:
        SettingsError: it is neither.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if (
        not colon
        or host in ("", "[]")
        or (":" in host and not bracketed)
        or not (port.isascii() and port.isdigit())
        or int(port) > 65535
    ):
        raise SettingsError(f"{what}: {address!r} is not an address, host:port")
    return host[1:-1] if bracketed else host, int(port)


def is_loopback(address: str) -> bool:
    """True if only this machine can reach `address`; a name other than `localhost` may be anywhere."""
    host, _ = split_address(address, "address")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_secret(path: Path, what: str) -> bytes:
    """What the file holds, without the white space around it.

    Raises:
        SettingsError: it cannot be read, or holds less than `SECRET_BYTES`.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"{what}: cannot read {path}: {error.strerror}") from None
    if len(secret) < SECRET_BYTES:
        raise SettingsError(f"{what}: {path} holds {len(secret)} bytes; a secret has {SECRET_BYTES} or more")
    return secret
