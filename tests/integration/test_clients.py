"""The contract, spoken by clients that know nothing of Ring: what docs/protocol.md says is enough."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from ring.node import Node
from tests.integration.cluster import nodes
from tests.integration.foreign import Closed, Foreign, OfABrowser, OfTrioWebsocket, OfWebsockets, Refused

DEADLINE_S = 60
PATIENCE_S = 20.0  # of the cluster with a client that was cut: a new process may have to start

EVERYBODY = pytest.mark.parametrize("kind", [OfWebsockets, OfTrioWebsocket, OfABrowser])


class Place:
    """Two nodes, and the means to connect to them."""

    def __init__(self, block: AsyncExitStack, cluster: dict[str, Node], kind: type[Foreign]) -> None:
        self._block = block
        self._cluster = cluster
        self._kind = kind

    async def open(
        self, node: str, path: str, query: dict[str, str], subprotocols: tuple[str, ...] = ("ring.v1",)
    ) -> Foreign:
        """A WebSocket."""
        url = f"ws://{self._cluster[node].addresses['edge']}{path}?{urlencode(query)}"
        return await self._block.enter_async_context(self._kind.connect(url, subprotocols))

    async def user(self, node: str, user: str, **query: str) -> tuple["User", dict[str, Any]]:
        """A user's client, and its welcome."""
        client = User(await self.open(node, "/v1/connect", {"user": user, **query}))
        return client, await client.hears("welcome")


class User:
    """What a user's program does."""

    def __init__(self, foreign: Foreign) -> None:
        self.foreign = foreign

    async def says(self, kind: str, **fields: object) -> None:
        """Sends a frame."""
        await self.foreign.send(json.dumps({"type": kind, **fields}))

    async def hears(self, kind: str) -> dict[str, Any]:
        """The next frame, which is of this type."""
        frame: dict[str, Any] = json.loads(await self.foreign.receive())
        assert frame["type"] == kind, frame
        return frame

    async def is_closed(self) -> int:
        """The code with which it is closed now."""
        with pytest.raises(Closed) as closed:
            await self.foreign.receive()
        return closed.value.code


@asynccontextmanager
async def two_nodes(redis_url: str, kind: type[Foreign]) -> AsyncIterator[Place]:
    """Two nodes that are patient, and a deadline for all that is done with them."""
    patience = {"linger_s": PATIENCE_S, "spill_after_s": PATIENCE_S, "send_timeout_s": 2 * PATIENCE_S}
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1", "n2", **patience) as cluster, AsyncExitStack() as block:
            yield Place(block, cluster, kind)


@EVERYBODY
async def test_users_on_different_nodes_talk(redis_url: str, kind: type[Foreign]) -> None:
    """A client that only answers pings has acknowledged by that; one that can may do it itself."""
    async with two_nodes(redis_url, kind) as place:
        alice, welcome = await place.user("n1", "alice & co/é")
        assert alice.foreign.subprotocol == "ring.v1"
        assert (welcome["user"], welcome["node"], welcome["resumed"]) == ("alice & co/é", "n1", False)
        bob, welcome = await place.user("n2", "bob", ack="client", device="phone")
        assert (welcome["user"], welcome["node"], welcome["device"]) == ("bob", "n2", "phone")

        await alice.says("send", id="m1", to="bob", data={"text": "grüß dich", "n": [1, 2.5, None]})
        message = await bob.hears("message")
        assert (message["from"], message["id"]) == ("alice & co/é", "m1")
        assert message["data"] == {"text": "grüß dich", "n": [1, 2.5, None]}
        await bob.says("ack", seq=message["seq"])
        receipt = await alice.hears("receipt")
        assert receipt == {"type": "receipt", "id": "m1", "status": "delivered", "by": "client"}

        await bob.says("send", id="m1", to="alice & co/é", data="x" * 60_000)
        assert (await alice.hears("message"))["data"] == "x" * 60_000
        receipt = await bob.hears("receipt")
        assert receipt == {"type": "receipt", "id": "m1", "status": "delivered", "by": "pong"}

        await alice.says("ping", id="p1")
        assert await alice.hears("pong") == {"type": "pong", "id": "p1"}
        await bob.foreign.close()
        await alice.says("send", id="m2", to="bob", data=1)
        assert await alice.hears("receipt") == {"type": "receipt", "id": "m2", "status": "queued"}
        bob, _ = await place.user("n1", "bob", ack="client", device="phone")
        message = await bob.hears("message")
        assert (message["id"], message["data"], "redelivered" in message) == ("m2", 1, False)


