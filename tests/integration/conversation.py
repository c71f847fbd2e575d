"""Two users who talk all the time: what happens to others must not be noticed by them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ring.node import Node
from tests.integration.raw import RawClient, Watch

PACE_S = 0.005
PATIENCE_S = 5.0  # what a machine that is busy with other things may make of milliseconds
MORE = 10


class Conversation:
    """Each says something when it has heard the other. `longest_s` is the longest that a word took."""

    def __init__(self, first: RawClient, second: RawClient) -> None:
        self.first = first
        self.second = second
        self.longest_s = 0.0

    async def talk(self) -> None:
        """Until cancelled."""
        while True:
            for speaker, listener in ((self.first, self.second), (self.second, self.first)):
                sent = speaker.send(listener.user)
                await self._hears(listener, 1)
                self.longest_s = max(self.longest_s, listener.arrivals[-1].at - sent.at)
            await trio.sleep(PACE_S)  # so that they leave room for others

    async def goes_on(self) -> None:
        """Returns when they have said some more."""
        await self._hears(self.first, MORE)

    async def _hears(self, listener: RawClient, more: int) -> None:
        enough = len(listener.arrivals) + more
        with trio.fail_after(PATIENCE_S):
            await listener.watch.until(lambda: len(listener.arrivals) >= enough)


@asynccontextmanager
async def conversation(here: Node, there: Node) -> AsyncIterator[Conversation]:
    """Two users on two nodes who talk during the block, and then have all that was said, once, in order."""
    watch = Watch()
    first = RawClient([here.addresses["edge"]], "first", watch=watch)
    second = RawClient([there.addresses["edge"]], "second", watch=watch)
    async with trio.open_nursery() as nursery:
        await nursery.start(first.run)
        await nursery.start(second.run)
        pair = Conversation(first, second)
        async with trio.open_nursery() as talking:
            talking.start_soon(pair.talk)
            await pair.goes_on()
            yield pair
            await pair.goes_on()
            talking.cancel_scope.cancel()
        with trio.fail_after(PATIENCE_S):
            await watch.until(lambda: not (first.unanswered or second.unanswered))
        for speaker, listener in ((first, second), (second, first)):
            assert {sent.status for sent in speaker.sent} == {"delivered"}
            assert [arrival.n for arrival in listener.arrivals] == [sent.n for sent in speaker.sent]
            assert (len(speaker.welcomes), speaker.closes, speaker.errors) == (1, [], [])
        nursery.cancel_scope.cancel()
