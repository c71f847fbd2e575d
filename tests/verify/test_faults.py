"""Each fault happens, is seen to happen, and heals; one that does not happen is an error."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from random import Random
from typing import Any

import httpx
import pytest
import trio

from ring.verify import effect, network_faults, node_faults, redis_faults
from ring.verify.effect import Effect, FaultFailed, victims
from ring.verify.faults import Fault, faults
from ring.verify.node import SiteFailed
from ring.verify.site import Site

DEADLINE_S = 240
WHOLE_S = 20.0
NODES = 3
TTL_S = 1.0
OUTAGE_S = 2.5
ROWS = faults(nodes=NODES, ttl_s=TTL_S, outage_s=OUTAGE_S)
LONG_ROWS = faults(nodes=NODES, ttl_s=TTL_S)
PARTS = ("node", "redis", "network")


@pytest.fixture
async def deadline() -> AsyncIterator[None]:
    """Of a test with processes."""
    with trio.fail_after(DEADLINE_S):
        yield


def part_of(fault: Fault) -> str:
    """What it breaks."""
    if fault.name.startswith("redis"):
        return "redis"
    return "network" if fault.name.startswith(("link", "node")) else "node"


async def chatter(site: Site) -> None:
    """Has every link carry something at any time: who a user's owner is not is asked over one."""

    async def keep_asking(name: str, number: int) -> None:
        while True:
            with suppress(httpx.HTTPError):  # who is broken does not answer
                await site.nodes[name].http.get("/v1/users", params={"user": f"user {number}"})
            await trio.sleep(0.1)  # the pace of the load

    async with trio.open_nursery() as nursery:
        for name in site.names:
            for number in range(4):
                nursery.start_soon(keep_asking, name, number)


@pytest.mark.usefixtures("deadline")
class TestFaults:
    @pytest.mark.parametrize("part", PARTS)
    async def test_they_happen_and_heal(self, part: str) -> None:
        """After each the site is whole again; no node has logged an error, or ended by itself."""
        rows = [fault for fault in ROWS.values() if part_of(fault) == part]
        assert len(rows) >= 5
        random = Random(part)
        async with Site(nodes=NODES, ttl_s=TTL_S) as site:
            async with trio.open_nursery() as nursery:
                if part == "network":
                    nursery.start_soon(chatter, site)
                for fault in rows:
                    began = trio.current_time()
                    done = await fault.run(site, random)
                    assert began <= done.began < done.healed <= trio.current_time()
                    assert done.healed - done.began < fault.longest_s
                    assert done.detail
                    assert set(done.victims) <= set(site.names)
                    assert bool(done.victims) is (part != "redis")
                    assert site.log[-1][1].startswith(f"{fault.name} of ")
                    await site.whole(WHOLE_S)
                nursery.cancel_scope.cancel()
            assert site.serving() == list(site.names)
            assert site.complaints() == []
            assert not [text for _, text in site.log if "by itself" in text]

    async def test_what_does_not_happen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each fault whose injection does nothing is an error that says what was not seen."""
        for module in (effect, network_faults, node_faults, redis_faults):
            for name in ("MARGIN_S", "SPOKEN_S", "SIGNAL_S"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, 0.3)
        async with Site(nodes=2, ttl_s=TTL_S) as site:
            broken: list[tuple[str, object, str, Callable[..., Any], str]] = [
                ("kill", site, "kill", nothing, r"n\d gone"),
                ("kill-restart", site, "kill", nothing, r"n\d gone"),
                ("freeze", site, "freeze", nothing, r"n\d frozen"),
                ("freeze-short", site, "freeze", nothing, r"n\d frozen"),
                ("stop", site, "stop", nothing_async, r"without n\d"),
                ("redis-restart", site.store, "stop", nothing_async, "cut off from Redis, all of them"),
                ("redis-empty", site.store, "flush", nothing_async, "after what Redis has lost"),
                ("redis-empty-restart", site.store, "empty", nothing, "after what Redis has lost"),
                ("redis-stop", site.store, "stop", nothing_async, "cut off from Redis, all of them"),
                ("redis-rollback", site.store, "roll_back", lambda: False, "written nothing since"),
                ("redis-freeze", site.store, "freeze", nothing, "a frozen Redis has answered"),
                ("link-cut", site, "cut_link", nothing, r"without a link to n\d"),
                ("link-silence", site, "silence_link", nothing, r"anything lost from n\d to n\d"),
                ("link-cut-one-way", site, "silence_link", nothing, r"anything lost from n\d to n\d"),
                ("node-without-redis", site.nodes["n1"].redis, "cut", nothing, "without n1"),
                ("node-without-redis-silence", site.nodes["n1"].redis, "silence", nothing, "without n1"),
                ("node-cut-off", site, "cut_off", nothing, r"without n\d"),
            ]
            assert {name for name, *_ in broken} == set(ROWS) - {"rolling-restart"}
            for name, owner, what, instead, words in broken:
                with monkeypatch.context() as patch:
                    patch.setattr(owner, what, instead)
                    with pytest.raises(FaultFailed, match=f"^{name}: .*{words}"):
                        await ROWS[name].run(site, Hits("n1"))
                if not site.store.pid:
                    await site.store.start()
                await site.whole(WHOLE_S)

    async def test_what_ends_too_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A frozen node that goes on by itself, and a kill that was none, are seen."""
        async with Site(nodes=2, ttl_s=TTL_S) as site:

            async def thaw(after_s: float) -> None:
                await trio.sleep(after_s)
                site.nodes["n1"].process.thaw()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(thaw, TTL_S * 0.2)
                with pytest.raises(FaultFailed, match=r"^freeze-short: n1 went on by itself$"):
                    await ROWS["freeze-short"].run(site, Hits("n1"))
            await site.whole(WHOLE_S)
            monkeypatch.setattr(site, "kill", lambda name: site.nodes[name].process.process.terminate())
            with pytest.raises(FaultFailed, match=r"^kill: n1 was not killed: it ended with code 0$"):
                await ROWS["kill"].run(site, Hits("n1"))


