"""On what it was measured: the machine, the commit, and the release of everything that took part."""

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.servers import HERE, PEERS, PYTHON, nats_program
from ring.store.embedded import find_server

_IN_BENCH = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


def describe() -> dict[str, object]:
    """All of it, as docs/benchmarks.json has it."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {name: found for name, found in _versions().items() if found},
    }


def _commit() -> str:
    """The commit, and whether there was more than it."""
    commit = _said("git", "-C", str(HERE), "rev-parse", "--short", "HEAD")
    changed = _said("git", "-C", str(HERE), "status", "--porcelain", "--untracked-files=no")
    return f"{commit or 'unknown'}{' with changes' if changed else ''}"


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    redis = re.search(r"v=(\S+)", _said(find_server(), "--version"))
    return {
        "Ring": version("ring-cluster"),
        "Python": platform.python_version(),
        "trio": version("trio"),
        "Redis or Valkey": f"{Path(find_server()).name} {redis[1] if redis else ''}".strip(),
        "nats-server": _said(nats_program(), "--version").removeprefix("nats-server: v"),
        "Node.js": _said("node", "--version").removeprefix("v"),
        "ws": _of_node("ws"),
        "redis (npm)": _of_node("redis"),
        "websockets": _said(str(PYTHON), "-c", _IN_BENCH, "websockets"),
        "redis-py": _said(str(PYTHON), "-c", _IN_BENCH, "redis"),
        "uvloop": _said(str(PYTHON), "-c", _IN_BENCH, "uvloop"),
        "picows": _said(str(PYTHON), "-c", _IN_BENCH, "picows"),
        "trio-websocket": version("trio-websocket"),
    }


def _of_node(package: str) -> str:
    try:
        text = (PEERS / "node_modules" / package / "package.json").read_text("utf-8")
    except OSError:
        return ""
    found: str = json.loads(text)["version"]
    return found


def _said(*command: str) -> str:
    """What a command prints; nothing if it cannot."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603 - our own
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
