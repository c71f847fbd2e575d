"""The subscriber against a scripted server in memory: what is said, what stands when, and what is dropped."""

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from ring.protocol.codes import BadRequest
from ring.store import subscriber as subscriber_module
from ring.store.address import Address
from ring.store.connection import StoreRefused
from ring.store.subscriber import (
    MESSAGE_OVERHEAD,
    Broke,
    Event,
    Missed,
    Published,
    Standing,
    Subscriber,
)
from tests.store.wires import PONG, Harbour, Peer, joined, left, message


@pytest.fixture
async def subscriber(harbour: Harbour, nursery: trio.Nursery) -> Subscriber:
    """One that dials the harbour, with room for three messages of ten bytes."""
    room = 3 * (10 + MESSAGE_OVERHEAD)
    subscriber = Subscriber(Address(), client_name="test", dial=harbour.dial, waiting_bytes=room)
    nursery.start_soon(subscriber.run)
    return subscriber


@pytest.fixture
async def server(subscriber: Subscriber, harbour: Harbour) -> Peer:
    """The other end of its first connection, logged in."""
    return await greeted(harbour)


async def greeted(harbour: Harbour) -> Peer:
    """The other end of the next connection, logged in."""
    peer = await harbour.peer()
    await peer.greet()
    await wait_all_tasks_blocked()
    return peer


async def stand(subscriber: Subscriber, server: Peer, *channels: bytes) -> None:
    """Subscribes to channels, has it confirmed, and takes that they stand."""
    for channel in channels:
        subscriber.subscribe(channel)
    assert await server.command() == [b"subscribe", *channels]
    await server.answer(joined(*channels))
    assert await taken(subscriber) == [Standing(channel, again=False) for channel in channels]


async def taken(subscriber: Subscriber, limit: int = 1000) -> list[Event]:
    """What there is to take once nothing moves any more."""
    events: list[Event] = []

    async def take() -> None:
        events.extend(await subscriber.take(limit))

    await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return events


async def test_a_channel_stands_once_confirmed(subscriber: Subscriber, server: Peer) -> None:
    """`Standing` comes with the server's answer; from there on the messages, in order, those before not."""
    subscriber.subscribe(b"a")
    subscriber.subscribe(b"b")
    assert await server.command() == [b"subscribe", b"a", b"b"]
    assert await taken(subscriber) == []
    await server.answer(message(b"a", b"0") + joined(b"a") + message(b"a", b"1") + joined(b"b"))
    await server.answer(message(b"b", b"2") + message(b"a", b"3"))
    assert await taken(subscriber) == [
        Standing(b"a", again=False),
        Published(b"a", b"1"),
        Standing(b"b", again=False),
        Published(b"b", b"2"),
        Published(b"a", b"3"),
    ]
    assert (subscriber.received, subscriber.dropped, subscriber.connections_made) == (3, 0, 1)


async def test_what_is_wanted_before_there_is_a_connection(subscriber: Subscriber, harbour: Harbour) -> None:
    """Calls before the connection has logged in are kept for it; what cancels itself out is not sent."""
    subscriber.subscribe(b"a")
    peer = await harbour.peer()
    subscriber.subscribe(b"b")
    subscriber.subscribe(b"c")
    subscriber.unsubscribe(b"a")
    assert not subscriber.connected
    await peer.greet()
    assert await peer.command() == [b"subscribe", b"b", b"c"]
    assert subscriber.connected


async def test_calls_of_one_tick_go_in_one_send(subscriber: Subscriber, server: Peer) -> None:
    """However many calls: a command per kind, all in one piece, without what came to nothing meanwhile."""
    await stand(subscriber, server, b"a", b"b")
    sends = server.sends
    for channel in (b"c", b"d", b"e", b"c"):
        subscriber.subscribe(channel)
    subscriber.unsubscribe(b"e")
    subscriber.unsubscribe(b"a")
    subscriber.unsubscribe(b"b")
    subscriber.unsubscribe(b"b")
    assert await server.command() == [b"subscribe", b"c", b"d"]
    assert await server.command() == [b"unsubscribe", b"a", b"b"]
    assert server.sends == sends + 1