class Hits(Random):
    """Chooses these, whoever is there."""

    def __init__(self, *names: str) -> None:
        super().__init__(1)
        self._names = list(names)

    def sample(self, population: Any, k: int, *, counts: Any = None) -> list[Any]:
        rest = [name for name in population if name not in self._names]
        return [*self._names, *rest][:k]


def nothing(*_: object, **__: object) -> None:
    """Does it."""


async def nothing_async(*_: object) -> None:
    """Does it."""


class FakeSite:
    """A site of which only who serves matters."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self.notes: list[str] = []

    def serving(self) -> list[str]:
        return list(self._names)

    def note(self, text: str) -> None:
        self.notes.append(text)


class TestVictims:
    def test_the_seed_decides(self) -> None:
        """The same seed hits the same nodes in the same order."""
        site: Any = FakeSite("n1", "n2", "n3", "n4")

        def chosen(seed: int) -> list[list[str]]:
            random = Random(seed)
            return [victims(site, random, count) for count in (1, 2, 1, 4, 1)]

        assert chosen(1) == chosen(1)
        assert len({str(chosen(seed)) for seed in range(20)}) > 10

    def test_somebody_must_be_left(self) -> None:
        """Who would see it otherwise?"""
        lonely: Any = FakeSite("n1")
        with pytest.raises(FaultFailed, match=r"^it takes 2 nodes that serve; there are n1$"):
            victims(lonely, Random(1))
        nobody: Any = FakeSite()
        with pytest.raises(FaultFailed, match=r"there are none$"):
            victims(nobody, Random(1))


class TestTable:
    def test_what_may_come_of_it(self) -> None:
        """Which faults leave the order alone, and which lose what was stored."""
        assert {name for name, fault in ROWS.items() if fault.planned} == {"stop", "rolling-restart"}
        forgetful = {name for name, fault in ROWS.items() if fault.forgets}
        assert forgetful == {"redis-empty", "redis-empty-restart", "redis-rollback"}
        assert [fault.name for fault in ROWS.values()] == list(ROWS)

    def test_outages_outlast_leases(self) -> None:
        """A shorter one would prove nothing; a longer one takes longer."""
        with pytest.raises(ValueError, match="proves nothing"):
            faults(ttl_s=3, outage_s=3)
        for name in ("redis-stop", "redis-freeze", "link-cut", "link-silence", "link-cut-one-way"):
            assert LONG_ROWS[name].longest_s - ROWS[name].longest_s == pytest.approx(30 - OUTAGE_S)

    async def test_a_fault_is_over_in_time(self, autojump_clock: trio.testing.MockClock) -> None:
        """One that goes on for too long is an error, not a run that hangs."""

        async def hang(site: Site, random: Random) -> Effect:
            await trio.sleep_forever()
            raise AssertionError

        site: Any = FakeSite()
        fault = Fault("hang", "", planned=False, forgets=False, longest_s=7, inject=hang)
        with pytest.raises(FaultFailed, match=r"^hang was not over after 7 s$"):
            await fault.run(site, Random(1))

    async def test_what_the_site_says_is_told(self) -> None:
        """A site that fails under a fault is the fault's failure."""

        async def fail(site: Site, random: Random) -> Effect:
            await trio.lowlevel.checkpoint()
            raise SiteFailed("n1 does not answer")

        site: Any = FakeSite()
        with pytest.raises(FaultFailed, match=r"^fail: n1 does not answer$"):
            await Fault("fail", "", planned=False, forgets=False, longest_s=7, inject=fail).run(
                site, Random(1)
            )
