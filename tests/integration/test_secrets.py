"""What a node is told in confidence is in no line that it writes: real processes, real refusals."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from ring.store.embedded import EmbeddedServer, free_port
from ring.verify.node import READY_S
from tests.integration.cluster import processes
from tests.transport.wire import Wire

USER = "ringuser"
PASSWORD = "hunter2-of-redis"
SECRET = "a secret of the cluster that is long enough"
API_KEY = "a key of the api that is long enough"
TOKEN = "a-token-of-a-client"


async def words_of(redis: str, *, until_away: bool = False) -> tuple[int, str]:
    """Exit code of a node with this Redis, and what it said. It may be killed once Redis is away."""
    places = [f"--{what}=127.0.0.1:0" for what in ("edge", "peer", "api")]
    command = [
        sys.executable,
        "-m",
        "ring.cli.child",
        "serve",
        "--name",
        "n1",
        *places,
        "--log-level",
        "debug",
    ]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("RING_")}
    process = await trio.lowlevel.open_process(
        [*command, f"--redis={redis}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
    )
    said = b""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with trio.fail_after(READY_S):
            async for data in process.stdout:
                said += data
                if until_away and b"store away" in said:
                    process.kill()
            code = await process.wait()
    finally:
        process.kill()
        await process.stdin.aclose()
        await process.stdout.aclose()
    return code, said.decode()


@pytest.mark.parametrize("login", [f"{USER}:{PASSWORD}@", f":{PASSWORD}@"])
async def test_a_redis_that_refuses_the_login(login: str) -> None:
    """The node ends with one line that says what is wrong, and no password."""
    async with EmbeddedServer(options=("--requirepass", "another-password")) as server:
        place = f"127.0.0.1:{server.port}"
        code, said = await words_of(f"redis://{login}{place}/0")
    assert code != 0
    assert place in said
    assert PASSWORD not in said


async def test_a_redis_that_is_away() -> None:
    """The same, while it waits for one."""
    place = f"127.0.0.1:{free_port()}"
    _, said = await words_of(f"redis://{USER}:{PASSWORD}@{place}/0", until_away=True)
    assert place in said
    assert PASSWORD not in said


async def test_a_url_that_is_malformed() -> None:
    """It is refused without being quoted."""
    code, said = await words_of(f"redis://{USER}:{PASSWORD}/oops@127.0.0.1:1/0")
    assert code == 2
    assert "store URL" in said
    assert PASSWORD not in said


async def test_a_node_at_work(redis_url: str, tmp_path: Path) -> None:
    """At `debug`, with a client and requests that bring secrets and names along: none is in its log."""
    secret, key = tmp_path / "secret", tmp_path / "key"
    secret.write_text(SECRET)
    key.write_text(API_KEY)
    options = ("--secret-file", str(secret), "--api-key-file", str(key), "--log-level", "debug")
    async with processes(redis_url, tmp_path, *options) as cluster:
        first, second = await cluster.start("n1", "n2")
        async with httpx.AsyncClient(base_url=f"http://{first.ready['api']}", trust_env=False) as http:
            for given in (API_KEY, API_KEY + "x"):
                await http.get("/v1/users?user=the-user", headers={"Authorization": f"Bearer {given}"})
            await http.get(f"/v1/ring?key={API_KEY}")
        target = f"/v1/connect?user=the-user&device=the-device&token={TOKEN}"
        wire = await Wire.upgraded(first.ready["edge"], target)
        await wire.message()
        for text in (
            b'{"type":"send","id":"1","to":"the-recipient","data":{"text":"the-text"}}',
            b'{"type":"join","id":"2","room":"the-room"}',
            b'{"type":"send","to":"the-recipient","data":"the-text"',
        ):
            await wire.text(text)
            await wire.message()
        await wire.close(1000, "the-reason")
        await wire.all()
        await first.stop()
        await second.stop()
        log = first.log.read_text()
        everything = log + second.log.read_text()
    assert "request ended" in log
    assert "peer linked" in log
    assert "session opened" in log
    assert "session ended" in log
    names = ("the-user", "the-device", "the-recipient", "the-text", "the-room", "the-reason")
    for hidden in (SECRET, API_KEY, TOKEN, *names):
        assert hidden not in everything
