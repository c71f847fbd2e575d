"""Rooms on a cluster: every copy once and in one order, and what happens when Redis or a member falters."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from ring.node import Node
from ring.protocol import client as wire
from ring.protocol.codes import CloseCode
from ring.store.client import Redis
from ring.store.keys import Keys
from ring.verify.server import Store
from tests.integration.cluster import nodes, settings
from tests.integration.raw import Watch
from tests.integration.roommate import Roommate, joined

Record = Callable[[str, object], None]

DEADLINE_S = 120
NAMES = ("n1", "n2", "n3", "n4")
MEMBERS = 200
PUBLISHES = 1000
PUBLISHERS = 10
IN_FLIGHT = 16
VISITS = 10
BREAKS = 3
BACK_S = 2.0


def edges(cluster: dict[str, Node]) -> list[str]:
    """Where clients connect."""
    return [node.addresses["edge"] for node in cluster.values()]


def crowd(cluster: dict[str, Node], count: int, watch: Watch) -> list[Roommate]:
    """Clients, spread over the nodes."""
    at = edges(cluster)
    return [Roommate([at[number % len(at)]], f"user {number}", watch=watch) for number in range(count)]


async def publish_many(client: Roommate, room: str, count: int, echo: bool = False) -> None:
    """Publishes as fast as a window of a few lets it; all are done."""
    sent: list[str] = []
    for _ in range(count):
        sent.append(client.publish(room, echo=echo))
        await client.watch.until(
            lambda: sum(not client.answers[frame_id] for frame_id in sent[-2 * IN_FLIGHT :]) < IN_FLIGHT
        )
    for frame_id in sent:
        await client.done(frame_id)


class Steady:
    """Publishes one after the other, whatever is answered, until `stop`."""

    def __init__(self, client: Roommate, room: str) -> None:
        self.client = client
        self.sent: list[str] = []
        self.stopped = False
        self._room = room

    async def run(self) -> None:
        while not self.stopped:
            self.sent.append(self.client.publish(self._room))
            await self.client.answer(self.sent[-1])

    @property
    def count(self) -> int:
        """How many it has published."""
        return len(self.sent)

    async def until_more(self, count: int) -> None:
        """Returns when it has published so many more."""
        enough = self.count + count
        await self.client.watch.until(lambda: self.count >= enough)

    async def until_answered(self, code: str) -> None:
        """Returns when one has been answered so."""
        await self.client.watch.until(
            lambda: any(
                isinstance(answer, wire.Error) and answer.code == code
                for frame_id in self.sent
                for answer in self.client.answers[frame_id]
            )
        )

    def outcomes(self) -> list[str]:
        """What each was answered."""
        answers = [self.client.answers[frame_id] for frame_id in self.sent]
        assert all(len(each) == 1 for each in answers), "exactly one final answer"
        return ["ok" if isinstance(answer, wire.Ok) else answer.code for [answer] in answers]


async def heard(member: Roommate, copy: tuple[str, int]) -> None:
    """Returns when this has come to a member of the lobby."""
    await member.watch.until(lambda: copy in member.of("lobby"))


async def told(members: Sequence[Roommate], times: int) -> None:
    """Returns when each has been told so often that something may be missing."""
    await members[0].watch.until(lambda: all(len(member.gaps) >= times for member in members))


async def more_copies(members: Sequence[Roommate], count: int) -> None:
    """Returns when they have got so many more, together."""
    enough = sum(len(member.copies) for member in members) + count
    await members[0].watch.until(lambda: sum(len(member.copies) for member in members) >= enough)


def assert_one_order(members: Sequence[Roommate], room: str) -> None:
    """No copy is doubled, and what any two members have in common is in the same order."""
    longest = max((member.of(room) for member in members), key=len)
    for member in members:
        place = {copy: index for index, copy in enumerate(member.of(room))}
        assert len(place) == len(member.of(room))
        common = [place[copy] for copy in longest if copy in place]
        assert common == sorted(common)


def assert_one_answer_each(members: Sequence[Roommate]) -> None:
    """Every frame with an id has exactly one."""
    for member in members:
        assert all(len(answers) == 1 for answers in member.answers.values()), member.user


async def test_every_member_gets_every_copy_once_in_one_order(
    redis_url: str, nursery: trio.Nursery, record: Record
) -> None:
    """1,000 publishes of ten at once to a room of 200 on four nodes.

    Who publishes without echo gets no copy of that; a publisher with echo does, and so does a second session
    of the same user. All see what they see in the same order.
    """
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, *NAMES) as cluster:
            watch = Watch()
            members = crowd(cluster, MEMBERS, watch)
            twin = Roommate([edges(cluster)[3]], "user 0", device="other", watch=watch)
            await joined(nursery, "lobby", *members, twin)
            silent = [member for index, member in enumerate(members[:PUBLISHERS]) if index % 2 == 0]
            each = PUBLISHES // PUBLISHERS
            began = trio.current_time()
            async with trio.open_nursery() as publishing:
                for member in members[:PUBLISHERS]:
                    publishing.start_soon(publish_many, member, "lobby", each, member not in silent)
            expected = PUBLISHES * (MEMBERS + 1) - each * len(silent)
            await watch.until(lambda: sum(len(member.copies) for member in (*members, twin)) >= expected)
            took_s = trio.current_time() - began
            order = twin.of("lobby")
            assert len(set(order)) == PUBLISHES
            for member in members:
                mine = member.user if member in silent else None
                assert member.of("lobby") == [copy for copy in order if copy[0] != mine]
            assert sum(node.rooms.copies for node in cluster.values()) == expected
            assert_one_answer_each(members)
            record("copies per second", round(expected / took_s))


async def test_nothing_is_missed_behind_a_join_and_nothing_comes_behind_a_leave(
    redis_url: str, nursery: trio.Nursery, record: Record
) -> None:
    """While others publish, members come and go, on nodes where the room is heard and where it is not yet."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, *NAMES) as cluster:
            watch = Watch()
            random = Random(1)
            speakers = [Roommate([edge], f"speaker {edge}", watch=watch) for edge in edges(cluster)]
            guests = crowd(cluster, 12, watch)
            for client in (*speakers, *guests):
                await nursery.start(client.run)
            steady = [Steady(speaker, "lobby") for speaker in speakers]
            checked = 0

            async def visit(guest: Roommate) -> None:
                nonlocal checked
                for _ in range(VISITS):
                    await guest.done(guest.join("lobby"))
                    # Whatever is published from here on must come.
                    first = [speech.count for speech in steady]
                    for speech, count in zip(steady, first, strict=True):
                        await heard(guest, (speech.client.user, count + 4))
                    has = set(guest.of("lobby"))
                    for speech, count in zip(steady, first, strict=True):
                        assert {(speech.client.user, n) for n in range(count, count + 5)} <= has
                        checked += 5
                    await guest.done(guest.leave("lobby"))
                    left_with = len(guest.copies)
                    await steady[0].until_more(random.randrange(1, 10))
                    assert len(guest.copies) == left_with

            async with trio.open_nursery() as speaking:
                for speech in steady:
                    speaking.start_soon(speech.run)
                async with trio.open_nursery() as visiting:
                    for guest in guests:
                        visiting.start_soon(visit, guest)
                for speech in steady:
                    speech.stopped = True
            assert_one_order(guests, "lobby")
            assert_one_answer_each((*speakers, *guests))
            assert all(node.rooms.memberships == 0 for node in cluster.values())
            record("copies checked", checked)


