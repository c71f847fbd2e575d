"""A cluster whose Redis and whose networks fail on command: processes behind gates, under load.

Every node reaches Redis through a gate of its own, and is reached by its peers through another, so that each
can be cut off from the one, from the others, or from all. Clients and HTTP reach it always.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import trio

from ring.cluster.placement import place
from ring.cluster.view import Member
from ring.protocol.names import slot_of
from tests.integration.cluster import NodeProcess, processes
from tests.integration.gate import Gate
from tests.integration.load import LibraryClient, Load
from tests.integration.raw import RawClient, Sent
from tests.integration.room_client import RoomClient
from tests.integration.stoppable import CALM_S, Store, quiet_port

# This program is many clients at once: it may be slow to acknowledge, and to connect again.
PATIENCE = ("--spill-after-s", "5", "--linger-s", "5")
POLL_S = 0.05
ANSWER_S = 5.0  # the longest that anything over HTTP may take
SEND_TIMEOUT_S = 10.0  # the default
MARGIN_S = 5.0
WARM_UP = 200  # messages that are answered before the fault, and after it
LEAST_UNDER_WAY = 3

Record = Callable[[str, object], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says of itself and of the ring."""

    status: int  # of /readyz
    state: str
    degraded: list[str]
    epoch: int
    members: dict[str, str]  # name -> incarnation
    slots: dict[str, int]  # name -> how many it owns


