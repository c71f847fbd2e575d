"""One connection: acknowledging, receipts, silence, and what a node may say."""

import json

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed

import ring
from ring.client import inbox as inbox_module
from ring.client.backoff import Ending
from ring.client.session import _ending
from ring.protocol import client as protocol
from ring.protocol.codes import ErrorCode
from tests.client.fake_node import FakeNode, take, unwelcomed, welcome

EAGER = ring.Backoff(first_s=0, cap_s=0, slow_s=0)


async def test_message_is_acknowledged_at_once_when_idle(node: FakeNode, autojump_clock: MockClock) -> None:
    """With nothing else to come the sender's receipt does not wait."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await peer.message(1)
        before = trio.current_time()

        assert await take(client, 1) == [1]
        assert await peer.hear_ack() == "1-1"
        assert trio.current_time() == before


async def test_untaken_message_is_not_acknowledged(node: FakeNode, autojump_clock: MockClock) -> None:
    """That it came is not enough: the application must have it."""
    async with ring.connect(node.url, "alice"):
        peer = await node.peer()
        await peer.message(1)
        await wait_all_tasks_blocked()

    reason = await peer.hear_end()  # without an acknowledgement before
    assert reason is not None
    assert reason.code == 1000


async def test_burst_is_acknowledged_in_few_frames(node: FakeNode, autojump_clock: MockClock) -> None:
    """Taken in one go, a hundred messages cost far fewer acknowledgements."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        for number in range(1, 101):
            await peer.message(number)
        await wait_all_tasks_blocked()
        assert await take(client, 100) == list(range(1, 101))

        acks = [await peer.hear_ack()]
        while acks[-1] != "1-100":
            acks.append(await peer.hear_ack())
        assert len(acks) <= 3


