"""What a client and a node say to each other: one JSON object per text frame (docs/protocol.md).

`data` travels as `msgspec.Raw`: checked to be JSON once, where it enters, and never parsed or re-encoded.
"""

import json
import re
from collections.abc import Callable
from typing import Literal, get_args

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from ring.protocol.codes import BadRequest, ErrorCode

SUBPROTOCOL = "ring.v1"
CONNECT_PATH = "/v1/connect"


class Send(Struct, tag_field="type", tag="send", gc=False):
    """A direct message; answered by exactly one `receipt` unless `receipt` is false."""

    to: str
    data: Raw
    id: str | None = None
    receipt: bool = True
    again: bool = False
    ttl_s: float | None = None


class Ack(Struct, tag_field="type", tag="ack", gc=False):
    """Acknowledges everything that this session was sent, up to `seq`; answered only if it has an `id`."""

    seq: str
    id: str | UnsetType | None = UNSET


class Join(Struct, tag_field="type", tag="join", gc=False):
    """Makes this session a member of a room; answered `ok` once all that is published from then on comes."""

    id: str
    room: str


class Leave(Struct, tag_field="type", tag="leave", gc=False):
    """Ends the membership; answered `ok`, or `not_joined`."""

    id: str
    room: str


class Publish(Struct, tag_field="type", tag="publish", gc=False):
    """A message to all members of a room, joined or not; this session gets a copy of it only with `echo`."""

    id: str
    room: str
    data: Raw
    echo: bool = False


class Refresh(Struct, tag_field="type", tag="refresh", gc=False):
    """A new token for a session that stays."""

    id: str
    token: str


class Ping(Struct, tag_field="type", tag="ping", gc=False):
    """A liveness check for clients that cannot see WebSocket pings."""

    id: str


ClientMessage = Send | Ack | Join | Leave | Publish | Refresh | Ping


class Limits(Struct, gc=False):
    """What a session may do, as its `welcome` tells it."""

    message_bytes: int
    in_flight: int
    rooms: int = 0  # from a release that has none


class Welcome(Struct, tag_field="type", tag="welcome", omit_defaults=True):
    """The first frame of a session."""

    user: str
    session: str
    device: str
    node: str
    owner: str
    epoch: int
    resumed: bool | Literal["gap"]
    heartbeat_s: float
    server_time: int
    limits: Limits
    expires_at: int | UnsetType = UNSET


class Message(Struct, tag_field="type", tag="message", gc=False):
    """A direct message as its recipient sees it; `from` is null for a backend."""

    from_: str | None = field(name="from")
    id: str | None
    seq: str
    data: Raw
    sent_at: int
    redelivered: bool | UnsetType = UNSET


class Room(Struct, tag_field="type", tag="room", gc=False):
    """A message of a room that this session is a member of; `from` is null for a backend."""

    room: str
    from_: str | None = field(name="from")
    id: str | None
    data: Raw
    sent_at: int


class Receipt(Struct, tag_field="type", tag="receipt", gc=False):
    """What became of a direct message."""

    id: str
    status: Literal["delivered", "queued", "failed"]
    by: Literal["client", "pong"] | UnsetType = UNSET
    code: ErrorCode | UnsetType = UNSET
    message: str | UnsetType = UNSET


class Ok(Struct, tag_field="type", tag="ok", gc=False):
    """The final answer to a frame that was done."""

    id: str


class Error(Struct, tag_field="type", tag="error", gc=False):
    """The final answer to a frame that was refused; without `id` where it could not be attributed.

    With `room` it is about no frame: messages of that room may be missing.
    """

    code: ErrorCode
    message: str
    retryable: bool
    id: str | UnsetType = UNSET
    room: str | UnsetType = UNSET


class Pong(Struct, tag_field="type", tag="pong", gc=False):
    """Answers a `ping` message."""

    id: str


class Reconnect(Struct, tag_field="type", tag="reconnect", gc=False):
    """Asks the client to connect again `after_ms` from now; close 1012 follows."""

    after_ms: int
    reason: str


ServerMessage = Welcome | Message | Room | Receipt | Ok | Error | Pong | Reconnect

encode = msgspec.json.Encoder().encode
"""Any message of this module to the payload of a text frame."""

_decode: Callable[[bytes], ClientMessage] = msgspec.json.Decoder(ClientMessage).decode
_decode_server: Callable[[bytes], ServerMessage] = msgspec.json.Decoder(ServerMessage).decode


