"""What clients behind HAProxy notice when nodes are restarted in turn, drained, killed and frozen."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.integration.scene import BUDGET, CLIENTS, NAMES, behind_haproxy
from tests.integration.test_churn import owned_by
from tests.integration.visitors import visiting

pytestmark = pytest.mark.alone  # it holds times to bounds

WHOLE_S = 20.0
SILENCE_S = 2.0
FROZEN_S = 7.0
NEWCOMER_S = 1.0  # so long one waits for its welcome
ELSEWHERE_S = 5.0

Record = Callable[[str, object], None]


async def test_all_nodes_are_restarted_in_turn(tmp_path: Path, program: str, record: Record) -> None:
    """Under some 500 messages per second: nobody notices, and in no second more than the budget reconnect."""
    async with behind_haproxy(tmp_path, program) as here:
        began = trio.current_time()
        for name in NAMES:
            await here.site.stop(name)
            await here.site.start(name)
            await here.site.whole(WHOLE_S)
        took = trio.current_time() - began
        await here.settle()
        sent = sum(1 for _ in here.load.sent())
        record("messages", sent)
        record("restarts of four nodes", f"{took:.1f} s")
        record("longest silence of any client", f"{here.longest_silence(list(here.load.library)):.2f} s")
        record("reconnects", len(here.reconnects))
        record("in the worst second", here.most_reconnects_per_s())
        record("the test itself stood still", f"{here.load.stalled_s:.2f} s")
        here.assert_nobody_noticed()
        assert len(here.reconnects) >= CLIENTS, "everybody had to go, some of them more than once"
        # Those who took longer than others, on a machine that is busy with all of this.
        assert here.most_reconnects_per_s() <= BUDGET * (1.5 + here.load.stalled_s)
        assert here.longest_silence(list(here.load.library)) < SILENCE_S + here.load.stalled_s


async def test_a_node_is_drained(tmp_path: Path, program: str, record: Record) -> None:
    """`ring drain` empties it, and it ends."""
    async with behind_haproxy(tmp_path, program) as here:
        leaving = here.on("n2")
        api = f"http://{here.site.nodes['n1'].places['api']}"
        here.site.nodes["n2"].serves = False  # its end is no surprise
        began = trio.current_time()
        done = await trio.run_process(
            [sys.executable, "-m", "ring", "drain", "n2", "--api", api],
            capture_stdout=True,
            check=False,
        )
        record("drained", f"{trio.current_time() - began:.1f} s")
        assert (done.returncode, done.stdout.decode().splitlines()[-1]) == (0, "n2 has left")
        assert await here.site.nodes["n2"].process.process.wait() == 0
        await here.settle()
        here.assert_nobody_noticed()
        assert leaving
        assert here.on("n2") == []
        assert [user for user in leaving if user in here.off_owner()] == [], "they are on their new owners"


async def test_a_node_is_killed(tmp_path: Path, program: str, record: Record) -> None:
    """Its clients come through HAProxy to the others, and go on."""
    async with behind_haproxy(tmp_path, program) as here:
        hit = here.on("n3")
        await here.load.watch.until(lambda: len(here.load.under_way(here.load.users, hit)) > 0)
        here.site.kill("n3")  # with messages on their way to it
        killed = trio.current_time()
        await here.load.watch.until(lambda: here.load.served_since(hit, killed))
        first = [
            min(arrival.at for arrival in here.load.users[user].arrivals if arrival.at > killed + 0.05)
            for user in hit
        ]
        record("its clients are served again", f"{sorted(first)[len(first) // 2] - killed:.2f} s (median)")
        record("the last of them", f"{max(first) - killed:.2f} s")
        await here.settle()
        assert here.load.missing() == []
        assert here.load.doubled() == []
        assert here.longest_silence(hit) < SILENCE_S + here.load.stalled_s


async def test_a_node_stands_still(tmp_path: Path, record: Record) -> None:
    """Its clients hear nothing until it goes on, and miss nothing; who comes anew is sent elsewhere soon."""
    async with behind_haproxy(tmp_path, None) as here:
        hit = here.on("n2")
        await here.load.watch.until(lambda: len(here.load.under_way(here.load.users, hit)) > 0)
        frozen = trio.current_time()
        here.site.freeze("n2")
        port = int(here.address.rpartition(":")[2])
        came: list[tuple[float, str]] = []

        async def come(user: str) -> None:
            began = trio.current_time() - frozen
            with trio.move_on_after(NEWCOMER_S):
                async with visiting(port, user) as welcome:
                    came.append((began, welcome.node))

        async with trio.open_nursery() as nursery:
            for user in owned_by("n2", (f"newcomer {number}" for number in range(200)), *NAMES)[:20]:
                nursery.start_soon(come, user)
                await trio.sleep(FROZEN_S / 20)  # the pace at which they come
        here.site.thaw("n2")
        thawed = trio.current_time()
        await here.load.watch.until(lambda: here.load.served_since(list(here.load.users), thawed))
        soonest = min(began for began, node in came if node != "n2")
        record("who comes anew is sent elsewhere", f"{soonest:.2f} s after")
        record("the longest silence of its clients", f"{here.longest_silence(hit):.2f} s, of {FROZEN_S:g} s")
        assert here.longest_silence(hit) > FROZEN_S - 1.0, "it stood still"
        assert soonest < ELSEWHERE_S
        assert {node for began, node in came if began > ELSEWHERE_S}.isdisjoint({"n2"})
        await here.site.whole(WHOLE_S)
        await here.settle()
        assert here.load.missing() == []
        assert here.load.doubled() == []
