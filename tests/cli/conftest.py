"""A cluster of canned answers, and a machine on which no `ring dev` runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from ring.cluster.scripts import Scripts
from ring.store.client import Redis
from ring.store.keys import Keys
from tests.cli.canned import CannedNode, members


@pytest.fixture
def canned() -> Iterator[CannedNode]:
    """A node of canned answers."""
    node = CannedNode()
    yield node
    node.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for state in which nothing is, and no variables that would lead to a cluster."""
    for variable in ("RING_API", "RING_API_KEY_FILE", "RING_REDIS", "RING_CLUSTER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def stored(redis_url: str) -> str:
    """The URL of a Redis in which cluster `test` has two members."""

    async def join() -> None:
        redis = Redis.from_url(redis_url, client_name="test")
        async with trio.open_nursery() as nursery:
            await nursery.start(redis.run)
            scripts = Scripts(redis, Keys("test"), ttl_ms=60_000)
            for member in members():
                await scripts.join(member, 0)
            nursery.cancel_scope.cancel()

    trio.run(join)
    return redis_url
