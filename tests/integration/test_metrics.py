"""Every metric is there, and moves when it should: seen from outside, on nodes that serve real clients.

`MOVES` says which test shows which metric; no metric may be missing from it. What is told of stored mailboxes
is shown in test_metrics_stored.py.
"""

import re
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, TextIO, cast

import httpx
import pytest
import structlog
import trio
from msgspec import Raw
from prometheus_client.openmetrics import parser

from ring import __version__, logs
from ring.node import Node
from ring.protocol import client, peer
from ring.protocol.names import slot_of
from ring.protocol.websocket import BINARY, CLOSE, TEXT, close_payload
from ring.store.client import Redis
from ring.store.keys import Keys
from ring.telemetry.table import METRICS
from ring.transport.address import split_address
from ring.verify.server import Store
from tests.integration.cluster import nodes, processes
from tests.integration.probe import probing
from tests.integration.raw import RawClient, Watch
from tests.integration.room_client import RoomClient
from tests.transport.wire import Wire, masked, request, until

DEADLINE_S = 120
PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"

FIGURES = {
    "sessions",
    "users",
    "off_owner",
    "mailboxes",
    "pending",
    "links",
    "lease_age_s",
    "lag_ms",
    "dropped_untracked",
    "late_deliveries",
    "lost_mailboxes",
    "refused",
}
"""What `GET /v1/nodes` shows: documented, and added to only."""

MOVES = {
    "connections": (
        "connections",
        "connections_opened_total",
        "connections_closed_total",
        "handshakes_refused_total",
        "client_errors_total",
        "pump_connections",
    ),
    "sessions": ("sessions", "users", "mailboxes"),
    "messages": (
        "messages_accepted_total",
        "receipts_total",
        "messages_delivered_total",
        "messages_dropped_total",
        "messages_pending",
        "messages_unacknowledged",
    ),
    "stored": (
        "stored_messages_total",
        "stored_failed_total",
        "stored_fenced_total",
        "stored_reads_total",
        "stored_messages_read_total",
        "stored_messages_removed_total",
        "stored_waiting",
        "stored_unread_sessions_total",
        "messages_unacknowledged",
        "receipts_total",
        "redis_connected",
    ),
    "broken_link": ("messages_resent_total", "late_deliveries_total", "link_up"),
    "ring": (
        "epoch",
        "changes_total",
        "members",
        "suspicions_total",
        "slots_owned",
        "share_ratio",
        "peers",
        "link_up",
        "link_frames_total",
        "link_items_total",
        "link_bytes_total",
    ),
    "draining": (
        "node_state",
        "slots_owned",
        "share_ratio",
        "mailboxes_lost_total",
        "connections_closed_total",
    ),
    "busy_link": ("link_busy", "link_queued_bytes", "receipts_total"),
    "pump": (
        "pump_ticks_total",
        "pump_busy_seconds_total",
        "pump_tick_seconds",
        "pump_events_total",
        "pump_messages_in_total",
        "pump_bytes_total",
        "loop_lag_seconds",
        "loop_lag_max_seconds",
    ),
    "redis": (
        "redis_connected",
        "redis_reconnects_total",
        "degraded",
        "lease_age_seconds",
        "lease_ttl_seconds",
        "room_subscriptions",
        "room_published_total",
        "room_gaps_total",
        "room_publish_queued_bytes",
        "client_errors_total",
    ),
    "rooms": (
        "rooms",
        "room_members",
        "room_subscriptions",
        "room_published_total",
        "room_copies_total",
        "room_dropped_total",
        "client_errors_total",
    ),
    "logs": ("log_lines_dropped_total", "build_info"),
}


def documented() -> set[str]:
    """The metrics of the page."""
    return set(re.findall(r"`((?:ring|process)_\w+)`", PAGE.read_text("utf-8")))


def user_of(node: Node, stem: str = "user", *, owner: str | None = None) -> str:
    """A user whom this node owns, or by its ring another."""
    users = (f"{stem} {number}" for number in count())
    return next(user for user in users if node.routing.owners[slot_of(user)] == (owner or node.name))


