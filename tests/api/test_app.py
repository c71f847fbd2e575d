"""A node's HTTP, on a real Hypercorn on loopback, with a node that is made of facts alone."""

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import structlog
import trio

from ring.api.app import NodeState, application, run
from ring.api.metrics import Metric, Reading
from ring.cluster.view import RingView
from ring.protocol.codes import BadRequest, ErrorCode, RingError
from ring.protocol.names import SLOTS, slot_of
from ring.protocol.peer import MemberEntry, SessionEntry
from ring.transport.address import CannotListen

KEY = "a key of the API that is long enough"


def member(name: str, **changes: object) -> MemberEntry:
    """A member of the ring."""
    number = name[1:]
    facts: dict[str, object] = {
        "name": name,
        "incarnation": f"inc-{name}",
        "edge": f"127.0.0.1:800{number}",
        "peer": f"127.0.0.1:900{number}",
        "api": f"127.0.0.1:700{number}",
        "weight": 1,
        "state": "up",
        "version": "0.1.0",
    }
    return MemberEntry(**(facts | changes))  # type: ignore[arg-type] # the names are those of the fields


VIEW = RingView.build("test", 7, [member("n1"), member("n2"), member("n3", state="draining")])
ALONE = RingView.build("test", 3, [member("n1")])
NOBODY = RingView.build("test", 4, [member("n1", state="draining")])


async def _no_sessions(_user: str) -> list[SessionEntry]:
    return []


@dataclass
class Facts:
    """A node that is what the test says."""

    name: str = "n1"
    state: NodeState = "up"
    degraded: list[str] = field(default_factory=list)
    view: RingView | None = VIEW
    answer: Callable[[str], Awaitable[list[SessionEntry]]] = _no_sessions

    drain_asked: trio.Event = field(default_factory=trio.Event)
    weights: list[tuple[str, int]] = field(default_factory=list)

    async def set_weight(self, name: str, weight: int) -> int:
        self.weights.append((name, weight))
        if weight > 1000:
            raise BadRequest("weight: 1 to 1000")
        if weight == 1000:
            await trio.sleep_forever()  # Redis is away
        return 8

    def figures(self) -> dict[str, float]:
        return {"sessions": 5, "users": 4, "lease_age_s": 0.5}

    def readings(self) -> list[Reading]:
        return [(Metric("ring_things_total", "counter", "things", (), "clients"), 3)]

    def links(self) -> dict[str, str]:
        return {"n2": "up"}

    def sessions_by_slot(self) -> dict[int, int]:
        return {5: 2, 16383: 1}

    async def whois(self, user: str) -> list[SessionEntry]:
        return await self.answer(user)


@asynccontextmanager
async def served(facts: Facts, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that node's API."""
    async with trio.open_nursery() as nursery:
        address = await nursery.start(run, application(facts, key), "127.0.0.1:0")
        with trio.fail_after(10):
            async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
                yield http
        nursery.cancel_scope.cancel()


class TestHealth:
    async def test_alive(self) -> None:
        """A process that answers is alive, whatever it does without."""
        async with served(Facts(state="isolated", view=None)) as http:
            response = await http.get("/healthz")
        assert (response.status_code, response.json()) == (200, {"state": "alive"})
        assert response.headers["content-type"] == "application/json"

    @pytest.mark.parametrize("state", ["joining", "draining", "isolated"])
    async def test_not_ready(self, state: NodeState) -> None:
        """A balancer sends nobody to a node in these states."""
        async with served(Facts(state=state)) as http:
            response = await http.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"state": state})

    async def test_ready(self) -> None:
        """A node that does without Redis still serves."""
        async with served(Facts(degraded=["redis"])) as http:
            response = await http.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"state": "up", "degraded": ["redis"]})


