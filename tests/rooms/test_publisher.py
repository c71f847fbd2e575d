"""The way of a publish to Redis: batches in order, bounds, one answer in bounded time whatever happens."""

from typing import cast

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from ring.rooms.publisher import ANSWER_S, OVERHEAD_BYTES, PIPELINE_COMMANDS, QUEUED_BYTES, Publisher
from ring.store.client import Redis
from ring.store.connection import StoreError, StoreUnavailable
from tests.rooms.fakes import FakeRedis, settle


class Asker:
    """Who publishes."""

    def __init__(self) -> None:
        self.unanswered = 0
        self.answers: list[tuple[str, str]] = []
        self.messages: list[str] = []

    def confirm(self, frame_id: str) -> None:
        self.answers.append((frame_id, "ok"))

    def refuse(self, frame_id: str, code: str, message: str) -> None:
        self.answers.append((frame_id, code))
        self.messages.append(message)

    def heard(self) -> list[tuple[str, str]]:
        answers, self.answers = self.answers, []
        return answers


@pytest.fixture
def redis() -> FakeRedis:
    """A Redis that takes everything."""
    return FakeRedis()


@pytest.fixture
def asker() -> Asker:
    """Somebody who publishes."""
    return Asker()


@pytest.fixture
async def publisher(redis: FakeRedis, nursery: trio.Nursery) -> Publisher:
    """A publisher that runs."""
    publisher = Publisher()
    nursery.start_soon(publisher.run, cast("Redis", redis))
    await settle()
    return publisher


async def test_what_a_tick_brings_is_one_pipeline(
    publisher: Publisher, redis: FakeRedis, asker: Asker
) -> None:
    """In order; each is answered when Redis has answered."""
    for index in range(5):
        publisher.publish(asker, f"p{index}", b"c", b"%d" % index)
    assert (asker.heard(), asker.unanswered) == ([], 5)
    await settle()
    assert redis.pipelines == [[(b"c", b"%d" % index) for index in range(5)]]
    assert asker.heard() == [(f"p{index}", "ok") for index in range(5)]
    assert (asker.unanswered, publisher.queued_bytes) == (0, 0)
    publisher.publish(asker, "p5", b"d", b"5")
    await settle()
    assert redis.pipelines[1:] == [[(b"d", b"5")]]
    assert publisher.outcomes["ok"] == 6


async def test_what_comes_meanwhile_goes_next_and_together(
    publisher: Publisher, redis: FakeRedis, asker: Asker
) -> None:
    """One pipeline at a time: nothing overtakes."""
    redis.stalls = trio.Event()
    publisher.publish(asker, "p0", b"c", b"0")
    await settle()
    for index in (1, 2, 3):
        publisher.publish(asker, f"p{index}", b"c", b"%d" % index)
        await settle()
    assert len(redis.pipelines) == 1
    redis.stalls.set()
    await settle()
    assert [len(pipeline) for pipeline in redis.pipelines] == [1, 3]
    assert [frame_id for frame_id, _ in asker.heard()] == ["p0", "p1", "p2", "p3"]


async def test_a_pipeline_is_bounded(publisher: Publisher, redis: FakeRedis, asker: Asker) -> None:
    """What is more goes in the next one."""
    for index in range(PIPELINE_COMMANDS + 1):
        publisher.publish(asker, f"p{index}", b"c", b"")
    await settle()
    assert [len(pipeline) for pipeline in redis.pipelines] == [PIPELINE_COMMANDS, 1]
    assert len(asker.heard()) == PIPELINE_COMMANDS + 1


