"""How a node parts from its clients: they are asked to connect elsewhere, and told when."""

from collections.abc import Mapping
from random import randrange

import trio

from ring.router.attachments import Session

SETTLE_S = 1.0
"""How long a draining node lets a client's messages get their receipts before it asks the client to go."""

ISOLATED_MS = 1000
"""The clients of a node that is cut off come back elsewhere within this time, not all in one moment."""

LOOK_EVERY_S = 0.02
"""How often a draining node looks whose messages have their receipts."""


async def drain(sessions: Mapping[int, Session]) -> None:
    """Sends clients away as their messages get their receipts; returns when all have gone."""
    patience = trio.current_time() + SETTLE_S
    asked: set[int] = set()
    while sessions:
        late = trio.current_time() >= patience
        spread_ms = min(2000, 10 * len(sessions))
        for sid, session in tuple(sessions.items()):
            if sid not in asked and (late or session.settled):
                asked.add(sid)
                _send_away(session, spread_ms, "the node drains")
        await trio.sleep(LOOK_EVERY_S)


def cut_off(sessions: Mapping[int, Session]) -> None:
    """Sends all clients away: nothing that they send would arrive."""
    for session in tuple(sessions.values()):
        _send_away(session, ISOLATED_MS, "the node is cut off")


def _send_away(session: Session, spread_ms: int, why: str) -> None:
    session.reconnect(randrange(spread_ms + 1), why)  # noqa: S311 - nobody gains by guessing it
