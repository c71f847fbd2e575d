"""Two live nodes are started under one name: one of them owns, the other waits until it is gone.

Real processes, under load.
"""

from pathlib import Path

import httpx
import trio

from ring.protocol.client import parse_seq
from ring.verify.gate import Gate, Seat
from ring.verify.node import NodeProcess
from tests.integration.cluster import by_name
from tests.integration.faulty import PATIENCE, Site, site
from tests.integration.test_churn import (
    DEADLINE_S,
    DEFAULT_TTL_S,
    LEAST_UNDER_WAY,
    NAMES,
    Record,
    owned_by,
    stage,
)
from tests.polling import until

WAITS_S = 2 * DEFAULT_TTL_S
TAKEN_OVER_S = 2.0  # the first one's end is known in one, and the second one has to join then
REFUTED = "peer renews, though nobody listens at its address"


async def until_logged(node: NodeProcess, event: str) -> None:
    """Returns once it has logged this."""
    with trio.fail_after(DEADLINE_S):
        await until(lambda: any(line["event"] == event for line in node.logged()))


async def incarnation(node: NodeProcess, name: str) -> str:
    """Which life of a name is in the ring, as this node knows it."""
    async with httpx.AsyncClient(trust_env=False) as http:
        entries = (await http.get(f"http://{node.ready['api']}/v1/nodes")).json()["nodes"]
    return next(str(entry["incarnation"]) for entry in entries if entry["name"] == name)


async def test_at_other_addresses(tmp_path: Path, record: Record) -> None:
    """The second one waits for as long as the first one lives, and takes its name, its slots and its clients
    over when that one is killed. Nothing is lost at any moment, and until then nobody notices."""
    async with stage(tmp_path, DEFAULT_TTL_S) as on:
        load = on.load
        owned = owned_by("n2", load.users, *NAMES)
        first = await incarnation(on.nodes["n1"], "n2")
        ready = trio.Event()
        second = await on.cluster.spawn("n2")

        async def wait_ready() -> None:
            await second.wait_ready()
            ready.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_ready)
            await until_logged(second, "waiting to join")
            waiting_at = trio.current_time()
            with trio.move_on_after(WAITS_S):
                await ready.wait()
            assert not ready.is_set()
            assert await incarnation(on.nodes["n1"], "n2") == first
            while_both_lived = {
                parse_seq(arrival.seq)[0]
                for user in load.users.values()
                for arrival in user.arrivals
                if waiting_at < arrival.at
            }
            assert len(while_both_lived) == 1  # one ring, and so one owner of each
            assert load.doubled() == []
            assert load.disordered() == []
            await on.until_under_way("n2", owned)
            on.fault()
            on.nodes["n2"].kill()
            await ready.wait()
        taken_over_s = trio.current_time() - on.fault_at
        await on.settle()

        of_others = [user for user in owned if user in on.staying("n2")]
        on.record(record, of_others)
        record("taken over", f"{taken_over_s:.3f} s after")
        served_s = load.served_again(of_others, on.fault_at)
        record("first served again", f"{served_s:.3f} s after")
        assert await incarnation(on.nodes["n1"], "n2") != first
        assert taken_over_s < TAKEN_OVER_S + load.stalled_s
        assert len(on.under_way) >= LEAST_UNDER_WAY
        on.assert_nobody_else_was_cut("n2")
        on.assert_one_answer_in_time("n2")
        on.assert_nothing_lost()
        assert on.failed(on.staying("n2")) == []
        assert [double for double in load.doubled() if not double.arrival.redelivered] == []


async def test_at_the_same_addresses(tmp_path: Path, record: Record) -> None:
    """The second one says what is wrong, and ends; nobody notices."""
    async with stage(tmp_path) as on:
        load = on.load
        first = await incarnation(on.nodes["n1"], "n2")
        await on.until_under_way("n2", owned_by("n2", load.users, *NAMES))
        on.fault()
        second = await on.cluster.spawn("n2", on.nodes["n2"].ready)
        with trio.fail_after(DEADLINE_S):
            assert await second.process.wait() != 0
        on.cluster.started.remove(second)  # it complains, and has reason to
        await on.settle()
        await second.end()

        on.record(record, list(load.users))
        assert "address already in use" in second.log.read_text().lower()
        assert await incarnation(on.nodes["n1"], "n2") == first
        assert on.under_way
        on.assert_nobody_else_was_cut()
        on.assert_one_answer_in_time()
        on.assert_nothing_lost()
        assert on.failed(list(load.users)) == []
        assert load.doubled() == []
        assert load.disordered() == []


async def test_behind_one_advertised_address(tmp_path: Path, record: Record) -> None:
    """Whoever dials the first one gets the second: by its hello the first one is dead, and all others say so.

    It renews, and so nobody is removed. When the address leads to it again, all is as it was.
    """
    async with site(tmp_path, NAMES, "--ttl-s", f"{DEFAULT_TTL_S}") as on:
        gate = on.nodes["n3"].peers  # of the highest name, that dials nobody
        first, seat = gate.target, Seat()
        second = await start_second(on, tmp_path / "second.log", "n3", seat.address)
        try:
            await until_logged(second, "waiting to join")
            await on.until_under_way()
            on.fault()
            lead(gate, seat.address)
            for name in ("n1", "n2"):
                await until_logged(on.nodes[name].process, REFUTED)
            refuted_s = trio.current_time() - on.fault_at
            lead(gate, first)
            await on.until_whole(DEADLINE_S)
            await on.settle()
        finally:
            await second.end()
            seat.close()

        on.record(record)
        record("refuted", f"{refuted_s:.3f} s after")
        assert on.under_way
        assert second.ready == {}
        for name in ("n1", "n2"):
            others = [line["why"] for line in on.nodes[name].logged("no peer link")]
            assert any("one of the two is out of date" in why for why in others)
        on.assert_ring_stood_still()
        on.assert_nobody_was_cut()
        on.assert_all_was_delivered()
        on.assert_doubles_are_marked()


def lead(gate: Gate, target: str) -> None:
    """Has the address lead there, also for those who are connected."""
    gate.target = target
    gate.cut()
    gate.mend()


async def start_second(on: Site, log: Path, name: str, peer: str) -> NodeProcess:
    """A second node of this name, which advertises the first one's address for its peers."""
    places = {**on.nodes[name].places, "edge": "127.0.0.1:0", "peer": peer, "api": "127.0.0.1:0"}
    options = by_name((*PATIENCE, "--ttl-s", f"{DEFAULT_TTL_S}"))
    return await NodeProcess.start(name, {"cluster": on.cluster, **places, **options}, log)
