"""The way of letters to Redis and back: what mailboxes ask for is collected, and goes in batches.

Mailboxes ask in the pump's tick, where nothing waits. One task sends what has been asked for as one pipeline,
and tells the mailboxes what came of it. So a storm of messages or of clients is a few large batches, and what
was asked for first is done first: a letter pushed before a mailbox is read is among what is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import structlog
import trio

from ring.config import Settings
from ring.mailbox.letter import NEVER, Letter
from ring.mailbox.mailbox import OPEN, Mailbox
from ring.mailbox.vault import Job, Page, Push, Read, Remove, Result, Stored, Vault, Verdict
from ring.protocol.names import slot_of
from ring.protocol.peer import Seq
from ring.store.client import Redis
from ring.store.connection import StoreError, StoreUnavailable
from ring.store.keys import Keys

PATIENCE_S = 2.0
"""So long Redis may be away before letters that cannot be stored fail, and sessions go on without what it
keeps: with `spill_after` it is less than a sender waits."""
BATCH_LETTERS = 512
"""With so many letters no further mailbox is taken into a batch: some milliseconds of Redis' time."""
BATCH_BYTES = 1024 * 1024
"""The same in bytes of text."""
BATCH_READS = 32
"""Most mailboxes that are read in one batch; each answers up to a page."""
FAILURES = ("full", "unsafe", "refused", "away")
"""Why letters could not be stored: by the verdict, or Redis answered an error, or none at all."""
POLL_S = 0.1
"""While Redis is away, how often is looked whose patience is over."""
STANDSTILL_S = 0.5
"""So late the task that watches for it wakes if this process stood still (SIGSTOP), and not if it is busy."""

REFUSED = "Redis refused to store it"

_log = structlog.get_logger()


class Keeper(Protocol):
    """Whoever asks, as the spill tells it what came of it."""

    def epoch_of(self, slot: int) -> int:
        """The epoch at which this node owns, or owned last, a slot: Redis fences by it."""

    def holds(self, box: Mailbox) -> bool:
        """False once the mailbox was handed over: its letters are another node's."""

    def on_pushed(self, box: Mailbox, letters: list[Letter], verdicts: Sequence[Verdict | str]) -> None:
        """What became of letters that were to be stored; a text instead of a verdict says why it failed."""

    def on_page(self, box: Mailbox, page: Page | None) -> None:
        """What Redis keeps for a mailbox; None if it does not answer."""


@dataclass(eq=False)
class _Pushing:
    box: Mailbox
    letters: list[Letter]
    since: float
    tried: bool = False  # Redis may have them: the answer was lost, or it could not do it just then


@dataclass(eq=False)
class _Reading:
    box: Mailbox
    since: float

    @property
    def held_up(self) -> bool:
        """True if sessions wait for it; else it can take as long as it takes."""
        return bool(self.box.waiting) or self.box.gate != OPEN


@dataclass(eq=False)
class Batch:
    """What goes in one pipeline, and who is told the results: the same number, in the same order."""

    jobs: list[Job]
    asked: list[_Pushing | _Reading | None]


