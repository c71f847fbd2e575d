"""The accounts of a load: what was sent, and what became of each message. Pure: no socket, no clock.

Every message has a number, and is due once, at the one it names, after those that the same sender sent there
before. What else happens is a fault, and has a name: lost, doubled, misrouted, reordered, stranger.
"""

from array import array
from collections import Counter
from dataclasses import dataclass, field

FAULTS = ("lost", "doubled", "misrouted", "reordered", "strangers", "unanswered", "answered_twice")
"""What must not happen. `strangers` are texts that were never sent, as they are; `unanswered` and
`answered_twice` are about receipts."""


@dataclass(slots=True)
class Tally:
    """What is counted, whatever the load."""

    sent: int = 0
    delivered: int = 0
    late: int = 0  # delivered, after it had been given up
    lost: int = 0
    doubled: int = 0
    misrouted: int = 0
    reordered: int = 0
    strangers: int = 0
    unanswered: int = 0
    answered_twice: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def add_faults(self, other: "Tally") -> None:
        """Takes on the faults of an earlier part of the same run; what was sent then is not counted again."""
        for name in FAULTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors.update(other.errors)


class DirectLedger:
    """Direct messages.

    Args:
        first: the number of the first message.
        receipts: whether each is to be answered by one receipt.

    Attributes:
        tally: the counts.
        one_way_ns: from when each was due to be sent until it was there.
        receipt_ns: until its receipt was.
    """

    def __init__(self, first: int, *, receipts: bool) -> None:
        self.tally = Tally()
        self.first = first
        self.next = first
        self.one_way_ns = array("q")
        self.receipt_ns = array("q")
        self._receipts = receipts
        self._undelivered: dict[int, tuple[int, int, int]] = {}  # number -> sender, recipient, sent at
        self._unanswered: dict[int, tuple[int, int, int]] = {}
        self._given_up: dict[int, tuple[int, int, int]] = {}
        self._failed: set[int] = set()  # refused, with an error: neither lost nor due
        self._last: dict[tuple[int, int], int] = {}  # (sender, recipient) -> the newest that arrived

    @property
    def open(self) -> int:
        """How many messages something is still due for."""
        return max(len(self._undelivered), len(self._unanswered))

    def send(self, sender: int, recipient: int, at_ns: int) -> int:
        """A message is being sent: its number."""
        number = self.next
        self.next = number + 1
        self.tally.sent += 1
        self._undelivered[number] = entry = (sender, recipient, at_ns)
        if self._receipts:
            self._unanswered[number] = entry
        return number

    def arrive(self, number: int, recipient: int, at_ns: int) -> int | None:
        """A message is there. Returns its sender, if that is the first time and the right place."""
        tally = self.tally
        entry = self._undelivered.get(number)
        if entry is None:
            entry = self._given_up.get(number)
            if entry is None:
                if self.first <= number < self.next:
                    tally.doubled += 1
                else:
                    tally.strangers += 1
                return None
            if entry[1] == recipient:
                del self._given_up[number]
                tally.late += 1
                if number not in self._failed:
                    tally.lost -= 1
                self._count(number, entry, at_ns)
            else:
                tally.misrouted += 1
            return None
        if entry[1] != recipient:
            tally.misrouted += 1
            return None
        del self._undelivered[number]
        self._count(number, entry, at_ns)
        return entry[0]

    def _count(self, number: int, entry: tuple[int, int, int], at_ns: int) -> None:
        self.tally.delivered += 1
        self.one_way_ns.append(at_ns - entry[2])
        pair = entry[:2]
        if self._last.get(pair, -1) > number:
            self.tally.reordered += 1
        else:
            self._last[pair] = number

    def answer(self, number: int, failure: str, at_ns: int) -> int | None:
        """A receipt is there; `failure` is its error's code, if any. Returns the sender, if it was due."""
        entry = self._unanswered.pop(number, None)
        if entry is None:
            if self.first <= number < self.next:
                self.tally.answered_twice += 1
            else:
                self.tally.strangers += 1
            return None
        if failure:
            self.tally.errors[failure] += 1
            if number in self._undelivered:
                # It may come all the same: then it is late, and no double.
                self._given_up[number] = self._undelivered.pop(number)
                self._failed.add(number)
        else:
            self.receipt_ns.append(at_ns - entry[2])
        return entry[0]

    def give_up(self, before_ns: int) -> list[int]:
        """Gives up what was sent before then. Returns the senders that wait for it no longer."""
        senders = []
        for kept in (self._undelivered, self._unanswered):
            while kept:
                number = next(iter(kept))
                entry = kept[number]
                if entry[2] >= before_ns:
                    break
                del kept[number]
                if kept is self._undelivered:
                    self.tally.lost += 1
                    self._given_up[number] = entry
                else:
                    self.tally.unanswered += 1
                if kept is self._unanswered or not self._receipts:
                    senders.append(entry[0])
        return senders


