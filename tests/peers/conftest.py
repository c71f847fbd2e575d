"""Fixtures of the tests of peer links."""

import pytest
import trio

from tests.peers.fakes import FakeHome
from tests.peers.nodes import Node, start


@pytest.fixture
def home() -> FakeHome:
    """A node's half without a pump."""
    return FakeHome()


@pytest.fixture
async def pair(nursery: trio.Nursery) -> tuple[Node, Node]:
    """Two nodes that run and know of nobody."""
    return await start(nursery, Node("n1"), Node("n2"))
