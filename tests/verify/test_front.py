"""HAProxy in front of a site: what proves nothing is said."""

from collections.abc import AsyncIterator
from random import Random

import pytest
import trio

from ring.protocol.codes import RingError
from ring.verify.effect import FaultFailed
from ring.verify.faults import faults
from ring.verify.front import Front, in_front_of
from ring.verify.node import SiteFailed
from ring.verify.site import Site

DEADLINE_S = 60
FAULTS = faults(haproxy=True)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """One node."""
    with trio.fail_after(DEADLINE_S):
        async with Site(nodes=1) as site:
            yield site


@pytest.fixture
async def front(site: Site) -> AsyncIterator[Front]:
    """In front of it."""
    async with in_front_of(site) as front:
        yield front


async def test_nobody_is_connected(site: Site, front: Front) -> None:
    """Then nobody can notice that it is restarted."""
    assert site.front is front
    with pytest.raises(FaultFailed, match="haproxy-restart: nobody was connected through HAProxy"):
        await FAULTS["haproxy-restart"].run(site, Random(1))


async def test_there_is_none(site: Site) -> None:
    """Nor can it then be restarted."""
    with pytest.raises(FaultFailed, match="there is no HAProxy in front"):
        await FAULTS["haproxy-empty-restart"].run(site, Random(1))


async def test_it_does_not_come_back(site: Site, front: Front) -> None:
    """That ends the fault, and not the whole run."""

    async def fails(*, empty: bool) -> None:
        raise RingError("it does not start")

    async def one() -> int:
        return 1

    front.start, front.connections = fails, one  # type: ignore[method-assign] # for this test
    with pytest.raises(FaultFailed, match="haproxy-restart: HAProxy: it does not start"):
        await FAULTS["haproxy-restart"].run(site, Random(1))


async def test_it_does_not_get_the_ring(front: Front) -> None:
    """It is away: that is no agreement."""
    await front.stop()
    with pytest.raises(SiteFailed, match=r"HAProxy has not got the ring within 0\.5 s"):
        await front.agrees(0.5)
    await front.start(empty=True)
    assert await front.agrees(DEADLINE_S) < DEADLINE_S