class RoomLedger:
    """Messages to all members of one room; each is due once at every member, in one order for all.

    Args:
        first: the number of the first message.
        members: their indexes.
    """

    def __init__(self, first: int, members: range) -> None:
        self.tally = Tally()
        self.first = first
        self.next = first
        self.one_way_ns = array("q")
        self._members = members
        self._due: dict[
            int, tuple[int, int, set[int]]
        ] = {}  # number -> publisher, sent at, whose copy is due
        self._given_up: dict[int, tuple[int, int, set[int]]] = {}
        self._publishers = array("q")  # of each message
        self._seen = {member: array("q") for member in members}  # what each got, in order

    @property
    def open(self) -> int:
        """How many messages copies are still due of."""
        return len(self._due)

    def publish(self, publisher: int, at_ns: int) -> int:
        """A message is being published: its number. `sent` counts the copies that are due."""
        number = self.next
        self.next = number + 1
        self.tally.sent += len(self._members)
        self._publishers.append(publisher)
        self._due[number] = (publisher, at_ns, set(self._members))
        return number

    def arrive(self, number: int, member: int, at_ns: int) -> int | None:
        """A copy is there. Returns the publisher, if it was the last one of the message."""
        tally = self.tally
        if member not in self._seen:
            tally.misrouted += 1
            return None
        late = number not in self._due
        entry = self._given_up.get(number) if late else self._due[number]
        if entry is None or member not in entry[2]:
            if self.first <= number < self.next:
                tally.doubled += 1
            else:
                tally.strangers += 1
            return None
        publisher, sent_ns, missing = entry
        missing.discard(member)
        tally.delivered += 1
        self.one_way_ns.append(at_ns - sent_ns)
        self._seen[member].append(number)
        if late:
            tally.late += 1
            tally.lost -= 1
            return None
        if missing:
            return None
        del self._due[number]
        return publisher

    def give_up(self, before_ns: int) -> list[int]:
        """Gives up the copies of what was published before then. Returns the publishers."""
        publishers = []
        while self._due:
            number = next(iter(self._due))
            entry = self._due[number]
            if entry[1] >= before_ns:
                break
            del self._due[number]
            self._given_up[number] = entry
            self.tally.lost += len(entry[2])
            publishers.append(entry[0])
        return publishers

    def compare_orders(self) -> None:
        """Counts what is `reordered`, once everything is there.

        The member that least offends against the publishers' own orders, and got most, says the order; the
        others must have got what they got in the same. What a member lost leaves no trace in that.
        """
        offences = {member: self._offences(seen) for member, seen in self._seen.items()}
        model = min(self._seen, key=lambda member: (offences[member], -len(self._seen[member])))
        self.tally.reordered += offences[model]
        place = {number: index for index, number in enumerate(self._seen[model])}
        for seen in self._seen.values():
            last = -1
            for number in seen:
                at = place.get(number, last)
                if at < last:
                    self.tally.reordered += 1
                last = max(last, at)

    def _offences(self, seen: "array[int]") -> int:
        """How often a message came after a later one of its publisher."""
        newest: dict[int, int] = {}
        count = 0
        for number in seen:
            publisher = self._publishers[number - self.first]
            if number < newest.get(publisher, -1):
                count += 1
            else:
                newest[publisher] = number
        return count
