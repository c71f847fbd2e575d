"""Stored mailboxes as plain Python: what the scripts are to do, written down a second time.

The tests of the scripts compare with it, and simulations of clusters use it in place of Redis.
"""

from dataclasses import dataclass, field
from typing import assert_never

from msgspec.structs import replace

from ring.mailbox.vault import PAGE_BYTES, PAGE_LETTERS, Job, Page, Push, Read, Remove, Stored, Verdict
from ring.protocol.peer import Seq


@dataclass(eq=False)
class Kept:
    """A letter in a box: as it was pushed, and when it expires."""

    letter: Stored
    expires_ms: int
    run: int = 0  # of the server that took it

    @property
    def seq(self) -> Seq:
        """Where it belongs."""
        return self.letter.epoch, self.letter.number


@dataclass(eq=False)
class Box:
    """A user's letters, ascending, and how far they have been read."""

    kept: list[Kept] = field(default_factory=list)
    mark: Seq | None = None

    @property
    def size(self) -> int:
        """Bytes of the bodies."""
        return sum(len(each.letter.body) for each in self.kept)

    def keep(self, kept: list[Kept]) -> None:
        """Holds these and no others; an empty box forgets how far it was read."""
        self.kept = kept
        if not kept:
            self.mark = None

    def shed(self, now_ms: int) -> None:
        """Drops the expired letters at the head."""
        live = (place for place, each in enumerate(self.kept) if each.expires_ms > now_ms)
        self.keep(self.kept[next(live, len(self.kept)) :])

    def purge(self, now_ms: int) -> None:
        """Drops all expired letters."""
        self.keep([each for each in self.kept if each.expires_ms > now_ms])


class ModelVault:
    """Does the jobs of a `Vault`, one by one. `now_ms` is the server's clock: the test moves it."""

    def __init__(
        self,
        *,
        letters: int,
        size: int,
        keep_s: float,
        page_letters: int = PAGE_LETTERS,
        page_bytes: int = PAGE_BYTES,
        now_ms: int = 0,
    ) -> None:
        self.now_ms = now_ms
        self.run = 0
        """Of the server: another one after each start."""
        self.fences: dict[int, int] = {}
        self.boxes: dict[tuple[int, str], Box] = {}
        self._letters = letters
        self._size = size
        self._keep_ms = max(1, round(keep_s * 1000))
        self._page_letters = page_letters
        self._page_bytes = page_bytes

    def do(self, job: Job) -> list[Verdict] | Page | None:
        """What `exchange` would have answered to this job."""
        match job:
            case Push():
                return self._push(job)
            case Read():
                return self._read(job)
            case Remove():
                self._remove(job)
                return None
            case _:
                assert_never(job)

    def count(self, user: str, slot: int) -> int:
        """How many letters lie in a mailbox, expired ones too until they are dropped."""
        return len(self.box(slot, user).kept)

    def box(self, slot: int, user: str) -> Box:
        """A user's box, made when it is first asked for."""
        return self.boxes.setdefault((slot, user), Box())

    def _admit(self, slot: int, epoch: int) -> bool:
        fence = self.fences.get(slot, 0)
        self.fences[slot] = max(fence, epoch)
        return epoch >= fence

    def _push(self, job: Push) -> list[Verdict]:
        if not self._admit(job.slot, job.epoch):
            return ["fenced"] * len(job.letters)
        box = self.box(job.slot, job.user)
        last = box.kept[-1].seq if box.kept else (0, -1)
        # What this push adds is looked for by nobody.
        before = {each.seq for each in box.kept}
        size = box.size
        shed = False
        verdicts: list[Verdict] = []
        for letter in job.letters:
            seq = (letter.epoch, letter.number)
            if "full" in verdicts:
                verdicts.append("full")
            elif seq <= last:
                there = seq in before and any(each.seq == seq for each in box.kept)
                verdicts.append("already" if there else "disordered")
            elif "disordered" in verdicts:
                verdicts.append("disordered")
            else:
                if not shed:
                    box.shed(self.now_ms)
                    shed, size = True, box.size
                if not self._fits(box, size, letter):
                    box.purge(self.now_ms)
                    size = box.size
                if self._fits(box, size, letter):
                    box.kept.append(Kept(letter, self.now_ms + (letter.ttl_ms or self._keep_ms), self.run))
                    last = seq
                    size += len(letter.body)
                    verdicts.append("stored")
                else:
                    verdicts.append("full")
        return verdicts

    def _fits(self, box: Box, size: int, letter: Stored) -> bool:
        return len(box.kept) < self._letters and size + len(letter.body) <= self._size

    def _read(self, job: Read) -> Page:
        if not self._admit(job.slot, job.epoch):
            return Page(True, [], False)
        box = self.box(job.slot, job.user)
        box.shed(self.now_ms)
        mark = box.mark or (-1, -1)
        live = [each for each in box.kept if each.expires_ms > self.now_ms]
        behind = [each for each in live if job.after is None or each.seq > job.after]
        found: list[Stored] = []
        size = 0
        for each in behind:
            size += len(each.letter.body)
            if len(found) == self._page_letters or (found and size > self._page_bytes):
                break
            left = each.expires_ms - self.now_ms if each.letter.ttl_ms else 0
            seen = each.letter.seen or each.seq <= mark or each.run != self.run
            found.append(replace(each.letter, ttl_ms=left, seen=seen))
        if found:
            box.mark = max(mark, behind[len(found) - 1].seq)
        return Page(False, found, len(found) < len(behind))

    def _remove(self, job: Remove) -> None:
        box = self.box(job.slot, job.user)
        box.shed(self.now_ms)
        named = set(job.seqs)
        box.keep([each for each in box.kept if each.seq not in named])
