"""The rows of the table: one for each time between two faults, counting what was sent in it. Pure."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(slots=True)
class Row:
    """Counts of the messages that were sent while this went on, whenever something became of them.

    Attributes:
        name: of the fault; "calm" before the first and after the last.
        doubled: copies beyond the first at a device.
        unmarked: those of them that did not say `redelivered`, though an earlier one did not either.
        doubled_to_application: messages that a library client handed out twice.
        reordered: first copies that came behind one of a higher number; a crash may do that.
        forgotten: `queued` in a Redis that was emptied or rolled back, and not seen again.
        served_s: from the beginning of the fault until a recipient whose owner was hit got something new.
        silence_s: the longest time in which none of those recipients got anything.
    """

    name: str
    began: float
    detail: str = ""
    victims: tuple[str, ...] = ()
    sent: int = 0
    delivered: int = 0
    queued: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    abandoned: int = 0
    lost: int = 0
    forgotten: int = 0
    doubled: int = 0
    unmarked: int = 0
    doubled_to_application: int = 0
    reordered: int = 0
    served_s: float | None = None
    silence_s: float | None = None
    breaches: int = 0

    def document(self, origin: float) -> dict[str, Any]:
        """As JSON tells it; times from `origin` on."""
        return {
            "fault": self.name,
            "at_s": round(self.began - origin, 3),
            "detail": self.detail,
            "victims": list(self.victims),
            "sent": self.sent,
            "delivered": self.delivered,
            "queued": self.queued,
            "failed": dict(self.failed),
            "abandoned": self.abandoned,
            "lost": self.lost,
            "forgotten": self.forgotten,
            "doubled_raw": self.doubled,
            "doubled_raw_unmarked": self.unmarked,
            "doubled_to_application": self.doubled_to_application,
            "reordered": self.reordered,
            "served_again_s": None if self.served_s is None else round(self.served_s, 3),
            "longest_silence_s": None if self.silence_s is None else round(self.silence_s, 3),
            "breaches": self.breaches,
        }


class Heard(NamedTuple):
    """Something came to a user for the first time."""

    at: float
    user: str
    sent_at: float


def silences(
    heard: Sequence[Heard], users: Collection[str], began: float, until: float
) -> tuple[float | None, float | None]:
    """How long until one of `users` got what was sent after `began`, and how long all of them got nothing.

    None: there is no such thing.
    """
    if not users:
        return None, None
    served = math.inf
    longest, last = 0.0, began
    for at, user, sent_at in heard:
        if at < began or at > until or user not in users:
            continue
        longest, last = max(longest, at - last), at
        if sent_at >= began:
            served = min(served, at - began)
    longest = max(longest, until - last)
    return None if served == math.inf else served, longest
