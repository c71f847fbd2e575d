"""Copies: who gets them, in which order, by which policy; what cannot be read; and turns for others."""

from typing import Any, cast

import pytest
import trio
from structlog.testing import capture_logs

from ring.protocol.websocket import TEXT, Decoder
from ring.rooms.policy import Policies
from tests.rooms.fakes import FakeRedis, House, channel, payload, settle


async def test_a_publish_reaches_all_members_on_all_nodes(nursery: trio.Nursery) -> None:
    """As the `room` message of the protocol; the publisher, a member, gets its answer and no copy."""
    redis = FakeRedis()
    here, there = await House("n1", redis).open(nursery), await House("n2", redis).open(nursery)
    alice, twin, bob = await here.joined("lobby", "alice", "alice", "bob")
    [carol] = await there.joined("lobby", "carol")
    here.rooms.publish(alice, "lobby", "p1", b'{"a": [1]}', echo=False)
    assert here.of(bob).heard() == [], "copies come by Redis alone"
    await settle()
    assert here.of(alice).heard() == [{"type": "ok", "id": "p1"}]
    for socket in (here.of(twin), here.of(bob), there.of(carol)):
        [message] = socket.heard()
        assert message.pop("sent_at") > 1.7e12
        assert message == {"type": "room", "room": "lobby", "from": "alice", "id": "p1", "data": {"a": [1]}}
    assert (here.rooms.copies, there.rooms.copies) == (2, 1)
    assert here.rooms.publisher.outcomes["ok"] == 1


async def test_with_echo_the_publisher_gets_a_copy(nursery: trio.Nursery) -> None:
    """If it is a member; publishing needs no joining."""
    house = await House().open(nursery)
    [alice] = await house.joined("lobby", "alice")
    stranger = house.member("mallory")
    house.rooms.publish(alice, "lobby", "p1", b"1", echo=True)
    house.rooms.publish(stranger, "lobby", "p2", b"2", echo=True)
    await settle()
    assert house.of(alice).data() == [1, 2]
    assert house.of(stranger).heard() == [{"type": "ok", "id": "p2"}]


async def test_a_session_of_the_same_number_on_another_node_is_another(nursery: trio.Nursery) -> None:
    """Only the publisher itself is left out."""
    redis = FakeRedis()
    here, there = await House("n1", redis).open(nursery), await House("n2", redis).open(nursery)
    [alice], [bob] = await here.joined("lobby", "alice"), await there.joined("lobby", "bob")
    assert alice.sid == bob.sid
    here.rooms.publish(alice, "lobby", "p1", b"1", echo=False)
    await settle()
    assert (here.of(alice).data(), there.of(bob).data()) == ([], [1])


async def test_a_frame_is_made_once(nursery: trio.Nursery) -> None:
    """Members share its bytes."""
    house = await House().open(nursery)
    alice, bob = await house.joined("lobby", "alice", "bob")
    house.subscriber.hear(channel("lobby"), payload('"x"'))
    await settle()
    [mine], [yours] = house.of(alice).raw, house.of(bob).raw
    assert mine is yours
    [(opcode, body)] = Decoder(role="client", max_message=1000).feed(mine)
    assert opcode == TEXT
    assert b'"data":"x"' in body


async def test_the_order_is_that_of_redis(nursery: trio.Nursery) -> None:
    """Whoever publishes, and in whichever room."""
    redis = FakeRedis()
    houses = [await House(f"n{n}", redis).open(nursery) for n in (1, 2)]
    members = [(await house.joined("lobby", "a"))[0] for house in houses]
    redis.stalls = trio.Event()
    for n in range(10):
        house, member = houses[n % 2], members[n % 2]
        house.rooms.publish(member, "lobby", f"p{n}", b"%d" % n, echo=True)
        await settle()
    redis.stalls.set()
    await settle()
    first, second = (house.of(member).data() for house, member in zip(houses, members, strict=True))
    assert first == second
    assert sorted(first) == list(range(10))
    assert [n for n in first if n % 2] == [1, 3, 5, 7, 9], "each publisher's order is kept"


async def test_what_cannot_be_read_is_dropped_counted_and_logged_once(nursery: trio.Nursery) -> None:
    """A stranger's PUBLISH, or another release's; the room goes on."""
    house = await House().open(nursery)
    [alice] = await house.joined("lobby", "alice")
    with capture_logs() as logs:
        for noise in (b"hello", b"", b"\x93\x02"):
            house.subscriber.hear(channel("lobby"), noise)
        house.subscriber.hear(channel("lobby"), payload())
        await settle()
    assert house.of(alice).data() == [1]
    assert house.rooms.dropped["undecodable"] == 3
    assert [(log["log_level"], log["room"]) for log in logs] == [("error", "lobby")]


async def test_what_the_node_missed_is_told(nursery: trio.Nursery) -> None:
    """Each member once, with the room and no id; it is counted as the node's fault."""
    house = await House().open(nursery)
    alice, bob = await house.joined("lobby", "alice", "bob")
    house.subscriber.hear(channel("lobby"), payload("1"))
    house.subscriber.miss(channel("lobby"))
    house.subscriber.hear(channel("lobby"), payload("2"))
    house.subscriber.miss(channel("unknown"))
    await settle()
    for member in (alice, bob):
        one, gap, two = house.of(member).heard()
        assert (one["data"], two["data"]) == (1, 2)
        assert (gap["type"], gap["code"], gap["room"], "id" in gap) == (
            "error",
            "rooms_unavailable",
            "lobby",
            False,
        )
    assert house.rooms.gaps_told == 2
    assert house.rooms.dropped["slow_node"] == 2
    assert house.rooms.copies == 4, "what is told is no copy"