@asynccontextmanager
async def operator(url: str) -> AsyncIterator[Redis]:
    """A connection of the test's own."""
    redis = Redis.from_url(url, client_name="test")
    async with trio.open_nursery() as nursery:
        await nursery.start(redis.run)
        yield redis
        nursery.cancel_scope.cancel()


async def test_a_connection_that_is_killed_is_a_gap_that_is_told(
    redis_url: str, nursery: trio.Nursery, record: Record
) -> None:
    """Under traffic: each member is told once; what is published behind that comes; the order is kept."""
    with trio.fail_after(DEADLINE_S):
        async with operator(redis_url) as redis, nodes(redis_url, *NAMES) as cluster:
            watch = Watch()
            members = crowd(cluster, 40, watch)
            await joined(nursery, "lobby", *members)
            speeches = [Steady(member, "lobby") for member in members[:4]]
            longest_s = 0.0
            async with trio.open_nursery() as speaking:
                for speech in speeches:
                    speaking.start_soon(speech.run)
                for times in range(1, BREAKS + 1):
                    await more_copies(members, 2000)
                    began = trio.current_time()
                    killed = await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                    assert killed == len(NAMES)
                    await told(members, times)
                    longest_s = max(longest_s, trio.current_time() - began)
                    for speech in speeches:
                        next_one = (speech.client.user, speech.count + 1)
                        for member in members:
                            if member is not speech.client:
                                await heard(member, next_one)
                for speech in speeches:
                    speech.stopped = True
            for member in members:
                assert {(gap.room, gap.code, gap.retryable) for gap in member.gaps} == {
                    ("lobby", "rooms_unavailable", True)
                }
                assert len(member.gaps) == BREAKS
            assert_one_order(members, "lobby")
            # Publishing has a connection of its own, which nobody killed.
            assert {outcome for speech in speeches for outcome in speech.outcomes()} == {"ok"}
            assert sum(node.rooms.gaps_told for node in cluster.values()) == BREAKS * len(members)
            record("until all were told", f"{longest_s * 1000:.0f} ms")


