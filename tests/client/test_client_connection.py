"""What keeps a client connected: endings and what follows, refusals, tokens, resuming, sending again."""

import logging
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import ring
from ring.protocol import client as protocol
from ring.protocol.codes import CLOSINGS, CloseCode, ErrorCode, Reaction
from tests.client.fake_node import FakeNode, Plan, Sending, answer, close, refuse, unwelcomed, welcome

EAGER = ring.Backoff(first_s=0, cap_s=0, slow_s=0)
LATEST = ring.Backoff(draw=lambda: 1.0)
"""Every delay is the longest that it may be."""

RECONNECTING = sorted(code for code, closing in CLOSINGS.items() if closing.reaction is Reaction.RECONNECT)
STOPPING = sorted(code for code, closing in CLOSINGS.items() if closing.reaction is Reaction.STOP)


@pytest.mark.parametrize("code", RECONNECTING)
async def test_close_that_may_pass_is_followed_by_another_connection(
    node: FakeNode, autojump_clock: MockClock, code: int
) -> None:
    """Within 200 ms, and the application notices nothing but the count."""
    async with ring.connect(node.url, "alice", backoff=LATEST) as client:
        peer = await node.peer()
        before = trio.current_time()
        await peer.close(code, "because")
        await node.peer()
        await wait_all_tasks_blocked()

        assert trio.current_time() - before == pytest.approx(0.2)
        assert client.connected
        assert client.reconnects == 1


async def test_broken_connection_is_made_anew(node: FakeNode, autojump_clock: MockClock) -> None:
    """No close frame at all: the same."""
    async with ring.connect(node.url, "alice", backoff=LATEST) as client:
        peer = await node.peer()
        await peer.cut()
        await wait_all_tasks_blocked()
        assert not client.connected
        await node.peer()

        assert node.dialled[1][1] - node.dialled[0][1] == pytest.approx(0.2)