@asynccontextmanager
async def connected(node: Node, user: str, **options: Any) -> AsyncIterator[RawClient]:
    """A client of a node, during the block."""
    async with trio.open_nursery() as nursery:
        ours = RawClient([node.addresses["edge"]], user, **options)
        await nursery.start(ours.run)
        yield ours
        nursery.cancel_scope.cancel()


async def answered(*clients: RawClient) -> None:
    """Returns when all that these have sent has its receipt."""
    for ours in clients:
        await ours.watch.until(lambda ours=ours: not ours.unanswered)  # type: ignore[misc] # bound now


class TestPage:
    async def test_all_that_is_documented(self, redis_url: str) -> None:
        """A node shows every metric of the page, and no other; with help and the kind that is documented."""
        async with nodes(redis_url, "n1") as cluster:
            address = cluster["n1"].addresses["api"]
            async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
                page = (await http.get("/metrics")).text
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
        helps = dict(re.findall(r"^# HELP (\S+) (.+)$", page, re.MULTILINE))
        assert kinds.keys() == helps.keys() == documented()
        for metric in METRICS:
            assert (kinds[metric.name], helps[metric.name]) == (metric.kind, metric.help)

    async def test_openmetrics(self, redis_url: str) -> None:
        """To a scraper that asks for it, the same in OpenMetrics."""
        accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
        async with nodes(redis_url, "n1", "n2") as cluster:
            address = cluster["n1"].addresses["api"]
            async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
                response = await http.get("/metrics", headers=accept)
        assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        families = list(parser.text_string_to_metric_families(response.text))  # type: ignore[no-untyped-call] # theirs
        names = {family.name + "_total" * (family.type == "counter") for family in families}
        assert names == documented()
        labels = {name for family in families for sample in family.samples for name in sample.labels}
        assert labels == {"le", *(label for metric in METRICS for label in metric.labels)}

    def test_all_of_them_are_shown_to_move(self) -> None:
        """No metric is left out of the tests below."""
        shown = {f"ring_{name}" for names in MOVES.values() for name in names}
        assert shown == {metric.name for metric in METRICS}


async def test_connections(redis_url: str) -> None:
    """Connections that come, are refused and end, by the code of each."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1") as cluster, probing(cluster["n1"], *MOVES["connections"]) as probe:
            edge = cluster["n1"].addresses["edge"]
            idle = await Wire.to(edge)
            await probe.becomes("connections", 1)
            await probe.mark()
            idle.reset()
            await probe.becomes("connections", 0)

            await probe.mark()
            wire = await Wire.upgraded(edge, "/v1/connect?user=alice")
            await probe.becomes("pump_connections", 1)
            await probe.mark()
            wire.reset()
            await probe.becomes("pump_connections", 0)

            for code, frame in (
                ("1000", masked(CLOSE, close_payload(1000))),
                ("1003", masked(BINARY, b"{}")),
                ("other", masked(CLOSE, close_payload(3333))),
                ("1005", masked(CLOSE, b"")),
            ):
                await probe.mark()
                wire = await Wire.upgraded(edge, "/v1/connect?user=alice")
                await probe.grows("connections_opened_total", 1)
                await wire.send(frame)
                await probe.grows("connections_closed_total", 1, code=code)
            first = await Wire.upgraded(edge, "/v1/connect?user=alice&device=phone")
            second = await Wire.upgraded(edge, "/v1/connect?user=alice&device=phone")
            await probe.grows("connections_closed_total", 1, code="4009")
            await probe.mark()
            second.reset()
            await probe.grows("connections_closed_total", 1, code="1006")
            first.reset()

            await probe.mark()
            for sent in (request("/v1/connect"), request("/else"), b"\0\0\0\0"):
                await (wire := await Wire.to(edge)).send(sent)
                await wire.all()
            await (wire := await Wire.to(edge)).send(
                request("/v1/connect?user=a", "Origin: https://evil.example")
            )
            await wire.all()
            await (wire := await Wire.to(edge)).send(b"GET /" + b"x" * 20_000)
            await wire.all()
            await probe.grows("handshakes_refused_total", 3, code="bad_request")
            await probe.grows("handshakes_refused_total", 1, code="forbidden")
            await probe.grows("handshakes_refused_total", 1, code="too_large")

            wire = await Wire.upgraded(edge, "/v1/connect?user=alice")
            for text in (b"{", b'{"type":"explode","id":"1"}', b'{"type":"ack","seq":"yes"}'):
                await wire.text(text)
            await probe.grows("client_errors_total", 2, code="bad_request")
            await probe.grows("client_errors_total", 1, code="unknown_type")


async def test_sessions(redis_url: str) -> None:
    """Sessions on their owner and off it, their users, and the mailboxes here."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1", "n2") as cluster:
            n1 = cluster["n1"]
            ours, theirs = user_of(n1), user_of(cluster["n2"])
            async with probing(n1, *MOVES["sessions"]) as probe:
                async with (
                    connected(n1, ours, device="1"),
                    connected(n1, ours, device="2"),
                    connected(n1, theirs),
                ):
                    await probe.becomes("sessions", 2, owner="here")
                    await probe.becomes("sessions", 1, owner="elsewhere")
                    await probe.becomes("users", 2)
                    await probe.becomes("mailboxes", 1)
                    await probe.mark()
                await probe.becomes("sessions", 0, owner="here")
                await probe.becomes("sessions", 0, owner="elsewhere")
                await probe.becomes("users", 0)
                await probe.becomes("mailboxes", 0)


