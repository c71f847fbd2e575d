"""Rooms as a session's client sees them: what it may ask for, and the one answer to each frame."""

from typing import Any, cast

import pytest
import trio
import trio.testing

from ring.protocol import peer
from ring.protocol.client import MAX_DEPTH
from ring.protocol.codes import CloseCode
from tests.edge.desk import Client, Desk, Frame
from tests.rooms.fakes import FakeRedis, FakeSubscriber, settle


class Street:
    """A desk whose rooms have a Redis."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.redis = FakeRedis()
        self.subscriber = FakeSubscriber()
        self.redis.subscribers.append(self.subscriber)

    def welcomed(self, user: str, device: str = "phone") -> Client:
        """A client that has heard its welcome."""
        return self.desk.welcomed(user, device)


@pytest.fixture
async def street(nursery: trio.Nursery) -> Street:
    """It runs."""
    street = Street()
    nursery.start_soon(street.desk.rooms.run, cast("Any", street.redis), cast("Any", street.subscriber))
    await settle()
    return street


async def ask(client: Client, kind: str, **fields: object) -> list[Frame]:
    """Sends a frame; returns what came of it when all is done."""
    client.say(kind, **fields)
    await settle()
    return client.heard()


async def test_a_room_from_end_to_end(street: Street) -> None:
    """Join, publish, leave; a copy to everyone but the session that published."""
    alice, twin, bob = street.welcomed("alice"), street.welcomed("alice", "laptop"), street.welcomed("bob")
    for client in (alice, twin, bob):
        assert await ask(client, "join", id="j1", room="lobby") == [{"type": "ok", "id": "j1"}]
    assert await ask(alice, "publish", id="p1", room="lobby", data={"a": [1, None]}) == [
        {"type": "ok", "id": "p1"}
    ]
    for client in (twin, bob):
        message = client.only()
        assert message.pop("sent_at") > 1.7e12
        said = {"room": "lobby", "from": "alice", "id": "p1", "data": {"a": [1, None]}}
        assert message == {"type": "room", **said}
    frames = await ask(alice, "publish", id="p2", room="lobby", data=2, echo=True)
    assert sorted(frame["type"] for frame in frames) == ["ok", "room"]
    bob.heard()
    assert await ask(bob, "leave", id="l1", room="lobby") == [{"type": "ok", "id": "l1"}]
    await ask(alice, "publish", id="p3", room="lobby", data=3)
    assert bob.heard() == []


async def test_publishing_needs_no_joining(street: Street) -> None:
    """And makes nobody a member."""
    alice, bob = street.welcomed("alice"), street.welcomed("bob")
    await ask(bob, "join", id="j1", room="lobby")
    bob.heard()
    assert await ask(alice, "publish", id="p1", room="lobby", data=1, echo=True) == [
        {"type": "ok", "id": "p1"}
    ]
    assert bob.only()["data"] == 1
    [error] = await ask(alice, "leave", id="l1", room="lobby")
    assert (error["type"], error["id"], error["code"]) == ("error", "l1", "not_joined")


def deep(levels: int) -> list[object]:
    """Lists in lists."""
    data: list[object] = []
    for _ in range(levels - 1):
        data = [data]
    return data


@pytest.mark.parametrize("kind", ["join", "leave", "publish"])
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"room": ""}, "bad_request"),
        ({"room": "x" * 256}, "bad_request"),
        ({"room": "a\nb"}, "bad_request"),
        ({"room": 7}, "bad_request"),
        ({}, "bad_request"),
        ({"room": "r", "id": ""}, "bad_request"),
        ({"room": "r", "id": "x" * 65}, "bad_request"),
    ],
)
async def test_names_and_ids_are_checked(
    street: Street, kind: str, fields: dict[str, object], code: str
) -> None:
    """The answer names the frame; nothing is done."""
    alice = street.welcomed("alice")
    frame = {"id": "f1", "data": 1, **fields}
    [error] = await ask(alice, kind, **frame)
    assert (error["type"], error["id"], error["code"], error["retryable"]) == (
        "error",
        frame["id"],
        code,
        False,
    )
    assert "room" not in error
    assert street.desk.gateway.census.errors == {code: 1}
    assert (street.redis.pipelines, street.subscriber.commands) == ([], [])


@pytest.mark.parametrize(
    ("data", "code"),
    [("x" * 999, "too_large"), (deep(MAX_DEPTH + 1), "bad_request")],
)
async def test_data_is_checked_as_that_of_a_message(street: Street, data: object, code: str) -> None:
    """Its size, and how deep it is; the largest is passed on."""
    alice = street.welcomed("alice")
    [error] = await ask(alice, "publish", id="p1", room="lobby", data=data)
    assert (error["type"], error["id"], error["code"]) == ("error", "p1", code)
    assert await ask(alice, "publish", id="p2", room="lobby", data="x" * 998) == [{"type": "ok", "id": "p2"}]


@pytest.mark.parametrize(
    "payload",
    [b'{"type":"join","room":"r"}', b'{"type":"publish","id":7,"room":"r","data":1}'],
)
async def test_a_frame_without_an_id_is_refused(street: Street, payload: bytes) -> None:
    """With an error that names none: nobody would know what became of it."""
    alice = street.welcomed("alice")
    alice.say_raw(payload)
    error = alice.only()
    assert (error["code"], "id" in error) == ("bad_request", False)


async def test_commands_without_an_answer_are_bounded(street: Street) -> None:
    """Joins and publishes together: `busy`. Leaving always works; direct messages count by themselves."""
    street.subscriber.prompt = False
    street.redis.stalls = trio.Event()
    alice = street.welcomed("alice")
    for index in (1, 2):
        assert await ask(alice, "join", id=f"j{index}", room=f"r{index}") == []
        assert await ask(alice, "publish", id=f"p{index}", room="r", data=1) == []
    for kind, frame_id in (("join", "j3"), ("publish", "p3")):
        [error] = await ask(alice, kind, id=frame_id, room="r3", data=1)
        assert (error["id"], error["code"], error["retryable"]) == (frame_id, "busy", True)
        assert error["message"] == "at most 4 room commands without an answer"
    [receipt] = await ask(alice, "send", id="m1", to="nobody", data=1)
    assert receipt["code"] == "offline"
    refused, left = await ask(alice, "leave", id="l1", room="r1")
    assert (refused["id"], left) == ("j1", {"type": "ok", "id": "l1"})
    assert await ask(alice, "join", id="j4", room="r4") == []
    street.redis.stalls.set()
    await settle()
    assert [frame["id"] for frame in alice.heard()] == ["p1", "p2"]


async def test_rooms_are_bounded(street: Street) -> None:
    """As the welcome says."""
    alice = street.desk.connect("alice")
    assert alice.only()["limits"]["rooms"] == 3
    for index in range(3):
        await ask(alice, "join", id=f"j{index}", room=f"r{index}")
    [error] = await ask(alice, "join", id="j3", room="r3")
    assert (error["code"], error["retryable"]) == ("too_many_rooms", False)


async def test_before_the_welcome_they_are_kept(street: Street) -> None:
    """As every frame; they are done in order."""
    desk = Desk(away=("alice",))
    client = desk.connect("alice")
    client.say("leave", id="l1", room="r")
    assert client.heard() == []
    [attach] = desk.link.items
    assert isinstance(attach, peer.Attach)
    desk.from_peer(peer.Attached(attach.handle, (0, 0), False))
    assert [frame["type"] for frame in client.heard()] == ["welcome", "error"]


async def test_without_redis_everything_has_its_answer(street: Street) -> None:
    """At once, and direct messages go on."""
    alice, bob = street.welcomed("alice"), street.welcomed("bob")
    street.redis.connected = street.subscriber.connected = False
    for kind in ("join", "publish"):
        alice.say(kind, id="f1", room="r", data=1)
        error = alice.only()
        assert (error["id"], error["code"], error["retryable"]) == ("f1", "rooms_unavailable", True)
    alice.say("send", id="m1", to="bob", data=1)
    assert bob.only()["data"] == 1


class TestEnd:
    """The end of a session."""

    async def test_it_leaves_its_rooms(self, street: Street) -> None:
        """The node gives up the channel with the last."""
        alice, bob = street.welcomed("alice"), street.welcomed("bob")
        for client in (alice, bob):
            await ask(client, "join", id="j1", room="lobby")
        alice.hang_up(CloseCode.ABNORMAL)
        assert street.desk.rooms.memberships == 1
        bob.hang_up()
        assert (street.desk.rooms.memberships, street.desk.rooms.rooms) == (0, {})
        assert [kind for kind, _ in street.subscriber.commands] == ["subscribe", "unsubscribe"]

    async def test_what_it_published_is_published(self, street: Street) -> None:
        """Though nobody is there to be told; nothing of the session is left."""
        alice, bob = street.welcomed("alice"), street.welcomed("bob")
        await ask(bob, "join", id="j1", room="lobby")
        bob.heard()
        session = alice.session
        settled = [session.settled]
        alice.say("publish", id="p1", room="lobby", data=1)
        settled.append(session.settled)
        alice.hang_up()
        await settle()
        settled.append(session.settled)
        assert settled == [True, False, True]
        assert bob.only()["data"] == 1
        assert session.member is None

    async def test_what_still_comes_finds_nobody(self, street: Street) -> None:
        """A frame that was read behind the end does nothing."""
        alice = street.welcomed("alice")
        alice.hang_up()
        alice.say("join", id="j1", room="lobby")
        await settle()
        assert (alice.heard(), street.desk.rooms.rooms) == ([], {})

    async def test_a_session_without_rooms_has_nothing_of_them(self, street: Street) -> None:
        """Most have none: it costs no memory."""
        alice = street.welcomed("alice")
        alice.say("send", id="m1", to="nobody", data=1)
        assert alice.session.member is None
        alice.session.on_drained()
        await ask(alice, "join", id="j1", room="lobby")
        assert alice.session.member is not None


async def test_what_waits_is_sent_when_the_output_is_drained(street: Street) -> None:
    """The session passes it on to what its rooms keep back."""
    alice = street.welcomed("alice")
    await ask(alice, "join", id="j1", room="lobby")
    assert alice.session.member is not None
    alice.socket.queued = alice.socket.low_water = 1_000_000
    alice.session.member.offer("lobby", b"\x81\x11" + b'{"type":"pinned"}')
    assert alice.heard() == []
    alice.session.on_drained()
    assert [frame["type"] for frame in alice.heard()] == ["pinned"]
