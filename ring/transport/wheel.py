"""The timer wheel: every time-out of a node's connections, for the price of a list entry each.

Trio's own deadlines need a task or a cancel scope per time-out; 20,000 sockets have neither. The pump turns
the wheel; sockets, handshakes, sessions and peer links put timers on it. Pure: time comes in by the `clock`.
"""

import math
import time
from collections.abc import Callable
from heapq import heappop, heappush

import structlog

_logger = structlog.get_logger()

GRANULARITY_S = 0.05


class Timer:
    """One call that is to come; made by `TimerWheel.call_later`."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Takes the call back; does nothing if it was made or cancelled already.

        What the callback refers to is let go at once. The empty timer goes when its time comes: to take it
        out earlier would cost more than it holds.
        """
        self.callback = None


class TimerWheel:
    """Timers in slots of `granularity_s`: none fires early, each at most one slot late.

    Setting and cancelling take constant time: a dictionary finds the slot. A heap orders the slots (not the
    timers) that are in use; there are at most as many as the longest delay has steps.

    Args:
        clock: seconds, never going back.
        granularity_s: the width of a slot.
        on_earlier: called with no argument after a timer was set that is due before all others, so that
            whoever sleeps until `next_due` looks again.
    """

    __slots__ = ("_clock", "_current", "_granularity_s", "_order", "_slots", "on_earlier")

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        granularity_s: float = GRANULARITY_S,
        on_earlier: Callable[[], None] | None = None,
    ) -> None:
        self._clock = clock
        self._granularity_s = granularity_s
        self._slots: dict[int, list[Timer]] = {}
        self._order: list[int] = []
        self._current = math.floor(clock() / granularity_s)  # the last slot that was fired
        self.on_earlier = on_earlier

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Calls `callback` from `advance`, once `delay_s` have passed."""
        timer = Timer(callback)
        due = math.ceil((self._clock() + delay_s) / self._granularity_s)
        # Never into a slot that is being fired: a callback that sets itself again must not fire for ever.
        slot = max(due, self._current + 1)
        timers = self._slots.get(slot)
        if timers is not None:
            timers.append(timer)
            return timer
        self._slots[slot] = [timer]
        heappush(self._order, slot)
        if self._order[0] == slot and self.on_earlier is not None:
            self.on_earlier()
        return timer

    def next_due(self) -> float | None:
        """When the next slot is due, on the wheel's clock; None while no timer is set.

        The slot's timers may have been cancelled meanwhile.
        """
        return self._order[0] * self._granularity_s if self._order else None

    def advance(self, now: float) -> int:
        """Makes the calls that are due at `now`, in the order of their slots; returns how many.

        A callback that raises is logged; the others are called all the same.
        """
        # The division of a slot's exact time may come out a hair below the slot.
        current = math.floor(now / self._granularity_s + 1e-6)
        fired = 0
        while self._order and self._order[0] <= current:
            slot = heappop(self._order)
            self._current = slot
            for timer in self._slots.pop(slot):
                callback = timer.callback
                if callback is None:
                    continue
                timer.callback = None
                fired += 1
                try:
                    callback()
                except Exception:
                    _logger.exception("a timer failed")
        self._current = max(self._current, current)
        return fired
