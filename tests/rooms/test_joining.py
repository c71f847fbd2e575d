"""Joining and leaving: when a session is a member, what it is answered, and what the node subscribes to."""

import pytest
import trio

from ring.rooms.publisher import ANSWER_S
from tests.rooms.fakes import House, channel, payload, settle

OK = {"type": "ok", "id": "j"}


async def test_a_join_is_answered_when_the_subscription_stands(nursery: trio.Nursery) -> None:
    """Not before: what is published from the answer on reaches the member."""
    house = await House(prompt=False).open(nursery)
    alice = house.member()
    house.rooms.join(alice, "lobby", "j")
    await settle()
    assert (house.of(alice).heard(), alice.unanswered, house.rooms.memberships) == ([], 1, 0)
    assert house.subscriber.commands == [("subscribe", channel("lobby"))]
    house.subscriber.stand(channel("lobby"))
    await settle()
    assert (house.of(alice).heard(), alice.unanswered) == ([OK], 0)
    assert (house.rooms.memberships, house.rooms.standing, len(house.rooms.rooms)) == (1, 1, 1)
    house.pass_time(2 * ANSWER_S)
    assert house.of(alice).heard() == []


async def test_many_joins_are_one_subscription(nursery: trio.Nursery) -> None:
    """Those that come while it is under way are answered with it, those after it at once."""
    house = await House(prompt=False).open(nursery)
    early = [house.member(f"user {n}") for n in range(5)]
    for member in early:
        house.rooms.join(member, "lobby", "j")
    house.subscriber.stand(channel("lobby"))
    await settle()
    assert all(house.of(member).heard() == [OK] for member in early)
    late = house.member()
    house.rooms.join(late, "lobby", "j")
    assert house.of(late).heard() == [OK]
    assert house.subscriber.commands == [("subscribe", channel("lobby"))]
    assert (house.rooms.memberships, house.rooms.standing) == (6, 1)


async def test_joining_again_changes_nothing(nursery: trio.Nursery) -> None:
    """Each join is answered; one membership, one copy, one leave."""
    house = await House(prompt=False).open(nursery)
    alice = house.member()
    for frame_id in ("j1", "j2"):
        house.rooms.join(alice, "lobby", frame_id)
    assert alice.unanswered == 2
    house.subscriber.stand(channel("lobby"))
    await settle()
    house.rooms.join(alice, "lobby", "j3")
    assert [frame["id"] for frame in house.of(alice).heard("ok")] == ["j1", "j2", "j3"]
    assert (house.rooms.memberships, alice.unanswered) == (1, 0)
    house.rooms.leave(alice, "lobby", "l1")
    house.rooms.leave(alice, "lobby", "l2")
    assert [(frame["id"], frame.get("code")) for frame in house.of(alice).heard()] == [
        ("l1", None),
        ("l2", "not_joined"),
    ]


async def test_the_last_to_leave_ends_the_subscription(nursery: trio.Nursery) -> None:
    """And nothing of the room is left."""
    house = await House().open(nursery)
    alice, bob = await house.joined("lobby", "alice", "bob")
    house.rooms.leave(alice, "lobby", "l")
    assert house.of(alice).heard() == [{"type": "ok", "id": "l"}]
    assert house.subscriber.commands[1:] == []
    house.rooms.close(bob)
    assert house.subscriber.commands[1:] == [("unsubscribe", channel("lobby"))]
    assert (house.rooms.rooms, house.rooms.memberships, house.rooms.standing) == ({}, 0, 0)
    assert (alice.channels, bob.channels) == (set(), set())
    assert house.of(bob).heard() == []


async def test_a_join_that_does_not_stand_in_time_leaves_nothing(nursery: trio.Nursery) -> None:
    """Refused, to be tried again; it counts towards no bound, and the channel is given up."""
    house = await House(prompt=False).open(nursery)
    alice = house.member()
    house.rooms.join(alice, "lobby", "j")
    house.pass_time(ANSWER_S - 0.1)
    assert house.of(alice).heard() == []
    house.pass_time(0.2)
    [error] = house.of(alice).heard()
    assert (error["id"], error["code"], error["retryable"]) == ("j", "rooms_unavailable", True)
    assert "room" not in error, "it is the answer to a frame"
    assert (alice.unanswered, alice.channels, house.rooms.rooms) == (0, set(), {})
    assert house.subscriber.commands[-1] == ("unsubscribe", channel("lobby"))
    house.subscriber.prompt = True
    house.rooms.join(alice, "lobby", "j")
    await settle()
    assert house.of(alice).heard() == [OK]


async def test_others_wait_for_it_longer(nursery: trio.Nursery) -> None:
    """Each join has its own time; the subscription is kept while one waits."""
    house = await House(prompt=False).open(nursery)
    alice, bob = house.member("alice"), house.member("bob")
    house.rooms.join(alice, "lobby", "j")
    house.pass_time(ANSWER_S / 2)
    house.rooms.join(bob, "lobby", "j")
    house.pass_time(ANSWER_S / 2 + 0.1)
    assert [frame["code"] for frame in house.of(alice).heard()] == ["rooms_unavailable"]
    house.subscriber.stand(channel("lobby"))
    await settle()
    assert (house.of(bob).heard(), house.of(alice).heard()) == ([OK], [])
    assert house.rooms.memberships == 1


