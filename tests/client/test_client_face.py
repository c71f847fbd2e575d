"""The library's face: `ring.connect`, a client's attributes, what it refuses, how its block is left."""

import subprocess
import sys

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import ring
from tests.client.fake_node import FakeNode, Sending, take, welcome


def test_package_loads_the_library_when_it_is_used() -> None:
    """A node that imports `ring` does without trio-websocket."""
    program = (
        "import sys, ring\n"
        "assert 'trio_websocket' not in sys.modules\n"
        "assert ring.RingError and 'trio_websocket' not in sys.modules\n"
        "assert ring.connect and 'trio_websocket' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_package_names_what_it_has() -> None:
    """Everything in `__all__` is there, and nothing else is made up."""
    for name in ring.__all__:
        assert getattr(ring, name) is not None
    assert set(ring.__all__) <= set(dir(ring))
    with pytest.raises(AttributeError, match="module 'ring' has no attribute 'conect'"):
        _ = ring.conect


async def test_client_knows_where_it_is(node: FakeNode, autojump_clock: MockClock) -> None:
    """Its attributes are what the welcome said."""
    async with ring.connect(node.url, "alice", device="phone") as client:
        assert (client.user, client.device, client.session) == ("alice", "phone", "s1")
        assert (client.node, client.owner) == ("n1", "n2")
        assert client.connected
        assert (client.reconnects, client.gaps) == (0, 0)

    assert not client.connected


async def test_clients_have_devices_of_their_own(node: FakeNode, autojump_clock: MockClock) -> None:
    """Two clients of a user that name no device don't replace each other."""
    async with ring.connect(node.url, "alice") as one, ring.connect(node.url, "alice") as other:
        assert one.device != other.device


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"url": "http://node"}, "url: "),
        ({"url": []}, "url: at least one"),
        ({"user": ""}, "user: "),
        ({"device": "a\nb"}, "device: "),
    ],
)
async def test_malformed_arguments_are_refused(arguments: dict[str, object], match: str) -> None:
    """At once, and nothing is dialled."""
    given: dict[str, object] = {"url": "ws://127.0.0.1:1", "user": "alice"} | arguments
    with pytest.raises(ring.BadRequest, match=match):
        async with ring.connect(**given):  # type: ignore[arg-type]  # wrong on purpose
            raise AssertionError("connected")


@pytest.mark.parametrize(
    ("to", "data", "ttl_s", "match"),
    [
        ("", 1, None, "to: "),
        ("bob", object(), None, "data: no JSON"),
        ("bob", "\ud800", None, "data: no JSON"),
        ("bob", [msgspec.Raw(b"no JSON")], None, "data: no JSON"),
        ("bob", msgspec.Raw(b'"\xff"'), None, "data: no JSON"),
        ("bob", 1, 0, "ttl_s: "),
        ("bob", 1, -1.5, "ttl_s: "),
        ("bob", 1, float("nan"), "ttl_s: "),
    ],
)
async def test_malformed_sends_are_refused(
    node: FakeNode, autojump_clock: MockClock, to: str, data: object, ttl_s: float | None, match: str
) -> None:
    """By an exception of the call, with nothing sent."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        with pytest.raises(ring.BadRequest, match=match):
            await client.send(to, data, ttl_s=ttl_s)
        await client.send("bob", "first", receipt=False)

        assert msgspec.json.decode((await peer.hear_send()).data) == "first"


async def test_message_beyond_the_limit_is_refused(node: FakeNode, autojump_clock: MockClock) -> None:
    """The node's limit is known: what is larger is not sent to be refused."""
    node.plans.append(welcome(message_bytes=10))
    async with ring.connect(node.url, "alice") as client:
        await client.send("bob", "12345678", receipt=False)
        with pytest.raises(ring.BadRequest, match="data: at most 10 bytes, not 11") as caught:
            await client.send("bob", "123456789")

    assert caught.value.code is ring.ErrorCode.TOO_LARGE


