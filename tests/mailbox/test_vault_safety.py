"""What a stored letter is worth: replicas, the disk, servers that are full, refuse, lack something or die."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from ring.mailbox.vault import Page, Push, Read, Remove, Stored, Vault
from ring.protocol.codes import RingError
from ring.store.client import Redis
from ring.store.connection import StoreUnavailable
from ring.store.embedded import EmbeddedServer, find_server, free_port
from ring.store.keys import Keys
from tests.mailbox.strongroom import PROGRAMS, SLOT, connected, letter

KEYS = Keys("demo")
SOON_S = 0.1
"""How long is waited for what will not come."""

each_server = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: Path(program).name)


@pytest.fixture(autouse=True)
async def _deadline() -> AsyncIterator[None]:
    with trio.fail_after(30):
        yield


def vault(redis: Redis, **options: Any) -> Vault:
    """A vault with room."""
    return Vault(redis, KEYS, letters=100, size=100_000, keep_s=600, **options)


async def push(to: Vault, *numbers: int, epoch: int = 1) -> Any:
    """Pushes letters and returns their verdicts, or the server's error."""
    (result,) = await to.exchange([Push("ann", SLOT, epoch, [letter(number) for number in numbers])])
    return result


async def numbers(of: Vault, epoch: int = 1) -> list[int]:
    """What the mailbox holds."""
    (page,) = await of.exchange([Read("ann", SLOT, epoch, None)])
    assert isinstance(page, Page)
    return [one.number for one in page.letters]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Looks again and again: replication tells no one when it stands."""
    while not await condition():
        await wait_all_tasks_blocked(0.01)


@asynccontextmanager
async def pair(program: str) -> AsyncIterator[tuple[EmbeddedServer, Redis, EmbeddedServer]]:
    """A server, a client of it, and its replica, which has caught up."""
    async with EmbeddedServer(program=program, options=["--repl-diskless-sync-delay", "0"]) as server:
        follow = ["--replicaof", "127.0.0.1", str(server.port)]
        async with EmbeddedServer(program=program, options=follow) as replica, connected(server.url) as redis:

            async def standing() -> bool:
                info = await redis.info("replication")
                return bool(info.get("slave0", {}).get("state") == "online")

            await until(standing)
            assert await redis.set("k", "v")
            await until(lambda: _has(redis))
            yield server, redis, replica


async def _has(redis: Redis) -> bool:
    return bool(await redis.execute_command("WAIT", 1, 100) == 1)


@each_server
async def test_a_letter_counts_as_stored_once_a_replica_has_it(program: str) -> None:
    """Else it is unsafe: also when it is pushed again, by whichever connection, until the replica has it."""
    async with pair(program) as (server, redis, replica):
        safe = vault(redis, replicas=1, wait_s=SOON_S)
        assert await push(safe, 1) == ["stored"]
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            assert await push(safe, 1, 2) == ["unsafe", "unsafe"]
            assert await push(safe, 2) == ["unsafe"]
            async with connected(server.url) as another:
                assert await push(vault(another, replicas=1, wait_s=SOON_S), 1, 2) == ["unsafe", "unsafe"]
            # No other verdict is better or worse for it, and nothing but pushes is waited for.
            assert await push(safe, 3) == ["unsafe"]
            with trio.fail_after(SOON_S / 2):
                assert await numbers(safe, epoch=2) == [1, 2, 3]
                assert await push(vault(redis), 3) == ["fenced"]
            assert await push(safe, 3) == ["fenced"]
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        assert await push(vault(redis, replicas=1, wait_s=4), 3, 4, epoch=2) == ["already", "stored"]
        async with connected(replica.url) as reader:
            assert await vault(reader).count("ann", SLOT) == 4


async def test_more_replicas_than_there_are() -> None:
    """Are warned of at the start, and nothing is safe until they are there."""
    async with EmbeddedServer() as server, connected(server.url) as redis:
        safe = vault(redis, replicas=2, wait_s=SOON_S)
        with capture_logs() as logs:
            await safe.check()
        assert [(line["event"], line["asked"], line["connected"]) for line in logs] == [
            ("store lacks replicas", 2, 0)
        ]
        assert await push(safe, 1) == ["unsafe"]


@each_server
async def test_a_replica_stores_nothing(program: str) -> None:
    """Where the master has become a replica, the job's place holds an error that may pass."""
    async with pair(program) as (_, _, replica), connected(replica.url) as redis:
        for options in ({}, {"replicas": 1, "wait_s": SOON_S}):
            refused = await push(vault(redis, **options), 1)
            assert isinstance(refused, StoreUnavailable)
            assert "READONLY" in str(refused)