async def test_messages(redis_url: str) -> None:
    """Messages of either kind, to those who acknowledge by either way, who do not, and who are not there."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(
            redis_url, "n1", spill_after_s=1.0, message_bytes=1000, mailbox_messages=0
        ) as cluster:
            n1 = cluster["n1"]
            watch = Watch()
            async with (
                probing(n1, *MOVES["messages"]) as probe,
                connected(n1, "alice", watch=watch) as alice,
                connected(n1, "bob"),
                connected(n1, "carol", ack="auto"),
                connected(n1, "mute", ack_every_s=DEADLINE_S),
            ):
                for to in ("bob", "bob", "carol", "nobody"):
                    alice.send(to)
                alice.send("bob", pad="x" * 1500)
                await answered(alice)
                await probe.grows("messages_accepted_total", 4, kind="tracked")
                await probe.grows("receipts_total", 2, status="delivered", by="client", code="")
                await probe.grows("receipts_total", 1, status="delivered", by="pong", code="")
                await probe.grows("receipts_total", 1, status="failed", by="", code="offline")
                await probe.grows("receipts_total", 1, status="failed", by="", code="too_large")
                await probe.grows("messages_delivered_total", 3)

                await probe.mark()
                for to in ("bob", "nobody", "nobody"):
                    untracked = client.Send(to, Raw(b'{"n":0}'), receipt=False)
                    alice.write(TEXT, client.encode(untracked))
                await probe.grows("messages_accepted_total", 3, kind="untracked")
                await probe.grows("messages_dropped_total", 2)

                await probe.mark()
                alice.send("mute")
                await probe.becomes("messages_pending", 1)
                await probe.becomes("messages_unacknowledged", 1)
                await probe.mark()
                await probe.becomes("messages_pending", 0)
                await probe.becomes("messages_unacknowledged", 0)
                await probe.grows("receipts_total", 1, status="failed", by="", code="offline")


async def test_broken_link(redis_url: str) -> None:
    """What had no answer when a link broke goes again; what comes from a node that owns no longer is late."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1", "n2", spill_after_s=DEADLINE_S) as cluster:
            n1, n2 = cluster["n1"], cluster["n2"]
            mute = user_of(n2, "mute")
            async with (
                probing(n1, *MOVES["broken_link"]) as probe,
                connected(n1, "alice") as alice,
                connected(n2, mute, ack_every_s=DEADLINE_S) as recipient,
            ):
                alice.send(mute)
                await recipient.watch.until(lambda: bool(recipient.arrivals))
                await probe.shows("link_up", 1, peer="n2")
                carried = ("ring_link_bytes_total", frozenset({("peer", "n2"), ("direction", "out")}))
                before = (await probe.look())[carried]
                n1.mesh.links["n2"].drop("a test breaks it")
                await probe.grows("messages_resent_total", 1)
                await probe.shows("link_up", 1, peer="n2")
                assert (await probe.look())[carried] > before, "what the first link carried still counts"

                n2.mesh.links["n1"].send(peer.Deliver(1, 1, 1, b"{}", True))
                await probe.grows("late_deliveries_total", 1)


