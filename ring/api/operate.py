"""What an operator has a cluster do by HTTP, at any of its nodes: drain a node, give one another weight."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib import import_module
from typing import Protocol, TypeVar

import msgspec
import structlog
import trio
from msgspec import Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ring.api.answers import HasView, answer, ring_of
from ring.cluster.view import Member
from ring.protocol.codes import BadRequest, ErrorCode, RingError

FORWARDED = "x-ring-forwarded"
"""Says that a node passes this on: it is not passed on again."""

BODY_BYTES = 4096
"""Longer than what can be asked for here."""

OTHER_S = 2.0
"""How long another node, or Redis, may take to answer: less than commands wait for us (`ring.cli.reach`)."""

T = TypeVar("T", bound=Struct)

log = structlog.get_logger(__name__)


class OperatedNode(HasView, Protocol):
    """What this needs of the node."""

    @property
    def name(self) -> str:
        """The node's own name."""

    @property
    def drain_asked(self) -> trio.Event:
        """Set to have the node drain and end."""

    async def set_weight(self, name: str, weight: int) -> int:
        """Gives a member another weight; returns the epoch from which it holds.

        Raises:
            RingError: there is no such member, or no such weight.
        """


class _Drain(Struct, forbid_unknown_fields=True):
    node: str | None = None  # the one that is asked, if it names none


class _Weight(Struct, forbid_unknown_fields=True):
    node: str
    weight: int


async def drain(node: OperatedNode, request: Request) -> Response:
    """`POST /v1/drain`, of this node or of another one."""
    _forbid_pages(request)
    asked = await _body(request, _Drain, '{"node":"n2"}, or nothing')
    name = node.name if asked.node is None else asked.node
    member = _member(node, name)
    if name == node.name:
        log.info("told to drain", node=name)
        node.drain_asked.set()
        return answer({"name": name, "state": "draining"}, 202)
    if FORWARDED in request.headers:
        raise BadRequest(f"this is {node.name}, not {name}: check the api_advertise of both")
    return await _forward(name, member.api, request)


async def _forward(name: str, api: str, request: Request) -> Response:
    """Passes a drain on to the node that it is for."""
    # It takes a while, and most nodes never pass anything on.
    httpx = await trio.to_thread.run_sync(import_module, "httpx")
    passed_on = ("authorization", "x-request-id")
    headers = {name: value for name, value in request.headers.items() if name in passed_on}
    try:
        async with httpx.AsyncClient(timeout=OTHER_S, trust_env=False) as http:
            response = await http.post(
                f"http://{api}/v1/drain", json={"node": name}, headers={**headers, FORWARDED: "1"}
            )
    except httpx.HTTPError as error:
        raise RingError(
            f"{name} does not answer at {api} ({type(error).__name__}): was it told already?",
            code=ErrorCode.OWNER_UNAVAILABLE,
        ) from None
    return Response(response.content, response.status_code, media_type="application/json")


async def weigh(node: OperatedNode, request: Request) -> Response:
    """`POST /v1/weight`, of any node; what it holds from is an epoch."""
    _forbid_pages(request)
    asked = await _body(request, _Weight, '{"node":"n2","weight":2}')
    _member(node, asked.node)
    try:
        with trio.fail_after(OTHER_S):
            epoch = await node.set_weight(asked.node, asked.weight)
    except trio.TooSlowError:
        raise RingError(
            "Redis does not answer: weights are kept there", code=ErrorCode.STORE_UNAVAILABLE
        ) from None
    log.info("given another weight", node=asked.node, weight=asked.weight, epoch=epoch)
    return answer({"name": asked.node, "weight": asked.weight, "epoch": epoch})


def _forbid_pages(request: Request) -> None:
    """Any page that the user of this machine looks at could ask for it, where there is no key."""
    if "origin" in request.headers:
        raise RingError("no page may do this: use `ring`, or curl", code=ErrorCode.FORBIDDEN)


def _member(node: OperatedNode, name: str) -> Member:
    view = ring_of(node)
    member = view.member(name)
    if member is None:
        raise BadRequest(f"the ring has no node {name!r}: it has {', '.join(view.names)}")
    return member


async def _body(request: Request, kind: type[T], example: str) -> T:
    try:
        content = await _read(request.stream())
    except ClientDisconnect:
        raise BadRequest("the rest of the request did not come") from None
    try:
        return msgspec.json.decode(content or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise BadRequest(f"{error}: send {example}") from None


async def _read(stream: AsyncGenerator[bytes, None]) -> bytes:
    content = b""
    async with aclosing(stream):
        async for part in stream:
            content += part
            if len(content) > BODY_BYTES:
                raise BadRequest(f"more than {BODY_BYTES} bytes")
    return content
