"""The HTTP/1.1 upgrade to a WebSocket (RFC 6455 section 4), both sides, without I/O.

The transport finds the end of a head and bounds its size; here it is read, judged and answered. The doors of
the edge and of the peer listener get the `Request`.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from hmac import compare_digest
from http import HTTPStatus
from os import urandom

import msgspec

from ring.protocol.codes import ErrorCode, RingError

VERSION = "13"
_ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MESSAGE_CHARACTERS = 200

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: [\t -~\x80-\xff]*)?")
# RFC 9110 section 5.5. No space before the colon and no line that continues another: what two readers may
# understand differently is refused.
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?[ \t]*"
)
_TARGET = re.compile("/[!-~]*")
_UNSAFE = re.compile(r"[^\t\x20-\x7e]")

Fields = Iterable[tuple[str, str]]


class UpgradeRefused(RingError):
    """An upgrade that does not come about: by our decision, or by the server's answer.

    Attributes:
        status: the HTTP status to answer with; of an answer, its status, or 0 if it was not readable.
        headers: what the answer carries beside the usual.
    """

    def __init__(self, status: int, code: ErrorCode, message: str, headers: Fields = ()) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.headers = tuple(headers)


class Headers:
    """Header fields as they came; names are asked for in lower case."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Fields) -> None:
        self._fields = tuple(fields)

    def get(self, name: str) -> str | None:
        """The first field of this name."""
        for key, value in self._fields:
            if key == name:
                return value
        return None

    def all(self, name: str) -> list[str]:
        """Every field of this name, in order."""
        return [value for key, value in self._fields if key == name]

    def tokens(self, name: str) -> list[str]:
        """The elements of a comma-separated list, over all fields of this name."""
        return [
            token for value in self.all(name) for part in value.split(",") if (token := part.strip(" \t"))
        ]


@dataclass(frozen=True, slots=True)
class Request:
    """The head of an HTTP/1.1 request.

    Attributes:
        target: as it was sent.
        path: of the target, without decoding; never empty.
        query: what follows the `?`, without decoding.
    """

    method: str
    target: str
    path: str
    query: str
    headers: Headers

    @property
    def subprotocols(self) -> list[str]:
        """The sub-protocols that the client offers, its favourite first."""
        return self.headers.tokens("sec-websocket-protocol")


def _bad_request(message: str) -> UpgradeRefused:
    return UpgradeRefused(400, ErrorCode.BAD_REQUEST, message)


def parse_request(head: bytes) -> Request:
    """Reads a request's head: everything up to its empty line, with or without that.

    Raises:
        UpgradeRefused: 400 if it is not readable, 505 if it is not HTTP/1.1.
    """
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise _bad_request("the request line is not readable")
    method, target, major, minor = (group.decode("ascii") for group in match.groups())
    if (major, minor) != ("1", "1"):
        raise UpgradeRefused(505, ErrorCode.BAD_REQUEST, f"HTTP/1.1 is spoken here, not HTTP/{major}.{minor}")
    path, query = _split_target(target)
    return Request(method, target, path, query, _parse_fields(lines[1:]))


def _split_target(target: str) -> tuple[str, str]:
    """Path and query of a target in origin form, or in absolute form as a proxy may send it."""
    if not target.startswith("/"):
        scheme, mark, rest = target.partition("://")
        if not mark or scheme.lower() not in {"http", "https", "ws", "wss"}:
            raise _bad_request("the request target is not a path")
        authority = re.split("[/?]", rest, maxsplit=1)[0]
        target = rest.removeprefix(authority)
    if "#" in target:
        raise _bad_request("the request target has a fragment")
    path, _, query = target.partition("?")
    return path or "/", query


def _parse_fields(lines: Sequence[bytes]) -> Headers:
    fields = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise _bad_request("a header field is not readable")
        name, value = match.groups(default=b"")
        fields.append((name.decode("ascii").lower(), value.decode("latin-1")))
    return Headers(fields)


def check_upgrade(request: Request) -> str:
    """Returns the Sec-WebSocket-Key of a valid request for a WebSocket.

    Raises:
        UpgradeRefused: 405 if the method is not GET, 426 if it asks for no WebSocket or for another version
            than 13, 400 for what else is wrong with it.
    """
    headers = request.headers
    if request.method != "GET":
        raise UpgradeRefused(405, ErrorCode.BAD_REQUEST, "a WebSocket starts with GET", [("Allow", "GET")])
    if len(headers.all("host")) != 1:
        raise _bad_request("exactly one Host is needed")
    if headers.get("transfer-encoding") is not None or any(
        size != "0" for size in headers.all("content-length")
    ):
        raise _bad_request("a request for a WebSocket has no body")
    if "websocket" not in _lower(headers.tokens("upgrade")):
        raise _upgrade_required("this is a WebSocket: connect with a WebSocket client")
    if "upgrade" not in _lower(headers.tokens("connection")):
        raise _bad_request("Connection must list Upgrade; a proxy on the way may have dropped it")
    versions = headers.all("sec-websocket-version")
    if len(versions) > 1:
        raise _bad_request("exactly one Sec-WebSocket-Version is needed")
    if versions != [VERSION]:
        raise _upgrade_required(f"WebSocket version {VERSION} is spoken here")
    keys = headers.all("sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        raise _bad_request("Sec-WebSocket-Key must be sent once, as 16 bytes in base64")
    return keys[0]


def _upgrade_required(message: str) -> UpgradeRefused:
    headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)]
    return UpgradeRefused(426, ErrorCode.BAD_REQUEST, message, headers)


