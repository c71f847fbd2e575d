"""How a node parts from its clients: they are asked to connect elsewhere, and told when.

A client is asked when it is to go, and served until then: so it is without a node for a moment only, however
many there are before it.
"""

from collections.abc import Callable, Mapping
from random import randrange

import trio

from ring.router.attachments import Session

SETTLE_S = 1.0
"""How long a draining node lets a client's messages get their receipts before it asks the client to go."""

ISOLATED_MS = 1000
"""The clients of a node that is cut off come back elsewhere within this time, not all in one moment."""

JITTER_MS = 100
"""Those who are asked in one moment come within this time."""

IN_TIME = 0.9
"""The part of the time until the deadline in which all are asked; the rest is for their goodbyes."""

LOOK_EVERY_S = 0.02
"""How often a draining node looks whom to ask."""


async def drain(sessions: Mapping[int, Session], per_s: Callable[[], float]) -> None:
    """Sends clients away one after the other, as their messages get their receipts; returns when all have
    gone.

    Args:
        sessions: of this node; they go as their connections end.
        per_s: how many are to come to other nodes per second; asked again and again. Faster than that, if
            they would not all be gone by the deadline of the caller.
    """
    began = trio.current_time()
    within_s = IN_TIME * (trio.current_effective_deadline() - began)
    asked: set[int] = set()
    due = 0.0
    while sessions:
        passed_s = trio.current_time() - began
        left = [session for sid, session in tuple(sessions.items()) if sid not in asked]
        looks_left = max((within_s - passed_s) / LOOK_EVERY_S, 1.0)
        due = min(due + max(per_s() * LOOK_EVERY_S, len(left) / looks_left), len(left))
        for session in left:
            if due < 1.0:
                break
            if passed_s >= SETTLE_S or session.settled:
                due -= 1.0
                asked.add(session.sid)
                _send_away(session, JITTER_MS, "the node drains")
        await trio.sleep(LOOK_EVERY_S)


def cut_off(sessions: Mapping[int, Session]) -> None:
    """Sends all clients away: nothing that they send would arrive."""
    for session in tuple(sessions.values()):
        _send_away(session, ISOLATED_MS, "the node is cut off")


def _send_away(session: Session, spread_ms: int, why: str) -> None:
    session.reconnect(randrange(spread_ms + 1), why)  # noqa: S311 - nobody gains by guessing it