async def test_ring(redis_url: str) -> None:
    """A second node comes, shares the ring and talks; then it is gone."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1", ttl_s=1.0) as first, probing(first["n1"], *MOVES["ring"]) as probe:
            n1 = first["n1"]
            await probe.shows("slots_owned", 16384)
            await probe.shows("members", 1)
            async with nodes(redis_url, "n2", ttl_s=1.0) as second:
                await probe.becomes("members", 2)
                await probe.grows("changes_total", 1)
                await probe.grows("epoch")
                assert n1.view is not None
                shares = n1.view.shares()
                await probe.becomes("slots_owned", shares["n1"])
                await probe.becomes("share_ratio", shares["n1"] / 16384)
                await probe.becomes("peers", 1, state="up")
                await probe.becomes("link_up", 1, peer="n2")
                await probe.mark()
                async with connected(n1, "alice") as alice, connected(second["n2"], user_of(n1)) as bob:
                    for _ in range(10):
                        alice.send(bob.user)
                    await answered(alice)
                for direction in ("in", "out"):
                    for what in ("frames", "items", "bytes"):
                        await probe.grows(f"link_{what}_total", peer="n2", direction=direction)
                page = await probe.look()
                there = {
                    what: page[f"ring_link_{what}_total", frozenset({("peer", "n2"), ("direction", "out")})]
                    for what in ("frames", "items", "bytes")
                }
                assert there["frames"] <= there["items"] < there["bytes"]
                await probe.mark()
            await probe.becomes("peers", 0, state="up")
            await probe.becomes("slots_owned", 16384)
            await probe.becomes("members", 1)
            await probe.grows("suspicions_total", 1, outcome="evicted")
            gone = [key for key in await probe.look() if ("peer", "n2") in key[1]]
            assert gone == [], "a node that has left is no label any more"


async def test_draining(redis_url: str) -> None:
    """A node that drains says so, owns nothing, and counts what it could hand to nobody."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1", spill_after_s=DEADLINE_S, drain_timeout_s=5.0) as cluster:
            n1 = cluster["n1"]
            async with (
                probing(n1, *MOVES["draining"]) as probe,
                connected(n1, "mute", ack_every_s=DEADLINE_S),
                connected(n1, "alice") as alice,
            ):
                await probe.shows("node_state", 1, state="up")
                alice.send("mute")
                await until(lambda: "mute" in n1.mailboxes.boxes and bool(n1.mailboxes.boxes["mute"].letters))
                await n1.drain()
                await probe.becomes("node_state", 1, state="draining")
                await probe.becomes("node_state", 0, state="up")
                await probe.becomes("slots_owned", 0)
                await probe.becomes("share_ratio", 0)
                await probe.grows("mailboxes_lost_total", 1)
                await probe.grows("connections_closed_total", 2, code="1012")


async def test_busy_link(redis_url: str, tmp_path: Path) -> None:
    """A peer that stands still: what is for it waits, until no more is taken; then it goes on."""
    with trio.fail_after(DEADLINE_S):
        async with processes(redis_url, tmp_path, "--ttl-s", "60") as others:
            (n2,) = await others.start("n2")
            async with (
                nodes(redis_url, "n1", ttl_s=60.0) as cluster,  # which knows the other at once
                probing(n1 := cluster["n1"], *MOVES["busy_link"]) as probe,
                connected(n1, "alice") as alice,
            ):
                await n1.mesh.wait_linked(["n1", "n2"])
                theirs = user_of(n1, owner="n2")
                n2.freeze()
                try:
                    sends = 0
                    while not n1.routing.links["n2"].busy:
                        alice.send(theirs, pad="x" * 60_000)
                        sends += 1
                        await until(lambda sends=sends: n1.router.tracked >= sends)  # type: ignore[misc] # bound now
                    await probe.becomes("link_busy", 1, peer="n2")
                    await probe.exceeds("link_queued_bytes", 4 * 2**20, peer="n2")
                    alice.send(theirs)
                    await probe.grows("receipts_total", 1, status="failed", by="", code="busy")
                    await probe.mark()
                finally:
                    n2.thaw()
                await probe.becomes("link_busy", 0, peer="n2")
                await probe.becomes("link_queued_bytes", 0, peer="n2")


