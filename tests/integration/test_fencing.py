"""An owner that stood still past its lease wakes in the middle of traffic: it can store nothing behind its
successor, and nothing is lost with it. Real processes, SIGSTOP and SIGCONT, a real Redis."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ring.cluster.placement import place
from ring.cluster.view import Member
from ring.protocol.names import slot_of
from ring.store.client import Redis
from ring.store.keys import Keys
from ring.verify.node import NodeProcess
from tests.integration.cluster import processes
from tests.integration.raw import RawClient, Watch
from tests.polling import until

DEADLINE_S = 120
TTL_S = 1.0
OPTIONS = ("--ttl-s", str(TTL_S), "--spill-after-s", "0.5", "--linger-s", "0.5")
NAMES = ("n1", "n2", "n3")
EACH_S = 0.01  # the pace of each sender
AWAY, MUTE = 12, 6
TIMES = 3

Record = Callable[[str, object], None]


def owned_by(node: str, count: int, what: str) -> list[str]:
    """So many users whom this node owns in the ring of all three."""
    owners = place([Member(name, "1", "", "", "", 1, "up", "1") for name in NAMES])
    users = (f"{what} {number}" for number in range(10_000))
    owned = (user for user in users if owners[slot_of(user)] == node)
    return [next(owned) for _ in range(count)]


def warnings(node: NodeProcess, event: str) -> int:
    """How often a node has said so."""
    return sum(event in json.loads(line)["event"] for line in node.log.read_text().splitlines())


async def talk(client: RawClient, recipients: list[str], until: trio.Event) -> None:
    """Sends to one after the other, at its pace."""
    turn = 0
    while not until.is_set():
        if len(client.unanswered) < 200:
            client.send(recipients[turn % len(recipients)])
            turn += 1
        await trio.sleep(EACH_S)


@pytest.mark.parametrize("frozen_s", [2 * TTL_S, 4 * TTL_S])
async def test_an_owner_that_stood_still_writes_nothing_behind_its_successor(
    redis_url: str, tmp_path: Path, record: Record, frozen_s: float
) -> None:
    """Its users are away, or there and silent: what waits for them is stored by its successor meanwhile.

    It may hear of that successor before it comes to store anything: then Redis has nothing to refuse, and all
    of it happens again.
    """
    for time in range(TIMES):
        (directory := tmp_path / str(time)).mkdir()
        fenced = await stand_still(redis_url, directory, record, frozen_s)
        record("times that it was fenced", fenced)
        if fenced:
            return
    raise AssertionError("it never tried to store what its successor had taken over")


async def stand_still(redis_url: str, directory: Path, record: Record, frozen_s: float) -> int:
    """An owner stands still in the middle of traffic; returns how often Redis refused what it would store.

    When it wakes, letters lie in its memory that it would store, senders of its own send on by its old ring,
    and others by the new one. Whatever was receipted comes, once or marked, and nothing stays in Redis.
    """
    watch = Watch()
    with trio.fail_after(DEADLINE_S):
        async with (
            processes(redis_url, directory, *OPTIONS) as cluster,
            trio.open_nursery() as nursery,
        ):
            redis = Redis.from_url(redis_url, client_name="test")
            await nursery.start(redis.run)
            await redis.flushdb()
            nodes = dict(zip(NAMES, await cluster.start(*NAMES), strict=True))
            away, mute = owned_by("n2", AWAY, "away"), owned_by("n2", MUTE, "mute")
            silent = [RawClient([nodes["n1"].edge], user, watch=watch, ack_every_s=1000) for user in mute]
            senders = [RawClient([nodes[name].edge], f"from {name}", watch=watch) for name in NAMES]
            for client in silent + senders:
                await nursery.start(client.run)
            done = trio.Event()
            async with trio.open_nursery() as talking:
                for sender in senders:
                    talking.start_soon(talk, sender, away + mute, done)
                await watch.until(lambda: watch.answers > 200)
                assert all(sender.unanswered for sender in senders), "messages are under way"
                nodes["n2"].freeze()
                answered = {sender.user: len(sender.sent) - len(sender.unanswered) for sender in senders}
                await trio.sleep(frozen_s)  # this is the fault: how long it stands still
                goes_on = [sender for sender in senders if sender.user != "from n2"]
                assert all(
                    len(sender.sent) - len(sender.unanswered) > answered[sender.user] + 50
                    for sender in goes_on
                ), "others serve its users meanwhile"
                nodes["n2"].thaw()
                await trio.sleep(2.0)  # the traffic into which it wakes
                done.set()
            await watch.until(lambda: not any(sender.unanswered for sender in senders))
            sent = [one for sender in senders for one in sender.sent]
            failed = [one for one in sent if one.status not in ("queued", "delivered")]
            assert {len(one.answers) for one in sent} == {1}
            assert failed == []

            back = {}
            for user in away:
                back[user] = RawClient([nodes["n3"].edge], user, watch=watch)
                await nursery.start(back[user].run)
            for client in silent:
                back[client.user] = client
            for user in mute:  # what they had been sent they acknowledge now
                back[user].acknowledge()
            got = {user: client.arrivals for user, client in back.items()}

            def missing() -> list[object]:
                here = {(a.sender, a.n, user) for user, arrivals in got.items() for a in arrivals}
                for user in mute:
                    back[user].acknowledge()
                return [one for one in sent if (one.sender, one.n, one.to) not in here]

            await watch.until(lambda: not missing())
            doubles = 0
            for arrivals in got.values():
                seen: set[tuple[str, int]] = set()
                for arrival in arrivals:
                    key = arrival.sender, arrival.n
                    assert key not in seen or arrival.redelivered, "a double without a mark"
                    doubles += key in seen
                    seen.add(key)

            async def nothing_is_left() -> bool:
                for user in mute:
                    back[user].acknowledge()
                keys = Keys("test")
                boxes = [keys.box(slot_of(user), user) for user in away + mute]
                return not sum([await redis.llen(box) for box in boxes])

            await until(nothing_is_left)
            fenced = warnings(nodes["n2"], "fenced")
            record("messages", len(sent))
            record("doubles, all marked", doubles)
            nursery.cancel_scope.cancel()
    return fenced
