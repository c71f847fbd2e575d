"""Messages that a gateway holds for its clients until their owner has said what became of them.

The gateway sends a message again whenever the owner, or the link to it, changed before the receipt came. So a
node that is killed at any moment loses nothing whose sender is still there. Called by the router, in the
tick.
"""

from collections.abc import Callable, Iterator
from time import monotonic, time_ns
from typing import Protocol

from msgspec import Struct

from ring.mailbox.letter import By, Status
from ring.protocol.codes import ErrorCode
from ring.protocol.peer import Send

RETRY_S = 4.0
"""A message without an answer for this long is sent again, once: longer than an owner waits for an
acknowledgement (`linger` and `spill_after`), and early enough for an answer within `send_timeout`."""

UNANSWERED = "the owner of the recipient did not answer in time"


class Sender(Protocol):
    """A client session, as its pending messages need it."""

    refs: dict[str, int]

    def receipt(
        self, message_id: str, status: Status, by: By | None, code: ErrorCode | None, message: str | None
    ) -> None:
        """Tells the client what became of its message."""


class Held(Struct):
    """A message without a receipt. `owner` is the node it was last sent to, None while there is no way to
    any."""

    session: Sender
    send: Send
    at: float
    owner: str | None
    retried: bool = False


class Pending:
    """The messages of this gateway's clients that have no receipt yet, in the order of their sending.

    References start at the time of day, so those of an earlier life of this node can't be taken for this
    one's.
    """

    def __init__(self, *, send_timeout_s: float = 10.0, clock: Callable[[], float] = monotonic) -> None:
        self._held: dict[int, Held] = {}
        self._next = time_ns() // 1000
        self._send_timeout_s = send_timeout_s
        self._patience_s = min(RETRY_S, send_timeout_s)
        self._clock = clock

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held.values()))

    def add(self, session: Sender, send: Send) -> Held:
        """Holds a message; gives it the reference under which its owner answers."""
        self._next = ref = self._next + 1
        send.ref = ref
        assert send.id is not None
        session.refs[send.id] = ref
        held = self._held[ref] = Held(session, send, self._clock(), None)
        return held

    def get(self, ref: int) -> Held | None:
        """The message of this reference, if it still waits."""
        return self._held.get(ref)

    def settle(
        self, ref: int, status: Status, by: By | None, code: ErrorCode | None, message: str | None
    ) -> None:
        """Tells the client its message's fate. A second answer to the same message finds nothing and is
        ignored."""
        held = self._held.pop(ref, None)
        if held is None:
            return
        message_id = held.send.id
        assert message_id is not None
        held.session.refs.pop(message_id, None)
        held.session.receipt(message_id, status, by, code, message)

    def drop(self, session: Sender) -> None:
        """The session is gone, and whoever is behind it sends again what has no receipt."""
        for ref in session.refs.values():
            self._held.pop(ref, None)
        session.refs = {}

    def overdue(self) -> list[Held]:
        """Gives up what has waited for `send_timeout`; returns what should be tried once more."""
        now = self._clock()
        again, late = [], []
        for ref, held in self._held.items():
            age = now - held.at
            if age < self._patience_s:
                break  # in the order of their sending: all others are younger
            if age >= self._send_timeout_s:
                late.append(ref)
            elif not held.retried:
                held.retried = True
                again.append(held)
        for ref in late:
            self.settle(ref, "failed", None, ErrorCode.OWNER_UNAVAILABLE, UNANSWERED)
        return again
