"""`ring haproxy sync` as a service, with whatever is restarted around it: HAProxies follow the ring."""

import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import trio

from ring.haproxy.config import Options
from ring.haproxy.program import Balancer
from ring.haproxy.wanted import EPOCH
from ring.verify.site import CLUSTER, Site
from tests.polling import until
from tests.ports import own_port

pytestmark = pytest.mark.alone  # it holds times to bounds

DEADLINE_S = 90
WHOLE_S = 20.0
WITHIN_S = 1.0
"""So soon a change of the ring is in the map."""
STARTED_S = 5.0
"""So soon after its start an agent has healed what it finds: an interpreter has to start."""

Record = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their processes are not traced for coverage, which takes several times as long as they may."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
        monkeypatch.delenv(name)


class Service:
    """A cluster, two HAProxies, and one agent for both.

    Args:
        site: the cluster.
        balancers: the HAProxies.
        source: where the agent learns the ring, "api" or "redis".
    """

    def __init__(self, site: Site, balancers: list[Balancer], source: str) -> None:
        self.site = site
        self.balancers = balancers
        runtimes = [word for one in balancers for word in ("--runtime", one.runtime.address)]
        apis = [word for node in site.nodes.values() for word in ("--api", f"http://{node.places['api']}")]
        there = apis if source == "api" else ["--redis", site.redis_url, "--cluster", CLUSTER]
        self._command = [sys.executable, "-m", "ring", "haproxy", "sync", *runtimes, *there]
        self._lives = count(1)
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """The agent."""
        with (self.site.directory / f"agent.{next(self._lives)}.log").open("wb") as log:
            self._process = await trio.lowlevel.open_process(self._command, stderr=log)

    async def kill(self) -> None:
        """The agent."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def said(self) -> str:
        """What the agents have logged."""
        return "".join(path.read_text() for path in sorted(self.site.directory.glob("agent.*.log")))

    async def epochs(self) -> list[int]:
        """Of the rings that the HAProxies have; 0 of one that has none."""
        found = []
        for balancer in self.balancers:
            path = await balancer.runtime.map_named("ring.map")
            found.append(int(await balancer.runtime.row(path, EPOCH) or 0))
        return found

    async def ring(self) -> int:
        """The epoch of the ring."""
        return (await self.site.nodes["n1"].report()).epoch

    async def servers(self) -> list[int]:
        """How many servers take clients, at each HAProxy."""
        return [
            sum(place.ready for place in await balancer.runtime.places("nodes"))
            for balancer in self.balancers
        ]

    async def shares(self) -> dict[str, int]:
        """How many slots each node owns, as the first HAProxy has it."""
        runtime = self.balancers[0].runtime
        rows = await runtime.rows(await runtime.map_named("ring.map"))
        at = {node.places["edge"]: name for name, node in self.site.nodes.items()}
        names = {place.name: at[place.address] for place in await runtime.places("nodes") if place.ready}
        return dict(Counter(names[row.partition(":")[0]] for slot, row in rows.items() if slot != EPOCH))

    async def follows(self) -> float:
        """Returns once both HAProxies have the ring as it is now: after how many seconds."""
        began = trio.current_time()
        epoch = await self.ring()

        async def both_have_it() -> bool:
            return min(await self.epochs()) >= epoch

        await until(both_have_it)
        return trio.current_time() - began


@asynccontextmanager
async def service(directory: Path, program: str | None, source: str) -> AsyncIterator[Service]:
    """It runs, and both HAProxies have the ring: of this program, or of any."""
    (directory / "site").mkdir()
    options = [
        Options(listen=f"127.0.0.1:{own_port()}", operations=f"127.0.0.1:{own_port()}", max_clients=99)
        for _ in range(2)
    ]
    with trio.fail_after(DEADLINE_S):
        async with (
            Site(nodes=3, ttl_s=3.0, directory=directory / "site") as site,
            Balancer(directory / "h1", options[0], program) as one,
            Balancer(directory / "h2", options[1], program) as other,
        ):
            here = Service(site, [one, other], source)
            await here.start()
            try:
                await here.follows()
                yield here
            finally:
                with trio.CancelScope(shield=True):
                    await here.kill()


@pytest.mark.parametrize("source", ["api", "redis"])
async def test_a_ring_that_changes(tmp_path: Path, program: str, record: Record, source: str) -> None:
    """Both have it within a second: a node that joins gets clients, one that leaves gets no more."""
    async with service(tmp_path, program, source) as here:
        assert await here.servers() == [3, 3]
        await here.site.start("n4")
        record("a join is in both maps", f"{(joined := await here.follows()):.2f} s after it serves")
        assert await here.servers() == [4, 4]
        async with trio.open_nursery() as nursery:
            epoch = await here.ring()
            nursery.start_soon(here.site.stop, "n4")

            async def changed() -> bool:
                return await here.ring() != epoch

            await until(changed)
            record("a drain", f"{(drained := await here.follows()):.2f} s after it began")
        assert await here.follows() < WITHIN_S
        assert await here.servers() == [3, 3]
        assert max(joined, drained) < WITHIN_S


async def test_a_node_is_given_more_weight(tmp_path: Path, record: Record) -> None:
    """HAProxy's map follows, and shows the shares that the ring and its plan have."""
    async with service(tmp_path, None, "api") as here:
        api = here.site.nodes["n2"].places["api"]
        before = await here.shares()
        planned = await trio.run_process(
            [sys.executable, "-m", "ring", "plan", "--weight", "n1=3", "--api", api, "--json"],
            capture_stdout=True,
        )
        await trio.run_process(
            [sys.executable, "-m", "ring", "weight", "n1", "3", "--api", api], capture_stdout=True
        )
        await here.site.until("weighed", lambda report: report.slots["n1"] > before["n1"], WHOLE_S)
        assert await here.follows() < WITHIN_S
        after = await here.shares()
        record("slots of n1 in HAProxy's map", f"{before['n1']}, with three times the weight {after['n1']}")
        assert after == (await here.site.nodes["n3"].report()).slots
        plan = {node["name"]: node["slots_after"] for node in json.loads(planned.stdout)["nodes"]}
        assert after == plan
        assert 4800 < before["n1"] < 5800
        assert 9300 < after["n1"] < 10400