async def test_a_letter_counts_as_stored_once_the_disk_has_it() -> None:
    """Where the server keeps an append-only file and writes it through."""
    async with (
        EmbeddedServer(program=find_server(), options=["--appendonly", "yes"]) as server,
        connected(server.url) as redis,
    ):
        safe = vault(redis, fsync=True, wait_s=2)
        await safe.check()
        assert await push(safe, 1) == ["stored"]
        assert await push(safe, 1, 2) == ["already", "stored"]
        # The system may write it at some time, but does not say so.
        await redis.config_set("appendfsync", "no")
        hasty = vault(redis, fsync=True, wait_s=SOON_S)
        assert await push(hasty, 2, 3) == ["unsafe", "unsafe"]
        await redis.config_set("appendfsync", "always")
        assert await push(hasty, 2, 3, 4) == ["already", "already", "stored"]
        # The disk of a replica, too, if replicas are asked for.
        assert await push(vault(redis, fsync=True, replicas=1, wait_s=SOON_S), 4) == ["unsafe"]
        # Without a file there is nothing to wait for.
        await redis.config_set("appendonly", "no")
        assert await push(hasty, 4) == ["unsafe"]


async def test_what_the_disk_has_outlives_the_server(tmp_path: Path) -> None:
    """`kill -9` behind the answer; mailbox, fence and read mark are there after the restart."""
    options = ["--appendonly", "yes", "--appendfsync", "always"]
    async with EmbeddedServer(tmp_path, options=options) as server:
        async with connected(server.url) as redis:
            safe = vault(redis, fsync=True, wait_s=2)
            assert await numbers(safe, epoch=5) == []
            assert await push(safe, 1, 2, epoch=5) == ["stored", "stored"]
            assert await numbers(safe, epoch=5) == [1, 2]
            assert await push(safe, 3, epoch=5) == ["stored"]
        os.kill(server.pid, signal.SIGKILL)
    async with EmbeddedServer(tmp_path, options=options) as server, connected(server.url) as redis:
        assert await push(vault(redis), 4, epoch=4) == ["fenced"]
        assert await redis.exists(KEYS.read_mark(SLOT, "ann"))
        (page,) = await vault(redis).exchange([Read("ann", SLOT, 5, None)])
        assert isinstance(page, Page)
        # Another run of the server: of the third, too, nobody can tell.
        assert [(one.number, one.seen) for one in page.letters] == [(1, True), (2, True), (3, True)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "keeps no append-only file.*set appendonly yes"),
        (
            ("--rename-command", "WAITAOF", ""),
            r"Redis \d\S* has no WAITAOF: .* Redis 7.2 or later, or Valkey",
        ),
    ],
)
async def test_a_server_that_cannot_wait_for_its_disk(options: tuple[str, ...], why: str) -> None:
    """Is refused when the node starts, with what to do; nobody minds it who does not ask for the disk."""
    async with (
        EmbeddedServer(program=find_server(), options=options) as server,
        connected(server.url) as redis,
    ):
        with pytest.raises(RingError, match=why):
            await vault(redis, fsync=True).check()
        await vault(redis).check()


async def test_a_user_who_may_not_wait_for_the_disk(redis_url: str) -> None:
    """Is told to be granted it; an INFO that is denied is no reason not to start."""
    async with connected(redis_url) as redis:
        await redis.execute_command(
            "ACL", "SETUSER", "limited", "on", ">pw", "~*", "+@all", "-waitaof", "-info"
        )
        async with connected(redis_url.replace("//", "//limited:pw@")) as limited:
            with pytest.raises(RingError, match=r"refuses WAITAOF .*grant it with ACL SETUSER"):
                await vault(limited, fsync=True).check()
            await vault(limited, replicas=1).check()
        await redis.execute_command("ACL", "DELUSER", "limited")


