"""`ring dev` on its face: lines of JSON for programs, words for people."""

import json
import sys
from pathlib import Path

import pytest
import trio

from ring.child import Event
from ring.cli.main import main
from ring.dev.cluster import Ports, Report

NODES: list[Event] = [
    {
        "event": "ready",
        "part": "node",
        "name": f"n{n}",
        "edge": f"e:{n}",
        "peer": f"p:{n}",
        "api": f"a:{n}",
        "pid": 100 + n,
    }
    for n in (2, 1)
]
EVENTS: list[Event] = [
    {"event": "ready", "part": "redis", "url": "redis://r"},
    *NODES,
    {
        "event": "cluster-ready",
        "url": "ws://e:1/v1/connect",
        "edge": ["e:1", "e:2"],
        "api": ["a:1", "a:2"],
        "redis": "redis://r",
        "add": ["--name", "n3", "--secret-file", "/tmp/a b"],
    },
    {"event": "exited", "part": "node", "name": "n1", "code": -9},
    {"event": "exited", "part": "node", "name": "n2", "code": 1},
    {"event": "stopped"},
]

Output = pytest.CaptureFixture[str]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Ports]]:
    """What the cluster was asked to be; it reports what is above, and ends."""
    asked: list[tuple[int, Ports]] = []

    async def run(size: int, ports: Ports, report: Report) -> None:
        await trio.lowlevel.checkpoint()
        asked.append((size, ports))
        for event in EVENTS:
            report(event)

    monkeypatch.setattr("ring.dev.cluster.run", run)
    return asked


def test_lines_of_json(asked: list[tuple[int, Ports]], capsys: Output) -> None:
    """Where standard output is no terminal: one per event, as it is."""
    assert main(["dev"]) == 0
    assert list(map(json.loads, capsys.readouterr().out.splitlines())) == EVENTS
    assert asked == [(3, Ports(8001, 9001, 7001))]


def test_size_and_ports(asked: list[tuple[int, Ports]]) -> None:
    """As the options say."""
    assert main(["dev", "--nodes", "8", "--edge-port", "1", "--peer-port", "2", "--api-port", "0"]) == 0
    assert asked == [(8, Ports(1, 2, 0))]


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, called: str) -> int:
    """`ring dev` where standard output is a terminal; `called` is how it was typed."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys, "argv", [called, "dev"])
    return main(["dev"])


@pytest.mark.usefixtures("asked")
def test_words(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where to look, what to try, how to kill, drain and add a node; and what happens to nodes."""
    assert at_a_terminal(monkeypatch, ".venv/bin/ring") == 0
    said = capsys.readouterr().out
    for line in (
        "redis is ready at redis://r",
        "n1 is ready: clients at e:1, API at a:1, pid 101",
        "  .venv/bin/ring chat --user alice --to bob          talk ...",
        "  .venv/bin/ring chat --user carol --room lobby      talk to all who are in the room",
        "  .venv/bin/ring status                              the nodes and their shares",
        "  .venv/bin/ring balance                             how evenly they share the users",
        "  kill -9 102    kills n2: its users move to other nodes within seconds",
        "  .venv/bin/ring serve --name n3 --secret-file '/tmp/a b'",
        "Any WebSocket client can connect: ws://e:1/v1/connect?user=dave",
        "n1 was killed by signal 9; the others go on",
        "n2 ended with code 1; the others go on",
        "stopped: nothing is left running",
    ):
        assert line in said.splitlines()


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("{bin}/ring", "  ring status"),
        ("/somewhere/else/ring", "  /somewhere/else/ring status"),
        ("/x/ring/__main__.py", f"  {sys.executable} -m ring status"),
    ],
)
def test_commands_are_shown_as_they_can_be_typed(
    called: str, shown: str, capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name if it is on the PATH, else as this one was called."""
    executable = tmp_path / "ring"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert at_a_terminal(monkeypatch, called.format(bin=tmp_path)) == 0
    assert any(line.startswith(shown) for line in capsys.readouterr().out.splitlines())
