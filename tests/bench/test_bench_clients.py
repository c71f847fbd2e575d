"""The clients of a load: addresses, bytes as they come, TLS, and how connections end."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from ring.bench.clients import Client, Ear, Switchboard
from ring.bench.dialect import RingDialect
from ring.bench.edge import Edge
from ring.cli.main import main
from ring.protocol.codes import BadRequest
from ring.protocol.upgrade import accept_response, check_upgrade, parse_request
from ring.protocol.websocket import CLOSE, PING, PONG, TEXT, Decoder, close_payload, encode_frame

WELCOME = encode_frame(TEXT, b'{"type":"welcome"}')
Peer = Callable[[socket.socket], None]


@pytest.mark.parametrize(
    ("address", "edge"),
    [
        ("127.0.0.1:8001", Edge("127.0.0.1", 8001)),
        ("[::1]:8001", Edge("::1", 8001)),
        ("ws://example.test", Edge("example.test", 80)),
        ("wss://example.test/chat?a=b", Edge("example.test", 443, True, "/chat", "a=b")),
    ],
)
def test_edges(address: str, edge: Edge) -> None:
    """As people write them."""
    assert Edge.parse(address) == edge


@pytest.mark.parametrize(
    "address", ["example.test", "http://example.test", "ws://", "ws://a:port", "a:99999"]
)
def test_no_edges(address: str) -> None:
    """Are refused, with what to write."""
    with pytest.raises(BadRequest, match="edge: "):
        Edge.parse(address)


def test_targets() -> None:
    """The address's own path and query come first."""
    assert Edge("h", 1).target("/v1/connect", "user=a") == "/v1/connect?user=a"
    assert Edge("h", 1, path="/x", query="k=v").target("/v1/connect", "user=a") == "/x?k=v&user=a"
    assert Edge("h", 1).target("/", "") == "/"
    assert Edge("::1", 443, tls=True).authority == "[::1]"
    assert Edge("h", 443).authority == "h:443"


def test_a_host_of_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients go to one where somebody listens, whichever comes first; to the last if nobody does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there, nobody = server.getsockname(), ("127.0.0.1", 1)
        for found in ([nobody, there], [there, nobody], [nobody, there, nobody]):
            places = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in found]
            monkeypatch.setattr("ring.bench.edge.socket.getaddrinfo", lambda *_, places=places, **__: places)
            assert Edge("several.test", 1).place() == (socket.AF_INET, there)
    assert Edge("several.test", 1).place() == (socket.AF_INET, nobody)


def test_a_host_without_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Is named, and nobody was reached."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("ring.bench.edge.socket.getaddrinfo", unknown)
    assert main(["bench", "storm", "--edge", "nowhere.test:1"]) == 3
    assert capsys.readouterr().err == ("ring: edge: nowhere.test has no address: Name or service not known\n")


class Heard(Ear):
    """Everything, as words."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def on_welcome(self, client: Client) -> None:
        self.words.append("welcome")

    def on_text(self, client: Client, text: str) -> None:
        self.words.append(text)

    def on_closed(self, client: Client, reason: str) -> None:
        self.words.append(reason)

    def on_error(self, client: Client, code: str) -> None:
        self.words.append(code)


@contextmanager
def served(peer: Peer) -> Iterator[Edge]:
    """A server for one connection, in a thread."""

    def serve() -> None:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            peer(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Edge("127.0.0.1", server.getsockname()[1])
        thread.join(10)
        assert not thread.is_alive()


def upgraded(connection: socket.socket, *, cut: int = 0) -> None:
    """Answers the upgrade, in two pieces if asked."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    answer = accept_response(check_upgrade(parse_request(head)), "ring.v1")
    connection.sendall(answer[:cut])
    connection.sendall(answer[cut:] + WELCOME)


def hear(edge: Edge, until: str, *, then: Callable[[Client], None] = lambda client: None) -> list[str]:
    """What a client hears until it hears `until`; on its welcome it does `then`."""
    with Switchboard(RingDialect()) as board:
        board.ear = heard = Heard()
        client = board.connect(0, "a b&c", edge)
        welcomed = False
        for _ in range(200):
            if until in heard.words:
                return heard.words
            if heard.words and not welcomed:
                welcomed = True
                then(client)
            board.tick(0.1)
    raise AssertionError(f"only {heard.words}")