async def accepted(member: Roommate, room: str) -> None:
    """Publishes until it is done: a node hears of a room by another connection than it publishes by."""
    while isinstance(answer := await member.answer(member.publish(room)), wire.Error):
        assert answer.code == "rooms_unavailable", answer
        await trio.sleep(0.05)  # a client that tries again


async def test_redis_is_restarted(tmp_path: Path, nursery: trio.Nursery, record: Record) -> None:
    """Away: commands are refused at once. Back: members are members, and hear, within 2 s; nothing hangs."""
    with trio.fail_after(DEADLINE_S):
        async with Store(tmp_path, "test") as store, nodes(f"redis://{store.address}", *NAMES) as cluster:
            watch = Watch()
            members = crowd(cluster, 40, watch)
            await joined(nursery, "lobby", *members)
            speeches = [Steady(member, "lobby") for member in members[:4]]
            async with trio.open_nursery() as speaking:
                for speech in speeches:
                    speaking.start_soon(speech.run)
                await watch.until(lambda: all(len(member.copies) > 50 for member in members))
                await store.stop()
                for speech in speeches:
                    await speech.until_answered("rooms_unavailable")
                for speech in speeches:
                    speech.stopped = True
            began = trio.current_time()
            for member in members:
                for frame_id in (member.join("lobby"), member.join("other"), member.publish("lobby")):
                    answer = await member.answer(frame_id)
                    assert isinstance(answer, wire.Error)
                    assert (answer.code, answer.retryable) == ("rooms_unavailable", True)
            assert trio.current_time() - began < 5, "120 refusals, at once each"
            await members[-1].done(members[-1].leave("lobby"))

            await store.start()
            began = trio.current_time()
            await told(members[:-1], 1)
            told_s = trio.current_time() - began
            await accepted(members[0], "lobby")
            newest = (members[0].user, members[0].published - 1)
            for member in members[1:-1]:
                await heard(member, newest)
            back_s = trio.current_time() - began
            assert back_s < BACK_S
            await members[-1].done(members[-1].join("other"))
            assert members[-1].gaps == [], "it is in no room that was missed"
            assert_one_order(members, "lobby")
            assert_one_answer_each(members)
            record("told", f"{told_s * 1000:.0f} ms after Redis was back")
            record("copies again", f"{back_s * 1000:.0f} ms after")


PAD = "x" * 10_000
SMALL_OUTPUT: dict[str, Any] = {"output_bytes": 200_000, "room_policy": ("news-*=drop_oldest",)}