async def test_leaving_ends_a_join_under_way(nursery: trio.Nursery) -> None:
    """Both are answered; what comes of it later finds nobody."""
    house = await House(prompt=False).open(nursery)
    alice = house.member()
    house.rooms.join(alice, "lobby", "j")
    house.rooms.leave(alice, "lobby", "l")
    refused, left = house.of(alice).heard()
    assert (refused["id"], refused["code"]) == ("j", "not_joined")
    assert left == {"type": "ok", "id": "l"}
    assert house.rooms.rooms == {}
    house.pass_time(2 * ANSWER_S)
    await settle()
    assert (house.of(alice).heard(), alice.unanswered) == ([], 0)


async def test_a_join_that_was_answered_has_no_time_any_more(nursery: trio.Nursery) -> None:
    """Who leaves and joins again at once is a member for good, whatever the first join had left of it."""
    house = await House().open(nursery)
    [alice] = await house.joined("lobby", "alice")
    house.rooms.leave(alice, "lobby", "l")
    house.subscriber.prompt = False
    house.pass_time(ANSWER_S / 2)
    house.rooms.join(alice, "lobby", "j")
    house.of(alice).heard()
    house.pass_time(ANSWER_S / 2 + 0.1)
    assert alice.channels == {channel("lobby")}
    house.subscriber.stand(channel("lobby"))
    await settle()
    assert house.of(alice).heard() == [OK]
    assert house.rooms.memberships == 1


async def test_a_session_that_ends_leaves_all(nursery: trio.Nursery) -> None:
    """Rooms, and joins under way, of which it hears nothing more."""
    house = await House(prompt=False).open(nursery)
    alice = house.member()
    for room in ("a", "b"):
        house.rooms.join(alice, room, "j")
    house.subscriber.stand(channel("a"))
    await settle()
    house.of(alice).heard()
    house.rooms.close(alice)
    house.rooms.close(alice)
    house.subscriber.tell()
    await settle()
    house.pass_time(2 * ANSWER_S)
    assert house.of(alice).heard() == []
    assert (house.rooms.rooms, house.rooms.memberships, house.rooms.standing) == ({}, 0, 0)


async def test_rooms_of_a_session_are_bounded(nursery: trio.Nursery) -> None:
    """Joins under way count; those it has left do not, nor does joining one again."""
    house = await House(rooms_per_session=2, prompt=False).open(nursery)
    alice = house.member()
    house.rooms.join(alice, "a", "j")
    house.rooms.join(alice, "b", "j")
    house.rooms.join(alice, "c", "j3")
    [error] = house.of(alice).heard()
    assert (error["id"], error["code"], error["retryable"]) == ("j3", "too_many_rooms", False)
    assert error["message"] == "at most 2 rooms: leave one"
    assert len(house.rooms.rooms) == 2
    house.subscriber.prompt = True
    house.subscriber.stand(channel("a"))
    house.rooms.join(alice, "a", "j4")
    house.rooms.leave(alice, "b", "l")
    house.of(alice).heard()
    house.rooms.join(alice, "c", "j5")
    await settle()
    assert [frame["id"] for frame in house.of(alice).heard("ok")][-1] == "j5"


