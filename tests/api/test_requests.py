"""Ids of requests, and the line that each leaves in the log."""

import io
import json
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import capture_logs

from ring import logs
from ring.protocol.codes import RingError
from ring.protocol.peer import SessionEntry
from tests.api.test_app import KEY, Facts, served

HEADER = "x-request-id"


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """What was logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestIds:
    @pytest.mark.parametrize("given", ["a", "A.b-c_9", "x" * 64])
    async def test_one_that_is_given(self, given: str) -> None:
        """It comes back."""
        async with served(Facts()) as http:
            response = await http.get("/healthz", headers={HEADER: given})
        assert response.headers.get_list(HEADER) == [given]

    @pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a/b", "a\tb", "ä"])
    async def test_one_that_is_made(self, given: str | None) -> None:
        """Where there is none, or one that a log or a header should not hold; each time another."""
        headers = {} if given is None else {HEADER: given.encode()}
        async with served(Facts()) as http:
            ids = [
                (await http.get("/healthz", headers=list(headers.items()))).headers[HEADER]  # type: ignore[arg-type] # bytes too
                for _ in range(2)
            ]
        assert len(set(ids)) == 2
        assert all(len(made) == 16 and made.isalnum() for made in ids)

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/v1/ring", 401),
            ("GET", "/nothing", 404),
            ("POST", "/healthz", 405),
            ("GET", "/metrics", 200),
        ],
    )
    async def test_every_answer_has_one(self, method: str, path: str, status: int) -> None:
        """Refusals too."""
        async with served(Facts(), KEY) as http:
            response = await http.request(method, path, headers={HEADER: "mine"})
        assert (response.status_code, response.headers[HEADER]) == (status, "mine")


class TestLog:
    async def test_a_request(self) -> None:
        """Its method, path and status; the query is nobody's business: names of users are in it."""
        stream = io.StringIO()
        with logs.logging("debug", "json", "n1", stream):
            async with served(Facts()) as http:
                await http.get("/v1/users?user=alice", headers={HEADER: "mine"})
                await http.get("/n%2Fo%0Athing?user=alice")
        first, second = lines(stream)
        assert type(first.pop("ms")) is float
        del first["timestamp"]
        assert first == {
            "event": "request ended",
            "node": "n1",
            "request": "mine",
            "method": "GET",
            "path": "/v1/users",
            "status": 200,
            "level": "debug",
        }
        assert (second["path"], second["status"]) == ("/n%2Fo%0Athing", 404)
        assert "alice" not in stream.getvalue()

    async def test_a_long_path(self) -> None:
        """It does not fill the log."""
        with capture_logs() as told:
            async with served(Facts()) as http:
                await http.get("/" + "x" * 5000)
        assert len(told[0]["path"]) == 200

    async def test_it_is_a_detail(self) -> None:
        """At `info` requests are not told."""
        stream = io.StringIO()
        with logs.logging("info", "json", "n1", stream):
            async with served(Facts()) as http:
                await http.get("/v1/ring")
        assert stream.getvalue() == ""

    async def test_all_lines_of_a_request_have_its_id(self) -> None:
        """Whoever logs meanwhile, failures included; and two requests at once do not share one."""
        both = trio.Event()
        waiting = []

        async def whois(user: str) -> list[SessionEntry]:
            waiting.append(user)
            if len(waiting) == 2:
                both.set()
            await both.wait()
            structlog.get_logger().info("looking", what=user)
            if user == "a":
                raise ZeroDivisionError
            raise RingError("no")

        stream = io.StringIO()
        with logs.logging("debug", "json", "n1", stream):
            async with served(Facts(answer=whois)) as http, trio.open_nursery() as nursery:

                async def ask(user: str) -> None:
                    response = await http.get(f"/v1/users?user={user}", headers={HEADER: f"of-{user}"})
                    assert response.headers[HEADER] == f"of-{user}"

                for user in ("a", "b"):
                    nursery.start_soon(ask, user)
            structlog.get_logger().info("afterwards")
        *told, afterwards = lines(stream)
        assert {(line["event"], line.get("what"), line["request"]) for line in told} == {
            ("looking", "a", "of-a"),
            ("looking", "b", "of-b"),
            ("request failed", None, "of-a"),
            ("request ended", None, "of-a"),
            ("request ended", None, "of-b"),
        }
        assert "request" not in afterwards

    async def test_a_request_that_is_cut_off(self) -> None:
        """By the end of the node: it has ended all the same, without a status."""
        asked = trio.Event()

        async def whois(_user: str) -> list[SessionEntry]:
            asked.set()
            await trio.sleep_forever()
            raise AssertionError

        with capture_logs() as told:
            async with served(Facts(answer=whois)) as http:
                stream = await trio.open_tcp_stream(http.base_url.host, http.base_url.port or 0)
                await stream.send_all(b"GET /v1/users?user=bob HTTP/1.1\r\nHost: x\r\n\r\n")
                await asked.wait()
            await stream.aclose()
        assert [(line["event"], line["status"]) for line in told] == [("request ended", None)]
