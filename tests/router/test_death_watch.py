"""Watching a member whose link has ended: probes, suspicions, and when to leave it to its lease."""

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, cast

import pytest
import structlog
import trio
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from ring.cluster.lease import Standing
from ring.cluster.scripts import GRACE_MS
from ring.cluster.view import Member, RingView
from ring.protocol.names import SLOTS
from ring.router import death_watch
from ring.router.death_watch import (
    ALIVE_S,
    ANSWER_S,
    LINKED_S,
    PROBE_EVERY_S,
    REFUTALS,
    DeathWatch,
)
from ring.router.routing import Routing
from ring.store.connection import StoreError, StoreUnavailable
from tests.router.node import FakeLink

N1, N2, N3 = (Member(name, f"{name}/1", "e", f"{name}:1", "a", 1, "up", "0") for name in ("n1", "n2", "n3"))

TTL_S = 3.0


class Watching:
    """Node n1 in a ring with n2 and n3, by a clock that jumps to whatever comes next.

    Attributes:
        gone: whose process is gone, as a probe finds out.
        verdicts: what comes of each suspicion, in turn; the last one of all that follow.
    """

    def __init__(self) -> None:
        self.routing = Routing(node="n1", incarnation="n1/1", links={})
        self.links = cast("dict[str, FakeLink]", self.routing.links)
        self.gone: set[str] = set()
        self.verdicts: list[str | Exception] = ["evicted"]
        self.standing: Standing = "held"
        self.probes: list[tuple[float, str]] = []
        self.suspected: list[tuple[float, str]] = []
        self.renewals: list[float] = []
        self.without: list[tuple[set[str], bool]] = []
        self.silent = False
        self.watch = DeathWatch(
            self.routing,
            probe=self.probe,
            suspect=self.suspect,
            renew=lambda: self.renewals.append(trio.current_time()),
            go_on_without=lambda dead, disputed: self.without.append((set(dead), disputed)),
            standing=lambda: self.standing,
            ttl_s=TTL_S,
        )
        self.enter(5, N1, N2, N3)
        for member in (N2, N3):
            self.links[member.name] = FakeLink(member.name, member.incarnation)

    def enter(self, epoch: int, *members: Member) -> None:
        """The ring is this."""
        self.routing.view = RingView.build("c", epoch, members, ["n1"] * SLOTS)

    async def probe(self, member: Member) -> bool:
        self.probes.append((trio.current_time(), member.name))
        if self.silent:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return member.name in self.gone

    async def suspect(self, member: Member) -> str:
        self.suspected.append((trio.current_time(), member.name))
        verdict = self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]
        if verdict == "never":
            await trio.sleep_forever()
        await trio.sleep(0.25)
        if isinstance(verdict, Exception):
            raise verdict
        if verdict in ("evicted", "gone"):
            self.enter(6, N1, N3)
        return verdict

    def lose(self, name: str) -> None:
        """The link to this peer ends."""
        self.watch.link_down(cast("Any", self.links.pop(name)))


@pytest.fixture
async def watching(nursery: trio.Nursery, autojump_clock: MockClock) -> AsyncIterator[Watching]:
    """It runs. (A test has to ask for the clock itself.)"""
    watching = Watching()
    await nursery.start(watching.watch.run)
    yield watching
    nursery.cancel_scope.cancel()


async def test_who_is_gone_is_suspected_at_once(autojump_clock: MockClock, watching: Watching) -> None:
    """And removed; nobody else is looked at."""
    watching.gone = {"n2", "n3"}
    began = trio.current_time()
    with structlog.testing.capture_logs() as logs:
        watching.lose("n2")
        await trio.sleep(10)
    assert watching.probes == watching.suspected == [(began, "n2")]
    assert (watching.watch.evicted, watching.watch.refuted) == (1, 0)
    assert [entry["event"] for entry in logs] == [
        "peer seems dead: suspecting it",
        "dead peer removed from the ring",
    ]


async def test_who_is_not_refused_is_probed_for_a_while(
    autojump_clock: MockClock, watching: Watching
) -> None:
    """Then it goes by its lease: a kernel answers for a process that is frozen."""
    began = trio.current_time()
    watching.lose("n2")
    await trio.sleep(60)
    times = [at - began for at, _ in watching.probes]
    assert times == pytest.approx([PROBE_EVERY_S * number for number in range(len(times))])
    assert times[-1] == pytest.approx(TTL_S, abs=2 * PROBE_EVERY_S)
    assert watching.suspected == []


