"""What the tests of real clusters share: HAProxies, and figures (shown by tests/conftest.py)."""

from collections.abc import Callable

import pytest

from tests.haproxy.programs import PROGRAMS


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    """An HAProxy."""
    return str(request.param)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Notes a figure by its name."""

    def note(name: str, value: object) -> None:
        request.node.user_properties.append((name, value))

    return note
