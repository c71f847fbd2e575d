"""The configuration for nginx that docs/how-to/nginx.md shows, in front of real nodes."""

import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import websockets.sync.client

from ring.node import Node
from ring.protocol.upgrade import client_request
from ring.transport.address import split_address
from tests.integration.cluster import nodes
from tests.integration.visitors import off_owner, users, visiting, visits
from tests.polling import until, until_listening
from tests.ports import own_port

CONFIGURATION = Path(__file__).parents[2] / "docs" / "examples" / "nginx.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/bin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx (Debian: nginx-light)")

DEADLINE_S = 60
READY_S = 10.0
NAMES = ("n1", "n2", "n3")
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

Record = Callable[[str, object], None]


def adapted(directory: Path, port: int, edges: Sequence[str], **limits: str) -> str:
    """The configuration as it is shown, with the addresses and directories of a test; and some limits, if a
    test reaches them."""
    text = CONFIGURATION.read_text("utf-8")
    changes = {f"127.0.0.1:800{number}": edge for number, edge in enumerate(edges, 1)}
    changes |= {
        "listen 8000;": f"listen 127.0.0.1:{port};",
        "/run/nginx.pid": str(directory / "nginx.pid"),
        "/dev/stdout": str(directory / "access.log"),
        "http {\n": "http {\n" + "".join(f"    {one}_temp_path {directory}/{one};\n" for one in TEMPORARY),
    }
    for old, new in (changes | limits).items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class Front:
    """A cluster with nginx in front."""

    def __init__(self, cluster: dict[str, Node], directory: Path, port: int) -> None:
        self.cluster = cluster
        self.directory = directory
        self.port = port

    def logged(self) -> list[str]:
        """The lines of its log."""
        return (self.directory / "access.log").read_text("utf-8").splitlines()


@asynccontextmanager
async def front(redis_url: str, directory: Path, **limits: str) -> AsyncIterator[Front]:
    """Three nodes, and nginx."""
    port = own_port()
    with trio.fail_after(DEADLINE_S):
        async with (
            nodes(redis_url, *NAMES, trusted_proxies=("127.0.0.1",)) as cluster,
            AsyncExitStack() as stack,
        ):
            edges = [node.addresses["edge"] for node in cluster.values()]
            configuration = directory / "nginx.conf"
            configuration.write_text(adapted(directory, port, edges, **limits), "utf-8")
            assert NGINX is not None
            errors = stack.enter_context((directory / "error.log").open("wb"))
            process = await trio.lowlevel.open_process(
                [NGINX, "-p", str(directory), "-c", str(configuration), "-g", "daemon off;"],
                stderr=errors,
            )
            try:
                with trio.fail_after(READY_S):
                    await until_listening(port)
                yield Front(cluster, directory, port)
            finally:
                process.terminate()
                with trio.CancelScope(shield=True):
                    await process.wait()


async def test_clients_are_served_by_any_node(redis_url: str, tmp_path: Path, record: Record) -> None:
    """By all of them alike; most are not on their owner, which costs a hop and nothing else."""
    async with front(redis_url, tmp_path) as here:
        welcomes = await visits(here.port, users(200, 1))
        assert len(welcomes) == 200
        assert min(Counter(welcome.node for welcome in welcomes).values()) > 20
        away = off_owner(welcomes)
        record("clients that are not on their owner", f"{len(away)} of 200")
        assert 90 < len(away) < 180

        def talk() -> list[str | bytes]:
            where = f"ws://127.0.0.1:{here.port}/v1/connect?user="
            heard: list[str | bytes] = []
            with (
                websockets.sync.client.connect(where + "ann", subprotocols=["ring.v1"]) as ann,  # type: ignore[list-item] # as its documentation has it
                websockets.sync.client.connect(where + "bob", subprotocols=["ring.v1"]) as bob,  # type: ignore[list-item] # the same
            ):
                heard += [ann.recv(5), bob.recv(5)]
                ann.send('{"type":"send","id":"m1","to":"bob","data":"hello"}')
                heard += [bob.recv(5), ann.recv(5)]
            return heard

        heard = await trio.to_thread.run_sync(talk)
        assert '"data":"hello"' in str(heard[2])
        assert '"delivered"' in str(heard[3])


async def test_a_node_that_drains(redis_url: str, tmp_path: Path) -> None:
    """It answers that it takes no clients, and nobody sees it: the next node is asked."""
    async with front(redis_url, tmp_path) as here:
        here.cluster["n2"].admission.open = False
        welcomes = await visits(here.port, users(100, 2))
        assert {welcome.node for welcome in welcomes} == {"n1", "n3"}
        assert any(" 503, 101 " in line for line in here.logged()), "one was asked in vain"