async def test_pump(redis_url: str) -> None:
    """Traffic moves the pump's counters; whatever holds up the whole node is seen as lag."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1") as cluster, probing(cluster["n1"], *MOVES["pump"]) as probe:
            edge = cluster["n1"].addresses["edge"]
            wire = await Wire.upgraded(edge, "/v1/connect?user=alice")
            await wire.message()
            await probe.mark()
            for number in range(5):
                await wire.text(b'{"type":"ping","id":"%d"}' % number)
                await wire.message()
            await probe.grows("pump_messages_in_total", 5)
            frame = 2 + len('{"type":"ping","id":"1"}')
            await probe.grows("pump_bytes_total", 5 * (frame + 4), direction="in")
            await probe.grows("pump_bytes_total", 5 * frame, direction="out")
            await probe.grows("pump_ticks_total")
            await probe.grows("pump_events_total")
            await probe.grows("pump_busy_seconds_total")
            await probe.grows("pump_tick_seconds_count")
            await probe.grows("pump_tick_seconds_sum")
            page = await probe.look()
            ticks = page["ring_pump_ticks_total", frozenset()]
            assert page["ring_pump_tick_seconds_count", frozenset()] == ticks

            await probe.mark()
            stall()
            await probe.grows("loop_lag_seconds")
            await probe.exceeds("loop_lag_max_seconds", 0.7)
            (shown,) = await counts(cluster["n1"])
            assert shown["lag_ms"] > 700
            assert set(shown) >= FIGURES


async def counts(node: Node) -> list[dict[str, Any]]:
    """What the node shows of itself in `GET /v1/nodes`."""
    async with httpx.AsyncClient(base_url=f"http://{node.addresses['api']}", trust_env=False) as http:
        members = (await http.get("/v1/nodes")).json()["nodes"]
    return [member["self"] for member in members if "self" in member]


def stall() -> None:
    """Keeps Trio's thread, so that nothing else of the node runs meanwhile."""
    time.sleep(1.0)


async def test_redis(redis_url: str, tmp_path: Path) -> None:
    """Redis stands still, is gone and comes back: what waits, what is refused, and what may be missing."""
    with trio.fail_after(DEADLINE_S):
        async with (
            Store(tmp_path, "test") as store,
            nodes(f"redis://{store.address}", "n1", ttl_s=1.0) as cluster,
        ):
            n1 = cluster["n1"]
            async with probing(n1, *MOVES["redis"]) as probe, trio.open_nursery() as nursery:
                await probe.shows("lease_ttl_seconds", 1.0)
                for use in ("commands", "mailboxes", "rooms"):
                    await probe.shows("redis_connected", 1, use=use)
                alice = RoomClient([n1.addresses["edge"]], "alice")
                await nursery.start(alice.run)
                assert await alice.join("lobby") == "ok"
                await probe.becomes("room_subscriptions", 1)

                await probe.mark()
                store.freeze()
                nursery.start_soon(alice.publish, "lobby", "words")
                await probe.exceeds("room_publish_queued_bytes", 0)
                await probe.mark()
                store.thaw()
                await probe.becomes("room_publish_queued_bytes", 0)
                await probe.grows("room_published_total", 1, outcome="ok")

                await probe.mark()
                await store.stop()
                for use in ("commands", "mailboxes", "rooms"):
                    await probe.becomes("redis_connected", 0, use=use)
                await probe.becomes("degraded", 1, what="redis")
                await probe.exceeds("lease_age_seconds", 1.0)
                await probe.becomes("degraded", 1, what="frozen")
                await probe.becomes("room_subscriptions", 0)
                assert await alice.publish("lobby", "words") == "rooms_unavailable"
                await probe.grows("room_published_total", 1, outcome="rooms_unavailable")
                await probe.grows("client_errors_total", 1, code="rooms_unavailable")

                await probe.mark()
                await store.start()
                for use in ("commands", "mailboxes", "rooms"):
                    await probe.becomes("redis_connected", 1, use=use)
                    await probe.grows("redis_reconnects_total", 1, use=use)
                await probe.becomes("degraded", 0, what="redis")
                await probe.becomes("degraded", 0, what="frozen")
                await probe.grows("room_gaps_total", 1)
                await alice.until_warned("lobby")
                nursery.cancel_scope.cancel()