async def test_an_old_server_that_hides_its_release() -> None:
    """Where INFO is denied as well, the answer is the same without the number."""
    options = ["--rename-command", "WAITAOF", "", "--rename-command", "INFO", ""]
    async with (
        EmbeddedServer(program=find_server(), options=options) as server,
        connected(server.url) as redis,
    ):
        with pytest.raises(RingError, match="Redis of an unknown version has no WAITAOF"):
            await vault(redis, fsync=True).check()


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, True),
        ({"maxmemory": "100mb", "maxmemory-policy": "volatile-ttl"}, True),
        ({"maxmemory": "100mb", "maxmemory-policy": "noeviction"}, False),
        ({"maxmemory": "0", "maxmemory-policy": "allkeys-lru"}, False),
    ],
)
async def test_a_server_that_may_evict_mailboxes(settings: dict[str, str], warned: bool) -> None:
    """Is warned of when the node starts."""
    options = [word for name, value in settings.items() for word in (f"--{name}", value)]
    async with EmbeddedServer(options=options) as server, connected(server.url) as redis:
        with capture_logs() as logs:
            await vault(redis).check()
        assert [line["event"] for line in logs] == ["store may evict mailboxes"] * warned


@each_server
async def test_a_server_that_is_full(program: str) -> None:
    """Refuses to store, but the mailboxes can still be read, by a new owner too, and emptied."""
    async with EmbeddedServer(program=program) as server, connected(server.url) as redis:
        of = vault(redis)
        assert await push(of, *range(6)) == ["stored"] * 6
        await redis.config_set("maxmemory", "1")
        refused = await push(of, 6)
        assert isinstance(refused, StoreUnavailable)
        assert "OOM" in str(refused)
        assert await numbers(of, epoch=2) == [0, 1, 2, 3, 4, 5]
        assert await of.exchange([Remove("ann", SLOT, [(1, 0), (1, 3)])]) == [None]
        await redis.config_set("maxmemory", "0")
        assert await push(of, 6) == ["fenced"]
        assert await push(of, 6, epoch=2) == ["stored"]
        assert await numbers(of, epoch=2) == [1, 2, 4, 5, 6]


async def test_a_connection_that_breaks() -> None:
    """Nobody knows what was done: the caller is told, and does it again."""
    async with EmbeddedServer() as server, connected(server.url) as redis:
        of = vault(redis)
        assert await push(of, 1) == ["stored"]
        os.kill(server.pid, signal.SIGSTOP)
        raised: list[BaseException] = []

        async def lose() -> None:
            try:
                await push(of, 1, 2)
            except StoreUnavailable as error:
                raised.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            await wait_all_tasks_blocked()
            assert redis._connection is not None
            stream = redis._connection._stream
            assert isinstance(stream, trio.SocketStream)
            stream.socket.shutdown(socket.SHUT_RD)  # as if the server had closed it
        assert "outcome is unknown" in str(raised[0])
        os.kill(server.pid, signal.SIGCONT)
        assert (await push(of, 1, 2, 3))[0] == "already"
        assert await numbers(of) == [1, 2, 3]


async def test_what_another_run_of_the_server_took_may_have_been_seen(tmp_path: Path) -> None:
    """A server that was started again may have an older copy of the data: what was removed is there again.

    Its letters are told from those that it takes now.
    """
    async with EmbeddedServer(tmp_path) as server, connected(server.url) as redis:
        safe = vault(redis)
        assert await push(safe, 1, 2) == ["stored", "stored"]
        assert [one.seen for one in await stored(safe)] == [False, False]
        await redis.save()
        await safe.exchange([Remove("ann", SLOT, [(1, 1), (1, 2)])])
        assert await numbers(safe) == []
    async with EmbeddedServer(tmp_path) as server, connected(server.url) as redis:
        later = vault(redis)
        assert await push(later, 3) == ["stored"]
        assert [(one.number, one.seen) for one in await stored(later)] == [(1, True), (2, True), (3, False)]


async def test_the_same_vault_learns_that_the_server_is_another(tmp_path: Path) -> None:
    """Each new connection is asked which run it leads to."""
    port = free_port()
    options = ["--appendonly", "yes", "--appendfsync", "always"]
    async with AsyncExitStack() as stack, AsyncExitStack() as first:
        server = await first.enter_async_context(EmbeddedServer(tmp_path, options=options, port=port))
        redis = await stack.enter_async_context(connected(server.url))
        safe = vault(redis)
        assert await push(safe, 1) == ["stored"]
        await first.aclose()
        async with EmbeddedServer(tmp_path, options=options, port=port):
            await redis.wait_connected()
            assert await push(safe, 2) == ["stored"]
            assert [(one.number, one.seen) for one in await stored(safe)] == [(1, True), (2, False)]


async def stored(of: Vault) -> list[Stored]:
    """What the mailbox holds."""
    (page,) = await of.exchange([Read("ann", SLOT, 1, None)])
    assert isinstance(page, Page)
    return page.letters
