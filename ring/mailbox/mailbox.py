"""A user's mailbox at the owner: one ring buffer of letters, and a cursor per session.

Called by `mailbox.owner` alone, from the pump's tick: plain functions, no I/O. Positions are absolute: `base`
is the position of `letters[0]`, so cursors stay valid when the front is trimmed.
Not all letters need be here: Redis keeps those that nobody acknowledged in time. Where some are missing
stands the *gate*: no session gets what lies behind it before they have been read.
        settled        on their way       Redis alone has these      new
    ..........|.........................|                      |..........
              ^ first_unsettled          ^ gate                           ^ end
"""

from collections.abc import Callable
from typing import Literal

from ring.mailbox.attachment import Attachment
from ring.mailbox.letter import By, Letter
from ring.protocol.peer import Seq
from ring.transport.wheel import Timer

WINDOW_LETTERS = 256
"""Letters on their way to one session without an acknowledgement; more wait here, and fill no link."""
WINDOW_BYTES = 512 * 1024
"""The same in bytes: half of what a session's output holds by default (`output_bytes`)."""
HISTORY_LETTERS = 256
"""Letters whose bodies are kept for `resume` after they were settled."""
HISTORY_BYTES = 1024 * 1024
"""The same in bytes."""
FATES = 4096
"""Settled letters whose fate is remembered: what is sent again is answered, and not delivered again."""
FATES_S = 60.0
"""For how long: longer than any sender tries again (`send_timeout` and a reconnect)."""
OPEN = 1 << 62
"""The gate of a mailbox of which all letters are here: behind any position."""