class TestRing:
    async def test_the_ring(self) -> None:
        """Who owns how much."""
        async with served(Facts()) as http:
            ring = (await http.get("/v1/ring")).json()
        nodes = ring.pop("nodes")
        assert ring == {"cluster": "test", "epoch": 7, "members_hash": VIEW.members_hash, "slots": SLOTS}
        assert [(node["name"], node["state"], node["weight"]) for node in nodes] == [
            ("n1", "up", 1),
            ("n2", "up", 1),
            ("n3", "draining", 1),
        ]
        assert [node["slots"] for node in nodes] == list(VIEW.shares().values())
        assert [node["share"] for node in nodes] == [slots / SLOTS for slots in VIEW.shares().values()]

    async def test_the_table(self) -> None:
        """Every slot is in one of the ranges, with its owner."""
        async with served(Facts()) as http:
            ranges = (await http.get("/v1/ring?table=1")).json()["owners"]
        assert [part["first"] for part in ranges] == [0, *(part["last"] + 1 for part in ranges[:-1])]
        spread = [part["owner"] for part in ranges for _ in range(part["first"], part["last"] + 1)]
        assert spread == VIEW.owners

    async def test_the_nodes(self) -> None:
        """The node tells what it counts itself, and whether it is linked to the others."""
        async with served(Facts(degraded=["redis"])) as http:
            first, second, third = (await http.get("/v1/nodes")).json()["nodes"]
        assert first == {
            "name": "n1",
            "incarnation": "inc-n1",
            "state": "up",
            "edge": "127.0.0.1:8001",
            "peer": "127.0.0.1:9001",
            "api": "127.0.0.1:7001",
            "weight": 1,
            "version": "0.1.0",
            "slots": VIEW.shares()["n1"],
            "share": VIEW.shares()["n1"] / SLOTS,
            "self": {
                "state": "up",
                "degraded": ["redis"],
                "epoch": 7,
                "sessions": 5,
                "users": 4,
                "lease_age_s": 0.5,
            },
        }
        assert (second["name"], second["link"]) == ("n2", "up")
        assert (third["name"], third["link"]) == ("n3", "none")

    async def test_the_sessions_by_slot(self) -> None:
        """What a change of the ring would move, without a word of who they are."""
        async with served(Facts()) as http:
            slots = (await http.get("/v1/slots")).json()
        assert slots == {"epoch": 7, "sessions": {"5": 2, "16383": 1}}

    @pytest.mark.parametrize("path", ["/v1/ring", "/v1/nodes", "/v1/slots", "/v1/users?user=bob"])
    async def test_before_there_is_one(self, path: str) -> None:
        """A node that is joining says so, in a way that can be tried again."""
        async with served(Facts(state="joining", view=None)) as http:
            response = await http.get(path)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "owner_unavailable"


