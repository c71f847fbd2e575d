"""A node of canned answers, for commands that ask one, and what nodes answer."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ring.cluster.view import RingView
from ring.protocol.peer import MemberEntry

NOWHERE = "127.0.0.1:1"
"""Nobody listens there."""


class CannedNode:
    """An HTTP server that answers what the test says, and remembers what it was asked.

    Attributes:
        answers: by path: (status, JSON); what is missing is 404.
        asked: (path with query, value of Authorization).
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str | None]] = []
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                node.asked.append((self.path, self.headers["Authorization"]))
                missing = (404, {"error": {"code": "bad_request", "message": "no such path"}})
                status, content = node.answers.get(self.path.partition("?")[0], missing)
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # some tests are 128 nodes

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def close(self) -> None:
        """Nobody listens there any more."""
        self._server.shutdown()
        self._server.server_close()


def entry(name: str, api: str, **changes: Any) -> dict[str, Any]:
    """A node in the answer to GET /v1/nodes."""
    return {
        "name": name,
        "incarnation": "i",
        "state": "up",
        "edge": f"{name}.test:8001",
        "peer": f"{name}.test:9001",
        "api": api,
        "weight": 1,
        "version": "0.1.0",
        "slots": 8192,
        "share": 0.5,
        **changes,
    }


def own(**changes: Any) -> dict[str, Any]:
    """What a node says of itself there."""
    figures = {
        "sessions": 5,
        "users": 4,
        "off_owner": 2,
        "lease_age_s": 0.2504,
        "lag_ms": 1.25,
        "anything": 1,
    }
    return {"state": "up", "degraded": [], "epoch": 7, **figures, **changes}


def two_nodes(canned: CannedNode, *, link: str = "up", other_api: str | None = None, **figures: Any) -> None:
    """Both nodes' APIs are at the canned one, which answers as n1; n2 may be elsewhere."""
    canned.answers["/v1/ring"] = (200, {"cluster": "test", "epoch": 7, "slots": 16384})
    nodes = [
        entry("n1", canned.address, self=own(**figures)),
        entry("n2", other_api or canned.address, link=link, self=own(state="draining")),
    ]
    canned.answers["/v1/nodes"] = (200, {"nodes": nodes})


def ring_of(canned: CannedNode, size: int, *, link: str = "up", **figures: Any) -> None:
    """As many nodes, all of them at the canned one; `link` is how each stands to the last."""
    names = [f"n{number}" for number in range(1, size + 1)]
    epoch = figures.setdefault("epoch", 7)
    canned.answers["/v1/ring"] = (200, {"cluster": "test", "epoch": epoch})
    ring = [MemberEntry(name, "", "", "", "", 1, "up", "") for name in names]
    slots = RingView.build("test", 1, ring).shares()
    for asked in names:
        nodes = []
        for name in names:
            node = entry(name, f"{canned.address}/{name}", slots=slots[name], share=slots[name] / 16384)
            if name == asked:
                node["self"] = own(**figures)
            else:
                node["link"] = link if name == names[-1] else "up"
            nodes.append(node)
        canned.answers[f"/{asked}/v1/nodes"] = (200, json.dumps({"nodes": nodes}).encode())
    canned.answers["/v1/nodes"] = canned.answers["/n1/v1/nodes"]


def members() -> list[MemberEntry]:
    """Two nodes as Redis knows them."""
    return [
        MemberEntry(name, "i", f"{name}:1", f"{name}:2", f"{name}:3", 1, "up", "0.1.0")
        for name in ("n1", "n2")
    ]
