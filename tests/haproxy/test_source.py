"""Where the agent learns the ring: what it makes of answers, and of none."""

from typing import Any

import httpx
import pytest
import trio

from ring.haproxy.source import Nodes, NoRing, Store

NODE: dict[str, Any] = {
    "incarnation": "1",
    "state": "up",
    "edge": "127.0.0.1:8001",
    "peer": "",
    "api": "127.0.0.1:7001",
    "weight": 1,
    "version": "1",
    "slots": 1,
}


class World:
    """Nodes' APIs, by their addresses."""

    def __init__(self) -> None:
        self.answers: dict[str, httpx.Response | None] = {}
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        where = f"{request.url.host}:{request.url.port}"
        self.asked.append(where)
        answer = self.answers.get(where)
        if answer is None:
            raise httpx.ConnectError("refused")
        return answer

    def nodes(self, *urls: str) -> Nodes:
        """A source that asks these."""
        nodes = Nodes(urls)
        nodes._http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return nodes


def ring(*names: str, asked: str = "n1", state: str = "up", epoch: int = 5) -> httpx.Response:
    """What a node of these answers."""
    nodes = [
        NODE
        | {"name": name, "api": f"127.0.0.1:700{name[1:]}"}
        | ({"self": {"state": state, "epoch": epoch, "degraded": []}} if name == asked else {})
        for name in names
    ]
    return httpx.Response(200, json={"nodes": nodes})


async def test_the_first_that_answers() -> None:
    """And then the others that it names: those that were given may be gone one day."""
    world = World()
    world.answers["127.0.0.1:7001"] = ring("n1", "n2")
    source = world.nodes("http://127.0.0.1:7009", "http://127.0.0.1:7001")
    view = await source.read()
    assert (view.epoch, view.names) == (5, ("n1", "n2"))
    assert world.asked == ["127.0.0.1:7009", "127.0.0.1:7001"]
    assert await source.read() is view, "nothing has changed"
    world.answers = {"127.0.0.1:7002": ring("n2", asked="n2", epoch=6)}
    assert (await source.read()).names == ("n2",)
    assert world.asked[2:] == ["127.0.0.1:7001", "127.0.0.1:7001", "127.0.0.1:7002"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, r"no answer from http://127.0.0.1:7001 \(ConnectError\)"),
        (httpx.Response(401, json={}), "asks for a key, or for another: give --api-key-file"),
        (httpx.Response(502, text="Bad Gateway"), "answers HTTP 502, and no ring"),
        (ring("n1", state="isolated"), "http://127.0.0.1:7001 is isolated"),
        (ring("n1", asked="nobody"), "http://127.0.0.1:7001 is no member"),
    ],
)
async def test_who_cannot_say(answer: httpx.Response | None, why: str) -> None:
    """Is passed over; if there is nobody else, it says why."""
    world = World()
    world.answers = {"127.0.0.1:7001": answer}
    with pytest.raises(NoRing, match=why):
        await world.nodes("http://127.0.0.1:7001").read()
    world.answers["127.0.0.1:7002"] = ring("n2", asked="n2")
    assert (await world.nodes("http://127.0.0.1:7001", "http://127.0.0.1:7002").read()).names == ("n2",)


async def test_no_redis(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """It says where it should be."""
    source = Store("redis://127.0.0.1:1/0", "test")
    with pytest.raises(NoRing, match=r"no answer from Redis at 127.0.0.1:1"):
        await source.read()
