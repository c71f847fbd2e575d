"""What Redis keeps for the mailboxes of a node: when it is asked, and what is made of its answers.

The base of `owner.Mailboxes`, between that and the shelf. A mailbox that is made here may have letters in
Redis, of an earlier owner or from when its user was away: it is *unread*, and its first session waits until
it has been read. Without a spill (`mailbox_messages` 0) nothing is kept anywhere, and all this rests.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic

import structlog
from msgspec.structs import replace

from ring.mailbox.arrival import bring_back, has_read_enough, is_storing_unseen, sort_out
from ring.mailbox.attachment import Attachment
from ring.mailbox.cursors import check_left
from ring.mailbox.letter import Letter, Notify
from ring.mailbox.mailbox import FATES_S, OPEN, Mailbox
from ring.mailbox.shelf import Shelf
from ring.mailbox.spill import Spill
from ring.mailbox.vault import Page, Verdict
from ring.protocol.codes import ErrorCode
from ring.protocol.peer import Seq
from ring.transport.wheel import TimerWheel

_log = structlog.get_logger()

QUEUED_FATES = 65_536
"""Stored letters of which is remembered that they are: sent again, they are answered and not stored twice."""
AGAIN_S = 0.5
"""When Redis says that another node owns a slot, or refuses to read: after this it is asked again."""

FENCED_LOG_S = 1.0
"""At most once in this time the log says so: all mailboxes of a slot find it out."""

FULL = "the recipient's stored mailbox is full"
UNSAFE = "stored, but on fewer replicas than asked for"

_WHY = {
    "full": (ErrorCode.MAILBOX_FULL, FULL),
    "unsafe": (ErrorCode.STORE_UNAVAILABLE, UNSAFE),
}


class Keeping(Shelf, ABC):
    """Mailboxes whose letters may be in Redis.

    Args:
        wheel: for asking again.
        notify: tells a gateway a fate.
        spill: carries what is asked of Redis; None where nothing is stored.
        linger_s: how long a user whose last session broke, or whose slot moved, is waited for.
        window_bytes: of letters on their way to one session without an acknowledgement.
    """

    def __init__(
        self,
        *,
        wheel: TimerWheel,
        notify: Notify,
        spill: Spill | None,
        linger_s: float,
        window_bytes: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(linger_s=linger_s, window_bytes=window_bytes, clock=clock)
        self.spill = spill
        self.fenced: Callable[[], None] = lambda: None
        """Called when Redis says that another node owns what this one thought its own."""
        self._wheel = wheel
        self._notify = notify
        self.late_sessions = 0  # that were attached without what Redis keeps for them
        self._fenced_at = -FENCED_LOG_S
        self._queued: dict[tuple[str, str | None, str | None], float] = {}
        if spill is not None:
            spill.keeper = self

    @abstractmethod
    def start(self, attachment: Attachment) -> None:
        """Sends a session what waits for it: called once it has been welcomed."""

    @abstractmethod
    def wait(self, box: Mailbox) -> None:
        """Sees to a mailbox's unsettled letters and to its end."""

    def _make(self, user: str) -> Mailbox:
        box = super()._make(user)
        if self.spill is not None:
            box.unread, box.gate = True, box.base
        return box

    def moved(self, epoch: int, closed: set[int], lost: Iterable[int]) -> None:
        """As `Shelf.moved`; other owners may have stored letters for what is closed now."""
        super().moved(epoch, closed, lost)
        if self.spill is not None and closed:
            for box in self.boxes.values():
                if box.closed:
                    box.close_gate()

    def epoch_of(self, slot: int) -> int:
        """The epoch at which this node owns, or owned last, a slot: Redis fences by it."""
        return self.lost_at.get(slot, self.epoch)

    def holds(self, box: Mailbox) -> bool:
        """False once the mailbox was handed over: its letters are another node's."""
        return self.boxes.get(box.user) is box

    # --- reading

    def ready(self, user: str, attach: Callable[[], None], sent: Seq | None = None) -> bool:
        """True if a session of this user may be attached now; else `attach` is called when it may. `sent` is
        how far an earlier owner brought it."""
        if self.spill is None:
            return True
        box = self.open(user)
        enough = has_read_enough(box, sent)
        if enough and not is_storing_unseen(box):
            self.late_sessions += box.late
            return True
        box.waiting.append(attach)
        if box.owed and not box.unread and not box.reading:
            box.unread, box.read_to = True, None
        if not enough:
            self.read(box)
        return False

    def feed(self, box: Mailbox) -> None:
        """Reads the next page once a session has been sent all that is here, and can be sent more."""
        if box.hungry:
            self.read(box)

    def read(self, box: Mailbox) -> None:
        """Asks for the next page of a mailbox."""
        if self.spill is not None and not box.reading and self.holds(box):
            box.reading = True
            self.spill.read(box)

    def on_page(self, box: Mailbox, page: Page | None) -> None:
        """What Redis keeps for a mailbox; None if it does not answer: then its sessions go on without.

        What is read later is put behind what they have had by then.
        """
        box.reading = False
        if not self.holds(box) or box.closed:
            return  # once it is open it is read again
        if page is not None and page.fenced:
            self._on_fenced()
        elif page is not None:
            anew = box.unread and box.owed
            self._take(box, page)
            box.unread = anew and page.more
            box.owed = box.owed and (box.unread or not anew)
            box.late = box.late and page.more
        else:
            box.unread, box.owed, box.late, box.gate = False, False, True, OPEN
            check_left(box, 0, more=False)  # who comes back now is not promised what may never come
        if page is None or page.fenced:
            box.reading = True  # nobody asks before this:
            self._wheel.call_later(AGAIN_S, partial(self._read_again, box))
        if not box.unread:
            self._attach_waiting(box)
            for attachment in tuple(box.attachments):
                self.start(attachment)
        elif box.waiting:
            self.read(box)
        self.wait(box)

    def _read_again(self, box: Mailbox) -> None:
        box.reading = False
        if not self.holds(box):
            return  # it was handed over meanwhile
        if box.attachments or box.waiting:
            self.read(box)
        else:  # whoever comes next has it read
            box.close_gate()
            self.wait(box)

    def _attach_waiting(self, box: Mailbox) -> None:
        waiting, box.waiting = box.waiting, []
        for attach in waiting:
            attach()

    def _take(self, box: Mailbox, page: Page) -> None:
        here = {letter.home or (letter.epoch, letter.number): letter for letter in box.letters}
        seqs = [(stored.epoch, stored.number) for stored in page.letters]
        check_left(box, sum(seq not in here or here[seq].fate_only for seq in seqs), more=page.more)
        sorted_out = sort_out(box, page, self._clock())
        if page.letters:
            box.read_to = seqs[-1]
        forget = sorted_out.forget
        self.tell_queued(sorted_out.found + sorted_out.double)
        for letter in sorted_out.double:
            forget += [] if letter.home is None else [letter.home]
            letter.void()
        box.remove(sorted_out.double)
        if sorted_out.back:
            bring_back(box, sorted_out.back)
        letters = sorted_out.new
        for letter in letters if box.late else box.insert(letters, more=page.more):
            box.append_anew(letter)
        if forget:
            self.forget_stored(box, forget)

    def tell_queued(self, letters: list[Letter]) -> None:
        """Redis has these: whoever waits for them is told."""
        for letter in letters:
            letter.status = "queued"
        self.settled(letters)
        for letter in letters:
            letter.ref = 0

    def forget_stored(self, box: Mailbox, homes: list[Seq]) -> None:
        """Has Redis forget letters that need not be delivered any more."""
        assert self.spill is not None  # else it would not have them
        self.spill.remove(box.user, homes)

    def _on_fenced(self) -> None:
        now = self._clock()
        if now >= self._fenced_at + FENCED_LOG_S:
            self._fenced_at = now
            _log.warning("fenced: another node owns a slot that this one took for its own", epoch=self.epoch)
        self.fenced()

    # --- storing

    def store(self, box: Mailbox, until: Letter | None = None) -> None:
        """Has Redis keep what nobody has acknowledged, up to a letter: with all before it, for the order."""
        assert self.spill is not None
        letters = []
        for letter in box.unsettled():
            if letter.status is None and not letter.pushing:
                letters.append(letter)
            if letter is until:
                break
        if letters:
            self.spill.push(box, letters)

    def store_last(self, box: Mailbox) -> None:
        """Has Redis keep the letter at the end; cheaper than `store` if those before it are on their way."""
        assert self.spill is not None
        *_, before, last = None, *box.letters[-2:]
        if before is None or before.pushing:
            self.spill.push(box, [last])
        else:
            self.store(box, last)

    def on_pushed(self, box: Mailbox, letters: list[Letter], verdicts: Sequence[Verdict | str]) -> None:
        """What became of letters that were to be stored; a text instead of a verdict says why it failed."""
        current = self.holds(box)  # else the slot has been handed over, and they with it
        now = self._clock()
        queued: list[Letter] = []
        failed: list[Letter] = []
        obsolete: list[Seq] = []
        disordered: list[Letter] = []
        for letter, verdict in zip(letters, verdicts, strict=True):
            letter.pushing = False
            if verdict in ("stored", "already"):
                if letter.status is None:
                    letter.home = letter.epoch, letter.number
                    queued.append(letter)
                elif letter.home != (letter.epoch, letter.number):
                    obsolete.append((letter.epoch, letter.number))  # acknowledged in the meantime
            elif letter.status is not None or not current:
                continue
            elif verdict == "fenced":
                box.waited_until = max(box.waited_until, now + AGAIN_S)
                letter.patience = now - letter.at + AGAIN_S
            elif verdict == "disordered":
                disordered.append(letter)
            else:
                letter.status = "failed"
                letter.code, letter.message = _WHY.get(verdict, (ErrorCode.STORE_UNAVAILABLE, verdict))
                box.settle(letter)
                failed.append(letter)
        if "fenced" in verdicts:
            self._on_fenced()
        self.tell_queued(queued)
        self.settled(failed)
        if obsolete:
            self.forget_stored(box, obsolete)
        # This node stood still, and another stored later ones meanwhile: these come behind them.
        for letter in disordered:
            again = replace(letter)
            letter.void()
            box.settle(letter)
            box.append_anew(again)
        if current:
            for attachment in tuple(box.attachments) if disordered else ():
                self.start(attachment)
            self.leave_to_redis(box)
            self._attach_waiting(box)
            self.wait(box)

    def leave_to_redis(self, box: Mailbox) -> None:
        """Drops what Redis has, as far as no session has been sent it, or may have been that is on its way
        here."""
        now = self._clock()
        expected = box.waiting or now < box.waited_until
        for letter in box.evict(seen=not expected):
            self._queued.pop(key := (box.user, letter.sender, letter.id), None)
            self._queued[key] = now
        while self._queued:
            key = next(iter(self._queued))
            if len(self._queued) <= QUEUED_FATES and now - self._queued[key] <= FATES_S:
                break
            del self._queued[key]
        self.leave_own(box)
        self.feed(box)

    def leave_own(self, box: Mailbox) -> None:
        """Leaves to Redis what it has and no session here is to get, each having sent it itself: else it
        would hold up for ever what is settled behind it."""
        passed = max((attachment.position for attachment in box.attachments), default=box.base)
        while box.first_unsettled < passed and not (box.waiting or self._clock() < box.waited_until):
            letter = box.letters[box.first_unsettled - box.base]
            here = any(not attachment.skips(letter) for attachment in box.attachments)
            if letter.home is None or letter.pushing or here:
                break
            letter.home, box.owed = None, True
            box.left += 1
            box.settle(letter)

    def is_queued(self, user: str, sender: str | None, message_id: str | None) -> bool:
        """True if this message was stored lately."""
        return (user, sender, message_id) in self._queued

    # --- telling

    def settled(self, letters: Iterable[Letter]) -> None:
        """Tells everybody who waits for these letters what became of them."""
        notify = self._notify
        for letter in letters:
            assert letter.status is not None
            if letter.ref:
                notify(letter.gateway, letter.ref, letter.status, letter.by, letter.code, letter.message)
            if letter.waiters:
                self.answer_waiters(letter)

    def answer_waiters(self, letter: Letter) -> None:
        """Tells those who asked again about a letter that has its fate."""
        assert letter.status is not None
        for gateway, ref in letter.waiters or ():
            self._notify(gateway, ref, letter.status, letter.by, letter.code, letter.message)
        letter.waiters = None