def _lower(tokens: list[str]) -> list[str]:
    return [token.lower() for token in tokens]


def _is_key(key: str) -> bool:
    try:
        return len(b64decode(key, validate=True)) == 16
    except (NotBase64, ValueError):  # ValueError: not ASCII
        return False


def _accept_of(key: str) -> str:
    return b64encode(sha1(key.encode("ascii") + _ACCEPT_SALT, usedforsecurity=False).digest()).decode("ascii")


def _write_head(first: str, fields: Fields) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in fields)]
    for line in lines:
        if _UNSAFE.search(line):
            raise ValueError(f"not for an HTTP head: {line!r}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def accept_response(key: str, subprotocol: str | None) -> bytes:
    """The 101 that turns the connection into a WebSocket."""
    fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", _accept_of(key))]
    if subprotocol is not None:
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    return _write_head("HTTP/1.1 101 Switching Protocols", fields)


def refuse_response(status: int, code: ErrorCode, message: str, headers: Fields = ()) -> bytes:
    """A whole answer that refuses; the connection is closed behind it.

    Raises:
        ValueError: a header holds what must not be in one.
    """
    body = msgspec.json.encode({"error": {"code": code, "message": message}})
    extra = list(headers)
    # RFC 9110 section 7.8: who sends Upgrade must name it in Connection.
    connection = "close, Upgrade" if any(name.lower() == "upgrade" for name, _ in extra) else "close"
    fields = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", connection),
        *extra,
    ]
    return _write_head(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", fields) + body


def client_request(
    host: str, target: str, subprotocols: Sequence[str] = (), headers: Fields = ()
) -> tuple[bytes, str]:
    """A request for a WebSocket, and the key that `check_response` wants back.

    Args:
        host: of the server, with the port where it is not the scheme's own.
        target: path and query, already encoded.
        subprotocols: what is offered, the favourite first.
        headers: what is sent beside the necessary.

    Raises:
        ValueError: an argument holds what must not be in a request.
    """
    if not _TARGET.fullmatch(target):
        raise ValueError(f"not for an HTTP head: target {target!r}")
    key = b64encode(urandom(16)).decode("ascii")
    fields = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", VERSION),
    ]
    if subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    return _write_head(f"GET {target} HTTP/1.1", [*fields, *headers]), key


def check_response(head: bytes, key: str, subprotocols: Sequence[str] = ()) -> str | None:
    """Returns the sub-protocol that the server chose, if any.

    Args:
        head: the response up to its empty line. What follows is read for the message of a refusal alone.
        key: of the request.
        subprotocols: what the request offered.

    Raises:
        UpgradeRefused: with the status of the answer, and the first line of its body.
    """
    head, _, body = head.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise _refused(0, "the server does not answer in HTTP/1.1")
    status = int(match[1])
    if status != 101:
        first_line = _UNSAFE.sub("?", body.partition(b"\n")[0].rstrip(b"\r").decode(errors="replace"))
        raise _refused(status, f"HTTP {status} {first_line[:_MESSAGE_CHARACTERS]}".rstrip())
    try:
        headers = _parse_fields(lines[1:])
    except UpgradeRefused:
        raise _refused(status, "the server's answer is not readable") from None
    if "websocket" not in _lower(headers.tokens("upgrade")):
        raise _refused(status, "the server upgrades to something else than a WebSocket")
    if "upgrade" not in _lower(headers.tokens("connection")):
        raise _refused(status, "the server's Connection does not list Upgrade")
    accepts = headers.all("sec-websocket-accept")
    if len(accepts) != 1 or not compare_digest(accepts[0].encode("latin-1"), _accept_of(key).encode("ascii")):
        raise _refused(status, "the server's Sec-WebSocket-Accept is wrong")
    if headers.tokens("sec-websocket-extensions"):
        raise _refused(status, "the server uses an extension that was not offered")
    chosen = headers.all("sec-websocket-protocol")
    if not chosen:
        return None
    if len(chosen) > 1 or chosen[0] not in subprotocols:
        raise _refused(status, "the server chose a sub-protocol that was not offered")
    return chosen[0]


def _refused(status: int, message: str) -> UpgradeRefused:
    return UpgradeRefused(status, ErrorCode.BAD_REQUEST, message)