class Mailbox:
    """One user's letters and sessions."""

    __slots__ = (
        "attachments",
        "base",
        "began",
        "closed",
        "doubt",
        "due",
        "ended",
        "epoch",
        "first_unsettled",
        "floor",
        "gate",
        "index",
        "kept",
        "kept_bytes",
        "late",
        "left",
        "letters",
        "number",
        "owed",
        "read_to",
        "reading",
        "timer",
        "unread",
        "unsettled_bytes",
        "user",
        "waited_until",
        "waiting",
        "window_bytes",
    )

    def __init__(self, user: str, epoch: int, number: int, window_bytes: int = WINDOW_BYTES) -> None:
        self.user = user
        self.window_bytes = window_bytes
        self.epoch = epoch
        self.number = number
        self.letters: list[Letter] = []
        self.base = 0
        self.first_unsettled = 0
        self.kept = 0  # the first position whose body is kept
        self.kept_bytes = self.unsettled_bytes = 0
        self.floor = (epoch, number)  # nothing up to here can be replayed
        self.ended = self.began = self.floor  # no cursor between these is one of this mailbox
        self.doubt = (-1, -1)  # what Redis keeps up to here may have come late
        self.left = 0  # letters that it left to Redis alone
        self.closed = False  # nothing is sent while older letters may still be handed over to it
        self.gate = OPEN
        self.unread = False  # nobody has looked yet at what Redis keeps
        self.reading = False  # Redis has been asked
        self.read_to: Seq | None = None  # what comes up to here was read since anything left for Redis alone
        self.late = False  # served without having been read: what is read then goes to the end
        self.owed = False  # Redis has letters before what the sessions here have had: of their own
        self.waiting: list[Callable[[], None]] = []  # sessions that attach once it has been read
        self.attachments: list[Attachment] = []
        self.index: dict[tuple[str | None, str | None], Letter] | None = None
        self.waited_until = 0.0  # a user without a session is waited for until then
        self.timer: Timer | None = None
        self.due = float("inf")

    @property
    def end(self) -> int:
        """The position after the last letter."""
        return self.base + len(self.letters)

    def unsettled(self) -> list[Letter]:
        """Letters without a fate, in order."""
        return [
            letter
            for letter in self.letters[self.first_unsettled - self.base :]
            if letter.status is None or letter.home is not None
        ]

    # --- letters

    def append(self, letter: Letter) -> None:
        """Puts a letter without a fate at the end."""
        self.letters.append(letter)
        self.kept_bytes += letter.size
        self.unsettled_bytes += letter.size
        if self.index is not None:
            self.index[letter.sender, letter.id] = letter

    def merge(self, letters: list[Letter]) -> None:
        """Puts handed-over letters where their numbers belong: they may come from several earlier owners.
        Only while the mailbox is closed, and what comes after all that its sessions have had."""
        known = {(letter.epoch, letter.number) for letter in self.letters}
        new = [letter for letter in letters if (letter.epoch, letter.number) not in known]
        self.letters = sorted(self.letters + new, key=_order)
        if self.gate != OPEN:
            self.close_gate()
        if new:
            first = self.letters[0]
            self.floor = min(self.floor, (first.epoch, first.number - 1))
        self._count_anew()
        if self.kept > self.base:  # nothing up to the last letter without its text can be replayed
            last = self.letters[self.kept - self.base - 1]
            self.floor = max(self.floor, (last.epoch, last.number))

    def append_anew(self, letter: Letter) -> None:
        """Puts a letter at the end, under a number of its own: sessions have had later ones already."""
        self.doubt = max(self.doubt, letter.home or self.doubt)
        self.number += 1
        letter.epoch, letter.number = self.epoch, self.number
        letter.renumber()
        self.append(letter)

    def close_gate(self) -> None:
        """What Redis keeps is to be read (again): somebody else may have put letters there."""
        self.unread, self.late, self.read_to = True, False, None
        self.gate = max((attachment.position for attachment in self.attachments), default=self.base)

    def insert(self, letters: list[Letter], *, more: bool) -> list[Letter]:
        """Puts what was read from Redis behind the gate, by its numbers; the gate moves behind it, or away.

        Returns what does not belong there: sessions have had later letters.
        """
        at = min(self.gate, self.end) - self.base
        low = max([(0, 0), *map(_order, self.letters[at - 1 : at]), *(one.floor for one in self.attachments)])
        fit = [letter for letter in letters if _order(letter) > low]
        seqs = {_order(letter) for letter in fit}  # fates of the same letters have had their time
        region = sorted([one for one in self.letters[at:] if _order(one) not in seqs] + fit, key=_order)
        if fit:  # a fate without its text must not lie where a session still passes
            first = region.index(fit[0])
            region[first:] = [letter for letter in region[first:] if letter.body is not None]
        self.letters[at:] = region
        if not more:
            self.gate = OPEN
        elif self.read_to is not None:
            self.gate = self.base + at + sum(_order(letter) <= self.read_to for letter in region)
        self._count_anew()
        return letters[: len(letters) - len(fit)]

    def remove(self, letters: list[Letter]) -> None:
        """Takes out letters that no session has been sent."""
        gone = set(map(id, letters))
        self.letters = [letter for letter in self.letters if id(letter) not in gone]
        self._count_anew()

    def evict(self, *, seen: bool = True) -> list[Letter]:
        """Leaves to Redis what it has, as far as no session has been sent it or comes to it; returns that."""
        read = self.gate if self.attachments and self.gate != OPEN else self.base
        at = max([read, *(attachment.position for attachment in self.attachments)]) - self.base
        gone = [one for one in self.letters[at:] if one.home and not one.pushing and one.seen <= seen]
        if self.attachments:  # what has another number here would not be found behind the others
            gone = [one for one in gone if one.home == _order(one)]
        if gone:
            first = at + next(i for i, letter in enumerate(self.letters[at:]) if letter is gone[0])
            self.remove(gone)
            if self.gate == OPEN or (self.read_to or (0, 0)) >= min(one.home or (0, 0) for one in gone):
                self.read_to = None
            self.gate = min(self.gate, self.base + first)
            self.left += len(gone)
        return gone

    @property
    def readable(self) -> bool:
        """True if a session can be attached: it is known behind what it gets its letters, and whether Redis
        still has what was left to it."""
        if self.unread or self.gate == OPEN:
            return not self.unread
        return self.gate > self.base and (not self.left or self.read_to is not None)

    @property
    def hungry(self) -> bool:
        """True if letters are missing here, and there is a session that could be sent some."""
        end = min(self.gate, self.end)
        return (self.gate != OPEN or self.late) and any(
            attachment.outlet is not None
            and attachment.position >= end
            and attachment.position - attachment.acked < WINDOW_LETTERS
            and attachment.flight_bytes < self.window_bytes
            for attachment in self.attachments
        )

    @property
    def read_from(self) -> Seq | None:
        """The sequence behind which Redis keeps what is missing here; None if all of it is."""
        if self.unread or self.late or self.read_to is not None:
            return self.read_to
        passed = self.letters[: min(self.gate, self.end) - self.base]
        return max((letter.home for letter in passed if letter.home is not None), default=None)

    def _count_anew(self) -> None:
        texts = list(map(bool, (letter.body for letter in self.letters)))
        first_text = len(texts) - texts[::-1].index(False) if False in texts else 0
        states = [letter.status is None or letter.home is not None for letter in self.letters]
        self.index = None
        self.kept = self.base + first_text
        self.first_unsettled = self.base + (states.index(True) if True in states else len(states))
        self.kept_bytes = sum(letter.size for letter in self.letters[first_text:])
        self.unsettled_bytes = sum(
            letter.size for letter, unsettled in zip(self.letters, states, strict=True) if unsettled
        )

    def find(self, sender: str | None, message_id: str | None) -> Letter | None:
        """The remembered letter of this sender and id; the index is made by the first question."""
        if self.index is None:
            self.index = {(letter.sender, letter.id): letter for letter in self.letters}
        return self.index.get((sender, message_id))

    def settle(self, letter: Letter) -> None:
        """Counts a letter that has just been settled."""
        self.unsettled_bytes -= letter.size
        letters, base, at = self.letters, self.base, self.first_unsettled
        end = base + len(letters)
        while at < end and letters[at - base].status is not None and letters[at - base].home is None:
            at += 1
        self.first_unsettled = at
        if self.kept_bytes > HISTORY_BYTES or end - self.kept > HISTORY_LETTERS:
            self._drop_bodies(end)

    def _drop_bodies(self, end: int) -> None:
        while self.kept < self.first_unsettled and (
            self.kept_bytes > HISTORY_BYTES or end - self.kept > HISTORY_LETTERS
        ):
            letter = self.letters[self.kept - self.base]
            self.floor = (letter.epoch, letter.number)
            self.kept_bytes -= letter.size
            letter.body = None
            self.kept += 1

    def trim(self, now: float) -> None:
        """Forgets fates that are too old or too many."""
        letters, gone = self.letters, 0
        # Sessions have still to pass what is behind the gate.
        limit = min(self.first_unsettled, self.gate if self.attachments else OPEN) - self.base
        while gone < limit and (now - letters[gone].at > FATES_S or len(letters) - gone > FATES):
            letter = letters[gone]
            self.floor = max(self.floor, (letter.epoch, letter.number))
            if self.base + gone >= self.kept:
                self.kept_bytes -= letter.size
            if self.index is not None and self.index.get((letter.sender, letter.id)) is letter:
                del self.index[letter.sender, letter.id]
            gone += 1
        if gone:
            del letters[:gone]
            self.base += gone
            self.kept, self.gate = max(self.kept, self.base), max(self.gate, self.base)
            if not letters:
                self.index = None

    # --- sessions

    def push(self, attachment: Attachment) -> bool:
        """Sends a session what its window admits. False if the history that it would need next is gone: too
        slow."""
        outlet = attachment.outlet
        if outlet is None or self.closed:
            return True
        letters, base = self.letters, self.base
        end = base + len(letters)
        if end > self.gate:
            end = self.gate
        if attachment.position < base:
            return False
        while (
            attachment.position < end
            and attachment.position - attachment.acked < WINDOW_LETTERS
            and attachment.flight_bytes < self.window_bytes
        ):
            letter = letters[attachment.position - base]
            skipped = attachment.skips(letter)
            if skipped and attachment.acked == attachment.position:
                attachment.acked += 1
            else:
                attachment.flight_bytes += letter.size
            attachment.position += 1
            if skipped:
                continue
            if letter.body is None:
                return False
            letter.seen, letter.found = True, False
            outlet.deliver(letter.epoch, letter.number, letter.body, True)
        return True

    def acknowledge(
        self, attachment: Attachment, epoch: int, number: int, by: By
    ) -> tuple[list[Letter], list[Seq]]:
        """Moves a session's cursor to behind (epoch, number); returns the letters that this settles as
        delivered, and what Redis has to forget of them."""
        letters, base = self.letters, self.base
        if attachment.acked < base:
            attachment.acked = base
        at, stop, settled = attachment.acked, attachment.position, []
        while at < stop:
            letter = letters[at - base]
            if (letter.number > number and letter.epoch == epoch) or letter.epoch > epoch:
                break
            at += 1
            attachment.flight_bytes -= letter.size
            if (letter.status is None or letter.home is not None) and not attachment.skips(letter):
                letter.status = "delivered"
                letter.by = by
                settled.append(letter)
        # What was never sent to it needs no acknowledgement, and must not fill the window.
        while at < stop and attachment.skips(letters[at - base]):
            attachment.flight_bytes -= letters[at - base].size
            at += 1
        attachment.acked = at
        if at >= stop:
            # What was trimmed away while it was on its way is gone from the sum too.
            attachment.flight_bytes = 0
        homes = [letter.home for letter in settled if letter.home is not None]
        for letter in settled:
            letter.home = None
            self.settle(letter)
        return settled, homes

    def place(self, attachment: Attachment, sent: tuple[int, int]) -> None:
        """Sets the cursors of a session that an earlier owner or link has brought up to `sent`."""
        attachment.position = min(self._after(sent), self.gate)
        attachment.acked = min(self.first_unsettled, attachment.position)
        in_flight = self.letters[attachment.acked - self.base : attachment.position - self.base]
        attachment.flight_bytes = sum(letter.size for letter in in_flight)

    def place_fresh(self, attachment: Attachment) -> None:
        """Sets the cursors of a new session before the first letter without a fate."""
        attachment.position = attachment.acked = min(self.first_unsettled, self.gate)
        attachment.flight_bytes = 0
        self._mark_seen(attachment.position)

    def resume(self, attachment: Attachment, seq: tuple[int, int]) -> Literal[True, "gap"]:
        """Sets the cursors of a client that came back behind `seq`; at a gap, before what is unsettled."""
        if seq < self.floor or self.ended < seq <= self.began or seq > (self.epoch, self.number):
            self.place_fresh(attachment)
            return "gap"
        # A cursor says nothing of what the user's own sessions sent, nor of what came late: from Redis, or of
        # an owner that did not know of its successor. (What was handed over before this one served did not.)
        for letter in self.unsettled():
            stored = letter.home is not None and (seq <= self.began or letter.home <= self.doubt)
            late = letter.epoch < seq[0] and (letter.found or not letter.handed or seq[0] != self.epoch)
            if (letter.origin or stored or late) and (letter.epoch, letter.number) <= seq:
                seq = letter.epoch, letter.number - 1
                break
        self.place(attachment, seq)
        self._mark_seen(attachment.position)
        return True

    def before(self, position: int) -> tuple[int, int]:
        """The sequence after which `position` comes."""
        if position > self.base:
            return _order(self.letters[position - 1 - self.base])
        if self.letters and _order(self.letters[0]) <= self.floor:  # it was read from Redis
            return self.letters[0].epoch, self.letters[0].number - 1
        return self.floor

    def _mark_seen(self, position: int) -> None:
        """A client that came back may have had what was on its way to it when it went."""
        for letter in self.letters[position - self.base :]:
            if letter.seen:
                letter.mark_redelivered()

    def _after(self, seq: tuple[int, int]) -> int:
        """The position of the first letter after `seq`, from the back: cursors are near the end."""
        at = len(self.letters)
        while at and (self.letters[at - 1].epoch, self.letters[at - 1].number) > seq:
            at -= 1
        return self.base + at


def _order(letter: Letter) -> Seq:
    return letter.epoch, letter.number
