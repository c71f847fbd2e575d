"""A real HAProxy in front of real nodes, both of those that Ring is for: clients land on their owner."""

import json
import ssl
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest
import trio
import trustme

from ring.haproxy.agent import Agent, OtherEpoch
from ring.haproxy.config import Options, RouteBy
from ring.haproxy.program import Balancer
from ring.haproxy.runtime import Runtime
from ring.haproxy.source import Nodes, Source
from ring.haproxy.sync import sync
from ring.haproxy.wanted import Wanted, wanted
from ring.node import Node
from ring.protocol import client as wire
from ring.protocol.upgrade import client_request
from tests.integration.cluster import nodes
from tests.integration.visitors import off_owner, users, visiting, visits
from tests.polling import until, until_listening
from tests.ports import own_port

DEADLINE_S = 90
NAMES = ("n1", "n2", "n3")
CLIENTS = 1000
WITHIN_S = 1.0
"""So soon a change of the ring is in the map."""

Record = Callable[[str, object], None]


@dataclass
class Front:
    """A cluster with HAProxy in front."""

    cluster: dict[str, Node]
    balancer: Balancer
    plain: int
    tls: int
    context: ssl.SSLContext
    source: Source
    epoch_there: int = 0
    change: trio.Event = field(default_factory=trio.Event)

    async def until(self, epoch: int) -> None:
        """Returns once HAProxy has the ring of this epoch, or a later one."""
        while self.epoch_there < epoch:
            await self.change.wait()

    async def synced(self) -> None:
        """Returns when the agent has seen once more that HAProxy agrees, from the beginning."""
        for _ in range(2):  # it may be in the middle
            await self.change.wait()

    def on_synced(self, agent: Agent, ring: Wanted) -> None:
        self.epoch_there = ring.epoch
        self.change.set()
        self.change = trio.Event()

    @property
    def epoch(self) -> int:
        """Of the ring."""
        return max(node.view.epoch for node in self.cluster.values() if node.view is not None)


@asynccontextmanager
async def front(
    redis_url: str, directory: Path, program: str, route_by: RouteBy = "user", connections: int = 2000
) -> AsyncIterator[Front]:
    """Three nodes, an HAProxy with TLS and without, and an agent."""
    plain, tls = own_port(), own_port()
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(directory / "ring.pem")
    )
    options = Options(
        listen=f"127.0.0.1:{plain}",
        tls_listen=f"127.0.0.1:{tls}",
        certificate=str(directory / "ring.pem"),
        operations=f"127.0.0.1:{own_port()}",
        max_clients=2000,
        address_connections=connections,
        address_rate=50_000,
        route_by=route_by,
    )
    with trio.fail_after(DEADLINE_S):
        async with (
            nodes(redis_url, *NAMES, trusted_proxies=("127.0.0.1",)) as cluster,
            trio.open_nursery() as nursery,
        ):
            where = Nodes([f"http://{cluster['n1'].addresses['api']}"])
            async with Balancer(directory / "h", options, program) as balancer:
                here = Front(cluster, balancer, plain, tls, context, where)
                nursery.start_soon(partial(sync, where, [balancer.agent()], on_synced=here.on_synced))
                await here.until(here.epoch)
                yield here
                nursery.cancel_scope.cancel()


@pytest.mark.alone  # a node that is kept from answering for a second is passed over
async def test_every_client_lands_on_its_owner(
    redis_url: str, tmp_path: Path, program: str, record: Record
) -> None:
    """Whatever it is called, with TLS and without."""
    async with front(redis_url, tmp_path, program) as here:
        plain = await visits(here.plain, users(CLIENTS, 1))
        tls = await visits(here.tls, users(CLIENTS, 2), here.context)
        assert (len(plain), len(tls)) == (CLIENTS, CLIENTS)
        assert {welcome.node for welcome in plain} == set(NAMES)
        assert (off_owner(plain), off_owner(tls)) == ([], [])
        record("clients on their owner", f"{len(plain) + len(tls)} of {2 * CLIENTS}")


@pytest.mark.alone
@pytest.mark.parametrize("files", ["kept", "lost"])
async def test_haproxy_is_restarted(redis_url: str, tmp_path: Path, program: str, files: str) -> None:
    """With nothing on its disk too, it has the whole ring again within a second."""
    async with front(redis_url, tmp_path, program) as here:
        await here.balancer.stop()
        if files == "lost":
            for path in here.balancer.directory.iterdir():
                path.unlink()
        await here.balancer.start()
        started = trio.current_time()
        if files == "kept":
            assert off_owner(await visits(here.plain, users(50, 5))) == []
        await here.synced()
        assert trio.current_time() - started < 3 * WITHIN_S
        assert off_owner(await visits(here.plain, users(200, 5))) == []
        assert await here.balancer.agent().differences(wanted(await here.source.read())) == []


@pytest.mark.alone
async def test_a_reload_is_seamless(redis_url: str, tmp_path: Path, program: str, record: Record) -> None:
    """Nobody is refused, cut, or sent to another node than the owner: not in the moment of it either."""
    async with front(redis_url, tmp_path, program) as here, visiting(here.plain, "ann") as ann:
        directory = here.balancer.directory
        old = await here.balancer.runtime.pid()
        welcomes: list[wire.Welcome] = []
        over = trio.Event()

        async def come_and_go(seed: int) -> None:
            while not over.is_set():
                welcomes.extend(await visits(here.plain, users(10, seed)))

        async def another_answers() -> bool:
            return await here.balancer.runtime.pid() != old

        async with AsyncExitStack() as stack:
            async with trio.open_nursery() as coming:
                coming.start_soon(come_and_go, 8)
                coming.start_soon(come_and_go, 9)
                await until(lambda: len(welcomes) >= 100)
                command = [program, "-db", "-f", str(directory / "haproxy.cfg")]
                command += ["-x", str(directory / "admin.sock"), "-sf", old]
                process = await trio.lowlevel.open_process(command, stdout=DEVNULL, stderr=DEVNULL)
                stack.push_async_callback(process.wait)
                stack.callback(process.kill)
                await until(another_answers)
                reloaded = len(welcomes)
                await until(lambda: len(welcomes) >= reloaded + 200)
                over.set()
            record("clients before, while and after it was reloaded", len(welcomes))
            assert off_owner(welcomes) == []
            sessions = here.cluster[ann.node].attachments.sessions.values()
            assert ann.session in [session.name for session in sessions]


