"""The door for clients: who may come in, and what the others are told."""

from typing import cast

import pytest

from ring.edge.admission import Admission, Believing, Farewell, Identity
from ring.edge.session import ClientSession
from ring.protocol.codes import ErrorCode, RingError
from ring.protocol.upgrade import Request, parse_request
from ring.transport.handshake import Accept, Refuse
from ring.transport.socket import Socket
from tests.edge.desk import Desk, FakeSocket


class Refusing:
    """Knows nobody."""

    def __init__(self, code: ErrorCode) -> None:
        self.code = code

    def identify(self, request: Request, query: dict[str, str]) -> Identity:
        raise RingError("no, not you", code=self.code)


def request(target: str, *fields: str) -> Request:
    """What a client asks for."""
    head = "\r\n".join((f"GET {target} HTTP/1.1", "Host: ring.example:8001", *fields, "", ""))
    return parse_request(head.encode("latin-1"))


def opened(desk: Desk | None = None, **options: object) -> Admission:
    """The door of a node that serves."""
    arguments = {"authentication": Believing(), "gateway": (desk or Desk()).gateway, **options}
    admission = Admission(**arguments)  # type: ignore[arg-type] # by name
    admission.open = True
    return admission


def accepted(admission: Admission, target: str, *fields: str) -> Accept:
    """The door lets this in."""
    answer = admission.door(request(target, *fields), "5.6.7.8:9")
    assert isinstance(answer, Accept), answer
    return answer


def session(admission: Admission, target: str, *fields: str) -> ClientSession:
    """The session that this becomes."""
    endpoint = accepted(admission, target, *fields).endpoint
    assert isinstance(endpoint, ClientSession)
    return endpoint


def refused(admission: Admission, target: str, *fields: str) -> Refuse:
    """The door does not let this in."""
    answer = admission.door(request(target, *fields), "5.6.7.8:9")
    assert isinstance(answer, Refuse)
    return answer


class TestQuery:
    """What a client says of itself."""

    def test_a_user_is_enough(self) -> None:
        """The device is random then, acknowledging is by pongs, and nothing is resumed."""
        admission = opened()
        one, other = (session(admission, "/v1/connect?user=alice") for _ in range(2))
        assert (one.user, one.by, one.resume, one.expires_at) == ("alice", "pong", None, None)
        assert one.address == "5.6.7.8:9"
        assert len(one.device) >= 16
        assert one.device != other.device
        assert one.sid < other.sid
        assert one.name != other.name

    def test_all_can_be_said(self) -> None:
        """Unknown parameters are ignored."""
        one = session(opened(), "/v1/connect?user=alice&device=d1&ack=client&resume=7-12&x=y")
        assert (one.user, one.device, one.by, one.resume) == ("alice", "d1", "client", "7-12")
        assert session(opened(), "/v1/connect?user=a&ack=auto").by == "pong"

    def test_the_limits_go_to_the_transport(self) -> None:
        """A frame twice as long as a message may be is read, so that its refusal finds its sender."""
        answer = accepted(opened(), "/v1/connect?user=alice")
        assert (answer.max_message, answer.max_queued) == (2000, 10_000)

    @pytest.mark.parametrize(
        ("query", "user"),
        [
            ("user=m%C3%BCller", "müller"),
            ("user=a+b%20c%2B", "a b c+"),
            ("user=%E4%BD%A0%E5%A5%BD%F0%9F%8E%89", "你好🎉"),
            ("user=a%2Fb%3Fc%26d", "a/b?c&d"),
            ("user=first&user=second", "first"),
            ("device=d;user=x", "x"),
            ("user=e%CC%81", "e\u0301"),
        ],
    )
    def test_names_are_form_encoded_utf_8(self, query: str, user: str) -> None:
        """As HAProxy decodes them, and never normalised."""
        assert session(opened(), f"/v1/connect?{query}").user == user

    @pytest.mark.parametrize(
        "query",
        [
            "",
            "user",
            "user=",
            "user=" + "x" * 256,
            "user=a%0Ab",
            "user=a%7F",
            "user=%ED%A0%80",
            "user=%FF",
            "user=%G1",
            "device=d",
            "user=a&device=",
            "user=a&device=%00",
            "user=a&ack=",
            "user=a&ack=CLIENT",
        ],
    )
    def test_what_is_malformed_is_refused(self, query: str) -> None:
        """400, with what is wrong."""
        admission = opened()
        answer = refused(admission, f"/v1/connect?{query}")
        assert (answer.status, answer.code) == (400, ErrorCode.BAD_REQUEST)
        assert answer.message
        assert admission.refused == {ErrorCode.BAD_REQUEST: 1}

    @pytest.mark.parametrize(
        "target", ["/", "/v1/connect/", "/v1/Connect?user=a", "/v1/peer", "//v1/connect"]
    )
    def test_clients_connect_at_one_path(self, target: str) -> None:
        """404 elsewhere."""
        assert refused(opened(), target).status == 404