async def test_only_the_last_subscribe_counts(subscriber: Subscriber, server: Peer) -> None:
    """SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE in a row: it stands with the third answer, not with the first."""
    subscriber.subscribe(b"a")
    assert await server.command() == [b"subscribe", b"a"]
    subscriber.unsubscribe(b"a")
    assert await server.command() == [b"unsubscribe", b"a"]
    subscriber.subscribe(b"a")
    assert await server.command() == [b"subscribe", b"a"]
    await server.answer(joined(b"a") + message(b"a", b"1") + left(b"a"))
    assert await taken(subscriber) == []
    await server.answer(joined(b"a") + message(b"a", b"2"))
    assert await taken(subscriber) == [Standing(b"a", again=False), Published(b"a", b"2")]


async def test_one_that_was_never_left_stands_at_once(subscriber: Subscriber, server: Peer) -> None:
    """Unsubscribed and subscribed within a tick: the server need not hear of it, the taker does."""
    await stand(subscriber, server, b"a")
    await server.answer(message(b"a", b"old"))
    await wait_all_tasks_blocked()
    subscriber.unsubscribe(b"a")
    subscriber.subscribe(b"a")
    await server.answer(message(b"a", b"new"))
    assert await taken(subscriber) == [Standing(b"a", again=False), Published(b"a", b"new")]
    subscriber.subscribe(b"b")
    assert await server.command() == [b"subscribe", b"b"]


async def test_wanted_again_before_the_answer(subscriber: Subscriber, server: Peer) -> None:
    """The same while SUBSCRIBE is on its way: it stands with the answer to that one."""
    subscriber.subscribe(b"a")
    assert await server.command() == [b"subscribe", b"a"]
    subscriber.unsubscribe(b"a")
    subscriber.subscribe(b"a")
    assert await taken(subscriber) == []
    await server.answer(joined(b"a"))
    assert await taken(subscriber) == [Standing(b"a", again=False)]


async def test_nothing_comes_after_unsubscribe(subscriber: Subscriber, server: Peer) -> None:
    """Not what waits already, and not what the server sends until it has heard of it."""
    await stand(subscriber, server, b"a", b"b")
    await server.answer(message(b"a", b"1") + message(b"b", b"2"))
    await wait_all_tasks_blocked()
    subscriber.unsubscribe(b"a")
    assert await server.command() == [b"unsubscribe", b"a"]
    await server.answer(message(b"a", b"3") + left(b"a"))
    assert await taken(subscriber) == [Published(b"b", b"2")]
    assert subscriber.received == 2
    subscriber.unsubscribe(b"never wanted")


async def test_unwanted_before_the_answer(subscriber: Subscriber, server: Peer) -> None:
    """A confirmation of what is not wanted any more, nor told so yet, is for nobody."""
    subscriber.subscribe(b"a")
    assert await server.command() == [b"subscribe", b"a"]
    await server.answer(joined(b"a"))
    subscriber.unsubscribe(b"a")
    assert await taken(subscriber) == []
    assert await server.command() == [b"unsubscribe", b"a"]


async def test_take_returns_at_most_its_limit(subscriber: Subscriber, server: Peer) -> None:
    """The rest waits for the next call."""
    await stand(subscriber, server, b"a")
    await server.answer(b"".join(message(b"a", b"%d" % number) for number in range(3)))
    assert await taken(subscriber, 2) == [Published(b"a", b"0"), Published(b"a", b"1")]
    assert await taken(subscriber, 2) == [Published(b"a", b"2")]


async def test_take_waits(subscriber: Subscriber, server: Peer, nursery: trio.Nursery) -> None:
    """It waits on when what came is unsubscribed meanwhile, and a second taker is refused."""
    await stand(subscriber, server, b"a")
    events: list[Event] = []

    async def take() -> None:
        events.extend(await subscriber.take(10))

    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError):
        await subscriber.take(10)
    subscriber.unsubscribe(b"a")
    subscriber.subscribe(b"a")  # wakes the taker, and
    subscriber.unsubscribe(b"a")  # takes it back
    await wait_all_tasks_blocked()
    assert events == []
    subscriber.subscribe(b"a")
    assert await server.command() == [b"unsubscribe", b"a"]
    assert await server.command() == [b"subscribe", b"a"]
    await server.answer(left(b"a") + joined(b"a"))
    await wait_all_tasks_blocked()
    assert events == [Standing(b"a", again=False)]