class TestWithoutRedis:
    """While there is no connection for rooms."""

    async def test_a_join_is_refused_at_once(self, nursery: trio.Nursery) -> None:
        """Also of a member, who stays one; leaving works."""
        house = await House().open(nursery)
        [alice] = await house.joined("lobby", "alice")
        house.subscriber.disconnect()
        for room in ("lobby", "other"):
            house.rooms.join(alice, room, "j")
            [error] = house.of(alice).heard()
            assert (error["id"], error["code"], error["retryable"]) == ("j", "rooms_unavailable", True)
        assert alice.channels == {channel("lobby")}
        assert (house.rooms.memberships, len(house.rooms.rooms)) == (1, 1)
        house.rooms.leave(alice, "lobby", "l")
        assert house.of(alice).heard() == [{"type": "ok", "id": "l"}]
        await settle()
        assert (house.rooms.rooms, house.rooms.standing) == ({}, 0)

    async def test_members_stay_and_are_told_that_there_is_a_gap(self, nursery: trio.Nursery) -> None:
        """Once the room stands again: who joins only then has missed nothing."""
        house = await House().open(nursery)
        alice, bob = await house.joined("lobby", "alice", "bob")
        house.subscriber.prompt = False
        house.subscriber.disconnect()
        await settle()
        assert house.rooms.standing == 0
        house.subscriber.reconnect()
        carol = house.member("carol")
        house.rooms.join(carol, "lobby", "j")
        house.rooms.join(bob, "lobby", "again")
        await settle()
        assert (house.of(carol).heard(), house.of(bob).heard()) == ([], []), "it does not stand yet"
        house.subscriber.stand(channel("lobby"))
        await settle()
        gap = {
            "type": "error",
            "code": "rooms_unavailable",
            "message": "messages of this room may be missing: the connection to Redis was away, or the node "
            "was too slow",
            "retryable": True,
            "room": "lobby",
        }
        assert house.of(alice).heard() == [gap]
        assert house.of(bob).heard() == [{"type": "ok", "id": "again"}, gap]
        assert house.of(carol).heard() == [OK]
        assert (house.rooms.gaps_told, house.rooms.memberships, house.rooms.standing) == (2, 3, 1)

    async def test_a_member_whose_join_fails_stays_one(self, nursery: trio.Nursery) -> None:
        """It asked again while the room did not stand, and there was no answer in time."""
        house = await House().open(nursery)
        [alice] = await house.joined("lobby", "alice")
        house.subscriber.prompt = False
        house.subscriber.disconnect()
        await settle()
        house.subscriber.reconnect()
        house.rooms.join(alice, "lobby", "j")
        house.pass_time(ANSWER_S + 0.1)
        assert [frame["code"] for frame in house.of(alice).heard()] == ["rooms_unavailable"]
        house.subscriber.stand(channel("lobby"))
        await settle()
        assert [frame["room"] for frame in house.of(alice).heard()] == ["lobby"]
        assert (house.rooms.memberships, alice.channels) == (1, {channel("lobby")})
        house.rooms.close(alice)
        assert (house.rooms.memberships, house.rooms.rooms) == (0, {})

    async def test_a_join_survives_a_short_break(self, nursery: trio.Nursery) -> None:
        """It waits as long as any: the subscription stands on the next connection."""
        house = await House(prompt=False).open(nursery)
        alice = house.member()
        house.rooms.join(alice, "lobby", "j")
        house.subscriber.disconnect()
        await settle()
        house.subscriber.reconnect()
        house.subscriber.stand(channel("lobby"))
        await settle()
        assert house.of(alice).heard() == [OK]

    async def test_a_node_that_does_not_run_yet_has_none(self) -> None:
        """Nor one that has ended; leaving works there too."""
        house = House()
        alice = house.member()
        house.rooms.join(alice, "lobby", "j")
        house.rooms.leave(alice, "lobby", "l")
        assert [frame["code"] for frame in house.of(alice).heard()] == ["rooms_unavailable", "not_joined"]
        async with trio.open_nursery() as running:
            await house.open(running)
            [bob] = await house.joined("lobby", "bob")
            running.cancel_scope.cancel()
        house.rooms.close(bob)
        assert house.rooms.rooms == {}
        assert house.rooms.dropped == {"slow_member": 0, "slow_node": 0, "undecodable": 0}


class TestWithinABatch:
    """What comes from Redis is handed out in steps, and commands come in between."""

    @pytest.fixture
    async def house(self, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> House:
        """A node that pauses after each copy, with a room of five."""
        monkeypatch.setattr("ring.rooms.rooms.STEP_COPIES", 1)
        house = await House().open(nursery)
        await house.joined("crowd", *(f"user {n}" for n in range(5)))
        house.subscriber.prompt = False
        return house

    async def begun(self, house: House) -> None:
        """Returns when the crowd has begun to get its copies; some have none yet."""
        while not house.sockets[1].data():
            await trio.lowlevel.checkpoint()
        assert house.sockets[5].data() == []

    async def test_news_of_a_room_that_was_left_is_not_of_the_one_that_was_joined(self, house: House) -> None:
        """It stands when its own subscription does."""
        alice = house.member()
        house.rooms.join(alice, "lobby", "j")
        house.subscriber.hear(channel("crowd"), payload())
        house.subscriber.stand(channel("lobby"))
        house.subscriber.hear(channel("lobby"), payload())
        await self.begun(house)
        house.rooms.leave(alice, "lobby", "l")
        house.rooms.join(alice, "lobby", "j2")
        await settle()
        assert [(frame["id"], frame["type"]) for frame in house.of(alice).heard()] == [
            ("j", "error"),
            ("l", "ok"),
        ]
        house.subscriber.stand(channel("lobby"))
        await settle()
        assert house.of(alice).heard() == [{"type": "ok", "id": "j2"}]

    async def test_what_stood_on_a_connection_that_broke_does_not_stand(self, house: House) -> None:
        """Also before its turn has come to hear of the break."""
        house.subscriber.prompt = True
        [alice] = await house.joined("lobby", "alice")
        house.subscriber.prompt = False
        house.subscriber.hear(channel("crowd"), payload())
        house.subscriber.disconnect()
        await self.begun(house)
        house.subscriber.reconnect()
        house.rooms.join(alice, "lobby", "j2")
        await settle()
        assert house.of(alice).heard() == []
        house.subscriber.stand(channel("lobby"))
        await settle()
        assert [frame.get("id") for frame in house.of(alice).heard()] == ["j2", None]
