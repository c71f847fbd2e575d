"""`ring status` and `ring owner`: from nodes, from Redis alone, and by the note of `ring dev`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from ring.cli.main import main
from ring.cli.reach import Reach, Unreachable
from ring.cli.survey import Survey, survey
from ring.cluster.view import RingView
from ring.dev import context
from ring.protocol.names import slot_of
from ring.store.client import Redis
from ring.store.keys import Keys
from tests.cli.canned import NOWHERE, CannedNode, entry, members, ring_of, two_nodes
from tests.cli.terminal import at_a_terminal, plain

Output = pytest.CaptureFixture[str]


def words(line: str) -> list[str]:
    """What a line of a table says."""
    return line.split()


class TestStatus:
    def test_a_table(self, canned: CannedNode, capsys: Output) -> None:
        """A line per node, with what the node says of itself."""
        two_nodes(canned)
        assert main(["status", "--api", canned.url]) == 0
        out, err = capsys.readouterr()
        title, _, heads, first, second, total = out.splitlines()
        assert title == "cluster test, epoch 7, 2 nodes, as told by its nodes"
        assert heads.split() == words(
            "node state weight slots share sessions off-owner links lag lease redis epoch version edge"
        )
        assert first.split() == words("n1 up 1 8192 50.0% 5 40.0% 1/1 1.2 ms 0.2 s ok 7 0.1.0 n1.test:8001")
        assert second.split()[:2] == ["n2", "draining"]
        assert total == "total: 10 sessions, 8 users, 40.0% off their owner"
        assert err == ""

    def test_json(self, canned: CannedNode, capsys: Output) -> None:
        """The same, for scripts."""
        two_nodes(canned)
        assert main(["status", "--api", canned.address, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["cluster"], found["epoch"], found["source"], found["warnings"]) == (
            "test",
            7,
            "nodes",
            [],
        )
        assert found["nodes"][0] == {
            "name": "n1",
            "state": "up",
            "weight": 1,
            "slots": 8192,
            "share": 0.5,
            "fair_share": 0.5,
            "bound_share": 0.525024,
            "edge": "n1.test:8001",
            "api": canned.address,
            "version": "0.1.0",
            "lease_age_s": 0.25,
            "epoch": 7,
            "sessions": 5,
            "users": 4,
            "off_owner": 2,
            "links_up": 1,
            "lag_ms": 1.25,
            "degraded": [],
        }
        assert found["total"] == {"sessions": 10, "users": 8, "off_owner": 4, "of": 2}

    @pytest.mark.parametrize(
        ("changes", "warning"),
        [
            ({"other_api": NOWHERE}, f"n2 does not answer at {NOWHERE}"),
            ({"link": "refused"}, "n1 has no link to n2: refused"),
            ({"epoch": 6}, "n1 routes by epoch 6, not by 7"),
            ({"degraded": ["redis"]}, "n1 does without redis"),
            (
                {"degraded": ["redis", "frozen"]},
                "n1 goes on in a frozen ring: no node can join or leave until Redis is back",
            ),
            ({"state": "isolated"}, "n1 is isolated"),
        ],
    )
    def test_warnings(
        self, changes: dict[str, Any], warning: str, canned: CannedNode, capsys: Output
    ) -> None:
        """What is wrong is said below the table, and by the exit code."""
        two_nodes(canned, **changes)
        assert main(["status", "--api", canned.url]) == 1
        assert f"warning: {warning}" in capsys.readouterr().out.splitlines()

    def test_another_node_at_its_address(self, canned: CannedNode, capsys: Output) -> None:
        """What it says of itself is not taken for the other's."""
        two_nodes(canned)
        canned.answers["/v1/nodes"][1]["nodes"].append(entry("n3", canned.address, link="up"))
        assert main(["status", "--api", canned.url]) == 1
        assert f"warning: n3 is not who answers at {canned.address}" in capsys.readouterr().out

    def test_a_node_that_does_not_answer_is_shown(self, canned: CannedNode, capsys: Output) -> None:
        """With question marks for what only it could tell."""
        two_nodes(canned, other_api=NOWHERE)
        main(["status", "--api", canned.url])
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("n2"))
        assert line.split() == words("n2 up 1 8192 50.0% ? ? ? ? ? ? ? 0.1.0 n2.test:8001")

    @pytest.mark.parametrize(
        ("degraded", "cell"), [([], "ok"), (["redis"], "away"), (["redis", "frozen"], "frozen")]
    )
    def test_redis_as_the_node_sees_it(
        self, degraded: list[str], cell: str, canned: CannedNode, capsys: Output
    ) -> None:
        """Whether it is there, and whether the ring stands still for want of it."""
        two_nodes(canned, degraded=degraded)
        main(["status", "--api", canned.url])
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("n1"))
        assert line.split()[12] == cell

    def test_totals_of_those_that_say_so(self, canned: CannedNode, capsys: Output) -> None:
        """What a node does not tell is not taken for nothing."""
        two_nodes(canned, other_api=NOWHERE)
        main(["status", "--api", canned.url])
        assert "total: at least 5 sessions, 4 users, 40.0% off their owner" in capsys.readouterr().out
        two_nodes(canned, sessions=1, users=1, off_owner=0)
        canned.answers["/v1/nodes"][1]["nodes"][1]["self"].pop("off_owner")  # as of an older release
        main(["status", "--api", canned.url])
        assert "total: at least 1 session, 1 user, 0.0% off their owner" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("slots", "warning"),
        [
            (9000, "n1 owns 9000 slots, more than the 8602 that it should at most"),
            (4000, "n1 owns 4000 slots, far from its fair share of 8192"),
        ],
    )
    def test_shares_far_from_fair(self, slots: int, warning: str, canned: CannedNode, capsys: Output) -> None:
        """By weight, both ways."""
        two_nodes(canned)
        canned.answers["/v1/nodes"][1]["nodes"][0]["slots"] = slots
        assert main(["status", "--api", canned.url]) == 1
        assert f"warning: {warning}" in capsys.readouterr().out.splitlines()

    def test_small_shares_are_not_judged(self, canned: CannedNode, capsys: Output) -> None:
        """A slot more or less is much of a few."""
        two_nodes(canned)
        first, second = canned.answers["/v1/nodes"][1]["nodes"]
        first.update(weight=1000, slots=16384)
        second.update(weight=1, slots=0)
        assert main(["status", "--api", canned.url]) == 0

    def test_the_same_of_many_nodes_is_one_warning(self, canned: CannedNode, capsys: Output) -> None:
        """Of 128 nodes of which one is gone, 127 have no link to it."""
        ring_of(canned, 128, link="refused", degraded=["redis"])
        assert main(["status", "--api", canned.url]) == 1
        warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
        assert warnings == [
            "warning: n1, n2, n3 and 125 more do without redis",
            "warning: n1, n2, n3 and 124 more have no link to n128: refused",
        ]

    @pytest.mark.parametrize("size", [1, 2, 128])
    def test_sizes(self, size: int, canned: CannedNode, capsys: Output) -> None:
        """A line per node."""
        ring_of(canned, size)
        assert main(["status", "--api", canned.url]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split(", ")[2] == ("1 node" if size == 1 else f"{size} nodes")
        assert len(lines) == size + 4
        assert f"{size - 1}/{size - 1}" in lines[3]

    def test_a_terminal_of_100_columns(
        self, canned: CannedNode, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What matters most fits into it, whole."""
        ring_of(canned, 128, epoch=1795494759)
        at_a_terminal(monkeypatch, 100)
        assert main(["status", "--api", canned.url]) == 0
        _, _, heads, *lines = plain(capsys.readouterr().out)
        assert heads.split() == words(
            "node state weight share sessions off-owner links lag lease redis epoch version"
        )
        assert max(map(len, lines)) <= 100
        assert lines[127].split() == words("n128 up 1 0.8% 5 40.0% 127/127 1.2 ms 0.2 s ok 1795494759 0.1.0")

    def test_a_narrow_terminal(
        self, canned: CannedNode, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Columns are left out before names are cut."""
        two_nodes(canned)
        for node in canned.answers["/v1/nodes"][1]["nodes"]:
            node["name"] *= 32
        at_a_terminal(monkeypatch, 60)
        main(["status", "--api", canned.url])
        _, _, heads, first, *_ = plain(capsys.readouterr().out)
        assert heads.split() == words("node state share sessions links lease redis")
        assert len(first) <= 60
        assert first.startswith("n1n1n1n1n1n…")

    def test_names_are_no_markup(self, canned: CannedNode, capsys: Output) -> None:
        """What a server calls itself commands neither rich nor the terminal."""
        two_nodes(canned)
        names = ("[red]n1[/red]", "\x1b[2J节点:smile:")
        for node, name in zip(canned.answers["/v1/nodes"][1]["nodes"], names, strict=True):
            node["name"] = name
        main(["status", "--api", canned.url])
        out = capsys.readouterr().out
        assert "\n[red]n1[/red]" in out
        assert r"\x1b[2J节点:smile:" in out
        assert "\x1b" not in out

    def test_redis_alone(self, stored: str, capsys: Output) -> None:
        """With no node up: members and shares, and no warning while the leases last."""
        assert main(["status", "--redis", stored, "--cluster", "test", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["source"] == "redis"
        shares = RingView.build("test", 1, members()).shares()
        assert {node["name"]: node["slots"] for node in found["nodes"]} == shares
        for node in found["nodes"]:
            assert node["sessions"] is None
            assert 0 <= node["lease_age_s"] < 60
            assert node["lease_age_s"] == round(node["lease_age_s"], 3)

    def test_a_table_from_redis_alone(self, stored: str, capsys: Output) -> None:
        """With question marks for what only nodes know."""
        assert main(["status", "--redis", stored, "--cluster", "test"]) == 0
        _, _, _, first, _, total = capsys.readouterr().out.splitlines()
        cells = first.split()
        assert cells[:3] == ["n1", "up", "1"]
        assert cells[5:9] == ["?", "?", "?", "?"]
        assert cells[-4:] == ["?", "?", "0.1.0", "n1:1"]
        assert total == "total: ? sessions, ? users, ? off their owner: no node was asked"

    def test_leases_that_have_run_out(self, stored: str, capsys: Output) -> None:
        """A member that has not renewed is one to worry about."""

        async def lapse() -> None:
            redis = Redis.from_url(stored, client_name="test")
            async with trio.open_nursery() as nursery:
                await nursery.start(redis.run)
                await redis.zadd(Keys("test").leases, {"n2": 1})
                nursery.cancel_scope.cancel()

        trio.run(lapse)
        assert main(["status", "--redis", stored, "--cluster", "test"]) == 1
        out = capsys.readouterr().out
        assert "as told by Redis alone" in out
        assert "warning: n2 has not renewed its lease: it is down, or cut off from Redis" in out

    def test_a_cluster_that_redis_does_not_know(self, stored: str, capsys: Output) -> None:
        """Most likely the name is another."""
        assert main(["status", "--redis", stored]) == 3
        assert "knows no node of cluster ring: is --cluster right?" in capsys.readouterr().err

    def test_no_redis(self, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        """The wait is bounded, and the password stays out of the message."""
        monkeypatch.setattr("ring.cli.reach.ANSWER_S", 0.2)
        assert main(["status", "--redis", f"redis://:pa55@{NOWHERE}/0"]) == 3
        err = capsys.readouterr().err
        assert f"no answer from Redis at {NOWHERE}" in err
        assert "pa55" not in err


class TestWatch:
    @staticmethod
    def watching(canned: CannedNode, *more: str) -> "subprocess.Popen[str]":
        """The command as a process."""
        command = ["status", "--api", canned.url, "--watch", "--every", "0.1", *more]
        return subprocess.Popen(
            [sys.executable, "-m", "ring", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_until_interrupted(self, canned: CannedNode) -> None:
        """It looks again and again; Ctrl-C ends it without a word."""
        two_nodes(canned)
        with self.watching(canned, "--json") as process:
            assert process.stdout is not None
            for _ in range(3):
                assert json.loads(process.stdout.readline())["epoch"] == 7
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (130, "")

    def test_tables(self, canned: CannedNode) -> None:
        """Where standard output is no terminal, one is printed below the other."""
        two_nodes(canned)
        with self.watching(canned) as process:
            assert process.stdout is not None
            titles = 0
            while titles < 2:
                titles += process.stdout.readline().startswith("cluster test")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (130, "")
        assert "\x1b" not in out

    def test_nobody_answers_any_more(self, canned: CannedNode) -> None:
        """It says so, and goes on until somebody does."""
        two_nodes(canned)
        with self.watching(canned) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            answer = canned.answers.pop("/v1/ring")
            canned.answers["/v1/ring"] = (200, b"nothing of Ring's")
            assert process.stderr.readline().startswith("ring: no node answers at")
            canned.answers["/v1/ring"] = answer
            while not process.stdout.readline().startswith("cluster test"):
                pass
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=10)
        assert process.returncode == 130

    def test_nobody_answers_at_all(self) -> None:
        """Then there is nothing to wait for."""
        assert main(["status", "--api", NOWHERE, "--watch"]) == 3

    def test_on_a_screen_of_its_own(
        self, canned: CannedNode, capsys: Output, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At a terminal, which is as it was afterwards; what was known stays in sight."""
        two_nodes(canned)
        at_a_terminal(monkeypatch, 100)
        surveys = 0

        async def survey_twice(reach: Reach) -> Survey:
            nonlocal surveys
            surveys += 1
            if surveys == 2:
                raise Unreachable("no node answers")
            if surveys == 3:
                raise KeyboardInterrupt
            return await survey(reach)

        monkeypatch.setattr("ring.cli.survey.survey", survey_twice)
        assert main(["status", "--api", canned.url, "--watch", "--every", "0.1"]) == 130
        out = capsys.readouterr().out
        assert out.count("\x1b[?1049h") == out.count("\x1b[?1049l") == 1
        _, last = out.rsplit("cluster test", 1)
        assert "warning: no node answers" in last
        assert "n1.test" in last or "up" in last


class TestReach:
    def test_nothing_says_where(self, capsys: Output) -> None:
        """Then what to do is said."""
        assert main(["status"]) == 3
        assert "give --api URL, or start one: ring dev" in capsys.readouterr().err

    def test_the_environment(
        self, canned: CannedNode, monkeypatch: pytest.MonkeyPatch, capsys: Output
    ) -> None:
        """RING_API in place of --api."""
        two_nodes(canned)
        monkeypatch.setenv("RING_API", canned.address)
        assert main(["status"]) == 0

    def test_the_note_of_ring_dev(self, canned: CannedNode, capsys: Output) -> None:
        """It names all nodes: those that are gone are passed over."""
        two_nodes(canned)
        apis = [f"http://{NOWHERE}", canned.url]
        context.write(context.Context("test", f"redis://{NOWHERE}/0", apis, [], os.getpid()))
        assert main(["status"]) == 0
        assert "as told by its nodes" in capsys.readouterr().out

    def test_the_note_when_all_nodes_are_gone(self, stored: str, capsys: Output) -> None:
        """Then Redis tells."""
        context.write(context.Context("test", stored, [f"http://{NOWHERE}"], [], os.getpid()))
        assert main(["status"]) == 1
        out = capsys.readouterr().out
        assert "as told by Redis alone" in out
        assert "warning: no node answers at" in out
        assert main(["owner", "bob"]) == 0
        assert "sessions   unknown" in capsys.readouterr().out

    def test_the_key(self, canned: CannedNode, home: Path, capsys: Output) -> None:
        """It is sent as a bearer token."""
        two_nodes(canned)
        key = home / "key"
        key.write_text("0123456789abcdef\n")
        assert main(["status", "--api", canned.url, "--api-key-file", str(key)]) == 0
        assert {authorization for _, authorization in canned.asked} == {"Bearer 0123456789abcdef"}

    def test_a_key_is_missing(self, canned: CannedNode, capsys: Output) -> None:
        """What to give is said."""
        canned.answers["/v1/ring"] = (401, {"error": {"code": "unauthenticated", "message": "no"}})
        assert main(["status", "--api", canned.url]) == 1
        assert "asks for a key, or for another: give --api-key-file" in capsys.readouterr().err

    def test_a_node_that_is_joining(self, canned: CannedNode, capsys: Output) -> None:
        """Its own words, and `unreachable`: it may be asked again."""
        canned.answers["/v1/ring"] = (
            503,
            {"error": {"code": "owner_unavailable", "message": "still joining"}},
        )
        assert main(["status", "--api", canned.url]) == 3
        assert capsys.readouterr().err == f"ring: {canned.url}: still joining\n"

    @pytest.mark.parametrize("answer", [(200, b"<html>"), (500, []), (404, {})])
    def test_something_else_is_there(
        self, answer: tuple[int, Any], canned: CannedNode, capsys: Output
    ) -> None:
        """What is no API of Ring's is said to be none, without traceback."""
        canned.answers["/v1/ring"] = answer
        assert main(["status", "--api", canned.url]) in (1, 3)
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert canned.url in err

    @pytest.mark.parametrize("url", [f"http://{NOWHERE}", "http://[", "ftp://x", "http://\x00"])
    def test_nobody_is_there(self, url: str, capsys: Output) -> None:
        """Refused, or no URL at all: not reached."""
        assert main(["owner", "bob", "--api", url]) == 3
        assert "no node answers at" in capsys.readouterr().err


class TestOwner:
    def answer(self, **changes: Any) -> tuple[int, Any]:
        """An answer to GET /v1/users."""
        where = {"user": "a/b c", "slot": 5, "owner": "n1", "successor": "n2", "epoch": 7, "sessions": []}
        return 200, where | changes

    def test_sessions(self, canned: CannedNode, capsys: Output) -> None:
        """Where the user is connected, and how far that is from the owner."""
        common = {"address": "10.0.0.9:5", "unacknowledged": 3}
        canned.answers["/v1/users"] = self.answer(
            sessions=[
                {"session": "s1", "device": "phone", "gateway": "n1", **common},
                {"session": "s2", "device": "web", "gateway": "n2", **common},
            ]
        )
        assert main(["owner", "a/b c", "--api", canned.url]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "user       a/b c",
            "slot       5",
            "owner      n1",
            "successor  n2",
            "epoch      7",
            "session    s1: device phone at 10.0.0.9:5, on n1 (on the owner), 3 unacknowledged",
            "session    s2: device web at 10.0.0.9:5, on n2 (one hop from the owner), 3 unacknowledged",
        ]
        assert [path for path, _ in canned.asked] == ["/v1/users?user=a%2Fb+c"]

    def test_nobody(self, canned: CannedNode, capsys: Output) -> None:
        """What there is none of is said in words."""
        canned.answers["/v1/users"] = self.answer(owner=None, successor=None)
        assert main(["owner", "a/b c", "--api", canned.url]) == 0
        out = capsys.readouterr().out
        assert "owner      nobody: no node may own" in out
        assert "successor  nobody: there is no other node" in out
        assert "sessions   none: the user is offline" in out

    def test_json(self, canned: CannedNode, capsys: Output) -> None:
        """The answer of the API as it is."""
        canned.answers["/v1/users"] = self.answer()
        assert main(["owner", "a/b c", "--api", canned.url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == self.answer()[1]

    def test_redis_alone(self, stored: str, capsys: Output) -> None:
        """The same owner as the nodes compute, and no word of sessions."""
        assert main(["owner", "bob", "--redis", stored, "--cluster", "test", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        view = RingView.build("test", 1, members())
        assert (found["slot"], found["owner"]) == (slot_of("bob"), view.owner("bob"))
        assert {found["owner"], found["successor"]} == {"n1", "n2"}
        assert found["sessions"] is None
