import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ring.store import supervisor


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], int]], None]]:
    """Sets what the supervisor's standard input is: the descriptor that a function returns."""
    descriptors: list[int] = []

    def use(opened: Callable[[], int]) -> None:
        def fileno() -> int:
            descriptors.append(opened())
            return descriptors[-1]

        monkeypatch.setattr("sys.stdin", SimpleNamespace(fileno=fileno))

    yield use
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A directory with a file in it."""
    directory = tmp_path / "private"
    directory.mkdir()
    (directory / "dump.rdb").touch()
    return directory


def test_a_server_that_ends_by_itself(private: Path, stdin: Callable[[Callable[[], int]], None]) -> None:
    """Its exit code is the supervisor's, and the private directory is removed."""
    reading, writing = os.pipe()
    stdin(lambda: reading)
    assert supervisor.main(["--remove", str(private), "sh", "-c", "exit 7"]) == 7
    assert not private.exists()
    os.close(writing)


def test_a_server_that_is_not_there(private: Path) -> None:
    """If the program cannot be started, the private directory is removed all the same."""
    with pytest.raises(FileNotFoundError):
        supervisor.main(["--remove", str(private), "/nowhere/server"])
    assert not private.exists()


def test_the_end_of_input_stops_the_server(private: Path, stdin: Callable[[Callable[[], int]], None]) -> None:
    """When whoever holds the other end is gone, the server is asked to stop; another's directory stays."""
    stdin(lambda: os.open(os.devnull, os.O_RDONLY))
    assert supervisor.main(["sleep", "60"]) == -signal.SIGTERM
    assert private.exists()


def test_a_stubborn_server_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stdin: Callable[[Callable[[], int]], None]
) -> None:
    """One that ignores SIGTERM gets SIGKILL after a grace."""
    monkeypatch.setattr(supervisor, "GRACE_S", 0.01)
    fifo = tmp_path / "ready"  # which the server writes to, and so ends, once it ignores SIGTERM
    os.mkfifo(fifo)
    stdin(lambda: os.open(fifo, os.O_RDONLY))
    stubborn = ["sh", "-c", 'trap "" TERM; echo > "$0"; exec sleep 60', str(fifo)]
    assert supervisor.main(stubborn) == -signal.SIGKILL
