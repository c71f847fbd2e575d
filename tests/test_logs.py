"""A node's log: two formats, levels, and no waiting for whoever reads it."""

import io
import json
import os
import threading
from contextlib import suppress

import pytest
import structlog

from ring import logs


def lines(level: str = "info", style: str = "json") -> list[str]:
    """What a node logs of a debug, an info and an exception."""
    stream = io.StringIO()
    with logs.logging(level, style, "n1", stream):
        log = structlog.get_logger("anything")
        log.debug("detail")
        log.info("done", peer="n2", value=b"\xff")
        try:
            raise ZeroDivisionError("once")
        except ZeroDivisionError:
            secret = "do not tell"
            log.exception("failed", size=len(secret))
    return stream.getvalue().splitlines()


def test_json() -> None:
    """An object per line, the traceback inside it; what JSON has no word for is told all the same."""
    done, failed = map(json.loads, lines())
    assert list(done)[:2] == ["event", "node"]
    assert done["event"] == "done"
    assert (done["node"], done["peer"], done["value"], done["level"]) == ("n1", "n2", "b'\\xff'", "info")
    assert done["timestamp"].endswith("Z")
    assert failed["level"] == "error"
    assert failed["exception"].endswith("ZeroDivisionError: once")


def test_console() -> None:
    """A line for people; tracebacks are plain, without the values of variables."""
    text = "\n".join(lines(style="console"))
    assert "done" in text.splitlines()[0]
    assert "peer=n2" in text.splitlines()[0]
    assert text.endswith("ZeroDivisionError: once")
    assert "do not tell'" not in text.replace('secret = "do not tell"', "")
    assert "\x1b" not in text


def test_levels() -> None:
    """What is below the level is not logged."""
    assert len(lines("debug")) == 3
    assert len(lines("warning")) == 1


def test_structlog_is_itself_again() -> None:
    """What was set up goes when the block ends."""
    lines()
    assert structlog.get_config()["logger_factory"] is not None
    assert isinstance(structlog.get_config()["logger_factory"], structlog.PrintLoggerFactory)


def test_a_reader_who_stopped_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging does not wait for a full pipe; what was dropped is counted, and told when there is room."""
    monkeypatch.setattr(logs, "LINES", 100)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        with logs.logging("info", "json", "n1", stream) as writer:
            log = structlog.get_logger()
            count = 0
            while not writer.dropped:
                log.info("x" * 1000)
                count += 1
            received: list[bytes] = []
            thread = threading.Thread(target=lambda: received.extend(reader))
            thread.start()
        stream.close()
        thread.join(10)
    assert count > writer.dropped >= 1
    assert len(received) == count - writer.dropped + 1
    assert f"{writer.dropped} lines were dropped here".encode() in b"".join(received)


def test_a_reader_who_is_gone() -> None:
    """A log that nobody can get is no reason to fail."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", buffering=1)
    with logs.logging("info", "json", "n1", stream):
        for _ in range(2):
            structlog.get_logger().info("x" * 100_000)
    assert "log writer" not in {thread.name for thread in threading.enumerate()}
    with suppress(BrokenPipeError):
        stream.close()
