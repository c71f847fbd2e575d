"""Rooms through the library's face, in a session that a fake node serves."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import ring
from ring.protocol import client as protocol
from ring.protocol.codes import ErrorCode
from tests.client.fake_node import Asking, FakeNode, be_in, next_of_room, take, welcome


async def test_join_waits_for_the_answer(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Then messages come, as the node sent them, among the direct ones."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        joining = Asking(nursery, lambda: client.join("lobby"))
        frame_id = await peer.hear_join("lobby")
        await wait_all_tasks_blocked()
        assert not joining.done
        await peer.grant(frame_id)
        await joining.granted()
        assert client.rooms == {"lobby"}

        await peer.say(1)
        await peer.message(2)
        await peer.say(3, sender=None)
        first = await next_of_room(client)
        assert isinstance(first, ring.RoomMessage)
        assert (first.room, first.sender, first.id, first.sent_at) == ("lobby", "bob", "r1", 1)
        assert (bytes(first.raw), first.data) == (b"1", 1)
        assert repr(first) == "<ring.RoomMessage in 'lobby' from 'bob', id 'r1', 1 bytes>"
        assert await take(client, 1) == [2]
        assert await peer.hear_ack() == "1-2"
        last = await next_of_room(client)
        assert isinstance(last, ring.RoomMessage)
        assert (last.sender, last.data) == (None, 3)


async def test_acknowledgements_do_not_wait_for_rooms(node: FakeNode, autojump_clock: MockClock) -> None:
    """With no direct message left to take, a sender's receipt need not wait for what is said in rooms."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await be_in(client, peer, "lobby")
        await peer.message(1)
        await peer.say(2)
        await wait_all_tasks_blocked()
        before = trio.current_time()
        assert await take(client, 1) == [1]

        assert await peer.hear_ack() == "1-1"
        assert trio.current_time() == before


async def test_room_messages_wake_an_iteration(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """One that waits gets what comes of a room; and gaps."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await be_in(client, peer, "lobby")
        got: list[object] = []

        @nursery.start_soon
        async def listen() -> None:
            got.extend([await next_of_room(client), await next_of_room(client)])

        await wait_all_tasks_blocked()
        await peer.say(1)
        await wait_all_tasks_blocked()
        gap = protocol.Error(ErrorCode.ROOMS_UNAVAILABLE, "Redis was away", retryable=True, room="lobby")
        await peer.tell(gap)
        await wait_all_tasks_blocked()
        assert [type(one) for one in got] == [ring.RoomMessage, ring.RoomGap]
        assert got[1] == ring.RoomGap("lobby", "Redis was away")


@pytest.mark.parametrize("joined", [False, True])
async def test_rooms_that_were_not_joined_are_passed_over(
    node: FakeNode, autojump_clock: MockClock, joined: bool
) -> None:
    """Who joins nothing sees direct messages alone, whatever the node sends; so does who left."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        if joined:
            await be_in(client, peer, "lobby")
            async with trio.open_nursery() as leaving:
                leaving.start_soon(client.leave, "lobby")
                await peer.grant(await peer.hear_leave("lobby"))
        await peer.say(1)
        await peer.tell(protocol.Error(ErrorCode.ROOMS_UNAVAILABLE, "gap", retryable=True, room="lobby"))
        await peer.message(1)

        assert await take(client, 1) == [1]


async def test_refused_join_raises(node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """With the node's code and words; it is not tried again."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        joining = Asking(nursery, lambda: client.join("lobby"))
        await peer.refuse(await peer.hear_join("lobby"), ErrorCode.TOO_MANY_ROOMS, "at most 0 rooms")
        with pytest.raises(ring.RingError, match="at most 0 rooms") as caught:
            await joining.granted()
        assert caught.value.code is ring.ErrorCode.TOO_MANY_ROOMS
        assert client.rooms == frozenset()
        with pytest.raises(ring.RingError) as caught:
            await client.leave("lobby")
        assert caught.value.code is ring.ErrorCode.NOT_JOINED


async def test_publishing_waits_for_the_answer(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The frame is what was asked for; a refusal is raised."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        publishing = Asking(nursery, lambda: client.publish("lobby", {"n": 1}, echo=True))
        frame = await peer.hear_publish()
        assert (frame.room, bytes(frame.data), frame.echo) == ("lobby", b'{"n":1}', True)
        await wait_all_tasks_blocked()
        assert not publishing.done
        await peer.grant(frame.id)
        await publishing.granted()

        publishing = Asking(nursery, lambda: client.publish("lobby", 2))
        frame = await peer.hear_publish()
        assert frame.echo is False
        await peer.refuse(frame.id, ErrorCode.ROOMS_UNAVAILABLE, "Redis is away")
        with pytest.raises(ring.RingError, match="Redis is away") as caught:
            await publishing.granted()
        assert caught.value.code is ring.ErrorCode.ROOMS_UNAVAILABLE


@pytest.mark.parametrize(("room", "data", "match"), [("", 1, "room: "), ("lobby", object(), "no JSON")])
async def test_malformed_publishing_is_refused(
    node: FakeNode, autojump_clock: MockClock, room: str, data: object, match: str
) -> None:
    """By an exception of the call, with nothing sent."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        with pytest.raises(ring.BadRequest, match=match):
            await client.publish(room, data)

    assert await peer.hear_end()


async def test_malformed_names_are_refused(node: FakeNode, autojump_clock: MockClock) -> None:
    """Likewise where rooms are joined and left."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        for ask in (client.join, client.leave):
            with pytest.raises(ring.BadRequest, match="room: "):
                await ask("a\nb")

    assert await peer.hear_end()


async def test_publishing_beyond_the_limit_is_refused(node: FakeNode, autojump_clock: MockClock) -> None:
    """The node's limit is known."""
    node.plans.append(welcome(message_bytes=10))
    async with ring.connect(node.url, "alice") as client:
        with pytest.raises(ring.BadRequest, match="data: at most 10 bytes, not 11") as caught:
            await client.publish("lobby", "123456789")

    assert caught.value.code is ring.ErrorCode.TOO_LARGE
