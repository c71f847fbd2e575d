"""Tests that hold times to a bound have the machine to themselves, though the suite runs several at once.

A pytest plugin, named in pyproject.toml. A test, or a module by its `pytestmark`, is marked `alone`. Locks on
two files keep it apart from the others: whoever waits for the second holds the first, so that those who come
later wait behind it.
"""

import fcntl
from collections.abc import Generator
from pathlib import Path

import pytest

_LOCKS = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Names the mark, and finds the place that the processes of a run share."""
    config.addinivalue_line("markers", "alone: no other test runs at the same time")
    if hasattr(config, "workerinput") and config.cache is not None:
        config.stash[_LOCKS] = config.cache.mkdir("alone")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Waits for its turn."""
    locks = item.config.stash.get(_LOCKS, None)
    if locks is None:
        return (yield)
    with (locks / "running").open("w") as running:
        with (locks / "next").open("w") as next_one:
            fcntl.flock(next_one, fcntl.LOCK_EX)
            fcntl.flock(running, fcntl.LOCK_SH if item.get_closest_marker("alone") is None else fcntl.LOCK_EX)
        return (yield)
