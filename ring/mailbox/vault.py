"""Stored mailboxes: the letters of a user that lie in Redis, behind a fence.

`Vault` does what it is told, in the order in which it is told; spilling and reading decide what and when
(spill.py, keeping.py). Each step is atomic on the server, one Lua file per step:

- The epoch of the owner goes with every push and read. Below the slot's *fence* it is refused, above it
  raises the fence: what a new owner has read, no stale owner can write behind.
- A letter is stored once: what was pushed before is *already* there, and nothing goes in front of what is
  stored. So a push whose outcome is unknown is pushed again.
- A server that was started again, or another one that took its place, may have an older copy of the
  data: letters that were removed are there again. So each letter bears the *run* of the server that took it
  (INFO's run_id), and one of another run may have been seen.
- The server's clock decides what has expired. Mailboxes keep no promise beyond it: when it jumps, letters
  expire sooner or later by as much.
"""

from collections.abc import Sequence
from importlib import resources
from struct import Struct as Packing
from typing import Any, Final, Literal
from zlib import crc32

import structlog
from msgspec import Struct

from ring.protocol.codes import BadRequest, RingError
from ring.protocol.peer import Seq
from ring.store.client import Pipeline, Redis
from ring.store.connection import ScriptMissing, StoreError, StoreUnavailable
from ring.store.keys import Keys

PAGE_LETTERS = 512
"""Letters of one read: two windows of a session, which waits for them."""
PAGE_BYTES = 1024 * 1024
"""The same in bytes; one letter is read however long it is."""
MAX_SIZE = 2**32 - 1
"""Bytes that a mailbox may be allowed: each letter carries their sum in 32 bits."""
MAX_WAIT_S = 4.0
"""What waits for replicas holds up everybody on the connection, which after 5 s is asked whether it lives."""
MAX_ORIGIN_BYTES = 65535
_MAX_NUMBER = 2**52
"""Lua's numbers are exact up to twice this: sums of two are too."""

Verdict = Literal["stored", "already", "fenced", "full", "disordered", "unsafe"]
"""What became of a pushed letter: it is stored now | was stored before | its owner is one no more | there is
no room for it | letters above it are stored, but not this one, or not one in front of it in the same push |
it is stored, but not on as many replicas or disks as were asked for."""

_VERDICTS: dict[int, Verdict] = {
    ord("s"): "stored",
    ord("a"): "already",
    ord("f"): "fenced",
    ord("F"): "full",
    ord("d"): "disordered",
}
_SEEN, _OWN_TTL = 1, 2
_PUSHED = Packing(">QQQHBI")  # epoch, number, ttl, bytes of the origin, flags, run: as push.lua takes it
_HEADER = Packing(">QQQQIHBI")  # as prelude.lua has it
_SEQ = Packing(">QQ")

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("ring.mailbox")


class Stored(Struct, gc=False):
    """A letter as it lies in Redis.

    `ttl_ms`, when pushed, is how long it may still wait, 0 for as long as mailboxes keep letters; when read
    it is what is left of that, or 0 likewise. `seen` is true if it has been on its way to a session, and when
    read also if an owner has read it before, or another run of the server took it. `origin` is the session
    that sent it to its own user, or "".
    """

    epoch: int
    number: int
    ttl_ms: int
    seen: bool
    origin: str
    body: bytes


class Push(Struct):
    """Letters to store, ascending, by the owner of `epoch`."""

    user: str
    slot: int
    epoch: int
    letters: list[Stored]


class Read(Struct):
    """The letters behind `after`, or from the first, for the owner of `epoch`."""

    user: str
    slot: int
    epoch: int
    after: Seq | None


class Remove(Struct):
    """Letters that need not be kept any longer, ascending. It may come from anyone."""

    user: str
    slot: int
    seqs: list[Seq]


class Page(Struct):
    """What a `Read` found: nothing if it was fenced. `more`: there are letters behind these."""

    fenced: bool
    letters: list[Stored]
    more: bool


Job = Push | Read | Remove
Result = list[Verdict] | Page | None | StoreError | StoreUnavailable
"""Verdicts of a `Push`, one per letter; the `Page` of a `Read`; None of a `Remove`; or the server's refusal,
when nothing of that job was done: `StoreUnavailable` if it may do it later (OOM, READONLY, LOADING, …)."""