class TestSubprotocol:
    """What the client wants to speak."""

    def test_none_offered_none_chosen(self) -> None:
        """A client need not offer any."""
        assert accepted(opened(), "/v1/connect?user=a").subprotocol is None

    @pytest.mark.parametrize(
        "fields",
        [
            ("Sec-WebSocket-Protocol: ring.v1",),
            ("Sec-WebSocket-Protocol: chat, ring.v1",),
            ("Sec-WebSocket-Protocol: ring.v1, ring.token.abc",),
            ("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: ring.v1"),
        ],
    )
    def test_ours_alone_is_chosen(self, fields: tuple[str, ...]) -> None:
        """Wherever it stands among those that are offered."""
        assert accepted(opened(), "/v1/connect?user=a", *fields).subprotocol == "ring.v1"

    def test_without_ours_it_is_refused(self) -> None:
        """400: the client would not understand us. Names are compared exactly."""
        for offered in ("chat", "ring.v2", "RING.V1", "ring.v1x"):
            answer = refused(opened(), "/v1/connect?user=a", f"Sec-WebSocket-Protocol: {offered}")
            assert (answer.status, answer.code) == (400, ErrorCode.BAD_REQUEST)


class TestOrigins:
    """Web pages."""

    @pytest.mark.parametrize(
        "origin",
        [
            "https://ring.example:8001",
            "http://ring.example:8001",
            "http://localhost",
            "http://localhost:3000",
            "http://127.0.0.1:5500",
            "http://[::1]:8080",
            "https://listed.example",
        ],
    )
    def test_admissible_ones_come_in(self, origin: str) -> None:
        """Pages of this host, of the user's own machine, and listed ones."""
        admission = opened(origins=("https://listed.example",))
        assert isinstance(session(admission, "/v1/connect?user=a", f"Origin: {origin}"), ClientSession)

    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example",
            "http://listed.example",
            "https://listed.example:444",
            "https://listed.example.evil.example",
            "https://ring.example",
            "https://ring.example:8001.evil.example",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "null",
            "",
            "http://[::1",
            "file://",
        ],
    )
    def test_others_do_not(self, origin: str) -> None:
        """403 before anything else is looked at: a page must not learn who may."""
        admission = opened(origins=("https://listed.example",))
        answer = refused(admission, "/v1/connect", f"Origin: {origin}")
        assert (answer.status, answer.code) == (403, ErrorCode.FORBIDDEN)
        assert admission.refused == {ErrorCode.FORBIDDEN: 1}

    def test_all_may_if_so_configured(self) -> None:
        """`*`."""
        admission = opened(origins=("*",))
        for origin in ("https://any.example", "null"):
            assert session(admission, "/v1/connect?user=a", f"Origin: {origin}").user == "a"

    @pytest.mark.parametrize(
        ("code", "close"),
        [
            (ErrorCode.UNAUTHENTICATED, 4001),
            (ErrorCode.TOKEN_EXPIRED, 4001),
            (ErrorCode.FORBIDDEN, 4003),
            (ErrorCode.RATE_LIMITED, 4029),
        ],
    )
    def test_a_page_is_told_by_message_and_close_code(self, code: ErrorCode, close: int) -> None:
        """Its script cannot see an HTTP answer: it is let in, told why, and closed."""
        admission = opened(authentication=Refusing(code))
        fields = ("Origin: http://localhost", "Sec-WebSocket-Protocol: ring.v1, ring.token.x")
        answer = accepted(admission, "/v1/connect", *fields)
        assert answer.subprotocol == "ring.v1"
        endpoint, socket = answer.endpoint, FakeSocket()
        assert isinstance(endpoint, Farewell)
        endpoint.on_open(cast("Socket", socket))
        assert socket.frames == [
            {"type": "error", "code": code, "message": "no, not you", "retryable": code.retryable}
        ]
        assert socket.closed == (close, code)
        endpoint.on_text(b"{}")
        endpoint.on_binary(b"")
        endpoint.on_pong(b"")
        endpoint.on_drained()
        endpoint.on_close(close, "")
        assert len(socket.frames) == 1
        assert admission.refused == {code: 1}

    def test_a_page_that_offers_nothing_is_told_too(self) -> None:
        """Then no sub-protocol is chosen."""
        admission = opened(authentication=Refusing(ErrorCode.FORBIDDEN))
        assert accepted(admission, "/v1/connect", "Origin: http://localhost").subprotocol is None

    def test_what_it_can_do_nothing_about_stays_http(self) -> None:
        """400 and 503: no close code stands for them."""
        assert refused(opened(), "/v1/connect", "Origin: http://localhost").status == 400
        admission = opened()
        admission.open = False
        assert refused(admission, "/v1/connect?user=a", "Origin: http://localhost").status == 503


