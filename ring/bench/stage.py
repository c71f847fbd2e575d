"""What all loads share: where users connect, what they send, and what is told while it runs."""

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from time import monotonic

from ring.bench.clients import Dialect
from ring.bench.edge import Edge
from ring.bench.meter import Meter
from ring.protocol.names import slot_of

TELL_S = 0.2
"""How often a load says how far it is."""

LOST_S = 5.0
"""A message that is not there by then is lost."""

LOST_WITH_RECEIPT_S = 15.0
"""The same where each has a receipt: a node may take 10 s (`send_timeout_s`) to say that it failed."""

QUIET_S = 0.25
"""When all messages are there, so long nothing more may come: a double may be behind one."""

MIN_BYTES = 24
"""Of a message: mark, number."""

_NUMBER_DIGITS = 12

Placement = Callable[[str], Edge]
"""Where a user connects."""

Progress = Callable[[str, float], None]
"""Told what is being done, and how much of it is (0 to 1)."""


def in_turn(edges: Sequence[Edge]) -> Placement:
    """Each user at the next edge: evenly, and whoever owns the user."""
    turn = count()
    return lambda _user: edges[next(turn) % len(edges)]


def on_owner(edges: Mapping[str, Edge], owners: Sequence[str]) -> Placement:
    """Each user at its owner.

    Args:
        edges: by node.
        owners: the node that owns each slot.
    """
    return lambda user: edges[owners[slot_of(user)]]


@dataclass(frozen=True)
class Stage:
    """What a load is played on.

    Attributes:
        dialect: what clients speak.
        place: where users connect.
        meter: reads what the servers use.
        progress: told how far it is.
        redis: where the cluster keeps what it stores; empty if nobody says.
        cluster: its name there.
    """

    dialect: Dialect
    place: Placement
    meter: Meter
    progress: Progress = lambda _what, _share: None
    redis: str = ""
    cluster: str = ""


class Texts:
    """Makes and reads what clients send: a mark of this run, a number, and filling up to the size.

    Args:
        size: bytes of each; at least `MIN_BYTES`.
        token: tells the run from all others; a new one if left out.
    """

    def __init__(self, size: int, token: str = "") -> None:
        self.token = token or secrets.token_hex(4)
        self._mark = f"b{self.token}."
        self._filling = "x" * (size - len(self._mark) - _NUMBER_DIGITS)
        self._from, self._to = len(self._mark), len(self._mark) + _NUMBER_DIGITS

    def make(self, number: int) -> str:
        """The text of a message."""
        return f"{self._mark}{number:0{_NUMBER_DIGITS}}{self._filling}"

    def number(self, text: str) -> int:
        """The number in a text; -1 if it is not exactly what was sent."""
        number = text[self._from : self._to]
        if text.startswith(self._mark) and text[self._to :] == self._filling and number.isdecimal():
            return int(number)
        return -1

    def user(self, index: int) -> str:
        """The name of a user: no other run has it."""
        return f"bench-{self.token}-{index}"


class Teller:
    """Passes progress on, but not too often."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._next = 0.0

    def tell(self, what: str, share: float) -> None:
        """How far it is."""
        now = monotonic()
        if now >= self._next:
            self._next = now + TELL_S
            self._progress(what, min(share, 1.0))


def dice(seed: int) -> random.Random:
    """Whom senders write to: the same in every run, so that all servers get the same work."""
    return random.Random(seed)  # noqa: S311 - nothing secret is drawn