async def test_what_is_too_much_is_dropped(subscriber: Subscriber, server: Peer) -> None:
    """Beyond the bound messages are dropped and counted; for each channel that is told once at a time."""
    await stand(subscriber, server, b"a", b"b")
    await server.answer(b"".join(message(b"a", b"%010d" % number) for number in range(6)))
    await server.answer(message(b"b", b"x") + message(b"b", b"x"))
    await wait_all_tasks_blocked()
    assert (subscriber.received, subscriber.dropped) == (8, 5)
    assert await taken(subscriber, 3) == [Published(b"a", b"%010d" % number) for number in range(3)]
    # There is room again, but that messages were dropped was not taken yet.
    await server.answer(b"".join(message(b"a", b"%010d" % number) for number in range(6, 10)))
    assert await taken(subscriber) == [
        Missed(b"a"),
        Missed(b"b"),
        *(Published(b"a", b"%010d" % number) for number in range(6, 9)),
    ]
    await server.answer(b"".join(message(b"a", b"%010d" % number) for number in range(10, 14)))
    assert (await taken(subscriber))[-1] == Missed(b"a")
    assert subscriber.dropped == 7


async def test_a_message_beyond_all_bounds(subscriber: Subscriber, server: Peer) -> None:
    """One that alone is more than may wait is dropped, and those after it come."""
    await stand(subscriber, server, b"a")
    await server.answer(message(b"a", b"x" * 1000) + message(b"a", b"y"))
    assert await taken(subscriber) == [Missed(b"a"), Published(b"a", b"y")]