async def answer(port: int) -> bytes:
    """What a client gets first; nothing, if it is cut."""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            request, _ = client_request("localhost", "/v1/connect?user=eve", [wire.SUBPROTOCOL])
            await stream.send_all(request)
            return bytes(await stream.receive_some())
    except (OSError, trio.BrokenResourceError):
        return b""


async def test_an_address_has_its_limit(redis_url: str, tmp_path: Path, program: str) -> None:
    """So many connections at one time, and no more until some have ended."""
    async with front(redis_url, tmp_path, program, connections=2) as here:
        async with visiting(here.plain, "ann"), visiting(here.plain, "bob"):
            assert await answer(here.plain) == b""

        async def let_in() -> bool:
            return bool(await answer(here.plain))

        await until(let_in)  # it has to see that they went


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.77"])
async def test_the_proxy_protocol(redis_url: str, tmp_path: Path, program: str, source: str) -> None:
    """A balancer that knows nothing of HTTP says where clients are, if it is trusted."""
    port = own_port()
    trusted = "127.0.0.1" if source == "127.0.0.77" else "10.0.0.1"
    async with nodes(redis_url, "n1", trusted_proxies=(trusted,)) as cluster:
        text = f"""
            defaults
                mode tcp
                timeout connect 1s
                timeout client 9s
                timeout server 9s
            listen clients
                bind 127.0.0.1:{port}
                server n1 {cluster["n1"].addresses["edge"]} send-proxy-v2
        """
        (tmp_path / "tcp.cfg").write_text(text + "\n")
        process = await trio.lowlevel.open_process(
            [program, "-db", "-f", str(tmp_path / "tcp.cfg")], stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            with trio.fail_after(DEADLINE_S):
                await until_listening(port)
                async with await trio.open_tcp_stream("127.0.0.1", port, local_address=source) as stream:
                    lie = "X-Forwarded-For: 6.6.6.6"
                    request, _ = client_request("localhost", "/v1/connect?user=ann", [wire.SUBPROTOCOL])
                    await stream.send_all(request[:-2] + lie.encode() + b"\r\n\r\n")
                    status = (await stream.receive_some())[9:12]
                    if trusted != "127.0.0.1":
                        assert status == b"400"
                        return
                    assert status == b"101"
                    [session] = cluster["n1"].attachments.sessions.values()
                    assert session.address == "{}:{}".format(*stream.socket.getsockname())
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def token(user: str) -> str:
    """A JWT of which nobody here checks the signature."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {"iss": "me", "sub": user, "exp": 4_000_000_000})
    texts = [json.dumps(part, ensure_ascii=False, separators=(",", ":")) for part in parts]
    return ".".join(urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in [*texts, "signature"])


@pytest.mark.parametrize("place", ["query", "header", "sub-protocol"])
async def test_by_the_token(redis_url: str, tmp_path: Path, program: str, place: str) -> None:
    """Wherever the token is; who has none goes anywhere."""
    async with front(redis_url, tmp_path, program, route_by="token") as here:
        missed = []
        for user in users(60, 7):
            given: dict[str, Any] = {}
            match place:
                case "query":
                    given["token"] = token(user)
                case "header":
                    given["headers"] = [("Authorization", f"Bearer {token(user)}")]
                case _:
                    given["offers"] = [wire.SUBPROTOCOL, f"ring.token.{token(user)}"]
            async with visiting(here.plain, user, **given) as welcome:
                missed += off_owner([welcome])
        assert missed == []
        async with visiting(here.plain, "bob"):
            pass


async def test_where_clients_are(redis_url: str, tmp_path: Path, program: str) -> None:
    """What HAProxy says, and not what a client says of itself."""
    async with front(redis_url, tmp_path, program) as here:
        lies = [("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")]
        async with visiting(here.plain, "mallory", headers=lies) as welcome:
            [session] = here.cluster[welcome.node].attachments.sessions.values()
            assert session.address == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "/v1/nodes", "/v1/peer", "/readyz", "/v1/connect/", "//v1/connect"])
async def test_what_is_not_for_clients(redis_url: str, tmp_path: Path, program: str, path: str) -> None:
    """Nothing but the path at which they connect."""
    async with front(redis_url, tmp_path, program) as here:
        stream = await trio.open_tcp_stream("127.0.0.1", here.plain)
        async with stream:
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")


async def test_what_it_never_applies(redis_url: str, tmp_path: Path, program: str) -> None:
    """An earlier ring than HAProxy has."""
    async with front(redis_url, tmp_path, program) as here:
        ring = wanted(await here.source.read())
        agent = Agent(Runtime(str(here.balancer.directory / "admin.sock")))
        older = Wanted(ring.cluster, ring.epoch - 1, {}, ())
        with pytest.raises(OtherEpoch, match=rf"has the ring of epoch {ring.epoch}"):
            await agent.reconcile(older)
        assert await agent.reconcile(ring) == []
        assert off_owner(await visits(here.plain, users(50, 6))) == []
