import pytest
import trio
from trio.testing import MockClock

from tests.client.fake_node import FakeNode
from tests.client.room_desk import Desk


@pytest.fixture
async def node(nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    """A fake node that is reached in memory, by a clock that skips the time in which nobody does anything."""
    # pytest-trio takes the clock from what the test itself asks for.
    assert trio.lowlevel.current_clock() is autojump_clock, "the test must ask for autojump_clock too"
    fake = FakeNode(nursery)
    monkeypatch.setattr("ring.client.connection.dial", fake.dial)
    return fake


@pytest.fixture
async def loopback_node(nursery: trio.Nursery) -> FakeNode:
    """A fake node on loopback."""
    fake = FakeNode(nursery)
    await fake.listen()
    return fake


@pytest.fixture
def desk() -> Desk:
    """The rooms of a client that is in none."""
    return Desk()