class TestUsers:
    async def test_where_a_user_is(self) -> None:
        """Slot, owner and successor by the ring; sessions as the owner tells them. Names may be anything."""
        asked = []

        async def whois(user: str) -> list[SessionEntry]:
            asked.append(user)
            return [SessionEntry("s1", "phone", "n2", "127.0.0.1:5", 3)]

        async with served(Facts(answer=whois)) as http:
            found = (await http.get("/v1/users", params={"user": "a/b c+é"})).json()
        assert asked == ["a/b c+é"]
        slot = slot_of("a/b c+é")
        owner, successor = VIEW.owner_of_slot(slot), VIEW.successor_of_slot(slot)
        assert {owner, successor} == {"n1", "n2"}
        assert found == {
            "user": "a/b c+é",
            "slot": slot,
            "owner": owner,
            "successor": successor,
            "epoch": 7,
            "sessions": [
                {
                    "session": "s1",
                    "device": "phone",
                    "gateway": "n2",
                    "address": "127.0.0.1:5",
                    "unacknowledged": 3,
                }
            ],
        }

    @pytest.mark.parametrize(("view", "owner"), [(ALONE, "n1"), (NOBODY, None)])
    async def test_where_there_is_nobody_else(self, view: RingView, owner: str | None) -> None:
        """What there is none of is null, and no empty name."""
        async with served(Facts(view=view)) as http:
            found = (await http.get("/v1/users?user=bob")).json()
        assert (found["owner"], found["successor"], found["sessions"]) == (owner, None, [])

    @pytest.mark.parametrize(
        "query", ["", "?user=", "?user=%00", "?user=%FF", "?name=bob", "?user=" + "x" * 256]
    )
    async def test_no_user(self, query: str) -> None:
        """What cannot be a user's name is refused."""
        async with served(Facts()) as http:
            response = await http.get("/v1/users" + query)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "bad_request"

    async def test_bytes_that_are_no_ascii(self) -> None:
        """A query that is not form-encoded is refused, and no bug."""
        async with served(Facts()) as http:
            stream = await trio.open_tcp_stream(http.base_url.host, http.base_url.port or 0)
            async with stream:
                await stream.send_all(
                    b"GET /v1/users?user=\xc3\xa9 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                )
                answer = b"".join([chunk async for chunk in stream])
        assert answer.startswith(b"HTTP/1.1 400")

    async def test_an_owner_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The wait for the owner is bounded."""
        monkeypatch.setattr("ring.api.app.WHOIS_S", 0)

        async def never(_user: str) -> list[SessionEntry]:
            await trio.sleep_forever()
            raise AssertionError

        async with served(Facts(answer=never)) as http:
            response = await http.get("/v1/users?user=bob")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "owner_unavailable"

    async def test_an_owner_that_cannot_be_asked(self) -> None:
        """The node's own words reach the client."""

        async def fails(_user: str) -> list[SessionEntry]:
            raise RingError("no link to n2", code=ErrorCode.OWNER_UNAVAILABLE)

        async with served(Facts(answer=fails)) as http:
            response = await http.get("/v1/users?user=bob")
        assert response.status_code == 503
        assert response.json() == {"error": {"code": "owner_unavailable", "message": "no link to n2"}}


class TestErrors:
    async def test_no_such_path(self) -> None:
        """All errors have one form."""
        async with served(Facts()) as http:
            response = await http.get("/v1/nothing")
        assert response.status_code == 404
        assert response.json() == {"error": {"code": "bad_request", "message": "no such path"}}

    async def test_another_method(self) -> None:
        """The methods that there are come in the header."""
        async with served(Facts()) as http:
            response = await http.post("/v1/ring")
        assert response.status_code == 405
        assert response.json() == {"error": {"code": "bad_request", "message": "POST is not for this path"}}
        assert "GET" in response.headers["allow"]

    async def test_a_bug(self) -> None:
        """It is logged once, whole; the client learns no more than that; the node goes on."""

        async def buggy(user: str) -> list[SessionEntry]:
            raise ZeroDivisionError(user)

        with structlog.testing.capture_logs() as logs:
            async with served(Facts(answer=buggy)) as http:
                response = await http.get("/v1/users?user=bob")
                after = await http.get("/healthz")
        assert response.status_code == 500
        assert response.json()["error"] == {
            "code": "internal",
            "message": "the node failed at this; its log says why",
        }
        assert after.status_code == 200
        [entry] = [log for log in logs if log["log_level"] == "error"]
        assert isinstance(entry["exc_info"], ZeroDivisionError)
        assert entry["path"] == "/v1/users"


class TestKey:
    @pytest.mark.parametrize(
        "given", [None, "", "Bearer", "Bearer wrong", KEY, f"bearer {KEY}x", "Bearer ключ"]
    )
    async def test_without_the_key(self, given: str | None) -> None:
        """The ring is shown to nobody who lacks it; health checks need none."""
        headers = httpx.Headers({} if given is None else {b"Authorization": given.encode()})
        async with served(Facts(), KEY) as http:
            for path in ("/v1/ring", "/v1/slots", "/v1/nothing"):
                response = await http.get(path, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                assert response.json()["error"]["code"] == "unauthenticated"
            for path in ("/healthz", "/readyz"):
                assert (await http.get(path, headers=headers)).status_code == 200

    async def test_with_the_key(self) -> None:
        """As a bearer token."""
        async with served(Facts(), KEY) as http:
            response = await http.get("/v1/ring", headers={"Authorization": f"Bearer {KEY}"})
        assert response.status_code == 200


class TestRunning:
    async def test_a_port_that_is_taken(self) -> None:
        """The caller gets the system's word for it."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(CannotListen, match="Address already in use"):
                await run(application(Facts(), None), address)

    async def test_ipv6(self) -> None:
        """Addresses of IPv6 are in brackets, on the way in and out."""
        async with trio.open_nursery() as nursery:
            address = await nursery.start(run, application(Facts(), None), "[::1]:0")
            async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
                assert (await http.get("/healthz")).status_code == 200
            nursery.cancel_scope.cancel()
        assert address.startswith("[::1]:")

    async def test_it_ends_at_once(self) -> None:
        """Neither idle connections nor requests under way hold it up."""
        arrived = trio.Event()

        async def slow(_user: str) -> list[SessionEntry]:
            arrived.set()
            await trio.sleep_forever()
            raise AssertionError

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                address = await nursery.start(run, application(Facts(answer=slow), None), "127.0.0.1:0")
                host, port = address.split(":")
                idle = await trio.open_tcp_stream(host, int(port))
                busy = await trio.open_tcp_stream(host, int(port))
                await busy.send_all(b"GET /v1/users?user=bob HTTP/1.1\r\nHost: x\r\n\r\n")
                await arrived.wait()
                nursery.cancel_scope.cancel()
        for stream in (idle, busy):
            await stream.aclose()

    async def test_a_client_that_breaks_off(self) -> None:
        """A connection that is reset in the middle of a request disturbs nobody."""
        async with served(Facts()) as http:
            rude = await trio.open_tcp_stream(http.base_url.host, http.base_url.port or 0)
            await rude.send_all(b"GET /v1/ring?table=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await rude.aclose()
            assert (await http.get("/healthz")).status_code == 200
