"""Which mailboxes a node has: made when they are needed, numbered, closed and given away as slots come and
go.

The base of `owner.Mailboxes`, which says what happens in them.
"""

from collections.abc import Callable, Collection, Iterable
from time import monotonic

from ring.mailbox.cursors import Traces, go_on, interrupt, traces
from ring.mailbox.mailbox import Mailbox
from ring.protocol.names import slot_of

TRACES = 100_000
"""Forgotten mailboxes of which is remembered where they ended, at some 400 bytes each: a user who comes back
to one of these resumes without a gap, however long it was."""


class Shelf:
    """Mailboxes by user, and what the ring says of their slots.

    Args:
        linger_s: how long a user whose last session broke, or whose slot moved, is waited for.
        window_bytes: of letters on their way to one session without an acknowledgement.
    """

    def __init__(self, *, linger_s: float, window_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        self.boxes: dict[str, Mailbox] = {}
        self.epoch = 0  # of the ring: what is numbered from now on comes after all of earlier epochs
        self.lost_at: dict[int, int] = {}
        """Slot -> the last epoch at which this node owned it, until it is handed over, or served again:
        mailboxes that are made meanwhile number by it, since other owners number by theirs."""
        self.closed: set[int] = set()
        """Slots for which letters may still be handed over, and that are not served."""
        self._linger_s = linger_s
        self._window_bytes = window_bytes
        self._clock = clock
        self._moved_until: dict[int, float] = {}
        self._number = 0  # no mailbox that was forgotten went beyond it: no number of an epoch is given twice
        self._traces: dict[str, Traces] = {}  # of users without a mailbox, the oldest first
        self._since: dict[int, int] = {}  # slot -> the epoch before which another node may have owned it

    def open(self, user: str) -> Mailbox:
        """The user's mailbox, made if need be."""
        return self.boxes.get(user) or self._make(user)

    def _make(self, user: str) -> Mailbox:
        before = self._traces.pop(user, None)
        if not (before or self._moved_until or self.lost_at or self.closed):
            box = self.boxes[user] = Mailbox(user, self.epoch, self._number, self._window_bytes)
            return box
        slot = slot_of(user)
        box = self.boxes[user] = Mailbox(
            user, self.lost_at.get(slot, self.epoch), self._number, self._window_bytes
        )
        box.waited_until = self._moved_until.get(slot, 0.0)
        box.closed = slot in self.closed
        if before is not None and before[1][0] >= self._since.get(slot, 0):
            go_on(box, before)
        return box

    def forget(self, box: Mailbox) -> None:
        """Takes a mailbox off the shelf."""
        if box.timer is not None:
            box.timer.cancel()
            box.timer = None
        self._number = max(self._number, box.number)
        if self.boxes.get(box.user) is box:
            del self.boxes[box.user]
        left = traces(box)
        if left is None or box.letters:
            return
        slot = slot_of(box.user)
        if slot in self.closed or slot in self.lost_at:
            return  # other nodes number for this user too
        self._traces[box.user] = left
        if len(self._traces) > TRACES:
            del self._traces[next(iter(self._traces))]

    # --- slots

    def moved(self, epoch: int, closed: set[int], lost: Iterable[int]) -> None:
        """At `epoch` slots change owner: their users are waited for, since their sessions move too.

        `closed` are those for which other owners may still hand over letters, until `reopen` or
        `handed_over`. `lost` are those whose present tenure ends here.
        """
        now = self._clock()
        until = now + self._linger_s
        self._moved_until = {slot: at for slot, at in self._moved_until.items() if at > now}
        self._moved_until.update(dict.fromkeys(closed, until))
        for slot in lost:
            self._moved_until[slot] = until
            self.lost_at.setdefault(slot, self.epoch)
        self.epoch = epoch
        self.closed.update(closed)
        self._since.update(dict.fromkeys(closed, epoch))
        for box in self.boxes.values() if closed else ():
            if slot_of(box.user) in closed:
                box.closed = True
                interrupt(box, epoch)

    def adopt(self, slot: int, epoch: int) -> None:
        """Messages come for a slot that this node owned at `epoch` without knowing; to be handed over."""
        self.lost_at[slot] = epoch
        self.closed.add(slot)
        self._since[slot] = self.epoch
        self._moved_until[slot] = self._clock() + self._linger_s

    def reopen(self, slots: Collection[int]) -> list[Mailbox]:
        """Opens the mailboxes of these slots: what comes now is numbered behind all that was handed over."""
        self.closed.difference_update(slots)
        for slot in slots:
            self.lost_at.pop(slot, None)
        opened = [box for box in self.boxes.values() if box.closed and slot_of(box.user) not in self.closed]
        for box in opened:
            box.closed = False
            box.epoch = self.epoch
        return opened

    def handed_over(self, slots: Collection[int]) -> None:
        """These slots are gone."""
        self.closed.difference_update(slots)
        for slot in slots:
            self.lost_at.pop(slot, None)
