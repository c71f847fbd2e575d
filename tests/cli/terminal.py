"""A standard output that is a terminal, and what it shows."""

import re
import sys

import pytest


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Standard output is one, of this width."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setenv("TERM", "xterm-256color")


def plain(out: str) -> list[str]:
    """The lines, without what colours them and without blanks at their ends."""
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()]
