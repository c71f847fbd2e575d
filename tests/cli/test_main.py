"""The `ring` command: what each way of failing looks like, and what its commands are."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import trio

from ring import __version__
from ring.cli.main import main
from ring.config import SettingsError
from ring.protocol.codes import BadRequest, ErrorCode, RingError

Failing = Callable[[BaseException], None]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Makes `ring serve --name n1` fail with an exception of the test's."""

    def fail_with(error: BaseException) -> None:
        async def serve(_settings: object) -> None:
            await trio.lowlevel.checkpoint()
            raise error

        monkeypatch.setattr("ring.process.serve", serve)

    return fail_with


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """It says the release, on standard output."""
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"ring {__version__}\n"


def test_version_is_quick() -> None:
    """It loads neither Trio nor an HTTP library, and no part of a node."""
    code = "import sys; from ring.cli.main import main; main(['version']); print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        "trio",
        "httpx",
        "rich",
        "redis",
        "starlette",
        "hypercorn",
        "uhashring",
        "ring.node",
        "ring.process",
    }


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["serve", "--help"], ["bench", "-h"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for or not, help is no failure."""
    assert main(arguments) == 0
    assert "Usage: ring" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["serve", "--nam", "n1"], "No such option: --nam"),
        (["dev", "--nodes", "0"], "Invalid value for '--nodes'"),
        (["send", "--user", "alice", "bob"], "give either a text or --json-data"),
        (["send", "--user", "alice", "bob", "hi", "--json-data", "1"], "give either a text or --json-data"),
        (["send", "--user", "alice", "bob", "--json-data", "{"], "--json-data is no JSON"),
        (["send", "--user", "", "bob", "hi"], "user: 1 to 255 bytes"),
        (["send", "--user", "alice", "b\nb", "hi"], "to: control characters"),
        (["chat", "--user", "a\x00"], "user: control characters"),
        (["owner", "x" * 256], "user: 1 to 255 bytes"),
        (["bench", "echo", "--listen", "nowhere"], "not an address"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error that says what is wrong, and exit code 2."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ring: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("wrong"), 2),
        (BadRequest("wrong"), 2),
        (RingError("wrong"), 1),
        (RingError("wrong", code=ErrorCode.STORE_UNAVAILABLE), 3),
        (RingError("wrong", code=ErrorCode.OWNER_UNAVAILABLE), 3),
        (OSError("wrong"), 1),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [RingError("wrong")])]), 1),
        (BaseExceptionGroup("tasks", [KeyboardInterrupt(), BadRequest("wrong")]), 2),
    ],
)
def test_failures(
    error: BaseException, code: int, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    """What Ring knows to fail is a line without traceback, however deep in nurseries it was raised."""
    failing(error)
    assert main(["serve", "--name", "n1"]) == code
    assert capsys.readouterr().err == "ring: wrong\n"


def test_a_message_of_many_lines_is_one_line(failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads the log by lines sees one failure."""
    failing(RingError("wrong,\n  and\tso on"))
    main(["serve", "--name", "n1"])
    assert capsys.readouterr().err == "ring: wrong, and so on\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("tasks", [KeyboardInterrupt()])])
def test_interrupted(error: BaseException, failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C is no failure to talk about."""
    failing(error)
    assert main(["serve", "--name", "n1"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("bug"), ExceptionGroup("tasks", [ZeroDivisionError("bug"), RingError("also")])],
)
def test_a_bug_is_shown_whole(error: Exception, failing: Failing) -> None:
    """What nobody expected keeps its traceback."""
    failing(error)
    with pytest.raises(type(error)):
        main(["serve", "--name", "n1"])


def test_a_reader_that_went_away(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ring status | head -1` is quiet."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # restored after this test
    failing(BrokenPipeError())
    assert main(["serve", "--name", "n1"]) == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(closed: str) -> None:
    """They are as if they led nowhere, and no socket takes the number of one."""
    code = """
import socket, sys
from ring.cli import main
def command(_arguments):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    return int(sys.stdin.read() != "" or socket.socket().fileno() < 3)
main.main = command
main.run()
"""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code],
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0


def test_the_module_is_the_command() -> None:
    """`python -m ring` does what `ring` does."""
    done = subprocess.run(
        [sys.executable, "-m", "ring", "nothing"], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ring: No such command")