@EVERYBODY
async def test_a_client_that_was_cut_resumes(redis_url: str, kind: type[Foreign]) -> None:
    """What it had not acknowledged, and what was sent meanwhile, comes on another node, in order."""
    async with two_nodes(redis_url, kind) as place:
        alice, _ = await place.user("n1", "alice")
        bob, _ = await place.user("n1", "bob", ack="client", device="phone")
        for number in range(2):
            await alice.says("send", id=f"m{number}", to="bob", data=number)
        first = await bob.hears("message")
        await bob.says("ack", seq=first["seq"])
        assert (await alice.hears("receipt"))["id"] == "m0"
        await bob.hears("message")
        await bob.foreign.cut()
        await alice.says("send", id="m2", to="bob", data=2)

        bob, welcome = await place.user("n2", "bob", ack="client", device="phone", resume=first["seq"])
        assert welcome["resumed"] is True
        seen, unseen = await bob.hears("message"), await bob.hears("message")
        assert (seen["id"], seen["data"], seen["redelivered"]) == ("m1", 1, True)
        assert (unseen["id"], unseen["data"]) == ("m2", 2)
        await bob.says("ack", seq=unseen["seq"])
        receipts = [await alice.hears("receipt"), await alice.hears("receipt")]
        assert [(receipt["id"], receipt["status"]) for receipt in receipts] == [
            ("m1", "delivered"),
            ("m2", "delivered"),
        ]


@EVERYBODY
async def test_what_is_sent_again_comes_once(redis_url: str, kind: type[Foreign]) -> None:
    """A sender that was cut before its receipt sends again, marked, and is told the fate of the first."""
    async with two_nodes(redis_url, kind) as place:
        alice, _ = await place.user("n1", "alice")
        bob, _ = await place.user("n2", "bob", ack="client")
        await alice.says("send", id="m1", to="bob", data=1)
        message = await bob.hears("message")
        await alice.foreign.cut()
        await bob.says("ack", seq=message["seq"])
        alice, _ = await place.user("n2", "alice")
        await alice.says("send", id="m1", to="bob", data=1, again=True)
        assert (await alice.hears("receipt"))["status"] == "delivered"
        await alice.says("send", id="m2", to="bob", data=2)
        assert (await bob.hears("message"))["id"] == "m2"


@EVERYBODY
async def test_all_devices_of_a_user_get_it(redis_url: str, kind: type[Foreign]) -> None:
    """One receipt, by the first that has it; what a user sends to itself reaches the others."""
    async with two_nodes(redis_url, kind) as place:
        alice, _ = await place.user("n1", "alice", device="phone")
        desk, _ = await place.user("n2", "alice", device="desk")
        bob, _ = await place.user("n2", "bob")
        await bob.says("send", id="m1", to="alice", data=1)
        assert (await alice.hears("message"))["id"] == "m1"
        assert (await desk.hears("message"))["id"] == "m1"
        assert (await bob.hears("receipt"))["status"] == "delivered"
        await alice.says("send", id="n1", to="alice", data="note to self")
        assert (await desk.hears("message"))["data"] == "note to self"
        assert (await alice.hears("receipt"))["id"] == "n1"


@EVERYBODY
async def test_the_same_device_again_replaces(redis_url: str, kind: type[Foreign]) -> None:
    """The old session is closed with 4009, on whichever node it is; the new one goes on."""
    async with two_nodes(redis_url, kind) as place:
        old, _ = await place.user("n1", "bob", device="phone")
        new, _ = await place.user("n2", "bob", device="phone")
        assert await old.is_closed() == 4009
        alice, _ = await place.user("n1", "alice")
        await alice.says("send", id="m1", to="bob", data=1)
        assert (await new.hears("message"))["id"] == "m1"
        assert (await alice.hears("receipt"))["status"] == "delivered"
        await new.foreign.close()
        await alice.says("send", id="m2", to="bob", data=2)
        assert (await alice.hears("receipt"))["status"] == "queued"


@EVERYBODY
async def test_subprotocols_are_negotiated(redis_url: str, kind: type[Foreign]) -> None:
    """Of what is offered, ours alone is chosen; to offer nothing is allowed."""
    async with two_nodes(redis_url, kind) as place:
        query = {"user": "alice"}
        assert (await place.open("n1", "/v1/connect", query, ("soap", "ring.v1"))).subprotocol == "ring.v1"
        assert (await place.open("n1", "/v1/connect", query, ())).subprotocol == ""


@EVERYBODY
async def test_who_asks_wrongly_is_refused(redis_url: str, kind: type[Foreign]) -> None:
    """By HTTP, with a body that says what to do; a browser is just not let in."""
    async with two_nodes(redis_url, kind) as place:
        for path, query, subprotocol, status, word in [
            ("/v1/connect", {}, "ring.v1", 400, "user"),
            ("/v1/connect", {"user": ""}, "ring.v1", 400, "user"),
            ("/v1/connect", {"user": "alice", "ack": "never"}, "ring.v1", 400, "ack"),
            ("/v1/connect", {"user": "alice"}, "soap", 400, "ring.v1"),
            ("/chat", {"user": "alice"}, "ring.v1", 404, "/v1/connect"),
        ]:
            with pytest.raises(Refused) as refused:
                await place.open("n1", path, query, (subprotocol,))
            if kind is not OfABrowser:
                assert refused.value.status == status
                assert refused.value.body["error"]["code"] == "bad_request"
                assert word in refused.value.body["error"]["message"]
