"""Runs of `ring verify` on real clusters: a clean one with several faults, and those that prove nothing."""

from random import Random

import pytest
import trio

from ring.verify import campaign
from ring.verify.campaign import Outcome, Progress, verify
from ring.verify.crowd import Crowd
from ring.verify.effect import Effect, FaultFailed
from ring.verify.faults import Fault
from ring.verify.judge import Terms
from ring.verify.library import LibraryClient
from ring.verify.misconduct import Misconduct
from ring.verify.node import SiteFailed
from ring.verify.oracle import Oracle
from ring.verify.plan import Plan
from ring.verify.raw import RawClient
from ring.verify.record import Key, Promise
from ring.verify.site import Site

RUN_S = 150.0
"""A run of half a minute, on a machine that is busy with other things."""


def in_short(*order: str, **others: object) -> Plan:
    """A run that is as short as it may be."""
    values: dict[str, object] = {
        "nodes": 3,
        "users": 60,
        "rate": 100.0,
        "pause_s": 1.0,
        "ttl_s": 2.0,
        "outage_s": 3.0,
    }
    return Plan(3, order, **{**values, **others})  # type: ignore[arg-type] # its own fields


async def run(asked: Plan) -> tuple[Outcome, list[Progress]]:
    """What came of it, and what was told meanwhile."""
    told: list[Progress] = []
    with trio.fail_after(RUN_S):
        return await verify(asked, told.append), told


async def test_clean() -> None:
    """Through a crash, clients that acknowledge nothing, a Redis that forgets and a planned change all is as
    promised; each fault has its row.
    """
    asked = in_short("kill", "mute-clients", "redis-empty", "stop")
    outcome, told = await run(asked)
    assert outcome.ok, (outcome.breached, outcome.failures, outcome.complaints, outcome.breaches[:2])
    assert [row.name for row in outcome.rows] == ["calm", *asked.order, "calm"]
    assert [each.row.name for each in told if each.row] == list(asked.order)
    assert (told[-1].done, told[-1].of) == (4, 4)
    calm, kill, mute, empty, stop, _ = outcome.rows
    assert min(calm.sent, kill.sent, mute.sent, empty.sent, stop.sent) > 50
    assert sum(row.queued for row in outcome.rows) > 10
    assert sum(row.lost + row.unmarked + row.doubled_to_application for row in outcome.rows) == 0
    assert len(kill.victims) == len(stop.victims) == 1
    assert kill.served_s is not None
    assert kill.silence_s is not None
    assert "clients, to whom " in mute.detail


async def test_behind_haproxy() -> None:
    """All clients are cut when it is restarted, with nothing on its disk too, and nobody misses anything; a
    node that leaves is not noticed."""
    asked = in_short("haproxy-empty-restart", "stop", "haproxy-restart", nodes=2, haproxy=True)
    outcome, _ = await run(asked)
    assert outcome.ok, (outcome.breached, outcome.failures, outcome.complaints, outcome.breaches[:2])
    for row in outcome.rows:
        if row.name.startswith("haproxy-"):
            cut = int(row.detail.split(", ")[1].split()[0])
            assert cut > 15
            assert row.sent > 50


async def test_fault_that_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that was not in effect, and a site that does not come out of one, are no success."""

    async def not_in_effect(site: Site, random: Random) -> Effect:
        raise FaultFailed("nothing happened")

    async def not_healed(site: Site, random: Random) -> Effect:
        began = trio.current_time()
        site.kill("n2")
        await site.nodes["n2"].process.process.wait()
        return Effect(("n2",), "it stays dead", began, trio.current_time())

    known = {
        "nothing": Fault("nothing", "does nothing", True, False, 5.0, not_in_effect),
        "death": Fault("death", "does not heal", False, False, 5.0, not_healed),
        "kill": Fault("kill", "never comes to it", False, False, 5.0, not_in_effect),
    }
    monkeypatch.setattr(campaign, "known_faults", lambda *_, **__: known)
    monkeypatch.setattr(campaign, "WHOLE_S", 2.0)
    monkeypatch.setattr(campaign, "ENTER_S", 5.0)
    outcome, _ = await run(in_short("nothing", "death", "kill", nodes=2, users=20, pause_s=0.5))
    assert not outcome.ok
    assert len(outcome.failures) == 2
    assert outcome.failures[0] == "nothing: nothing happened"
    assert outcome.failures[1].startswith("death: not whole within 2 s: n2 ")
    assert [row.name for row in outcome.rows] == ["calm", "nothing", "death", "calm"]


async def test_told_to_stop() -> None:
    """A run that is told to stop tries no further fault; what was until then is judged."""
    stop = trio.Event()

    def tell(now: Progress) -> None:
        if now.row is not None:
            stop.set()

    with trio.fail_after(RUN_S):
        outcome = await verify(in_short("freeze-short", "kill", "kill", nodes=2, users=20), tell, stop)
    assert [row.name for row in outcome.rows] == ["calm", "freeze-short", "calm"]
    assert outcome.tried == 1
    assert "told to stop after 1 of 3 faults" in outcome.notes
    assert outcome.ok


async def test_site_that_does_not_start() -> None:
    """Nodes that do not come up are no broken promise: the run fails, in one line."""
    with pytest.RaisesGroup(
        pytest.RaisesExc(SiteFailed, match="before it served"), allow_unwrapped=True, flatten_subgroups=True
    ):
        await run(in_short(options={"no_such": "option"}))


async def test_complaints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that nodes log, and what they die of, are no success either."""
    begin = campaign._Campaign._finish

    async def finish(self: campaign._Campaign) -> None:
        await begin(self)
        log = self._site.directory / "n9.1.log"
        log.write_text(
            '{"level":"info","event":"x"}\n{"level":"error","event":"bad"}\nTraceback:\n boom\n{"ha'
        )

    monkeypatch.setattr(campaign._Campaign, "_finish", finish)
    outcome, _ = await run(in_short(nodes=2, users=20, pause_s=0.5))
    assert outcome.complaints == ['n9.1: {"level":"error","event":"bad"}', "n9.1: Traceback:;  boom"]
    assert not outcome.ok
    assert not outcome.breached


