"""The Redis of a cluster in memory: a model of the vault, and each node's way to it, step by step."""

from collections import deque
from collections.abc import Callable
from copy import deepcopy

from ring.mailbox.spill import Batch, Spill
from ring.mailbox.vault import Job, Push, Result, Stored
from ring.protocol.client import Message, decode_server
from tests.mailbox.vault_model import Box, ModelVault


class SimulatedRedis:
    """One server for all nodes.

    Args:
        letters: so many lie in one mailbox.
        page_letters: of one read.
    """

    def __init__(self, *, letters: int = 1000, page_letters: int = 6) -> None:
        self.vault = ModelVault(letters=letters, size=10**6, keep_s=10**6, page_letters=page_letters)
        self._away_since: float | None = None
        self.jobs: list[Job] = []  # that were done
        self.stored: set[tuple[str, str | None]] = set()  # users and messages that it has ever kept for them
        self.stray: list[deque[Job]] = []  # of connections that broke: the server has yet to read them
        self.clock: Callable[[], float] = lambda: 0.0
        self._saved = self._contents()

    @property
    def up(self) -> bool:
        """Whether it is there."""
        return self._away_since is None

    @property
    def away_s(self) -> float:
        """For how long it has not been there."""
        return 0.0 if self._away_since is None else self.clock() - self._away_since

    def do(self, job: Job) -> Result:
        """Does a job."""
        self.jobs.append(job)
        self.vault.now_ms = round(self.clock() * 1000)
        result = self.vault.do(job)
        if isinstance(job, Push) and isinstance(result, list):
            kept = [
                letter for letter, verdict in zip(job.letters, result, strict=True) if verdict == "stored"
            ]
            self.stored.update((job.user, _id(letter)) for letter in kept)
        return result

    def stop(self) -> None:
        """It is away; what has not been read of broken connections is lost."""
        if self._away_since is None:
            self._away_since = self.clock()
        self.stray.clear()

    def start(self) -> None:
        """It is there."""
        self._away_since = None

    def save(self) -> None:
        """Has a snapshot written."""
        self._saved = self._contents()

    def roll_back(self) -> None:
        """Another server takes over that has not heard of what was written since the snapshot."""
        self.vault.boxes, self.vault.fences = deepcopy(self._saved)
        self.vault.run += 1

    def empty(self) -> None:
        """All is lost."""
        self.vault.boxes.clear()
        self.vault.fences.clear()

    def _contents(self) -> tuple[dict[tuple[int, str], Box], dict[int, int]]:
        return deepcopy((self.vault.boxes, self.vault.fences))


def _id(letter: Stored) -> str | None:
    message = decode_server(letter.body)
    assert isinstance(message, Message)
    return message.id


class Carrier:
    """What `Spill.run` does, without a task: a batch is taken, done job by job, and answered or lost."""

    def __init__(self, redis: SimulatedRedis, clock: Callable[[], float]) -> None:
        self.spill = Spill(connected=lambda: redis.up, away_s=lambda: redis.away_s, clock=clock)
        self.batch: Batch | None = None
        self._redis = redis
        redis.clock = clock
        self._todo: deque[Job] = deque()
        self.results: list[Result] = []
        self._paused = False  # until it tries again

    def can_step(self) -> bool:
        """Something can be done without time passing."""
        if self.batch is not None:
            return True
        return self._redis.up and not self._paused and self.spill._wake.is_set()

    def step(self) -> None:
        """The next step of all that goes well; a batch under way while Redis goes away is lost."""
        if self.batch is None:
            self.batch = self.spill.take()
            self._todo, self.results = deque(self.batch.jobs), []
        elif not self._redis.up:
            self.lose()
        elif self._todo:
            self.do()
        else:
            batch, self.batch = self.batch, None
            self._paused = not self.spill.settle(batch, self.results)

    def do(self) -> None:
        """Redis does a job of the batch, if one is on its way: also while the node stands still."""
        if self._todo and self._redis.up:
            self.results.append(self._redis.do(self._todo.popleft()))

    def lose(self, *, stray: bool = False) -> None:
        """The connection breaks: what has been done of the batch is unknown. The server may get to read what
        was on its way later."""
        batch, self.batch = self.batch, None
        assert batch is not None
        self._leave(stray=stray)
        self.spill.put_back(batch)
        self._paused = True

    def die(self, *, stray: bool = False) -> None:
        """The node dies, and the connection with it."""
        self.batch = None
        self._leave(stray=stray)

    def _leave(self, *, stray: bool) -> None:
        if stray and self._todo:
            self._redis.stray.append(self._todo)
        self._todo = deque()

    def pass_time(self) -> None:
        """What waits for a Redis that does not answer is given up one day."""
        if (self._paused or not self._redis.up) and self.spill._wake.is_set():
            self.spill.give_up()
        self._paused = False
