"""A client comes back and says where it was: it gets exactly what it missed, or is told of a gap.

Real processes, real signals, a real Redis, in the middle of a load. Everybody who comes back has a second
device that stays (so what it misses is `delivered` to that), or is alone (so it is `queued`).
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest
import trio

import ring
from ring.cluster.placement import place
from ring.cluster.view import Member
from ring.mailbox import mailbox, owner
from ring.protocol.client import parse_seq
from ring.protocol.names import slot_of
from ring.verify.site import Site
from tests.integration.load import LibraryClient
from tests.integration.raw import Arrival, RawClient, Sent, Watch
from tests.integration.test_stored import Town, town
from tests.polling import until

DEADLINE_S = 120.0
PAUSE_S = 0.02
BURST = 10  # messages to each user
ENOUGH = 3  # messages that each user gets before he goes, while he is away, and after the fault
HEAL_S = 20.0
SETTLE_S = 20.0
OPTIONS = {"linger_s": "1", "spill_after_s": "2"}
USERS = 12
RELIED = ("delivered", "queued")

Record = Callable[[str, object], None]
Key = tuple[str, int]


class Returning(RawClient):
    """A client with the cursor of an earlier life."""

    def __init__(
        self, edges: list[str], user: str, cursor: str, watch: Watch, *, device: str = "phone"
    ) -> None:
        super().__init__(edges, user, device=device, roams=True, watch=watch)
        self._last_seq = cursor

    @property
    def resumed(self) -> object:
        """What its first welcome said."""
        return self.welcomes[0].resumed


class Guest:
    """A user whose phone goes and comes back. Unless he is alone, a desk stays: a raw client or an
    application."""

    def __init__(self, user: str, edges: list[str], watch: Watch, kind: str) -> None:
        self.user = user
        self.watch = watch
        self.edges = edges
        self.phone = RawClient(edges[:1], user, device="phone", watch=watch)
        self.desk: RawClient | LibraryClient | None = None
        if kind == "raw":
            self.desk = RawClient(edges[1:] + edges[:1], user, device="desk", roams=True, watch=watch)
        elif kind == "library":
            self.desk = LibraryClient(edges[1:] + edges[:1], user, watch)
        self.back: Returning
        self.scope = trio.CancelScope()

    async def live(self, *, task_status: trio.TaskStatus[None]) -> None:
        """The phone's first life."""
        with self.scope:
            await self.phone.run(task_status=task_status)

    @property
    def cursor(self) -> str:
        """Of the phone: the last that came."""
        return self.phone.arrivals[-1].seq

    @property
    def arrivals(self) -> list[Arrival]:
        """What has come to any of the devices."""
        desk = [] if self.desk is None else self.desk.arrivals
        return self.phone.arrivals + desk + self.back.arrivals


def keys(arrivals: list[Arrival]) -> set[Key]:
    """Which messages these are."""
    return {(arrival.sender, arrival.n) for arrival in arrivals}


