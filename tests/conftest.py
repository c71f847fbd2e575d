"""Fixtures that several folders of tests share: a real server, started once per session."""

import queue
import signal
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import trio

from ring.store.embedded import EmbeddedServer

# A shell that starts the suite in the background has it ignore SIGINT, and every process that a test starts
# would inherit that: none would end by the signal that its test sends.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _serve(
    started: "queue.SimpleQueue[tuple[EmbeddedServer, trio.lowlevel.TrioToken, trio.CancelScope]]",
) -> None:
    async def until_cancelled() -> None:
        with trio.CancelScope() as scope:
            async with EmbeddedServer() as server:
                started.put((server, trio.lowlevel.current_trio_token(), scope))
                await trio.sleep_forever()

    trio.run(until_cancelled)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedServer]:
    """A server for the whole session. It runs in a thread: the tests' own event loops end with each test."""
    started: queue.SimpleQueue[tuple[EmbeddedServer, trio.lowlevel.TrioToken, trio.CancelScope]]
    started = queue.SimpleQueue()
    thread = threading.Thread(target=_serve, args=(started,), daemon=True)
    thread.start()
    server, token, scope = started.get(timeout=10)
    yield server
    token.run_sync_soon(scope.cancel)
    thread.join(10)


@pytest.fixture
def redis_url(redis_server: EmbeddedServer) -> str:
    """The URL of a server that holds nothing (the session's, flushed)."""
    with socket.create_connection(
        ("127.0.0.1", urlsplit(redis_server.url).port or 0), timeout=5
    ) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(16) == b"+OK\r\n"
    return redis_server.url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what the tests of faults have measured, behind their results."""
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call" and report.user_properties
    ]
    if reports:
        terminalreporter.section("figures of the cluster")
    for report in reports:
        figures = ", ".join(f"{name} {value}" for name, value in report.user_properties)
        terminalreporter.line(f"{report.nodeid.rpartition('::')[2]}: {figures}")
