"""Removing a member that is dead before its lease lapses: the scripts, rule by rule, and `Membership`."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio

from ring.cluster.scripts import GRACE_MS, Answer
from ring.cluster.view import Member, RingView, members_hash
from ring.store.connection import StoreUnavailable
from tests.cluster.seats import KEYS, QUICK, SLOW, T0, TTL, Cluster, Ring, Seat, agree, eventually, node

N1, N2, N3, N4 = (node(f"n{number}") for number in range(1, 5))


async def three(ring: Ring) -> RingView:
    """n1, n2 and n3 are members, their leases fresh."""
    for member in (N1, N2):
        await ring.join(member)
    return await ring.join(N3)


async def suspect(ring: Ring, reporter: Member, whom: Member = N3) -> str:
    """What came of a report."""
    return (await ring.scripts.suspect(reporter, whom)).status


async def evict(ring: Ring, who: Member = N1, whom: Member = N3) -> str:
    """What came of an eviction."""
    return (await ring.scripts.evict(who, whom, 0)).status


async def test_two_reporters_evict_who_does_not_renew(ring: Ring) -> None:
    """The epoch rises, the lease goes, and who asks first is told the members; who comes later, too."""
    view = await three(ring)
    assert await ring.scripts.suspect(N1, N3) == Answer("suspected", details=(GRACE_MS,))
    ring.later(100)
    assert await ring.scripts.suspect(N2, N3) == Answer("suspected", details=(GRACE_MS - 100,))
    ring.later(GRACE_MS - 101)
    assert await ring.scripts.evict(N1, N3, view.epoch) == Answer("wait", details=(1,))
    ring.later(1)
    answer = await ring.scripts.evict(N1, N3, view.epoch)
    assert (answer.status, answer.epoch, answer.previous) == ("evicted", view.epoch + 1, view.epoch)
    assert answer.members is not None
    assert {member.name for member in answer.members} == {"n1", "n2"} == await ring.names()
    assert set(await ring.leases()) == {"n1", "n2"}
    assert not await ring.redis.exists(ring.keys.suspects)
    for again in (await ring.scripts.evict(N2, N3, 0), await ring.scripts.suspect(N2, N3)):
        assert (again.status, again.epoch) == ("gone", view.epoch + 1)
        assert members_hash(again.members or ()) == members_hash([N1, N2])
    assert await ring.epoch() == view.epoch + 1


async def test_one_reporter_is_not_enough_where_others_live(ring: Ring) -> None:
    """However often it says so, and however long it waits."""
    await three(ring)
    for _ in range(3):
        assert await suspect(ring, N1) == "suspected"
        ring.later(GRACE_MS)
        assert await evict(ring) == "unproven"
    assert await suspect(ring, N2) == "suspected"
    assert await evict(ring) == "evicted"


async def test_the_last_one_that_lives_is_enough(ring: Ring) -> None:
    """Two nodes; or a third whose lease has lapsed, whether or not that has been noted."""
    await ring.join(N1)
    await ring.join(N2)
    await ring.watched(TTL - 1)
    view = await ring.join(N3)
    await ring.scripts.renew(N1, view.epoch, view)
    ring.later(1)
    assert await suspect(ring, N1) == "suspected"
    ring.later(GRACE_MS)
    assert await evict(ring) == "evicted"
    assert await ring.names() == {"n1", "n2"}
    assert await suspect(ring, N1, N2) == "suspected"
    ring.later(GRACE_MS)
    assert await evict(ring, N1, N2) == "evicted"
    assert await ring.names() == {"n1"}


@pytest.mark.parametrize("sign", ["renews", "renews by the scripts of an earlier release", "joins again"])
async def test_a_sign_of_life_refutes(ring: Ring, sign: str) -> None:
    """And what is said afterwards begins anew, with two reporters and a grace of its own."""
    view = await three(ring)
    await suspect(ring, N1)
    await suspect(ring, N2)
    ring.later(GRACE_MS - 1)
    if sign == "renews":
        await ring.scripts.renew(N3, view.epoch, view)
        assert not await ring.redis.exists(ring.keys.suspects)
    elif sign == "joins again":
        await ring.join(N3)
        assert not await ring.redis.exists(ring.keys.suspects)
    else:
        assert ring.scripts.now_ms is not None
        await ring.redis.zadd(ring.keys.leases, {"n3": ring.scripts.now_ms + TTL})
    ring.later(1)
    assert await evict(ring) == "refuted"
    assert await ring.scripts.suspect(N1, N3) == Answer("suspected", details=(GRACE_MS,))
    ring.later(GRACE_MS)
    assert await evict(ring) == "unproven"


async def test_a_suspicion_is_of_one_incarnation(ring: Ring) -> None:
    """Its next life is not touched by it, even if it has the lease of the first."""
    await three(ring)
    await suspect(ring, N1)
    await suspect(ring, N2)
    ring.later(GRACE_MS)
    again = node("n3", "i2")
    assert await evict(ring, whom=again) == "gone"
    assert await ring.scripts.leave(N3, 0) == Answer("left")
    assert not await ring.redis.exists(ring.keys.suspects)
    await ring.join(again)
    assert await evict(ring) == "gone"
    left_over = {"incarnation": "i1", "at": T0, "lapse": str(T0 + TTL), "reports": {"n1": "i1", "n2": "i1"}}
    await ring.redis.hset(ring.keys.suspects, "n3", msgspec.json.encode(left_over))
    assert await evict(ring, whom=again) == "refuted"


@pytest.mark.parametrize("stale", ["lapsed", "of another incarnation", "no member"])
async def test_only_a_live_member_is_heard(ring: Ring, stale: str) -> None:
    """A node that has been replaced, or stood still, must not remove those who went on."""
    await ring.join(N1)
    ring.later(1000)
    await ring.join(N2)
    await ring.join(N3)
    who = {"lapsed": N1, "of another incarnation": node("n1", "i0"), "no member": N4}[stale]
    await suspect(ring, N2)
    if stale == "lapsed":
        ring.later(TTL - 1000)
    assert await suspect(ring, who) == "stale"
    ring.later(GRACE_MS)
    assert await evict(ring, who) == "stale"
    assert "n3" in await ring.names()


async def test_a_reporter_that_is_gone_does_not_count(ring: Ring) -> None:
    """It left, and came back as another incarnation, which has said nothing."""
    await three(ring)
    await ring.join(N4)
    await suspect(ring, N1)
    await suspect(ring, N2)
    await ring.scripts.leave(N2, 0)
    await ring.join(node("n2", "i2"))
    ring.later(GRACE_MS)
    assert await evict(ring) == "unproven"
    assert await suspect(ring, node("n2", "i2")) == "suspected"
    assert await evict(ring) == "evicted"


async def test_what_was_said_a_ttl_ago_does_not_count(ring: Ring) -> None:
    """Nor does what was said at a time that is still to come, by a clock that went back."""
    view = await three(ring)
    await suspect(ring, N1)
    await suspect(ring, N2)
    for member in (N1, N2):
        await ring.scripts.renew(member, view.epoch, view)
    for ms in (TTL + 1, -3_600_000):
        ring.later(ms)
        for member in (N1, N2):
            await ring.redis.zadd(ring.keys.leases, {member.name: (ring.scripts.now_ms or 0) + TTL})
        assert await evict(ring) == "refuted"
        assert await ring.scripts.suspect(N1, N3) == Answer("suspected", details=(GRACE_MS,))


async def test_a_server_that_was_told_the_ring_suspects_nobody(ring: Ring) -> None:
    """What it had before, it had of another life."""
    view = await three(ring)
    await suspect(ring, N1)
    await suspect(ring, N2)
    await ring.redis.hset(ring.keys.epoch, "epoch", "1")
    await ring.scripts.restore(view.epoch, view)
    ring.later(GRACE_MS)
    assert await evict(ring) == "refuted"


# --- Membership.suspect


async def test_nodes_that_suspect_a_dead_one_enter_the_ring_without_it(cluster: Cluster) -> None:
    """Its lease would last for a minute."""
    first, second, dead = [await cluster.start(member) for member in (N1, N2, N3)]
    await agree(first, second, dead)
    dead.scope.cancel()
    verdicts = []

    async def note(seat: Seat) -> None:
        verdicts.append(await seat.suspect(N3))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for seat in (first, second):
                nursery.start_soon(note, seat)
    assert sorted(verdicts) == ["evicted", "gone"]
    for seat in (first, second):
        await seat.until_names("n1", "n2")  # whoever came second was told the members, too
    assert (await agree(first, second)).names == ("n1", "n2")


async def test_who_lives_refutes_and_stays(cluster: Cluster) -> None:
    """It renews when it loses its link, as it always does."""
    first, second = await cluster.start(N1), await cluster.start(N2)
    epoch = (await agree(first, second)).epoch
    await eventually(lambda: second._compared == epoch)
    redis = (await cluster.cable()).redis
    verdicts = []

    async def accuse() -> None:
        verdicts.append(await first.suspect(N2))

    cluster.nursery.start_soon(accuse)

    async def suspected() -> bool:
        return bool(await redis.exists(KEYS.suspects))

    await eventually(suspected)
    second.renew_soon()
    await eventually(lambda: verdicts == ["refuted"])
    assert (await agree(first, second)).epoch == epoch


async def test_an_eviction_that_was_wrong_is_mended(cluster: Cluster) -> None:
    """Whoever lives after all joins again as soon as it renews."""
    first, second = await cluster.start(N1), await cluster.start(N2)
    epoch = (await agree(first, second)).epoch
    with trio.fail_after(5):
        while await first.suspect(N2) != "evicted":
            pass  # it had a renewal under way
    await first.until_names("n1")
    second.renew_soon()
    await second.until(lambda view: view.epoch > epoch)
    assert (await agree(first, second)).names == ("n1", "n2")


async def test_a_suspicion_may_be_repeated_after_an_answer_was_lost(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server did it; what is asked again says so."""
    first, second = await cluster.start(N1), await cluster.start(N2)
    await agree(first, second)
    second.scope.cancel()

    def losing(step: Callable[..., Any]) -> Callable[..., Any]:
        async def lose(*args: Any) -> Answer:
            await step(*args)
            raise StoreUnavailable("the answer was lost")

        return lose

    for name in ("suspect", "evict"):
        with monkeypatch.context() as patch:
            patch.setattr(first._scripts, name, losing(getattr(first._scripts, name)))
            with trio.fail_after(5), pytest.raises(StoreUnavailable):
                await first.suspect(N2)
    assert await first.suspect(N2) == "gone"
    await first.until_names("n1")


