"""What a fault reports, and what the faults have in common: whom they hit, how they see and hold it."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import trio

from ring.verify.node import Report, SiteFailed
from ring.verify.site import Site
from ring.verify.standing import POLL_S

MARGIN_S = 5.0
"""For what is to be seen, on a machine that is busy with other things."""

START_S = 20.0
"""How long a node may take to start."""

Condition = Callable[[Report], bool]


class FaultFailed(SiteFailed):
    """A fault was not in effect, or what it broke did not come back: nothing is proven."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault did.

    Attributes:
        victims: the nodes that it hit; none if it hit Redis, or HAProxy.
        detail: one line on what was seen of it.
        began, healed: by Trio's clock. Between the two it was in effect; what follows may last longer.
    """

    victims: tuple[str, ...]
    detail: str
    began: float
    healed: float


def victims(site: Site, random: Random, count: int = 1) -> list[str]:
    """So many of the nodes that serve, in any order.

    Raises:
        FaultFailed: nobody would be left to see it.
    """
    serving = site.serving()
    if len(serving) < max(2, count):
        raise FaultFailed(
            f"it takes {max(2, count)} nodes that serve; there are {', '.join(serving) or 'none'}"
        )
    return random.sample(serving, count)


def others(site: Site, *names: str) -> list[str]:
    """The nodes that serve beside these."""
    return [name for name in site.serving() if name not in names]


def without(name: str) -> Condition:
    """Knows a ring in which this node is not."""
    return lambda report: name not in report.members


def lacks_redis(report: Report) -> bool:
    """Does without Redis."""
    return "redis" in report.degraded


async def until_true(what: str, condition: Callable[[], bool], within_s: float) -> float:
    """Returns once it holds: after how many seconds.

    Raises:
        FaultFailed: it has not come about in time.
    """
    began = trio.current_time()
    while not condition():
        if trio.current_time() - began > within_s:
            raise FaultFailed(f"not {what} within {within_s:g} s")
        await trio.sleep(POLL_S)  # the gates' counts and the state of a process tell no event
    return trio.current_time() - began


async def hold(site: Site, for_s: float, what: str, condition: Condition, names: list[str]) -> None:
    """Lets so many seconds pass, at whose end the condition must hold on these nodes.

    Raises:
        SiteFailed: it does not.
    """
    await trio.sleep(for_s)
    await site.stays(what, condition, 0.0, names)


async def epoch(site: Site) -> int:
    """The highest that a node routes by."""
    return max((report.epoch for report in (await site.reports()).values() if report is not None), default=0)