async def test_a_process_may_take_a_moment_to_be_gone(autojump_clock: MockClock, watching: Watching) -> None:
    """The kernel ends its connections before it no longer listens."""
    watching.lose("n2")
    await trio.sleep(0.2)
    watching.gone.add("n2")
    await trio.sleep(10)
    assert len(watching.suspected) == 1


async def test_who_is_silent_is_given_up(autojump_clock: MockClock, watching: Watching) -> None:
    """A black hole is no refusal."""
    watching.silent = True
    watching.lose("n2")
    await trio.sleep(60)
    assert len(watching.probes) == 1
    watching.silent = False
    watching.gone.add("n2")
    watching.links["n2"] = FakeLink("n2", "n2/1")
    watching.lose("n2")  # watched anew
    await trio.sleep(60)
    assert len(watching.suspected) == 1


async def test_a_link_that_stands_again_ends_it(autojump_clock: MockClock, watching: Watching) -> None:
    """Whether before or after the probe."""
    watching.lose("n2")
    await trio.sleep(0.2)
    watching.links["n2"] = FakeLink("n2", "n2/1")
    watching.gone.add("n2")
    probed = len(watching.probes)
    await trio.sleep(60)
    assert (len(watching.probes), watching.suspected) == (probed, [])


async def test_a_link_that_flaps_is_watched_once(autojump_clock: MockClock, watching: Watching) -> None:
    """However often it breaks meanwhile."""
    for _ in range(3):
        watching.lose("n2")
        watching.links["n2"] = FakeLink("n2", "n2/1")
    watching.lose("n2")
    await wait_all_tasks_blocked()
    assert len(watching.probes) == 1


@pytest.mark.parametrize("who", ["a guest", "another life", "nobody: there is no ring yet"])
async def test_only_members_are_watched(autojump_clock: MockClock, watching: Watching, who: str) -> None:
    """Of the life that is in the ring."""
    watching.gone = {"n2", "n9"}
    if who == "a guest":
        watching.links["n9"] = FakeLink("n9", "n9/1")
        watching.lose("n9")
    elif who == "another life":
        watching.links["n2"].incarnation = "n2/2"
        watching.lose("n2")
    else:
        watching.routing.view = None
        watching.lose("n2")
        watching.watch.look()
    await trio.sleep(10)
    assert watching.probes == []


@pytest.mark.parametrize("change", ["removed", "another life"])
async def test_who_is_no_member_any_more_is_left_alone(
    autojump_clock: MockClock, watching: Watching, change: str
) -> None:
    """Others were quicker."""
    watching.lose("n2")
    await wait_all_tasks_blocked()
    watching.gone.add("n2")
    watching.enter(6, N1, N3, *([replace(N2, incarnation="n2/2")] if change == "another life" else []))
    await trio.sleep(10)
    assert watching.suspected == []


async def test_a_node_whose_lease_is_not_held_suspects_nobody(
    autojump_clock: MockClock, watching: Watching
) -> None:
    """It may be the one that is cut off."""
    watching.gone.add("n2")
    watching.standing = "unsure"
    watching.lose("n2")
    await trio.sleep(10)
    assert watching.suspected == []
    watching.standing = "held"
    watching.watch.on_standing("held")
    await trio.sleep(10)
    assert len(watching.suspected) == 1


async def test_a_suspicion_goes_on_until_another_node_shares_it(
    autojump_clock: MockClock, watching: Watching
) -> None:
    """Or Redis can be reached, or answers; each time it is looked whether it is still so."""
    watching.gone.add("n2")
    watching.verdicts = ["unproven", StoreUnavailable("away"), StoreError("full"), "stale", "never", "gone"]
    began = trio.current_time()
    watching.lose("n2")
    await trio.sleep(60)
    assert len(watching.suspected) == len(watching.probes) == 6
    assert watching.suspected[-1][0] - began == pytest.approx(4 * 0.25 + ANSWER_S + 5 * death_watch.REPEAT_S)
    assert watching.watch.evicted == 0


async def test_who_has_lost_somebody_shows_that_it_lives(
    autojump_clock: MockClock, watching: Watching
) -> None:
    """The other one may suspect it at any moment: so it renews before any grace is over."""
    for _ in range(2):
        watching.renewals.clear()
        began = trio.current_time()
        watching.lose("n2")
        await trio.sleep(60)
        assert watching.renewals[0] == began
        gaps = [later - at for at, later in pairwise(watching.renewals)]
        assert gaps == pytest.approx([ALIVE_S] * len(gaps))
        assert watching.renewals[-1] - began == pytest.approx(TTL_S, abs=2 * ALIVE_S)
        watching.links["n2"] = FakeLink("n2", "n2/1")
    assert 2 * ALIVE_S < GRACE_MS / 1000


