"""A node's HTTP: health for balancers, metrics, the ring for people and scripts, and what operators ask for.

`node` makes the `application` from what the API needs to know (`NodeFacts`) and runs it on Hypercorn's Trio
server. Names of users come in queries only, never in paths: they may contain anything, `/` included.
"""

import hmac
import socket
from collections.abc import Iterable
from functools import partial
from itertools import groupby
from typing import Any, Literal, Protocol

import hypercorn
import msgspec
import structlog
import trio
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ring.api import operate
from ring.api.answers import answer, error_answer, ring_of
from ring.api.metrics import Exposition, Reading
from ring.api.operate import OperatedNode
from ring.api.requests import Requests
from ring.protocol.codes import ErrorCode, RingError
from ring.protocol.names import SLOTS, check_name, parse_query, slot_of
from ring.protocol.peer import SessionEntry
from ring.transport.address import join_address, open_listener

NodeState = Literal["joining", "up", "draining", "isolated"]

WHOIS_S = 2.0
"""How long a user's owner may take to say where the user is."""

UNREAD_MS = 10_000
"""How long a client may leave an answer unread before the kernel ends its connection."""

log = structlog.get_logger(__name__)


class NodeFacts(OperatedNode, Protocol):
    """What the API reads of the node that it is a part of, and sets; `whois` and `set_weight` ask others."""

    @property
    def state(self) -> NodeState:
        """Whether the node serves clients."""

    @property
    def degraded(self) -> list[str]:
        """What the node has to do without, as in `["redis"]`; empty if nothing."""

    def figures(self) -> dict[str, float]:
        """The node's own counts, by name: `sessions`, `users`, `lease_age_s` and whatever else it counts."""

    def readings(self) -> Iterable[Reading]:
        """All that the node counts, for `/metrics`."""

    def links(self) -> dict[str, str]:
        """The state of the link to each other member, by its name: `up`, or what it is instead."""

    def sessions_by_slot(self) -> dict[int, int]:
        """How many sessions the node has, by the slot of their users; slots without any are left out."""

    async def whois(self, user: str) -> list[SessionEntry]:
        """The sessions of `user`, as the user's owner knows them.

        Raises:
            RingError: the owner cannot be asked.
        """


def application(node: NodeFacts, api_key: str | None) -> ASGIApp:
    """The HTTP application of a node.

    Args:
        node: the node.
        api_key: asked for on everything below `/v1/`; None asks for nothing.
    """
    routes = [
        Route(path, partial(endpoint, node), methods=["GET"])
        for path, endpoint in (
            ("/healthz", _healthz),
            ("/readyz", _readyz),
            ("/v1/ring", _ring),
            ("/v1/nodes", _nodes),
            ("/v1/slots", _slots),
            ("/v1/users", _users),
        )
    ]
    routes += [
        Route("/v1/drain", partial(operate.drain, node), methods=["POST"]),
        Route("/v1/weight", partial(operate.weigh, node), methods=["POST"]),
    ]
    metrics = Route("/metrics", partial(_metrics, Exposition(node.readings)), methods=["GET"])
    app = Starlette(
        routes=[*routes, metrics],
        exception_handlers={HTTPException: _on_http_error, RingError: _on_ring_error, Exception: _on_bug},
    )
    if api_key is not None:
        app.add_middleware(_Keyed, key=api_key)
    return Requests(app)


