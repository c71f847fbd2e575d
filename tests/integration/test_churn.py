"""Nodes come, leave, die and come back while everybody talks. Real processes, real signals, a real store."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
import trio

from ring.cluster.placement import place
from ring.cluster.view import Member
from ring.protocol.names import slot_of
from ring.store.embedded import EmbeddedServer
from ring.verify.node import NodeProcess
from tests.integration.cluster import Processes, processes
from tests.integration.faulty import site
from tests.integration.load import LibraryClient, Load
from tests.integration.raw import RawClient, Sent
from tests.polling import until

pytestmark = pytest.mark.alone  # it holds times to bounds

DEADLINE_S = 150
SEND_TIMEOUT_S = 10.0  # the default
MARGIN_S = 5.0  # for a machine that is busy with other things
TTL_S = 1.5
DEFAULT_TTL_S = 3.0
SUCCEEDED_S = 1.0  # whom a dead node owned, by others: long before its lease would have lapsed
# This program is many clients at once: it may be slow to acknowledge, and to connect again.
OPTIONS = ("--spill-after-s", "5", "--linger-s", "5")
NAMES = ("n1", "n2", "n3")
WARM_UP = 300  # messages that are answered before the fault, and after it
LEAST_UNDER_WAY = 3

Record = Callable[[str, object], None]


@cache
def table(*names: str) -> list[str]:
    """The owner of each slot in a ring of these nodes."""
    return place([Member(name, "1", "", "", "", 1, "up", "1") for name in names])


def owned_by(name: str, users: Iterable[str], *ring: str) -> list[str]:
    """Those of these users whom this node owns in a ring of these nodes."""
    return [user for user in users if table(*ring)[slot_of(user)] == name]


class Stage:
    """Three nodes, their clients, and the load between them."""

    def __init__(self, cluster: Processes, nodes: list[NodeProcess], load: Load) -> None:
        self.cluster = cluster
        self.nodes = {node.name: node for node in nodes}
        self.load = load
        self.fault_at = 0.0
        self.under_way: list[Sent] = []

    def of_node(self, name: str) -> list[RawClient | LibraryClient]:
        """The clients that connected to this node first."""
        raw = [client for client in self.load.raw.values() if client.welcomes[0].node == name]
        return raw + [client for client in self.load.library.values() if client.first_node == name]

    def staying(self, gone: str | None) -> list[str]:
        """The users whose node stays."""
        return [user for name in self.nodes if name != gone for user in (c.user for c in self.of_node(name))]

    def fault(self) -> None:
        """Notes the time, and what is under way at it."""
        self.fault_at = trio.current_time()
        self.under_way = self.load.unanswered()

    async def until_under_way(self, name: str, owned: list[str]) -> None:
        """Returns at a moment when messages lie with this node: as their recipient's owner, and on their way
        from a client of the library."""
        staying = set(self.staying(name))
        library = [client.user for client in self.of_node(name) if isinstance(client, LibraryClient)]
        await self.load.watch.until(
            lambda: (
                len(self.load.under_way(staying, owned)) >= LEAST_UNDER_WAY
                and len(self.load.under_way(library, self.load.users)) > 0
            )
        )

    async def settle(self) -> None:
        """The load goes on behind the fault for a while and ends; all is answered and has arrived.

        What has not in the time for it, the assertions will find.
        """
        await self.load.until_answered(WARM_UP)
        with trio.move_on_after(SEND_TIMEOUT_S + MARGIN_S):
            await self.load.stop()
            await self.load.until_arrived()

    # --- what holds, whatever happened

    def assert_nobody_else_was_cut(self, gone: str | None = None) -> None:
        """Clients of other nodes have the session that they began with."""
        for user in self.staying(gone):
            client = self.load.users[user]
            if isinstance(client, RawClient):
                assert (len(client.welcomes), client.closes) == (1, []), user
            else:
                assert (client.client.reconnects, client.client.session) == (0, client.first_session), user

    def assert_one_answer_in_time(self, gone: str | None = None) -> None:
        """Every message was answered once; within `send_timeout` if its sender's node stayed."""
        assert [sent for sent in self.load.sent() if len(sent.answers) != 1] == []
        for user in self.staying(gone):
            for sent in self.load.users[user].sent:
                assert sent.answers[0][0] - sent.at < SEND_TIMEOUT_S + MARGIN_S, sent

    def assert_nothing_lost(self) -> None:
        """What was receipted `delivered` is there; applications that use the library saw no double."""
        assert self.load.missing() == []
        assert [double for double in self.load.doubled() if double.to in self.load.library] == []

    def failed(self, recipients: list[str]) -> list[Sent]:
        """Messages to these that were not delivered."""
        return [sent for sent in self.load.sent() if sent.to in recipients and sent.status != "delivered"]

    def record(self, record: Record, affected: list[str]) -> None:
        """Figures for the report of the tests; `affected` are the users whose owner changed."""
        record("longest silence", f"{max(self.load.waits(affected)):.3f} s")
        record("messages", sum(1 for _ in self.load.sent()))
        record("under way at the fault", len(self.under_way))
        record("failed", sum(sent.status == "failed" for sent in self.load.sent()))
        record("doubled to raw clients", len(self.load.doubled()))
        record("the test itself stood still", f"{self.load.stalled_s:.3f} s")


