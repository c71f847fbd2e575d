"""How a node parts from its clients: they are asked to connect elsewhere, and told when.

A client is asked when it is to go, and served until then: so it is without a node for a moment only, however
many there are before it.
"""

from collections.abc import Callable, Mapping
from random import randrange

import trio

from ring.cluster.view import RingView
from ring.router.attachments import Session

NOTICE_S = 1.25
"""How long a draining node serves as before. In this time a balancer learns of it, by `ring haproxy sync`
(half a second) or by `/readyz` (HAProxy asks each second, and again after 0.2 s), and then does not send here
again whoever is asked to go."""

NOTICE_PART = 0.25
"""Of the time that is left, where that is short."""

SETTLE_S = 1.0
"""How long a draining node lets a client's messages get their receipts before it asks the client to go."""

ISOLATED_MS = 1000
"""The clients of a node that is cut off come back elsewhere within this time, not all in one moment."""

IN_BUDGET = 0.9
"""The part of the budget that is used: some clients take longer than others to come to their next node, and
in no second may more of them come there than the budget says."""

IN_TIME = 0.9
"""The part of the time until the deadline in which all are asked; the rest is for their goodbyes."""

LOOK_EVERY_S = 0.02
"""How often a draining node looks whom to ask."""


async def notice(sessions: Mapping[int, Session]) -> None:
    """Returns when the clients of a draining node may be asked to go: at once if there are none, and sooner
    if the caller's deadline is near."""
    if sessions:
        left_s = trio.current_effective_deadline() - trio.current_time()
        await trio.sleep(min(NOTICE_S, NOTICE_PART * max(left_s, 0.0)))


async def drain(sessions: Mapping[int, Session], per_s: Callable[[], float]) -> None:
    """Sends clients away one after the other, as their messages get their receipts; returns when all have
    gone.

    Each has a moment of its own, and the moments are at equal distances: what was not used is not made up
    for.

    Args:
        sessions: of this node; they go as their connections end.
        per_s: how many may come to other nodes per second; asked again and again. Faster than that, if they
            would not all be gone by the deadline of the caller.
    """
    began = trio.current_time()
    all_by = began + IN_TIME * (trio.current_effective_deadline() - began)
    settled_by = min(began + SETTLE_S, (began + all_by) / 2)
    asked: set[int] = set()
    free_at = looked_at = began
    while sessions:
        now = trio.current_time()
        until = now + max(LOOK_EVERY_S, now - looked_at)  # the next look may be as late as this one
        looked_at = now
        left = [session for sid, session in tuple(sessions.items()) if sid not in asked]
        pace = max(IN_BUDGET * per_s(), len(left) / max(all_by - now, LOOK_EVERY_S))
        for session in left:
            at = max(free_at, now)
            if at >= until:
                break
            if session.settled or now >= settled_by:
                free_at = at + 1 / pace
                asked.add(session.sid)
                session.reconnect(round(1000 * (at - now)), "the node drains")
        await trio.sleep(LOOK_EVERY_S)


def part_of(budget: float, view: RingView | None) -> float:
    """A node's part of what all that drain may do."""
    members = () if view is None else view.members
    return budget / max(sum(member.state == "draining" for member in members), 1)


def cut_off(sessions: Mapping[int, Session]) -> None:
    """Sends all clients away: nothing that they send would arrive."""
    for session in tuple(sessions.values()):
        session.reconnect(randrange(ISOLATED_MS + 1), "the node is cut off")  # noqa: S311 - nobody gains by guessing it
