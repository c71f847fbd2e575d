"""One node is cut off: from Redis alone, or from Redis and from all other nodes, while its clients reach it.

Real processes behind gates that are closed, under load.
"""

from pathlib import Path

import pytest
import trio

from ring.protocol.upgrade import UpgradeRefused
from ring.verify.node import Report
from tests.integration.faulty import Record, site
from tests.integration.raw import RawClient
from tests.integration.room_client import rooms_are_refused, rooms_flow

NAMES = ("n1", "n2", "n3")
TTL_S = 1.0
OPTIONS = ("--ttl-s", f"{TTL_S}")
EVICTED_S = TTL_S + 2.0  # by those who renew
ISOLATED_S = TTL_S + 4.0
HEAL_S = 5.0  # what a node that was evicted may take to join again
SILENCE_S = 2.0
GO_S = 5.0  # for clients who were sent away to be somewhere else


@pytest.mark.parametrize("how", ["cut", "silence"])
async def test_from_redis_alone(tmp_path: Path, record: Record, how: str) -> None:
    """It owns nothing any more, and is a gateway for its clients: they are served through the others.

    Nobody is cut, nothing is lost. It is evicted as the dead are: of what was under way then, a raw client
    may get something twice, marked. Then it owns again.
    """
    async with site(tmp_path, NAMES, *OPTIONS) as on:
        await rooms_flow(on.rooms.values(), "lobby")
        node, others = on.nodes["n2"], ["n1", "n3"]
        await on.until_under_way()
        on.fault()
        getattr(node.redis, how)()

        def without_it(report: Report) -> bool:
            return (report.status, report.degraded, sorted(report.members)) == (200, [], others)

        def gateway(report: Report) -> bool:
            return (report.status, sorted(report.members)) == (200, others) and "redis" in report.degraded

        evicted_s = await on.until("without it", without_it, EVICTED_S, others)
        await on.until("a gateway alone", gateway, EVICTED_S, ["n2"])
        await rooms_are_refused([on.rooms["n2"]])
        await rooms_flow([on.rooms[other] for other in others], "lobby")
        await on.newcomer("n2", 1)
        await on.stays("a gateway alone", gateway, 2 * TTL_S, ["n2"])
        node.redis.mend()
        back_s = await on.until_whole(HEAL_S)
        with trio.fail_after(HEAL_S):
            await rooms_flow(on.rooms.values(), "lobby")
        await on.settle()

        record("evicted", f"{evicted_s:.2f} s after")
        record("owns again", f"{back_s:.2f} s after")
        on.record(record)
        assert on.under_way
        on.assert_nobody_was_cut()
        on.assert_all_was_delivered()
        on.assert_doubles_are_marked()
        on.assert_in_order_but_for_repeats()
        assert on.longest_s() < SILENCE_S + on.load.stalled_s


@pytest.mark.parametrize("name", NAMES)
async def test_from_everything(tmp_path: Path, record: Record, name: str) -> None:
    """It sends its clients away and takes no more; the others serve them, and those whom it owned.

    Nobody else is cut; then it owns again. Of two nodes the lower name dials: the first dials all others, the
    last nobody.
    """
    others = [other for other in NAMES if other != name]
    async with site(tmp_path, NAMES, *OPTIONS, roaming=[name]) as on:
        node, load = on.nodes[name], on.load
        staying = [user for other in others for user in on.of_node(other)]
        leaving = [load.raw[user] for user in on.of_node(name) if user in load.raw]
        moved = on.owned_by([name], staying)
        assert moved
        await on.until_under_way()
        on.fault()
        on.cut_off(name)

        evicted_s = await on.until("without it", lambda r: sorted(r.members) == others, EVICTED_S, others)
        await on.until("isolated", lambda r: (r.status, r.state) == (503, "isolated"), ISOLATED_S, [name])
        isolated_s = trio.current_time() - on.fault_at
        with trio.fail_after(GO_S):
            await load.watch.until(lambda: all(client.welcome.node != name for client in leaving))
            await load.watch.until(lambda: bool(on.rooms[name].closes))
        with pytest.raises(UpgradeRefused) as refused:
            await RawClient([node.process.edge], "nobody").run()
        assert refused.value.status == 503
        await load.until_answered(100)
        on.restore()
        back_s = await on.until_whole(HEAL_S)
        await on.settle()

        record("evicted", f"{evicted_s:.2f} s after")
        record("isolated", f"{isolated_s:.2f} s after")
        record("first served again", f"{load.served_again(moved, on.fault_at):.3f} s after")
        record("owns again", f"{back_s:.2f} s after")
        on.record(record)
        assert on.under_way
        assert len(on.rooms[name].sent_away) == 1
        for client in (on.rooms[name], *leaving):
            assert client.closes[0][0] == 1012, client.user
        on.assert_nobody_was_cut(others)
        on.assert_all_was_delivered(staying)
        on.assert_one_answer_in_time(staying)
        assert load.missing() == []
        on.assert_doubles_are_marked()
