"""What the cluster promises while nothing fails: everything once, in order, and Redis is not asked for it."""

from random import Random

import trio

from ring.store.client import Redis
from tests.integration.cluster import nodes
from tests.integration.raw import RawClient, Sent, Watch

DEADLINE_S = 120
USERS = 200
MESSAGES = 5000
IN_FLIGHT = 8  # of each user: under the limit of a session


async def calls(redis: Redis) -> dict[str, int]:
    """How often each command was called, by clients and by scripts."""
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): counts["calls"] for name, counts in stats.items()}


async def talk(client: RawClient, recipients: list[str]) -> None:
    """Sends a message to each, as fast as a window of a few lets it."""
    for to in recipients:
        client.send(to)
        await client.watch.until(lambda: len(client.unanswered) < IN_FLIGHT)


async def test_everything_arrives_once_in_order_and_redis_hears_nothing_of_it(
    redis_url: str, nursery: trio.Nursery
) -> None:
    """5,000 messages among 200 users on three nodes, with receipts and acknowledgements.

    Each comes once and in the sender's order, each receipt says `delivered`, and not one command went to
    Redis but the renewals of the leases.
    """
    random = Random(1)
    redis = Redis.from_url(redis_url, client_name="test")
    await nursery.start(redis.run)
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1", "n2", "n3") as cluster:
            watch = Watch()
            clients = {}
            for number in range(USERS):
                user = f"user {number}"
                edge = random.choice(list(cluster.values())).addresses["edge"]
                clients[user] = RawClient([edge], user, watch=watch)
                await nursery.start(clients[user].run)
            away = [client for client in clients.values() if client.welcome.node != client.welcome.owner]
            assert len(away) > USERS / 2, "most are on another node than their owner"

            pairs = [random.sample(list(clients), 2) for _ in range(MESSAGES)]
            began, before = trio.current_time(), await calls(redis)
            async with trio.open_nursery() as senders:
                for user, client in clients.items():
                    senders.start_soon(talk, client, [to for sender, to in pairs if sender == user])
            await watch.until(lambda: watch.answers >= MESSAGES and watch.arrivals >= MESSAGES)
            after, took_s = await calls(redis), trio.current_time() - began

            sent = [message for client in clients.values() for message in client.sent]
            assert [message.status for message in sent] == ["delivered"] * MESSAGES
            assert {len(message.answers) for message in sent} == {1}
            for user, client in clients.items():
                assert_once_and_in_order(client, [message for message in sent if message.to == user])
                assert client.errors == []
                assert client.closes == []

            grown = {name: count - before.get(name, 0) for name, count in after.items()}
            # Scripts call commands too, but a renewal is one script.
            assert grown["evalsha"] <= 2 * len(cluster) * (took_s + 1), grown
            assert sum(grown.values()) < MESSAGES / 10, grown
            assert await redis.pubsub_channels() == []
            nursery.cancel_scope.cancel()


def assert_once_and_in_order(client: RawClient, expected: list[Sent]) -> None:
    """What arrived is what was sent to this user, sender by sender in the order of sending."""

    def key(pair: tuple[str, int]) -> str:
        return pair[0]

    arrived = [(arrival.sender, arrival.n) for arrival in client.arrivals]
    in_senders_order = sorted(arrived, key=key)  # stable: the order of each sender's stays
    assert in_senders_order == sorted((sent.sender, sent.n) for sent in expected)
    assert not any(arrival.redelivered for arrival in client.arrivals)
