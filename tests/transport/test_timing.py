"""How long ticks take, how late timers are, and who failed: what the pump tells of itself."""

import pytest
import trio
from structlog.testing import capture_logs

from ring.transport.pump import Pump
from ring.transport.timing import TICK_BOUNDS_S, WINDOW_S, Timing
from tests.transport.wire import Recorder, Wire, door_to, until


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestTicks:
    @pytest.mark.parametrize(
        ("took_s", "bucket"),
        [(0.0, 0), (TICK_BOUNDS_S[0], 0), (0.0002, 1), (0.03, 4), (TICK_BOUNDS_S[-1], 5), (0.26, 6)],
    )
    async def test_each_tick_is_in_its_bucket(
        self, nursery: trio.Nursery, took_s: float, bucket: int
    ) -> None:
        """Up to a bound counts to it, as Prometheus' buckets do; the sum is that of all ticks."""
        clock = Clock()
        clock.now = 0.0  # where small differences are exact
        pump = Pump(clock=clock)

        def slow(_recorder: Recorder, _payload: bytes) -> None:
            clock.now += took_s

        await nursery.start(pump.run)
        recorder = Recorder(text=slow)
        listener = pump.listen("127.0.0.1:0", door_to(recorder))
        wire = await Wire.upgraded(listener.address)
        before, ticks = list(pump.timing.ticks), pump.ticks
        assert (sum(before), before[0]) == (ticks, ticks)
        await wire.text(b"hello")
        await until(lambda: pump.ticks > ticks)
        expected = list(before)
        expected[bucket] += 1
        assert pump.timing.ticks == expected
        assert pump.timing.busy_s == took_s


class TestLag:
    async def test_a_timer_that_fires_late(self, nursery: trio.Nursery) -> None:
        """The lag is that of the wheel's slot; a timer on time has next to none."""
        clock = Clock()
        pump = Pump(clock=clock)
        await nursery.start(pump.run)
        fired = trio.Event()
        pump.wheel.call_later(0.1, fired.set)
        due = pump.wheel.next_due()
        assert due is not None
        clock.now = due + 0.75
        with trio.fail_after(5):
            await fired.wait()
        assert pump.timing.lag_s == pytest.approx(0.75)
        assert pump.greatest_lag_s == pytest.approx(0.75)

    def test_the_greatest_is_remembered_whoever_asks(self) -> None:
        """For one to two windows, however often it is asked for; then it is forgotten."""
        timing = Timing(0.0)
        timing.fired(WINDOW_S - 1, 0.5)
        timing.fired(WINDOW_S - 0.5, 0.1)
        for now in (WINDOW_S - 0.5, WINDOW_S - 0.5, WINDOW_S, 2 * WINDOW_S - 0.1):
            assert timing.greatest_lag_s(now) == 0.5
        assert timing.lag_s == 0.1
        assert timing.greatest_lag_s(2 * WINDOW_S) == 0.0

    def test_a_greater_one_in_the_next_window(self) -> None:
        """Both windows count."""
        timing = Timing(0.0)
        timing.fired(1.0, 0.2)
        timing.fired(WINDOW_S + 1, 0.7)
        assert timing.greatest_lag_s(WINDOW_S + 2) == 0.7
        assert timing.greatest_lag_s(2 * WINDOW_S + 2) == 0.7
        assert timing.greatest_lag_s(3 * WINDOW_S + 2) == 0.0

    def test_long_silence(self) -> None:
        """What happened windows ago is not taken for the last one's."""
        timing = Timing(0.0)
        timing.fired(1.0, 0.2)
        assert timing.greatest_lag_s(7.5 * WINDOW_S) == 0.0


class TestNames:
    async def test_an_endpoint_that_fails_is_named(self, pump: Pump) -> None:
        """By what the session is called: the log of a failure leads to the others of that session."""

        def fail(_recorder: Recorder, *_: object) -> None:
            raise ZeroDivisionError

        endpoint = Recorder(text=fail, close=fail)
        endpoint.name = "n1.5f"  # type: ignore[attr-defined] # as sessions and links have one
        listener = pump.listen("127.0.0.1:0", door_to(endpoint))
        wire = await Wire.upgraded(listener.address)
        with capture_logs() as logs:
            await wire.text(b"hello")
            assert await wire.closed_with() == (1011, "internal error")
            await endpoint.hears_at_last("close")
        assert [(log["event"], log["endpoint"]) for log in logs] == [
            ("an endpoint failed; its connection is closed", "n1.5f"),
            ("an endpoint failed at its end", "n1.5f"),
        ]
