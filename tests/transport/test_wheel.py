"""The timer wheel, on a clock that the tests turn."""

import tracemalloc
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ring.transport.wheel import GRANULARITY_S, TimerWheel


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.013  # in the middle of a slot, as it always is

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


@pytest.fixture
def wheel(clock: Clock) -> TimerWheel:
    """A wheel on that clock."""
    return TimerWheel(clock)


def move(wheel: TimerWheel, clock: Clock, seconds: float) -> int:
    """Moves the clock and turns the wheel."""
    clock.now += seconds
    return wheel.advance(clock.now)


def nothing() -> None:
    """A callback."""


def test_a_timer_is_never_early(wheel: TimerWheel, clock: Clock) -> None:
    """Just before its time nothing happens, and one slot later it has fired, once."""
    calls: list[str] = []
    wheel.call_later(1.0, lambda: calls.append("it"))
    assert move(wheel, clock, 0.999) == 0
    assert move(wheel, clock, 0.001 + GRANULARITY_S) == 1
    assert move(wheel, clock, 10) == 0
    assert calls == ["it"]


@settings(deadline=None)
@given(st.lists(st.floats(min_value=-1, max_value=50), max_size=40), st.floats(min_value=0.01, max_value=7))
def test_each_fires_in_its_time(delays: list[float], step: float) -> None:
    """However the clock moves: none before its delay, none later than a slot and a step after it."""
    clock = Clock()
    wheel = TimerWheel(clock)
    start = clock.now
    fired: list[tuple[float, float]] = []

    def note(delay: float) -> Callable[[], None]:
        return lambda: fired.append((delay, clock.now - start))

    for delay in delays:
        wheel.call_later(delay, note(delay))
    while wheel.next_due() is not None:
        move(wheel, clock, step)
    assert sorted(delay for delay, _ in fired) == sorted(delays)
    for delay, at in fired:
        assert delay - 1e-6 <= at <= max(delay, 0) + step + 2 * GRANULARITY_S


def test_timers_fire_in_the_order_of_their_slots(wheel: TimerWheel, clock: Clock) -> None:
    """After a long stall the earlier is called first, whichever was set first."""
    calls: list[str] = []
    wheel.call_later(2, lambda: calls.append("late"))
    wheel.call_later(1, lambda: calls.append("early"))
    assert move(wheel, clock, 3600) == 2
    assert calls == ["early", "late"]


def test_a_cancelled_timer_does_not_fire(wheel: TimerWheel, clock: Clock) -> None:
    """And it lets go of what it would have called, at once."""

    class Holder:
        def call(self) -> None:
            raise AssertionError("it was cancelled")

    holder = Holder()
    gone = weakref.ref(holder)
    timer = wheel.call_later(1, holder.call)
    timer.cancel()
    del holder
    assert gone() is None
    assert move(wheel, clock, 2) == 0


def test_cancelling_after_the_call_does_nothing(wheel: TimerWheel, clock: Clock) -> None:
    """So who cancels need not know whether it fired."""
    timer = wheel.call_later(0, nothing)
    assert move(wheel, clock, 1) == 1
    timer.cancel()
    timer.cancel()


def test_a_timer_may_set_itself_again(wheel: TimerWheel, clock: Clock) -> None:
    """With no delay at all it fires once a turn, not for ever in the first."""
    calls: list[float] = []

    def again() -> None:
        calls.append(clock.now)
        wheel.call_later(0, again)

    wheel.call_later(0, again)
    for turn in range(1, 4):
        assert move(wheel, clock, GRANULARITY_S) == 1
        assert len(calls) == turn


def test_one_that_raises_is_logged(wheel: TimerWheel, clock: Clock) -> None:
    """The others of the same turn are called all the same."""
    calls: list[str] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    wheel.call_later(1, fail)
    wheel.call_later(1, lambda: calls.append("it"))
    with capture_logs() as logs:
        move(wheel, clock, 2)
    assert calls == ["it"]
    assert [(log["event"], log["exc_info"]) for log in logs] == [("a timer failed", True)]


def test_next_due_says_when_to_turn(wheel: TimerWheel, clock: Clock) -> None:
    """Turning it exactly then is enough, and not too early: the slot's own time is rounded up to it."""
    assert wheel.next_due() is None
    for delay in (0.37, 1.0, 77.7):
        wheel.call_later(delay, nothing)
        due = wheel.next_due()
        assert due is not None
        assert clock.now + delay <= due <= clock.now + delay + 2 * GRANULARITY_S
        clock.now = due
        assert wheel.advance(clock.now) == 1
    assert wheel.next_due() is None


def test_it_says_when_something_is_due_earlier(clock: Clock) -> None:
    """Only then: who sleeps until `next_due` is not disturbed for later timers, or others of the slot."""
    news: list[float | None] = []
    watched = TimerWheel(clock)
    watched.on_earlier = lambda: news.append(watched.next_due())
    for delay in (5, 9, 5, 1, 1, 3):
        watched.call_later(delay, nothing)
    assert len(news) == 2
    assert news[1] == watched.next_due()


def test_twenty_thousand_timers_are_cheap(wheel: TimerWheel, clock: Clock) -> None:
    """Heartbeats of a full node: less than 150 bytes each, the callback included, in few slots."""
    sockets = [[0] for _ in range(20_000)]
    tracemalloc.start()
    for index, socket in enumerate(sockets):
        wheel.call_later(15 + index % 15, socket.clear)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 150 * len(sockets)
    assert move(wheel, clock, 60) == len(sockets)
