"""A user's mailbox at the owner: one ring buffer of letters, and a cursor per session.

Called by `mailbox.owner` alone, from the pump's tick: plain functions, no I/O. Positions are absolute: `base`
is the position of `letters[0]`, so cursors stay valid when the front is trimmed.
"""

from typing import Literal, Protocol

from ring.mailbox.letter import By, Letter
from ring.protocol.peer import Attach
from ring.transport.wheel import Timer

WINDOW_LETTERS = 256
"""Letters on their way to one session without an acknowledgement; more wait here, so a slow client fills no
link."""
WINDOW_BYTES = 512 * 1024
"""The same in bytes: half of what a session's output holds by default (`output_bytes`)."""
HISTORY_LETTERS = 256
"""Letters whose bodies are kept for `resume` after they were settled."""
HISTORY_BYTES = 1024 * 1024
"""The same in bytes."""
FATES = 4096
"""Settled letters whose fate is remembered, so that what is sent again is answered and not delivered again.
"""
FATES_S = 60.0
"""For how long: longer than any sender tries again (`send_timeout` and a reconnect)."""


class Outlet(Protocol):
    """The way to a session: the session itself on this node, a peer link's end of it elsewhere."""

    def deliver(self, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        """Sends a `message`; `tracked` if it is to be acknowledged."""

    def expel(self, code: int, reason: str) -> None:
        """Closes the session."""


class Attachment:
    """A session as its owner sees it. `outlet` is None while the link to its gateway is down."""

    __slots__ = (
        "acked",
        "address",
        "device",
        "flight_bytes",
        "gateway",
        "handle",
        "incarnation",
        "outlet",
        "position",
        "session",
        "since_ms",
        "user",
    )

    def __init__(self, attach: Attach, gateway: str, incarnation: str, outlet: Outlet) -> None:
        self.user = attach.user
        self.device = attach.device
        self.session = attach.session
        self.address = attach.address
        self.handle = attach.handle
        self.since_ms = attach.since_ms
        self.gateway = gateway
        self.incarnation = incarnation
        self.outlet: Outlet | None = outlet
        self.position = 0  # of the next letter to send
        self.acked = 0  # of the first letter not acknowledged by this session
        self.flight_bytes = 0

    def skips(self, letter: Letter) -> bool:
        """True if this session does not get the letter: it was given up, or this very session sent it."""
        return letter.status == "failed" or letter.origin == self.session


class Mailbox:
    """One user's letters and sessions."""

    __slots__ = (
        "attachments",
        "base",
        "closed",
        "due",
        "epoch",
        "first_unsettled",
        "floor",
        "index",
        "kept",
        "kept_bytes",
        "letters",
        "number",
        "timer",
        "unsettled_bytes",
        "user",
        "waited_until",
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
        self.kept_bytes = 0
        self.unsettled_bytes = 0
        self.floor = (epoch, number)  # nothing up to here can be replayed
        self.closed = False  # nothing is sent while older letters may still be handed over to it
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
            letter for letter in self.letters[self.first_unsettled - self.base :] if letter.status is None
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

        Only while the mailbox is closed: then all that its sessions have had comes before.
        """
        known = {(letter.epoch, letter.number) for letter in self.letters}
        new = [letter for letter in letters if (letter.epoch, letter.number) not in known]
        self.letters = sorted(self.letters + new, key=lambda letter: (letter.epoch, letter.number))
        self.index = None
        if new:
            first = self.letters[0]
            self.floor = min(self.floor, (first.epoch, first.number - 1))
        texts = list(map(bool, (letter.body for letter in self.letters)))
        first_text = len(texts) - texts[::-1].index(False) if False in texts else 0
        states = [letter.status is None for letter in self.letters]
        if first_text:  # nothing up to the last letter without its text can be replayed
            last = self.letters[first_text - 1]
            self.floor = max(self.floor, (last.epoch, last.number))
        self.kept = self.base + first_text
        self.first_unsettled = self.base + (states.index(True) if True in states else len(states))
        self.kept_bytes = sum(letter.size for letter in self.letters[first_text:])
        self.unsettled_bytes = sum(letter.size for letter in self.letters if letter.status is None)

    def find(self, sender: str | None, message_id: str | None) -> Letter | None:
        """The remembered letter of this sender and id. The index is made by the first question, kept up
        afterwards."""
        if self.index is None:
            self.index = {(letter.sender, letter.id): letter for letter in self.letters}
        return self.index.get((sender, message_id))

    def settle(self, letter: Letter) -> None:
        """Counts a letter that has just been given a fate."""
        self.unsettled_bytes -= letter.size
        letters, base, at = self.letters, self.base, self.first_unsettled
        end = base + len(letters)
        while at < end and letters[at - base].status is not None:
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
        limit = self.first_unsettled - self.base
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
            self.kept = max(self.kept, self.base)
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
            letter.seen = True
            outlet.deliver(letter.epoch, letter.number, letter.body, True)
        return True

    def acknowledge(self, attachment: Attachment, epoch: int, number: int, by: By) -> list[Letter]:
        """Moves a session's cursor to behind (epoch, number); returns the letters that this settles as
        delivered."""
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
            if letter.status is None and not attachment.skips(letter):
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
        for letter in settled:
            self.settle(letter)
        return settled

    def place(self, attachment: Attachment, sent: tuple[int, int]) -> None:
        """Sets the cursors of a session that an earlier owner or link has brought up to `sent`."""
        attachment.position = self._after(sent)
        attachment.acked = min(self.first_unsettled, attachment.position)
        in_flight = self.letters[attachment.acked - self.base : attachment.position - self.base]
        attachment.flight_bytes = sum(letter.size for letter in in_flight)

    def place_fresh(self, attachment: Attachment) -> None:
        """Sets the cursors of a new session before the first letter without a fate."""
        attachment.position = attachment.acked = self.first_unsettled
        attachment.flight_bytes = 0
        self._mark_seen(attachment.position)

    def resume(self, attachment: Attachment, seq: tuple[int, int]) -> Literal[True, "gap"]:
        """Sets the cursors of a client that came back behind `seq`, or before what is unsettled if there is a
        gap."""
        if seq < self.floor or seq > (self.epoch, self.number):
            self.place_fresh(attachment)
            return "gap"
        # A cursor says nothing of what the client itself sent to its user, under an earlier session: that was
        # never on its way to it. If nobody else has acknowledged it, it comes again from there.
        for letter in self.unsettled():
            if letter.origin and (letter.epoch, letter.number) <= seq:
                seq = letter.epoch, letter.number - 1
                break
        self.place(attachment, seq)
        self._mark_seen(attachment.position)
        return True

    def before(self, position: int) -> tuple[int, int]:
        """The sequence after which `position` comes."""
        if position > self.base:
            letter = self.letters[position - 1 - self.base]
            return letter.epoch, letter.number
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
