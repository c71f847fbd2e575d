"""A cluster of canned answers, and a machine on which no `ring dev` runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.canned import CannedNode


@pytest.fixture
def canned() -> Iterator[CannedNode]:
    """A node of canned answers."""
    node = CannedNode()
    yield node
    node.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for state in which nothing is, and no variables that would lead to a cluster."""
    for variable in ("RING_API", "RING_API_KEY_FILE", "RING_REDIS", "RING_CLUSTER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path