async def test_slow_application_is_acknowledged_after_20_ms(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """With more to take, an acknowledgement waits for others to go with it, but not for long."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        for number in range(1, 4):
            await peer.message(number)
        await wait_all_tasks_blocked()
        before = trio.current_time()
        assert await take(client, 2) == [1, 2]

        assert await peer.hear_ack() == "1-2"
        assert trio.current_time() - before == pytest.approx(0.02)


async def test_many_are_acknowledged_without_waiting(node: FakeNode, autojump_clock: MockClock) -> None:
    """64 messages are worth a frame, whatever else is to be taken."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        for number in range(1, 71):
            await peer.message(number)
        await wait_all_tasks_blocked()
        before = trio.current_time()
        await take(client, 66)

        assert await peer.hear_ack() in {"1-64", "1-65", "1-66"}
        assert trio.current_time() == before


async def test_double_is_acknowledged_and_not_handed_out(node: FakeNode, autojump_clock: MockClock) -> None:
    """The node hears that the second copy came, the application does not."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await peer.message(1, message_id="x")
        assert await take(client, 1) == [1]
        assert await peer.hear_ack() == "1-1"
        await peer.message(2, message_id="x")
        assert await peer.hear_ack() == "1-2"
        await peer.message(3)

        assert await take(client, 1) == [3]


async def test_unattributed_error_is_logged(
    node: FakeNode, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An error without an id answers nobody; it is not lost either."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await peer.tell(protocol.Error(code=ErrorCode.RATE_LIMITED, message="slow down", retryable=True))
        await wait_all_tasks_blocked()
        assert client.connected

    assert "the node refused a frame: rate_limited: slow down" in caplog.text


async def test_overrun_inbox_gets_the_rest_by_another_session(
    node: FakeNode, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there was no room for is fetched, from where the application is, when it has taken the rest."""
    monkeypatch.setattr(inbox_module, "BUFFER_BYTES", 2000)
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        for number in range(1, 10):
            await peer.message(number)
        await wait_all_tasks_blocked()
        assert await take(client, 3) == [1, 2, 3]
        before = trio.current_time()

        peer = await node.peer()
        assert trio.current_time() == before
        assert peer.query["resume"] == "1-3"
        for number in range(4, 6):
            await peer.message(number)
        assert await take(client, 2) == [4, 5]
        assert await peer.hear_ack() in {"1-4", "1-5"}


async def test_overrun_while_away_needs_no_other_session(
    node: FakeNode, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the connection was lost meanwhile, the next one brings the rest anyway."""
    monkeypatch.setattr(inbox_module, "BUFFER_BYTES", 1000)
    async with ring.connect(node.url, "alice", backoff=ring.Backoff(first_s=1, draw=lambda: 1)) as client:
        peer = await node.peer()
        await peer.message(1)
        await peer.message(2)
        await wait_all_tasks_blocked()
        await peer.cut()
        await wait_all_tasks_blocked()
        assert not client.connected
        assert await take(client, 1) == [1]

        peer = await node.peer()
        assert peer.query["resume"] == "1-1"


async def test_silent_node_is_left(node: FakeNode, autojump_clock: MockClock) -> None:
    """Two heartbeats and a second without a byte: the connection is dead."""
    node.plans.append(welcome(heartbeat_s=10))
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        await node.peer()
        before = trio.current_time()
        await node.peer()
        await wait_all_tasks_blocked()

        assert trio.current_time() - before == pytest.approx(21)
        assert client.reconnects == 1


async def test_pings_show_that_a_node_lives(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The node's WebSocket pings are enough, with no message at all."""
    node.plans.append(welcome(heartbeat_s=10))
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        for _ in range(10):
            await trio.sleep(10)
            await peer.websocket.ping()

        assert client.connected
        assert client.reconnects == 0


async def test_unknown_and_idle_frames_are_passed_over(node: FakeNode, autojump_clock: MockClock) -> None:
    """What a later release says, or nobody asked for, does no harm."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await peer.websocket.send_message(json.dumps({"type": "weather", "sun": True}))
        await peer.tell(protocol.Pong(id="1"))
        await peer.tell(protocol.Ok(id="1"))
        await peer.tell(protocol.Receipt(id="nobody's", status="delivered"))
        await peer.message(1)

        assert await take(client, 1) == [1]
        assert client.reconnects == 0


@pytest.mark.parametrize("frame", ["nonsense", '{"type":"message"}', b"binary"])
async def test_malformed_frame_ends_the_connection(
    node: FakeNode, autojump_clock: MockClock, frame: str | bytes
) -> None:
    """A node that can't be understood is left for another try."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        await peer.websocket.send_message(frame)
        await node.peer()
        await wait_all_tasks_blocked()

        assert client.reconnects == 1


async def test_frames_before_the_welcome_are_passed_over(node: FakeNode, autojump_clock: MockClock) -> None:
    """The session begins with the welcome, whatever a later release says before it."""
    node.plans.append(unwelcomed())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def greet() -> None:
            peer = await node.peer()
            await peer.websocket.send_message(json.dumps({"type": "weather"}))
            await peer.welcome()

        async with ring.connect(node.url, "alice") as client:
            assert client.connected


def test_ending_without_a_reason_has_one() -> None:
    """trio-websocket may have none."""
    assert _ending(ConnectionClosed(None)) == Ending("the connection ended")


@pytest.mark.parametrize("frame", ["nonsense", b"binary"])
async def test_malformed_welcome_ends_the_attempt(
    node: FakeNode, autojump_clock: MockClock, frame: str | bytes
) -> None:
    """The same before there is a session."""
    node.plans.append(unwelcomed())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def misbehave() -> None:
            peer = await node.peer()
            await peer.websocket.send_message(frame)

        async with ring.connect(node.url, "alice", backoff=EAGER) as client:
            assert len(node.requests) == 2
            assert client.reconnects == 0


async def test_leaving_acknowledges_and_says_goodbye(node: FakeNode, autojump_clock: MockClock) -> None:
    """What was taken is acknowledged before close 1000, though its 20 ms had not passed."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await peer.message(1)
        await peer.message(2)
        await wait_all_tasks_blocked()
        await take(client, 1)

    assert await peer.hear_ack() == "1-1"
    reason = await peer.hear_end()
    assert reason is not None
    assert reason.code == 1000


async def test_ping_during_the_farewell_does_no_harm(
    node: FakeNode, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A heartbeat that crosses the close frame, which trio-websocket fails to answer, is no failure."""
    node.plans.append(unwelcomed())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ping() -> None:
            peer = await node.peer()
            await peer.welcome()
            # Its reading task gets stuck over a queue of one that nobody takes from: it answers no close.
            await wait_all_tasks_blocked()
            await trio.sleep(1)
            await peer.stream.send_all(b"\x89\x00")

        async with ring.connect(node.url, "alice") as client:
            for _ in range(5):
                await client.send("bob", 1, receipt=False)
            await wait_all_tasks_blocked()
            before = trio.current_time()
        assert trio.current_time() - before == pytest.approx(1)

    assert caplog.text == ""


async def test_leaving_a_node_that_does_not_answer_is_bounded(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """A node that does not close in turn is left after two seconds."""
    node.plans.append(unwelcomed())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def go_deaf() -> None:
            peer = await node.peer()
            await peer.welcome()
            # Its reading task is stuck from here on: a queue of one frame, which nobody takes.
            await trio.sleep_forever()

        async with ring.connect(node.url, "alice") as client:
            for _ in range(5):
                await client.send("bob", 1, receipt=False)
            await wait_all_tasks_blocked()
            before = trio.current_time()
        assert trio.current_time() - before == pytest.approx(2)
        nursery.cancel_scope.cancel()
