"""What a node may do while its lease has lapsed: go on, wait, be a gateway alone, or send its clients away.

Pure. Redis may be away for everybody, and then nobody can take a slot: the ring is *frozen*, and its nodes go
on. Or this node alone cannot reach it, and then others take its slots while it would still serve them. Its
peers can tell which it is: `router.lease_watch` asks them, and `node` does what is judged here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Standing = Literal["held", "frozen", "unsure", "superseded", "isolated"]
"""held: the lease is fresh. frozen: it has lapsed, and nobody does better: go on. unsure: it has lapsed, and
nobody has said yet. superseded: others still renew: they take this node's slots, or have done so. isolated:
no peer can be reached either."""

OWNING: frozenset[Standing] = frozenset({"held", "frozen"})
"""Standings in which a node serves the slots that its view gives it."""

Outcome = Literal["up", "mute", "refused", "timeout", "refused_by_peer"]
"""How a peer can be reached: linked; linked, but of a release that cannot be asked; or why it is unlinked."""

ASK_AT = 0.9
"""The peers are asked at this age of the lease, in ttls: their answers are there before it lapses."""

ASK_EVERY = 0.1
"""And again after this time, in ttls, until it has been renewed."""

LATER = 0.5
"""A peer that has renewed so many ttls later than this node shows that Redis was there. Who renews three
times a ttl is a third behind when Redis goes away for all."""

RUN = 0.5
"""And it has to have gone on for so many ttls: who renews first after an outage is no reason to stop, since
Redis gives everybody time then (`sweep` in prelude.lua)."""

WORD = 0.5
"""An answer is good for so many ttls."""

SILENT_S = 1.5
"""A linked peer that has not answered for so long cannot be reached."""


@dataclass(frozen=True, slots=True)
class _Word:
    at: float
    later_s: float  # than this node's last renewal
    run_s: float


class Tenure:
    """Judges by the lease's age and by what the peers say.

    All times are in seconds by one clock that goes on while the machine sleeps.

    Args:
        ttl_s: how long a lease lasts.
    """

    def __init__(self, ttl_s: float) -> None:
        self.standing: Standing = "held"
        self._ttl_s = ttl_s
        self._words: dict[str, _Word] = {}
        self._asked: dict[str, float] = {}  # since when a peer owes an answer

    def asked(self, peer: str, now: float) -> None:
        """This peer was asked."""
        self._asked.setdefault(peer, now)

    def forgive(self, peer: str) -> None:
        """This peer owes no answer any more."""
        self._asked.pop(peer, None)

    def answered(self, peer: str, renewed_at: float, run_s: float, mine: float, now: float) -> None:
        """A peer says that it renewed last at `renewed_at`, after a run without lapses of `run_s`.

        `mine` is when this node renewed last.
        """
        self.forgive(peer)
        self._words[peer] = _Word(now, renewed_at - mine, run_s)

    def judge(
        self, now: float, renewed_at: float, peers: Mapping[str, Outcome | None], *, behind: bool
    ) -> Standing:
        """What this node may do.

        Args:
            now: the time.
            renewed_at: when this node renewed last.
            peers: the other members, and how each can be reached; None while that is not known.
            behind: True if a peer routes by a later ring, linked or not.
        """
        if now - renewed_at < self._ttl_s:
            self._words.clear()
            self._asked.clear()
            self.standing = "held"
        elif behind:
            self.standing = "superseded"
        else:
            self.standing = self._judge_lapsed(now, peers)
        return self.standing

    def _judge_lapsed(self, now: float, peers: Mapping[str, Outcome | None]) -> Standing:
        ttl_s = self._ttl_s
        words = [
            word for peer, word in self._words.items() if peer in peers and now - word.at <= WORD * ttl_s
        ]
        if any(word.later_s > LATER * ttl_s and word.run_s >= RUN * ttl_s for word in words):
            return "superseded"
        if words or "mute" in peers.values():
            return "frozen"
        unknown = timed_out = False
        for peer, outcome in peers.items():
            silent = outcome == "up" and now - self._asked.get(peer, now) >= SILENT_S
            if silent or outcome == "timeout":
                timed_out = True
            elif outcome == "up" or outcome is None:
                unknown = True
        if unknown:
            # Who is cut off dials again and again, and must not take heart at each dial.
            return "isolated" if self.standing == "isolated" else "unsure"
        # Refused means dead. Where none answers and some may live, it is this node that is cut off.
        return "isolated" if timed_out else "frozen"
