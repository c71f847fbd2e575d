"""Over a cut: what is sent again, what is not had twice, where a new session goes on, and gaps."""

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import ring
from ring.protocol import client as protocol
from tests.client.fake_node import FakeNode, Peer, Sending, take, welcome

EAGER = ring.Backoff(first_s=0, cap_s=0, slow_s=0)
LATEST = ring.Backoff(draw=lambda: 1.0)


async def test_resume_and_device_are_kept(node: FakeNode, autojump_clock: MockClock) -> None:
    """A later connection is of the same device and goes on behind what the application has."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        assert peer.query == {"user": "alice", "device": client.device, "ack": "client"}
        for number in (1, 2, 3):
            await peer.message(number)
        assert await take(client, 2) == [1, 2]
        await peer.cut()

        peer = await node.peer()
        expected = {"user": "alice", "device": client.device, "ack": "client", "resume": "1-2"}
        assert peer.query == expected


async def test_messages_are_had_once_over_a_cut(node: FakeNode, autojump_clock: MockClock) -> None:
    """What came before the cut and again after it, taken or not, reaches the application once, in order."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        for number in (1, 2, 3):
            await peer.message(number)
        assert await take(client, 1) == [1]
        assert await peer.hear_ack() == "1-1"
        await peer.cut()
        peer = await node.peer()
        for number in (1, 2, 3, 4):
            await peer.message(number)

        assert await take(client, 3) == [2, 3, 4]
        acks = [await peer.hear_ack()]
        while acks[-1] != "1-4":
            acks.append(await peer.hear_ack())


async def test_unanswered_sends_go_again_first(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """After a cut what has no receipt is sent again, marked, with its id, in order, before anything new."""
    async with ring.connect(node.url, "alice", backoff=LATEST) as client:
        peer = await node.peer()
        sendings = []
        sent = []
        for number in range(3):
            sendings.append(Sending(nursery, client, number))
            sent.append(await peer.hear_send())
        await peer.receipt(sent[1])
        await wait_all_tasks_blocked()
        await peer.cut()
        await wait_all_tasks_blocked()
        sendings.append(Sending(nursery, client, 3))

        peer = await node.peer()
        again = [await peer.hear_send() for _ in range(3)]
        assert [(each.id, each.again, bytes(each.data)) for each in again] == [
            (sent[0].id, True, b"0"),
            (sent[2].id, True, b"2"),
            (again[2].id, False, b"3"),
        ]
        for each in again:
            await peer.receipt(each)
        for sending in sendings:
            assert await sending.result()


async def test_gap_is_counted_and_told(node: FakeNode, autojump_clock: MockClock) -> None:
    """When a node can't tell whether it kept everything, the application learns of it."""
    told: list[None] = []
    node.plans.extend([welcome(), welcome(resumed=True), welcome(resumed="gap"), welcome(resumed="gap")])
    async with ring.connect(node.url, "alice", on_gap=lambda: told.append(None), backoff=EAGER) as client:
        for _ in range(3):
            await (await node.peer()).cut()
        await node.peer()
        await wait_all_tasks_blocked()

        assert client.gaps == len(told) == 2


async def test_gap_without_a_callback_is_counted(node: FakeNode, autojump_clock: MockClock) -> None:
    """The callback is a convenience."""
    node.plans.append(welcome(resumed="gap"))
    async with ring.connect(node.url, "alice") as client:
        assert client.gaps == 1


async def test_error_of_the_gap_callback_ends_the_client(node: FakeNode, autojump_clock: MockClock) -> None:
    """A callback that fails is not passed over."""

    def fail() -> None:
        raise LookupError("lost")

    node.plans.append(welcome(resumed="gap"))
    async with ring.connect(node.url, "alice", on_gap=fail) as client:
        with pytest.raises(ring.ConnectionEnded) as caught:
            await anext(client)

    assert isinstance(caught.value.__cause__, LookupError)


async def test_what_was_stored_under_another_number_is_had_once(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """A node stored what the application had taken, since the cut took its acknowledgement along. Hours later
    it comes first, maybe renumbered: it is acknowledged as it came now, and not handed out."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        for number in (1, 2):
            await peer.message(number)
        assert await take(client, 2) == [1, 2]
        for number in range(3, 3000):
            await peer.message(number)
        assert await take(client, 2997) == list(range(3, 3000))
        await peer.cut()
        await trio.sleep(6 * 3600)

        peer = await node.peer()
        data = msgspec.Raw(b"2")
        again = protocol.Message(from_="bob", id="m2", seq="9-1", data=data, sent_at=2, redelivered=True)
        await peer.tell(again)
        assert await peer.hear_ack() == "9-1"
        await peer.message(3001)
        assert await take(client, 1) == [3001]


async def test_program_that_fails_acknowledges_what_it_took(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """What had arrived and was not taken is left to the node, also by the farewell."""

    async def run() -> None:
        async with ring.connect(node.url, "alice") as client:
            peer = await node.peer()
            peers.append(peer)
            for number in (1, 2, 3):
                await peer.message(number)
            await wait_all_tasks_blocked()
            assert await take(client, 1) == [1]
            raise LookupError("the program")

    peers: list[Peer] = []
    with pytest.raises(LookupError):
        await run()
    [peer] = peers
    assert await peer.hear_ack() == "1-1"
    assert await peer.hear_end() is not None
