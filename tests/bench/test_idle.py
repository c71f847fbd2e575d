"""The measure of idle connections measures."""

import re
import sys

import pytest

from ring.bench import idle

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which only Linux has")


def test_clients_are_connected_and_counted() -> None:
    """A node of its own, its memory before and after; at least what a socket object takes, at most what is
    promised."""
    line = idle.measure(400)
    found = re.match(
        r"400 idle connections: ([0-9.]+) KiB of the node's memory each \((\d+) KiB before, (\d+)", line
    )
    assert found
    each, before, after = float(found[1]), int(found[2]), int(found[3])
    assert after > before
    assert 0.5 < each < 8, "400 are few: what the allocator takes in advance counts too"


def test_more_than_the_process_may_open_is_refused() -> None:
    """Before anything is started."""
    arguments, sys.argv = sys.argv, ["idle", "100000000"]
    try:
        with pytest.raises(SystemExit, match="too few"):
            idle.main()
    finally:
        sys.argv = arguments
