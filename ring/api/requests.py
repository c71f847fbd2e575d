"""Around every request of the API: its id, which its answer and all its lines in the log carry, and its end.

Outside of everything else, so that a request that fails has its id too.
"""

import re
from secrets import token_hex
from time import monotonic

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"

_TAKEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a client, or a proxy before it, may call its request; else it is called something else."""

_PATH_CHARACTERS = 200
"""Of a path in the log; the query is left out, since names of users are in it."""

_log = structlog.get_logger(__name__)


class Requests:
    """An application, and what is done around it.

    Args:
        app: answers the requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; or takes part in ASGI's lifespan, of which nothing is said."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _TAKEN.fullmatch(given) else token_hex(8)
        began, status = monotonic(), None

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                name = (HEADER.lower().encode(), request_id.encode())
                message = {**message, "headers": [*message["headers"], name]}
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                await self._app(scope, receive, answer)
            finally:
                _log.debug(
                    "request ended",
                    method=scope["method"],
                    path=scope["raw_path"].decode("latin-1")[:_PATH_CHARACTERS],
                    status=status,  # null if the node has stopped meanwhile
                    ms=round((monotonic() - began) * 1000, 1),
                )