@pytest.mark.parametrize("waiting", ["at first", "for longer than a ttl"])
async def test_a_restarted_node_has_its_name_as_soon_as_the_dead_one_is_evicted(
    cluster: Cluster, waiting: str
) -> None:
    """It asks often in the first ttl, in which that happens; then as often as before."""
    ttl_s = SLOW if waiting == "at first" else QUICK
    first, dead = await cluster.start(N1, ttl_s=ttl_s), await cluster.start(N2, ttl_s=ttl_s)
    await agree(first, dead)
    again = Seat((await cluster.cable()).redis, node("n2", "i2"), ttl_s=ttl_s)
    cluster.nursery.start_soon(again.sit)
    if waiting == "at first":
        dead.scope.cancel()
        with trio.fail_after(5):
            assert await first.suspect(N2) == "evicted"
    else:
        await eventually(lambda: again.lease_age_s > 3 * ttl_s)
        assert not again.views
        dead.scope.cancel()
    await again.until_names("n1", "n2")
    assert again.member


# --- Membership.go_on_without


async def test_a_frozen_ring_goes_on_without_the_dead(cluster: Cluster) -> None:
    """In the next epoch, whose members a peer is told; and Redis, when it is back."""
    cables = [await cluster.cable() for _ in range(2)]
    first, second = await cluster.start(N1, cables[0]), await cluster.start(N2, cables[1])
    dead = await cluster.start(N3)
    before = await agree(first, second, dead)
    dead.scope.cancel()
    for cable in cables:
        cable.cut()
    first.go_on_without({"n3"})
    first.go_on_without({"n2"})  # too late: a ring is about to be entered
    view = await first.until_names("n1", "n2")
    assert (view.epoch, view.previous) == (before.epoch + 1, before.epoch)
    second.offer(first.document())
    await second.until_names("n1", "n2")
    for cable in cables:
        cable.mend()
    first.renew_soon()
    await first.until(lambda later: later.epoch > view.epoch)
    stored = await agree(first, second)
    assert (stored.names, stored.previous) == (("n1", "n2"), view.epoch)
    assert first.views[first.views.index(view) :] == [view, stored]


async def test_a_frozen_ring_goes_on_above_all_that_was_seen(cluster: Cluster) -> None:
    """A peer that is gone by now has shown a later epoch, whose members nobody knows."""
    cable = await cluster.cable()
    seat = await cluster.start(N1, cable)
    cable.cut()
    epoch = seat.view.epoch
    seat.heard(epoch + 7, 1)
    seat.go_on_without(())
    view = await seat.until(lambda view: view.epoch > epoch)
    assert (view.epoch, view.names, view.previous) == (epoch + 8, ("n1",), epoch)
    seat.go_on_without((), disputed=True)
    disputed = await seat.until(lambda later: later.epoch > view.epoch)
    assert (disputed.names, disputed.previous) == (("n1",), 0)
