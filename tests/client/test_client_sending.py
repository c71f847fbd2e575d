"""Sending: receipts, the bound on what is in flight, cancelled calls."""

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import ring
from ring.client import inbox as inbox_module
from ring.protocol import client as protocol
from ring.protocol.codes import ErrorCode
from tests.client.fake_node import FakeNode, Sending, take, welcome

EAGER = ring.Backoff(first_s=0, cap_s=0, slow_s=0)
LATEST = ring.Backoff(draw=lambda: 1.0)


async def test_receipts_find_their_senders_in_any_order(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A receipt belongs to the send of its id, whichever comes first."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        first = Sending(nursery, client, 1)
        one = await peer.hear_send()
        second = Sending(nursery, client, 2)
        two = await peer.hear_send()
        await peer.receipt(two, "queued")
        await peer.receipt(one)

        assert await second.result() == ring.Receipt(str(two.id), "queued", "client")
        assert await first.result() == ring.Receipt(str(one.id), "delivered", "client")


async def test_failed_receipt_is_returned_as_it_is(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A failure is the caller's to judge: nothing is tried again behind its back."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        sending = Sending(nursery, client, 1)
        sent = await peer.hear_send()
        assert sent.id is not None
        await peer.tell(
            protocol.Receipt(id=sent.id, status="failed", code=ErrorCode.BUSY, message="slow down")
        )

        expected = ring.Receipt(sent.id, "failed", None, ErrorCode.BUSY, "slow down")
        assert await sending.result() == expected


async def test_error_that_answers_a_send_is_its_failure(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A node that could not read a send answers with an error: the sender gets a failed receipt."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        sending = Sending(nursery, client, 1)
        sent = await peer.hear_send()
        assert sent.id is not None
        await peer.tell(
            protocol.Error(code=ErrorCode.BAD_REQUEST, message="what?", retryable=False, id=sent.id)
        )

        assert await sending.result() == ring.Receipt(sent.id, "failed", None, ErrorCode.BAD_REQUEST, "what?")


async def test_no_more_in_flight_than_the_node_allows(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Beyond `limits.in_flight` a send waits for a receipt instead of being answered `busy`."""
    node.plans.append(welcome(in_flight=2))
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        sendings = []
        for number in range(3):
            sendings.append(Sending(nursery, client, number))
            await wait_all_tasks_blocked()
        first, second = await peer.hear_send(), await peer.hear_send()
        await peer.message(1)
        await take(client, 1)
        assert await peer.hear_ack() == "1-1"  # and not the third
        await peer.receipt(second)
        third = await peer.hear_send()
        assert bytes(third.data) == b"2"
        for sent in (first, third):
            await peer.receipt(sent)

        assert [await sending.result() for sending in sendings]


async def test_untaken_messages_do_not_hold_up_receipts(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that takes nothing still gets its receipts, with its inbox full and overrun."""
    monkeypatch.setattr(inbox_module, "BUFFER_BYTES", 2000)
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        for number in range(1, 50):
            await peer.message(number)
        sending = Sending(nursery, client, 1)
        await peer.receipt(await peer.hear_send())

        assert await sending.result()


async def test_cancelled_send_that_was_not_written_is_not_sent(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """What waits for its turn when its call is cancelled never leaves."""
    node.plans.append(welcome(in_flight=1))
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        first = Sending(nursery, client, 1)
        sent = await peer.hear_send()
        second = Sending(nursery, client, 2)
        await wait_all_tasks_blocked()
        second.scope.cancel()
        await wait_all_tasks_blocked()
        third = Sending(nursery, client, 3)
        await peer.receipt(sent)

        assert await first.result()
        sent = await peer.hear_send()
        assert bytes(sent.data) == b"3"
        await peer.receipt(sent)
        assert await third.result()


async def test_cancelled_send_that_was_written_stays_in_flight(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Its message cannot be called back: it counts until its receipt comes, which nobody waits for."""
    node.plans.append(welcome(in_flight=1))
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        first = Sending(nursery, client, 1)
        sent = await peer.hear_send()
        first.scope.cancel()
        second = Sending(nursery, client, 2)
        await wait_all_tasks_blocked()
        await peer.receipt(sent)
        sent = await peer.hear_send()
        assert bytes(sent.data) == b"2"
        await peer.receipt(sent)

        assert await second.result()


async def test_send_without_receipt_returns_once_written(node: FakeNode, autojump_clock: MockClock) -> None:
    """At most once: no id, no answer, nothing to wait for."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await client.send("bob", {"a": 1}, receipt=False)
        sent = await peer.hear_send()

        assert sent == protocol.Send(to="bob", data=sent.data, id=None, receipt=False)
        assert msgspec.json.decode(sent.data) == {"a": 1}
