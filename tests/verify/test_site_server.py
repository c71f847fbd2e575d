"""The Redis of a site: what it keeps and loses when it is stopped, emptied, rolled back and frozen."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from ring.protocol.codes import RingError
from ring.store import embedded
from ring.store.client import Redis
from ring.store.connection import StoreError
from ring.verify.server import Store

DEADLINE_S = 60


@pytest.fixture(autouse=True)
async def _deadline() -> AsyncIterator[None]:
    with trio.fail_after(DEADLINE_S):
        yield


async def count(store: Store) -> int:
    """Counts once more in it; 1 where it has forgotten."""
    return int(await store._ask(lambda redis: redis.incr("count")))


async def test_what_it_has_it_keeps(tmp_path: Path) -> None:
    """A restart loses nothing; it stays at its address, and is another process."""
    async with Store(tmp_path, "test") as store:
        assert await count(store) == 1
        address, pid = store.address, store.pid
        await store.stop()
        assert store.pid == 0
        await store.start()
        assert await count(store) == 2
        assert store.address == address
        assert store.pid not in (0, pid)


async def test_what_it_loses(tmp_path: Path) -> None:
    """Emptied while it runs, or while it is stopped, it has nothing."""
    async with Store(tmp_path, "test") as store:
        assert await count(store) == 1
        await store.flush()
        assert await count(store) == 1
        await store.stop()
        store.empty()
        await store.start()
        assert await count(store) == 1


async def test_it_is_rolled_back(tmp_path: Path) -> None:
    """It has what it had when the copy was made, as often as one likes; a copy can be made anew."""
    async with Store(tmp_path, "test") as store:

        async def roll_back() -> bool:
            await store.stop()
            different = store.roll_back()
            await store.start()
            return different

        assert await count(store) == 1
        before = trio.current_time()
        await store.copy()
        assert before <= store.copied_at <= trio.current_time()
        assert not await roll_back()
        for _ in range(2):
            assert [await count(store), await count(store)] == [2, 3]
            assert await roll_back()
        await store.flush()
        assert await roll_back()
        assert await count(store) == 2
        await store.copy()
        assert await count(store) == 3
        assert await roll_back()
        assert await count(store) == 3


async def test_it_stands_still(tmp_path: Path) -> None:
    """Frozen it answers nobody; then it goes on. A frozen one is ended like any other."""
    async with Store(tmp_path, "test") as store:
        assert await store.answers(DEADLINE_S)
        store.freeze()
        assert not await store.answers(0.3)
        store.thaw()
        assert await store.answers(DEADLINE_S)
        store.freeze()


async def test_its_errors_come_out_as_they_are(tmp_path: Path) -> None:
    """Not in a group."""
    async with Store(tmp_path, "test") as store:

        async def mistake(redis: Redis) -> None:
            await redis.set("text", "words")
            await redis.incr("text")

        with pytest.raises(StoreError, match="not an integer"):
            await store._ask(mistake)


async def test_there_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is given up again."""

    def find_server() -> str:
        raise RingError("no server to embed")

    monkeypatch.setattr(embedded, "find_server", find_server)
    with pytest.raises(RingError, match=r"^no server to embed$"):
        async with Store(tmp_path, "test"):
            pass
