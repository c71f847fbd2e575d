"""Stored mailboxes on real nodes and a real Redis: what nobody acknowledges waits there, and comes later."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from ring.node import Node
from ring.protocol.client import Receipt
from ring.protocol.names import slot_of
from ring.store.client import Redis
from ring.store.keys import Keys
from tests.integration.cluster import nodes
from tests.integration.raw import RawClient, Sent, Watch
from tests.polling import until

DEADLINE_S = 60
KEYS = Keys("test")
QUICK = {"linger_s": 0.2, "spill_after_s": 0.4}


class Town:
    """Nodes, and clients that come and go."""

    def __init__(self, cluster: dict[str, Node], redis: Redis, nursery: trio.Nursery) -> None:
        self.nodes = cluster
        self.redis = redis
        self.watch = Watch()
        self._nursery = nursery
        self._scopes: dict[RawClient, trio.CancelScope] = {}

    async def come(
        self, user: str, node: str = "n1", *, ack_every_s: float = 0, device: str = "raw"
    ) -> RawClient:
        """A client connects; it is welcome."""
        edge = self.nodes[node].addresses["edge"]
        client = RawClient([edge], user, watch=self.watch, ack_every_s=ack_every_s, device=device)
        scope = self._scopes[client] = trio.CancelScope()

        async def live(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await client.run(task_status=task_status)

        await self._nursery.start(live)
        return client

    def go(self, client: RawClient) -> None:
        """Its connection breaks."""
        self._scopes.pop(client).cancel()

    async def until_answered(self, *sent: Sent) -> list[str | None]:
        """What became of these messages."""
        await self.watch.until(lambda: all(one.answers for one in sent))
        assert all(len(one.answers) == 1 for one in sent), "each send has one final answer"
        return [one.status for one in sent]

    async def stored(self, user: str) -> int:
        """How many letters Redis keeps for a user."""
        count: int = await self.redis.llen(KEYS.box(slot_of(user), user))
        return count

    async def until_stored(self, user: str, count: int) -> None:
        """Returns once Redis keeps so many."""

        async def enough() -> bool:
            return await self.stored(user) == count

        await until(enough)


@asynccontextmanager
async def town(redis_url: str, **options: object) -> AsyncIterator[Town]:
    """Three nodes that soon give up waiting for a client."""
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            redis = Redis.from_url(redis_url, client_name="test")
            await nursery.start(redis.run)
            async with nodes(redis_url, "n1", "n2", "n3", **{**QUICK, **options}) as cluster:
                yield Town(cluster, redis, nursery)
                nursery.cancel_scope.cancel()


async def test_who_is_away_finds_his_messages_when_he_comes(redis_url: str) -> None:
    """They are `queued`, come first, once, in order, unmarked, and leave Redis once acknowledged."""
    async with town(redis_url) as here:
        alice = await here.come("alice")
        sent = [alice.send("bob") for _ in range(20)]
        assert await here.until_answered(*sent) == ["queued"] * 20
        assert await here.stored("bob") == 20
        bob = await here.come("bob", "n2")
        live = alice.send("bob")
        assert await here.until_answered(live) == ["delivered"]
        assert [arrival.n for arrival in bob.arrivals] == list(range(21))
        assert not any(arrival.redelivered for arrival in bob.arrivals)
        await here.until_stored("bob", 0)


async def test_what_is_not_acknowledged_is_stored_with_all_before_it(redis_url: str) -> None:
    """A silent client's messages are `queued` after `spill_after`; its late word empties the store."""
    async with town(redis_url) as here:
        alice = await here.come("alice")
        bob = await here.come("bob", "n3", ack_every_s=1000)
        sent = [alice.send("bob") for _ in range(5)]
        assert await here.until_answered(*sent) == ["queued"] * 5
        assert [arrival.n for arrival in bob.arrivals] == list(range(5))
        assert await here.stored("bob") == 5
        bob.acknowledge()
        await here.until_stored("bob", 0)
        assert [arrival.n for arrival in bob.arrivals] == list(range(5)), "nothing came twice"


async def test_what_had_been_on_its_way_comes_again_marked(redis_url: str) -> None:
    """Whoever left without an acknowledgement may have seen it."""
    async with town(redis_url) as here:
        alice = await here.come("alice")
        bob = await here.come("bob", ack_every_s=1000)
        sent = [alice.send("bob") for _ in range(3)]
        await here.until_answered(*sent)
        here.go(bob)
        await trio.sleep(0.5)  # longer than linger: the mailbox leaves the owner's memory
        later = alice.send("bob")
        assert await here.until_answered(later) == ["queued"]
        again = await here.come("bob", "n2")
        await here.watch.until(lambda: len(again.arrivals) == 4)
        assert [(arrival.n, arrival.redelivered) for arrival in again.arrivals] == [
            (0, True),
            (1, True),
            (2, True),
            (3, False),
        ]
        await here.until_stored("bob", 0)


@pytest.mark.parametrize("count", [700, 1000])
async def test_a_large_mailbox_is_fed_at_the_pace_of_the_session(redis_url: str, count: int) -> None:
    """More than a window and more than a page: all come once, in order, and what is sent meanwhile behind."""
    async with town(redis_url) as here:
        alice = await here.come("alice")
        sent = []
        for _ in range(count):
            sent.append(alice.send("bob"))
            await here.watch.until(lambda: len(alice.unanswered) < 100)
        assert set(await here.until_answered(*sent)) == {"queued"}
        bob = await here.come("bob", "n2", ack_every_s=0.02)
        more = [alice.send("bob") for _ in range(50)]
        assert set(await here.until_answered(*more)) <= {"queued", "delivered"}
        await here.watch.until(lambda: len(bob.arrivals) >= count + 50)
        assert [arrival.n for arrival in bob.arrivals] == list(range(count + 50))
        await here.until_stored("bob", 0)


async def test_a_full_mailbox_says_so(redis_url: str) -> None:
    """Beyond its bound the answer is `failed: mailbox_full`; what was stored before stays."""
    async with town(redis_url, mailbox_messages=5) as here:
        alice = await here.come("alice")
        sent = [alice.send("bob") for _ in range(8)]
        assert await here.until_answered(*sent) == ["queued"] * 5 + ["failed"] * 3
        answer = sent[-1].answers[0][1]
        assert isinstance(answer, Receipt)
        assert answer.code == "mailbox_full"
        bob = await here.come("bob")
        await here.watch.until(lambda: len(bob.arrivals) == 5)
        await here.until_stored("bob", 0)


async def test_two_devices_share_what_is_stored(redis_url: str) -> None:
    """Both get it; one acknowledgement takes it out of the store."""
    async with town(redis_url) as here:
        alice = await here.come("alice")
        sent = [alice.send("bob") for _ in range(3)]
        await here.until_answered(*sent)
        phone = await here.come("bob", "n1", device="phone", ack_every_s=1000)
        laptop = await here.come("bob", "n2", device="laptop", ack_every_s=1000)
        await here.watch.until(lambda: len(phone.arrivals) == len(laptop.arrivals) == 3)
        laptop.acknowledge()
        await here.until_stored("bob", 0)
        later = alice.send("bob")
        phone.acknowledge()
        await here.watch.until(lambda: len(phone.arrivals) == len(laptop.arrivals) == 4)
        phone.acknowledge()
        assert await here.until_answered(later) == ["delivered"]