class TestRefusals:
    """Clients that are no pages get HTTP."""

    @pytest.mark.parametrize(
        ("code", "status", "later"),
        [
            (ErrorCode.UNAUTHENTICATED, 401, False),
            (ErrorCode.TOKEN_EXPIRED, 401, False),
            (ErrorCode.FORBIDDEN, 403, False),
            (ErrorCode.RATE_LIMITED, 429, True),
            (ErrorCode.BAD_REQUEST, 400, False),
        ],
    )
    def test_by_the_authentication(self, code: ErrorCode, status: int, later: bool) -> None:
        """Each code has its status; where trying again may help it says when."""
        admission = opened(authentication=Refusing(code))
        answer = refused(admission, "/v1/connect")
        assert (answer.status, answer.code, answer.message) == (status, code, "no, not you")
        assert tuple(answer.headers) == ((("Retry-After", "1"),) if later else ())
        refused(admission, "/v1/connect")
        assert admission.refused == {code: 2}

    def test_a_node_that_does_not_serve_takes_nobody(self) -> None:
        """503 until it is opened, and again once it drains; whoever it is, and however many there are."""
        desk = Desk()
        admission = Admission(authentication=Believing(), gateway=desk.gateway)
        for _ in range(2):
            answer = refused(admission, "/v1/connect?user=a")
            assert (answer.status, answer.code) == (503, ErrorCode.OWNER_UNAVAILABLE)
            assert tuple(answer.headers) == (("Retry-After", "1"),)
        admission.open = True
        assert session(admission, "/v1/connect?user=a").user == "a"

    def test_a_full_node_takes_no_more(self) -> None:
        """503 with Retry-After, until somebody leaves."""
        desk = Desk()
        admission = opened(desk, max_connections=2)
        desk.connect("a")
        assert session(admission, "/v1/connect?user=c").user == "c"
        last = desk.connect("b")
        answer = refused(admission, "/v1/connect?user=c")
        assert (answer.status, answer.code) == (503, ErrorCode.TOO_MANY_CONNECTIONS)
        assert tuple(answer.headers) == (("Retry-After", "1"),)
        last.hang_up()
        assert session(admission, "/v1/connect?user=c").user == "c"

    def test_who_the_authentication_knows_comes_in(self) -> None:
        """The session ends when the identity does."""

        class Knowing:
            def identify(self, request: Request, query: dict[str, str]) -> Identity:
                assert query == {"token": "t"}
                assert request.headers.get("host") == "ring.example:8001"
                return Identity("alice", 99.5)

        one = session(opened(authentication=Knowing()), "/v1/connect?token=t")
        assert (one.user, one.expires_at) == ("alice", 99.5)
