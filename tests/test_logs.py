"""A node's log: two formats, levels, no waiting for whoever reads it, and no secrets."""

import io
import json
import os
import threading
from contextlib import suppress
from typing import Any

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


def test_dropped_lines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as the log is open."""
    monkeypatch.setattr(logs, "LINES", 0)
    stream = io.StringIO()
    assert logs.dropped() == 0
    with logs.logging("info", "json", "n1", stream):
        for _ in range(3):
            structlog.get_logger().info("a line")
        assert logs.dropped() == 3
    assert logs.dropped() == 0


SECRET = "hunter2hunter2"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


def told(style: str, **fields: Any) -> str:
    """What is logged of these."""
    stream = io.StringIO()
    with logs.logging("info", style, "n1", stream):
        structlog.get_logger().info("something", harmless="seen", **fields)
    text = stream.getvalue()
    assert "something" in text
    assert "seen" in text
    return text


@pytest.mark.parametrize("style", ["json", "console"])
class TestSecrets:
    """The last line of defence: nobody logs a secret on purpose."""

    @pytest.mark.parametrize(
        "name",
        ["token", "Token", "access_token", "secret", "peer_secret", "password", "passwd", "authorization",
         "api_key", "apikey", "key", "private_key", "cookie", "credentials", "jwt"],
    )  # as a table # fmt: skip
    def test_what_is_called_one(self, style: str, name: str) -> None:
        """By its key, also inside of a value, whatever the value is."""
        for value in (SECRET, SECRET.encode(), [SECRET], {"a": SECRET}):
            text = told(style, **{name: value})
            assert SECRET not in text
            assert logs.MASK in text
        assert SECRET not in told(style, headers=[{name: SECRET}, ({name: SECRET},)])

    @pytest.mark.parametrize(
        "text",
        [
            f"redis://user:{SECRET}@127.0.0.1:6379/0",
            f"cannot reach rediss://:{SECRET}@redis.example:6380, try again",
            f"Authorization: Bearer {SECRET}",
            f"Basic {SECRET}==",
            f"GET /v1/connect?device=a&token={SECRET}&ack=auto",
            f"password={SECRET}",
            str({"password": SECRET, "a": 1}),
            json.dumps({"api_key": SECRET}),
        ],
    )
    def test_what_looks_like_one(self, style: str, text: str) -> None:
        """In the middle of a text, in what a value shows of itself, in an exception."""

        class Shown:
            def __repr__(self) -> str:
                return f"<{text}>"

        assert SECRET not in told(style, reason=text)
        assert SECRET not in told(style, value=Shown())
        stream = io.StringIO()
        with logs.logging("info", style, "n1", stream):
            try:
                raise ZeroDivisionError(text)
            except ZeroDivisionError:
                structlog.get_logger().exception(text)
        assert SECRET not in stream.getvalue()
        assert "ZeroDivisionError" in stream.getvalue()

    def test_a_token(self, style: str) -> None:
        """A JSON Web Token, wherever it is."""
        assert TOKEN.split(".")[1] not in told(style, reason=f"no good: {TOKEN}.")

    def test_what_only_sounds_like_one(self, style: str) -> None:
        """What helps is kept: places, and words about secrets."""
        for harmless in (
            "127.0.0.1:6379",
            "redis://127.0.0.1:6379/0",
            "check that both have the same secret and cluster name",
            "give all the same --secret-file",
            "Bearer of news",
            "ring.example/a@b",
        ):
            assert harmless in told(style, reason=harmless)
        assert "keyed" in told(style, keyed=1, hockey=2, monkey=3)
        assert logs.MASK not in told(style, keyed=1, hockey=2, table_hash="ab", epoch=3)


def test_a_context_is_on_every_line() -> None:
    """What is bound for a task's own time, as the API does for a request."""
    stream = io.StringIO()
    with logs.logging("info", "json", "n1", stream):
        with structlog.contextvars.bound_contextvars(request="r1"):
            structlog.get_logger().info("one")
        structlog.get_logger().info("two")
    assert [json.loads(line).get("request") for line in stream.getvalue().splitlines()] == ["r1", None]
