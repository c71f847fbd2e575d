"""The clients of the crowd at a node that does what a test says: what they do, and tell the oracle."""

from collections.abc import Callable
from random import Random

import msgspec
import pytest
import trio

from ring.protocol import client as wire
from ring.protocol.codes import ErrorCode
from ring.verify import library, raw
from ring.verify.judge import Terms
from ring.verify.library import LibraryClient
from ring.verify.oracle import Oracle
from ring.verify.raw import RawClient
from ring.verify.record import By, Key, Promise, Window
from ring.verify.text import body
from tests.client import fake_node
from tests.client.fake_node import DEADLINE_S, FakeNode, Peer


@pytest.fixture
async def node(nursery: trio.Nursery) -> FakeNode:
    """A node on loopback."""
    fake = FakeNode(nursery)
    await fake.listen()
    return fake


@pytest.fixture
def oracle() -> Oracle:
    """It has heard of nothing, and excuses everything that a cluster might be to blame for."""
    oracle = Oracle(Terms())
    oracle.windows.add(Window("a test", 0.0))
    return oracle


class Stage:
    """A client that runs, and its node."""

    def __init__(self, nursery: trio.Nursery, node: FakeNode, oracle: Oracle) -> None:
        self.nursery, self.node, self.oracle = nursery, node, oracle

    @property
    def edge(self) -> str:
        """Where the node is."""
        return self.node.url.removeprefix("ws://")

    def raw(self, *, by: By = "client", ack_every_s: float = 0.0, edge: str = "") -> RawClient:
        """A bare client of bob's, on its way."""
        client = RawClient(
            self.oracle,
            lambda: [edge or self.edge],
            "bob",
            "raw",
            by=by,
            ack_every_s=ack_every_s,
            random=Random(1),
        )
        self.nursery.start_soon(client.run)
        return client

    def library(self) -> LibraryClient:
        """An application of bob's, on its way."""
        client = LibraryClient(self.oracle, lambda: [self.edge], "bob", "app", random=Random(1))
        self.nursery.start_soon(client.run)
        return client

    def expect(self, sender: str, count: int = 1) -> list[Key]:
        """Messages to bob that another has sent."""
        device = self.oracle.device(sender, "raw", "client")
        session = self.oracle.welcomed(
            device, trio.current_time(), session="s0", node="n1", owner="n1", resumed=False
        )
        keys = [self.oracle.issue(sender, "bob") for _ in range(count)]
        for key in keys:
            self.oracle.wrote(key, trio.current_time(), session, again=False)
        return keys

    def told(self) -> list[tuple[Promise, str]]:
        """What was broken."""
        return [(breach.promise, breach.words) for breach in self.oracle.breaches()]

    async def until(self, condition: Callable[[], object]) -> None:
        """Returns when it holds."""
        with trio.fail_after(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - books tell no event
                await trio.sleep(0.001)


@pytest.fixture
def stage(nursery: trio.Nursery, node: FakeNode, oracle: Oracle) -> Stage:
    """Where it happens."""
    return Stage(nursery, node, oracle)


async def bring(peer: Peer, key: Key, seq: str, *, marked: bool = False, sender: str = "") -> None:
    """The node sends a message of the crowd."""
    redelivered = True if marked else msgspec.UNSET
    await peer.tell(wire.Message(sender or key.sender, str(key), seq, body(key, ""), 0, redelivered))


class TestRaw:
    async def test_sends_again(self, stage: Stage) -> None:
        """What has no receipt goes again, marked and in order, when it is connected again; what is answered,
        not any more.
        """
        client = stage.raw()
        peer = await stage.node.peer()
        await stage.until(lambda: client.ready)
        for _ in range(3):
            client.send("eve", "x")
        first = await peer.hear_send()
        assert (first.id, first.to, first.again) == ("bob>eve#0", "eve", False)
        await peer.receipt(first)
        await stage.until(lambda: stage.oracle.waits_since(trio.current_time()) == 2)
        assert client.waits
        await peer.cut()
        peer = await stage.node.peer()
        again = [await peer.hear_send(), await peer.hear_send()]
        assert [(send.id, send.again) for send in again] == [("bob>eve#1", True), ("bob>eve#2", True)]
        await peer.receipt(again[0], "queued")
        await peer.tell(wire.Error(ErrorCode.BUSY, "no", True, again[1].id or ""))
        await stage.until(lambda: not client.waits)
        row = stage.oracle.rows[0]
        assert (row.sent, row.delivered, row.queued, row.failed) == (3, 1, 1, {"busy": 1})
        assert client.closes

    async def test_acknowledges_and_resumes(self, stage: Stage) -> None:
        """It acknowledges what came, and resumes from there; the oracle is told before the node is."""
        one, two = stage.expect("alice", 2)
        client = stage.raw()
        peer = await stage.node.peer()
        await bring(peer, one, "1-1")
        assert await peer.hear_ack() == "1-1"
        message = stage.oracle._messages[one]
        assert message.copies[0].acknowledged_at < trio.current_time()
        client.behave("mute")
        await bring(peer, two, "1-2", marked=True)
        await stage.until(lambda: stage.oracle._messages[two].copies)
        assert stage.oracle._messages[two].copies[0].marked
        await peer.cut()
        stage.node.plans.append(fake_node.welcome(resumed="gap"))
        peer = await stage.node.peer()
        assert peer.query["resume"] == "1-2"
        assert stage.oracle._messages[two].copies[0].acknowledged_at < trio.current_time()
        await stage.until(lambda: client.device.unbroken_since > message.sent_at)

    async def test_gathers(self, stage: Stage) -> None:
        """One that gathers acknowledges several at once."""
        one, two = stage.expect("alice", 2)
        stage.raw(ack_every_s=0.05)
        peer = await stage.node.peer()
        await bring(peer, one, "1-1")
        await bring(peer, two, "1-2")
        seqs = [await peer.hear_ack()]
        if seqs == ["1-1"]:
            seqs.append(await peer.hear_ack())
        assert seqs[-1] == "1-2"

    async def test_pongs(self, stage: Stage) -> None:
        """One that acknowledges by pongs does so by those that carry a sequence; a mute one by none."""
        (key,) = stage.expect("alice")
        client = stage.raw(by="pong")
        peer = await stage.node.peer()
        assert peer.query["ack"] == "auto"
        await bring(peer, key, "1-1")
        copies = stage.oracle._messages[key].copies
        with trio.fail_after(DEADLINE_S):
            await peer.websocket.ping(b"")
            assert copies[0].acknowledged_at > trio.current_time()
            await peer.websocket.ping(b"1-1")
        assert copies[0].acknowledged_at < trio.current_time()
        client.behave("mute")
        with trio.move_on_after(0.1) as patience:
            await peer.websocket.ping(b"1-2")
        assert patience.cancelled_caught
        client.behave("good")
        assert not client.device.copies

    async def test_catches_up(self, stage: Stage) -> None:
        """One that was mute acknowledges all when it behaves again."""
        (key,) = stage.expect("alice")
        client = stage.raw()
        client.behave("mute")
        peer = await stage.node.peer()
        await bring(peer, key, "1-1")
        await stage.until(lambda: stage.oracle._messages[key].copies)
        client.behave("good")
        assert await peer.hear_ack() == "1-1"

    async def test_deaf_and_slow(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """A deaf one reads nothing, a slow one little; neither sends, and both are told to have been so."""
        one, two = stage.expect("alice", 2)
        monkeypatch.setattr(raw, "SIP_S", 0.01)
        client = stage.raw()
        peer = await stage.node.peer()
        await stage.until(lambda: client.ready)
        client.send("eve", "")
        client.behave("deaf")
        assert not client.ready
        await peer.hear_send()
        await bring(peer, one, "1-1")  # the read that was under way takes it
        await bring(peer, two, "1-2")
        client.behave("slow")
        assert stage.oracle._messages[Key("bob", "eve", 0)].deaf_until > 0
        await stage.until(lambda: stage.oracle._messages[two].copies)
        client.behave("good")
        assert client.ready

    async def test_goes_away(self, stage: Stage) -> None:
        """It closes, or breaks off, and stays away until it is told to come back."""
        client = stage.raw()
        for politely in (True, False):
            peer = await stage.node.peer()
            await stage.until(lambda: client.connected)
            client.go_away(politely=politely)
            await peer.hear_end()
            await stage.until(lambda: not client.connected)
            client.hang_up(politely=True)  # there is nothing to hang up
            assert len(client.closes) == (1 if politely else 2)
            client.come_back()
        await stage.node.peer()

    async def test_silence(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two heartbeats without a sign of life end a connection."""
        monkeypatch.setattr(raw, "WELCOME_S", 0.2)
        stage.node.plans.append(fake_node.welcome(heartbeat_s=0.05))
        client = stage.raw()
        await stage.node.peer()
        await stage.until(lambda: client.closes)
        assert client.closes[0] == "nothing heard for 1.1 s"

    async def test_not_let_in(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """It tries again until it is."""
        monkeypatch.setattr(raw, "WELCOME_S", 0.3)
        plans = [fake_node.refuse(503, b"full"), fake_node.answer(b""), fake_node.unwelcomed()]
        stage.node.plans.extend([*plans, fake_node.close(1012, "it drains")])
        client = stage.raw()
        await stage.node.peer()  # it never welcomes
        await stage.node.peer()
        assert len(client.closes) == 4
        assert client.closes[0].startswith("HTTP 503")
        assert client.closes[1] == "it ended in the handshake"
        assert client.closes[3] == "closed 1012 it drains"

    async def test_nobody_there(self, stage: Stage) -> None:
        """Where nobody listens it tries again."""
        client = stage.raw(edge="127.0.0.1:1")
        await stage.until(lambda: len(client.closes) > 1)
        assert not client.connected

    async def test_strange(self, stage: Stage) -> None:
        """What a node should not say is told, and does not end the client."""
        (key,) = stage.expect("alice")
        stage.raw()
        peer = await stage.node.peer()
        await peer.tell(wire.Message("alice", "m1", "1-1", msgspec.Raw(b"7"), 0))
        await bring(peer, key, "1-2", sender="eve")
        await peer.tell(wire.Error(ErrorCode.INTERNAL, "oh", True))
        await peer.tell(wire.Ok("j1"))
        await peer.tell(wire.Receipt("alice>bob#0", "queued"))
        await peer.tell(wire.Reconnect(10, "asked for"))  # that is no breach
        await peer.websocket.send_message(b"binary")
        await stage.until(lambda: len(stage.told()) == 5)
        assert [promise for promise, _ in stage.told()] == [Promise.AS_DOCUMENTED] * 5
        words = [words for _, words in stage.told()]
        assert words[0] == "bob/raw got data that nobody sent: b'7'"
        assert words[1] == "bob/raw got alice>bob#0 from 'eve'"
        assert words[2] == "bob/raw got error internal: oh"
        assert "of no known use" in words[3]
        assert "which another has sent" in words[4]
        await peer.websocket.send_message("no JSON")
        await stage.until(lambda: len(stage.told()) == 6)
        await stage.node.peer()


class TestLibrary:
    async def test_both_sides_are_told(self, stage: Stage) -> None:
        """Of a double the wire knows, and the application does not."""
        (key,) = stage.expect("alice")
        client = stage.library()
        peer = await stage.node.peer()
        await bring(peer, key, "1-1")
        await bring(peer, key, "1-2", marked=True)
        assert await peer.hear_ack() in ("1-1", "1-2")
        message = stage.oracle._messages[key]
        await stage.until(lambda: len(message.copies) == 2)
        assert len(message.taken) == 1
        assert stage.oracle.rows[0].doubled == 1
        assert client.connected
        assert stage.told() == []

    async def test_sends(self, stage: Stage) -> None:
        """What it sends has numbers in the order of the wire; it returns what the node says."""
        client = stage.library()
        peer = await stage.node.peer()
        await stage.until(lambda: client.ready)
        for _ in range(3):
            client.send("eve", "x")
        for n, status in enumerate(("delivered", "queued", "failed")):
            send = await peer.hear_send()
            assert send.id is not None
            assert msgspec.json.decode(send.data)["n"] == n
            code = ErrorCode.OFFLINE if status == "failed" else msgspec.UNSET
            await peer.tell(wire.Receipt(send.id, status, code=code))  # type: ignore[arg-type] # as it says
        await stage.until(lambda: not client.waits)
        row = stage.oracle.rows[0]
        assert (row.sent, row.delivered, row.queued, row.failed) == (3, 1, 1, {"offline": 1})
        assert [promise for promise, _ in stage.told()] == [Promise.TRUE_RECEIPT]

    async def test_resumes(self, stage: Stage) -> None:
        """After a cut it resumes, which acknowledges; what it had sent goes again."""
        (key,) = stage.expect("alice")
        client = stage.library()
        peer = await stage.node.peer()
        await stage.until(lambda: client.ready)
        client.send("eve", "")
        await peer.hear_send()
        await bring(peer, key, "1-1")
        await stage.until(lambda: stage.oracle._messages[key].taken)
        await peer.cut()
        peer = await stage.node.peer()
        assert peer.query["resume"] == "1-1"
        assert stage.oracle._messages[key].copies[0].acknowledged_at < trio.current_time()
        assert (await peer.hear_send()).again
        assert [write.again for write in stage.oracle._messages[Key("bob", "eve", 0)].writes] == [False, True]

    async def test_goes_away(self, stage: Stage) -> None:
        """An application that ends gives up what it waited for; another follows, which resumes nothing."""
        (key,) = stage.expect("alice")
        client = stage.library()
        peer = await stage.node.peer()
        await stage.until(lambda: client.ready)
        client.send("eve", "")
        await peer.hear_send()
        await bring(peer, key, "1-1")
        await peer.hear_ack()
        assert client.pending == [Key("bob", "eve", 0)]
        client.go_away(politely=True)
        await peer.hear_end()
        await stage.until(lambda: not client.connected)
        assert not client.pending
        assert stage.oracle.rows[0].abandoned == 1
        client.come_back()
        peer = await stage.node.peer()
        assert "resume" not in peer.query

    async def test_refused(self, stage: Stage) -> None:
        """A client that is refused for good is told, and stays away."""
        stage.node.plans.append(fake_node.refuse(403, b'{"error":{"code":"forbidden","message":"no"}}'))
        client = stage.library()
        await stage.until(stage.told)
        ((promise, words),) = stage.told()
        assert promise is Promise.AS_DOCUMENTED
        assert "the end of its connection" in words
        assert not client.connected

    async def test_strange(self, stage: Stage) -> None:
        """What a node should not say is told."""
        (key,) = stage.expect("alice")
        stage.library()
        peer = await stage.node.peer()
        await bring(peer, key, "1-1", sender="eve")
        await peer.tell(wire.Ok("j1"))
        await peer.tell(wire.Receipt("unknown", "queued"))
        await stage.until(lambda: len(stage.told()) == 3)
        assert [promise for promise, _ in stage.told()] == [Promise.AS_DOCUMENTED] * 3
        assert library.BACKOFF.cap_s < 1
