"""The load for echo servers, in small: what it counts, and how it fails."""

import sys
from pathlib import Path
from statistics import median

import pytest

from ring.bench.echo_load import Clients, Cost, Load, compare, main, measure, started, table

RING = [str(Path(sys.executable).parent / "ring"), "bench", "echo", "--listen", "127.0.0.1:0"]
SILENT = [sys.executable, "-c", "import signal; signal.pause()"]
SHORT = Load(connections=5, seconds=0.2)


@pytest.mark.parametrize("load", [SHORT, Load(connections=5, seconds=0.2, rate=200, size=1000)])
def test_it_measures_a_server(load: Load) -> None:
    """Every message is answered; what it cost is more than nothing and less than a millisecond."""
    cost = measure(RING, load)
    assert 0 < cost.cpu_us < 1000
    assert cost.per_s > 100


def test_an_open_loop_sends_what_was_asked() -> None:
    """So many a second, over all connections in turn."""
    with started(RING) as (address, _):
        clients = Clients(address, Load(connections=3, rate=100))
        clients.run(0.2)
        clients.close()
    assert clients.answered == 20


def test_servers_take_turns() -> None:
    """Each once in each repetition; the table shows medians, relative to the first."""
    costs = compare({"one": RING, "two": RING}, Load(connections=2, seconds=0.05), repetitions=2)
    assert [len(each) for each in costs.values()] == [2, 2]
    lines = table({"one": [Cost(10, 100), Cost(14, 100)], "two": [Cost(24, 50)]}).splitlines()
    assert lines[1].split() == ["one", "12.00", "10.0-14.0", "1.00", "100"]
    assert lines[2].split() == ["two", "24.00", "24.0-24.0", f"{24 / median([10, 14]):.2f}", "50"]


def test_the_command_prints_both_loads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed loop and an open one."""
    monkeypatch.setattr(
        "ring.bench.echo_load.compare", lambda servers, load: {name: [Cost(1, 1)] for name in servers}
    )
    main(["one=a b", "two=c"])
    printed = capsys.readouterr().out
    assert printed.count("one ") == printed.count("two ") == 2
    assert "closed loop" in printed
    assert "500 messages/s" in printed


def test_a_server_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is given up, and ended."""
    monkeypatch.setattr("ring.bench.echo_load._START_S", 0.1)
    with pytest.raises(RuntimeError, match="does not say that it is ready"):
        measure(SILENT, SHORT)


BROKEN = """
import json, os, socket, sys
from ring.protocol.upgrade import accept_response, check_upgrade, parse_request
server = socket.create_server(("127.0.0.1", 0))
print(json.dumps({"edge": "127.0.0.1:%d" % server.getsockname()[1], "pid": os.getpid()}), flush=True)
connection, _ = server.accept()
connection.sendall(accept_response(check_upgrade(parse_request(connection.recv(4096))), None))
connection.recv(4096)
if sys.argv[1] == "ends":
    connection.close()
server.accept()  # until it is ended
"""


@pytest.mark.parametrize(
    ("how", "message"), [("ends", "closed a connection"), ("hangs", r"no answer for 0\.1 s")]
)
def test_a_server_that_breaks(monkeypatch: pytest.MonkeyPatch, how: str, message: str) -> None:
    """While it is measured: an error, not a figure."""
    monkeypatch.setattr("ring.bench.echo_load._STALL_S", 0.1)
    with pytest.raises(RuntimeError, match=message):
        measure([sys.executable, "-c", BROKEN, how], Load(connections=1, seconds=0.2))
