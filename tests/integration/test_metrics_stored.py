"""What the metrics tell of stored mailboxes: each number moves when it should."""

from pathlib import Path

import trio

from ring.protocol.names import slot_of
from ring.store.client import Redis
from ring.store.keys import Keys
from ring.verify.server import Store
from tests.integration.cluster import nodes
from tests.integration.probe import probing
from tests.integration.raw import Watch
from tests.integration.test_metrics import DEADLINE_S, MOVES, answered, connected

KEYS = Keys("test")


async def test_stored(tmp_path: Path) -> None:
    """Stored and read, full, refused and fenced; Redis goes and comes back."""
    watch = Watch()
    with trio.fail_after(DEADLINE_S):
        async with (
            Store(tmp_path, "test") as store,
            nodes(store.url, "n1", ttl_s=1.0, linger_s=0.1, spill_after_s=0.5, mailbox_messages=3) as cluster,
            probing(n1 := cluster["n1"], *MOVES["stored"]) as probe,
            connected(n1, "alice", watch=watch) as alice,
            trio.open_nursery() as nursery,
        ):
            redis = Redis.from_url(store.url, client_name="test")
            await nursery.start(redis.run)
            await probe.mark()
            for _ in range(4):
                alice.send("bob")
            await answered(alice)
            await probe.grows("stored_messages_total", 3)
            await probe.grows("stored_failed_total", 1, reason="full")
            await probe.grows("receipts_total", 3, status="queued", by="", code="")

            await probe.mark()
            async with connected(n1, "bob", watch=watch) as bob:
                await watch.until(lambda: len(bob.arrivals) == 3)
                await probe.grows("stored_reads_total", 1)
                await probe.grows("stored_messages_read_total", 3)
                await probe.grows("stored_messages_removed_total", 3)

            await probe.mark()
            async with connected(n1, "mute", watch=watch, ack_every_s=DEADLINE_S):
                alice.send("mute")
                await probe.grows("stored_messages_total", 1)
                await probe.becomes("messages_unacknowledged", 1)

            await probe.mark()
            await redis.set(KEYS.box(slot_of("carol"), "carol"), "no mailbox")
            alice.send("carol")
            await probe.grows("stored_failed_total", 1, reason="refused")

            await redis.set(KEYS.fence(slot_of("dan")), 2**50)
            alice.send("dan")
            await probe.grows("stored_fenced_total")
            await redis.delete(KEYS.fence(slot_of("dan")))
            await answered(alice)
            await probe.grows("stored_messages_total", 1)

            await probe.mark()
            store.freeze()
            alice.send("erin")
            await probe.exceeds("stored_waiting", 0)
            await probe.mark()
            store.thaw()
            await probe.becomes("stored_waiting", 0)

            await probe.mark()
            await store.stop()
            await probe.becomes("redis_connected", 0, use="mailboxes")
            alice.send("erin")
            await probe.grows("stored_failed_total", 1, reason="away")
            async with connected(n1, "frank", watch=watch):
                await probe.grows("stored_unread_sessions_total", 1)
                await probe.mark()
                await store.start()
                await probe.becomes("redis_connected", 1, use="mailboxes")
            nursery.cancel_scope.cancel()
