"""The agent on a real HAProxy, and rings of nodes that need not exist."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ring.haproxy.agent import BACKEND, MAP, Agent, OtherEpoch, TooFewPlaces
from ring.haproxy.config import Options
from ring.haproxy.program import Balancer
from ring.haproxy.runtime import HAProxyRefused, HAProxySilent, Runtime
from ring.haproxy.wanted import EPOCH, Server, Wanted
from ring.protocol.codes import RingError
from ring.protocol.names import SLOTS
from tests.haproxy.programs import PROGRAMS
from tests.ports import own_port

PLACES = 3


@pytest.fixture(params=PROGRAMS)
async def balancer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Balancer]:
    """An HAProxy with three places."""
    listen, operations = f"127.0.0.1:{own_port()}", f"127.0.0.1:{own_port()}"
    options = Options(listen=listen, operations=operations, places=PLACES, max_clients=100)
    async with Balancer(tmp_path, options, request.param) as balancer:
        yield balancer


def ring(*nodes: int, epoch: int = 5) -> Wanted:
    """A ring of nodes at ports of their own; slots go to them in turn."""
    servers = {f"n{n}": Server(f"127.0.0.1:{9000 + n}", f"127.0.0.1:{7000 + n}") for n in nodes}
    names = list(servers)
    slots = tuple(
        (names[slot % len(names)], names[(slot + 1) % len(names)]) if names else () for slot in range(SLOTS)
    )
    return Wanted("test", epoch, servers, slots)


async def addresses(agent: Agent) -> dict[str, str]:
    """The servers that take clients, and where they are."""
    return {place.name: place.address for place in await agent.runtime.places(BACKEND) if place.ready}


async def test_it_gives_each_node_a_server(balancer: Balancer) -> None:
    """With the address of its check; the second time there is nothing to do."""
    agent = balancer.agent()
    done = await agent.reconcile(ring(1, 2))
    assert done[-1] == "the map is that of epoch 5"
    assert await addresses(agent) == {"n1": "127.0.0.1:9001", "n2": "127.0.0.1:9002"}
    assert {place.check for place in await agent.runtime.places(BACKEND) if place.ready} == {
        "127.0.0.1:7001",
        "127.0.0.1:7002",
    }
    assert await agent.reconcile(ring(1, 2)) == []
    assert await balancer.agent().reconcile(ring(1, 2)) == [], "nor for another agent"
    assert await agent.differences(ring(1, 2)) == []
    path = await agent.runtime.map_named(MAP)
    assert await agent.runtime.count(path) == SLOTS + 1
    assert await agent.runtime.row(path, "1") == "n2:n1"
    assert await agent.runtime.row(path, EPOCH) == "5"
    assert await agent.runtime.row(path, "none") is None


async def test_nodes_that_come_and_go(balancer: Balancer) -> None:
    """Who went gets no more clients, who came gets a free place, and the others stay where they are."""
    agent = balancer.agent()
    await agent.reconcile(ring(1, 2))
    done = await agent.reconcile(ring(2, 3, epoch=6))
    assert "n1 takes no more clients" in done
    assert await addresses(agent) == {"n2": "127.0.0.1:9002", "n3": "127.0.0.1:9003"}
    await agent.reconcile(ring(2, 3, 4, epoch=7))
    assert await addresses(agent) == {
        "n1": "127.0.0.1:9004",
        "n2": "127.0.0.1:9002",
        "n3": "127.0.0.1:9003",
    }
    await agent.reconcile(ring(4, epoch=8))
    assert await addresses(agent) == {"n1": "127.0.0.1:9004"}


async def test_more_nodes_than_places(balancer: Balancer) -> None:
    """It says so; those that have one are served."""
    agent = balancer.agent()
    with pytest.raises(TooFewPlaces, match=r"has 3 servers for 4 nodes: none is left for n4"):
        await agent.reconcile(ring(1, 2, 3, 4))
    assert len(await addresses(agent)) == PLACES
    path = await agent.runtime.map_named(MAP)
    assert await agent.runtime.row(path, "3") == "n1", "the successor alone of what n4 owns"


async def test_an_earlier_ring(balancer: Balancer) -> None:
    """It changes nothing."""
    agent = balancer.agent()
    await agent.reconcile(ring(1, 2, epoch=6))
    with pytest.raises(OtherEpoch, match="has the ring of epoch 6, and is not given that of 5"):
        await agent.reconcile(ring(1, epoch=5))
    assert len(await addresses(agent)) == 2


async def test_what_differs(balancer: Balancer) -> None:
    """In words; somebody has meddled with it."""
    agent = balancer.agent()
    assert await agent.differences(ring(1)) == [
        "n1 at 127.0.0.1:9001 has no server",
        "its map is of epoch none, the ring is at 5",
    ]
    await agent.reconcile(ring(1, 2))
    assert await agent.differences(ring(1, epoch=6)) == [
        "n2 at 127.0.0.1:9002 takes clients, and is no node of the ring",
        "its map is of epoch 5, the ring is at 6",
        f"its map differs in {SLOTS} of {SLOTS} slots",
    ]
    path = await agent.runtime.map_named(MAP)
    await agent.runtime.tell(f"clear map {path}")
    await agent.runtime.set_state(BACKEND, "n1", "maint")
    done = await agent.reconcile(ring(1, 2))
    assert sorted(done) == ["n1 (n1) takes clients", "the map is that of epoch 5"]


async def test_what_a_reload_starts_with(balancer: Balancer) -> None:
    """The map and the servers, as they are now; written once for each change."""
    agent = balancer.agent()
    await agent.reconcile(ring(1, 2))
    lines = (balancer.directory / MAP).read_text().splitlines()
    assert (lines[0], len(lines)) == ("epoch 5", SLOTS + 1)
    assert " 127.0.0.1 " in (balancer.directory / "servers.state").read_text()
    (balancer.directory / MAP).unlink()
    await agent.reconcile(ring(1, 2))
    assert not (balancer.directory / MAP).exists()
    await agent.reconcile(ring(1, epoch=6))
    assert (balancer.directory / MAP).read_text().startswith("epoch 6\n")


async def test_names_are_looked_up(balancer: Balancer) -> None:
    """The Runtime API knows no names; one that nobody knows is said."""
    agent = Agent(balancer.runtime)
    named = Wanted("test", 5, {"n1": Server("localhost:9001", "localhost:7001")}, (("n1",),) * SLOTS)
    await agent.reconcile(named)
    assert set(await addresses(agent)) == {"n1"}
    unknown = Wanted("test", 6, {"n1": Server("nowhere.invalid:1", "nowhere.invalid:2")}, (("n1",),) * SLOTS)
    with pytest.raises(RingError, match=r"nowhere.invalid:1 cannot be found"):
        await agent.reconcile(unknown)


async def test_another_configuration(balancer: Balancer) -> None:
    """What it does not have is said."""
    runtime = balancer.runtime
    with pytest.raises(HAProxyRefused, match="has no backend 'others'"):
        await runtime.places("others")
    with pytest.raises(HAProxyRefused, match=r"uses 0 maps named 'other.map'"):
        await runtime.map_named("other.map")
    with pytest.raises(HAProxyRefused, match="set server nodes/n9 state ready"):
        await runtime.set_state(BACKEND, "n9", "ready")
    with pytest.raises(HAProxyRefused, match=r"n9 to 127.0.0.1:1"):
        await runtime.put(BACKEND, "n9", "127.0.0.1:1", "127.0.0.1:2")
    with pytest.raises(HAProxyRefused, match="'prepare'"):
        await runtime.replace_map("/no/such.map", [("1", "n1")])


@pytest.mark.parametrize("address", ["/nobody/here.sock", "127.0.0.1:1"])
async def test_nobody_answers(address: str) -> None:
    """It says where."""
    with pytest.raises(HAProxySilent, match=rf"^HAProxy at {address}: "):
        await Runtime(address).pid()