async def test_the_agent_is_killed(tmp_path: Path, record: Record) -> None:
    """HAProxies go on with the ring that they have; its next life sees what has changed meanwhile."""
    async with service(tmp_path, None, "api") as here:
        await here.kill()
        before = await here.epochs()
        await here.site.start("n4")
        await here.site.whole(WHOLE_S)
        assert await here.epochs() == before
        began = trio.current_time()
        await here.start()
        await here.follows()
        record("healed", f"{(healed := trio.current_time() - began):.2f} s after the agent's start")
        assert await here.servers() == [4, 4]
        assert healed < STARTED_S


@pytest.mark.parametrize("comes_back", ["with its data", "empty"])
async def test_redis_is_restarted(tmp_path: Path, record: Record, comes_back: str) -> None:
    """HAProxies keep the ring that they have, of an empty Redis too, and follow again once it is back."""
    async with service(tmp_path, None, "redis") as here:
        before = await here.epochs()
        await here.site.store.stop()
        if comes_back == "empty":
            here.site.store.empty()
        await until(lambda: "no answer from Redis" in here.said())
        assert (await here.epochs(), await here.servers()) == (before, [3, 3])
        await here.site.store.start()
        await here.site.whole(WHOLE_S)
        record("followed", f"{await here.follows():.2f} s after the cluster was whole")
        if comes_back == "empty":
            assert await here.ring() > max(before), "the nodes have told Redis again"
        assert min(await here.epochs()) >= min(before)
        assert await here.servers() == [3, 3]
        await here.site.start("n4")
        assert await here.follows() < WITHIN_S
        assert await here.servers() == [4, 4]


async def test_one_haproxy_is_away(tmp_path: Path) -> None:
    """The other one follows all the same; that one too, once it is back."""
    async with service(tmp_path, None, "api") as here:
        away, there = here.balancers
        await away.stop()
        here.balancers[:] = [there]
        await here.site.start("n4")
        assert await here.follows() < WITHIN_S
        await away.start()
        here.balancers[:] = [away, there]
        assert await here.follows() < STARTED_S
        assert await here.servers() == [4, 4]
