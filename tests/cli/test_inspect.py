"""`ring status` and `ring owner`: from nodes, from Redis alone, and by the note of `ring dev`."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from ring.cli.main import main
from ring.cluster.scripts import Scripts
from ring.cluster.view import RingView
from ring.dev import context
from ring.protocol.names import slot_of
from ring.protocol.peer import MemberEntry
from ring.store.client import Redis
from ring.store.keys import Keys
from tests.cli.canned import CannedNode

NOWHERE = "127.0.0.1:1"

Output = pytest.CaptureFixture[str]


def entry(name: str, api: str, **changes: Any) -> dict[str, Any]:
    """A node in the answer to GET /v1/nodes."""
    return {
        "name": name,
        "incarnation": "i",
        "state": "up",
        "edge": f"{name}.test:8001",
        "peer": f"{name}.test:9001",
        "api": api,
        "weight": 1,
        "version": "0.1.0",
        "slots": 8192,
        "share": 0.5,
        **changes,
    }


def own(**changes: Any) -> dict[str, Any]:
    """What a node says of itself there."""
    figures = {"sessions": 5, "users": 4, "lease_age_s": 0.25, "anything": 1}
    return {"state": "up", "degraded": [], "epoch": 7, **figures, **changes}


def two_nodes(canned: CannedNode, *, link: str = "up", other_api: str | None = None, **figures: Any) -> None:
    """Both nodes' APIs are at the canned one, which answers as n1; n2 may be elsewhere."""
    canned.answers["/v1/ring"] = (200, {"cluster": "test", "epoch": 7, "slots": 16384})
    nodes = [
        entry("n1", canned.address, self=own(**figures)),
        entry("n2", other_api or canned.address, link=link, state="draining", self=own(state="draining")),
    ]
    canned.answers["/v1/nodes"] = (200, {"nodes": nodes})


def members() -> list[MemberEntry]:
    """Two nodes as Redis knows them."""
    return [
        MemberEntry(name, "i", f"{name}:1", f"{name}:2", f"{name}:3", 1, "up", "0.1.0")
        for name in ("n1", "n2")
    ]


@pytest.fixture
def stored(redis_url: str) -> str:
    """The URL of a Redis in which cluster `test` has two members."""

    async def join() -> None:
        redis = Redis.from_url(redis_url, client_name="test")
        async with trio.open_nursery() as nursery:
            await nursery.start(redis.run)
            scripts = Scripts(redis, Keys("test"), ttl_ms=60_000)
            for member in members():
                await scripts.join(member, 0)
            nursery.cancel_scope.cancel()

    trio.run(join)
    return redis_url


class TestStatus:
    def test_a_table(self, canned: CannedNode, capsys: Output) -> None:
        """A line per node, with what the node says of itself."""
        two_nodes(canned)
        assert main(["status", "--api", canned.url]) == 0
        out, err = capsys.readouterr()
        title, _, heads, first, second = out.splitlines()
        assert title == "cluster test, epoch 7, 2 nodes, as told by its nodes"
        assert heads.split() == [
            "node",
            "state",
            "weight",
            "slots",
            "share",
            "sessions",
            "links",
            "lease",
            "edge",
        ]
        assert first.split() == ["n1", "up", "1", "8192", "50.0%", "5", "1/1", "0.2", "s", "n1.test:8001"]
        assert second.split()[0] == "n2"
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
            "edge": "n1.test:8001",
            "api": canned.address,
            "version": "0.1.0",
            "lease_age_s": 0.25,
            "epoch": 7,
            "sessions": 5,
            "users": 4,
            "links_up": 1,
        }

    @pytest.mark.parametrize(
        ("changes", "warning"),
        [
            ({"other_api": NOWHERE}, f"n2 does not answer at {NOWHERE}"),
            ({"link": "refused"}, "n1 has no link to n2: refused"),
            ({"epoch": 6}, "n1 routes by epoch 6, not by 7"),
            ({"degraded": ["redis"]}, "n1 does without redis"),
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
        assert line.split() == ["n2", "draining", "1", "8192", "50.0%", "?", "?", "?", "n2.test:8001"]

    def test_redis_alone(self, stored: str, capsys: Output) -> None:
        """With no node up: members and shares, and no warning while the leases last."""
        assert main(["status", "--redis", stored, "--cluster", "test", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["source"] == "redis"
        shares = RingView.build("test", 1, members()).shares()
        assert {node["name"]: node["slots"] for node in found["nodes"]} == shares
        assert all(node["sessions"] is None and 0 <= node["lease_age_s"] < 60 for node in found["nodes"])

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
