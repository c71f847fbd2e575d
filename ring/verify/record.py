"""What the oracle knows: messages with all that became of them, devices, windows, and promises.

Pure values. Times are seconds of one clock, that of the program in which all clients run: it orders what
happened at different clients.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple

By = Literal["client", "pong"]
Status = Literal["delivered", "queued", "failed"]
Resumed = bool | Literal["gap"]

AFTERSHOCK_S = 2.5
"""A fault is felt so long after it has healed: a user is waited for (`linger_s`), a message is stored
(`spill_after_s`), both 2 s; and what they decided is on its way."""


LATELY = 32
"""So much of what happened at a device is known."""


class Promise(Enum):
    """What a cluster promises, each with the words in which docs/how-to/verify.md tells it."""

    KEPT = "a message with a receipt `delivered` or `queued` reaches a device of its recipient"
    TRUE_RECEIPT = "`delivered` is told after a client of the recipient has acknowledged the message"
    ANSWERED = "a message whose sender stays gets its final answer in time"
    ANSWERED_ONCE = "a message gets one final answer"
    CARRIED_OUT = "while nothing is broken no message fails"
    MARKED = "all copies of a message at a device but one are marked `redelivered`"
    ONCE_IN_CALM = (
        "while nothing is broken no message comes twice in one session, nor in one that resumes what had it"
    )
    ONCE_TO_APPLICATION = "the application of a library client gets no message twice"
    TAKEN = "the library acknowledges nothing that its application has not got"
    IN_ORDER = "messages of one sender to one recipient come in the order in which they were sent"
    AGAIN_MARKED = "what a crash brings late is marked `redelivered`, and keeps its own order"
    NOT_PASSED_OVER = "a device that was there, or was told that it resumed, misses nothing"
    AS_DOCUMENTED = "a node says what docs/protocol.md says, and nothing else"
    TO_ADDRESSEE = "a message comes to its recipient alone, as it was sent"


class Key(NamedTuple):
    """Names a message: the n-th, from 0, of a sender to a recipient."""

    sender: str
    to: str
    n: int

    def __str__(self) -> str:
        return f"{self.sender}>{self.to}#{self.n}"


@dataclass(slots=True)
class Window:
    """The time in which a fault was in effect, or a client misbehaved.

    Attributes:
        planned: order must hold through it, and nothing may fail.
        forgets: Redis lost what it had stored.
        holds: what was on its way may have stood still, and come when it was over.
        victims: nodes that may be silent meanwhile.
        healed: infinite while it lasts.
    """

    name: str
    began: float
    planned: bool = False
    forgets: bool = False
    victims: tuple[str, ...] = ()
    detail: str = ""
    healed: float = math.inf
    holds: bool = False

    def touches(self, since: float, until: float) -> bool:
        """Whether any of this time was in its reach."""
        return self.began <= until and since <= self.healed + AFTERSHOCK_S


class Windows:
    """All there were."""

    def __init__(self) -> None:
        self._all: list[Window] = []

    def __iter__(self) -> Iterator[Window]:
        return iter(self._all)

    def add(self, window: Window) -> None:
        """One begins."""
        self._all.append(window)

    @property
    def open(self) -> bool:
        """Whether one lasts."""
        return any(window.healed == math.inf for window in self._all)

    def near(self, since: float, until: float) -> list[Window]:
        """Those that touch a time."""
        return [window for window in self._all if window.touches(since, until)]

    def calm(self, since: float, until: float) -> bool:
        """Whether nothing was broken in all this time."""
        return not any(not window.planned for window in self.near(since, until))


@dataclass(slots=True)
class Write:
    """A message was sent, for the first time or again."""

    at: float
    session: str
    node: str
    again: bool


@dataclass(slots=True)
class Answer:
    """A final answer came."""

    at: float
    status: Status
    code: str | None
    by: By | None


@dataclass(slots=True)
class Session:
    """One connection of a device, and since when."""

    name: str
    node: str
    at: float = 0.0


class Device:
    """An instance of a user's client; lives through many sessions.

    Attributes:
        by: how it acknowledges.
        library: an application sits on it: what it takes counts, not what comes.
        copies: what this session or, until there is a new one, the last has brought, and was not
            acknowledged; in the order in which it came.
        lately: what happened at it, and when: for stories.
        unbroken_since: since then each welcome said that nothing was missed; infinite before the first.
    """

    def __init__(self, user: str, name: str, by: By, *, library: bool = False) -> None:
        self.user = user
        self.name = name
        self.by = by
        self.library = library
        self.session: Session | None = None
        self.unbroken_since = math.inf
        self.streams: dict[str, Stream] = {}
        self.copies: list[Copy] = []
        self.lately: deque[tuple[float, str]] = deque(maxlen=LATELY)

    def __str__(self) -> str:
        return f"{self.user}/{self.name}"


class Stream:
    """What a device has of one sender. Bits for each number, since a soak has millions of them."""

    SEEN, UNMARKED, TAKEN = 1, 2, 4

    def __init__(self) -> None:
        self.flags = bytearray()
        self.top = -1  # the highest number that came
        self.late = -1  # the highest that came late
        self.taken_top = -1  # the highest that the application has
        self.passed: dict[
            int, tuple[float, float]
        ] = {}  # those that did not come: when, and since when unbroken

    def get(self, n: int) -> int:
        """The bits of a number."""
        return self.flags[n] if n < len(self.flags) else 0

    def put(self, n: int, bits: int) -> None:
        """Sets bits of a number."""
        if n >= len(self.flags):
            self.flags.extend(bytes(n + 64 - len(self.flags)))
        self.flags[n] |= bits

    def new_life(self) -> None:
        """Another application begins: it has taken nothing."""
        self.flags = bytearray(bits & ~self.TAKEN for bits in self.flags)
        self.taken_top = -1


@dataclass(slots=True)
class Copy:
    """A frame that brought a message to a device."""

    at: float
    device: Device
    session: str
    key: Key
    seq: str
    marked: bool
    acknowledged_at: float = math.inf


@dataclass(slots=True)
class Message:
    """A message, and what became of it.

    Attributes:
        row: of the table: what went on when it was sent.
        abandoned: its sender's client ended, or gave it up: no answer is owed.
        deaf_until: its sender did not read until then.
        due_here: it should have come long since, to somebody who was there: it is not in Redis any more.
        around: what had happened lately when a device got a later one in its place.
    """

    key: Key
    sent_at: float
    row: int
    writes: list[Write] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    taken: list[tuple[float, Device]] = field(default_factory=list)
    abandoned: float = math.inf
    deaf_until: float = 0.0
    overdue: bool = False
    due_here: bool = False
    around: "Around | None" = None

    @property
    def status(self) -> Status | None:
        """That of the first answer."""
        return self.answers[0].status if self.answers else None

    @property
    def owed(self) -> bool:
        """Whether the cluster said that the recipient will have it, or has."""
        return any(answer.status != "failed" for answer in self.answers)

    @property
    def reached_at(self) -> float:
        """When the first device had it; infinite if none has."""
        raw = [copy.at for copy in self.copies if not copy.device.library]
        return min([*raw, *(at for at, _ in self.taken)], default=math.inf)

    def is_sent_again(self, at: float, windows: Windows) -> bool:
        """False if it was written once by a sender who is gone, and something stood still meanwhile: nobody
        has sent it again since, and what comes now may have been on its way. (The sender's node may have sent
        it again before the sender went: nobody outside can see that.)"""
        if len(self.writes) != 1 or self.abandoned > at:
            return True
        return not any(window.holds for window in windows.near(self.sent_at, at))

    @property
    def settled(self) -> bool:
        """Whether nothing more need come of it."""
        if not self.answers:
            return self.abandoned < math.inf
        return not self.owed or self.reached_at < math.inf

    @property
    def last_at(self) -> float:
        """When anything last became of it."""
        marks: list[Write | Answer | Copy] = [*self.writes, *self.answers, *self.copies]
        return max([self.sent_at, *(mark.at for mark in marks), *(at for at, _ in self.taken)])


Around = list[tuple[Device, list[tuple[float, str]]]]
"""What happened lately at devices."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that was broken.

    Attributes:
        story: all that became of the message, a line each.
    """

    promise: Promise
    at: float
    words: str
    key: Key | None = None
    story: tuple[str, ...] = ()


@dataclass(slots=True)
class Suspicion:
    """A breach, unless something was broken meanwhile."""

    breach: Breach
    since: float
    message: Message | None
    around: Around
