"""What the tests of the spill stand on: a keeper that remembers, a server that answers as it is told."""

from collections.abc import Callable, Sequence

import trio

from ring.mailbox.letter import Letter
from ring.mailbox.mailbox import Mailbox
from ring.mailbox.spill import Spill
from ring.mailbox.vault import Job, Page, Push, Read, Remove, Result, Verdict
from ring.store.connection import StoreUnavailable

EMPTY = Page(False, [], False)


def letters(count: int, *, first: int = 1, size: int = 1) -> list[Letter]:
    """So many, without a fate."""
    return [
        Letter(
            1, first + index, "alice", f"m{first + index}", b"x" * size, size, 0, 2, "g", first + index, ""
        )
        for index in range(count)
    ]


class Keeper:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.pushed: list[tuple[str, list[int], list[str]]] = []
        self.pages: list[tuple[str, Page | None]] = []
        self.epoch = 1
        self.gone: set[str] = set()
        self.on_told: Callable[[], None] = lambda: None

    def epoch_of(self, slot: int) -> int:
        return self.epoch

    def holds(self, box: Mailbox) -> bool:
        return box.user not in self.gone

    def on_pushed(self, box: Mailbox, letters: list[Letter], verdicts: Sequence[Verdict | str]) -> None:
        self.pushed.append((box.user, [letter.number for letter in letters], list(verdicts)))
        self.on_told()

    def on_page(self, box: Mailbox, page: Page | None) -> None:
        self.pages.append((box.user, page))
        self.on_told()


class Server:
    """Answers as it is told; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[Job]] = []
        self.answer: Callable[[Job], Result] = well
        self.stuck = 0  # so many answers never come
        self.broken = 0  # so many are lost

    async def exchange(self, jobs: Sequence[Job]) -> list[Result]:
        self.asked.append(jobs)
        await trio.lowlevel.checkpoint()
        if self.stuck:
            self.stuck -= 1
            await trio.sleep_forever()
        if self.broken:
            self.broken -= 1
            raise StoreUnavailable("it broke")
        return [self.answer(job) for job in jobs]


def well(job: Job) -> Result:
    """As it answers if all is well."""
    match job:
        case Push():
            return ["stored"] * len(job.letters)
        case Read():
            return EMPTY
        case Remove():
            return None


class Desk:
    """A spill, and who asks it."""

    def __init__(self) -> None:
        self.there = True
        self.now = 100.0
        self.away_s = 0.0
        self.keeper = Keeper()
        self.spill = Spill(connected=lambda: self.there, away_s=lambda: self.away_s, clock=lambda: self.now)
        self.spill.keeper = self.keeper
        self.boxes: dict[str, Mailbox] = {}

    def box(self, user: str) -> Mailbox:
        return self.boxes.setdefault(user, Mailbox(user, 1, 0))

    def push(self, user: str, *some: Letter) -> None:
        self.spill.push(self.box(user), list(some))

    def read(self, user: str, *, held_up: bool = True) -> None:
        self.box(user).gate = 0 if held_up else 1 << 62
        self.spill.read(self.box(user))

    def do(self, answer: Callable[[Job], Result] = well) -> tuple[list[Job], bool]:
        """Does one batch; returns it, and whether all of it was done."""
        batch = self.spill.take()
        return batch.jobs, self.spill.settle(batch, [answer(job) for job in batch.jobs])
