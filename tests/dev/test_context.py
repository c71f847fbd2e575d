"""The note of `ring dev`: found while it runs, and not taken for a cluster afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ring.dev import context
from ring.dev.context import Context, NoContext


@pytest.fixture(autouse=True)
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the note will be."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return context.path()


def a_context(pid: int) -> Context:
    """A note of process `pid`."""
    return Context("dev", "redis://127.0.0.1:1/0", ["http://127.0.0.1:2"], ["127.0.0.1:3"], pid)


def test_what_is_written_is_read() -> None:
    """Whole, and in place of an older one; nothing else stays in the folder."""
    context.write(a_context(1))
    context.write(a_context(os.getpid()))
    assert context.read() == a_context(os.getpid())
    assert [path.name for path in context.path().parent.iterdir()] == ["dev.json"]


@pytest.mark.parametrize("content", [None, "", "{}", "[1]"])
def test_there_is_none(content: str | None, note: Path) -> None:
    """What to do is said, also if the note cannot be read."""
    if content is not None:
        note.parent.mkdir(parents=True)
        note.write_text(content)
    with pytest.raises(NoContext, match=r"give --api URL, or start one: ring dev$"):
        context.read()


def test_its_process_is_gone() -> None:
    """A note that a killed `ring dev` left is known as such."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    context.write(a_context(process.pid))
    with pytest.raises(NoContext, match="is gone: start it again"):
        context.read()


def test_a_process_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it may not be signalled says that it lives."""

    def kill(_pid: int, _signal: int) -> None:
        raise PermissionError

    context.write(a_context(1))
    monkeypatch.setattr("os.kill", kill)
    assert context.read() == a_context(1)


def test_each_takes_away_its_own() -> None:
    """The note of a cluster that was started later stays."""
    context.write(a_context(1))
    context.remove(2)
    assert context.path().exists()
    context.remove(1)
    assert not context.path().exists()
    context.remove(1)
