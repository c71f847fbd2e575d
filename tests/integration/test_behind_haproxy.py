"""What clients behind HAProxy notice when nodes are restarted in turn, drained, killed and frozen."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from ring.haproxy.config import Options
from ring.haproxy.program import Balancer
from ring.haproxy.source import Nodes
from ring.haproxy.sync import sync
from ring.store.embedded import free_port
from ring.verify.site import Site
from tests.integration.load import LibraryClient, Load

pytestmark = pytest.mark.alone  # it holds times to bounds

DEADLINE_S = 150
NAMES = ("n1", "n2", "n3", "n4")
CLIENTS = 50  # of the library: at its pace some 500 messages per second
BUDGET = 10.0  # reconnects per second
WHOLE_S = 20.0
SILENCE_S = 2.0
OPTIONS = {"reconnects_per_s": f"{BUDGET:g}", "linger_s": "5", "spill_after_s": "5"}

Record = Callable[[str, object], None]


@dataclass
class Front:
    """Four nodes, HAProxy, and clients that know it alone."""

    site: Site
    load: Load
    balancer: Balancer
    reconnects: list[float] = field(default_factory=list)

    async def watch_reconnects(self) -> None:
        """Notes when a client is in another session than before."""
        sessions: dict[str, str] = {}
        while True:
            for user, client in self.load.library.items():
                before = sessions.get(user, client.first_session)
                if client.client.session != before:
                    self.reconnects.append(trio.current_time())
                sessions[user] = client.client.session
            await trio.sleep(0.01)  # a poll

    async def settle(self) -> None:
        """The load ends; all is answered, and there."""
        await self.load.until_answered(300)
        await self.load.stop()
        await self.load.until_arrived()

    def off_owner(self) -> list[str]:
        """Clients that are not on their owner now."""
        clients = self.load.library.values()
        return [one.user for one in clients if one.client.node != one.client.owner]

    def on(self, name: str) -> list[str]:
        """The users who are on this node."""
        return [user for user, one in self.load.library.items() if one.client.node == name]

    def longest_silence(self, users: list[str]) -> float:
        """The longest time in which somebody got nothing."""
        arrivals = [[arrival.at for arrival in self.load.users[user].arrivals] for user in users]
        return max(after - before for times in arrivals for before, after in pairwise(times))

    def most_reconnects_per_s(self) -> int:
        """In the worst second."""
        times = self.reconnects
        return max((sum(at <= other < at + 1 for other in times) for at in times), default=0)

    def assert_nobody_noticed(self) -> None:
        """Nothing was lost, doubled, reordered or refused."""
        assert [sent for sent in self.load.sent() if sent.status != "delivered"] == []
        assert self.load.missing() == []
        assert self.load.doubled() == []
        assert self.load.disordered() == []


@asynccontextmanager
async def front(directory: Path, program: str, pace: float = 1.0) -> AsyncIterator[Front]:
    """All of it under load."""
    address = f"127.0.0.1:{free_port()}"
    options = Options(listen=address, operations=f"127.0.0.1:{free_port()}", max_clients=500)
    with trio.fail_after(DEADLINE_S):
        async with (
            Site(nodes=4, ttl_s=3.0, options=OPTIONS, directory=directory / "site") as site,
            Balancer(directory / "h", options, program) as balancer,
            trio.open_nursery() as nursery,
        ):
            load, synced = Load(5, pace), trio.Event()
            source = Nodes([f"http://{node.places['api']}" for node in site.nodes.values()])
            agent = balancer.agent()
            nursery.start_soon(partial(sync, source, [agent], on_synced=lambda *_: synced.set()))
            await synced.wait()
            for number in range(CLIENTS):
                client = LibraryClient([address], f"user {number}", load.watch)
                load.library[client.user] = client
                await nursery.start(client.run)
            here = Front(site, load, balancer)
            assert here.off_owner() == [], "all landed on their owner"
            nursery.start_soon(here.watch_reconnects)
            nursery.start_soon(load.run)
            await load.until_answered(300)
            yield here
            nursery.cancel_scope.cancel()


async def test_all_nodes_are_restarted_in_turn(tmp_path: Path, program: str, record: Record) -> None:
    """Under some 500 messages per second: nobody notices, and in no second more than the budget reconnect."""
    (tmp_path / "site").mkdir()
    async with front(tmp_path, program) as here:
        began = trio.current_time()
        for name in NAMES:
            await here.site.stop(name)
            await here.site.start(name)
            await here.site.whole(WHOLE_S)
        took = trio.current_time() - began
        await here.settle()
        sent = sum(1 for _ in here.load.sent())
        record("messages", sent)
        record("restarts of four nodes", f"{took:.1f} s")
        record("longest silence of any client", f"{here.longest_silence(list(here.load.library)):.2f} s")
        record("reconnects", len(here.reconnects))
        record("in the worst second", here.most_reconnects_per_s())
        record("the test itself stood still", f"{here.load.stalled_s:.2f} s")
        here.assert_nobody_noticed()
        assert len(here.reconnects) >= CLIENTS, "everybody had to go, some of them more than once"
        # Those who took longer than others, on a machine that is busy with all of this.
        assert here.most_reconnects_per_s() <= BUDGET * (1.2 + here.load.stalled_s)
        assert here.longest_silence(list(here.load.library)) < SILENCE_S + here.load.stalled_s


async def test_a_node_is_drained(tmp_path: Path, program: str, record: Record) -> None:
    """`ring drain` empties it, and it ends."""
    (tmp_path / "site").mkdir()
    async with front(tmp_path, program) as here:
        leaving = here.on("n2")
        api = f"http://{here.site.nodes['n1'].places['api']}"
        here.site.nodes["n2"].serves = False  # its end is no surprise
        began = trio.current_time()
        done = await trio.run_process(
            [sys.executable, "-m", "ring", "drain", "n2", "--api", api],
            capture_stdout=True,
            check=False,
        )
        record("drained", f"{trio.current_time() - began:.1f} s")
        assert (done.returncode, done.stdout.decode().splitlines()[-1]) == (0, "n2 has left")
        assert await here.site.nodes["n2"].process.process.wait() == 0
        await here.settle()
        here.assert_nobody_noticed()
        assert leaving
        assert here.on("n2") == []
        assert [user for user in leaving if user in here.off_owner()] == [], "they are on their new owners"


async def test_a_node_is_killed(tmp_path: Path, program: str, record: Record) -> None:
    """Its clients come through HAProxy to the others, and go on."""
    (tmp_path / "site").mkdir()
    async with front(tmp_path, program) as here:
        hit = here.on("n3")
        await here.load.watch.until(lambda: len(here.load.under_way(here.load.users, hit)) > 0)
        here.site.kill("n3")  # with messages on their way to it
        killed = trio.current_time()
        await here.load.watch.until(lambda: here.load.served_since(hit, killed))
        first = [
            min(arrival.at for arrival in here.load.users[user].arrivals if arrival.at > killed + 0.05)
            for user in hit
        ]
        record("its clients are served again", f"{sorted(first)[len(first) // 2] - killed:.2f} s (median)")
        record("the last of them", f"{max(first) - killed:.2f} s")
        await here.settle()
        assert here.load.missing() == []
        assert here.load.doubled() == []
        assert here.longest_silence(hit) < SILENCE_S + here.load.stalled_s
