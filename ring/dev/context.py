"""The note that `ring dev` leaves while it runs: `ring status` and its like find the cluster by it."""

import os
from pathlib import Path

import msgspec
import platformdirs
from msgspec import Struct

from ring.protocol.codes import ErrorCode, RingError


class NoContext(RingError):
    """There is no local cluster to talk to."""

    code = ErrorCode.OWNER_UNAVAILABLE


class Context(Struct, frozen=True):
    """Where the parts of a running `ring dev` are."""

    cluster: str
    redis: str
    api: list[str]
    edge: list[str]
    pid: int
    front: str | None = None
    """Of HAProxy, if it has one."""


def path() -> Path:
    """Where the note is: `ring/dev.json` in the user's folder for state."""
    return platformdirs.user_state_path("ring") / "dev.json"


def write(context: Context) -> None:
    """Leaves the note, in place of an older one."""
    note = path()
    note.parent.mkdir(parents=True, exist_ok=True)
    draft = note.with_suffix(f".{context.pid}")
    draft.write_bytes(msgspec.json.encode(context))
    draft.replace(note)  # whole or not at all: somebody may be reading


def remove(pid: int) -> None:
    """Takes the note of process `pid` away; that of another one stays."""
    try:
        if _read().pid == pid:
            path().unlink()
    except (OSError, msgspec.DecodeError):
        return


def read() -> Context:
    """The note of the cluster that runs.

    Raises:
        NoContext: none does.
    """
    try:
        context = _read()
    except (OSError, msgspec.DecodeError):
        raise NoContext(
            "no cluster named and no `ring dev` running: give --api URL, or start one: ring dev"
        ) from None
    if not _alive(context.pid):
        raise NoContext("the `ring dev` that ran here is gone: start it again, or give --api URL")
    return context


def _read() -> Context:
    return msgspec.json.decode(path().read_bytes(), type=Context)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
