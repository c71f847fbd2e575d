"""Faults of HAProxy: restarted, with its files and without. Clients lose their connections, nothing else."""

from dataclasses import dataclass
from random import Random

import trio

from ring.verify.effect import MARGIN_S, Effect, FaultFailed
from ring.verify.front import Front

AWAY_S = (0.0, 2.0)
"""How long it is away."""


@dataclass(frozen=True, slots=True)
class Restart:
    """One way in which HAProxy is restarted; the attributes are those of `Fault`, and:

    Attributes:
        empty: what it has on its disk is gone.
    """

    name: str
    text: str
    empty: bool
    planned: bool = False
    forgets: bool = False
    holds: bool = False
    longest_s: float = AWAY_S[1] + 3 * MARGIN_S

    async def run(self, front: Front, random: Random) -> Effect:
        """Restarts it; returns when it has the ring again.

        Raises:
            FaultFailed: nobody was connected through it, or it is the process that it was.
            SiteFailed: it does not get the ring again.
        """
        before, cut = await front.pid(), await front.connections()
        if not cut:
            raise FaultFailed(f"{self.name}: nobody was connected through HAProxy")
        began = trio.current_time()
        await front.stop()
        await trio.sleep(random.uniform(*AWAY_S))
        await front.start(empty=self.empty)
        healed = trio.current_time()
        if await front.pid() == before:
            raise FaultFailed(f"{self.name}: HAProxy is the process that it was")
        agreed_s = await front.agrees(2 * MARGIN_S)
        detail = (
            f"away for {healed - began:.2f} s, {cut} connections cut; it had the ring {agreed_s:.2f} s later"
        )
        return Effect((), detail, began, healed)


RESTARTS = {
    row.name: row
    for row in (
        Restart("haproxy-restart", "HAProxy restarted with its files", empty=False),
        Restart("haproxy-empty-restart", "HAProxy restarted with nothing on its disk", empty=True),
    )
}