class Party:
    """Three nodes, guests, and two who write to all of them: a raw client and an application."""

    def __init__(self, site: Site, nursery: trio.Nursery) -> None:
        self.site = site
        self.watch = Watch()
        edges = [site.edge(name) for name in site.names]
        kinds = ["alone", "raw", "library"]
        self.guests = [
            Guest(f"guest {n}", edges[n % 3 :] + edges[: n % 3], self.watch, kinds[n % 2 + (n % 4 == 3)])
            for n in range(USERS)
        ]
        self.raw = RawClient(edges, "carol", roams=True, watch=self.watch)
        self.library = LibraryClient(edges, "dave", self.watch)
        self.under_way: list[Sent] = []
        self._nursery = nursery
        self._stopped = False

    # --- what happens

    async def begin(self) -> None:
        """Everybody comes; the load begins."""
        for guest in self.guests:
            await self._nursery.start(guest.live)
            if guest.desk is not None:
                await self._nursery.start(guest.desk.run)
        for sender in (self.raw, self.library):
            await self._nursery.start(sender.run)
            self._nursery.start_soon(self._write_steadily, sender)
        await self.watch.until(lambda: all(len(guest.phone.arrivals) >= ENOUGH for guest in self.guests))

    async def _write_steadily(self, sender: RawClient | LibraryClient) -> None:
        while True:
            for guest in self.guests:
                if self._stopped:  # or what is sent after all was answered counts as unanswered
                    return
                sender.send(guest.user)
                await trio.sleep(PAUSE_S)  # the pace of the load

    async def go(self) -> None:
        """All phones lose their connections, and miss something."""
        for guest in self.guests:
            guest.scope.cancel()
        await self.more_is_answered()

    async def more_is_answered(self) -> None:
        """Returns when each guest was sent some more, with receipts that can be relied on."""
        since = trio.current_time()
        await self.watch.until(
            lambda: all(
                sum(sent.at > since for sent in self.relied_on(guest)) >= ENOUGH for guest in self.guests
            )
        )

    async def until_under_way(self) -> None:
        """Returns in the middle of a burst: in the same breath the fault is to follow."""
        while len(self.unanswered()) < ENOUGH:
            burst = [self.raw.send(guest.user) for _ in range(BURST) for guest in self.guests]
            await self.watch.until(partial(self._in_the_middle_of, burst))
        self.under_way = self.unanswered()

    def _in_the_middle_of(self, burst: list[Sent]) -> bool:
        return any(sent.answers for sent in burst)

    async def come_back(self) -> None:
        """All phones, each by another node than before."""
        for guest in self.guests:
            edges = guest.edges[1:] + guest.edges[:1]
            guest.back = Returning(edges, guest.user, guest.cursor, self.watch)
            await self._nursery.start(guest.back.run)

    async def settle(self, *, but: Collection[str] = ()) -> None:
        """The load goes on for a while and ends; what has not come by then, the assertions will find. Of some
        users, whose messages may be lost, only what they miss is waited for."""
        await self.more_is_answered()
        self._stopped = True
        with trio.move_on_after(SETTLE_S):
            await self.watch.until(lambda: not self.unanswered())
            held = [guest for guest in self.guests if guest.user not in but]
            await self.watch.until(
                lambda: not any(map(self.missed, self.guests)) and not any(map(self.lost, held))
            )

    @property
    def alone(self) -> set[str]:
        """The guests who have no second device."""
        return {guest.user for guest in self.guests if guest.desk is None}

    # --- the books

    def unanswered(self) -> list[Sent]:
        """What is under way."""
        return [*self.raw.unanswered.values(), *self.library.unanswered.values()]

    def relied_on(self, guest: Guest) -> list[Sent]:
        """Messages to a guest whose receipts say `delivered` or `queued`."""
        return [
            sent
            for sender in (self.raw, self.library)
            for sent in sender.sent
            if sent.to == guest.user and sent.status in RELIED
        ]

    def lost(self, guest: Guest) -> list[Key]:
        """What a receipt promised, and no device has."""
        had = keys(guest.arrivals)
        return [(sent.sender, sent.n) for sent in self.relied_on(guest) if (sent.sender, sent.n) not in had]

    def missed(self, guest: Guest) -> list[Key]:
        """What the phone has not got, though it was told that it gets all."""
        if guest.back.resumed is not True:
            return []
        had = keys(guest.phone.arrivals + guest.back.arrivals)
        return [(sent.sender, sent.n) for sent in self.relied_on(guest) if (sent.sender, sent.n) not in had]

    # --- what holds, whatever happened

    def assert_never_silently_less(self) -> None:
        """Messages were under way; whoever was not told of a gap has everything; nothing comes before what
        was sent earlier, unless it says that it is a repeat."""
        assert len(self.under_way) >= ENOUGH
        assert self.unanswered() == []
        assert {guest.back.resumed for guest in self.guests} <= {True, "gap"}
        assert {guest.user: self.missed(guest) for guest in self.guests if self.missed(guest)} == {}
        for guest in self.guests:
            seen = keys(guest.phone.arrivals)
            again = [arrival for arrival in guest.back.arrivals if (arrival.sender, arrival.n) in seen]
            assert [arrival for arrival in again if not arrival.redelivered] == []
            if isinstance(guest.desk, LibraryClient):
                assert len(keys(guest.desk.arrivals)) == len(guest.desk.arrivals), (
                    "an application sees no double"
                )

    def assert_nothing_lost(self) -> None:
        """What has a receipt, a device has."""
        assert {guest.user: self.lost(guest) for guest in self.guests if self.lost(guest)} == {}

    def resumed(self) -> dict[str, object]:
        """What each was told."""
        return {guest.user: guest.back.resumed for guest in self.guests}

    def owned_by(self, name: str) -> set[str]:
        """The guests whom this node owned before the fault."""
        table = place([Member(each, "1", "", "", "", 1, "up", "1") for each in self.site.names])
        return {guest.user for guest in self.guests if table[slot_of(guest.user)] == name}

    def record(self, record: Record) -> None:
        """Figures for the report of the tests."""
        record("messages", len(self.raw.sent) + len(self.library.sent))
        record("under way at the fault", len(self.under_way))
        record("resumed without a gap", sum(told is True for told in self.resumed().values()))
        record("gaps", sum(told == "gap" for told in self.resumed().values()))
        record("lost", sum(len(self.lost(guest)) for guest in self.guests))


