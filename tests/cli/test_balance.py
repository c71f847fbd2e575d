"""`ring balance`: from nodes and from Redis alone, at a terminal and not."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ring.cli.main import main
from tests.cli.canned import NOWHERE, CannedNode, entry, own, ring_of, two_nodes
from tests.cli.terminal import at_a_terminal, plain

Output = pytest.CaptureFixture[str]


def shares(canned: CannedNode, *slots: int, weights: tuple[int, ...] = (), **changes: Any) -> None:
    """Nodes with so many slots each, all at the canned one."""
    canned.answers["/v1/ring"] = (200, {"cluster": "test", "epoch": 7})
    nodes = [
        entry(
            f"n{number}",
            canned.address,
            slots=count,
            share=count / 16384,
            weight=weights[number - 1] if weights else 1,
            self=own(),
            **changes,
        )
        for number, count in enumerate(slots, 1)
    ]
    canned.answers["/v1/nodes"] = (200, {"nodes": nodes})


def test_a_chart(canned: CannedNode, capsys: Output) -> None:
    """A bar per node, with marks at the fair share and the bound, figures, and how even it is."""
    shares(canned, 8602, 7782)
    assert main(["balance", "--api", canned.url]) == 0
    out, err = capsys.readouterr()
    assert plain(out) == [
        "cluster test, epoch 7, shares of the ring as told by its nodes",
        "",
        "node                                                      share  slots  of fair  weight  sessions",
        "n1    ███████████████████████████████████████████████│█┊  52.5%   8602     1.05       1         5",
        "n2    █████████████████████████████████████████████▏ │ ┊  47.5%   7782     0.95       1         5",
        "│ fair share   ┊ bound, 1.05 of it",
        "of its fair share: largest 1.050 (n1), smallest 0.950 (n2), standard deviation 0.050, bound 1.05",
    ]
    assert err == ""
    assert "\x1b" not in out


def test_weights(canned: CannedNode, capsys: Output) -> None:
    """Each node has a fair share of its own."""
    shares(canned, 4096, 12288, weights=(1, 3))
    assert main(["balance", "--api", canned.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [node["fair_share"] for node in found["nodes"]] == [0.25, 0.75]
    assert [node["of_fair"] for node in found["nodes"]] == [1.0, 1.0]
    assert found["deviation"] == 0


def test_json(canned: CannedNode, capsys: Output) -> None:
    """The same, for scripts."""
    shares(canned, 8602, 7782)
    assert main(["balance", "--api", canned.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, _ = found.pop("nodes")
    assert first == {
        "name": "n1",
        "state": "up",
        "weight": 1,
        "slots": 8602,
        "share": 0.525024,
        "fair_share": 0.5,
        "bound_share": 0.525024,
        "of_fair": 1.05,
        "sessions": 5,
    }
    assert found == {
        "cluster": "test",
        "epoch": 7,
        "source": "nodes",
        "bound": 1.05,
        "largest": {"name": "n1", "of_fair": 1.05},
        "smallest": {"name": "n2", "of_fair": 0.95},
        "deviation": 0.05,
        "over": [],
    }


def test_more_than_the_bound(canned: CannedNode, capsys: Output) -> None:
    """A promise is broken: it is said, and the exit code is 1."""
    shares(canned, 8603, 7781)
    assert main(["balance", "--api", canned.url]) == 1
    assert "warning: n1 owns more than its bound" in capsys.readouterr().out
    assert main(["balance", "--api", canned.url, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["over"] == ["n1"]


def test_nobody_may_own(canned: CannedNode, capsys: Output) -> None:
    """Where all drain there is nothing to be fair about."""
    shares(canned, 0, 0, state="draining")
    assert main(["balance", "--api", canned.url]) == 0
    lines = plain(capsys.readouterr().out)
    assert lines[3].split() == ["n1", "0.0%", "0", "-", "1", "5"]
    assert lines[-1] == "no node may own any slot: all of them drain"
    assert main(["balance", "--api", canned.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["largest"], found["smallest"], found["deviation"]) == (None, None, 0)


def test_sessions_that_nobody_told(canned: CannedNode, capsys: Output) -> None:
    """A node that does not answer has its bar all the same."""
    two_nodes(canned, other_api=NOWHERE)
    assert main(["balance", "--api", canned.url]) == 0
    lines = plain(capsys.readouterr().out)
    assert lines[4].split()[-2:] == ["1", "?"]


def test_redis_alone(stored: str, capsys: Output) -> None:
    """With no node up, and no word of sessions."""
    assert main(["balance", "--redis", stored, "--cluster", "test"]) == 0
    lines = plain(capsys.readouterr().out)
    assert lines[0].endswith("shares of the ring as told by Redis alone")
    assert [line.split()[-1] for line in lines[3:5]] == ["?", "?"]


@pytest.mark.parametrize("size", [1, 2, 128])
def test_sizes(size: int, canned: CannedNode, capsys: Output) -> None:
    """A bar per node, the longest as long as there is room for."""
    ring_of(canned, size)
    assert main(["balance", "--api", canned.url]) == 0
    lines = plain(capsys.readouterr().out)
    assert len(lines) == size + 5
    assert all("█" in line and "│" in line and "┊" in line for line in lines[3:-2])


@pytest.mark.parametrize(
    ("columns", "heads"),
    [
        (200, ["node", "share", "slots", "of", "fair", "weight", "sessions"]),
        (60, ["node", "share", "slots", "of", "fair", "weight", "sessions"]),
        (40, ["node", "share", "slots", "of", "fair"]),
        (24, ["node", "share"]),
    ],
)
def test_at_a_terminal(
    columns: int, heads: list[str], canned: CannedNode, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars take what the figures leave; figures go before bars vanish."""
    shares(canned, 8602, 7782)
    at_a_terminal(monkeypatch, columns)
    assert main(["balance", "--api", canned.url]) == 0
    out = capsys.readouterr().out
    assert "\x1b[34m█" in out
    lines = plain(out)
    assert lines[2].split() == heads
    assert max(map(len, lines[2:5])) <= columns
    assert "██████│" in lines[3]


