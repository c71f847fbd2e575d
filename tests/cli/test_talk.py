"""`ring send` and `ring chat`: how they get into a cluster, and what their end says."""

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from ring.cli import talk
from ring.cli.main import main
from ring.client import ConnectionEnded, Receipt
from ring.protocol.codes import ErrorCode
from tests.cli.canned import NOWHERE, CannedNode, entry, own, two_nodes

Output = pytest.CaptureFixture[str]


class Cluster:
    """Takes the place of `ring.connect`.

    Attributes:
        receipt: what every message gets; None: nothing, ever.
        lets_in: whether `connect` gets anywhere.
        connected: (URLs, user) of each call.
        sent: (to, data) of each message.
    """

    def __init__(self) -> None:
        self.receipt: Receipt | None = Receipt("1", "delivered", by="client")
        self.lets_in: bool | Exception = True
        self.connected: list[tuple[list[str], str]] = []
        self.sent: list[tuple[str, object]] = []

    @asynccontextmanager
    async def connect(self, urls: Sequence[str], user: str) -> AsyncIterator[Any]:
        self.connected.append((list(urls), user))
        if isinstance(self.lets_in, Exception):
            raise self.lets_in
        if not self.lets_in:
            await trio.sleep_forever()

        async def send(to: str, data: object) -> Receipt:
            self.sent.append((to, data))
            if self.receipt is None:
                await trio.sleep_forever()
            assert self.receipt is not None
            return self.receipt

        yield SimpleNamespace(send=send, node="n1", owner="n1")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster that lets everybody in and delivers everything."""
    cluster = Cluster()
    monkeypatch.setattr("ring.connect", cluster.connect)
    return cluster


class TestSend:
    def test_delivered(self, cluster: Cluster, capsys: Output) -> None:
        """The text arrives, and it is said how that is known."""
        assert main(["send", "--user", "alice", "--edge", "10.0.0.1:80", "bob", "hello"]) == 0
        assert capsys.readouterr().out == "delivered: its client acknowledged it\n"
        assert cluster.connected == [(["ws://10.0.0.1:80"], "alice")]
        assert cluster.sent == [("bob", "hello")]

    @pytest.mark.parametrize(
        ("receipt", "code", "says"),
        [
            (Receipt("1", "delivered", by="pong"), 0, "delivered: its WebSocket answered"),
            (Receipt("1", "queued"), 0, "queued: stored until the recipient comes"),
            (
                Receipt("1", "failed", code=ErrorCode.OWNER_UNAVAILABLE, message="no owner"),
                1,
                "failed: owner_unavailable: no owner",
            ),
        ],
    )
    def test_other_fates(
        self, receipt: Receipt, code: int, says: str, cluster: Cluster, capsys: Output
    ) -> None:
        """Stored is well, failed is not."""
        cluster.receipt = receipt
        assert main(["send", "--user", "alice", "--edge", "x:80", "bob", "hello"]) == code
        assert capsys.readouterr().out == says + "\n"

    def test_json(self, cluster: Cluster, capsys: Output) -> None:
        """JSON to send, and the receipt as JSON."""
        arguments = ["--edge", "wss://ring.test/x", "bob", "--json-data", '{"a":[1,null]}', "--json"]
        assert main(["send", "--user", "alice", *arguments]) == 0
        receipt = json.loads(capsys.readouterr().out)
        assert (receipt["status"], receipt["by"]) == ("delivered", "client")
        assert cluster.connected == [(["wss://ring.test/x"], "alice")]
        assert cluster.sent == [("bob", {"a": [1, None]})]

    def test_nobody_lets_one_in(
        self, cluster: Cluster, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The wait is bounded, and where it was tried is said."""
        monkeypatch.setattr(talk, "CONNECT_S", 0.01)
        cluster.lets_in = False
        assert main(["send", "--user", "alice", "--edge", "x:80", "bob", "hello"]) == 3
        assert capsys.readouterr().err == "ring: no node lets alice in, tried ws://x:80\n"

    def test_no_word_of_its_fate(
        self, cluster: Cluster, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The wait is bounded; that it may arrive is said."""
        monkeypatch.setattr(talk, "SEND_S", 0.01)
        cluster.receipt = None
        assert main(["send", "--user", "alice", "--edge", "x:80", "bob", "hello"]) == 3
        assert "it may arrive all the same" in capsys.readouterr().err

    def test_refused(self, cluster: Cluster, capsys: Output) -> None:
        """A node's no is passed on."""
        cluster.lets_in = ConnectionEnded("n1 refused: not you", code=ErrorCode.FORBIDDEN)
        assert main(["send", "--user", "alice", "--edge", "x:80", "bob", "hello"]) == 1
        assert capsys.readouterr().err == "ring: n1 refused: not you\n"


class TestEdges:
    def test_those_of_all_nodes_that_serve(self, canned: CannedNode, cluster: Cluster) -> None:
        """Draining ones and such as do not answer are left out."""
        two_nodes(canned)
        nodes = canned.answers["/v1/nodes"][1]["nodes"]
        nodes += [entry("n3", NOWHERE, link="refused"), entry("n4", canned.address, link="up", self=own())]
        assert main(["send", "--user", "alice", "--api", canned.url, "bob", "hello"]) == 0
        [(urls, _)] = cluster.connected
        assert sorted(urls) == ["ws://n1.test:8001", "ws://n4.test:8001"]

    def test_none_serves(self, canned: CannedNode, cluster: Cluster, capsys: Output) -> None:
        """Then nothing is tried."""
        canned.answers["/v1/ring"] = (200, {"cluster": "test", "epoch": 7})
        canned.answers["/v1/nodes"] = (
            200,
            {"nodes": [entry("n1", canned.address, self=own(state="draining"))]},
        )
        assert main(["send", "--user", "alice", "--api", canned.url, "bob", "hello"]) == 3
        assert capsys.readouterr().err == "ring: no node of cluster test serves: see ring status\n"
        assert cluster.connected == []


class TestChat:
    def test_a_conversation(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is held with the client that was let in, for as long as it takes."""
        held = []

        async def hold(conversation: object, client: Any) -> None:
            held.append((client.node, trio.current_effective_deadline()))
            await trio.lowlevel.checkpoint()

        monkeypatch.setattr("ring.cli.conversation.Conversation.hold", hold)
        assert main(["chat", "--user", "alice", "--edge", "x:80", "--to", "bob"]) == 0
        assert held == [("n1", math.inf)]

    def test_rooms(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """As many as are named."""
        given = []

        async def hold(conversation: Any, client: object) -> None:
            await trio.lowlevel.checkpoint()
            given.append((conversation.user, list(conversation.rooms)))

        monkeypatch.setattr("ring.cli.conversation.Conversation.hold", hold)
        assert main(["chat", "--user", "alice", "--edge", "x:80"]) == 0
        assert main(["chat", "--user", "alice", "--edge", "x:80", "--room", "a", "--room", "b"]) == 0
        assert given == [("alice", []), ("alice", ["a", "b"])]

    def test_malformed_names(self, cluster: Cluster, capsys: Output) -> None:
        """Are refused before anything is tried."""
        for option in ("--to", "--room"):
            assert main(["chat", "--user", "alice", "--edge", "x:80", option, "x" * 256]) != 0
            assert "1 to 255 bytes" in capsys.readouterr().err
        assert cluster.connected == []

    def test_nobody_lets_one_in(
        self, cluster: Cluster, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The wait is bounded."""
        monkeypatch.setattr(talk, "CONNECT_S", 0.01)
        cluster.lets_in = False
        assert main(["chat", "--user", "alice", "--edge", "x:80"]) == 3
        assert "no node lets alice in" in capsys.readouterr().err
