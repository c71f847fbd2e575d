"""Rooms through the library's face, when sessions end, nodes do not answer and applications are slow."""

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import ring
from ring.client import inbox as inbox_module
from ring.protocol import client as protocol
from ring.protocol.codes import ErrorCode
from tests.client.fake_node import Asking, FakeNode, Sending, be_in, close, next_of_room, take, welcome

EAGER = ring.Backoff(first_s=0, cap_s=0, slow_s=0)
SECONDS = ring.Backoff(first_s=1, cap_s=8, draw=lambda: 1)


async def test_rooms_are_joined_again_after_a_cut(node: FakeNode, autojump_clock: MockClock) -> None:
    """Each one, by the library, before what the application publishes meanwhile; gaps tell of it."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        await be_in(client, peer, "a", "b")
        await peer.say(1, "a")
        await wait_all_tasks_blocked()
        await peer.cut()
        peer = await node.peer()
        asked = [await peer.hear_join("a"), await peer.hear_join("b")]
        await peer.say(2, "a")
        for frame_id in asked:
            await peer.grant(frame_id)
        await peer.say(3, "b")

        came = [await next_of_room(client) for _ in range(5)]
        assert [(type(one), one.room) for one in came] == [
            (ring.RoomMessage, "a"),
            (ring.RoomGap, "a"),
            (ring.RoomMessage, "a"),
            (ring.RoomGap, "b"),
            (ring.RoomMessage, "b"),
        ]
        assert client.gaps == 0  # those are of direct messages


async def test_rejoining_goes_on_until_it_is_granted(node: FakeNode, autojump_clock: MockClock) -> None:
    """What may be granted later is asked for again, with back-off; the gap comes with the grant."""
    async with ring.connect(node.url, "alice", backoff=SECONDS) as client:
        peer = await node.peer()
        await be_in(client, peer, "lobby")
        await peer.cut()
        peer = await node.peer()
        frame_id = await peer.hear_join("lobby")
        for wait_s in (1, 2, 4, 8, 8):
            await peer.refuse(frame_id, ErrorCode.ROOMS_UNAVAILABLE)
            due_at = trio.current_time() + wait_s
            frame_id = await peer.hear_join("lobby")
            assert trio.current_time() == pytest.approx(due_at)
        assert client.rooms == {"lobby"}
        await peer.grant(frame_id)

        assert isinstance(await next_of_room(client), ring.RoomGap)


async def test_many_rooms_are_joined_again_within_the_bound(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """A node is not asked for more at a time than it said."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        rooms = [f"r{number}" for number in range(10)]
        await be_in(client, peer, *rooms)
        node.plans.append(welcome(in_flight=3))
        await peer.cut()
        peer = await node.peer()
        heard: list[str] = []
        while len(heard) < len(rooms):
            asked = [await peer.hear() for _ in range(min(3, len(rooms) - len(heard)))]
            with trio.move_on_after(1) as more:
                await peer.websocket.get_message()
            assert more.cancelled_caught
            for frame in asked:
                assert isinstance(frame, protocol.Join)
                heard.append(frame.room)
                await peer.grant(frame.id)

        assert heard == rooms


async def test_membership_that_is_refused_for_good_is_told(node: FakeNode, autojump_clock: MockClock) -> None:
    """In the iteration, once; the room is not asked for again."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        await be_in(client, peer, "lobby")
        await peer.cut()
        peer = await node.peer()
        await peer.refuse(await peer.hear_join("lobby"), ErrorCode.FORBIDDEN, "not any more")

        ended = await next_of_room(client)
        assert ended == ring.RoomEnded("lobby", ErrorCode.FORBIDDEN, "not any more")
        assert client.rooms == frozenset()
        await peer.message(1)
        assert await take(client, 1) == [1]


async def test_publishing_that_was_cut_raises(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """It may have been published, so it is not sent again; what was not written waits for another session."""
    node.plans.append(welcome(in_flight=1))
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        first = Asking(nursery, lambda: client.publish("lobby", 1))
        await peer.hear_publish()
        second = Asking(nursery, lambda: client.publish("lobby", 2))
        await wait_all_tasks_blocked()
        await peer.cut()
        with pytest.raises(ring.RingError, match="it may have been published") as caught:
            await first.granted()
        assert caught.value.code is ring.ErrorCode.ROOMS_UNAVAILABLE
        peer = await node.peer()
        frame = await peer.hear_publish()
        assert bytes(frame.data) == b"2"
        await peer.grant(frame.id)
        await second.granted()


async def test_calls_wait_for_a_connection(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Between two sessions: to join and to publish wait for the next; to leave has nothing to wait for."""
    async with ring.connect(node.url, "alice", backoff=SECONDS) as client:
        peer = await node.peer()
        await be_in(client, peer, "old")
        await peer.cut()
        await wait_all_tasks_blocked()
        assert not client.connected
        before = trio.current_time()
        await client.leave("old")
        assert trio.current_time() == before
        joining = Asking(nursery, lambda: client.join("new"))
        publishing = Asking(nursery, lambda: client.publish("new", 1))

        peer = await node.peer()
        await peer.grant(await peer.hear_join("new"))
        await peer.grant((await peer.hear_publish()).id)
        await joining.granted()
        await publishing.granted()
        assert trio.current_time() - before == pytest.approx(1)