@pytest.mark.parametrize("room", ["news-1", "lobby"])
async def test_a_member_that_stands_still_holds_up_nobody(
    redis_url: str, nursery: trio.Nursery, record: Record, room: str
) -> None:
    """Others get all, in order. By the room's policy it is closed, 4008, or gets the newest when it goes on.

    With `drop_oldest` it is told how many are missing, before what is left; a direct message reaches it too.
    """
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1", "n2", **SMALL_OUTPUT) as cluster:
            watch = Watch()
            members = crowd(cluster, 6, watch)
            slow, speaker, other = members[0], members[1], members[2]
            await joined(nursery, room, *members)
            slow.stand_still()
            node = cluster["n1"]
            count = 0
            while not (node.rooms.dropped["slow_member"] >= 50 if room == "news-1" else _gone(node, slow)):
                await speaker.done(speaker.publish(room, pad=PAD))
                count += 1
                assert count < 5000, "the kernel takes all"
            direct = other.send(slow.user)
            await watch.until(lambda: len(other.of(room)) == count)
            for member in members[2:]:
                assert member.of(room) == [(speaker.user, n) for n in range(count)]
            slow.go_on()
            if room == "lobby":
                await watch.until(lambda: bool(slow.closes))
                assert slow.closes[0][0] == CloseCode.SLOW_CONSUMER
                assert node.rooms.dropped["slow_member"] == 0
                return
            await watch.until(lambda: (speaker.user, count - 1) in slow.of(room) and bool(direct.answers))
            assert direct.status == "delivered"
            assert slow.closes == []
            [busy] = slow.gaps
            assert (busy.code, busy.retryable, busy.room) == ("busy", True, room)
            dropped = node.rooms.dropped["slow_member"]
            assert f" {dropped} messages " in busy.message
            got = [n for _, n in slow.of(room)]
            assert len(got) == count - dropped
            gap = next(index for index, n in enumerate(got) if n != index)
            assert got == [*range(gap), *range(gap + dropped, count)], "one gap, then the newest"
            await speaker.done(speaker.publish(room))
            await watch.until(lambda: slow.of(room)[-1] == (speaker.user, count))
            record("dropped for it", f"{dropped} of {count}")


def _gone(node: Node, client: Roommate) -> bool:
    return not any(session.user == client.user for session in node.attachments.sessions.values())


async def published_calls(redis: Redis) -> int:
    """How often PUBLISH was called, by clients and by scripts."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_publish", {"calls": 0})["calls"])


async def test_pubsub_is_for_rooms_alone(redis_url: str, nursery: trio.Nursery) -> None:
    """Direct messages, a change of the ring and rooms at once: the channels are those of joined rooms.

    PUBLISH is called once for each publish, and never for anything else; channels go with the last member.
    """
    keys = Keys("test")
    with trio.fail_after(DEADLINE_S):
        async with operator(redis_url) as redis, nodes(redis_url, "n1", "n2", "n3") as cluster:
            before = await published_calls(redis)
            watch = Watch()
            members = crowd(cluster, 30, watch)
            assert await redis.pubsub_channels() == []
            rooms = ["a", "b", "c"]
            for index, member in enumerate(members):
                await joined(nursery, rooms[index % 3], member)
            wanted = {keys.channel(room) for room in rooms}
            assert set(await redis.pubsub_channels()) == wanted
            assert await redis.pubsub_numpat() == 0

            publishes = 0
            newcomer = Node(settings("n4", redis_url))
            await nursery.start(newcomer.run)
            epoch = newcomer.routing.barrier.epoch
            for index, member in enumerate(members):
                for _ in range(10):
                    member.send(members[index - 1].user)
                    member.publish(rooms[index % 3])
                    publishes += 1
            await watch.until(lambda: all(not member.unanswered for member in members))
            await watch.until(lambda: sum(len(member.copies) for member in members) == publishes * 9)
            await watch.until(lambda: all(all(member.answers.values()) for member in members))
            assert all(node.routing.barrier.epoch == epoch for node in cluster.values())
            assert {sent.status for member in members for sent in member.sent} == {"delivered"}
            assert await published_calls(redis) - before == publishes
            assert set(await redis.pubsub_channels()) == wanted

            for index, member in enumerate(members):
                await member.done(member.leave(rooms[index % 3]))
                if index == len(members) - 3:
                    assert set(await redis.pubsub_channels()) == {keys.channel("b"), keys.channel("c")}
            while await redis.pubsub_channels():
                await trio.lowlevel.checkpoint()
            assert all(not node.rooms.rooms for node in cluster.values())