async def test_ring_that_changes_by_itself() -> None:
    """What a change that nobody asked for breaks is not held against the nodes, but told."""
    asked = in_short(nodes=2, users=20)
    async with Site(nodes=2, options=asked.node_options) as site:
        outcome = Outcome(asked)
        running = campaign._Campaign(asked, site, outcome, lambda _: None, trio.Event())
        async with running._watched():
            pass
        assert outcome.notes == []
        async with running._watched():
            await site.stop("n2")
            await site.start("n2")
        assert len(outcome.notes) == 1
        assert "the ring changed by itself" in outcome.notes[0]
        assert [window.planned for window in running._oracle.windows] == [False]
        await site.store.stop()
        assert await running._stored_epoch() is None
        assert await running._owners() == {}
        await site.store.start()


class TestMisconduct:
    async def test_nobody_noticed(self, monkeypatch: pytest.MonkeyPatch, autojump_clock: object) -> None:
        """Clients that misbehave while nobody sends to them prove nothing; they recover all the same."""
        crowd = Crowd(Oracle(Terms()), list, users=20, rate=10.0, seed=1)
        with pytest.raises(FaultFailed, match="mute: nobody sent"):
            await Misconduct("mute", "", "mute").run(crowd, Random(1))
        devices = [device for user in crowd.users.values() for device in user.devices]
        assert {getattr(device, "manners", "good") for device in devices} == {"good"}

    async def test_deaf(self, autojump_clock: object) -> None:
        """Who misbehaves is chosen by the seed, among those to whom others send."""
        crowd = Crowd(Oracle(Terms()), list, users=40, rate=10.0, seed=1)
        chosen = crowd.misbehave("deaf", 0.2, Random(7))
        assert {device.manners for device in chosen} == {"deaf"}
        assert len(chosen) >= 3
        crowd.recover(chosen)
        again = crowd.misbehave("slow", 0.2, Random(7))
        assert again == chosen


def test_sends_that_do_not_return() -> None:
    """A `send` of the library that has not returned when all is over is told to the oracle."""
    oracle = Oracle(Terms())
    crowd = Crowd(oracle, list, users=20, rate=1, seed=1)
    devices = [device for user in crowd.users.values() for device in user.devices]
    app = next(device for device in devices if isinstance(device, LibraryClient))
    app._sent[Key(app.user, "bob", 0)] = None
    raw = next(device for device in devices if isinstance(device, RawClient))
    raw._unanswered["m1"] = (Key(raw.user, "bob", 0), "")  # the oracle knows that by itself
    assert crowd.waiting == [raw, app] or crowd.waiting == [app, raw]
    crowd.close_books(1.0)
    assert [(breach.promise, breach.key) for breach in oracle.breaches()] == [
        (Promise.ANSWERED, Key(app.user, "bob", 0))
    ]


def test_crowd_is_the_same() -> None:
    """The same seed makes the same users with the same friends."""
    first, second, other = (
        Crowd(Oracle(Terms()), list, users=40, rate=10.0, seed=seed) for seed in (1, 1, 2)
    )
    friends = [[user.friends for user in crowd.users.values()] for crowd in (first, second, other)]
    assert friends[0] == friends[1] != friends[2]
    assert {user.kind for user in first.users.values()} >= {"library", "twins", "commuter", "flaky"}