async def test_who_renews_all_the_same_is_left_to_its_lease(
    autojump_clock: MockClock, watching: Watching
) -> None:
    """Its listener is gone, or hidden from this node: that is no death."""
    watching.gone.add("n2")
    watching.verdicts = ["refuted"]
    with structlog.testing.capture_logs() as logs:
        watching.lose("n2")
        await trio.sleep(60)
    assert len(watching.suspected) == watching.watch.refuted == REFUTALS
    assert logs[-1]["event"] == "peer renews, though nobody listens at its address"


async def test_who_lives_behind_an_address_that_refuses_is_not_suspected_again(
    autojump_clock: MockClock, watching: Watching
) -> None:
    """With one of many changes of the ring it would not renew in time. Once it was linked, it is."""
    watching.gone.add("n2")
    watching.verdicts = ["refuted"]
    watching.lose("n2")
    await trio.sleep(60)
    for epoch in (6, 7):
        watching.enter(epoch, N1, N2, N3)
        watching.watch.look()
        await trio.sleep(60)
    assert len(watching.suspected) == REFUTALS
    watching.links["n2"] = FakeLink("n2", "n2/1")
    watching.lose("n2")
    await trio.sleep(60)
    assert len(watching.suspected) == 2 * REFUTALS


async def test_members_that_no_link_leads_to_are_looked_at(
    autojump_clock: MockClock, watching: Watching
) -> None:
    """They died while this node did not look; those that are new get the time to be linked."""
    del watching.links["n2"]
    watching.gone.add("n2")
    began = trio.current_time()
    watching.watch.look()
    watching.watch.look()
    await trio.sleep(10)
    assert watching.probes == watching.suspected == [(began + LINKED_S, "n2")]


async def test_who_is_lost_before_it_was_looked_at_is_looked_at_at_once(
    autojump_clock: MockClock, watching: Watching
) -> None:
    """It had just joined."""
    link = watching.links.pop("n2")
    watching.watch.look()
    await trio.sleep(LINKED_S / 2)
    watching.links["n2"] = link
    watching.gone.add("n2")
    began = trio.current_time()
    watching.lose("n2")
    await trio.sleep(10)
    assert watching.suspected == [(began, "n2")]


async def test_a_watch_that_fails_costs_nothing_else(
    autojump_clock: MockClock, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged whole."""

    async def fail(member: Member) -> bool:
        raise ZeroDivisionError

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr(watching.watch, "_probe", fail)
        watching.lose("n2")
        await wait_all_tasks_blocked()
        assert [entry["event"] for entry in logs] == ["watching a peer failed"]
    watching.gone.add("n3")
    watching.lose("n3")
    await trio.sleep(10)
    assert len(watching.suspected) == 1


async def test_links_that_end_with_the_node_are_nobodys_business(autojump_clock: MockClock) -> None:
    """Nor those before it runs."""
    watching = Watching()
    watching.gone = {"n2", "n3"}
    watching.lose("n2")
    async with trio.open_nursery() as nursery:
        await nursery.start(watching.watch.run)
        nursery.cancel_scope.cancel()
    watching.lose("n3")
    assert watching.probes == []


async def test_who_died_before_this_node_began_is_looked_at(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The first ring is entered before the watch runs."""
    watching = Watching()
    del watching.links["n2"]
    watching.gone.add("n2")
    await nursery.start(watching.watch.run)
    await trio.sleep(10)
    assert len(watching.suspected) == 1


async def test_a_frozen_ring_goes_on_without_the_dead(autojump_clock: MockClock, watching: Watching) -> None:
    """What this one is told, the frozen ring is told."""
    watching.standing = "frozen"
    watching.watch.on_standing("frozen")
    await wait_all_tasks_blocked()
    watching.gone.add("n2")
    watching.lose("n2")
    await wait_all_tasks_blocked()
    assert watching.without == [({"n2"}, False)]
    watching.enter(6, N1, N3)
    watching.watch.news(6, 1)
    await trio.sleep(0.5)
    assert watching.without[:2] == [({"n2"}, False), (set(), True)]
