"""How long the pump's ticks take, and how late its timers fire: a node short of CPU shows it here first.

The pump counts, `ring.telemetry` reads; plain numbers, since a tick costs little more than they do.
"""

TICK_BOUNDS_S = (0.0001, 0.0005, 0.002, 0.01, 0.05, 0.25)
"""Of the histogram of ticks: a lonely message, a small batch, a big one; then what other tasks feel."""

WINDOW_S = 60.0
"""The greatest lag is remembered for so long, at most twice: longer than anybody leaves between two looks."""


class Timing:
    """The times of one pump, in seconds.

    Attributes:
        busy_s: spent in ticks.
        ticks: how many took up to each of `TICK_BOUNDS_S`, and not up to the one before; longer ones last.
        lag_s: how late the wheel's last timers were.
    """

    __slots__ = ("_before", "_began", "_greatest", "busy_s", "lag_s", "ticks")

    def __init__(self, now: float) -> None:
        self.busy_s = 0.0
        self.ticks = [0] * (len(TICK_BOUNDS_S) + 1)
        self.lag_s = 0.0
        self._greatest = 0.0  # in this window
        self._before = 0.0  # in the last one
        self._began = now

    def fired(self, now: float, late_s: float) -> None:
        """Timers fired, so late."""
        self._turn(now)
        self.lag_s = late_s
        self._greatest = max(self._greatest, late_s)

    def greatest_lag_s(self, now: float) -> float:
        """The greatest lag of the last one to two windows, whoever asks how often."""
        self._turn(now)
        return max(self._greatest, self._before)

    def _turn(self, now: float) -> None:
        windows = (now - self._began) // WINDOW_S
        if windows:
            self._before = self._greatest if windows == 1 else 0.0
            self._greatest = 0.0
            self._began += windows * WINDOW_S