class Vault:
    """The stored mailboxes of a cluster.

    Args:
        redis: connected or not; whoever calls waits for the connection. WAIT holds up everybody on it: where
            there are `replicas` or `fsync`, give it a connection of its own.
        keys: of the cluster.
        letters: so many lie in one mailbox.
        size: of so many bytes, counted over their bodies.
        keep_s: how long a letter without a ttl of its own is kept.
        replicas: so many must have a letter before it counts as stored.
        fsync: the disk of the server, and of `replicas`, must have it too.
        wait_s: how long they are waited for.
        page_letters: of one read.
        page_bytes: the same in bytes of bodies.
        now_ms: for tests: the time, in place of the server's.

    Raises:
        BadRequest: `size` or `wait_s` are out of bounds.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        *,
        letters: int,
        size: int,
        keep_s: float,
        replicas: int = 0,
        fsync: bool = False,
        wait_s: float = 1.0,
        page_letters: int = PAGE_LETTERS,
        page_bytes: int = PAGE_BYTES,
        now_ms: int | None = None,
    ) -> None:
        if not 0 < size <= MAX_SIZE:
            raise BadRequest(f"a mailbox: 1 to {MAX_SIZE} bytes, not {size}")
        if not 0 < wait_s <= MAX_WAIT_S:
            raise BadRequest(f"waiting for replicas: above 0 and up to {MAX_WAIT_S:g} s, not {wait_s:g}")
        self.now_ms = now_ms
        self._redis = redis
        self._keys = keys
        self._bounds = (letters, size, max(1, round(keep_s * 1000)))
        self._replicas = replicas
        self._fsync = fsync
        self._wait_ms = max(1, round(wait_s * 1000))  # 0 would be for ever
        self._page = (page_letters, page_bytes)
        self._script = redis.register_script(_source())
        self._run = 0  # of the server
        self._known = -1  # that of which connection

    async def check(self) -> None:
        """Finds out whether the server can do what is asked of it; warns where it may lose mailboxes.

        Raises:
            RingError: it cannot wait for its disk.
            StoreUnavailable: it is away.
        """
        if self._fsync:
            try:
                await self._redis.execute_command("WAITAOF", 1, 0, 1)
            except StoreError as error:
                raise RingError(await self._explain(error)) from error
        try:
            memory = await self._redis.info("memory")
            replication = await self._redis.info("replication")
        except StoreError:
            return  # INFO is not granted to everyone; nothing depends on it
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            hint = "set maxmemory-policy noeviction: stored messages are lost without a word otherwise"
            _log.warning("store may evict mailboxes", policy=policy, hint=hint)
        if (connected := replication.get("connected_slaves", 0)) < self._replicas:
            hint = "messages are stored, but not told to be queued, until there are as many"
            _log.warning("store lacks replicas", asked=self._replicas, connected=connected, hint=hint)

    async def exchange(self, jobs: Sequence[Job]) -> list[Result]:
        """Does jobs in their order and returns what came of each, in one round trip.

        It may be called again with the same jobs: what was done stays done. Where another connection has not
        read its last jobs yet, the server may do those after the repetition: a letter that was pushed
        twice and removed between may come back. It was read from there then, and is seen.

        Raises:
            StoreUnavailable: the connection broke; which jobs were done is unknown.
            BadRequest: a letter that no mailbox can hold, with a negative ttl or a number of 2^52 and more;
                nothing was sent.
        """
        results = await self._exchange(jobs)
        done = [not isinstance(result, ScriptMissing) for result in results]
        first = done.index(False) if False in done else len(done)
        # SCRIPT FLUSH, by someone: by now the client knows, and loads the script again. Unless another client
        # has done so in between: never a later job before an earlier one.
        if first < len(done) and not any(done[first:]):
            results[first:] = await self._exchange(jobs[first:])
        return results

    async def count(self, user: str, slot: int) -> int:
        """How many letters lie in a mailbox; expired ones count until they are dropped."""
        return await self._redis.llen(self._keys.box(slot, user))

    async def _exchange(self, jobs: Sequence[Job]) -> list[Result]:
        known = await self._know_the_server()
        pipeline = self._redis.pipeline(transaction=False)
        for job in jobs:
            self._add(pipeline, job)
        waits = (self._replicas or self._fsync) and any(isinstance(job, Push) for job in jobs)
        if waits:
            if self._fsync:
                pipeline.execute_command("WAITAOF", 1, self._replicas, self._wait_ms)
            else:
                pipeline.execute_command("WAIT", self._replicas, self._wait_ms)
        replies = await pipeline.execute(raise_on_error=False)
        unsafe = bool(waits) and not self._is_safe(replies.pop())
        run = self._run if known == self._redis.connections_made else None
        return [_result(job, reply, unsafe, run) for job, reply in zip(jobs, replies, strict=True)]

    async def _know_the_server(self) -> int:
        """Asks each new connection which run of the server it leads to; returns the connection's number."""
        while (made := self._redis.connections_made) != self._known:
            try:
                server = await self._redis.info("server")
            except StoreError:
                server = {}  # INFO is not granted to everyone: then a run is told from no other
            self._run = crc32(str(server.get("run_id", "")).encode())
            self._known = made
        return made

    def _add(self, pipeline: Pipeline, job: Job) -> None:
        user, slot = job.user, job.slot
        keys = (self._keys.fence(slot), self._keys.box(slot, user), self._keys.read_mark(slot, user))
        now = "" if self.now_ms is None else self.now_ms
        match job:
            case Push():
                safely = int(bool(self._replicas or self._fsync))
                args = [
                    now,
                    "push",
                    job.epoch,
                    *self._bounds,
                    safely,
                    *(_pack(one, self._run) for one in job.letters),
                ]
                pipeline.call_script(self._script, keys, args)
            case Read():
                after = ("", "") if job.after is None else job.after
                pipeline.call_script(self._script, keys, [now, "read", job.epoch, *after, *self._page])
            case _:
                named = b"".join(_SEQ.pack(*seq) for seq in job.seqs)
                pipeline.call_script(self._script, keys, [now, "remove", named])

    def _is_safe(self, reply: Any) -> bool:
        """Whether as many have what was pushed as were asked for."""
        match reply:
            case [int(disk), int(replicas)]:
                return disk >= 1 and replicas >= self._replicas
            case int(replicas):
                return replicas >= self._replicas
        # An error: the server has become a replica, or its append-only file was turned off.
        return False

    async def _explain(self, error: StoreError) -> str:
        said = str(error)
        if "unknown command" in said:
            try:
                server = await self._redis.info("server")
            except StoreError:
                server = {}
            version = server.get("redis_version", "of an unknown version")
            return (
                f"Redis {version} has no WAITAOF: to wait for the disk takes Redis 7.2 or later, or Valkey; "
                "else set mailbox_fsync to false"
            )
        if "appendonly" in said:
            return (
                "Redis keeps no append-only file, so there is nothing to wait for: set appendonly yes there, "
                "or mailbox_fsync to false here"
            )
        return f"Redis refuses WAITAOF ({said}): grant it with ACL SETUSER, or set mailbox_fsync to false"


