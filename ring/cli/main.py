"""The `ring` command: its subcommands, and how each way of failing ends it.

Exit codes: 0 done, 1 a promise broken or a failure, 2 wrong usage or configuration, 3 nothing reached. A
failure is one line on stderr that says what to do. The modules here import what their commands need inside of
them: `ring version` should not wait for an HTTP library.
"""

import os
import sys
from collections.abc import Iterator, Sequence

import typer
from typer.main import get_command

from ring.cli.balance import balance
from ring.cli.bench import bench
from ring.cli.dev import dev
from ring.cli.drain import drain, weight
from ring.cli.haproxy import haproxy
from ring.cli.inspect import owner, status
from ring.cli.plan import plan
from ring.cli.serve import serve
from ring.cli.talk import chat, send
from ring.cli.verify import verify
from ring.config import SettingsError
from ring.protocol.codes import ErrorCode, RingError

FAILED, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    help="Ring: a WebSocket cluster in which every user has an owning node.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def version() -> None:
    """Says which release this is."""
    from ring import __version__

    typer.echo(f"ring {__version__}")


for _command in (serve, dev, status, owner, balance, plan, weight, drain, send, chat, verify):
    app.command()(_command)
app.add_typer(bench, name="bench")
app.add_typer(haproxy, name="haproxy")


def run() -> None:
    """The entry point of the `ring` executable."""
    _open_standard_streams()
    sys.exit(main(sys.argv[1:]))


def _open_standard_streams() -> None:
    """Whoever started it may have closed some (`<&-`): their numbers would go to the first sockets opened."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - open as long as the process


def main(arguments: Sequence[str]) -> int:
    """Runs a command; returns its exit code."""
    try:
        code = get_command(app).main(list(arguments) or ["--help"], prog_name="ring", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except typer.TyperException as error:
        return _fail(f"{error.format_message()} (see ring --help)", USAGE)
    except BrokenPipeError:
        sys.stdout = None  # nobody reads it: nothing is left to be flushed at exit
        return FAILED
    except (SettingsError, RingError, OSError) as error:
        return _fail(str(error), _exit_code(error))
    except BaseExceptionGroup as group:
        causes = list(_leaves(group))
        if all(isinstance(cause, KeyboardInterrupt) for cause in causes):
            return INTERRUPTED
        if any(
            not isinstance(cause, SettingsError | RingError | OSError | KeyboardInterrupt) for cause in causes
        ):
            raise  # a bug is shown whole
        cause = next(cause for cause in causes if not isinstance(cause, KeyboardInterrupt))
        return _fail(str(cause), _exit_code(cause))
    return code if isinstance(code, int) else 0


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SettingsError):
        return USAGE
    match getattr(error, "code", None):
        case ErrorCode.BAD_REQUEST:
            return USAGE
        case ErrorCode.STORE_UNAVAILABLE | ErrorCode.OWNER_UNAVAILABLE:
            return UNREACHABLE
    return FAILED


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    typer.echo(f"ring: {line}", err=True)
    return code
