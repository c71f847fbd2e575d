"""Random histories of the subscriber against a model of what its taker must be told."""

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from ring.store.address import Address
from ring.store.subscriber import (
    MESSAGE_OVERHEAD,
    Broke,
    Event,
    Missed,
    Published,
    Standing,
    Subscriber,
)
from tests.store.wires import Harbour, Peer, joined, left, message

CHANNELS = [b"a", b"b", b"c"]
ROOM = 4 * MESSAGE_OVERHEAD + 100  # bytes that may wait: some four messages


@dataclass
class Want:
    """A channel from a subscribe to the unsubscribe, as its owner sees it."""

    channel: bytes
    over: bool = False
    standing: bool = False
    stood: bool = False
    missed: bool = False


@dataclass
class Model:
    """What is right, computed from the calls, the commands the server got, and the bytes that it sent."""

    wants: dict[bytes, Want] = field(default_factory=dict)
    subscribed: dict[bytes, bool] = field(default_factory=dict)  # by the last command that the server got
    unanswered: dict[bytes, int] = field(default_factory=dict)
    waiting: deque[tuple[Want, Event]] = field(default_factory=deque)
    received: int = 0
    dropped: int = 0

    def call(self, wanted: bool, channel: bytes) -> None:
        """One call of subscribe or unsubscribe."""
        if wanted and channel not in self.wants:
            self.wants[channel] = Want(channel)
        elif not wanted and channel in self.wants:
            self.wants.pop(channel).over = True

    def heard(self, command: list[bytes]) -> None:
        """The server got a command."""
        for channel in command[1:]:
            self.subscribed[channel] = command[0] == b"subscribe"
            self.unanswered[channel] = self.unanswered.get(channel, 0) + 1

    def look(self) -> None:
        """What is wanted and subscribed to, and has no answer to come, stands."""
        for channel, want in self.wants.items():
            if self.subscribed.get(channel) and not self.unanswered[channel] and not want.standing:
                want.standing = True
                self.waiting.append((want, Standing(channel, again=want.stood)))
                want.stood = True

    def arrived(self, channel: bytes, payload: bytes | None) -> None:
        """An answer about a channel has arrived, or a message."""
        if payload is None:
            self.unanswered[channel] -= 1
            self.look()
            return
        want = self.wants.get(channel)
        if want is None or not want.standing:
            return
        self.received += 1
        sizes = [len(event.payload) for _, event in self.waiting if isinstance(event, Published)]
        if sum(sizes) + len(payload) + (len(sizes) + 1) * MESSAGE_OVERHEAD <= ROOM:
            self.waiting.append((want, Published(channel, payload)))
            return
        self.dropped += 1
        if not want.missed:
            want.missed = True
            self.waiting.append((want, Missed(channel)))

    def broke(self) -> None:
        """The connection broke."""
        self.subscribed.clear()
        self.unanswered.clear()
        for want in self.wants.values():
            want.standing = False
        self.waiting.append((Want(b""), Broke()))

    def take(self, limit: int) -> list[Event]:
        """What `take` must return."""
        events: list[Event] = []
        while self.waiting and len(events) < limit:
            want, event = self.waiting.popleft()
            if isinstance(event, Missed):
                want.missed = False
            if not want.over:
                events.append(event)
        return events


