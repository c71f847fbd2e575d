"""Wall clocks are set by an hour, forward and back, while everybody talks: that of Redis, or that of a node.

Leases in Redis are counted by its clock, those at nodes by none that can be set. Real processes, real Redis.
"""

from itertools import pairwise
from pathlib import Path
from time import time

import trio

from ring.store.client import Redis
from ring.store.embedded import EmbeddedServer, find_server
from ring.verify.node import NodeProcess
from tests.integration.clocks import Clock, needs_libfaketime
from tests.integration.cluster import Processes, by_name
from tests.integration.raw import RawClient
from tests.integration.test_churn import OPTIONS, TTL_S, Record, Stage, stage

HOUR_S = 3600
CLOSE_S = 60.0  # what a clock may be wrong by, and still be said to be so many hours off
SILENCE_S = 1.0  # no message may take longer, but for what this program stands still itself


async def live_through(on: Stage) -> None:
    """Everybody talks on for some leases, from a moment on at which messages are under way."""
    with trio.move_on_after(3 * TTL_S):
        await trio.sleep_forever()
    await on.load.until_answered(100)


async def redis_time(url: str) -> float:
    """What Redis says that it is."""
    redis = Redis.from_url(url, client_name="test")
    async with trio.open_nursery() as nursery:
        await nursery.start(redis.run)
        seconds, _ = await redis.time()
        nursery.cancel_scope.cancel()
    return float(seconds)


def epochs(node: NodeProcess) -> list[tuple[int, int]]:
    """The rings that a node has entered: epoch, and how many members."""
    return [(line["epoch"], line["members"]) for line in node.logged() if line["event"] == "epoch entered"]


def assert_nobody_noticed(on: Stage, record: Record, stays: list[NodeProcess]) -> None:
    """No node was removed, and no message was lost, doubled, reordered or late."""
    on.record(record, list(on.load.users))
    on.assert_nobody_else_was_cut()
    on.assert_one_answer_in_time()
    on.assert_nothing_lost()
    assert on.under_way
    assert on.failed(list(on.load.users)) == []
    assert on.load.doubled() == []
    assert on.load.disordered() == []
    assert max(on.load.waits(list(on.load.users))) < SILENCE_S + on.load.stalled_s
    for node in stays:
        assert all(before < after for (before, _), (after, _) in pairwise(epochs(node)))
        assert not [line for line in node.logged() if line["event"].startswith(("lease ", "no longer"))]


@needs_libfaketime
async def test_of_redis(tmp_path: Path, record: Record) -> None:
    """Nobody is removed, forward or back. Epochs follow the clock forward, and never back."""
    clock = Clock(tmp_path, "redis")
    server = EmbeddedServer(program=clock.server(find_server()))
    async with stage(tmp_path, server=server) as on:
        before = {name: epochs(node) for name, node in on.nodes.items()}
        for number, ahead_s in enumerate((HOUR_S, 0, -HOUR_S, 0)):
            await on.load.watch.until(lambda: len(on.load.unanswered()) > 0)
            on.fault()
            clock.set(ahead_s)
            wrong_s = await redis_time(server.url) - time()
            assert abs(wrong_s - ahead_s) < CLOSE_S
            await live_through(on)
            assert {name: epochs(node) for name, node in on.nodes.items()} == before, number
        clock.set(HOUR_S)
        [fourth] = await on.cluster.start("n4")
        joined, members = epochs(on.nodes["n1"])[-1]
        assert (joined > time() + HOUR_S - CLOSE_S, members) == (True, 4)
        clock.set(0)
        await live_through(on)
        await fourth.stop()
        await on.settle()

        assert epochs(on.nodes["n1"])[-1][0] > joined
        assert_nobody_noticed(on, record, list(on.nodes.values()))


async def test_of_a_node(tmp_path: Path, record: Record) -> None:
    """Its lease is held, and the others' are none of its clock's business."""
    clock = Clock(tmp_path, "node")

    async def start(cluster: Processes, name: str) -> None:
        if name != "n2":
            await cluster.start(name)
            return
        places = dict.fromkeys(("edge", "peer", "api"), "127.0.0.1:0")
        options = {
            "cluster": "test",
            "redis": cluster.redis,
            **places,
            **by_name(OPTIONS),
            "ttl_s": f"{TTL_S}",
        }
        node = await NodeProcess.start(name, options, tmp_path / "n2.log", clock.node())
        cluster.started.append(node)
        await node.wait_ready()

    async with stage(tmp_path, start=start) as on:
        before = {name: epochs(node) for name, node in on.nodes.items()}
        for ahead_s in (HOUR_S, 0, -HOUR_S, 0):
            await on.load.watch.until(lambda: len(on.load.unanswered()) > 0)
            on.fault()
            clock.set(ahead_s)
            async with trio.open_nursery() as nursery:
                visitor = RawClient([on.nodes["n2"].edge], "visitor")
                await nursery.start(visitor.run)
                wrong_s = visitor.welcome.server_time / 1000 - time()
                nursery.cancel_scope.cancel()
            assert abs(wrong_s - ahead_s) < CLOSE_S
            await live_through(on)
            assert {name: epochs(node) for name, node in on.nodes.items()} == before
        await on.settle()

        assert_nobody_noticed(on, record, list(on.nodes.values()))
