"""How a draining node sends its clients away."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from ring.edge.farewell import LOOK_EVERY_S, NOTICE_S, SETTLE_S, drain, notice


class Client:
    """A session that goes when it is asked to, or stays."""

    def __init__(self, hall: "Hall", sid: int, *, settled: bool = True, stays: bool = False) -> None:
        self.sid = sid
        self.settled = settled
        self._hall = hall
        self._stays = stays

    def reconnect(self, after_ms: int, why: str) -> None:
        """It is asked."""
        assert 0 <= after_ms <= 1000 * LOOK_EVERY_S + 31
        self._hall.comes.append((trio.current_time() + after_ms / 1000, self.sid))
        if not self._stays:
            del self._hall.sessions[self.sid]


class Hall:
    """Sessions of a node."""

    def __init__(self, count: int, **others: Any) -> None:
        self.sessions = {sid: Client(self, sid, **others) for sid in range(count)}
        self.comes: list[tuple[float, int]] = []  # to another node: when, and who

    async def empty(self, per_s: Callable[[], float], within_s: float = inf) -> None:
        """It drains, and is gone by then."""
        with trio.move_on_after(within_s):
            await drain(cast("Any", self.sessions), per_s)

    def most_per_s(self, began: float) -> int:
        """How many come in the worst second."""
        times = sorted(at - began for at, _ in self.comes)
        return max(bisect_left(times, start + 1) - index for index, start in enumerate(times))


@pytest.mark.parametrize("budget", [10, 100, 5000])
async def test_they_go_at_a_pace(autojump_clock: MockClock, budget: int) -> None:
    """In no second more than the budget, and not all in one moment."""
    hall, began = Hall(5 * budget), trio.current_time()
    await hall.empty(lambda: budget)
    assert 5.0 < trio.current_time() - began < 5.7
    assert 0.85 * budget <= hall.most_per_s(began) <= budget
    assert sorted(sid for _, sid in hall.comes) == list(range(5 * budget))
    assert Counter(at for at, _ in hall.comes).most_common(1)[0][1] <= max(budget / 500, 1)


async def test_what_was_not_used_is_lost(autojump_clock: MockClock) -> None:
    """Who could not be asked for some time is not asked in a crowd then."""
    hall, began = Hall(50, settled=False), trio.current_time()
    await hall.empty(lambda: 10)
    assert min(at for at, _ in hall.comes) >= began + SETTLE_S
    assert hall.most_per_s(began) <= 10


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
    assert 2.0 < trio.current_time() - began < 2.5


@pytest.mark.parametrize("settled", [True, False])
async def test_messages_get_their_receipts_first(autojump_clock: MockClock, settled: bool) -> None:
    """Or as many as do within a moment."""
    hall, began = Hall(3, settled=settled), trio.current_time()
    await hall.empty(lambda: 1000)
    assert (trio.current_time() - began < 0.1) == settled
    assert trio.current_time() - began < SETTLE_S + 0.1


async def test_time_is_too_short_for_receipts(autojump_clock: MockClock) -> None:
    """Then they are asked all the same."""
    hall = Hall(3, settled=False)
    await hall.empty(lambda: 1000, within_s=SETTLE_S / 2)
    assert sorted(sid for _, sid in hall.comes) == [0, 1, 2]


async def test_the_node_is_busy(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks less often whom to ask: it asks more of them then, each for a moment of its own."""
    sleep = trio.sleep
    monkeypatch.setattr(trio, "sleep", lambda seconds: sleep(seconds + 0.03))
    hall, began = Hall(3000), trio.current_time()
    await hall.empty(lambda: 500, within_s=9)
    assert trio.current_time() - began < 7.5
    assert 400 < hall.most_per_s(began) <= 500


@pytest.mark.parametrize(("within_s", "waits_s"), [(10, NOTICE_S), (1, 0.25), (inf, NOTICE_S)])
async def test_balancers_learn_of_it_first(
    autojump_clock: MockClock, within_s: float, waits_s: float
) -> None:
    """Unless there is nobody to be asked, or little time."""
    began = trio.current_time()
    with trio.fail_after(within_s):
        await notice(cast("Any", Hall(1).sessions))
    assert trio.current_time() - began == pytest.approx(waits_s)
    await notice({})
    assert trio.current_time() - began == pytest.approx(waits_s)


async def test_each_is_asked_once(autojump_clock: MockClock) -> None:
    """Though it stays until its connection has ended."""
    hall = Hall(3, stays=True)
    await hall.empty(lambda: 1000, within_s=5)
    assert sorted(sid for _, sid in hall.comes) == [0, 1, 2]
