"""A pump for each test, with little patience."""

import pytest
import trio

from ring.transport.agenda import Patience
from ring.transport.pump import Pump

IMPATIENT = Patience(close_s=0.1, linger_s=0.1, pause_s=0.05)


@pytest.fixture
async def pump(nursery: trio.Nursery) -> Pump:
    """A pump that runs; it gives up on others after 100 ms."""
    pump = Pump(patience=IMPATIENT)
    await nursery.start(pump.run)
    return pump


@pytest.fixture
async def patient_pump(nursery: trio.Nursery) -> Pump:
    """A pump that runs, with the patience that nodes have: what it ends at once was not given up."""
    pump = Pump()
    await nursery.start(pump.run)
    return pump
