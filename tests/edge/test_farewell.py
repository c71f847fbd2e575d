"""How a draining node sends its clients away."""

from collections.abc import Callable
from math import inf
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from ring.edge.farewell import JITTER_MS, SETTLE_S, drain


class Client:
    """A session that goes when it is asked to, or stays."""

    def __init__(self, hall: "Hall", sid: int, *, settled: bool = True, stays: bool = False) -> None:
        self.sid = sid
        self.settled = settled
        self._hall = hall
        self._stays = stays

    def reconnect(self, after_ms: int, why: str) -> None:
        """It is asked."""
        assert 0 <= after_ms <= JITTER_MS
        self._hall.asked.append((trio.current_time(), self.sid))
        if not self._stays:
            del self._hall.sessions[self.sid]


class Hall:
    """Sessions of a node."""

    def __init__(self, count: int, **others: Any) -> None:
        self.sessions = {sid: Client(self, sid, **others) for sid in range(count)}
        self.asked: list[tuple[float, int]] = []

    async def empty(self, per_s: Callable[[], float], within_s: float = inf) -> None:
        """It drains, and is gone by then."""
        with trio.move_on_after(within_s):
            await drain(cast("Any", self.sessions), per_s)

    def most_per_s(self, began: float) -> int:
        """How many were asked in the worst second."""
        times = [at - began for at, _ in self.asked]
        return max(sum(start <= at < start + 1 for at in times) for start in times)


async def test_they_go_at_a_pace(autojump_clock: MockClock) -> None:
    """So many in each second, and not all in one moment."""
    hall, began = Hall(500), trio.current_time()
    await hall.empty(lambda: 100)
    assert 4.9 < trio.current_time() - began < 5.1
    assert hall.most_per_s(began) <= 102
    assert sorted(sid for _, sid in hall.asked) == list(range(500))


async def test_time_is_short(autojump_clock: MockClock) -> None:
    """All of them go, evenly, though they are too many for the pace."""
    hall, began = Hall(1000), trio.current_time()
    await hall.empty(lambda: 10, within_s=2.0)
    assert 1.7 < trio.current_time() - began < 1.9
    assert hall.most_per_s(began) < 600
    assert hall.sessions == {}


async def test_another_node_drains_too(autojump_clock: MockClock) -> None:
    """Then each has half of it; the pace is asked for again and again."""
    hall, began = Hall(150), trio.current_time()
    await hall.empty(lambda: 100 if trio.current_time() - began < 1 else 50)
    assert 1.9 < trio.current_time() - began < 2.1


@pytest.mark.parametrize("settled", [True, False])
async def test_messages_get_their_receipts_first(autojump_clock: MockClock, settled: bool) -> None:
    """Or as many as do within a moment."""
    hall, began = Hall(3, settled=settled), trio.current_time()
    await hall.empty(lambda: 1000)
    assert (trio.current_time() - began < 0.1) == settled
    assert trio.current_time() - began < SETTLE_S + 0.1


async def test_each_is_asked_once(autojump_clock: MockClock) -> None:
    """Though it stays until its connection has ended."""
    hall = Hall(3, stays=True)
    await hall.empty(lambda: 1000, within_s=5)
    assert sorted(sid for _, sid in hall.asked) == [0, 1, 2]