async def test_a_policy_is_the_room_s(nursery: trio.Nursery) -> None:
    """`drop_oldest` where the pattern says so; elsewhere all goes to the socket, which sees to its bound."""
    house = await House(policies=Policies([("news-*", "drop_oldest")])).open(nursery)
    [alice] = await house.joined("news-1", "alice")
    house.rooms.join(alice, "lobby", "j")
    await settle()
    socket = house.of(alice)
    socket.heard()
    socket.stalled = True
    for n in range(20):
        house.subscriber.hear(channel("news-1"), payload(f'"{n:0100}"'))
        house.subscriber.hear(channel("lobby"), payload(f'"{n}"'))
    await settle()
    heard = [int(data) for data in socket.data()]
    assert heard == [0, 0, 1, 1, *range(2, 20)], "two of the news, and all of the lobby"
    dropped = house.rooms.dropped["slow_member"]
    assert dropped > 10
    alice.on_drained()
    error, *rest = socket.heard()
    assert (error["room"], error["code"]) == ("news-1", "busy")
    assert [int(frame["data"]) for frame in rest] == list(range(2 + dropped, 20))
    assert house.rooms.copies == 40


async def test_leaving_takes_back_what_waits(nursery: trio.Nursery) -> None:
    """Behind the answer to `leave` nothing of the room comes."""
    house = await House(policies=Policies([("*", "drop_oldest")])).open(nursery)
    [alice] = await house.joined("lobby", "alice")
    socket = house.of(alice)
    socket.stalled = True
    for _ in range(20):
        house.subscriber.hear(channel("lobby"), payload('"' + 100 * "x" + '"'))
    await settle()
    house.rooms.leave(alice, "lobby", "l")
    assert socket.heard()[-1] == {"type": "ok", "id": "l"}
    alice.on_drained()
    assert socket.heard() == []


class Witness:
    """Another task of the node: counts its turns, and what the members had at each."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.seen: list[int] = []

    async def run(self) -> None:
        while True:
            self.seen.append(sum(len(socket.raw) for socket in self.house.sockets.values()))
            await trio.lowlevel.checkpoint()

    def longest(self) -> int:
        """The most copies between two turns."""
        return max(after - before for before, after in zip(self.seen, self.seen[1:], strict=False))


@pytest.mark.parametrize(
    ("members", "messages", "size", "most"),
    [(4, 30, 10, 10), (25, 4, 10, 10), (1, 50, 10, 10), (8, 4, 9000, 5), (3, 2, 200_000, 1)],
)
async def test_others_have_their_turn(
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    members: int,
    messages: int,
    size: int,
    most: int,
) -> None:
    """After so many copies, be they of many messages or of one; of large messages fewer. Order is kept."""
    monkeypatch.setattr("ring.rooms.rooms.STEP_COPIES", 10)
    house = await House().open(nursery)
    crowd = await house.joined("lobby", *(f"user {n}" for n in range(members)))
    witness = Witness(house)
    for n in range(messages):
        house.subscriber.hear(channel("lobby"), payload(f'"{n}'.ljust(size) + '"'))
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as watching:
            watching.start_soon(witness.run)
            while sum(len(socket.raw) for socket in house.sockets.values()) < members * messages:
                await trio.lowlevel.checkpoint()
            watching.cancel_scope.cancel()
    assert not scope.cancelled_caught
    # Two steps may fall between two turns of the witness: the order within a round of tasks is random.
    assert 0 < witness.longest() <= 2 * most
    for member in crowd:
        assert [int(data) for data in house.of(member).data()] == list(range(messages))


async def test_who_leaves_within_a_message_gets_no_copy_of_it(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large room is served in steps: behind the answer to `leave` nothing comes; newcomers get the next."""
    monkeypatch.setattr("ring.rooms.rooms.STEP_COPIES", 2)
    house = await House().open(nursery)
    crowd = await house.joined("lobby", *(f"user {n}" for n in range(7)))
    house.subscriber.hear(channel("lobby"), payload())
    while not house.sockets[1].raw:
        await trio.lowlevel.checkpoint()
    house.rooms.leave(crowd[6], "lobby", "l")
    house.rooms.close(crowd[5])
    late = house.member("late")
    house.rooms.join(late, "lobby", "j")
    await settle()
    assert [len(house.of(member).raw) for member in crowd] == [1, 1, 1, 1, 1, 0, 0]
    assert house.of(late).heard() == [{"type": "ok", "id": "j"}]


async def test_copies_go_to_the_sockets_of_the_transport(nursery: trio.Nursery) -> None:
    """The least that a member's socket must do is what the fakes do: `send_frame` with the whole frame."""
    house = await House().open(nursery)
    [alice] = await house.joined("lobby", "alice")
    sent: list[bytes] = []
    cast("Any", house.of(alice)).send_frame = sent.append
    house.subscriber.hear(channel("lobby"), payload())
    await settle()
    assert len(sent) == 1
