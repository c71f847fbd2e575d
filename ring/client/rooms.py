"""A client's rooms: which it wants to be in, which its session is in, and what to say to make them equal.

Pure. Membership is the application's wish (client.py). It outlives the sessions: each of them (session.py),
which write what is asked for here and bring the answers, is made a member anew. Publishing goes the same way
and is at most once: what had no answer when a session ended is not repeated.
"""

import secrets
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from heapq import heappop, heappush

import msgspec

from ring.client.backoff import Backoff
from ring.client.inbox import Inbox
from ring.client.messages import RoomEnded, RoomGap, RoomMessage
from ring.protocol import client as wire
from ring.protocol.codes import ErrorCode

Frame = wire.Join | wire.Leave | wire.Publish

_UNKNOWN_FATE = "the connection broke before the answer: it may have been published, and is not sent again"
_CUT = "the connection was made again"


class Asked:
    """What a task waits for; `settle` is called once, when there is nothing more to wait for.

    Attributes:
        answered: whether it was done or refused; if not, there is no connection and will be none.
        refusal: why it was not done.
    """

    __slots__ = ("answered", "refusal", "settle", "settled")

    def __init__(self, settle: Callable[[], None]) -> None:
        self.settle = settle
        self.settled = False
        self.answered = False
        self.refusal: tuple[ErrorCode, str] | None = None

    def answer(self, refusal: tuple[ErrorCode, str] | None = None) -> None:
        """It is done, or refused."""
        self.answered = True
        self.refusal = refusal
        self.finish()

    def finish(self) -> None:
        """There is nothing more to wait for."""
        self.settled = True
        self.settle()


class Standing(Enum):
    """What the present session is in a room, as far as this end knows."""

    OUT = auto()
    JOINING = auto()
    IN = auto()
    LEAVING = auto()


class Membership:
    """A room that the application wants to be in, or that a session is not yet out of."""

    __slots__ = ("established", "gap_due", "joiners", "leavers", "room", "standing", "tries", "wanted")

    def __init__(self, room: str) -> None:
        self.room = room
        self.wanted = True
        self.established = False  # it was granted: what becomes of it is told in the iteration
        self.standing = Standing.OUT
        self.gap_due = False  # sessions have changed since
        self.tries = 0  # refused in a row
        self.joiners: list[Asked] = []
        self.leavers: list[Asked] = []

    @property
    def settled(self) -> bool:
        """Whether nothing need be said about it, or something has been."""
        if self.standing is Standing.OUT:
            return not self.wanted
        return self.standing is not Standing.IN or self.wanted


class Publishing:
    """A message to a room on its way."""

    __slots__ = ("asked", "frame")

    def __init__(self, frame: wire.Publish, asked: Asked) -> None:
        self.frame = frame
        self.asked = asked


