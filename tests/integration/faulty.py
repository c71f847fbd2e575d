"""A site as that of `ring verify`, with clients in the middle of a load, and what must hold of them."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from ring.cluster.placement import place
from ring.cluster.view import Member
from ring.protocol.names import slot_of
from ring.verify import site as verify
from ring.verify.node import ANSWER_S, Report, SiteNode
from tests.integration.cluster import by_name
from tests.integration.load import LibraryClient, Load
from tests.integration.raw import RawClient, Sent
from tests.integration.room_client import RoomClient

# This program is many clients at once: it may be slow to acknowledge, and to connect again.
PATIENCE = ("--spill-after-s", "5", "--linger-s", "5")
SEND_TIMEOUT_S = 10.0  # the default
MARGIN_S = 5.0
WARM_UP = 200  # messages that are answered before the fault, and after it
LEAST_UNDER_WAY = 3

Record = Callable[[str, object], None]


class Site(verify.Site):
    """The cluster, its clients and the load between them."""

    def __init__(self, directory: Path, nodes: int, options: Sequence[str], pace: float) -> None:
        super().__init__(
            nodes=nodes, options=by_name((*PATIENCE, *options)), directory=directory, cluster="test"
        )
        self.load = Load(seed=1, pace=pace)
        self.rooms: dict[str, RoomClient] = {}  # one on each node, by its name
        self.fault_at = 0.0
        self.under_way: list[Sent] = []
        self.clients: trio.Nursery
        self._incarnations: dict[str, str] = {}

    # --- nodes

    async def start(self, name: str, command: Sequence[str] | None = None) -> SiteNode:
        """Starts a node, and remembers which life of it that is."""
        node = await super().start(name, command)
        self._incarnations[name] = (await node.report()).members[name]
        return node

    async def until_whole(self, within_s: float, names: Iterable[str] | None = None) -> float:
        """Returns once all of these are up, lack nothing, and agree on a ring of these and no others, in the
        life that they have had since the beginning: after how many seconds."""
        expected = {name: self._incarnations[name] for name in (self.nodes if names is None else names)}

        def whole(report: Report) -> bool:
            alive = (report.status, report.state, report.degraded) == (200, "up", [])
            return alive and report.members == expected and all(report.slots.values())

        return await self.until(f"whole, {expected}", whole, within_s, expected, agreed=True)

    async def epoch(self) -> int:
        """The highest that a node routes by."""
        reports = (await self.reports()).values()
        return max(report.epoch for report in reports if report is not None)

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
                await self.clients.start(self.load.raw[user].run)
            for number in range(library):
                user = f"library {name} {number}"
                self.load.library[user] = LibraryClient(others, user, self.load.watch)
                await self.clients.start(self.load.library[user].run)
            room = RoomClient([node.process.edge], f"room {name}", watch=self.load.watch)
            self.rooms[name] = room
            await self.clients.start(room.run)

    def of_node(self, name: str) -> list[str]:
        """The users who connected to this node first."""
        raw = [user for user, client in self.load.raw.items() if client.welcomes[0].node == name]
        return raw + [user for user, client in self.load.library.items() if client.first_node == name]

    async def newcomer(self, name: str, number: int) -> RawClient:
        """A new client, welcomed by this node, who talks with one that was there before."""
        user = f"new {name} {number}"
        client = RawClient([self.nodes[name].process.edge], user, watch=self.load.watch)
        with trio.fail_after(ANSWER_S):
            await self.clients.start(client.run)
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
        names: of the nodes: "n1", "n2" and so on.
        options: of every node.
        deadline_s: for the block.
        pace: how much the load's clients rest, against the usual.
        raw, library: clients of each node.
        roaming: nodes whose clients go elsewhere when they are cut.
    """
    with trio.fail_after(deadline_s):
        here = Site(directory, len(names), options, pace)
        async with here, trio.open_nursery() as here.clients:
            assert here.names == tuple(names)
            await here.populate(raw, library, roaming=roaming)
            here.clients.start_soon(here.load.run)
            await here.load.until_answered(WARM_UP)
            yield here
            here.clients.cancel_scope.cancel()
        assert here.complaints() == []