def test_long_names_on_a_narrow_terminal(
    canned: CannedNode, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are cut, and the bars stay."""
    shares(canned, 8602, 7782)
    for node in canned.answers["/v1/nodes"][1]["nodes"]:
        node["name"] *= 32
        node["self"] = None
    at_a_terminal(monkeypatch, 50)
    assert main(["balance", "--api", canned.url]) == 0
    lines = plain(capsys.readouterr().out)
    assert lines[3].startswith("n1n1n1")
    assert "…" in lines[3]
    assert "██████│" in lines[3]
    assert len(lines[3]) <= 50


def test_an_output_that_knows_ascii_alone(
    canned: CannedNode, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars are made of what there is."""
    shares(canned, 8602, 7782)
    monkeypatch.setattr("rich.console.ConsoleOptions.ascii_only", property(lambda _: True))
    assert main(["balance", "--api", canned.url]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "#####|#:" in out


def test_svg(canned: CannedNode, home: Path, capsys: Output) -> None:
    """The same as a file; names are whatever they are."""
    shares(canned, 8602, 7782)
    canned.answers["/v1/nodes"][1]["nodes"][1].update(name="<n2>\x1b", state="draining")
    path = home / "chart.svg"
    main(["balance", "--api", canned.url, "--svg", str(path)])
    assert plain(capsys.readouterr().out)[-1] == f"written: {path}"
    document = ET.fromstring(path.read_text("utf-8"))
    space = "{http://www.w3.org/2000/svg}"
    assert (
        document.findtext(f"{space}title") == "cluster test, epoch 7, shares of the ring as told by its nodes"
    )
    assert (document.findtext(f"{space}desc") or "").startswith("of its fair share: largest")
    assert [row.findtext(f"{space}title") for row in document.findall(f"{space}g")] == [
        "n1: 52.5%, 8602 slots, 0.53 of fair, 5 sessions; fair 100.0%, at most 105.0%",
        r"<n2>\x1b: 47.5%, 7782 slots, 5 sessions; fair 0.0%, at most 0.0%",
    ]


def test_svg_and_json(canned: CannedNode, home: Path, capsys: Output) -> None:
    """Nothing but JSON is printed."""
    shares(canned, 8602, 7782)
    path = home / "chart.svg"
    assert main(["balance", "--api", canned.url, "--json", "--svg", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["epoch"] == 7
    assert path.exists()


def test_svg_that_cannot_be_written(canned: CannedNode, home: Path, capsys: Output) -> None:
    """The system's word for it, in a line."""
    shares(canned, 8602, 7782)
    assert main(["balance", "--api", canned.url, "--svg", str(home / "no" / "chart.svg")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "No such file or directory" in err


def test_nobody_is_there(capsys: Output) -> None:
    """As `ring status`."""
    assert main(["balance", "--api", NOWHERE]) == 3
    assert "no node answers at" in capsys.readouterr().err