async def test_rooms_that_come_and_go_do_not_fill_the_queue(
    subscriber: Subscriber, server: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is over is cleared away also if nobody takes, and makes room for messages."""
    monkeypatch.setattr(subscriber_module, "STALE_ENTRIES", 5)
    await stand(subscriber, server, b"a", b"b")
    await server.answer(b"".join(message(b"a", b"%010d" % number) for number in range(3)))
    await wait_all_tasks_blocked()
    for _ in range(10):
        subscriber.unsubscribe(b"a")
        subscriber.subscribe(b"a")
        assert len(subscriber._waiting) <= 3 + 5 + 2
    await server.answer(b"".join(message(b"b", b"%010d" % number) for number in range(4)))
    assert await taken(subscriber) == [
        Standing(b"a", again=False),
        *(Published(b"b", b"%010d" % number) for number in range(3)),
        Missed(b"b"),
    ]
    assert subscriber._bytes == 0


async def test_a_break(
    subscriber: Subscriber, server: Peer, harbour: Harbour, autojump_clock: trio.testing.MockClock
) -> None:
    """`Broke` comes behind the messages; then all that is wanted is asked for and stands, `again` or not."""
    await stand(subscriber, server, b"a", b"b")
    subscriber.subscribe(b"c")
    await server.answer(message(b"a", b"1"))
    await wait_all_tasks_blocked()
    await server.cut()
    await wait_all_tasks_blocked()
    assert not subscriber.connected
    assert "closed" in subscriber.trouble
    subscriber.unsubscribe(b"b")
    subscriber.subscribe(b"d")
    assert await taken(subscriber) == [Published(b"a", b"1"), Broke()]
    peer = await greeted(harbour)
    assert await peer.command() == [b"subscribe", b"a", b"c", b"d"]
    assert (subscriber.connected, subscriber.trouble, subscriber.connections_made) == (True, "", 2)
    await peer.answer(message(b"a", b"2") + joined(b"a", b"c", b"d") + message(b"a", b"3"))
    assert await taken(subscriber) == [
        Standing(b"a", again=True),
        Standing(b"c", again=False),
        Standing(b"d", again=False),
        Published(b"a", b"3"),
    ]


async def test_calls_at_the_moment_of_the_break(
    subscriber: Subscriber, server: Peer, harbour: Harbour, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing stands on a connection that has just broken, also if it stood there."""
    await stand(subscriber, server, b"a")
    connection = subscriber._connection
    assert connection is not None
    await server.cut()
    while not connection.broken:
        await trio.lowlevel.checkpoint()
    assert subscriber._connection is connection
    subscriber.unsubscribe(b"a")
    subscriber.subscribe(b"a")
    assert await taken(subscriber) == [Broke()]
    assert await (await greeted(harbour)).command() == [b"subscribe", b"a"]


async def test_one_break_at_a_time(
    subscriber: Subscriber, server: Peer, harbour: Harbour, autojump_clock: trio.testing.MockClock
) -> None:
    """It does not connect again before the break was taken: a taker that does not come finds one."""
    await server.cut()
    await trio.sleep(60)
    assert len(harbour.dials) == 1
    assert await taken(subscriber) == [Broke()]
    await greeted(harbour)
    assert subscriber.connected


async def test_attempts_that_fail_are_no_breaks(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing broke that did not stand; who waits for the store is not told of each attempt."""
    harbour = Harbour(refuse=20)
    subscriber = Subscriber(Address(), client_name="test", dial=harbour.dial)
    nursery.start_soon(subscriber.run)
    subscriber.subscribe(b"a")
    peer = await greeted(harbour)
    assert await peer.command() == [b"subscribe", b"a"]
    await peer.answer(joined(b"a"))
    assert await taken(subscriber) == [Standing(b"a", again=False)]


async def test_thousands_of_channels_are_told_in_pieces(subscriber: Subscriber, server: Peer) -> None:
    """No command has more than 500 channels, and little more than 2,000 channels are unanswered at a time."""
    channels = [b"%d" % number for number in range(5200)]
    for channel in channels:
        subscriber.subscribe(channel)
    told: list[bytes] = []
    for answered in range(0, 5200, 500):
        await wait_all_tasks_blocked()
        while len(told) < min(5200, answered + 2000):
            name, *some = await server.command()
            assert (name, len(some)) == (b"subscribe", min(500, 5200 - len(told)))
            told += some
        with trio.move_on_after(0):
            raise AssertionError(f"{await server.command()} is too early")
        await server.answer(joined(*told[answered : answered + 500]))
    assert told == channels
    await taken(subscriber)
    events = await taken(subscriber, 10_000)
    assert len(events) == 4200


async def test_a_dead_server_is_found(
    subscriber: Subscriber, server: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    """Silent for 5 s it is asked, silent for 5 s more it is given up; messages are signs of life."""
    await stand(subscriber, server, b"a")
    start = trio.current_time()
    await trio.sleep(4)
    await server.answer(message(b"a", b"1"))
    assert await server.command() == [b"PING"]
    assert trio.current_time() == start + 10
    await server.answer(PONG)
    assert await server.command() == [b"PING"]
    await server.ends()
    assert trio.current_time() == start + 20
    assert await taken(subscriber) == [Published(b"a", b"1"), Broke()]
    assert "has not answered" in subscriber.trouble


NOPERM = b"-NOPERM No permissions to access a channel\r\n"


async def test_a_denied_channel(
    subscriber: Subscriber, server: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of several: each is asked for by itself, the others stand; logged once, with what to grant."""
    for channel in (b"a", b"b", b"c"):
        subscriber.subscribe(channel)
    assert await server.command() == [b"subscribe", b"a", b"b", b"c"]
    subscriber.unsubscribe(b"c")
    assert await server.command() == [b"unsubscribe", b"c"]
    capsys.readouterr()
    await server.answer(NOPERM + left(b"c"))
    assert [await server.command(), await server.command()] == [[b"subscribe", b"a"], [b"subscribe", b"b"]]
    await server.answer(NOPERM + joined(b"b"))
    assert await taken(subscriber) == [Standing(b"b", again=False)]
    for channel in (b"d", b"a"):  # a was not wanted again: it was asked for, and denied
        subscriber.subscribe(channel)
    assert await server.command() == [b"subscribe", b"d"]
    await server.answer(NOPERM)
    assert await taken(subscriber) == []
    assert subscriber.connections_made == 1
    logged = capsys.readouterr()
    lines = [line for line in (logged.out + logged.err).splitlines() if "denies" in line]
    assert len(lines) == 1
    assert "error" in lines[0]
    assert "ACL SETUSER default +subscribe +unsubscribe &ring:*" in lines[0]
    assert "No permissions to access a channel" in lines[0]
    # What was granted meanwhile is noticed by who asks anew.
    subscriber.unsubscribe(b"a")
    subscriber.subscribe(b"a")
    assert await server.command() == [b"subscribe", b"a"]
    await server.answer(joined(b"a"))
    assert await taken(subscriber) == [Standing(b"a", again=False)]


async def test_denials_among_races(subscriber: Subscriber, server: Peer) -> None:
    """A denial of an earlier SUBSCRIBE leaves the decision to the last one; UNSUBSCRIBE may be denied too."""
    subscriber.subscribe(b"a")
    await server.command()
    subscriber.unsubscribe(b"a")
    await server.command()
    subscriber.subscribe(b"a")
    await server.command()
    await server.answer(NOPERM + NOPERM + joined(b"a"))
    assert await taken(subscriber) == [Standing(b"a", again=False)]
    subscriber.subscribe(b"b")
    await server.command()
    subscriber.unsubscribe(b"b")
    await server.command()
    await server.answer(NOPERM + NOPERM)
    subscriber.subscribe(b"b")
    assert await server.command() == [b"subscribe", b"b"]


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        (b"-BUSY a script is running\r\n", "BUSY"),
        (PONG, "nobody asked for"),
        (joined(b"b"), "nobody asked for"),
        (left(b"a"), "nobody asked for"),
        (joined(b"a", b"a"), "nobody asked for"),
        (joined(b"a") + PONG, "nobody asked for"),
        (b">1\r\n+what\r\n", "no message and no answer"),
        (b">3\r\n$7\r\nmessage\r\n*0\r\n:1\r\n", "no message and no answer"),
        (b"?", "Protocol error"),
    ],
)
async def test_what_ends_a_connection(
    subscriber: Subscriber,
    server: Peer,
    harbour: Harbour,
    autojump_clock: trio.testing.MockClock,
    said: bytes,
    trouble: str,
) -> None:
    """A server that is busy, or says what cannot be: the connection is made anew, and all is asked again."""
    subscriber.subscribe(b"a")
    await server.command()
    await server.answer(said)
    await server.ends()
    await wait_all_tasks_blocked()
    assert trouble in subscriber.trouble
    assert (await taken(subscriber))[-1] == Broke()
    assert await (await greeted(harbour)).command() == [b"subscribe", b"a"]


