"""The Autobahn test suite against `ring bench echo`: every case that asks something of a server like ours.

`make test-deps` installs the suite (install_autobahn.sh). Left out: 9, how long large messages take, and 12
and 13, compression.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ring" / "autobahn"
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
COUNT = 247
RUN = "import site, sys; site.addsitedir(sys.argv.pop(1)); from autobahntestsuite import wstest; wstest.run()"
GOOD = {"OK", "INFORMATIONAL"}  # informational: the RFC leaves the answer open


@pytest.fixture
def server() -> Iterator[str]:
    """The address of an echo server in a process of its own, as anybody would start it."""
    ring = Path(sys.executable).parent / "ring"
    process = subprocess.Popen(
        [ring, "bench", "echo", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["edge"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_every_case_is_passed(server: str, tmp_path: Path) -> None:
    """Each behaves as the RFC asks, and its connection is closed as cleanly as the case allows."""
    if not (HOME / "pins").exists():
        pytest.skip(
            "the Autobahn test suite is not installed: make test-deps, with a Python 2.7 on this machine"
        )
    spec = tmp_path / "spec.json"
    results = tmp_path / "results"
    servers = [{"agent": "ring", "url": f"ws://{server}"}]
    spec.write_text(json.dumps({"outdir": str(results), "servers": servers, "cases": CASES}))
    python = (HOME / "python").read_text().strip()
    command = [python, "-c", RUN, str(HOME / "site"), "-m", "fuzzingclient", "-s", str(spec)]
    finished = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150, check=False
    )
    assert finished.returncode == 0, finished.stdout[-2000:]
    cases = json.loads((results / "index.json").read_text())["ring"]
    failed = {
        name: (case["behavior"], case["behaviorClose"])
        for name, case in cases.items()
        if not {case["behavior"], case["behaviorClose"]} <= GOOD
    }
    assert not failed
    assert len(cases) == COUNT