def _source() -> str:
    here = resources.files("ring.mailbox")
    steps = [(step, (here / f"{step}.lua").read_text("utf-8")) for step in ("push", "read", "remove")]
    parts = [(here / "prelude.lua").read_text("utf-8")]
    parts += [f"if ARGV[2] == '{step}' then\n{source}\nend" for step, source in steps]
    return "\n".join(parts)


def _pack(letter: Stored, run: int) -> bytes:
    origin = letter.origin.encode()
    if max(letter.epoch, letter.number, letter.ttl_ms) >= _MAX_NUMBER:
        raise BadRequest(f"letter {letter.epoch}-{letter.number}: a number beyond what the store counts to")
    if min(letter.epoch, letter.number, letter.ttl_ms) < 0:
        raise BadRequest(f"letter {letter.epoch}-{letter.number}: a negative number, or its ttl has run out")
    if len(origin) > MAX_ORIGIN_BYTES:
        raise BadRequest(
            f"letter {letter.epoch}-{letter.number}: an origin of more than {MAX_ORIGIN_BYTES} bytes"
        )
    flags = _SEEN if letter.seen else 0
    head = _PUSHED.pack(letter.epoch, letter.number, letter.ttl_ms, len(origin), flags, run)
    return head + origin + letter.body


def _result(job: Job, reply: Any, unsafe: bool, run: int | None) -> Result:
    if isinstance(reply, StoreError | StoreUnavailable):
        return reply
    match job:
        case Push():
            verdicts = [_VERDICTS[each] for each in reply]
            if unsafe:
                return ["unsafe" if each in ("stored", "already") else each for each in verdicts]
            return verdicts
        case Read():
            return _page(reply, run)
        case _:
            return None


def _page(reply: list[Any], run: int | None) -> Page:
    if not reply:
        return Page(True, [], False)
    now = int(reply[0])
    mark = _SEQ.unpack(reply[1]) if reply[1] else (-1, -1)
    letters = []
    for text in reply[3:]:
        epoch, number, expires, _, _, origin, flags, its_run = _HEADER.unpack_from(text)
        body = _HEADER.size + origin
        letters.append(
            Stored(
                epoch,
                number,
                expires - now if flags & _OWN_TTL else 0,
                bool(flags & _SEEN) or (epoch, number) <= mark or its_run != run,
                text[_HEADER.size : body].decode(),
                text[body:],
            )
        )
    return Page(False, letters, bool(reply[2]))