class Spill:
    """See the module.

    Args:
        connected: whether Redis is there.
        away_s: for how long it has not been.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        connected: Callable[[], bool],
        away_s: Callable[[], float] = float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.keeper: Keeper
        self.stored = self.fenced = self.removed = self.read_letters = 0  # letters
        self.failed: dict[str, int] = dict.fromkeys(FAILURES, 0)
        self.reads = 0  # pages of mailboxes
        self._complaints: dict[str, str] = {}  # what does not work now, and why
        self._connected = connected
        self._away_s = away_s
        self._clock = clock
        self._stood_still_s = 0.0
        self._pushes: dict[Mailbox, _Pushing] = {}
        self._reads: dict[Mailbox, _Reading] = {}
        self._removes: dict[str, list[Seq]] = {}
        self._under_way = 0
        self._wake = trio.Event()

    @property
    def waiting(self) -> int:
        """Mailboxes that wait for Redis."""
        return self._under_way + len(self._pushes.keys() | self._reads.keys()) + len(self._removes)

    # --- asking

    def push(self, box: Mailbox, letters: list[Letter]) -> None:
        """Has letters stored, behind those of this mailbox that are asked for already.

        A session that is there may get them before Redis has them; others wait (`Keeping.ready`).
        """
        for letter in letters:
            letter.pushing = True
            came = any(not one.skips(letter) for one in box.attachments)
            letter.seen = letter.seen or came or bool(letter.origin)
        asked = self._pushes.get(box)
        if asked is None:
            self._pushes[box] = _Pushing(box, list(letters), self._awake())
        else:
            asked.letters += letters
        self._wake.set()

    def read(self, box: Mailbox) -> None:
        """Has the next page of a mailbox read."""
        self._reads[box] = _Reading(box, self._awake())
        self._wake.set()

    def remove(self, user: str, homes: list[Seq]) -> None:
        """Has Redis forget these letters."""
        self._removes.setdefault(user, []).extend(homes)
        self._wake.set()

    # --- batches

    def take(self) -> Batch:
        """The next batch: pushes first, then removals, then reads."""
        batch = Batch([], [])
        letters = size = 0
        now = self._clock()
        while self._pushes and letters < BATCH_LETTERS and size < BATCH_BYTES:
            box = next(iter(self._pushes))
            asked = self._pushes.pop(box)
            self._leave_out(asked)
            if asked.letters:
                stored = [_stored(letter, now) for letter in asked.letters]
                slot = slot_of(box.user)
                batch.jobs.append(Push(box.user, slot, self.keeper.epoch_of(slot), stored))
                batch.asked.append(asked)
                letters += len(stored)
                size += sum(letter.size for letter in asked.letters)
        while self._removes and letters < BATCH_LETTERS:
            user = next(iter(self._removes))
            homes = sorted(set(self._removes.pop(user)))
            batch.jobs.append(Remove(user, slot_of(user), homes))
            batch.asked.append(None)
            letters += len(homes)
        ready = [box for box in self._reads if box not in self._pushes and box.user not in self._removes]
        for box in ready[:BATCH_READS]:
            reading = self._reads.pop(box)
            if self.keeper.holds(box):
                batch.asked.append(reading)
                slot = slot_of(box.user)
                batch.jobs.append(Read(box.user, slot, self.keeper.epoch_of(slot), box.read_from))
        if not (self._pushes or self._removes or self._reads):
            self._wake = trio.Event()
        return batch

    def _leave_out(self, asked: _Pushing) -> None:
        """What was acknowledged meanwhile need not be stored; it may be there if an answer was lost. What was
        handed over must not be: the new owner has read what it has to know of."""
        if not self.keeper.holds(asked.box):
            for letter in asked.letters:
                letter.pushing = False
            asked.letters = []
        done = [letter for letter in asked.letters if letter.status is not None]
        if done:
            for letter in done:
                letter.pushing = False
            asked.letters = [letter for letter in asked.letters if letter.status is None]
            if asked.tried:
                self.remove(asked.box.user, [(letter.epoch, letter.number) for letter in done])

    def settle(self, batch: Batch, results: Sequence[Result]) -> bool:
        """Tells who asked what came of it. False if some has to be asked again: Redis cannot do it now."""
        again = Batch([], [])
        for job, asked, result in zip(batch.jobs, batch.asked, results, strict=True):
            if isinstance(result, StoreUnavailable):
                again.jobs.append(job)
                again.asked.append(asked)
            elif isinstance(asked, _Pushing):
                if isinstance(result, list):
                    self._complaints.pop("letters cannot be stored", None)
                    self.stored += result.count("stored")
                    self.fenced += result.count("fenced")
                    for verdict in ("full", "unsafe"):
                        self.failed[verdict] += result.count(verdict)
                    self.keeper.on_pushed(asked.box, asked.letters, result)
                else:
                    # Its own words are for the log: they may name keys, and whom Redis knows this node as.
                    self._complain("letters cannot be stored", result)
                    self._fail(asked, "refused", REFUSED)
            elif isinstance(asked, _Reading):
                self._on_read(job, asked, result)
            elif isinstance(result, StoreError):
                self._complain("stored letters cannot be removed", result)
            else:
                assert isinstance(job, Remove)
                self._complaints.pop("stored letters cannot be removed", None)
                self.removed += len(job.seqs)
        self.put_back(again)
        return not again.jobs

    def _on_read(self, job: Job, asked: _Reading, result: Result) -> None:
        if isinstance(result, StoreError):
            self._complain("stored mailboxes cannot be read", result)
            self.keeper.on_page(asked.box, None)
            return
        assert isinstance(job, Read)
        assert isinstance(result, Page)
        self._complaints.pop("stored mailboxes cannot be read", None)
        self.reads += 1
        self.read_letters += len(result.letters)
        # Other owners may have stored letters since, or letters that came before have been left to Redis.
        left = job.after is not None and (asked.box.read_from or (0, 0)) < job.after
        if left or job.epoch < self.keeper.epoch_of(job.slot):
            self.read(asked.box)
        else:
            self.keeper.on_page(asked.box, result)

    def _complain(self, what: str, error: object) -> None:
        """Says so in the log, once until it works again: the next user's mailbox has the same trouble."""
        if self._complaints.get(what) != str(error):
            self._complaints[what] = str(error)
            _log.error(what, error=str(error))

    def put_back(self, batch: Batch) -> None:
        """The answers were lost, or Redis cannot do it now: all is asked for again, before what was asked for
        since."""
        pushes, reads = self._pushes, self._reads
        self._pushes, self._reads = {}, {}
        for job, asked in zip(batch.jobs, batch.asked, strict=True):
            if isinstance(asked, _Pushing):
                asked.tried = True
                later = pushes.pop(asked.box, None)
                if later is not None:
                    asked.letters += later.letters
                self._pushes[asked.box] = asked
            elif isinstance(asked, _Reading):
                self._reads[asked.box] = asked
            else:
                assert isinstance(job, Remove)
                self._removes.setdefault(job.user, []).extend(job.seqs)
        self._pushes |= pushes
        self._reads |= reads
        if batch.jobs:
            self._wake.set()

    def give_up(self) -> None:
        """Redis is away: ends what has waited for too long, or all if it has been away for so long."""
        late = NEVER if self._away_s() >= PATIENCE_S else self._awake() - PATIENCE_S
        for asked in [asked for asked in self._pushes.values() if asked.since <= late]:
            del self._pushes[asked.box]
            self._fail(asked, "away", "Redis, where it would wait for the recipient, cannot be reached")
        for reading in [one for one in self._reads.values() if one.since <= late and one.held_up]:
            del self._reads[reading.box]
            self.keeper.on_page(reading.box, None)

    def _fail(self, asked: _Pushing, reason: str, why: str) -> None:
        self.failed[reason] += len(asked.letters)
        # They may be there all the same; but what an earlier owner stored is not this one's to give up.
        obsolete = [one for one in asked.letters if not one.handed or one.status is not None]
        if obsolete and asked.tried and self.keeper.holds(asked.box):
            self.remove(asked.box.user, [(letter.epoch, letter.number) for letter in obsolete])
        self.keeper.on_pushed(asked.box, asked.letters, [why] * len(asked.letters))

    def _awake(self) -> float:
        """Seconds, without those in which this process stood still: Redis had no chance to answer in them."""
        return self._clock() - self._stood_still_s

    # --- the task

    async def serve(self, redis: Redis, settings: Settings, flush: Callable[[], None]) -> None:
        """As `run`, with the cluster's mailboxes in `redis`, which the caller runs.

        Raises:
            RingError: this Redis cannot do what the settings ask for.
        """
        vault = Vault(
            redis,
            Keys(settings.cluster),
            letters=settings.mailbox_messages,
            size=settings.mailbox_bytes,
            keep_s=settings.mailbox_keep_s,
            replicas=settings.mailbox_replicas,
            fsync=settings.mailbox_fsync,
            wait_s=settings.mailbox_wait_s,
        )
        while not await self._checked(vault):
            await trio.sleep(POLL_S)
            self.give_up()
            flush()
        await self.run(vault, flush)

    async def _checked(self, vault: Vault) -> bool:
        try:
            with trio.fail_after(PATIENCE_S):
                await vault.check()
        except (StoreUnavailable, trio.TooSlowError):
            return False
        return True

    async def run(self, vault: Vault, flush: Callable[[], None]) -> None:
        """Carries batches until it is cancelled; `flush` is called after each, for what it has brought."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_standstill)
            while True:
                await self._wake.wait()
                if not (self._connected() and await self._exchange(vault)):
                    await trio.sleep(POLL_S)
                    self.give_up()
                flush()

    async def _watch_standstill(self) -> None:
        while True:
            due = self._clock() + POLL_S
            await trio.sleep(POLL_S)
            late_s = self._clock() - due
            if late_s > STANDSTILL_S:
                self._stood_still_s += late_s

    async def _exchange(self, vault: Vault) -> bool:
        batch = self.take()
        self._under_way = len(batch.jobs)
        try:
            # Bounded: a server that says nothing is as good as away.
            with trio.fail_after(PATIENCE_S):
                results = await vault.exchange(batch.jobs)
        except (StoreUnavailable, trio.TooSlowError) as error:
            _log.warning("stored mailboxes: no answer", jobs=len(batch.jobs), reason=str(error))
            self.put_back(batch)
            return False
        finally:
            self._under_way = 0
        return self.settle(batch, results)


def _stored(letter: Letter, now: float) -> Stored:
    assert letter.body is not None
    ttl_ms = 0 if letter.expires_at == NEVER else max(1, round((letter.expires_at - now) * 1000))
    return Stored(letter.epoch, letter.number, ttl_ms, letter.seen, letter.origin, letter.body)
