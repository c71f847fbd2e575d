"""From a URL to an open WebSocket: addresses, the stream below trio-websocket, and what a refusal says."""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlencode, urlsplit

import msgspec
import trio
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from ring.client.backoff import Ending
from ring.protocol.client import CONNECT_PATH, SUBPROTOCOL
from ring.protocol.codes import BadRequest, ErrorCode

FRAME_BYTES = 16 * 1024 * 1024
"""A node's frame may be this long: far beyond any sensible `message_bytes`, and no way to fill our memory."""

READ_BYTES = 64 * 1024
_RETRY_AFTER_S = 3600.0  # nobody is told to stay away for longer
_QUEUED_FRAMES = 16  # between trio-websocket's reader and ours, which never waits for the application


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node, or a balancer, is."""

    host: str
    port: int
    tls: bool
    path: str
    query: str

    @property
    def authority(self) -> str:
        """The `Host` header; also how logs and errors call it, without what a query may hold."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def target(self, parameters: dict[str, str]) -> str:
        """The request's target with `parameters` form-encoded behind the URL's own."""
        query = "&".join(filter(None, (self.query, urlencode(parameters))))
        return f"{self.path}?{query}"


def parse_url(url: str) -> Address:
    """The address that `ws://host[:port][/path][?query]` or `wss://` names; without a path it is /v1/connect.

    Raises:
        BadRequest: it names none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadRequest(f"url: {error}: {url!r}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise BadRequest(f"url: ws://host:port or wss://host:port, not {url!r}")
    tls = parts.scheme == "wss"
    path = parts.path if parts.path not in ("", "/") else CONNECT_PATH
    return Address(parts.hostname, port or (443 if tls else 80), tls, path, parts.query)


class HandshakeBroken(Exception):
    """The stream ended before the WebSocket was open."""


class Wire(trio.abc.Stream):
    """The stream below trio-websocket, which tells what that keeps to itself.

    Attributes:
        heard_at: when anything last came, by Trio's clock: pings too, which trio-websocket answers unseen.
        idle: True while it waits for bytes: everything that came before has been read from it and passed on.
        on_idle: called whenever it begins to.
        opened: True once the upgrade is done.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._ended = trio.Event()
        self.heard_at = trio.current_time()
        self.idle = False
        self.on_idle: Callable[[], None] = _nothing
        self.opened = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends; once open, silently into the void if the node is gone.

        What a node said before it went, a close code above all, may not have been read yet, and
        trio-websocket forgets it when sending fails. Reading ends by itself soon after.
        """
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            if not self.opened:
                raise

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream`."""
        self.idle = True
        self.on_idle()
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._ended.set()
            raise
        finally:
            self.idle = False
        if data:
            self.heard_at = trio.current_time()
        else:
            self._ended.set()
        return data

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        self._ended.set()
        await self._stream.aclose()

    async def upgrade(
        self, nursery: trio.Nursery, address: Address, target: str, headers: list[tuple[bytes, bytes]]
    ) -> WebSocketConnection:
        """The WebSocket over this stream; its reading task lives in `nursery`, which an error of it cancels.

        Errors come out of `nursery`: ConnectionRejected, HandshakeBroken, or what h11 and wsproto raise at an
        answer that is no HTTP.
        """
        nursery.start_soon(self._watch_handshake)
        # It declares the two streams that Trio opens itself and uses no more of them than any Stream has; nor
        # does it more with a nursery than start a task.
        websocket = await wrap_client_stream(
            cast("trio.Nursery", _UninterruptedTasks(nursery)),
            cast("trio.SocketStream", self),
            address.authority,
            target,
            subprotocols=[SUBPROTOCOL],
            extra_headers=headers,
            message_queue_size=_QUEUED_FRAMES,
            max_message_size=FRAME_BYTES,
            receive_buffer_size=READ_BYTES,
        )
        self.opened = True
        return websocket

    @trio.lowlevel.enable_ki_protection
    async def _watch_handshake(self) -> None:
        """trio-websocket's handshake does not notice that the stream ended: it would wait for ever."""
        await self._ended.wait()
        if not self.opened:
            raise HandshakeBroken("the connection ended during the handshake")


class _UninterruptedTasks:
    """Starts tasks that Ctrl-C does not hit: it is for the application, whose farewell needs them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(self, task: Callable[[], Awaitable[None]]) -> None:
        """See `trio.Nursery`."""
        self._nursery.start_soon(_uninterrupted, task)


@trio.lowlevel.enable_ki_protection
async def _uninterrupted(task: Callable[[], Awaitable[None]]) -> None:
    await task()


def _nothing() -> None:
    pass


async def dial(address: Address, ssl_context: ssl.SSLContext | None) -> Wire:
    """A stream to `address`, past TLS.

    Raises:
        OSError: nobody answers there.
        trio.BrokenResourceError: TLS failed; the cause says why.
    """
    stream = await trio.open_tcp_stream(address.host, address.port)
    if not address.tls:
        return Wire(stream)
    context = ssl_context or ssl.create_default_context()
    # https_compatible: an end without TLS's own farewell is like one without a close frame.
    secure = trio.SSLStream(stream, context, server_hostname=address.host, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return Wire(secure)


def unreachable(error: BaseException) -> Ending:
    """The ending of an attempt that found no WebSocket, but this."""
    if isinstance(error, ConnectionRejected):
        return _refusal(error)
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
    untrusted = isinstance(cause, ssl.SSLCertVerificationError)
    return Ending(str(cause) or type(cause).__name__, untrusted=untrusted)


class _Error(msgspec.Struct):
    code: str
    message: str


class _Refusal(msgspec.Struct):
    error: _Error


_decode_refusal = msgspec.json.Decoder(_Refusal).decode


def _refusal(rejected: ConnectionRejected) -> Ending:
    """A node says why; of a balancer there is the status alone."""
    status = rejected.status_code
    try:
        error = _decode_refusal(rejected.body or b"").error
    except msgspec.DecodeError:
        return Ending(f"HTTP {status}", status=status, retry_after_s=_retry_after(rejected))
    try:
        code = ErrorCode(error.code)
    except ValueError:
        code = None
    return Ending(error.message, status=status, code=code, retry_after_s=_retry_after(rejected))


def _retry_after(rejected: ConnectionRejected) -> float:
    """Retry-After in seconds (RFC 9110 section 10.2.3); a date, which no node sends, is passed over."""
    for name, value in rejected.headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return min(float(value), _RETRY_AFTER_S)
    return 0.0