async def test_data_may_be_anything_that_encodes(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Structs, for one; with how long it is worth delivering."""

    class Order(msgspec.Struct):
        item: str
        count: int

    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        nursery.start_soon(lambda: client.send("bob", Order("tea", 2), ttl_s=60))
        sent = await peer.hear_send()
        assert sent.ttl_s == 60
        assert msgspec.json.decode(sent.data, type=Order) == Order("tea", 2)
        await peer.receipt(sent)


async def test_many_tasks_send_at_a_time(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Each gets its own receipt, and every message its own id."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        sendings = [Sending(nursery, client, number) for number in range(50)]
        ids = set()
        for _ in sendings:
            sent = await peer.hear_send()
            ids.add(sent.id)
            await peer.receipt(sent)

        assert len(ids) == 50
        assert all([await sending.result() for sending in sendings])


async def test_one_task_iterates(node: FakeNode, autojump_clock: MockClock) -> None:
    """A second one at the same time is a mistake; one after the other is none."""
    async with ring.connect(node.url, "alice") as client, trio.open_nursery() as nursery:
        nursery.start_soon(take, client, 1)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(client)
        await (await node.peer()).message(1)
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        await peer.message(1)
        await peer.message(2)
        async for message in client:
            assert isinstance(message, ring.Message)
            assert message.data == 1
            break
        assert await take(client, 1) == [2]


async def test_cancelled_iteration_loses_nothing(node: FakeNode, autojump_clock: MockClock) -> None:
    """A message is taken and returned in one step, so cancelling cannot fall between."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        with trio.move_on_after(1) as scope:
            await anext(client)
        assert scope.cancelled_caught
        await peer.message(1)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(client)
        assert scope.cancelled_caught

        assert await take(client, 1) == [1]


async def test_leaving_ends_iteration_cleanly(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A task that iterates elsewhere comes to the end of its loop."""
    got: list[object] = []
    done = trio.Event()

    async def listen(client: ring.Client) -> None:
        got.extend([message.data async for message in client if isinstance(message, ring.Message)])
        done.set()

    async with ring.connect(node.url, "alice") as client:
        nursery.start_soon(listen, client)
        await (await node.peer()).message(1)
        await wait_all_tasks_blocked()
    await done.wait()

    assert got == [1]


async def test_client_is_of_no_use_after_its_block(
    node: FakeNode, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Sending raises, before and after; iterating is at its end."""
    async with ring.connect(node.url, "alice") as client:
        peer = await node.peer()
        waiting = Sending(nursery, client, 1)
        await peer.hear_send()
        await peer.message(1)
    with pytest.raises(ring.ConnectionEnded, match="this client was closed") as caught:
        await waiting.result()
    assert caught.value.close_code == 1000
    with pytest.raises(ring.ConnectionEnded):
        await client.send("bob", 1)
    with pytest.raises(StopAsyncIteration):
        await anext(client)


async def test_exception_of_the_block_comes_out_as_it_is(node: FakeNode, autojump_clock: MockClock) -> None:
    """Not wrapped in a group, and the node is told goodbye all the same."""
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with ring.connect(node.url, "alice"):
            raise error

    assert caught.value is error
    peer = await node.peer()
    reason = await peer.hear_end()
    assert reason is not None
    assert reason.code == 1000


async def test_group_of_the_block_comes_out_as_it_is(node: FakeNode, autojump_clock: MockClock) -> None:
    """A group that the application raised itself stays one."""
    with pytest.RaisesGroup(ValueError):
        async with ring.connect(node.url, "alice"):
            raise ExceptionGroup("mine", [ValueError()])


async def test_block_can_be_cancelled(node: FakeNode, autojump_clock: MockClock) -> None:
    """From outside, with a farewell that a shield protects."""
    with trio.move_on_after(1) as scope:
        async with ring.connect(node.url, "alice"):
            peer = await node.peer()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    reason = await peer.hear_end()
    assert reason is not None
    assert reason.code == 1000


async def test_block_can_be_left_between_two_connections(node: FakeNode, autojump_clock: MockClock) -> None:
    """There is nobody to say goodbye to, and nothing to wait for."""
    async with ring.connect(node.url, "alice", backoff=ring.Backoff(first_s=9, draw=lambda: 1)) as client:
        await (await node.peer()).cut()
        await wait_all_tasks_blocked()
        assert not client.connected
        before = trio.current_time()

    assert trio.current_time() == before


async def test_conversation_over_loopback(loopback_node: FakeNode, nursery: trio.Nursery) -> None:
    """The same over TCP: sent, answered, received, cut, resumed."""
    node = loopback_node
    async with ring.connect(node.url, "alice", backoff=ring.Backoff(first_s=0)) as client:
        peer = await node.peer()
        sending = Sending(nursery, client, "x" * 30_000)
        await peer.receipt(await peer.hear_send())
        assert await sending.result()
        for number in range(1, 501):
            await peer.message(number)
        assert await take(client, 500) == list(range(1, 501))
        await peer.cut()
        peer = await node.peer()
        assert peer.query["resume"] == "1-500"
        await peer.message(501)
        assert await take(client, 1) == [501]
        while await peer.hear_ack() != "1-501":
            pass
