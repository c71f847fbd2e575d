"""Programs whose wall clock can be set while they run.

Clocks that count from the start of the machine, by which nodes count their leases, are left alone, as when an
administrator, or a time server, sets the clock.
"""

import shlex
import sys
from pathlib import Path

import pytest

_PLACES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime")

LIBRARY = next(
    (found for place in _PLACES for found in Path("/").glob(f"{place[1:]}/libfaketimeMT.so.1")), None
)

needs_libfaketime = pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime (Debian: faketime)")


class Clock:
    """A wall clock; any number of programs may run by it.

    Args:
        directory: for its files.
        name: of the files.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.offset = directory / f"{name}.clock"
        self._script = directory / f"{name}.by-clock"
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """It is so much ahead of the right time from now on."""
        written = self.offset.with_suffix(".new")
        written.write_text(f"{ahead_s:+d}\n")
        written.replace(self.offset)  # whole, whenever somebody looks

    def node(self) -> tuple[str, ...]:
        """The command of a node by this clock."""
        return sys.executable, "-m", "tests.integration.by_clock", str(self.offset)

    def server(self, program: str) -> str:
        """A program that does what this one does, by this clock: libfaketime is between it and the kernel."""
        setting = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        words = [f"{name}={shlex.quote(value)}" for name, value in setting.items()]
        self._script.write_text(f'#!/bin/sh\nexec env {" ".join(words)} {shlex.quote(program)} "$@"\n')
        self._script.chmod(0o755)
        return str(self._script)
