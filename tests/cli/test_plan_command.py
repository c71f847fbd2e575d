"""`ring plan`: from nodes and from Redis alone; what it prints, and what it refuses."""

import json
import os
from typing import Any

import pytest

from ring.cli.main import main
from ring.cluster.view import RingView
from ring.dev import context
from ring.protocol.peer import MemberEntry
from tests.cli.canned import NOWHERE, CannedNode, entry
from tests.cli.terminal import at_a_terminal, plain

Output = pytest.CaptureFixture[str]


def ring(canned: CannedNode, size: int, *, sessions: dict[int, int] | None = None) -> RingView:
    """As many nodes; the canned one answers for all that are not the last, which has the sessions too."""
    names = [f"n{number}" for number in range(1, size + 1)]
    view = RingView.build("test", 7, [MemberEntry(name, "", "", "", "", 1, "up", "") for name in names])
    canned.answers["/v1/ring"] = (
        200,
        {
            "cluster": "test",
            "epoch": 7,
            "nodes": [{"name": name, "weight": 1, "state": "up"} for name in names],
            "owners": [
                {"first": slot, "last": slot, "owner": owner} for slot, owner in enumerate(view.owners)
            ],
        },
    )
    nodes: list[dict[str, Any]] = [entry(name, f"{canned.address}/{name}") for name in names]
    canned.answers["/v1/nodes"] = (200, {"nodes": nodes})
    for name in names:
        told = {} if sessions is None else {str(slot): count for slot, count in sessions.items()}
        canned.answers[f"/{name}/v1/slots"] = (200, {"epoch": 7, "sessions": told})
    return view


def test_a_newcomer(canned: CannedNode, capsys: Output) -> None:
    """What moves beside the least possible, from where to where, shares, and the sessions of all nodes."""
    ring(canned, 3, sessions=dict.fromkeys(range(0, 16384, 16), 1))
    assert main(["plan", "--add", "n4", "--api", canned.url]) == 0
    out, err = capsys.readouterr()
    assert plain(out) == [
        "cluster test, epoch 7, as told by its nodes",
        "",
        "slots     4200 would move, 25.6% of all; the least possible for these shares is 4200, 25.6%",
        "sessions  813 of 3072 would get another owner",
        "",
        "from  to  slots  share  sessions",
        "n3    n4   1474   9.0%       315",
        "n1    n4   1424   8.7%       276",
        "n2    n4   1302   7.9%       222",
        "",
        "node  weight  before  after   fair  slots",
        "n1         1   34.1%  25.4%  25.0%  -1424",
        "n2         1   32.3%  24.4%  25.0%  -1302",
        "n3         1   33.6%  24.6%  25.0%  -1474",
        "n4    new, 1    0.0%  25.6%  25.0%  +4200",
    ]
    assert err == ""
    assert "\x1b" not in out


def test_several_at_once(canned: CannedNode, capsys: Output) -> None:
    """All options together are one change."""
    ring(canned, 3)
    command = ["plan", "--add", "n4=2", "--add", "n5", "--remove", "n1", "--weight", "n2=3"]
    assert main([*command, "--api", canned.url]) == 0
    lines = plain(capsys.readouterr().out)
    weights = {line.split("  ")[0]: line for line in lines[-5:]}
    assert "  gone  " in weights["n1"]
    assert "  1 to 3  " in weights["n2"]
    assert "  new, 2  " in weights["n4"]
    assert "  new, 1  " in weights["n5"]