class Rooms:
    """See the module.

    Args:
        inbox: where messages and gaps go.
        backoff: when to ask again for what was refused, and may be granted later.
    """

    __slots__ = (
        "_asked",
        "_backoff",
        "_due",
        "_ids",
        "_in_flight",
        "_inbox",
        "_later",
        "_memberships",
        "_prefix",
        "_publishing",
    )

    def __init__(self, inbox: Inbox, backoff: Backoff) -> None:
        self._inbox = inbox
        self._backoff = backoff
        self._in_flight = 1
        self._prefix = secrets.token_hex(6)
        self._ids = 0
        self._memberships: dict[str, Membership] = {}
        self._due: deque[Membership] = deque()  # to look at now
        self._later: list[tuple[float, int, Membership]] = []  # a heap: to look at then
        self._publishing: deque[Publishing] = deque()  # not written
        self._asked: dict[str, Membership | Publishing] = {}  # written in this session, by id

    # --- from the application

    @property
    def wanted(self) -> frozenset[str]:
        """The rooms that the application is a member of, whether the present session already is or not."""
        return frozenset(m.room for m in self._memberships.values() if m.wanted and m.established)

    def join(self, room: str, settle: Callable[[], None]) -> Asked:
        """Wants to be in a room; settled when a session is, or when this is refused."""
        asked = Asked(settle)
        membership = self._memberships.get(room)
        if membership is None or not membership.wanted:
            self._inbox.forget(room)  # the end of an earlier membership, if that
        if membership is None:
            membership = self._memberships[room] = Membership(room)
            self._due.append(membership)
        elif not membership.wanted:
            membership.wanted = True
            if membership.standing is not Standing.LEAVING:
                _answer(membership.leavers)  # there is no need to leave first
        if membership.standing is Standing.IN:
            membership.established = True
            asked.answer()
        else:
            membership.joiners.append(asked)
        return asked

    def leave(self, room: str, settle: Callable[[], None]) -> Asked:
        """Wants to be in a room no more: nothing of it comes from now on. Settled when the session is out."""
        asked = Asked(settle)
        membership = self._memberships.get(room)
        if membership is None or not membership.wanted:
            asked.answer((ErrorCode.NOT_JOINED, f"leave: {room} was not joined"))
            return asked
        membership.leavers.append(asked)
        self._unwant(membership)
        return asked

    def publish(self, room: str, data: msgspec.Raw, echo: bool, settle: Callable[[], None]) -> Asked:
        """Publishes to a room, in the order of the calls; settled by the node's answer."""
        asked = Asked(settle)
        self._publishing.append(Publishing(wire.Publish(self._new_id(), room, data, echo), asked))
        return asked

    def abandon(self, asked: Asked) -> None:
        """Nobody waits for it any more: what is not written is not published, and nothing is joined by it."""
        if asked.settled:
            return
        self._publishing = deque(each for each in self._publishing if each.asked is not asked)
        for membership in self._memberships.values():
            if asked in membership.joiners:
                membership.joiners.remove(asked)
                if not membership.joiners and not membership.established:
                    self._unwant(membership)
                return

    def _unwant(self, membership: Membership) -> None:
        membership.wanted = membership.established = membership.gap_due = False
        self._inbox.forget(membership.room)
        _answer(membership.joiners, (ErrorCode.NOT_JOINED, f"join: {membership.room} was left meanwhile"))
        if membership.standing is Standing.OUT:
            self._drop(membership)
        elif membership.standing is Standing.IN:
            self._due.append(membership)

    def _drop(self, membership: Membership) -> None:
        """The session is out of the room, as far as can be, and none shall be in it."""
        del self._memberships[membership.room]
        membership.wanted = False
        membership.standing = Standing.OUT
        _answer(membership.leavers)

    # --- from the session

    def begin(self, in_flight: int) -> None:
        """A session begins, which allows this many unanswered frames."""
        self._in_flight = in_flight
        self._due.extend(self._memberships.values())

    def next(self, now: float) -> Frame | None:
        """The next frame, for the caller to write now; None if none is left, or none may be written yet."""
        while self._later and self._later[0][0] <= now:
            self._due.append(heappop(self._later)[2])
        if len(self._asked) >= self._in_flight:
            return None
        while self._due:
            membership = self._due.popleft()
            if membership.settled:
                continue  # it has been looked at since, or dropped
            frame_id = self._new_id()
            self._asked[frame_id] = membership
            if membership.wanted:
                membership.standing = Standing.JOINING
                return wire.Join(frame_id, membership.room)
            membership.standing = Standing.LEAVING
            return wire.Leave(frame_id, membership.room)
        if self._publishing:
            publishing = self._publishing.popleft()
            self._asked[publishing.frame.id] = publishing
            return publishing.frame
        return None

    @property
    def next_at(self) -> float:
        """When there will be something to ask for again."""
        return self._later[0][0] if self._later else float("inf")

    def answer(self, frame_id: str, refusal: tuple[ErrorCode, str] | None, now: float) -> bool:
        """A node's answer came; False if it answers nothing that was asked for."""
        asked = self._asked.pop(frame_id, None)
        if asked is None:
            return False
        if isinstance(asked, Publishing):
            asked.asked.answer(refusal)
        elif asked.standing is Standing.JOINING:
            self._joined(asked, refusal, now)
        else:
            self._left(asked, refusal, now)
        return True

    def offer(self, received: wire.Room, size: int) -> bool:
        """Takes in a message of a room; True if the application gets it."""
        membership = self._memberships.get(received.room)
        if membership is None or not membership.wanted:
            return False
        self._tell_gap(membership)
        self._inbox.offer_of_room(RoomMessage(received), size)
        return True

    def gap(self, room: str, reason: str) -> bool:
        """A node says that messages of a room may be missing; True if that concerns the application."""
        membership = self._memberships.get(room)
        if membership is None or not membership.established:
            return False
        if membership.standing is Standing.IN:
            self._inbox.offer_of_room(RoomGap(room, reason), 0)
        else:
            membership.gap_due = True
        return True

    def cut(self) -> None:
        """The session ended, and its memberships with it: the next one asks for those that are wanted."""
        for asked in self._asked.values():
            if isinstance(asked, Publishing):
                asked.asked.answer((ErrorCode.ROOMS_UNAVAILABLE, _UNKNOWN_FATE))
        self._asked.clear()
        self._due.clear()
        self._later.clear()
        for membership in list(self._memberships.values()):
            membership.standing = Standing.OUT
            membership.tries = 0
            membership.gap_due = membership.established
            if not membership.wanted:
                self._drop(membership)

    def clear(self) -> None:
        """There is no next session: everybody who waits is told."""
        waiting = [publishing.asked for publishing in self._publishing]
        waiting += [asked.asked for asked in self._asked.values() if isinstance(asked, Publishing)]
        for membership in self._memberships.values():
            waiting += membership.joiners + membership.leavers
        for asked in waiting:
            asked.finish()
        self._publishing.clear()
        self._asked.clear()
        self._due.clear()
        self._later.clear()
        self._memberships.clear()

    def _joined(self, membership: Membership, refusal: tuple[ErrorCode, str] | None, now: float) -> None:
        room = membership.room
        if refusal is None:
            membership.standing = Standing.IN
            membership.tries = 0
            if membership.wanted:
                membership.established = True
                self._tell_gap(membership)
                _answer(membership.joiners)
            else:
                self._due.append(membership)
            return
        membership.standing = Standing.OUT
        if not membership.wanted:
            self._drop(membership)
        elif membership.established and refusal[0].retryable:
            self._retry(membership, now)
        else:
            if membership.established:
                self._inbox.offer_of_room(RoomEnded(room, *refusal), 0)
            self._drop(membership)
            _answer(membership.joiners, refusal)

    def _left(self, membership: Membership, refusal: tuple[ErrorCode, str] | None, now: float) -> None:
        if refusal is None or refusal[0] is ErrorCode.NOT_JOINED:
            membership.standing = Standing.OUT
            if membership.wanted:
                _answer(membership.leavers)
                self._due.append(membership)
            else:
                self._drop(membership)
            return
        membership.standing = Standing.IN
        if membership.wanted:  # again: it need not be left
            membership.established = True
            _answer(membership.leavers)
            _answer(membership.joiners)
        elif refusal[0].retryable:
            self._retry(membership, now)
        else:
            leavers, membership.leavers = membership.leavers, []
            self._drop(membership)
            _answer(leavers, refusal)

    def _retry(self, membership: Membership, now: float) -> None:
        heappush(self._later, (now + self._backoff.delay(membership.tries), self._next_number(), membership))
        membership.tries += 1

    def _tell_gap(self, membership: Membership) -> None:
        """Once the session is in the room, not when the last one broke.

        Whoever reads elsewhere what was missed would else miss what is published between.
        """
        if membership.gap_due:
            membership.gap_due = False
            self._inbox.offer_of_room(RoomGap(membership.room, _CUT), 0)

    def _new_id(self) -> str:
        return f"{self._prefix}-{self._next_number()}"

    def _next_number(self) -> int:
        self._ids += 1
        return self._ids


def _answer(waiting: list[Asked], refusal: tuple[ErrorCode, str] | None = None) -> None:
    for asked in waiting:
        asked.answer(refusal)
    waiting.clear()
