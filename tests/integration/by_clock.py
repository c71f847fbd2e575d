"""A node whose wall clock can be set while it runs: as `ring.cli.child`, by the clock of the first argument.

libfaketime will not do: it gets in the way of how Python's threads wait for each other. Here it is Python's
own wall clock that is wrong. The clocks that count from the start of the machine are left alone.
"""

import runpy
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    offset = Path(sys.argv.pop(1))
    right_ns = time.time_ns

    def wrong_ns() -> int:
        """Nanoseconds since 1970, by a clock that is so many seconds ahead."""
        return right_ns() + int(offset.read_text()) * 1_000_000_000

    # Before anything imports them.
    time.time_ns = wrong_ns
    time.time = lambda: wrong_ns() / 1e9
    runpy.run_module("ring.cli.child", run_name="__main__", alter_sys=True)