async def test_half_answered_is_not_refused(subscriber: Subscriber, server: Peer) -> None:
    """An error in the middle of a command's answers is no answer to it."""
    subscriber.subscribe(b"a")
    subscriber.subscribe(b"b")
    await server.command()
    await server.answer(joined(b"a") + NOPERM)
    await server.ends()
    await wait_all_tasks_blocked()
    assert "NOPERM" in subscriber.trouble


async def test_refused_for_good(harbour: Harbour, nursery: trio.Nursery) -> None:
    """Wrong credentials end `run`, as those of the commands' connection do."""
    subscriber = Subscriber(Address(), client_name="test", dial=harbour.dial)

    async def serve() -> None:
        await (await harbour.peer()).answer(b"-WRONGPASS no\r\n-NOAUTH no\r\n")

    nursery.start_soon(serve)
    with pytest.raises(StoreRefused, match="password"):
        await nursery.start(subscriber.run)


async def test_cancelling_run_hangs_up(harbour: Harbour, nursery: trio.Nursery) -> None:
    """That is a break like any other for who takes; it can run again."""
    subscriber = Subscriber(Address(), client_name="test", dial=harbour.dial)
    async with trio.open_nursery() as inner:
        inner.start_soon(subscriber.run)
        server = await greeted(harbour)
        await stand(subscriber, server, b"a")
        inner.cancel_scope.cancel()
    await server.ends()
    assert not subscriber.connected
    assert await taken(subscriber) == [Broke()]
    nursery.start_soon(subscriber.run)
    assert await (await greeted(harbour)).command() == [b"subscribe", b"a"]


async def test_the_log_tells_it_from_the_other_connection(
    subscriber: Subscriber,
    server: Peer,
    harbour: Harbour,
    autojump_clock: trio.testing.MockClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its outages are logged as the store's, and as those of the rooms' connection."""
    capsys.readouterr()
    await server.cut()
    await taken(subscriber)
    await greeted(harbour)
    logged = capsys.readouterr()
    lines = (logged.out + logged.err).splitlines()
    assert ["store away" in lines[0], "store connected" in lines[1], len(lines)] == [True, True, 2]
    assert all("connection=rooms" in line for line in lines)


def test_from_url_reads_the_url() -> None:
    """`from_url` refuses what `parse_url` refuses."""
    assert Subscriber.from_url("redis://h:7000/2", client_name="n1").address == Address("h", 7000, db=2)
    with pytest.raises(BadRequest):
        Subscriber.from_url("http://h", client_name="n1")