@asynccontextmanager
async def stage(
    directory: Path,
    ttl_s: float = TTL_S,
    *,
    server: EmbeddedServer | None = None,
    start: Callable[[Processes, str], Awaitable[object]] = Processes.start,
) -> AsyncIterator[Stage]:
    """Three nodes, of which each has 7 raw clients (of three kinds) and 3 of the library.

    Args:
        directory: for the nodes' logs.
        ttl_s: of their leases.
        server: the Redis, if not any.
        start: starts a node.
    """
    with trio.fail_after(DEADLINE_S):
        async with (
            server or EmbeddedServer() as store,
            processes(store.url, directory, "--ttl-s", f"{ttl_s}", *OPTIONS) as cluster,
            trio.open_nursery() as nursery,
        ):
            async with trio.open_nursery() as starting:
                for name in NAMES:
                    starting.start_soon(start, cluster, name)
                for ring in (NAMES, (*NAMES, "n4")):
                    table(*ring)  # now, while nobody waits for this program
            nodes = sorted(cluster.started, key=lambda node: node.name)
            edges = [node.edge for node in nodes]
            load = Load(seed=1)
            for index, node in enumerate(nodes):
                others = edges[index:] + edges[:index]
                for number in range(7):
                    user = f"raw {node.name} {number}"
                    load.raw[user] = RawClient(
                        others,
                        user,
                        ack="auto" if number < 2 else "client",
                        ack_every_s=0.5 if number >= 3 else 0.0,
                        roams=True,
                        watch=load.watch,
                    )
                    await nursery.start(load.raw[user].run)
                for number in range(3):
                    user = f"library {node.name} {number}"
                    load.library[user] = LibraryClient(others, user, load.watch)
                    await nursery.start(load.library[user].run)
            nursery.start_soon(load.run)
            await load.until_answered(WARM_UP)
            yield Stage(cluster, nodes, load)
            nursery.cancel_scope.cancel()


async def test_a_node_joins(tmp_path: Path, record: Record) -> None:
    """Users move to it in the middle of what they say: nothing is lost, doubled, out of order or refused."""
    async with stage(tmp_path) as on:
        load = on.load
        moved = owned_by("n4", load.users, *NAMES, "n4")
        assert moved
        on.fault()
        await on.cluster.start("n4")
        await on.settle()

        on.under_way = load.crossed(moved)
        assert on.under_way
        on.record(record, moved)
        on.assert_nobody_else_was_cut()
        on.assert_one_answer_in_time()
        on.assert_nothing_lost()
        assert on.failed(list(load.users)) == []
        assert load.doubled() == []
        assert load.disordered() == []


async def test_a_node_leaves(tmp_path: Path, record: Record) -> None:
    """SIGTERM: its users and its clients go over to the others; nothing is lost, doubled or out of order."""
    async with stage(tmp_path) as on:
        load = on.load
        moved = owned_by("n2", load.users, *NAMES)
        await on.until_under_way("n2", moved)
        on.fault()
        await on.nodes["n2"].stop()
        await on.settle()

        on.under_way = load.crossed(moved)
        assert on.under_way
        on.record(record, moved)
        on.assert_nobody_else_was_cut("n2")
        on.assert_one_answer_in_time("n2")
        on.assert_nothing_lost()
        assert on.failed(on.staying("n2")) == []
        for client in on.of_node("n2"):
            if isinstance(client, RawClient):
                assert client.closes == [(1012, "the node drains")]
                assert client.welcome.node != "n2"
            else:
                assert client.client.reconnects == 1
                assert client.client.node != "n2"
        assert load.doubled() == []
        assert load.disordered() == []


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_node_is_killed(tmp_path: Path, record: Record, restarted: bool) -> None:
    """SIGKILL, and perhaps started again at once under its name and at its places.

    Others are sure of it, and serve what it owned, within a second, its next life once it is there; what was
    under way through it is sent again.
    """
    async with stage(tmp_path, DEFAULT_TTL_S) as on:
        load = on.load
        owned = owned_by("n2", load.users, *NAMES)
        await on.until_under_way("n2", owned)
        on.fault()  # in the same breath
        lost = on.nodes["n2"]
        lost.kill()
        if restarted:
            await lost.process.wait()
            again = await on.cluster.spawn("n2", lost.ready)
            await again.wait_ready()
        await on.settle()

        of_others = [user for user in owned if user in on.staying("n2")]
        on.record(record, of_others)
        served_s = load.served_again(of_others, on.fault_at)
        record("first served again", f"{served_s:.3f} s after")
        assert served_s < SUCCEEDED_S + load.stalled_s
        on.assert_nobody_else_was_cut("n2")
        on.assert_one_answer_in_time("n2")
        on.assert_nothing_lost()
        assert on.failed(on.staying("n2")) == []
        assert [double for double in load.doubled() if not double.arrival.redelivered] == []
        for client in on.of_node("n2"):
            if isinstance(client, LibraryClient):
                assert client.client.reconnects > 0


