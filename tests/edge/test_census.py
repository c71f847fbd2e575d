"""What becomes of a node's clients, counted and logged."""

from typing import cast

import pytest
from structlog.testing import capture_logs

from ring.edge.admission import Farewell
from ring.protocol.codes import CloseCode, ErrorCode
from ring.transport.socket import Socket
from tests.edge.desk import Desk, FakeSocket
from tests.edge.test_admission import Refusing, accepted, opened


class TestCounts:
    def test_sessions_that_come_and_go(self) -> None:
        """By the code of each end, whoever began it."""
        desk = Desk()
        for code in (CloseCode.NORMAL, CloseCode.NORMAL, CloseCode.ABNORMAL, 3333):
            desk.welcomed("alice").hang_up(code)
        assert desk.gateway.census.opened == 4
        assert desk.gateway.census.closed == {1000: 2, 1006: 1, 3333: 1}

    def test_messages_and_receipts(self) -> None:
        """A copy for each session, and a receipt by what it says."""
        desk = Desk()
        alice, bob, other = desk.welcomed("alice"), desk.welcomed("bob"), desk.welcomed("bob", "tablet")
        alice.say("send", id="1", to="bob", data=1)
        alice.say("send", id="2", to="nobody", data=1)
        alice.say("send", id="3", to="bob", data="x" * 2000)
        alice.say("send", to="bob", data=1, receipt=False)
        (first, _) = bob.heard("message")
        bob.say("ack", seq=first["seq"])
        assert len(other.heard("message")) == 2
        census = desk.gateway.census
        assert census.delivered == 4
        assert census.receipts == {"client": 1, ErrorCode.OFFLINE: 1, ErrorCode.TOO_LARGE: 1}
        assert (desk.router.tracked, desk.router.untracked) == (2, 1)

    def test_the_answer_of_a_client_that_sees_pings(self) -> None:
        """A pong is told apart from a client's own word."""
        desk = Desk()
        alice, bob = desk.welcomed("alice"), desk.welcomed("bob", by="pong")
        alice.say("send", id="1", to="bob", data=1)
        bob.pong(bob.pings()[-1])
        assert desk.gateway.census.receipts == {"pong": 1}

    def test_errors(self) -> None:
        """Those of rooms too; a receipt that says failed is none."""
        desk = Desk()
        alice = desk.welcomed("alice")
        alice.say("explode", id="1")
        alice.say("ack", seq="no")
        alice.say("leave", id="2", room="never joined")
        alice.say("join", id="3", room="")
        alice.say("send", id="4", to="", data=1)
        assert [frame["type"] for frame in alice.heard()] == ["error"] * 4 + ["receipt"]
        assert desk.gateway.census.errors == {
            ErrorCode.UNKNOWN_TYPE: 1,
            ErrorCode.BAD_REQUEST: 2,
            ErrorCode.NOT_JOINED: 1,
        }

    def test_a_browser_that_is_told_why_not(self) -> None:
        """Its WebSocket opens and ends, its error is one, and it counts as refused."""
        desk = Desk()
        admission = opened(desk, authentication=Refusing(ErrorCode.UNAUTHENTICATED))
        endpoint = accepted(admission, "/v1/connect", "Origin: http://localhost").endpoint
        assert isinstance(endpoint, Farewell)
        endpoint.on_open(cast("Socket", FakeSocket()))
        endpoint.on_close(CloseCode.UNAUTHENTICATED, "")
        census = desk.gateway.census
        assert (census.opened, census.closed) == (1, {4001: 1})
        assert census.errors == census.farewells == {ErrorCode.UNAUTHENTICATED: 1}


class TestLog:
    @pytest.mark.parametrize(
        ("code", "level"),
        [
            (1000, "debug"),
            (1006, "debug"),
            (1012, "debug"),
            (4008, "info"),
            (4009, "info"),
            (4010, "info"),
            (1013, "warning"),
            (1011, "warning"),
            (3999, "debug"),
        ],
    )
    def test_the_end_of_a_session(self, code: int, level: str) -> None:
        """Ordinary ends are details; what the node did for a cause is told, what it could not do more so."""
        desk = Desk()
        client = desk.welcomed("alice")
        with capture_logs() as logs:
            client.hang_up(code)
        assert logs == [
            {
                "event": "session ended",
                "session": "n1.1",
                "address": "1.2.3.4:5",
                "code": code,
                "log_level": level,
            }
        ]
        assert type(logs[0]["code"]) is int

    def test_no_line_names_a_user(self) -> None:
        """Names of users and devices, and what clients say, are nobody's business who reads a log."""
        with capture_logs() as logs:
            desk = Desk()
            alice, bob = desk.welcomed("alice-the-user", "her-device"), desk.welcomed("bob-the-user")
            again = desk.welcomed("alice-the-user", "her-device")
            again.say("send", id="an-id", to="bob-the-user", data="some-data")
            again.session.on_close(CloseCode.NORMAL, "some-reason")
            bob.hang_up()
        assert alice.close_code() == CloseCode.REPLACED
        assert {log["event"] for log in logs} == {"session opened", "session ended"}
        told = repr(logs)
        for name in ("alice", "bob", "her-device", "an-id", "some-data", "some-reason"):
            assert name not in told