@asynccontextmanager
async def party(directory: Path) -> AsyncIterator[Party]:
    """All phones are away, and have missed something."""
    with trio.fail_after(DEADLINE_S):
        async with (
            Site(nodes=3, options=OPTIONS, directory=directory) as site,
            trio.open_nursery() as nursery,
        ):
            here = Party(site, nursery)
            await here.begin()
            await here.go()
            yield here
            nursery.cancel_scope.cancel()


async def test_nothing_happened(tmp_path: Path, record: Record) -> None:
    """Through another gateway: everybody gets exactly what he missed, in order."""
    async with party(tmp_path) as on:
        await on.until_under_way()
        await on.come_back()
        await on.settle()
        on.record(record)
        on.assert_never_silently_less()
        on.assert_nothing_lost()
        assert set(on.resumed().values()) == {True}
        for guest in on.guests:
            for sender in ("carol", "dave"):
                got = [arrival.n for arrival in guest.back.arrivals if arrival.sender == sender]
                assert got == sorted(set(got)), "each once, in order"
                before = [arrival.n for arrival in guest.phone.arrivals if arrival.sender == sender]
                assert before[-1] < got[0]


async def test_the_owner_drains(tmp_path: Path, record: Record) -> None:
    """SIGTERM: its users' histories go over to the new owners, with what is not acknowledged: no gap."""
    async with party(tmp_path) as on:
        assert on.owned_by("n2")
        await on.until_under_way()
        await on.site.stop("n2")
        await on.come_back()
        await on.settle()
        on.record(record)
        on.assert_never_silently_less()
        on.assert_nothing_lost()
        assert set(on.resumed().values()) == {True}


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_owner_is_killed(tmp_path: Path, record: Record, restarted: bool) -> None:
    """SIGKILL, and perhaps started again under its name: whom it owned is told of a gap, and nobody else."""
    async with party(tmp_path) as on:
        owned = on.owned_by("n2")
        assert owned
        await on.until_under_way()
        on.site.kill("n2")
        if restarted:
            await on.site.start("n2")
        else:
            await on.more_is_answered()
        await on.come_back()
        await on.settle()
        on.record(record)
        on.assert_never_silently_less()
        on.assert_nothing_lost()
        gaps = {user for user, told in on.resumed().items() if told == "gap"}
        assert owned <= gaps
        if not restarted:
            assert gaps == owned


async def restart_all(site: Site, *, redis: Callable[[], Awaitable[None]] | None = None) -> None:
    """Kills all nodes, does something to Redis, and starts them again."""
    for name in site.names:
        site.kill(name)
    if redis is not None:
        await redis()
    async with trio.open_nursery() as starting:
        for name in site.names:
            starting.start_soon(site.start, name)
    await site.whole(HEAL_S)