async def test_a_node_that_is_gone(redis_url: str, tmp_path: Path) -> None:
    """It refuses connections, and nobody sees it."""
    async with front(redis_url, tmp_path) as here:
        edges = "".join(node.addresses["edge"] for node in here.cluster.values())
        gone = f"127.0.0.1:{own_port()}"
        assert gone not in edges
        text = (tmp_path / "nginx.conf").read_text("utf-8")
        text = text.replace(here.cluster["n3"].addresses["edge"], gone)
        (tmp_path / "nginx.conf").write_text(text, "utf-8")
        assert NGINX is not None
        await trio.run_process([NGINX, "-p", str(tmp_path), "-c", f"{tmp_path}/nginx.conf", "-s", "reload"])
        nodes = {"n3"}
        while "n3" in nodes:  # old workers take connections for a moment
            nodes = {welcome.node for welcome in await visits(here.port, users(50, 3))}
        assert nodes == {"n1", "n2"}
        async with visiting(here.port, "ann", token="secret"), visiting(here.port, "bob", token="secret"):
            pass
        assert any(f"{gone}, " in line for line in here.logged()), "one was sent there in vain"
        assert "secret" not in (tmp_path / "error.log").read_text("utf-8"), "in which requests are quoted"


async def test_a_reload_cuts_nobody(redis_url: str, tmp_path: Path) -> None:
    """Who is connected stays, though new workers take those who come."""
    async with front(redis_url, tmp_path) as here, visiting(here.port, "ann") as ann:
        assert NGINX is not None
        await trio.run_process([NGINX, "-p", str(tmp_path), "-c", f"{tmp_path}/nginx.conf", "-s", "reload"])
        assert len(await visits(here.port, users(100, 4))) == 100
        sessions = here.cluster[ann.node].attachments.sessions.values()
        assert ann.session in [session.name for session in sessions]


async def test_where_clients_are(redis_url: str, tmp_path: Path) -> None:
    """What nginx says, not what a client says of itself; and its log has no query, in which tokens are."""
    async with front(redis_url, tmp_path) as here:
        lies = [("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")]
        async with visiting(here.port, "mallory", headers=lies, token="secret") as welcome:
            [session] = here.cluster[welcome.node].attachments.sessions.values()
            assert session.address == "127.0.0.1"
        with trio.fail_after(READY_S):
            await until(lambda: bool(here.logged()))
        [line] = here.logged()
        assert re.match(r"127\.0\.0\.1 \[\S+\] GET /v1/connect 101 127\.0\.0\.1:\d+ 101 ", line)
        assert "secret" not in line
        assert "mallory" not in line


async def test_pages_of_this_host(redis_url: str, tmp_path: Path) -> None:
    """A node compares a page's origin with the host that it was asked for, port included."""
    async with front(redis_url, tmp_path) as here:
        for origin, admitted in ((f"http://example.org:{here.port}", True), ("http://example.org", False)):
            request, _ = client_request(
                f"example.org:{here.port}", "/v1/connect?user=ann", ["ring.v1"], [("Origin", origin)]
            )
            async with await trio.open_tcp_stream("127.0.0.1", here.port) as stream:
                await stream.send_all(request)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ") is admitted


@pytest.mark.parametrize("path", ["/", "/v1/nodes", "/v1/peer", "/readyz", "/v1/connect/"])
async def test_what_is_not_for_clients(redis_url: str, tmp_path: Path, path: str) -> None:
    """Nothing but the path at which they connect."""
    async with front(redis_url, tmp_path) as here:
        assert await answer(here.port, path) == 404


async def test_an_address_has_its_limits(redis_url: str, tmp_path: Path) -> None:
    """So many connections at one time, and no more until some have ended."""
    limits = {"limit_conn address_connections 1000;": "limit_conn address_connections 2;"}
    async with front(redis_url, tmp_path, **limits) as here:
        async with visiting(here.port, "ann"), visiting(here.port, "bob"):
            assert await answer(here.port, "/v1/connect?user=eve") == 429

        async def let_in() -> bool:
            return await answer(here.port, "/v1/connect?user=eve") != 429

        with trio.fail_after(READY_S):
            await until(let_in)
        assert await answer(here.port, "/v1/connect?user=eve") == 426, "a node has answered"


async def answer(port: int, path: str) -> int:
    """The status of the answer to a GET."""
    stream = await trio.open_tcp_stream(*split_address(f"127.0.0.1:{port}"))
    async with stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return int((await stream.receive_some())[9:12])
