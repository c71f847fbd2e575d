"""What `make bench` compares with: how its clients speak, and what is said where it is not installed."""

import json
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import servers
from benchmarks.peers.nats import NatsDialect
from ring.bench.clients import Client, Ear
from ring.bench.dialect import RingDialect

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


class Pretended(Ear):
    """A client, and the ear that it tells."""

    def __init__(self) -> None:
        self.user = "ann"
        self.said: list[bytes] = []
        self.words: list[str] = []
        self.ear = self

    def send(self, payload: bytes) -> None:
        self.said.append(payload)

    def on_welcome(self, client: Client) -> None:
        self.words.append("welcome")

    def on_ok(self, client: Client) -> None:
        self.words.append("ok")

    def on_text(self, client: Client, text: str) -> None:
        self.words.append(text)

    def on_error(self, client: Client, code: str) -> None:
        self.words.append(f"error {code}")

    def on_receipt(self, client: Client, number: int, failure: str) -> None:
        self.words.append(f"receipt {number} {failure}".strip())


def client() -> tuple[Pretended, Client]:
    """The same, twice."""
    pretended = Pretended()
    return pretended, cast("Client", pretended)


class TestNats:
    SAID = (
        b'INFO {"server_id":"x"}\r\nPONG\r\n+OK\r\nMSG user.ann 1 5\r\nhello\r\nPING\r\n'
        b"MSG room.r 2 reply.to 9\r\na\r\nMSG b!\r\nPONG\r\n-ERR 'Slow Consumer'\r\n"
    )
    HEARD = ("welcome", "hello", "a\r\nMSG b!", "ok", "error Slow Consumer")

    def test_login(self) -> None:
        """Says who it is, listens for what is sent to it, and asks to be told when that is done."""
        pretended, own = client()
        NatsDialect().session(own).opened()
        connect, rest = pretended.said[0].removeprefix(b"CONNECT ").split(b"\r\n", 1)
        assert json.loads(connect)["verbose"] is False
        assert rest == b"SUB user.ann 1\r\nPING\r\n"

    @given(st.lists(st.integers(1, len(SAID) - 1), max_size=6))
    def test_a_stream_in_any_frames(self, cuts: list[int]) -> None:
        """Messages that share a frame, and those that several frames share, are the same."""
        pretended, own = client()
        session = NatsDialect().session(own)
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(self.SAID)], strict=True):
            session.read(self.SAID[start:end])
        assert tuple(pretended.words) == self.HEARD
        assert pretended.said == [b"PONG\r\n"]

    def test_what_clients_say(self) -> None:
        """Lengths are those of the text."""
        dialect = NatsDialect()
        assert dialect.direct(1, "bob", "hello") == b"PUB user.bob 5\r\nhello\r\n"
        assert dialect.publish(1, "r", "hi") == b"PUB room.r 2\r\nhi\r\n"
        assert dialect.join("r") == b"SUB room.r 2\r\nPING\r\n"
        assert dialect.query("ann") == ""


class TestRing:
    def read(self, *frames: str, receipts: bool = True) -> Pretended:
        """What comes of frames."""
        pretended, own = client()
        session = RingDialect(receipts=receipts).session(own)
        session.opened()
        for frame in frames:
            session.read(frame.encode())
        return pretended

    @pytest.mark.parametrize(
        ("frame", "heard"),
        [
            ('{"type":"welcome","user":"ann","limits":{"in_flight":1}}', "welcome"),
            ('{"type":"room","room":"r","from":null,"data":"hi"}', "hi"),
            ('{"type":"ok","id":"join"}', "ok"),
            ('{"type":"receipt","id":"7","status":"delivered","by":"client"}', "receipt 7"),
            ('{"type":"receipt","id":"7","status":"failed","code":"offline"}', "receipt 7 offline"),
            ('{"type":"receipt","id":"7","status":"queued"}', "receipt 7 queued"),
            ('{"type":"receipt","id":"x","status":"delivered"}', "error unreadable_frame"),
            ('{"type":"receipt","status":"failed","code":"busy"}', "error busy"),
            ('{"type":"error","code":"busy","message":"","retryable":true}', "error busy"),
            ('{"type":"error"}', "error unreadable_frame"),
            ('{"type":"message","data":{"an":"object"}}', "error unreadable_frame"),
            ("[]", "error unreadable_frame"),
        ],
    )
    def test_frames(self, frame: str, heard: str) -> None:
        """Each means one thing."""
        assert self.read(frame).words == [heard]

    def test_what_means_nothing(self) -> None:
        """A load wants no more of it."""
        assert self.read('{"type":"reconnect","after_ms":5}', '{"type":"later","data":"x"}').words == []

    def test_acknowledging(self) -> None:
        """Every message, where receipts are wanted."""
        frame = '{"type":"message","from":"bob","id":"1","seq":"5-7","data":"hi"}'
        assert self.read(frame).said == [b'{"type":"ack","seq":"5-7"}']
        assert self.read(frame, receipts=False).said == []

    def test_what_clients_say(self) -> None:
        """Is JSON; without receipts there is nothing to tell a message by."""
        assert json.loads(RingDialect(receipts=True).direct(3, "bob", "hi")) == {
            "type": "send", "id": "3", "to": "bob", "data": "hi"
        }  # as a table # fmt: skip
        assert json.loads(RingDialect().direct(3, "bob", "hi")) == {
            "type": "send", "receipt": False, "to": "bob", "data": "hi"
        }  # as a table # fmt: skip
        assert RingDialect(receipts=True).query("a b&c") == "user=a+b%26c&ack=client"
        assert RingDialect().query("a") == "user=a&ack=auto"


class TestInstalled:
    def test_what_lacks_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A peer that is not installed is left out, and says why."""
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("NATS_SERVER", raising=False)
        monkeypatch.setattr(servers, "PYTHON", tmp_path / "python")
        monkeypatch.setattr(servers, "SYSTEM_PROGRAMS", str(tmp_path))
        missing = {server.name: server.missing() for server in servers.SERVERS}
        assert missing.pop("Ring") == ""
        assert all(missing.values()), missing

    def test_versions_are_exact(self) -> None:
        """npm gets no lock file: what it installs is pinned by name."""
        package = json.loads((PEERS / "package.json").read_text("utf-8"))
        assert set(package["dependencies"]) == {"redis", "ws"}
        assert all(version.replace(".", "").isdigit() for version in package["dependencies"].values())