async def test_cancelled_join_is_taken_back(node: FakeNode, autojump_clock: MockClock) -> None:
    """A caller whose patience is over is no member, though the node grants it later."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        with trio.move_on_after(1) as scope:
            await client.join("lobby")
        assert scope.cancelled_caught
        await peer.grant(await peer.hear_join("lobby"))
        await peer.grant(await peer.hear_leave("lobby"))
        with trio.move_on_after(1) as scope:
            await client.publish("lobby", 1)
        assert scope.cancelled_caught
        await peer.grant((await peer.hear_publish()).id)
        await peer.say(1)
        await peer.message(1)

        assert await take(client, 1) == [1]
        assert client.rooms == frozenset()


async def test_cancelled_join_between_two_sessions_is_not_asked_for(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """There is nothing to take back."""
    async with ring.connect(node.url, "alice", backoff=SECONDS) as client:
        await (await node.peer()).cut()
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.5) as scope:
            await client.join("lobby")
        assert scope.cancelled_caught
        peer = await node.peer()

    assert await peer.hear_end()


async def test_direct_messages_go_on_while_a_node_does_not_answer_for_rooms(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Rooms need Redis, direct messages don't: what waits for the one does not hold up the other."""
    node.plans.append(welcome(in_flight=2))
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        joins = [Asking(nursery, partial(client.join, room)) for room in "abc"]
        for _ in range(2):
            assert isinstance(await peer.hear(), protocol.Join)
        for number in range(5):
            sending = Sending(nursery, client, number)
            await peer.receipt(await peer.hear_send())
            assert await sending.result()
        assert not any(joining.done for joining in joins)
        for joining in joins:
            joining.scope.cancel()


async def test_slow_application_loses_the_oldest_of_rooms(
    node: FakeNode, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap says so; direct messages are kept, and no session ends for it."""
    monkeypatch.setattr(inbox_module, "BUFFER_BYTES", 4000)
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        await be_in(client, peer, "lobby")
        await peer.message(1)
        for number in range(1, 21):
            await peer.say(number)
        await wait_all_tasks_blocked()

        assert await take(client, 1) == [1]
        assert await peer.hear_ack() == "1-1"
        gap = await next_of_room(client)
        assert isinstance(gap, ring.RoomGap)
        assert "too slowly" in gap.reason
        last = 0
        while last < 20:
            said = await next_of_room(client)
            assert isinstance(said, ring.RoomMessage)
            assert last in (0, said.sent_at - 1)
            last = said.sent_at
        assert client.reconnects == 0


async def test_direct_messages_left_to_the_node_come_though_a_room_does_not_rest(
    node: FakeNode, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next session is made when those are taken; what waits of rooms is no reason to wait."""
    monkeypatch.setattr(inbox_module, "BUFFER_BYTES", 2000)
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        await be_in(client, peer, "lobby")
        for number in range(1, 6):
            await peer.message(number)
        await peer.say(1)
        await wait_all_tasks_blocked()
        assert await take(client, 3) == [1, 2, 3]
        await peer.say(2)

        peer = await node.peer()
        assert peer.query["resume"] == "1-3"
        await peer.grant(await peer.hear_join("lobby"))


async def test_end_of_the_connection_is_raised(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """By whatever waits, and by what is asked for later."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        await be_in(client, peer, "lobby")
        asking = [
            Asking(nursery, lambda: client.join("new")),
            Asking(nursery, lambda: client.publish("lobby", 1)),
        ]
        await peer.hear_join("new")
        await peer.hear_publish()
        asking.append(Asking(nursery, lambda: client.join("lobby")))  # joined: there is nothing to wait for
        await asking.pop().granted()
        await peer.close(4009, "replaced")
        with pytest.raises(ring.ConnectionEnded):
            await asking[0].granted()
        with pytest.raises(ring.RingError, match="may have been published"):
            await asking[1].granted()
        for ask in (client.join, client.leave):
            with pytest.raises(ring.ConnectionEnded):
                await ask("lobby")
        with pytest.raises(ring.ConnectionEnded):
            await client.publish("lobby", 1)


async def test_leaving_the_block_ends_what_waits(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """As it does for messages that are being sent."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        waiting = [Asking(nursery, lambda: client.join("a")), Asking(nursery, lambda: client.publish("a", 1))]
        await peer.hear_join("a")
        await peer.hear_publish()
    for asking in waiting:
        with pytest.raises(ring.ConnectionEnded, match="this client was closed"):
            await asking.granted()


async def test_rooms_of_a_client_that_is_turned_away_meanwhile(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """A session that ends before the rooms were asked for changes nothing: the next one is asked."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        await be_in(client, peer, "lobby")
        node.plans.append(close(1012, "the node drains"))
        await peer.cut()
        peer = await node.peer()
        await peer.grant(await peer.hear_join("lobby"))

        assert isinstance(await next_of_room(client), ring.RoomGap)
        assert client.reconnects == 2