async def test_a_node_stands_still(tmp_path: Path, record: Record) -> None:
    """SIGSTOP for so long that others serve its users; then it goes on, and does not know that at first.

    Nobody is cut, its own clients least of all. What it took when it went on is delivered like the rest.
    """
    async with stage(tmp_path) as on:
        load = on.load
        owned = owned_by("n2", load.users, *NAMES)
        of_others = [user for user in owned if user in on.staying("n2")]
        await on.until_under_way("n2", owned)
        on.fault()
        on.nodes["n2"].freeze()
        await load.watch.until(lambda: load.changed_at(of_others) is not None)
        await load.until_answered(WARM_UP // 3)
        on.nodes["n2"].thaw()
        await on.settle()

        on.record(record, of_others)
        record("first served again", f"{load.served_again(of_others, on.fault_at):.3f} s after")
        on.assert_nobody_else_was_cut()
        on.assert_one_answer_in_time()
        on.assert_nothing_lost()
        staying = set(on.staying("n2"))
        assert [sent for sent in on.failed(list(staying)) if sent.sender in staying] == []
        assert [double for double in load.doubled() if not double.arrival.redelivered] == []


async def test_a_node_is_killed_whose_address_goes_on_answering(tmp_path: Path, record: Record) -> None:
    """SIGKILL, behind what takes connections for it: nobody is refused, until its next life says its name.

    That it is another shows that the first is dead, whose lease would last for much longer.
    """
    ttl_s = 4 * DEFAULT_TTL_S
    async with site(tmp_path, NAMES, "--ttl-s", f"{ttl_s}", roaming=["n2"]) as on:
        owned = on.owned_by(["n2"], [user for name in ("n1", "n3") for user in on.of_node(name)])
        assert owned
        await on.until_under_way()
        on.fault()
        node = on.nodes["n2"]
        node.lives += 1  # the site takes that for an end that it knows of, and leaves the gate open
        node.process.kill()
        await on.start("n2")
        back_s = trio.current_time() - on.fault_at
        healed_s = await on.until_whole(DEADLINE_S)
        await on.settle()

        on.record(record)
        record("back", f"{back_s:.3f} s after")
        record("whole", f"{healed_s:.3f} s later")
        assert on.under_way
        assert back_s < ttl_s * 2 / 3  # so long its lease had to last at least when it was killed
        for name in ("n1", "n3"):
            lost = [line["why"] for line in on.nodes[name].logged("no peer link")]
            assert [why for why in lost if "nobody listens" in why] == []
            assert on.nodes[name].logged("peer seems dead: suspecting it")
        on.assert_nobody_was_cut(["n1", "n3"])
        on.assert_one_answer_in_time(on.load.users)
        assert on.load.missing() == []
        on.assert_doubles_are_marked()


async def test_a_link_between_two_that_is_refused_is_no_death(tmp_path: Path, record: Record) -> None:
    """Each finds nobody at the other's address, and says so; each renews, and so nobody is removed."""
    async with site(tmp_path, NAMES[:2], "--ttl-s", f"{DEFAULT_TTL_S}") as on:
        await on.until_under_way()
        on.fault()
        on.cut_link("n1", "n2")
        refuted = "peer renews, though nobody listens at its address"
        with trio.fail_after(DEADLINE_S):
            await until(lambda: all(node.logged(refuted) for node in on.nodes.values()))
        refuted_s = trio.current_time() - on.fault_at
        on.restore()
        await on.until_whole(DEADLINE_S)
        await on.settle()

        on.record(record)
        record("refuted", f"{refuted_s:.3f} s after")
        assert on.under_way
        for node in on.nodes.values():
            assert node.logged("peer seems dead: suspecting it")
        on.assert_ring_stood_still()
        on.assert_nobody_was_cut()
        on.assert_all_was_delivered()
        on.assert_doubles_are_marked()
