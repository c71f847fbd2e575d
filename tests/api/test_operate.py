"""What operators ask for by HTTP: a drain, another weight."""

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from ring.api import operate
from ring.cluster.view import RingView
from tests.api.test_app import Facts, member, served
from tests.polling import until

KEY = "k" * 32
BEARER = {"Authorization": f"Bearer {KEY}"}


def message(response: httpx.Response) -> str:
    """What an error says."""
    return str(response.json()["error"]["message"])


class TestDrain:
    @pytest.mark.parametrize("body", [b"", b"{}", b'{"node":"n1"}'])
    async def test_it_is_told(self, body: bytes) -> None:
        """At once; what it does then is its own affair."""
        facts = Facts()
        async with served(facts) as http:
            response = await http.post("/v1/drain", content=body)
        assert (response.status_code, response.json()) == (202, {"name": "n1", "state": "draining"})
        assert facts.drain_asked.is_set()

    async def test_another_node_is_told(self) -> None:
        """Any node can be asked to drain any other, with the same key."""
        other = Facts(name="n2")
        async with served(other, KEY) as there:
            view = RingView.build("test", 7, [member("n1"), member("n2", api=there.base_url.netloc.decode())])
            other.view = view
            async with served(facts := Facts(view=view), KEY) as http:
                response = await http.post("/v1/drain", json={"node": "n2"}, headers=BEARER)
        assert (response.status_code, response.json()) == (202, {"name": "n2", "state": "draining"})
        assert other.drain_asked.is_set()
        assert not facts.drain_asked.is_set()

    async def test_another_node_is_at_its_address(self) -> None:
        """What was passed on is not passed on again: it could go in circles."""
        third = Facts(name="n3")
        async with served(third) as there:
            view = RingView.build("test", 7, [member("n1"), member("n2", api=there.base_url.netloc.decode())])
            third.view = RingView.build("test", 7, [member("n2"), member("n3")])
            async with served(Facts(view=view)) as http:
                response = await http.post("/v1/drain", json={"node": "n2"})
        assert (response.status_code, "this is n3, not n2" in message(response)) == (400, True)
        assert not third.drain_asked.is_set()

    async def test_the_other_node_is_gone(self) -> None:
        """It is said; whoever asks twice may find it gone."""
        view = RingView.build("test", 7, [member("n1"), member("n2", api="127.0.0.1:1")])
        async with served(Facts(view=view)) as http:
            response = await http.post("/v1/drain", json={"node": "n2"})
        assert response.status_code == 503
        assert "n2 does not answer at 127.0.0.1:1" in message(response)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b'{"node":"n9"}', "the ring has no node 'n9': it has n1, n2, n3"),
            (b'{"node":""}', "the ring has no node ''"),
            (b'{"name":"n2"}', 'send {"node":"n2"}, or nothing'),
            (b"n2", 'send {"node":"n2"}, or nothing'),
            (b'{"node":2}', 'send {"node":"n2"}, or nothing'),
            (b" " * 5000, "more than 4096 bytes"),
        ],
    )
    async def test_what_cannot_be_done(self, body: bytes, words: str) -> None:
        """It says what can."""
        facts = Facts()
        async with served(facts) as http:
            response = await http.post("/v1/drain", content=body)
        assert (response.status_code, words in message(response)) == (400, True), response.text
        assert not facts.drain_asked.is_set()

    async def test_who_may_not(self) -> None:
        """A page in a browser, whoever has no key; and none may while it joins."""
        facts = Facts()
        async with served(facts) as http:
            response = await http.post("/v1/drain", headers={"Origin": "http://127.0.0.1:7001"})
            assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")
            assert (await http.get("/v1/drain")).status_code == 405
        async with served(facts, KEY) as http:
            assert (await http.post("/v1/drain")).status_code == 401
        assert not facts.drain_asked.is_set()
        async with served(joining := Facts(view=None)) as http:
            assert (await http.post("/v1/drain")).status_code == 503
        assert not joining.drain_asked.is_set()

    async def test_half_a_request(self) -> None:
        """Whoever breaks off has asked for nothing, and it is no error of the node's."""
        facts = Facts()
        async with served(facts) as http:
            host, port = http.base_url.host, http.base_url.port
            assert port is not None
            with capture_logs() as logs:
                async with await trio.open_tcp_stream(host, port) as stream:
                    head = b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
                    await stream.send_all(head + b"{")
                with trio.fail_after(5):
                    await until(lambda: any(log["event"] == "request ended" for log in logs))
        assert [log for log in logs if log["log_level"] == "error"] == []
        assert not facts.drain_asked.is_set()


class TestWeight:
    async def test_it_is_set(self) -> None:
        """Of any node, at any node; it holds from an epoch on."""
        async with served(facts := Facts()) as http:
            response = await http.post("/v1/weight", json={"node": "n2", "weight": 3})
        assert (response.status_code, response.json()) == (200, {"name": "n2", "weight": 3, "epoch": 8})
        assert facts.weights == [("n2", 3)]

    @pytest.mark.parametrize("body", [{}, {"node": "n2"}, {"node": "n2", "weight": "3"}, {"weight": 3}])
    async def test_what_is_no_weight(self, body: dict[str, object]) -> None:
        """It says what is."""
        async with served(facts := Facts()) as http:
            response = await http.post("/v1/weight", json=body)
        assert response.status_code == 400
        assert 'send {"node":"n2","weight":2}' in message(response)
        assert facts.weights == []

    async def test_no_such_node(self) -> None:
        """It says which there are."""
        async with served(facts := Facts()) as http:
            response = await http.post("/v1/weight", json={"node": "n9", "weight": 2})
        assert response.status_code == 400
        assert message(response) == "the ring has no node 'n9': it has n1, n2, n3"
        assert facts.weights == []

    async def test_what_the_cluster_refuses(self) -> None:
        """Its words come through."""
        async with served(Facts()) as http:
            response = await http.post("/v1/weight", json={"node": "n2", "weight": 1001})
        assert (response.status_code, message(response)) == (400, "weight: 1 to 1000")

    async def test_redis_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is changed, as far as anybody knows."""
        monkeypatch.setattr(operate, "OTHER_S", 0.1)
        async with served(Facts()) as http:
            response = await http.post("/v1/weight", json={"node": "n2", "weight": 1000})
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "store_unavailable"

    async def test_who_may_not(self) -> None:
        """As with a drain."""
        facts, body = Facts(), {"node": "n2", "weight": 3}
        async with served(facts) as http:
            assert (await http.post("/v1/weight", json=body, headers={"Origin": "x"})).status_code == 403
        async with served(facts, KEY) as http:
            assert (await http.post("/v1/weight", json=body)).status_code == 401
        async with served(Facts(view=None)) as http:
            assert (await http.post("/v1/weight", json=body)).status_code == 503
        assert facts.weights == []