async def test_all_nodes_are_killed_and_started_again(tmp_path: Path, record: Record) -> None:
    """Redis keeps its data: nobody has a history any more, so all are told; what was queued comes."""
    async with party(tmp_path) as on:
        await on.until_under_way()
        await restart_all(on.site)
        await on.come_back()
        await on.settle()
        on.record(record)
        on.assert_never_silently_less()
        on.assert_nothing_lost()
        assert set(on.resumed().values()) == {"gap"}


async def test_all_are_killed_and_redis_is_emptied(tmp_path: Path, record: Record) -> None:
    """Another life of the cluster: nobody's cursor is mistaken for one of it."""
    async with party(tmp_path) as on:
        await on.until_under_way()
        store = on.site.store

        async def empty() -> None:
            await store.stop()
            store.empty()
            await store.start()

        await restart_all(on.site, redis=empty)
        await on.come_back()
        await on.settle(but=[guest.user for guest in on.guests])
        on.record(record)
        on.assert_never_silently_less()
        assert set(on.resumed().values()) == {"gap"}


@pytest.mark.parametrize("how", ["emptied", "rolled back"])
async def test_redis_forgets_under_nodes_that_live(tmp_path: Path, record: Record, how: str) -> None:
    """What was queued is gone with it, and only that: whoever misses some of it is told."""
    async with party(tmp_path) as on:
        store = on.site.store
        await store.copy()
        await on.more_is_answered()
        await on.until_under_way()
        await store.stop()
        if how == "emptied":
            store.empty()
        else:
            assert store.roll_back()
        await store.start()
        await on.site.whole(HEAL_S)
        await on.come_back()
        await on.settle(but=on.alone)
        on.record(record)
        on.assert_never_silently_less()
        assert {user for user, told in on.resumed().items() if told == "gap"} >= on.alone
        for guest in on.guests:
            if guest.desk is not None:
                assert on.lost(guest) == []


# --- who was away for longer than anything is remembered


