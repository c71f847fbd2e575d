"""Clients that other people wrote, behind one face: `websockets`, trio-websocket, a browser's WebSocket."""

import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import pytest
import trio
import trio_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

FAREWELL_S = 2.0
_BROWSER = Path(__file__).with_name("browser.mjs")


class Refused(Exception):
    """There is no WebSocket. `status` and `body` are None where the client does not show them."""

    def __init__(self, status: int | None, body: Any) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


class Closed(Exception):
    """The WebSocket has ended."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Foreign(Protocol):
    """A connection of somebody else's client. `subprotocol` is what was agreed on, "" if nothing."""

    subprotocol: str

    @classmethod
    def connect(cls, url: str, subprotocols: Sequence[str]) -> AbstractAsyncContextManager["Foreign"]:
        """A connection that does not outlive the block.

        Raises:
            Refused: it was not let in.
        """

    async def send(self, text: str) -> None:
        """Sends a text message."""

    async def receive(self) -> str:
        """The next text message.

        Raises:
            Closed: there is none.
        """

    async def close(self) -> None:
        """Says goodbye."""

    async def cut(self) -> None:
        """Breaks the connection."""


class OfWebsockets:
    """The `websockets` package, its threaded client."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.subprotocol = str(connection.subprotocol or "")

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, subprotocols: Sequence[str]) -> AsyncIterator[Self]:
        offered = [Subprotocol(name) for name in subprotocols] or None
        block = ExitStack()

        def enter() -> ClientConnection:
            return block.enter_context(connect(url, subprotocols=offered, close_timeout=FAREWELL_S))

        try:
            connection = await trio.to_thread.run_sync(enter)
        except InvalidStatus as refusal:
            body = json.loads(refusal.response.body or b"null")
            raise Refused(refusal.response.status_code, body) from None
        try:
            yield cls(connection)
        finally:
            with trio.CancelScope(shield=True):  # bounded by FAREWELL_S
                await trio.to_thread.run_sync(block.close)

    async def send(self, text: str) -> None:
        await trio.to_thread.run_sync(self._connection.send, text, abandon_on_cancel=True)

    async def receive(self) -> str:
        try:
            text = await trio.to_thread.run_sync(self._connection.recv, abandon_on_cancel=True)
        except ConnectionClosed as closed:
            end = closed.rcvd
            raise (Closed(1006, "") if end is None else Closed(end.code, end.reason)) from None
        assert isinstance(text, str)
        return text

    async def close(self) -> None:
        await trio.to_thread.run_sync(self._connection.close)

    async def cut(self) -> None:
        self._connection.socket.shutdown(socket.SHUT_RDWR)
        await self.close()


class OfTrioWebsocket:
    """trio-websocket."""

    def __init__(self, stream: trio.SocketStream, connection: trio_websocket.WebSocketConnection) -> None:
        self._stream = stream
        self._connection = connection
        self.subprotocol = str(connection.subprotocol or "")

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, subprotocols: Sequence[str]) -> AsyncIterator[Self]:
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}"
        # Its own function to connect may leave the TCP connection to the garbage collector.
        async with await trio.open_tcp_stream(parts.hostname or "", parts.port or 0) as stream:
            refused: Refused | None = None
            try:
                async with trio.open_nursery() as nursery:
                    connection = await trio_websocket.wrap_client_stream(
                        nursery, stream, parts.netloc, target, subprotocols=list(subprotocols)
                    )
                    yield cls(stream, connection)
                    nursery.cancel_scope.cancel()
            except* trio_websocket.ConnectionRejected as group:
                refusal = group.exceptions[0]
                assert isinstance(refusal, trio_websocket.ConnectionRejected)
                refused = Refused(refusal.status_code, json.loads(refusal.body or b"null"))
            if refused is not None:
                raise refused

    async def send(self, text: str) -> None:
        await self._connection.send_message(text)

    async def receive(self) -> str:
        try:
            text = await self._connection.get_message()
        except trio_websocket.ConnectionClosed as closed:
            end = closed.reason
            raise (Closed(1006, "") if end is None else Closed(end.code, end.reason or "")) from None
        assert isinstance(text, str)
        return text

    async def close(self) -> None:
        await self._connection.aclose()

    async def cut(self) -> None:
        await trio.aclose_forcefully(self._stream)


class OfABrowser:
    """The WebSocket of browsers, as Node.js has it. It does not tell why it was not let in."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._said = b""
        self.subprotocol = ""

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, subprotocols: Sequence[str]) -> AsyncIterator[Self]:
        process = await trio.lowlevel.open_process(
            [*browser(), str(_BROWSER), url, *subprotocols], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            client = cls(process)
            event = await client._event()
            if "open" not in event:
                assert event == {"error": True}
                raise Refused(None, None)
            client.subprotocol = event["open"]
            yield client
        finally:
            process.kill()
            with trio.CancelScope(shield=True):  # short: nothing survives SIGKILL
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        await pipe.aclose()

    async def _event(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._said:
            data = await self._process.stdout.receive_some()
            assert data, "the browser ended without a word"
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    async def _tell(self, **command: object) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(command).encode() + b"\n")

    async def send(self, text: str) -> None:
        await self._tell(send=text)

    async def receive(self) -> str:
        event = await self._event()
        while event == {"error": True}:  # a close event follows
            event = await self._event()
        if "close" in event:
            raise Closed(*event["close"])
        return str(event["message"])

    async def close(self) -> None:
        await self._tell(close=1000)
        await self._process.wait()

    async def cut(self) -> None:
        self._process.kill()
        await self._process.wait()


@cache
def browser() -> list[str]:
    """The command of a Node.js that has a WebSocket; without one the test is skipped."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("needs node, 20.10 or newer")
    version = subprocess.run([program, "--version"], capture_output=True, check=True, text=True).stdout
    major, minor = map(int, version.removeprefix("v").split(".")[:2])
    if (major, minor) < (20, 10):
        pytest.skip(f"needs node 20.10 or newer, this is {version.strip()}")
    return [program] if major >= 22 else [program, "--no-warnings", "--experimental-websocket"]
