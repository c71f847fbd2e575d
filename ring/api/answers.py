"""What all paths of the API answer with, and ask of the node first."""

from typing import Protocol

import msgspec
from starlette.responses import Response

from ring.cluster.view import RingView
from ring.protocol.codes import ErrorCode, RingError


class HasView(Protocol):
    """A node that may know a ring."""

    @property
    def view(self) -> RingView | None:
        """The ring that the node routes by; None while it is joining."""


def answer(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def error_answer(
    status: int, code: ErrorCode, message: str, headers: dict[str, str] | None = None
) -> Response:
    """An error, in the one form that all have."""
    return answer({"error": {"code": code, "message": message}}, status, headers)


def ring_of(node: HasView) -> RingView:
    """The ring that the node routes by.

    Raises:
        RingError: it knows none yet.
    """
    if node.view is None:
        raise RingError("the node is still joining; try again", code=ErrorCode.OWNER_UNAVAILABLE)
    return node.view
