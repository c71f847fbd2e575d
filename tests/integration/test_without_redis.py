"""Redis goes away, freezes, forgets: who talks directly does not notice; rooms are refused until it is back.

Real processes, a real Redis, real signals, under load.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from ring.store.connection import PING_ANSWER_S, PING_EVERY_S
from ring.verify.node import Report
from ring.verify.standing import POLL_S
from tests.integration.faulty import Record, Site, site
from tests.integration.room_client import rooms_are_refused, rooms_flow, told_of_the_gap

pytestmark = pytest.mark.alone  # it holds times to bounds

NAMES = ("n1", "n2", "n3", "n4")
TTL_S = 1.0
OUTAGE_S = 3 * TTL_S
HEAL_S = 2.0
DEGRADED_S = 5.0  # until every node has found out
SERVED_S = 5.0  # everybody, also who was with the dead
SUCCESSORS_S = 1.0  # until whom the dead owned are served
PATIENCE_S = PING_EVERY_S + PING_ANSWER_S  # with a connection to Redis that says nothing
STOPPED_S = 8.0  # less than a node has for its drain
SILENCE_S = 1.0  # no message may take longer, but for what this program stands still itself


def frozen(report: Report) -> bool:
    """Serves, without Redis, in the ring that it has."""
    return (report.status, report.state) == (200, "up") and "redis" in report.degraded


async def bear(on: Site, record: Record, lasts_s: float, *, refused: bool = True) -> None:
    """An outage of this length has begun: what holds in it is seen at its begin and at its end.

    `refused`: it lasts for longer than a room waits for Redis.
    """
    noticed_s = await on.until("degraded", frozen, DEGRADED_S)
    record("noticed", f"{noticed_s:.2f} s after")
    for number in (1, 2):
        async with trio.open_nursery() as nursery:
            for room in on.rooms.values() if refused else ():
                nursery.start_soon(rooms_are_refused, [room])
            for name in on.nodes:
                nursery.start_soon(on.newcomer, name, number)
        if number == 1:
            left_s = on.fault_at + lasts_s - trio.current_time()
            await on.stays("frozen", frozen, left_s, on.nodes)


async def heal(on: Site, record: Record) -> None:
    """Redis is back: soon all is as it was, rooms too."""
    began = trio.current_time()
    healed = {}

    async def note(what: str, done: Callable[[], Awaitable[object]]) -> None:
        await done()
        healed[what] = trio.current_time() - began

    with trio.move_on_after(2 * HEAL_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "ring", partial(until_whole_and_stored, on))
            nursery.start_soon(note, "rooms", partial(rooms_flow, on.rooms.values(), "lobby"))
    for what in ("ring", "rooms"):
        record(f"{what} whole", f"{healed[what]:.2f} s after its return" if what in healed else "not")
    assert set(healed) == {"ring", "rooms"}
    assert max(healed.values()) < HEAL_S
    assert await is_stored(on)


async def until_whole_and_stored(on: Site) -> float:
    """Returns once Redis, too, knows the ring that all nodes agree on: after how many seconds.

    A lease outlives a short outage: nodes lack nothing then before they have told Redis what it forgot.
    """
    began = trio.current_time()
    while True:
        await on.until_whole(2 * HEAL_S)
        if await is_stored(on):
            return trio.current_time() - began
        await trio.sleep(POLL_S)  # Redis tells a state, no event


async def is_stored(on: Site) -> bool:
    """Whether Redis has just these nodes, in the epoch that they route by."""
    stored = (await on.store.read()).view
    return (list(stored.names), stored.epoch) == (sorted(on.nodes), await on.epoch())


def assert_nobody_noticed(on: Site) -> None:
    """Nobody who talks directly has been cut, kept waiting, or had anything lost, doubled or reordered."""
    assert on.under_way
    on.assert_nobody_was_cut()
    on.assert_all_was_delivered()
    on.assert_once_and_in_order()
    assert on.longest_s() < SILENCE_S + on.load.stalled_s


async def test_redis_is_away_for_half_a_minute(tmp_path: Path, record: Record) -> None:
    """100 users on 4 nodes talk on through ten leases; then it is as if nothing had been."""
    options = ("--ttl-s", "3")
    async with site(tmp_path, NAMES, *options, deadline_s=180, pace=6, raw=20, library=5) as on:
        await rooms_flow(on.rooms.values(), "lobby")
        epoch = await on.epoch()
        await on.until_under_way()
        on.fault()
        await on.store.stop()
        await bear(on, record, 30)
        await on.store.start()
        await heal(on, record)
        await told_of_the_gap(on.rooms.values(), "lobby")
        await on.settle()

        on.record(record)
        assert_nobody_noticed(on)
        on.assert_ring_stood_still()
        assert await on.epoch() == epoch


@pytest.mark.parametrize("outage_s", [0.0, OUTAGE_S])
async def test_redis_comes_back_empty(tmp_path: Path, record: Record, outage_s: float) -> None:
    """The nodes tell it what it has forgotten: at once, or after all leases would have lapsed."""
    async with site(tmp_path, NAMES, "--ttl-s", f"{TTL_S}") as on:
        await rooms_flow(on.rooms.values(), "lobby")
        epoch = await on.epoch()
        await on.until_under_way()
        on.fault()
        await on.store.stop()
        on.store.empty()
        if outage_s:
            await bear(on, record, outage_s)
        await on.store.start()
        await heal(on, record)
        await told_of_the_gap(on.rooms.values(), "lobby")
        await on.settle()

        on.record(record)
        assert_nobody_noticed(on)
        on.assert_ring_stood_still()
        assert await on.epoch() > epoch


@pytest.mark.parametrize("since", ["a node joined", "a node left"])
async def test_redis_comes_back_with_an_older_copy(tmp_path: Path, record: Record, since: str) -> None:
    """What has happened since holds: who joined is no stranger, who left is no ghost; epochs only rise."""
    async with site(tmp_path, NAMES[:3], "--ttl-s", f"{TTL_S}") as on:
        if since == "a node joined":
            await on.store.copy()
            await on.start("n4")
            await on.until_whole(DEGRADED_S)
        else:
            await on.start("n4")
            await on.until_whole(DEGRADED_S)
            await on.store.copy()
            await on.nodes.pop("n4").process.stop()
            await on.until_whole(DEGRADED_S)
        epoch = await on.epoch()
        await on.until_under_way()
        on.fault()
        await on.store.stop()
        on.store.roll_back()
        await on.store.start()
        with trio.fail_after(HEAL_S):
            healed_s = await until_whole_and_stored(on)
        stored = (await on.store.read()).view
        await on.settle()

        record("whole", f"{healed_s:.2f} s after its return")
        on.record(record)
        assert_nobody_noticed(on)
        assert list(stored.names) == sorted(on.nodes)
        assert stored.epoch == await on.epoch() > epoch


@pytest.mark.parametrize("outage_s", [4.0, 13.0])
async def test_redis_stands_still(tmp_path: Path, record: Record, outage_s: float) -> None:
    """SIGSTOP: it takes connections and answers nothing, for longer than a lease, or than any patience.

    In the shorter one the connections outlive it, and what was asked on them is answered late; rooms need not
    be refused. In the longer one all are given up, and what they were asked is still done when it goes on.
    """
    async with site(tmp_path, NAMES, "--ttl-s", f"{TTL_S}") as on:
        await rooms_flow(on.rooms.values(), "lobby")
        await on.until_under_way()
        on.fault()
        on.store.freeze()
        given_up = outage_s > PATIENCE_S
        await bear(on, record, outage_s, refused=given_up)
        lost = [name for name, node in on.nodes.items() if node.logged("store away")]
        assert lost == (list(NAMES) if given_up else [])
        on.store.thaw()
        await heal(on, record)
        await on.settle()

        on.record(record)
        assert_nobody_noticed(on)
        on.assert_ring_stood_still()


async def test_a_node_stops_while_redis_stands_still(tmp_path: Path, record: Record) -> None:
    """Nothing can be handed over: once that is known its clients are asked to go elsewhere, and not cut."""
    async with site(tmp_path, NAMES[:2], "--ttl-s", f"{TTL_S}", roaming=["n2"]) as on:
        leaving = [on.load.raw[user] for user in on.of_node("n2") if user in on.load.raw]
        assert leaving
        on.fault()
        on.store.freeze()
        await on.nodes["n2"].process.stop()
        stopped_s = trio.current_time() - on.fault_at
        with trio.fail_after(SERVED_S):
            await on.load.watch.until(lambda: all(client.welcome.node == "n1" for client in leaving))

        record("stopped", f"{stopped_s:.2f} s after")
        assert [client.closes for client in leaving] == [[(1012, "the node drains")]] * len(leaving)
        assert stopped_s < STOPPED_S


DEATHS = [
    pytest.param(("n1",), "with its data", id="n1 survives"),
    pytest.param(("n3",), "emptied", id="n3 survives, Redis is emptied"),
    pytest.param(("n1", "n3"), "with its data", id="n1 and n3 survive"),
    pytest.param(("n1", "n3"), "emptied", id="n1 and n3 survive, Redis is emptied"),
    pytest.param(("n2", "n3"), "with its data", id="n2 and n3 survive"),
    pytest.param(("n2", "n3"), "with an older copy", id="n2 and n3 survive, Redis has an older copy"),
]


@pytest.mark.parametrize(("survivors", "comes_back"), DEATHS)
async def test_nodes_die_while_redis_is_away(
    tmp_path: Path, record: Record, survivors: tuple[str, ...], comes_back: str
) -> None:
    """Whoever dials them is refused: who survives is not cut off, and serves everybody, the users of the dead
    too, in a ring without them. Redis takes that ring when it is back, whatever it remembers.
    """
    names = NAMES[:3]
    dead = [name for name in names if name not in survivors]
    async with site(tmp_path, names, "--ttl-s", f"{TTL_S}", roaming=dead) as on:
        if comes_back == "with an older copy":
            await on.store.copy()  # from which n4, which comes and goes, is missing, and its epochs
            await on.start("n4")
            await on.until_whole(DEGRADED_S)
            await on.nodes.pop("n4").process.stop()
            await on.until_whole(DEGRADED_S)
        await on.store.stop()
        await on.until("degraded", frozen, DEGRADED_S)
        await on.stays("frozen", frozen, OUTAGE_S, names)
        epoch = await on.epoch()
        await on.until_under_way()
        on.fault()
        for name in dead:
            on.kill(name)
        killed_at = on.fault_at
        staying = [user for name in survivors for user in on.of_node(name)]
        of_the_dead = on.owned_by(dead, staying)
        assert of_the_dead
        served = {}
        for what, users in (("the dead's users", of_the_dead), ("everybody", list(on.load.users))):
            with trio.fail_after(SERVED_S):
                await on.load.watch.until(lambda users=users: on.load.served_since(users, killed_at))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            served[what] = trio.current_time() - killed_at
        assert served["the dead's users"] < SUCCESSORS_S + on.load.stalled_s
        await on.stays("frozen", frozen, OUTAGE_S, survivors)
        for name in survivors:
            await rooms_are_refused([on.rooms[name]])
        for name in dead:
            del on.nodes[name]
        reports = [await node.report() for node in on.nodes.values()]
        assert {(report.epoch > epoch, *report.members) for report in reports} == {(True, *survivors)}
        if comes_back == "emptied":
            on.store.empty()
        elif comes_back == "with an older copy":
            on.store.roll_back()
        await on.store.start()
        began = trio.current_time()
        with trio.fail_after(HEAL_S):
            await until_whole_and_stored(on)
        healed_s = trio.current_time() - began
        await on.settle()

        on.record(record)
        for what, after_s in served.items():
            record(f"{what} served", f"{after_s:.3f} s after")
        record("whole", f"{healed_s:.2f} s after the return of Redis")
        assert on.under_way
        on.assert_nobody_was_cut(survivors)
        on.assert_one_answer_in_time(on.load.users)
        on.assert_all_was_delivered(staying)
        on.assert_doubles_are_marked()


async def test_two_that_refuse_each_other_while_redis_is_away(tmp_path: Path, record: Record) -> None:
    """Each takes the other for dead, and the third is linked with both: one of them prevails.

    The other one is a gateway for its clients until Redis is back, as far as its link with the third reaches.
    Nobody is cut, and nothing is lost.
    """
    names = NAMES[:3]
    async with site(tmp_path, names, "--ttl-s", f"{TTL_S}") as on:
        await on.store.stop()
        await on.until("degraded", frozen, DEGRADED_S)
        await on.stays("frozen", frozen, OUTAGE_S, names)
        await on.until_under_way()
        on.fault()
        on.cut_link("n1", "n2")

        def without_one(report: Report) -> bool:
            return frozen(report) and len(report.members) == 2 and "n3" in report.members

        agreed_s = await on.until("without one of the two", without_one, SERVED_S)
        await on.stays("without one of the two", without_one, OUTAGE_S, names)
        rings = {tuple(report.members) for report in (await on.reports()).values() if report is not None}
        on.restore()
        await on.store.start()
        began = trio.current_time()
        with trio.fail_after(HEAL_S):
            await until_whole_and_stored(on)
        healed_s = trio.current_time() - began
        await on.settle()

        on.record(record)
        record("agreed", f"{agreed_s:.2f} s after")
        record("whole", f"{healed_s:.2f} s after the return of Redis")
        assert len(rings) == 1
        assert on.under_way
        on.assert_nobody_was_cut()
        on.assert_one_answer_in_time(on.load.users)
        on.assert_all_was_delivered([user for name in rings.pop() for user in on.of_node(name)])
        assert on.load.missing() == []
        on.assert_doubles_are_marked()
