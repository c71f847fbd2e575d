"""HAProxy in front of a site: what proves nothing is said."""

from collections.abc import AsyncIterator
from random import Random

import pytest
import trio

from ring.verify.effect import FaultFailed
from ring.verify.front import Front
from ring.verify.front_faults import RESTARTS
from ring.verify.node import SiteFailed
from ring.verify.site import Site

DEADLINE_S = 60


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    """In front of one node."""
    with trio.fail_after(DEADLINE_S):
        async with Site(nodes=1) as site, Front(site) as front:
            yield front


async def test_nobody_is_connected(front: Front) -> None:
    """Then nobody can notice that it is restarted."""
    with pytest.raises(FaultFailed, match="nobody was connected through HAProxy"):
        await RESTARTS["haproxy-restart"].run(front, Random(1))


async def test_it_does_not_get_the_ring(front: Front) -> None:
    """It is away: that is no agreement."""
    await front.stop()
    with pytest.raises(SiteFailed, match=r"HAProxy has not got the ring within 0\.5 s"):
        await front.agrees(0.5)
    await front.start(empty=True)
    assert await front.agrees(DEADLINE_S) < DEADLINE_S