class _Head(Struct, gc=False):
    """What can be read of a frame that is no valid message, so that its refusal finds its sender."""

    type: object = None
    id: object = None


_decode_head = msgspec.json.Decoder(_Head).decode
# RecursionError: a message nested deeper than msgspec reads, which skips what nobody wants by recursion too.
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_CLIENT_TYPES = frozenset(t.__struct_config__.tag for t in get_args(ClientMessage))
_SEQ = re.compile("([0-9]{1,18})-([0-9]{1,18})")  # what MessagePack and Redis hold in 64 bits
_SERVER_TYPES = frozenset(t.__struct_config__.tag for t in get_args(ServerMessage))


class Undecodable(BadRequest):
    """A frame that is no message; `id` is the frame's, where one could be read."""

    def __init__(self, message: str, *, code: ErrorCode, id: str | None, type: object) -> None:  # noqa: A002 - the wire's words
        super().__init__(message, code=code)
        self.id = id
        self.type = type


def decode(payload: bytes) -> ClientMessage:
    """A client's frame.

    Raises:
        Undecodable: with code `bad_request` or `unknown_type`.
    """
    try:
        return _decode(payload)
    except _UNDECODABLE as error:
        raise _diagnose(payload, error) from None


def _diagnose(payload: bytes, error: Exception) -> Undecodable:
    try:
        head = _decode_head(payload)
    except _UNDECODABLE:
        head = _lenient_head(payload)
        return Undecodable(
            f"not a message: {error}",
            code=ErrorCode.BAD_REQUEST,
            id=head.id if isinstance(head.id, str) else None,
            type=head.type,
        )
    frame_id = head.id if isinstance(head.id, str) else None
    if isinstance(head.type, str) and head.type not in _CLIENT_TYPES:
        reason = f"unknown type; known: {', '.join(sorted(map(str, _CLIENT_TYPES)))}"
        return Undecodable(reason, code=ErrorCode.UNKNOWN_TYPE, id=frame_id, type=head.type)
    return Undecodable(f"bad message: {error}", code=ErrorCode.BAD_REQUEST, id=frame_id, type=head.type)


def _lenient_head(payload: bytes) -> _Head:
    """Type and id of JSON that is refused for what is elsewhere in it, such as a lone surrogate or a NaN."""
    try:
        found = json.loads(payload.decode())
    except (ValueError, RecursionError):
        return _Head()
    if not isinstance(found, dict):
        return _Head()
    head = _Head(found.get("type"), found.get("id"))
    try:
        encode(head)
    except (UnicodeEncodeError, RecursionError):  # it is they that cannot be told
        return _Head()
    return head


def decode_server(payload: bytes) -> ServerMessage | None:
    """A node's frame as a client reads it; None if its type is one that this release does not know.

    Raises:
        BadRequest: it is no message.
    """
    try:
        return _decode_server(payload)
    except _UNDECODABLE as error:
        try:
            kind = _decode_head(payload).type
        except _UNDECODABLE:
            kind = None
        if isinstance(kind, str) and kind not in _SERVER_TYPES:
            return None
        raise BadRequest(f"the server sent no message: {error}") from None


MAX_DEPTH = 128
"""How deep `data` may be nested. A parser's limit depends on how deep its own stack is: without a bound of
ours, a node could take what a client of the recipient cannot read."""

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def check_depth(data: bytes) -> None:
    """Passes valid JSON that is nested at most `MAX_DEPTH` deep.

    Raises:
        BadRequest: it is nested deeper.
    """
    if len(data) <= 2 * MAX_DEPTH or data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for mark in _STRUCTURE.finditer(data):
        first = data[mark.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BadRequest(f"data: nested more than {MAX_DEPTH} deep")
        elif first in b"]}":
            depth -= 1


def format_seq(epoch: int, number: int) -> str:
    """A position in a mailbox as clients see it: opaque to them, `<epoch>-<counter>` here."""
    return f"{epoch}-{number}"


def parse_seq(seq: str) -> tuple[int, int]:
    """The position that `format_seq` wrote.

    Raises:
        BadRequest: it is none.
    """
    match = _SEQ.fullmatch(seq)
    if match is None:
        raise BadRequest("seq: not one that a node has sent")
    return int(match[1]), int(match[2])