async def test_rooms(redis_url: str, nursery: trio.Nursery) -> None:
    """Joining, publishing and leaving; what a slow member and a strange publisher cost."""
    limits: dict[str, Any] = {"output_bytes": 2**16, "room_policy": ("news=drop_oldest",)}
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1", **limits) as cluster:
            n1 = cluster["n1"]
            async with probing(n1, *MOVES["rooms"]) as probe, trio.open_nursery() as clients:
                edge, watch = n1.addresses["edge"], Watch()
                alice, bob = (RoomClient([edge], user, watch=watch) for user in ("alice", "bob"))
                for member in (alice, bob):
                    await clients.start(member.run)
                    assert await member.join("news") == "ok"
                await probe.becomes("rooms", 1)
                await probe.becomes("room_members", 2)
                await probe.becomes("room_subscriptions", 1)

                await probe.mark()
                assert await alice.publish("news", "one", echo=True) == "ok"
                assert await alice.publish("news", "two") == "ok"
                await watch.until(lambda: bob.words("news") == ["one", "two"])
                await probe.grows("room_published_total", 2, outcome="ok")
                await probe.grows("room_copies_total", 3)

                redis = Redis.from_url(redis_url, client_name="test")
                await clients.start(redis.run)
                await redis.publish(Keys("test").channel("news"), b"no broadcast")
                await probe.grows("room_dropped_total", 1, reason="undecodable")

                with deaf(edge, "/v1/connect?user=mallory") as sock:
                    sock.sendall(masked(TEXT, client.encode(client.Join("1", "news"))))
                    await probe.becomes("room_members", 3)
                    dropped = ("ring_room_dropped_total", frozenset({("reason", "slow_member")}))
                    while not (await probe.look())[dropped]:
                        for _ in range(100):
                            assert await alice.publish("news", "x" * 4000) == "ok"
                    await probe.grows("room_dropped_total", reason="slow_member")

                alice.write(TEXT, client.encode(client.Leave("asked nothing", "elsewhere")))
                await probe.grows("client_errors_total", 1, code="not_joined")
                await probe.mark()
                clients.cancel_scope.cancel()
            await settled(n1)


async def settled(node: Node) -> None:
    """Returns when nobody is in a room any more."""
    await until(lambda: not node.rooms.rooms)


def deaf(address: str, target: str) -> socket.socket:
    """A connection that takes in as little as it can."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(split_address(address))
    sock.sendall(request(target))
    return sock


class _Stuck:
    """A stream whose reader has stopped reading."""

    def __init__(self) -> None:
        self.reading = threading.Event()

    def write(self, _line: str) -> None:
        self.reading.wait()

    def flush(self) -> None:
        """Nothing waits here."""

    def isatty(self) -> bool:
        return False


async def test_logs(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that nobody reads are counted; and a node says which release it is."""
    monkeypatch.setattr(logs, "LINES", 3)
    stream = _Stuck()
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, "n1") as cluster, probing(cluster["n1"], *MOVES["logs"]) as probe:
            with logs.logging("info", "json", "n1", cast("TextIO", stream)):
                for _ in range(20):
                    structlog.get_logger().info("a line")
                await probe.grows("log_lines_dropped_total")
                stream.reading.set()
            page = await probe.look()
            (labels,) = [dict(key[1]) for key in page if key[0] == "ring_build_info"]
            assert (labels["version"], labels["cluster"], labels["node"]) == (__version__, "test", "n1")
            await probe.shows("build_info", 1, **labels)
