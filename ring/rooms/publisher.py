"""What sessions publish, on its way to Redis: a queue that the pump's tick fills, a task that empties it.

All that is queued goes in one pipeline, and the next one when that is answered: so the order of a session and
of a room is kept, and the price of a round trip is shared by everything that came meanwhile.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, NoReturn, Protocol

import structlog
import trio

from ring.protocol.codes import ErrorCode, RingError
from ring.store.client import Redis

ANSWER_S = 4.5
"""How long a room command may go without its answer."""

QUEUED_BYTES = 8 * 1024 * 1024
"""Of all sessions, not answered yet; beyond is `busy`. What a Redis that stalls may cost in memory."""

PIPELINE_COMMANDS = 1000
"""In one pipeline: some milliseconds of work, then other tasks get their turn."""

OVERHEAD_BYTES = 512
"""What a publish in the queue costs beside its payload, about."""

UNAVAILABLE = "rooms do not work now: Redis is away; not published"
UNKNOWN = "Redis has not answered: it may have been published"

_log = structlog.get_logger()


class Publishing(Protocol):
    """Who published, and is told what became of it; a member is one."""

    unanswered: int

    def confirm(self, frame_id: str) -> None:
        """Redis has taken it."""

    def refuse(self, frame_id: str, code: ErrorCode, message: str) -> None:
        """It has not, or nobody knows."""


class _Waiting(NamedTuple):
    who: Publishing
    frame_id: str
    channel: bytes
    payload: bytes
    deadline: float


class Publisher:
    """Publishes for the sessions of a node.

    Attributes:
        outcomes: how many publishes ended how: `ok`, `rooms_unavailable` (not published), `unknown` (no
            answer), `refused` (Redis answered an error), `busy` (the queue is full).
    """

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(("ok", "rooms_unavailable", "unknown", "refused", "busy"), 0)
        self.queued_bytes = 0
        self._queue: deque[_Waiting] = deque()
        self._wanted = trio.Event()
        self._redis: Redis | None = None  # while `run` runs

    def publish(self, who: Publishing, frame_id: str, channel: bytes, payload: bytes) -> None:
        """Queues a message; `who` is told what became of it within `ANSWER_S`. A plain call."""
        if self._redis is None or not self._redis.connected:
            self._refuse(who, frame_id, "rooms_unavailable", UNAVAILABLE)
            return
        size = len(payload) + OVERHEAD_BYTES
        if self.queued_bytes + size > QUEUED_BYTES:
            self._refuse(who, frame_id, "busy", "too much is being published at this node", ErrorCode.BUSY)
            return
        self.queued_bytes += size
        who.unanswered += 1
        self._queue.append(_Waiting(who, frame_id, channel, payload, trio.current_time() + ANSWER_S))
        self._wanted.set()

    async def run(self, redis: Redis) -> NoReturn:
        """Publishes what is queued, until cancelled."""
        self._redis = redis
        try:
            while True:
                await self._wanted.wait()
                await self._send(redis)
                if not self._queue:
                    self._wanted = trio.Event()
        finally:
            self._redis = None

    async def _send(self, redis: Redis) -> None:
        queue = self._queue
        batch = [queue.popleft() for _ in range(min(len(queue), PIPELINE_COMMANDS))]
        # The store's client would wait for a connection: nobody here has asked for that.
        if not redis.connected or batch[0].deadline <= trio.current_time():
            await trio.lowlevel.checkpoint()
            self._settle(batch, "rooms_unavailable", UNAVAILABLE)
            return
        pipeline = redis.pipeline(transaction=False)
        for waiting in batch:
            pipeline.execute_command("PUBLISH", waiting.channel, waiting.payload)
        with trio.move_on_at(batch[0].deadline):
            try:
                replies = await pipeline.execute(raise_on_error=False)
            except RingError:
                self._settle(batch, "unknown", UNKNOWN)
                return
            self._settle_each(batch, replies)
            return
        self._settle(batch, "unknown", UNKNOWN)

    def _settle_each(self, batch: list[_Waiting], replies: list[object]) -> None:
        for waiting, reply in zip(batch, replies, strict=True):
            self._release(waiting)
            if isinstance(reply, Exception):
                if not self.outcomes["refused"]:
                    _log.error("redis refuses to publish for rooms", reason=str(reply))
                self._refuse(waiting.who, waiting.frame_id, "refused", "Redis refused it; not published")
            else:
                self.outcomes["ok"] += 1
                waiting.who.confirm(waiting.frame_id)

    def _settle(self, batch: Iterable[_Waiting], outcome: str, message: str) -> None:
        for waiting in batch:
            self._release(waiting)
            self._refuse(waiting.who, waiting.frame_id, outcome, message)

    def _release(self, waiting: _Waiting) -> None:
        self.queued_bytes -= len(waiting.payload) + OVERHEAD_BYTES
        waiting.who.unanswered -= 1

    def _refuse(
        self,
        who: Publishing,
        frame_id: str,
        outcome: str,
        message: str,
        code: ErrorCode = ErrorCode.ROOMS_UNAVAILABLE,
    ) -> None:
        self.outcomes[outcome] += 1
        who.refuse(frame_id, code, message)