def test_json(canned: CannedNode, capsys: Output) -> None:
    """The same, for scripts."""
    view = ring(canned, 2, sessions={slot: slot for slot in range(4)})
    assert main(["plan", "--remove", "n2", "--api", canned.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    slots = view.shares()["n2"]
    moved = sum(2 * count for slot, count in {1: 1, 2: 2, 3: 3}.items() if view.owners[slot] == "n2")
    share = round(slots / 16384, 6)
    assert found == {
        "cluster": "test",
        "epoch": 7,
        "source": "nodes",
        "slots": slots,
        "share": share,
        "least_slots": slots,
        "least_share": share,
        "sessions": moved,
        "sessions_known": 12,
        "moves": [{"from": "n2", "to": "n1", "slots": slots, "sessions": moved}],
        "nodes": [
            {
                "name": "n1",
                "weight_before": 1,
                "weight_after": 1,
                "slots_before": 16384 - slots,
                "slots_after": 16384,
                "share_before": round(1 - slots / 16384, 6),
                "share_after": 1.0,
                "fair_share_after": 1.0,
            },
            {
                "name": "n2",
                "weight_before": 1,
                "weight_after": None,
                "slots_before": slots,
                "slots_after": 0,
                "share_before": share,
                "share_after": 0.0,
                "fair_share_after": 0.0,
            },
        ],
        "warnings": [],
    }
    assert moved > 0


def test_nothing_moves(canned: CannedNode, capsys: Output) -> None:
    """Then no table says from where to where."""
    ring(canned, 2)
    assert main(["plan", "--weight", "n1=1", "--api", canned.url]) == 0
    out = capsys.readouterr().out
    assert "slots     none would move" in out
    assert "from" not in out


@pytest.mark.parametrize("silent", [(404, {"error": {"code": "bad_request"}}), (200, b"<html>"), (200, {})])
def test_a_node_that_does_not_tell(silent: tuple[int, Any], canned: CannedNode, capsys: Output) -> None:
    """Of an older release, say: what is not counted is said, and the plan stands."""
    ring(canned, 3, sessions={5: 1})
    canned.answers["/n2/v1/slots"] = silent
    assert main(["plan", "--add", "n4", "--api", canned.url]) == 0
    out = capsys.readouterr().out
    assert " of 2 would get another owner" in out
    assert plain(out)[-1] == "warning: no word from n2: its sessions are not counted"


def test_no_node_tells(canned: CannedNode, capsys: Output) -> None:
    """Then sessions are unknown."""
    ring(canned, 2)
    del canned.answers["/n1/v1/slots"], canned.answers["/n2/v1/slots"]
    assert main(["plan", "--add", "n4", "--api", canned.url]) == 0
    out = capsys.readouterr().out
    assert "sessions  unknown" in out
    assert plain(out)[-1] == "warning: no word from n1 and n2: their sessions are not counted"


def test_many_pairs(canned: CannedNode, capsys: Output) -> None:
    """The largest are shown, and how much the others are; JSON has all."""
    ring(canned, 128)
    assert main(["plan", "--add", "n129", "--api", canned.url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["moves"]) > 60
    assert main(["plan", "--add", "n129", "--api", canned.url]) == 0
    lines = plain(capsys.readouterr().out)
    heads = lines.index(next(line for line in lines if line.startswith("from")))
    rest = found["moves"][20:]
    slots = sum(move["slots"] for move in rest)
    assert (
        lines[heads + 21]
        == f"and {slots} slots between {len(rest)} further pairs of nodes: --json lists them"
    )
    assert len(lines) == heads + 21 + 3 + 129


def test_redis_alone(stored: str, capsys: Output) -> None:
    """With no node up: the same plan, and no word of sessions."""
    command = ["plan", "--add", "n3", "--redis", stored, "--cluster", "test"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["source"], found["sessions"], found["sessions_known"]) == ("redis", None, None)
    assert found["slots"] == found["nodes"][2]["slots_after"] > 5000
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "as told by Redis alone" in out
    assert "sessions  unknown: no node was asked" in out


def test_the_note_when_all_nodes_are_gone(stored: str, capsys: Output) -> None:
    """Then Redis tells."""
    context.write(context.Context("test", stored, [f"http://{NOWHERE}"], [], os.getpid()))
    assert main(["plan", "--add", "n3"]) == 0
    out = capsys.readouterr().out
    assert "as told by Redis alone" in out
    assert "warning: no node answers at" in out


def test_a_narrow_terminal(canned: CannedNode, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are left out, the largest matter stays."""
    ring(canned, 3)
    at_a_terminal(monkeypatch, 25)
    assert main(["plan", "--add", "n4", "--api", canned.url]) == 0
    lines = plain(capsys.readouterr().out)
    assert "from  to  slots  sessions" in lines
    assert "node  before  after" in lines


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "say what to change: --add NAME[=WEIGHT], --remove NAME, --weight NAME=WEIGHT"),
        (("--add", "n1"), "--add n1: it is a member; to change its weight, use --weight n1=WEIGHT"),
        (("--remove", "n3"), "--remove n3: no such member; there are n1 and n2"),
        (("--remove", "n1", "--remove", "n2"), "nobody would be left to own the slots"),
        (("--weight", "n1=1001"), "write NAME=WEIGHT, with a weight of 1 to 1000"),
        (("--add", "n4", "--remove", "n4"), "n4 is named 2 times"),
    ],
)
def test_refusals(options: tuple[str, ...], says: str, canned: CannedNode, capsys: Output) -> None:
    """One line that says what to do, and exit code 2."""
    ring(canned, 2)
    assert main(["plan", *options, "--api", canned.url]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


def test_nobody_is_there(capsys: Output) -> None:
    """What is wrong with the options is said first."""
    assert main(["plan", "--add", "n4", "--api", NOWHERE]) == 3
    assert main(["plan", "--api", NOWHERE]) == 2
    assert main(["plan", "--add", "n4"]) == 3
    assert "give --api URL, or start one: ring dev" in capsys.readouterr().err


def test_a_ring_of_another_geometry(canned: CannedNode, capsys: Output) -> None:
    """A table that is not of as many slots is not planned with."""
    ring(canned, 2)
    canned.answers["/v1/ring"][1]["owners"].pop()
    assert main(["plan", "--add", "n4", "--api", canned.url]) == 3
    assert "the nodes tell of 16383 slots, not of 16384" in capsys.readouterr().err