async def run(
    app: ASGIApp, address: str, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serves `app` until cancelled; started with the address that it got (port 0 takes a free one).

    Raises:
        BadRequest: it is not an address.
        CannotListen: it cannot be listened at.
    """
    listener = open_listener(address)
    bound = join_address(listener.getsockname())
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Hypercorn shields its sends: a client that reads nothing could keep the node from stopping.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
    config = hypercorn.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None  # what fails in here is logged here
    config.include_server_header = False
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, app, config)
        task_status.started(bound)


async def _healthz(_node: NodeFacts, _request: Request) -> Response:
    return answer({"state": "alive"})


async def _readyz(node: NodeFacts, _request: Request) -> Response:
    if node.state != "up":
        return answer({"state": node.state}, 503)
    return answer({"state": "up", "degraded": node.degraded})


async def _metrics(exposition: Exposition, request: Request) -> Response:
    page, content_type = exposition.page(request.headers.get("accept", ""))
    return Response(page, headers={"Content-Type": content_type})


async def _ring(node: NodeFacts, request: Request) -> Response:
    view = ring_of(node)
    shares = view.shares()
    content: dict[str, Any] = {
        "cluster": view.cluster,
        "epoch": view.epoch,
        "members_hash": view.members_hash,
        "slots": SLOTS,
        "nodes": [
            {
                "name": member.name,
                "slots": shares[member.name],
                "share": shares[member.name] / SLOTS,
                "weight": member.weight,
                "state": member.state,
            }
            for member in view.members
        ],
    }
    if _query(request).get("table") == "1":
        content["owners"] = _ranges(view.owners)
    return answer(content)


def _ranges(owners: list[str]) -> list[dict[str, Any]]:
    ranges = []
    first = 0
    for owner, run_of in groupby(owners):
        count = sum(1 for _ in run_of)
        ranges.append({"first": first, "last": first + count - 1, "owner": owner})
        first += count
    return ranges


async def _nodes(node: NodeFacts, _request: Request) -> Response:
    view = ring_of(node)
    shares = view.shares()
    links = node.links()
    nodes = []
    for member in view.members:
        entry: dict[str, Any] = {
            "name": member.name,
            "incarnation": member.incarnation,
            "state": member.state,
            "edge": member.edge,
            "peer": member.peer,
            "api": member.api,
            "weight": member.weight,
            "version": member.version,
            "slots": shares[member.name],
            "share": shares[member.name] / SLOTS,
        }
        if member.name == node.name:
            entry["self"] = {
                "state": node.state,
                "degraded": node.degraded,
                "epoch": view.epoch,
                **node.figures(),
            }
        else:
            entry["link"] = links.get(member.name, "none")
        nodes.append(entry)
    return answer({"nodes": nodes})


async def _slots(node: NodeFacts, _request: Request) -> Response:
    # By slot, since who the users are is nobody's business who plans a change of the ring.
    return answer({"epoch": ring_of(node).epoch, "sessions": node.sessions_by_slot()})


async def _users(node: NodeFacts, request: Request) -> Response:
    user = check_name(_query(request).get("user", ""), "user")
    view = ring_of(node)
    slot = slot_of(user)
    try:
        with trio.fail_after(WHOIS_S):
            sessions = await node.whois(user)
    except trio.TooSlowError:
        raise RingError(
            "the user's owner does not answer; try again", code=ErrorCode.OWNER_UNAVAILABLE
        ) from None
    return answer(
        {
            "user": user,
            "slot": slot,
            "owner": view.owner_of_slot(slot) or None,
            # Of a view that nobody asked before this may take some milliseconds of computing.
            "successor": await trio.to_thread.run_sync(view.successor_of_slot, slot) or None,
            "epoch": view.epoch,
            "sessions": [msgspec.structs.asdict(session) for session in sessions],
        }
    )


def _query(request: Request) -> dict[str, str]:
    # Of ASCII alone: h11 refuses the rest.
    return parse_query(request.scope["query_string"].decode("latin-1"))


_STATUS = {
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.INTERNAL: 500,
}


async def _on_ring_error(_request: Request, error: Exception) -> Response:
    code = error.code if isinstance(error, RingError) else ErrorCode.INTERNAL
    return error_answer(_STATUS.get(code, 503 if code.retryable else 409), code, str(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    status, headers = 400, None
    message = "bad request"
    if isinstance(error, HTTPException):
        status, headers = error.status_code, dict(error.headers or {})
        message = {404: "no such path", 405: f"{request.method} is not for this path"}.get(
            status, error.detail
        )
    return error_answer(status, ErrorCode.BAD_REQUEST, message, headers)


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return error_answer(500, ErrorCode.INTERNAL, "the node failed at this; its log says why")


class _Keyed:
    """Lets only those in who have the key, but for the health checks."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(given, self._expected):
                response = error_answer(
                    401,
                    ErrorCode.UNAUTHENTICATED,
                    "send the key of the API as 'Authorization: Bearer <key>'",
                    {"WWW-Authenticate": "Bearer"},
                )
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
