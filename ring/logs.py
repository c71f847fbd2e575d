"""How a node logs: structlog, a line per event, on stderr, written by a thread of its own.

Whoever reads stderr may stop reading, and the pump must not wait for it: lines queue up to a bound, and those
beyond it are dropped and counted. `ring serve` opens it around everything else.

Whoever logs keeps secrets and names of users out of it; what looks like a secret all the same is masked here.
"""

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

LINES = 10_000
"""So many lines may wait: some megabytes, and some seconds of a node in trouble."""

FAREWELL_S = 2.0
"""How long the end of the process waits for the last lines to be written."""

MASK = "***"

_SECRET_KEY = re.compile(
    r"token|secret|passw|authori[sz]ation|credential|cookie|api_?key|private_?key|^key$|^jwt$", re.IGNORECASE
)

_SECRET_TEXT = (
    (re.compile(r"(\w://)[^\s/@\"'\\]+@"), rf"\1{MASK}@"),  # who logs in, in a URL
    (re.compile(r"\b(Bearer|Basic)\s+[^\s\"',;]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), MASK),  # a JSON Web Token
    (
        re.compile(
            r"((?:token|secret|passw(?:or)?d|api_?key)(?:=|\\*[\"']\s*:\s*\\*[\"']))[^\s&\"',;\\]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),  # a value in a query, or in what a dictionary shows
)
"""What gives a secret away in the middle of a text, an exception's say."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class LineWriter:
    """The logger under structlog's: takes lines without ever waiting, and writes them from a thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self.dropped = 0

    def msg(self, line: str) -> None:
        """Queues a line, from any thread."""
        if self._lines.qsize() < LINES:
            self._lines.put(line)
        else:
            self.dropped += 1

    debug = info = warning = error = critical = exception = msg

    def end(self) -> None:
        """Lets `write` return after the lines that are queued."""
        self._lines.put(None)

    def write(self) -> None:
        """Writes lines until `end`; blocks for as long as the stream does."""
        told = 0
        while (line := self._lines.get()) is not None:
            if self.dropped > told:
                line += f"\n{self.dropped - told} lines were dropped here: nobody read them"
                told = self.dropped
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                continue  # the reader is gone, and so is the place to tell it


_writers: list[LineWriter] = []


def dropped() -> int:
    """How many lines of this process nobody has read in time."""
    return sum(writer.dropped for writer in _writers)


@contextmanager
def logging(level: str, style: str, node: str, stream: TextIO | None = None) -> Generator[LineWriter]:
    """Sets structlog up for as long as the block runs.

    Args:
        level: the least that is logged: debug, info, warning or error.
        style: `json` for a JSON object per line, `console` for people.
        node: the name of the node, which every line carries.
        stream: stderr, if it is left out.
    """
    stream = sys.stderr if stream is None else stream
    writer = LineWriter(stream)
    _writers.append(writer)
    thread = Thread(target=writer.write, name="log writer", daemon=True)
    thread.start()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            partial(_say_who, node),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _mask_keys,
            *_renderers(style, colors=stream.isatty()),
            _mask_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: writer,
    )
    try:
        yield writer
    finally:
        structlog.reset_defaults()
        writer.end()
        thread.join(FAREWELL_S)
        _writers.remove(writer)


def _renderers(style: str, *, colors: bool) -> list[Processor]:
    if style == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=_plain)]
    # Not rich's tracebacks: they show local variables, among them secrets.
    return [
        structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )
    ]


def _say_who(node: str, _logger: object, _method: str, event: EventDict) -> EventDict:
    return {"event": event.pop("event"), "node": node, **event}


def _mask_keys(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Whatever is called a secret is one, also inside of what is logged."""
    masked: EventDict = _masked(event)
    return masked


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: MASK if _SECRET_KEY.search(str(key)) else _masked(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_masked, value))
    return value


def _mask_text(_logger: object, _method: str, rendered: Any) -> str:
    line = str(rendered)
    for pattern, replacement in _SECRET_TEXT:
        line = pattern.sub(replacement, line)
    return line


def _plain(value: Any) -> str:
    return repr(value)
