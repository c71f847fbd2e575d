"""Faults of HAProxy: restarted, with its files and without. Clients lose their connections, nothing else."""

from random import Random

import trio

from ring.protocol.codes import RingError
from ring.verify.effect import MARGIN_S, Effect, FaultFailed
from ring.verify.site import Site

AWAY_S = (0.0, 2.0)
"""How long it is away."""

LONGEST_S = AWAY_S[1] + 5 * MARGIN_S
"""It has to stop, to start, and to get the ring."""


async def restart(site: Site, random: Random, *, empty: bool) -> Effect:
    """Stopped, and started again after a while; with nothing on its disk, if `empty`."""
    front = site.front
    if front is None:
        raise FaultFailed("there is no HAProxy in front")
    try:
        before, cut = await front.pid(), await front.connections()
        if not cut:
            raise FaultFailed("nobody was connected through HAProxy")
        began = trio.current_time()
        await front.stop()
        await trio.sleep(random.uniform(*AWAY_S))
        await front.start(empty=empty)
        healed = trio.current_time()
        if await front.pid() == before:
            raise FaultFailed("HAProxy is the process that it was")
    except FaultFailed:
        raise
    except RingError as error:
        raise FaultFailed(f"HAProxy: {error}") from error
    had_s = await front.agrees(2 * MARGIN_S)
    detail = f"away for {healed - began:.2f} s, {cut} connections cut; it had the ring {had_s:.2f} s later"
    return Effect((), detail, began, healed)