async def test_frame_that_is_no_websocket_ends_the_session_for_good(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """What breaks RFC 6455 is a bug: trying again would meet it again."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        await peer.stream.send_all(b"\xff\xff\xff\xff")
        with pytest.raises(ring.ConnectionEnded) as caught:
            await anext(client)

    assert caught.value.close_code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("code", STOPPING)
async def test_close_for_good_ends_iteration_and_sends(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery, code: int
) -> None:
    """Whoever waits, and whoever comes later, is told the code and the reason; nobody connects again."""
    async with ring.connect(node.url, "alice", backoff=EAGER) as client:
        peer = await node.peer()
        waiting = Sending(nursery, client, 1)
        await peer.hear_send()
        await peer.close(code, "because")
        with pytest.raises(ring.ConnectionEnded, match=f"memory:1 closed with {code}: because") as caught:
            await anext(client)
        assert caught.value.close_code == code
        assert caught.value.reason == "because"
        assert caught.value.status is None
        with pytest.raises(ring.ConnectionEnded):
            await waiting.result()
        for receipt in (True, False):
            with pytest.raises(ring.ConnectionEnded):
                await client.send("bob", 2, receipt=receipt)
        assert not client.connected
        assert len(node.requests) == 1


async def test_end_drops_what_was_not_taken(node: FakeNode, autojump_clock: MockClock) -> None:
    """It was not acknowledged, so whoever replaced this client gets it: it must not be had twice."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await peer.message(1)
        await peer.close(CloseCode.REPLACED, "another one came")
        await wait_all_tasks_blocked()

        with pytest.raises(ring.ConnectionEnded):
            await anext(client)


async def test_unwritten_send_without_receipt_is_told_of_the_end(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """At most once is no silence: what never was written raises."""
    node.plans.extend([welcome(), refuse(403)])
    async with ring.connect(node.url, "alice", backoff=LATEST) as client:
        peer = await node.peer()
        await peer.cut()
        await wait_all_tasks_blocked()
        sending = Sending(nursery, client, 1, receipt=False)

        with pytest.raises(ring.ConnectionEnded, match="refused the connection"):
            await sending.result()


async def test_too_many_is_followed_slowly(node: FakeNode, autojump_clock: MockClock) -> None:
    """4029 asks for five seconds at least."""
    node.plans.extend([close(CloseCode.TOO_MANY, "slow down"), welcome()])
    async with ring.connect(node.url, "alice", backoff=ring.Backoff(draw=lambda: 0.0)):
        await node.peer()

        assert node.dialled[1][1] - node.dialled[0][1] == pytest.approx(5)


async def test_backoff_doubles_until_a_session_lasts(node: FakeNode, autojump_clock: MockClock) -> None:
    """Sessions that break at once are no progress; one that lasted five seconds is."""
    node.plans.extend([close(1011, "") for _ in range(3)])
    async with ring.connect(node.url, "alice", backoff=LATEST):
        peer = await node.peer()
        await trio.sleep(5)
        await peer.cut()
        await node.peer()
        times = [time for _, time in node.dialled]

        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps == pytest.approx([0.2, 0.4, 0.8, 5.2])


async def test_reconnect_message_is_obeyed(node: FakeNode, autojump_clock: MockClock) -> None:
    """The next connection comes when the node said, wherever the session was closed in between."""
    async with ring.connect([node.url, "ws://memory:2"], "alice", backoff=LATEST) as client:
        peer = await node.peer()
        await peer.tell(protocol.Reconnect(after_ms=700, reason="draining"))
        await trio.sleep(0.3)
        assert client.connected
        await peer.close(1012, "draining")
        await node.peer()

        (first, began), (second, again) = node.dialled
        assert again - began == pytest.approx(0.7)
        assert (first.port, second.port) == (1, 2)  # another one first


async def test_reconnect_message_without_a_close_is_obeyed_too(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """If the node forgets to close, the client leaves by itself."""
    async with ring.connect(node.url, "alice", backoff=LATEST):
        peer = await node.peer()
        await peer.tell(protocol.Reconnect(after_ms=700, reason="draining"))
        await node.peer()

        assert node.dialled[1][1] - node.dialled[0][1] == pytest.approx(0.7)


async def test_reconnect_messages_in_a_row_meet_the_backoff(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """Nodes that send a client round and round don't make it spin."""
    async with ring.connect(node.url, "alice", backoff=LATEST):
        for _ in range(3):
            peer = await node.peer()
            await peer.tell(protocol.Reconnect(after_ms=0, reason="go away"))
        await node.peer()
        times = [time for _, time in node.dialled]

        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps == pytest.approx([0, 0.4, 0.8])


@pytest.mark.parametrize("status", [400, 401, 403, 426])
async def test_refusal_for_good_is_raised_by_connect(
    node: FakeNode, autojump_clock: MockClock, status: int
) -> None:
    """What trying again can't mend ends the first connect at once, with the node's words."""
    node.plans.append(refuse(status, b'{"error":{"code":"forbidden","message":"not you"}}'))
    with pytest.raises(ring.ConnectionEnded, match="memory:1 refused the connection: not you") as caught:
        async with ring.connect(node.url, "alice"):
            raise AssertionError("connected")

    assert caught.value.status == status
    assert caught.value.close_code is None
    assert caught.value.code is ErrorCode.FORBIDDEN


@pytest.mark.parametrize(
    ("plan", "delay"),
    [
        (refuse(429), 5.2),
        (refuse(503), 0.2),
        (refuse(503, headers=[(b"Retry-After", b"7")]), 7.2),
        (refuse(502, b"<html>"), 0.2),
        (answer(b""), 0.2),
        (answer(b"SSH-2.0-OpenSSH_9.2\r\n"), 0.2),
        (answer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), 0.2),
    ],
)
async def test_refusal_that_may_pass_is_tried_again(
    node: FakeNode, autojump_clock: MockClock, plan: Plan, delay: float
) -> None:
    """After the time that the node asked for, or the back-off; the first connect waits for it."""
    node.plans.append(plan)
    async with ring.connect(node.url, "alice", backoff=LATEST):
        assert node.dialled[1][1] - node.dialled[0][1] == pytest.approx(delay)


async def test_retry_after_concerns_its_node_alone(node: FakeNode, autojump_clock: MockClock) -> None:
    """Where there are others, they are tried meanwhile."""
    node.plans.extend([refuse(503, headers=[(b"Retry-After", b"7")]), refuse(503), refuse(503), welcome()])
    async with ring.connect([node.url, "ws://memory:2"], "alice", backoff=LATEST):
        ports = [address.port for address, _ in node.dialled]

        assert ports == [1, 2, 2, 2]


async def test_connect_gives_up_on_a_node_that_does_not_welcome(
    node: FakeNode, autojump_clock: MockClock
) -> None:
    """Ten seconds from dialling to the welcome, then the next address has its turn."""
    node.plans.append(unwelcomed())
    async with ring.connect([node.url, "ws://memory:2"], "alice", backoff=EAGER):
        assert [address.port for address, _ in node.dialled] == [1, 2]
        assert node.dialled[1][1] - node.dialled[0][1] == pytest.approx(10)


async def test_error_before_the_close_is_the_reason(node: FakeNode, autojump_clock: MockClock) -> None:
    """A node that upgrades only to refuse says why in an error message, since some clients see no HTTP."""
    node.plans.append(unwelcomed())
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def refuse_it() -> None:
            peer = await node.peer()
            await peer.tell(protocol.Error(code=ErrorCode.FORBIDDEN, message="not you", retryable=False))
            await peer.close(4003)

        with pytest.raises(ring.ConnectionEnded, match="closed with 4003: not you"):
            async with ring.connect(node.url, "alice"):
                raise AssertionError("connected")


async def test_connect_waits_as_long_as_the_caller_lets_it(node: FakeNode, autojump_clock: MockClock) -> None:
    """Nobody is there: the caller's cancel scope says how long that is borne."""
    node.plans.extend([refuse(503) for _ in range(99)])
    with pytest.raises(trio.TooSlowError), trio.fail_after(30):
        async with ring.connect(node.url, "alice"):
            raise AssertionError("connected")

    assert len(node.requests) > 3


async def test_unreachable_address_is_followed_by_the_next(
    node: FakeNode,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Several addresses are tried in turn; an outage is one warning."""
    dial = node.dial

    async def deaf_but_the_last(address: ring.client.wire.Address, context: object) -> object:
        if address.port < 3:
            raise OSError("nobody there")
        return await dial(address, context)

    monkeypatch.setattr("ring.client.connection.dial", deaf_but_the_last)
    caplog.set_level(logging.INFO, "ring.client")
    async with ring.connect([f"ws://memory:{port}" for port in (1, 2, 3)], "alice", backoff=EAGER) as client:
        assert client.connected

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "memory:1: nobody there; connecting again in 0.00 s"),
        ("INFO", "memory:2: nobody there; connecting again in 0.00 s"),
    ]


async def test_untrusted_certificate_ends_the_first_connect_alone(
    node: FakeNode, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that never was trusted is the caller's mistake; one that expired later may be renewed."""
    import ssl

    dial = node.dial
    plans: list[bool] = [True, False, True]

    async def distrust(address: ring.client.wire.Address, context: object) -> object:
        if not plans.pop():
            raise trio.BrokenResourceError from ssl.SSLCertVerificationError("expired")
        return await dial(address, context)

    monkeypatch.setattr("ring.client.connection.dial", distrust)
    async with ring.connect(node.url, "alice", backoff=EAGER):
        peer = await node.peer()
        await peer.cut()
        await node.peer()
    plans.append(False)
    with pytest.raises(ring.ConnectionEnded, match="memory:1 refused the connection"):
        async with ring.connect(node.url, "alice", backoff=EAGER):
            raise AssertionError("connected")
