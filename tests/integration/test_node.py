"""A node as a whole, in this process, on a real server."""

import redis
import trio
from structlog.testing import capture_logs

from ring.cluster.placement import NOBODY
from ring.config import Settings
from ring.node import Node
from ring.store.keys import Keys
from tests.cluster.seats import eventually


def settings(redis_url: str) -> Settings:
    """A node on free ports."""
    address = "127.0.0.1:0"
    return Settings(name="n1", cluster="whole", redis=redis_url, edge=address, peer=address, api=address)


async def test_a_node_whose_slot_table_differs_owns_nothing(redis_url: str, nursery: trio.Nursery) -> None:
    """Two owners of one slot would split its users: the node gives up its slots, and is not ready."""
    node = Node(settings(redis_url))
    keys = Keys("whole")
    with trio.fail_after(20), capture_logs() as logs:
        await nursery.start(node.run)
        assert node.view is not None
        assert set(node.view.owners) == {"n1"}
        with redis.Redis.from_url(redis_url) as server:
            epoch = node.view.epoch + 1000
            server.hset(keys.table, mapping={"epoch": epoch, "hash": "of another release", "data": b""})
            server.hset(keys.epoch, "epoch", epoch)
        await eventually(lambda: set(node.routing.owners) == {NOBODY})
        assert node.state == "isolated"
    assert any(log["event"].startswith("table mismatch") for log in logs)
    nursery.cancel_scope.cancel()