@asynccontextmanager
async def hasty_town(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    """Nodes that forget within a moment what they forget within a minute."""
    for module in (mailbox, owner):
        monkeypatch.setattr(module, "FATES_S", 0.2)
    async with town(redis_url) as here:
        yield here


async def until_forgotten(here: Town, user: str) -> None:
    """Returns when no node has a mailbox of this user in memory."""
    await until(lambda: not any(user in node.mailboxes.boxes for node in here.nodes.values()))


async def come_back(here: Town, nursery: trio.Nursery, node: str, cursor: str, **others: str) -> Returning:
    """A client with a cursor is welcome."""
    client = Returning([here.nodes[node].addresses["edge"]], "bob", cursor, here.watch, **others)
    await nursery.start(client.run)
    return client


@pytest.mark.parametrize("missed", [0, 5])
@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
async def test_who_was_idle_for_long(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, node: str, missed: int
) -> None:
    """He resumes truly, on any node, though his mailbox was forgotten: where it ended is not."""
    async with hasty_town(redis_url, monkeypatch) as here:
        alice = await here.come("alice")
        bob = await here.come("bob")
        assert await here.until_answered(*(alice.send("bob") for _ in range(3))) == ["delivered"] * 3
        here.go(bob)
        queued = [alice.send("bob") for _ in range(missed)]
        assert await here.until_answered(*queued) == ["queued"] * missed
        await until_forgotten(here, "bob")

        back = await come_back(here, nursery, node, bob.arrivals[-1].seq)
        assert back.resumed is True
        assert await here.until_answered(alice.send("bob")) == ["delivered"]
        assert [arrival.n for arrival in back.arrivals] == list(range(3, 3 + missed + 1))


@pytest.mark.parametrize("forgotten", [False, True])
async def test_cursors_that_are_none(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, forgotten: bool
) -> None:
    """Of the future, of another cluster, of no cluster: a gap, and all that waits comes."""
    async with hasty_town(redis_url, monkeypatch) as here:
        alice = await here.come("alice")
        bob = await here.come("bob", "n2")
        assert await here.until_answered(alice.send("bob"), alice.send("bob")) == ["delivered"] * 2
        epoch, number = parse_seq(bob.arrivals[-1].seq)
        here.go(bob)
        waiting = alice.send("bob")
        assert await here.until_answered(waiting) == ["queued"]
        if forgotten:
            await until_forgotten(here, "bob")
        cursors = {
            "of the future": f"{epoch}-{number + 1000}",
            "of another epoch to come": f"{epoch + 1}-1",
            "of another cluster": f"{epoch - 1000}-{number}",
            "garbage": "; DROP TABLE mailboxes",
            "a number": "17",
            "negative": "-1--1",
        }
        for device, cursor in cursors.items():
            back = await come_back(here, nursery, "n3", cursor, device=device)
            assert back.resumed == "gap", cursor
        await here.watch.until(lambda: (waiting.sender, waiting.n) in keys(back.arrivals) or back is not None)
        later = alice.send("bob")
        assert await here.until_answered(later) == ["delivered"]
        await here.watch.until(lambda: back.arrivals[-1].n == later.n)


async def test_redis_lost_what_was_queued(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """Who comes back to a mailbox that lost something is told so; the next time there is nothing to tell."""
    async with hasty_town(redis_url, monkeypatch) as here:
        alice = await here.come("alice")
        bob = await here.come("bob", "n2")
        assert await here.until_answered(alice.send("bob")) == ["delivered"]
        here.go(bob)
        assert await here.until_answered(alice.send("bob")) == ["queued"]
        await until_forgotten(here, "bob")
        await here.redis.flushall()

        back = await come_back(here, nursery, "n1", bob.arrivals[-1].seq)
        assert back.resumed == "gap"
        assert await here.until_answered(alice.send("bob")) == ["delivered"]
        again = await come_back(here, nursery, "n3", back.arrivals[-1].seq)
        assert (again.resumed, again.arrivals) == (True, [])


PROGRAM = """
import sys, trio, ring
async def main():
    async with ring.connect(sys.argv[1], "bob", device="phone") as client:
        print("welcome", flush=True)
        for _ in range(int(sys.argv[2])):
            print((await anext(client)).data["n"], flush=True)
        while len(client._connection.inbox) < int(sys.argv[3]):
            await trio.sleep(0.01)
        print("arrived", flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


async def test_a_program_that_dies_acknowledges_only_what_it_took(redis_url: str) -> None:
    """SIGKILL while messages wait in the library for the program: they are stored, and its next life gets
    them, once."""
    async with town(redis_url) as here:
        alice = await here.come("alice")
        url = f"ws://{here.nodes['n2'].addresses['edge']}"
        command = [sys.executable, "-c", PROGRAM, url, "2", "3"]
        process = await trio.lowlevel.open_process(command, stdout=PIPE)
        assert process.stdout is not None
        said = b""
        async with process.stdout as output:
            while b"welcome" not in said:
                said += await output.receive_some()
            sent = [alice.send("bob") for _ in range(5)]
            while b"arrived" not in said:
                said += await output.receive_some()
            await here.watch.until(lambda: bool(sent[1].answers))
            process.kill()
            await process.wait()
        assert said.split() == [b"welcome", b"0", b"1", b"arrived"]
        assert await here.until_answered(*sent) == ["delivered"] * 2 + ["queued"] * 3

        took: list[tuple[int, bool]] = []
        async with ring.connect(url, "bob", device="phone") as client:
            later = alice.send("bob")
            while len(took) < 4:
                message = await anext(client)
                assert isinstance(message, ring.Message)
                assert isinstance(message.data, dict)
                took.append((message.data["n"], message.redelivered))
        assert took == [(2, True), (3, True), (4, True), (5, False)]
        assert await here.until_answered(later) == ["delivered"]