def test_frames_in_any_pieces() -> None:
    """An answer in pieces, and frames byte by byte."""

    def peer(connection: socket.socket) -> None:
        upgraded(connection, cut=20)
        for byte in encode_frame(TEXT, b'{"type":"message","data":"hello"}'):
            connection.sendall(bytes((byte,)))
        connection.recv(100)

    with served(peer) as edge:
        assert hear(edge, "hello") == ["welcome", "hello"]


def test_pings_are_answered() -> None:
    """With what they carried, masked."""
    got: list[tuple[int, bytes]] = []

    def peer(connection: socket.socket) -> None:
        upgraded(connection)
        connection.sendall(encode_frame(PING, b"are you there"))
        decoder = Decoder(role="server", max_message=100)
        while not got:
            got.extend(decoder.feed(connection.recv(100)))
        connection.sendall(encode_frame(CLOSE, close_payload(1013, "enough")))

    with served(peer) as edge:
        assert hear(edge, "close_1013") == ["welcome", "close_1013"]
    assert got[0] == (PONG, b"are you there")


def test_more_than_the_kernel_takes() -> None:
    """Is sent as the server reads, whole and in order."""
    size = 8 * 2**20
    lengths: list[int] = []

    def peer(connection: socket.socket) -> None:
        upgraded(connection)
        decoder = Decoder(role="server", max_message=2 * size)
        while len(lengths) < 2:
            lengths.extend(len(payload) for _, payload in decoder.feed(connection.recv(65536)))
        connection.sendall(encode_frame(TEXT, b'{"type":"message","data":"all there"}'))
        connection.recv(100)

    def say(client: Client) -> None:
        client.send(b"x" * size)
        client.send(b"y" * 10)

    with served(peer) as edge:
        assert hear(edge, "all there", then=say) == ["welcome", "all there"]
    assert lengths == [size, 10]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x81\x85", "protocol_violation"),  # a server's frame that is masked
        (b"", "connection_lost"),
        (encode_frame(TEXT, b"{"), "unreadable_frame"),
    ],
)
def test_what_a_server_may_not_do(said: bytes, reason: str) -> None:
    """Is told by a word."""

    def peer(connection: socket.socket) -> None:
        upgraded(connection)
        connection.sendall(said)

    with served(peer) as edge:
        assert hear(edge, reason)[:2] == ["welcome", reason]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Full\r\n\r\n", "http_503"),
        (b"HTTP/1.1 101 Yes\r\n\r\n", "http_101"),
        (b"HTTP/1.1 2", "connection_lost"),
        (b"x" * 70_000, "os_error_an endless head"),
    ],
)
def test_no_upgrade(answer: bytes, reason: str) -> None:
    """A refusal by its status; an answer that is none."""

    def peer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(answer)

    with served(peer) as edge:
        assert hear(edge, reason) == [reason]


def test_a_client_that_is_closed_says_nothing() -> None:
    """What it still sends goes nowhere, and closing it again is no error."""

    def peer(connection: socket.socket) -> None:
        upgraded(connection)
        while connection.recv(100):
            pass

    with served(peer) as edge, Switchboard(RingDialect()) as board:
        board.ear = heard = Heard()
        client = board.connect(0, "a", edge)
        while not heard.words:
            board.tick(0.1)
        client.close()
        client.close()
        client.send(b"too late")
        client.fail("too late")
        client.flush()
        board.tick(0)
    assert heard.words == ["welcome"]


class TestTls:
    @pytest.fixture
    def trusted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
        """A server's context, whose authority this process trusts."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    def peer(self, context: ssl.SSLContext) -> Peer:
        """A server that says more than one record at once."""

        def serve(connection: socket.socket) -> None:
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    upgraded(secure)
                    secure.sendall(encode_frame(TEXT, b'{"type":"message","data":"' + b"x" * 40_000 + b'"}'))
                    secure.sendall(encode_frame(TEXT, b'{"type":"message","data":"bye"}'))
                    secure.recv(100)
            except OSError:
                return

        return serve

    def test_it_is_spoken(self, trusted: ssl.SSLContext) -> None:
        """Of all sizes."""
        with served(self.peer(trusted)) as edge:
            heard = hear(Edge(edge.host, edge.port, tls=True), "bye")
        assert heard == ["welcome", "x" * 40_000, "bye"]

    def test_a_stranger_is_refused(self, trusted: ssl.SSLContext) -> None:
        """A certificate of nobody that we trust."""
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(other)
        with served(self.peer(other)) as edge:
            assert hear(Edge(edge.host, edge.port, tls=True), "certificate_refused") == [
                "certificate_refused"
            ]
