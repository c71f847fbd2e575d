"""A vault on a real server, at a time that the test sets."""

import itertools
import shutil
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from ring.mailbox.vault import Job, Page, Push, Read, Remove, Result, Stored, Vault, Verdict
from ring.protocol.peer import Seq
from ring.store.client import Redis
from ring.store.embedded import find_server
from ring.store.keys import Keys
from tests.mailbox.vault_model import ModelVault

T0 = 1_700_000_000_000
"""When a test begins, in ms."""
PROGRAMS = sorted({find_server(), shutil.which("redis-server") or find_server()})
"""The servers that are installed."""
SLOT = 7
KEEP_MS = 1_000_000

_clusters = map("vault{}".format, itertools.count())


def letter(
    number: int, body: bytes = b"x", *, epoch: int = 1, ttl_ms: int = 0, seen: bool = False, origin: str = ""
) -> Stored:
    """One of the first owner, unless told otherwise."""
    return Stored(epoch, number, ttl_ms, seen, origin, body)


class Strongroom:
    """One cluster's vault, the server under it, and a model beside it that answers every job too."""

    def __init__(self, redis: Redis, **options: Any) -> None:
        self.redis = redis
        self.keys = Keys(next(_clusters))
        bounds: dict[str, Any] = {"letters": 100, "size": 10_000, "keep_s": KEEP_MS / 1000}
        pages = {name: options.pop(name) for name in ("page_letters", "page_bytes") if name in options}
        bounds |= {name: options.pop(name) for name in ("letters", "size") if name in options}
        self.vault = Vault(redis, self.keys, **bounds, **pages, **options, now_ms=T0)
        self.model = ModelVault(**bounds, **pages, now_ms=T0)

    def later(self, ms: int) -> None:
        """Moves the time."""
        assert self.vault.now_ms is not None
        self.vault.now_ms += ms
        self.model.now_ms += ms

    async def do(self, *jobs: Job) -> list[Result]:
        """Does jobs; the model must say the same."""
        results = await self.vault.exchange(jobs)
        assert results == [self.model.do(job) for job in jobs]
        return results

    async def push(self, *letters: Stored, epoch: int = 1, user: str = "ann") -> list[Verdict]:
        """Pushes for the owner of an epoch."""
        (verdicts,) = await self.do(Push(user, SLOT, epoch, list(letters)))
        assert isinstance(verdicts, list)
        return verdicts

    async def page(self, epoch: int = 1, after: Seq | None = None, user: str = "ann") -> Page:
        """Reads for the owner of an epoch."""
        (page,) = await self.do(Read(user, SLOT, epoch, after))
        assert isinstance(page, Page)
        return page

    async def read(self, epoch: int = 1, after: Seq | None = None, user: str = "ann") -> list[Stored]:
        """Reads where it is neither fenced nor too much for a page."""
        page = await self.page(epoch, after, user)
        assert not page.fenced
        assert not page.more
        return page.letters

    async def remove(self, *numbers: int, epoch: int = 1, user: str = "ann") -> None:
        """Removes letters of one epoch."""
        assert await self.do(Remove(user, SLOT, [(epoch, number) for number in numbers])) == [None]

    async def fence(self) -> int:
        """The slot's fence as it is stored."""
        return int(await self.redis.get(self.keys.fence(SLOT)) or 0)

    async def left_ms(self, user: str = "ann") -> tuple[int, int]:
        """For how long box and read mark will live; -2 if there is none."""
        names = (self.keys.box(SLOT, user), self.keys.read_mark(SLOT, user))
        box, mark = [await self.redis.pttl(name) for name in names]
        return box, mark

    async def soonest_ms(self, user: str = "ann") -> int:
        """How long the box itself says that none of its letters will expire."""
        text: Any = await self.redis.lindex(self.keys.box(SLOT, user), -1)
        return int(struct.unpack_from(">QQQQ", text)[3]) - self.model.now_ms

    async def inspect(self, user: str = "ann") -> None:
        """Looks into the box itself: it is the model's, in order, adds up, and lives long enough."""
        texts: Any = await self.redis.lrange(self.keys.box(SLOT, user), 0, -1)
        heads = [struct.unpack_from(">QQQQIHB", text) for text in texts]
        kept = self.model.box(SLOT, user).kept
        assert [(head[0], head[1], head[2]) for head in heads] == [(*one.seq, one.expires_ms) for one in kept]
        assert heads == sorted(heads)
        box_ms, mark_ms = await self.left_ms(user)
        if not heads:
            assert (box_ms, mark_ms) == (-2, -2)
            return
        assert heads[-1][4] == sum(len(one.letter.body) for one in kept)
        assert heads[-1][3] <= min(one.expires_ms for one in kept)
        # The server's own time runs on between its setting an expiry and our looking at it.
        assert box_ms > max(one.expires_ms for one in kept) - self.model.now_ms - 5_000
        assert mark_ms == -2 or abs(mark_ms - box_ms) < 1000


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Redis]:
    """A client that runs."""
    redis = Redis.from_url(url, client_name="tests")
    async with trio.open_nursery() as nursery:
        await nursery.start(redis.run)
        yield redis
        nursery.cancel_scope.cancel()
