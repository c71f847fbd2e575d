"""Fixtures of the tests of membership."""

from collections.abc import AsyncIterator

import pytest
import trio

from tests.cluster.seats import Cluster, Ring, connected


@pytest.fixture
async def cluster(redis_url: str) -> AsyncIterator[Cluster]:
    """Starts nodes, which end with the test."""
    async with trio.open_nursery() as nursery:
        yield Cluster(redis_url, nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def ring(redis_url: str) -> AsyncIterator[Ring]:
    """The scripts of a cluster of its own, at a time that the test sets."""
    async with connected(redis_url) as redis:
        yield Ring(redis)