@dataclass(eq=False)
class FaultyNode:
    """A node, and the gates to Redis and from its peers."""

    name: str
    process: NodeProcess
    redis: Gate
    peers: Gate
    http: httpx.AsyncClient
    incarnation: str = ""

    async def report(self) -> Report:
        """What it says now."""
        ready, nodes = await self.http.get("/readyz"), await self.http.get("/v1/nodes")
        entries = nodes.json()["nodes"]
        # A node that has been evicted is in its own list no more.
        mine: dict[str, Any] = next((entry["self"] for entry in entries if entry["name"] == self.name), {})
        body = ready.json()
        return Report(
            ready.status_code,
            body["state"],
            body.get("degraded", []),
            mine.get("epoch", 0),
            {entry["name"]: entry["incarnation"] for entry in entries},
            {entry["name"]: entry["slots"] for entry in entries},
        )

    def log(self) -> list[dict[str, Any]]:
        """What it has logged, parsed."""
        lines = self.process.log.read_text().splitlines()
        return [msgspec.json.decode(line) for line in lines]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of one kind."""
        return [line for line in self.log() if line["event"] == event]


@dataclass(eq=False)
class Site:
    """The cluster, its clients and the load between them."""

    directory: Path
    options: tuple[str, ...]
    store: Store
    stack: AsyncExitStack
    nursery: trio.Nursery
    load: Load
    nodes: dict[str, FaultyNode] = field(default_factory=dict)
    rooms: dict[str, RoomClient] = field(default_factory=dict)  # one on each node, by its name
    fault_at: float = 0.0
    under_way: list[Sent] = field(default_factory=list)

    # --- nodes

    async def start(self, name: str) -> FaultyNode:
        """Starts a node behind gates of its own."""
        peer = f"127.0.0.1:{quiet_port()}"
        redis, peers = Gate(self.store.address), Gate(peer, peers=True)
        for gate in (redis, peers):
            await self.nursery.start(gate.run)
        own = (*self.options, *PATIENCE, "--peer-advertise", peers.address)
        cluster = await self.stack.enter_async_context(
            processes(f"redis://{redis.address}/0", self.directory, *own)
        )
        process = await cluster.spawn(name, {"edge": "127.0.0.1:0", "peer": peer, "api": "127.0.0.1:0"})
        await process.wait_ready()
        http = httpx.AsyncClient(base_url=f"http://{process.ready['api']}", timeout=ANSWER_S)
        await self.stack.enter_async_context(http)
        node = FaultyNode(name, process, redis, peers, http)
        node.incarnation = (await node.report()).members[name]
        self.nodes[name] = node
        return node

    async def until(
        self,
        what: str,
        condition: Callable[[Report], bool],
        within_s: float,
        names: Iterable[str] | None = None,
        *,
        agreed: bool = False,
    ) -> float:
        """Returns once it holds on all of these nodes, or on all: after how many seconds.

        Args:
            what: names it, where it does not come about.
            condition: on a node's report.
            within_s: how long it may take.
            names: of the nodes.
            agreed: they have to be of one epoch, too.
        """
        began = trio.current_time()
        asked = list(self.nodes if names is None else names)
        reports: dict[str, Report] = {}
        with trio.move_on_after(within_s):
            while True:
                reports = await self._reports(asked)
                one = len({report.epoch for report in reports.values()}) == 1 or not agreed
                if one and all(map(condition, reports.values())):
                    return trio.current_time() - began
                await trio.sleep(POLL_S)  # HTTP tells a state, no event
        raise AssertionError(f"not {what} within {within_s:g} s: {reports}")

    async def stays(
        self, what: str, condition: Callable[[Report], bool], for_s: float, names: Iterable[str]
    ) -> None:
        """Returns after so many seconds, in all of which, and at their end, it held on all of these nodes."""
        asked = list(names)
        end = trio.current_time() + for_s
        while True:
            for name, report in (await self._reports(asked)).items():
                assert condition(report), f"{name} did not stay {what}: {report}"
            if trio.current_time() >= end:
                return
            await trio.sleep(POLL_S)  # HTTP tells a state, no event

    async def _reports(self, names: Iterable[str]) -> dict[str, Report]:
        """What these nodes say, all asked at once: on a busy machine one after the other takes a second."""
        reports: dict[str, Report] = {}

        async def ask(name: str) -> None:
            reports[name] = await self.nodes[name].report()

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask, name)
        return reports

    async def until_whole(self, within_s: float, names: Iterable[str] | None = None) -> float:
        """Returns once all of these are up, lack nothing, and agree on a ring of these and no others, in the
        life that they have had since the beginning: after how many seconds."""
        expected = {name: self.nodes[name].incarnation for name in (self.nodes if names is None else names)}

        def whole(report: Report) -> bool:
            alive = (report.status, report.state, report.degraded) == (200, "up", [])
            return alive and report.members == expected and all(report.slots.values())

        return await self.until(f"whole, {expected}", whole, within_s, expected, agreed=True)

    async def epoch(self) -> int:
        """The highest that a node routes by."""
        return max([(await node.report()).epoch for node in self.nodes.values()])

    def kill(self, name: str) -> None:
        """SIGKILL: its machine refuses whoever dials it from now on."""
        self.nodes[name].process.kill()
        self.nodes[name].peers.cut()

    def cut_off(self, name: str) -> None:
        """Pulls the cable of a node: it reaches neither Redis nor peers, and none of them reaches it."""
        node = self.nodes[name]
        node.redis.silence()
        node.peers.silence()
        for other in self.nodes.values():
            if other.name > name:  # of two nodes the lower name dials
                other.peers.silence(name)

    def restore(self) -> None:
        """All networks are whole again."""
        for node in self.nodes.values():
            node.redis.mend()
            node.peers.mend()

    # --- clients

    async def populate(self, raw: int, library: int, *, roaming: Sequence[str] = ()) -> None:
        """Connects so many clients to each node, and one more for rooms.

        Raw clients of `roaming` nodes go elsewhere when they are sent away; those of others are to stay.
        """
        edges = [node.process.edge for node in self.nodes.values()]
        for index, (name, node) in enumerate(self.nodes.items()):
            others = edges[index:] + edges[:index]
            for number in range(raw):
                user = f"raw {name} {number}"
                self.load.raw[user] = RawClient(
                    others,
                    user,
                    ack="auto" if number % 4 == 0 else "client",
                    ack_every_s=0.5 if number % 4 == 1 else 0.0,
                    roams=name in roaming,
                    watch=self.load.watch,
                )
                await self.nursery.start(self.load.raw[user].run)
            for number in range(library):
                user = f"library {name} {number}"
                self.load.library[user] = LibraryClient(others, user, self.load.watch)
                await self.nursery.start(self.load.library[user].run)
            room = RoomClient([node.process.edge], f"room {name}", watch=self.load.watch)
            self.rooms[name] = room
            await self.nursery.start(room.run)

    def of_node(self, name: str) -> list[str]:
        """The users who connected to this node first."""
        raw = [user for user, client in self.load.raw.items() if client.welcomes[0].node == name]
        return raw + [user for user, client in self.load.library.items() if client.first_node == name]

    async def newcomer(self, name: str, number: int) -> RawClient:
        """A new client, welcomed by this node, who talks with one that was there before."""
        user = f"new {name} {number}"
        client = RawClient([self.nodes[name].process.edge], user, watch=self.load.watch)
        with trio.fail_after(ANSWER_S):
            await self.nursery.start(client.run)
            room = self.rooms[name]
            there, back = client.send(room.user), room.send(user)
            await self.load.watch.until(lambda: bool(there.answers and back.answers))
        assert (there.status, back.status) == ("delivered", "delivered"), (there, back)
        return client

    def owned_by(self, owners: Iterable[str], users: Iterable[str]) -> list[str]:
        """Those of these users whom these nodes own while the ring is whole."""
        table = place([Member(name, "1", "", "", "", 1, "up", "1") for name in self.nodes])
        return [user for user in users if table[slot_of(user)] in owners]

    # --- faults

    async def until_under_way(self) -> None:
        """Returns at a moment when messages are under way; in the same breath the fault is to follow."""
        await self.load.watch.until(lambda: len(self.load.unanswered()) >= LEAST_UNDER_WAY)

    def fault(self) -> None:
        """Notes the time, and what is under way at it."""
        self.fault_at = trio.current_time()
        self.under_way = self.load.unanswered()

    async def settle(self) -> None:
        """The load goes on behind the fault for a while and ends; all is answered and has arrived."""
        await self.load.until_answered(WARM_UP)
        with trio.move_on_after(SEND_TIMEOUT_S + MARGIN_S):
            await self.load.stop()
            await self.load.until_arrived()

    # --- what holds, whatever happened

    def assert_nobody_was_cut(self, names: Iterable[str] | None = None) -> None:
        """Clients of these nodes, or of all, have the session that they began with."""
        for name in self.nodes if names is None else names:
            for user in self.of_node(name):
                client = self.load.users[user]
                if isinstance(client, RawClient):
                    assert (len(client.welcomes), client.closes, client.errors) == (1, [], []), user
                else:
                    assert (client.client.reconnects, client.client.session) == (0, client.first_session), (
                        user
                    )

    def assert_all_was_delivered(self, users: Iterable[str] | None = None) -> None:
        """What these, or all, sent each other was delivered, and answered once."""
        these = set(self.load.users if users is None else users)
        sent = [sent for sent in self.load.sent() if sent.sender in these and sent.to in these]
        assert [one for one in sent if one.status != "delivered" or len(one.answers) != 1] == []
        assert self.load.missing() == []

    def assert_one_answer_in_time(self, users: Iterable[str]) -> None:
        """Every message of these was answered once, within `send_timeout`."""
        for user in users:
            for sent in self.load.users[user].sent:
                assert len(sent.answers) == 1, sent
                assert sent.answers[0][0] - sent.at < SEND_TIMEOUT_S + MARGIN_S, sent

    def assert_once_and_in_order(self) -> None:
        """Nothing came twice, or before what was sent earlier."""
        assert self.load.doubled() == []
        assert self.load.disordered() == []

    def assert_doubles_are_marked(self) -> None:
        """What came twice said so; applications that use the library saw none of it."""
        assert [double for double in self.load.doubled() if double.to in self.load.library] == []
        assert [double for double in self.load.doubled() if not double.arrival.redelivered] == []

    def assert_in_order_but_for_repeats(self) -> None:
        """What came for the first time was not before what its sender had sent earlier."""
        repeats = {
            arrival for user in self.load.users.values() for arrival in user.arrivals if arrival.redelivered
        }
        assert [wrong for wrong in self.load.disordered() if not repeats.intersection(wrong[1:])] == []

    def assert_ring_stood_still(self) -> None:
        """No node has entered a ring in which another was missing since all were there."""
        for node in self.nodes.values():
            sizes = [line["members"] for line in node.logged("epoch entered")]
            whole = sizes[sizes.index(max(sizes)) :]
            assert whole == [max(sizes)] * len(whole), (node.name, sizes)

    def record(self, record: Record) -> None:
        """Figures for the report of the tests."""
        record("longest that a message took", f"{self.longest_s():.3f} s")
        record("messages", sum(1 for _ in self.load.sent()))
        record("under way at the fault", len(self.under_way))
        record("not delivered", sum(sent.status != "delivered" for sent in self.load.sent()))
        record("doubled to raw clients", len(self.load.doubled()))
        record("the test itself stood still", f"{self.load.stalled_s:.3f} s")

    def longest_s(self, users: Iterable[str] | None = None) -> float:
        """The longest that a message to these, or to anybody, was under way."""
        return max(self.load.waits(list(self.load.users if users is None else users)))


@asynccontextmanager
async def site(
    directory: Path,
    names: Sequence[str],
    *options: str,
    deadline_s: float = 120.0,
    pace: float = 1.0,
    raw: int = 5,
    library: int = 2,
    roaming: Sequence[str] = (),
) -> AsyncIterator[Site]:
    """These nodes with their clients, in the middle of a load; all of it ends with the block.

    Args:
        directory: for the files of Redis and the nodes' logs.
        names: of the nodes.
        options: of every node.
        deadline_s: for the block.
        pace: how much the load's clients rest, against the usual.
        raw, library: clients of each node.
        roaming: nodes whose clients go elsewhere when they are cut.
    """
    with trio.fail_after(deadline_s):
        async with Store(directory) as store, trio.open_nursery() as nursery:
            async with AsyncExitStack() as stack:
                here = Site(directory, options, store, stack, nursery, Load(seed=1, pace=pace))
                async with trio.open_nursery() as starting:
                    for name in names:
                        starting.start_soon(here.start, name)
                here.nodes = {name: here.nodes[name] for name in names}
                await here.until_whole(CALM_S)
                await here.populate(raw, library, roaming=roaming)
                nursery.start_soon(here.load.run)
                await here.load.until_answered(WARM_UP)
                yield here
                for node in here.nodes.values():  # at once: none is to complain of the others' end
                    if node.process.process.returncode is None:
                        node.process.kill()
            nursery.cancel_scope.cancel()