async def test_the_queue_is_bounded(publisher: Publisher, redis: FakeRedis, asker: Asker) -> None:
    """In bytes, those that Redis has not answered included; what is beyond is told at once, and not kept."""
    redis.stalls = trio.Event()
    half = bytes(QUEUED_BYTES // 2 - OVERHEAD_BYTES)
    for index in range(2):
        publisher.publish(asker, f"p{index}", b"c", half)
        await settle()
    publisher.publish(asker, "over", b"c", b"")
    assert asker.heard() == [("over", "busy")]
    redis.stalls.set()
    await settle()
    assert asker.heard() == [("p0", "ok"), ("p1", "ok")]
    publisher.publish(asker, "again", b"c", half)
    await settle()
    assert asker.heard() == [("again", "ok")]
    assert publisher.outcomes["busy"] == 1


async def test_without_redis_it_is_refused_at_once(
    publisher: Publisher, redis: FakeRedis, asker: Asker
) -> None:
    """Nothing waits for a connection, and nothing goes out later."""
    redis.connected = False
    publisher.publish(asker, "p0", b"c", b"0")
    assert asker.heard() == [("p0", "rooms_unavailable")]
    assert asker.messages == ["rooms do not work now: Redis is away; not published"]
    redis.connected = True
    await settle()
    assert redis.pipelines == []
    assert publisher.outcomes["rooms_unavailable"] == 1


async def test_what_is_queued_when_redis_goes_is_refused(
    publisher: Publisher, redis: FakeRedis, asker: Asker
) -> None:
    """It was not sent: the answer says that it was not published."""
    redis.stalls = trio.Event()
    publisher.publish(asker, "p0", b"c", b"0")
    await settle()
    publisher.publish(asker, "p1", b"c", b"1")
    redis.breaks, redis.connected = StoreUnavailable("it broke"), False
    redis.stalls.set()
    await settle()
    assert asker.heard() == [("p0", "rooms_unavailable"), ("p1", "rooms_unavailable")]
    assert asker.messages == [
        "Redis has not answered: it may have been published",
        "rooms do not work now: Redis is away; not published",
    ]
    assert (publisher.outcomes["unknown"], publisher.outcomes["rooms_unavailable"]) == (1, 1)
    assert len(redis.pipelines) == 1


async def test_without_an_answer_it_is_given_up(
    publisher: Publisher, redis: FakeRedis, asker: Asker, autojump_clock: MockClock
) -> None:
    """Within the time that every command gets, also for what waited behind it; then it goes on."""
    redis.stalls = trio.Event()
    began = trio.current_time()
    publisher.publish(asker, "p0", b"c", b"0")
    await trio.sleep(ANSWER_S / 2)  # of the test's own clock, which jumps
    publisher.publish(asker, "p1", b"c", b"1")
    assert asker.heard() == []
    await trio.sleep(ANSWER_S / 2 + 0.01)
    assert asker.heard() == [("p0", "rooms_unavailable")]
    await trio.sleep(ANSWER_S / 2)
    assert asker.heard() == [("p1", "rooms_unavailable")]
    assert trio.current_time() - began < 1.6 * ANSWER_S
    assert set(asker.messages) == {"Redis has not answered: it may have been published"}
    redis.stalls = None
    publisher.publish(asker, "p2", b"c", b"2")
    await settle()
    assert (asker.heard(), asker.unanswered, publisher.queued_bytes) == ([("p2", "ok")], 0, 0)


async def test_what_is_too_late_to_be_sent_is_not(
    publisher: Publisher, redis: FakeRedis, asker: Asker, autojump_clock: MockClock
) -> None:
    """It came in the same moment as one that got no answer: it is refused with it, and never sent."""
    redis.stalls = trio.Event()
    publisher.publish(asker, "p0", b"c", b"0")
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    assert len(redis.pipelines) == 1
    publisher.publish(asker, "p1", b"c", b"1")
    await trio.sleep(ANSWER_S + 0.01)
    assert asker.heard() == [("p0", "rooms_unavailable"), ("p1", "rooms_unavailable")]
    assert len(redis.pipelines) == 1
    assert asker.messages[1] == "rooms do not work now: Redis is away; not published"


async def test_what_redis_refuses_is_told_and_logged_once(
    publisher: Publisher, redis: FakeRedis, asker: Asker
) -> None:
    """Its neighbours in the pipeline are published."""
    redis.errors.extend([StoreError("NOPERM no rights"), StoreUnavailable("BUSY a script runs")])
    with capture_logs() as logs:
        for index in range(3):
            publisher.publish(asker, f"p{index}", b"c", b"%d" % index)
        await settle()
    assert asker.heard() == [("p0", "rooms_unavailable"), ("p1", "rooms_unavailable"), ("p2", "ok")]
    assert asker.messages == ["Redis refused it; not published"] * 2
    assert [log["reason"] for log in logs] == ["NOPERM no rights"]
    assert (publisher.outcomes["refused"], publisher.outcomes["ok"]) == (2, 1)


async def test_before_and_after_it_runs_it_refuses(
    redis: FakeRedis, asker: Asker, nursery: trio.Nursery
) -> None:
    """A node that starts, or ends, has clients too."""
    publisher = Publisher()
    publisher.publish(asker, "p0", b"c", b"")
    async with trio.open_nursery() as running:
        running.start_soon(publisher.run, cast("Redis", redis))
        await settle()
        publisher.publish(asker, "p1", b"c", b"")
        await settle()
        running.cancel_scope.cancel()
    publisher.publish(asker, "p2", b"c", b"")
    assert asker.heard() == [("p0", "rooms_unavailable"), ("p1", "ok"), ("p2", "rooms_unavailable")]
