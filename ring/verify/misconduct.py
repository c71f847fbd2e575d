"""Faults of the crowd: clients that read slowly, not at all, or acknowledge nothing, for a while.

The cluster is whole meanwhile: nobody else may notice, and order must hold.
"""

from dataclasses import dataclass
from random import Random

import trio

from ring.verify.crowd import Crowd
from ring.verify.effect import Effect, FaultFailed
from ring.verify.raw import Manners

SHARE = 0.15
"""Of the raw clients that behave so."""

HOLD_S = 7.0
"""For so long: more than it takes until what they do not acknowledge is stored (2 s), and less than a node
waits for a sign of life of them (two heartbeats of 5 s)."""


@dataclass(frozen=True, slots=True)
class Misconduct:
    """One way in which clients misbehave; the attributes are those of `Fault`."""

    name: str
    text: str
    manners: Manners
    planned: bool = True
    forgets: bool = False
    holds: bool = False
    longest_s: float = HOLD_S + 1.0

    async def run(self, crowd: Crowd, random: Random) -> Effect:
        """Has some clients behave so, and then well again.

        Raises:
            FaultFailed: nobody sent them anything, so nobody could notice.
        """
        began = trio.current_time()
        before = crowd.sent
        chosen = crowd.misbehave(self.manners, SHARE, random)
        try:
            await trio.sleep(HOLD_S)
        finally:
            crowd.recover(chosen)
        users = {device.user for device in chosen}
        meanwhile = sum(crowd.sent[user] - before[user] for user in users)
        if not meanwhile:
            raise FaultFailed(f"{self.name}: nobody sent these clients anything")
        return Effect((), f"{len(chosen)} clients, to whom {meanwhile} were sent", began, trio.current_time())


MISCONDUCTS: dict[str, Misconduct] = {
    row.name: row
    for row in (
        Misconduct(
            "slow-clients", f"some clients read some bytes in a tenth of a second, for {HOLD_S:g} s", "slow"
        ),
        Misconduct("deaf-clients", f"some clients do not read for {HOLD_S:g} s", "deaf"),
        Misconduct("mute-clients", f"some clients read, and acknowledge nothing for {HOLD_S:g} s", "mute"),
    )
}
"""All of them, by name."""
