"""The accounts of messages that are stored for users who are not there. Pure: no socket, no clock.

Each message has a number and a mailbox. It is due, once and in the order in which it was sent, from when its
receipt says `queued`: then somebody holds it for a user who is not there. Any other receipt is an error.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from ring.bench.ledger import Tally

QUEUED = "queued"
"""What the receipt of a stored message says."""


class _State(IntEnum):
    NEW = 0  # not sent
    OPEN = 1  # no receipt
    QUEUED = 2  # due
    REFUSED = 3  # the receipt says something else: not due, but it may come
    UNANSWERED = 4  # given up, with no receipt: the same
    ARRIVED = 5


@dataclass(frozen=True, slots=True)
class Shelf:
    """Mailboxes that are filled alike, in rounds: the first message of each, then the second.

    Attributes:
        first_user: the index of the first mailbox's user.
        mailboxes: how many.
        messages: of each.
        first: the number of the first message.
    """

    first_user: int
    mailboxes: int
    messages: int
    first: int

    @property
    def users(self) -> range:
        """The indexes of its users."""
        return range(self.first_user, self.first_user + self.mailboxes)

    @property
    def end(self) -> int:
        """The number after its last message."""
        return self.first + self.mailboxes * self.messages

    def numbers(self, part: int, parts: int) -> range | list[int]:
        """The messages of one of several senders, in order: all of a mailbox have the same sender."""
        if self.messages == 1:
            return range(self.first + part, self.end, parts)
        return [
            self.first + nth * self.mailboxes + mailbox
            for nth in range(self.messages)
            for mailbox in range(part, self.mailboxes, parts)
        ]

    def part(self, number: int, parts: int) -> int:
        """Which of several senders sends it."""
        return (number - self.first) % self.mailboxes % parts

    def user(self, number: int) -> int:
        """Whose message it is."""
        return self.first_user + (number - self.first) % self.mailboxes


class StoredLedger:
    """All shelves of a run.

    Attributes:
        tally: the counts; `sent` and `lost` as of `close`.
        stored: how many messages have a receipt that says `queued`.
        receipt_ns: from when each of these was sent until its receipt was there.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self.stored = 0
        self.receipt_ns = array("q")
        self._shelves: list[Shelf] = []
        self._states = bytearray()  # by number
        self._open: dict[int, int] = {}  # number -> sent at
        # By user:
        self._closed = bytearray()
        self._due = array("l")
        self._kept = array("l")  # how many were stored
        self._newest = array("q")  # that has arrived

    @property
    def open(self) -> int:
        """How many messages a receipt is due for."""
        return len(self._open)

    @property
    def refused(self) -> int:
        """How many messages have a receipt that says something else."""
        return self._states.count(_State.REFUSED)

    def add(self, mailboxes: int, messages: int) -> Shelf:
        """Mailboxes of users who have none."""
        shelf = Shelf(len(self._due), mailboxes, messages, len(self._states))
        self._shelves.append(shelf)
        self._states.extend(bytes(mailboxes * messages))
        self._closed.extend(bytes(mailboxes))
        for by_user, start in ((self._due, 0), (self._kept, 0), (self._newest, -1)):
            by_user.extend([start] * mailboxes)
        return shelf

    def due(self, user: int) -> int:
        """How many messages the user has to get."""
        return self._due[user]

    def send(self, number: int, at_ns: int) -> None:
        """It is being sent."""
        self._states[number] = _State.OPEN
        self._open[number] = at_ns

    def answer(self, number: int, receipt: str, at_ns: int) -> bool:
        """A receipt is there: `queued`, an error's code, or "" for delivered. Says whether it was due."""
        state = self._state(number)
        if state is _State.OPEN:
            self._answer(number, receipt, at_ns - self._open.pop(number))
            return True
        if state is _State.UNANSWERED:
            self._answer(number, receipt, None)
        elif state is _State.NEW:
            self.tally.strangers += 1
        else:
            self.tally.answered_twice += 1
        return False

    def _answer(self, number: int, receipt: str, took_ns: int | None) -> None:
        if receipt != QUEUED:
            self._states[number] = _State.REFUSED
            # To say `delivered` of somebody who was never there is a promise that nobody can keep.
            self.tally.errors[receipt or "delivered_to_nobody"] += 1
            return
        self._states[number] = _State.QUEUED
        user = self._shelf(number).user(number)
        self._due[user] += 1
        self._kept[user] += 1
        self.stored += 1
        if took_ns is not None:
            self.receipt_ns.append(took_ns)

    def give_up(self, before_ns: int) -> list[int]:
        """Gives up the receipts of what was sent before then. Returns the numbers."""
        overdue = [number for number, sent_ns in self._open.items() if sent_ns < before_ns]
        for number in overdue:
            del self._open[number]
            self._states[number] = _State.UNANSWERED
        self.tally.unanswered += len(overdue)
        return overdue

    def arrive(self, number: int, user: int) -> bool:
        """A message is with a user. Says whether this one was due, and the last that was."""
        state = self._state(number)
        if state is _State.NEW:
            self.tally.strangers += 1
        elif self._shelf(number).user(number) != user:
            self.tally.misrouted += 1
        elif state is _State.ARRIVED:
            self.tally.doubled += 1
        else:
            self._states[number] = _State.ARRIVED
            if number < self._newest[user]:
                self.tally.reordered += 1
            else:
                self._newest[user] = number
            if state is not _State.QUEUED or self._closed[user]:
                self.tally.late += 1
            if state is _State.QUEUED:
                self.tally.delivered += 1
                self._due[user] -= 1
                return not self._due[user]
        return False

    def close(self, users: Iterable[int]) -> None:
        """These had their time to get everything, once: what they were due was `sent`, what they still are is
        `lost`, even if it should come when they connect another time."""
        for user in users:
            self.tally.sent += self._kept[user]
            self.tally.lost += self._due[user]
            self._closed[user] = True

    def _state(self, number: int) -> _State:
        return _State(self._states[number]) if 0 <= number < len(self._states) else _State.NEW

    def _shelf(self, number: int) -> Shelf:
        return next(shelf for shelf in self._shelves if number < shelf.end)
