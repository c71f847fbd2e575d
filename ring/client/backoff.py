"""What to do after a connection ended, and when: pure decisions, asked by connection.py."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ring.protocol.codes import ErrorCode, Reaction, reaction_to

Address = TypeVar("Address")

_REFUSALS: dict[int, Reaction] = {
    400: Reaction.STOP,
    401: Reaction.NEW_TOKEN,
    403: Reaction.STOP,
    426: Reaction.STOP,
    429: Reaction.RECONNECT_SLOWLY,
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection, or the attempt at one, ended.

    Attributes:
        reason: in words: the node's, where it had any.
        close_code: of the WebSocket; None if it broke or there was none.
        status: of the HTTP answer that refused it.
        code: the error code of that answer.
        redial_s: a node asked for a new connection this many seconds from now.
        retry_after_s: this node asked not to be tried again before.
        untrusted: the node's certificate is none that we trust.
        by_us: nothing was wrong.
    """

    reason: str
    close_code: int | None = None
    status: int | None = None
    code: ErrorCode | None = None
    redial_s: float | None = None
    retry_after_s: float = 0.0
    untrusted: bool = False
    by_us: bool = False

    @property
    def reaction(self) -> Reaction:
        """What the registry of close codes, or the HTTP status, says that a client does."""
        if self.status is not None:
            return _REFUSALS.get(self.status, Reaction.RECONNECT)
        return Reaction.RECONNECT if self.close_code is None else reaction_to(self.close_code)


@dataclass(frozen=True, slots=True)
class Backoff:
    """When to connect again: exponential and fully jittered, lest a node's clients all come at once.

    Attributes:
        first_s: the first try comes within this time; the bound doubles with each one that fails.
        cap_s: the bound grows no further.
        slow_s: where a node said "too many", every try waits at least this long, and the jitter beside.
        draw: a random number from 0 to 1.
    """

    first_s: float = 0.2
    cap_s: float = 10.0
    slow_s: float = 5.0
    draw: Callable[[], float] = random.random

    def delay(self, tries: int, *, slow: bool = False) -> float:
        """Seconds to wait after `tries` tries in a row that came to nothing."""
        # 2**64 times any bound is beyond any cap, and a float still holds it.
        spread = self.draw() * min(self.cap_s, self.first_s * 2.0 ** min(tries, 64))
        return self.slow_s + spread if slow else spread


class Addresses(Generic[Address]):
    """Addresses that are tried in turn; one that asked for time is passed over until then."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = list(addresses)
        self._not_before = [float("-inf")] * len(self._addresses)
        self._next = 0

    def next(self, now: float) -> tuple[Address, float]:
        """The address to try, and the time before which it wants to be left alone."""
        turn = [(self._next + step) % len(self._addresses) for step in range(len(self._addresses))]
        # The first of equals: those that may be tried now are equal, and keep their turn.
        chosen = min(turn, key=lambda index: max(now, self._not_before[index]))
        self._next = (chosen + 1) % len(self._addresses)
        return self._addresses[chosen], self._not_before[chosen]

    def defer(self, address: Address, until: float) -> None:
        """Leaves `address` alone until then, while there are others."""
        self._not_before[self._addresses.index(address)] = until