class History:
    """One run of a subscriber and the model beside it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.model = Model()
        self.harbour = Harbour()
        self.subscriber = Subscriber(
            Address(), client_name="test", dial=self.harbour.dial, waiting_bytes=ROOM
        )
        self.nursery = nursery
        self.scope = trio.CancelScope()
        self.peer: Peer
        self.heard: deque[list[bytes]] = deque()  # commands that the server got and did not answer
        self.out = b""  # what the server has to send,
        self.items: deque[tuple[int, bytes, bytes | None]] = (
            deque()
        )  # and what it is made of: where each ends
        self.flown = 0

    async def connect(self) -> None:
        """Lets the next connection in."""
        self.peer = await self.harbour.peer()
        await self.peer.greet()
        self.scope = trio.CancelScope()
        self.nursery.start_soon(self.listen, self.peer, self.scope)
        await self.settle()

    async def listen(self, peer: Peer, scope: trio.CancelScope) -> None:
        """The server's reading side."""
        with scope:
            while True:
                command = await peer.command()
                self.heard.append(command)
                self.model.heard(command)

    async def settle(self) -> None:
        """Lets everything happen that can, and checks that the server was told what is wanted alone."""
        await wait_all_tasks_blocked()
        told = {channel for channel, on in self.model.subscribed.items() if on}
        assert told == set(self.model.wants)
        self.model.look()

    async def call(self, calls: list[tuple[bool, bytes]]) -> None:
        """Calls within one tick."""
        for wanted, channel in calls:
            (self.subscriber.subscribe if wanted else self.subscriber.unsubscribe)(channel)
            self.model.call(wanted, channel)
        await self.settle()

    async def serve(self, count: int) -> None:
        """The server runs commands."""
        for _ in range(min(count, len(self.heard))):
            kind, *channels = self.heard.popleft()
            for channel in channels:
                self.say(channel, None, (joined if kind == b"subscribe" else left)(channel))

    async def publish(self, channel: bytes, size: int) -> None:
        """Someone publishes, also to what the server does not have us subscribed to."""
        payload = b"x" * size
        self.say(channel, payload, message(channel, payload))

    def say(self, channel: bytes, payload: bytes | None, data: bytes) -> None:
        """Something for the server to send."""
        self.out += data
        self.items.append((self.flown + len(self.out), channel, payload))

    async def flow(self, count: int) -> None:
        """Bytes arrive, wherever that cuts them."""
        data, self.out = self.out[:count], self.out[count:]
        if data:
            await self.peer.answer(data)
        self.flown += len(data)
        while self.items and self.items[0][0] <= self.flown:
            _, channel, payload = self.items.popleft()
            self.model.arrived(channel, payload)
        await self.settle()

    async def take(self, limit: int) -> None:
        """The taker takes, and is told what it must be."""
        expected = self.model.take(limit)
        got: list[Event] = []
        with trio.CancelScope() as scope:

            async def stop() -> None:
                await wait_all_tasks_blocked()
                scope.cancel()

            self.nursery.start_soon(stop)
            got = await self.subscriber.take(limit)
        assert got == expected
        await wait_all_tasks_blocked()

    async def catch_up(self) -> None:
        """The server does all that it was told, and all of that arrives."""
        await self.serve(len(self.heard))
        await self.flow(len(self.out))

    async def burst(self, channel: bytes, size: int, count: int) -> None:
        """Much is published to one channel, and arrives."""
        for _ in range(count):
            await self.publish(channel, size)
        await self.flow(len(self.out))

    async def cut(self) -> None:
        """The connection breaks, with what was on its way."""
        self.scope.cancel()
        await self.peer.cut()
        await wait_all_tasks_blocked()
        self.heard.clear()
        self.items.clear()
        self.out = b""
        self.model.broke()
        while self.model.waiting:
            await self.take(5)
        await self.connect()

    async def finish(self) -> None:
        """In the end everything that is wanted stands."""
        await self.catch_up()
        while self.model.waiting:
            await self.take(1000)
        assert all(want.standing for want in self.model.wants.values())
        assert (self.subscriber.received, self.subscriber.dropped) == (
            self.model.received,
            self.model.dropped,
        )


ACTIONS = st.one_of(
    st.tuples(
        st.just(History.call),
        st.lists(st.tuples(st.booleans(), st.sampled_from(CHANNELS)), min_size=1, max_size=5),
    ),
    st.tuples(st.just(History.serve), st.integers(1, 4)),
    st.tuples(st.just(History.publish), st.sampled_from(CHANNELS), st.integers(0, 120)),
    st.tuples(st.just(History.burst), st.sampled_from(CHANNELS), st.integers(0, 120), st.integers(1, 8)),
    st.tuples(st.just(History.catch_up)),
    st.tuples(st.just(History.flow), st.integers(1, 60) | st.just(10_000)),
    st.tuples(st.just(History.take), st.integers(1, 5)),
    st.tuples(st.just(History.cut)),
)


async def play(actions: list[tuple[Any, ...]]) -> None:
    """A history from its first connection to its end."""
    async with trio.open_nursery() as nursery:
        history = History(nursery)
        nursery.start_soon(history.subscriber.run)
        await history.connect()
        for act, *arguments in actions:
            await act(history, *arguments)
        await history.finish()
        nursery.cancel_scope.cancel()


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTIONS, min_size=20, max_size=60))
def test_the_taker_is_told_what_is_right(actions: list[tuple[Any, ...]]) -> None:
    """Calls, answers, messages, any split of the bytes, slow takers, breaks: `take` returns what it must."""
    trio.run(partial(play, actions), clock=trio.testing.MockClock(autojump_threshold=0))
