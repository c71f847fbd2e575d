"""The membership scripts on a real server, rule by rule (test_script_histories.py: random histories)."""

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ring.cluster.placement import place
from ring.cluster.scripts import Answer, Scripts, read_ring, set_weight
from ring.cluster.view import Member, RingView, members_hash
from ring.protocol.codes import BadRequest, RingError
from ring.protocol.names import SLOTS
from tests.cluster.seats import T0, TTL, Ring, connected, node


async def test_a_join_makes_a_member_and_raises_the_epoch(ring: Ring) -> None:
    """The epoch is the time in seconds, or one more than the last where that is higher."""
    first = await ring.join(node("n1"))
    assert (first.epoch, first.names) == (T0 // 1000, ("n1",))
    second = await ring.join(node("n2"))
    assert (second.epoch, second.names) == (T0 // 1000 + 1, ("n1", "n2"))
    ring.later(60_000)
    assert (await ring.join(node("n3"))).epoch == T0 // 1000 + 60


async def test_every_epoch_names_the_one_before(ring: Ring) -> None:
    """A node that was not in that one has missed a change; a restored ring goes on where it was."""
    first = await ring.join(node("n1"))
    second = await ring.scripts.join(node("n2"), 0)
    assert (second.epoch, second.previous) == (first.epoch + 1, first.epoch)
    third = await ring.scripts.renew(node("n2"), second.epoch + 10, ring.view(second))
    assert (third.epoch, third.previous) == (second.epoch + 11, second.epoch)
    view = ring.view(third)
    await ring.redis.flushdb()
    restored = await ring.scripts.restore(view.epoch, view)
    assert (restored.epoch, restored.previous) == (view.epoch + 1, view.epoch)


async def test_an_epoch_is_above_what_the_caller_saw(ring: Ring) -> None:
    """Also where nothing but that changes."""
    await ring.join(node("n1"))
    view = await ring.join(node("n1"), seen=2_000_000_000)
    assert view.epoch == 2_000_000_001
    answer = await ring.scripts.renew(node("n1"), 2_000_000_007, view)
    assert (answer.status, answer.epoch) == ("renewed", 2_000_000_008)


async def test_a_join_that_is_repeated_changes_nothing(ring: Ring) -> None:
    """After an unknown outcome a node joins again."""
    first = await ring.join(node("n1"))
    ring.later(1000)
    assert (await ring.join(node("n1"))).epoch == first.epoch
    assert await ring.leases() == {"n1": 1000 + TTL}
    changed = await ring.join(replace(node("n1"), weight=3))
    assert changed.epoch == first.epoch + 1


async def test_renewing_tells_the_members_only_to_who_has_others(ring: Ring) -> None:
    """A node with the current view gets no members back, one with an earlier view gets the current ones."""
    old = await ring.join(node("n1"))
    new = await ring.join(node("n2"))
    ring.later(1000)
    answer = await ring.scripts.renew(node("n1"), old.epoch, old)
    assert answer.status == "renewed"
    assert ring.view(answer).names == ("n1", "n2")
    assert answer.epoch == new.epoch
    assert await ring.scripts.renew(node("n2"), new.epoch, new) == Answer("renewed")
    assert await ring.leases() == {"n1": 1000 + TTL, "n2": 1000 + TTL}


async def test_a_lapsed_lease_ends_a_membership(ring: Ring) -> None:
    """Whoever renews removes those who have not, and the epoch rises; who is removed is told."""
    await ring.join(node("n1"))
    view = await ring.join(node("n2"))
    await ring.watched(TTL - 1)
    assert await ring.scripts.renew(node("n2"), view.epoch, view) == Answer("renewed")
    ring.later(1)
    answer = await ring.scripts.renew(node("n2"), view.epoch, view)
    assert ring.view(answer).names == ("n2",)
    assert answer.epoch > view.epoch
    assert await ring.leases() == {"n2": 2 * TTL}
    assert (await ring.scripts.renew(node("n1"), view.epoch, view)).status == "gone"


async def test_a_node_that_renews_late_is_not_removed_by_itself(ring: Ring) -> None:
    """Its lease had lapsed, but nobody had taken note: it is alive."""
    await ring.join(node("n1"))
    view = await ring.join(node("n2"))
    await ring.watched(TTL - 1)
    await ring.scripts.renew(node("n2"), view.epoch, view)
    ring.later(500)
    assert await ring.scripts.renew(node("n1"), view.epoch, view) == Answer("renewed")


async def test_leases_are_extended_where_nobody_looked_for_a_ttl(ring: Ring) -> None:
    """The server was away, or all nodes stood still: nobody is removed at once, the dead go a ttl later."""
    await ring.join(node("n1"))
    view = await ring.join(node("n2"))
    ring.later(10 * TTL)
    assert await ring.scripts.renew(node("n1"), view.epoch, view) == Answer("renewed")
    assert await ring.leases() == {"n1": 11 * TTL, "n2": 11 * TTL}
    for _ in range(3):
        ring.later(TTL // 3)
        answer = await ring.scripts.renew(node("n1"), view.epoch, view)
    assert ring.view(answer).names == ("n1",)


@pytest.mark.parametrize(
    ("away", "left"), [(TTL // 2, 1000), (TTL // 2 + 1, 2500), (TTL, 2500), (TTL + 1, TTL)]
)
async def test_leases_do_not_run_while_the_server_is_away(ring: Ring, away: int, left: int) -> None:
    """Nobody could renew then; but half a ttl between two looks may be a node that is slow."""
    await ring.join(node("n1"))
    await ring.watched(500)
    view = await ring.join(node("n2"))
    ring.later(away)
    await ring.scripts.renew(node("n2"), view.epoch, view)
    assert (await ring.leases())["n1"] - 500 - away == left


async def test_leases_do_not_outlive_a_clock_that_goes_back(ring: Ring) -> None:
    """They are cut to one ttl from now."""
    await ring.join(node("n1"))
    view = await ring.join(node("n2"))
    ring.later(-3_600_000)
    assert await ring.scripts.renew(node("n1"), view.epoch, view) == Answer("renewed")
    assert await ring.leases() == {"n1": TTL - 3_600_000, "n2": TTL - 3_600_000}
    assert (await ring.join(node("n3"))).epoch == view.epoch + 1


async def test_members_and_leases_are_made_to_fit(ring: Ring) -> None:
    """A member without a lease gets one, a lease without a member goes: a full server may drop a key."""
    await ring.join(node("n1"))
    view = await ring.join(node("n2"))
    await ring.redis.zrem(ring.keys.leases, "n2")
    await ring.scripts.renew(node("n1"), view.epoch, view)
    assert set(await ring.leases()) == {"n1", "n2"}
    await ring.redis.zadd(ring.keys.leases, {"ghost": T0 + 1000})
    await ring.scripts.renew(node("n1"), view.epoch, view)
    assert set(await ring.leases()) == {"n1", "n2"}
    ring.later(2 * TTL)
    await ring.redis.delete(ring.keys.epoch)
    assert (await ring.join(node("n3"))).names == ("n1", "n2", "n3")


async def test_a_live_nodes_name_is_waited_for(ring: Ring) -> None:
    """A second node of the name waits as long as the first one renews, and has the name when that stops."""
    view = await ring.join(node("n1"))
    ring.later(1000)
    assert await ring.scripts.join(node("n1", "i2"), 0) == Answer("wait", details=(TTL - 1000,))
    await ring.scripts.renew(node("n1"), view.epoch, view)
    await ring.watched(TTL - 1)
    assert (await ring.scripts.join(node("n1", "i2"), 0)).details == (1,)
    ring.later(1)
    taken = await ring.join(node("n1", "i2"))
    assert taken.epoch > view.epoch
    assert [member.incarnation for member in taken.members] == ["i2"]
    assert (await ring.scripts.renew(node("n1"), view.epoch, view)).status == "taken"
    assert (await ring.scripts.state(node("n1"), 0)).status == "taken"
    assert (await ring.scripts.leave(node("n1"), 0)).status == "taken"
    assert await ring.names() == {"n1"}


async def test_who_waits_for_a_name_removes_others_that_lapsed(ring: Ring) -> None:
    """Waiting is looking too, and the epoch rises for what it finds."""
    await ring.join(node("n1"))
    ring.later(1000)
    view = await ring.join(node("n2"))
    await ring.watched(TTL - 1000)
    assert (await ring.scripts.join(node("n2", "i2"), 0)).status == "wait"
    assert await ring.names() == {"n2"}
    assert (await ring.scripts.renew(node("n2"), view.epoch, view)).epoch == view.epoch + 2


async def test_a_name_is_free_at_once_when_its_node_leaves(ring: Ring) -> None:
    """A clean leave needs no lease to lapse."""
    view = await ring.join(node("n1"))
    assert await ring.scripts.leave(node("n1"), view.epoch) == Answer("left")
    assert await ring.leases() == {}
    assert (await ring.scripts.leave(node("n1"), view.epoch)).status == "gone"
    assert (await ring.join(node("n1", "i2"))).epoch == view.epoch + 2


@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize(
    ("field_", "stored"),
    [("slots", "1024"), ("schema", "2"), ("schema", "0"), ("algorithm", "md4"), ("ttl_ms", "9")],
)
async def test_a_node_that_differs_is_refused(ring: Ring, field_: str, stored: str, lasting: bool) -> None:
    """Nodes must agree on these; what concerns stored data holds with no node up too."""
    view = await ring.join(node("n1"))
    await ring.redis.hset(ring.keys.geometry, field_, stored)
    if not lasting:
        await ring.scripts.leave(node("n1"), view.epoch)
    answer = await ring.scripts.join(node("n2"), 0)
    if lasting or field_ in ("slots", "schema"):
        assert answer == Answer("refused", details=(field_.encode(), stored.encode()))
        assert "n2" not in await ring.names()
    else:
        assert answer.status == "joined"
        assert await ring.redis.hget(ring.keys.geometry, field_) != stored.encode()


async def test_a_node_with_another_ttl_does_not_end_the_leases_of_others(ring: Ring) -> None:
    """Before it is refused it looks for lapsed leases by the ttl in force; the epoch shows what it found."""
    view = await ring.join(node("n1"))
    ring.later(1)
    await ring.join(node("n2"))
    await ring.watched(TTL - 2)
    stranger = Scripts(ring.redis, ring.keys, ttl_ms=10, now_ms=T0 + TTL)
    assert (await stranger.join(node("n3"), 0)).status == "refused"
    assert await ring.leases() == {"n2": 1 + TTL}
    assert await ring.epoch() == view.epoch + 3


async def test_an_emptied_server_is_told_the_ring(ring: Ring) -> None:
    """Every member is back with a full lease, so no slot moves, and the epoch goes on above the old ones."""
    await ring.join(node("n1"))
    view = await ring.join(node("n2"))
    await ring.forget()
    ring.later(-60_000)
    assert (await ring.scripts.renew(node("n1"), view.epoch, view)).status == "behind"
    answer = await ring.scripts.restore(view.epoch + 5, view)
    assert answer.status == "restored"
    assert (answer.epoch, ring.view(answer).members) == (view.epoch + 6, view.members)
    assert await ring.leases() == {"n1": TTL - 60_000, "n2": TTL - 60_000}
    assert await ring.scripts.restore(view.epoch + 5, view) == Answer("ahead")
    assert ring.view(await ring.scripts.renew(node("n2"), view.epoch, view)).names == ("n1", "n2")
    stranger = Scripts(ring.redis, ring.keys, ttl_ms=10)
    assert (await stranger.join(node("n3"), 0)).status == "refused"


async def test_a_server_that_was_rolled_back_is_told_the_ring(ring: Ring) -> None:
    """What a fail-over lost is restored by who still knows it."""
    await ring.join(node("n1"))
    await ring.join(node("n3"))
    names = (ring.keys.members, ring.keys.leases, ring.keys.epoch, ring.keys.geometry)
    snapshot = [(name, await ring.redis.dump(name)) for name in names]
    await ring.scripts.leave(node("n3"), 0)
    view = await ring.join(node("n2"))
    for name, data in snapshot:
        assert data is not None
        await ring.redis.restore(name, 0, data, replace=True)
    assert (await ring.scripts.renew(node("n2"), view.epoch, view)).status == "behind"
    restored = await ring.scripts.restore(view.epoch, view)
    assert ring.view(restored).members == view.members == (node("n1"), node("n2"))
    assert set(await ring.leases()) == {"n1", "n2"}
    assert restored.epoch == view.epoch + 1


async def test_two_members_of_one_epoch_force_another(ring: Ring) -> None:
    """A view of the current epoch with other members than the server's is settled by a higher epoch."""
    view = await ring.join(node("n1"))
    other = RingView.build(ring.keys.cluster, view.epoch, [node("n1"), node("n9")], [])
    answer = await ring.scripts.renew(node("n1"), view.epoch, other)
    assert (answer.epoch, answer.previous) == (view.epoch + 1, 0)  # nobody knows who was in which
    assert ring.view(answer).names == ("n1",)


async def test_a_state_is_set_once(ring: Ring) -> None:
    """Setting what already is raises no epoch."""
    view = await ring.join(node("n1"))
    draining = replace(node("n1"), state="draining")
    for _ in range(2):
        answer = await ring.scripts.state(draining, view.epoch)
        assert (answer.status, answer.epoch, answer.members) == ("changed", view.epoch + 1, (draining,))
    assert (await ring.scripts.state(node("n9"), 0)).status == "gone"


async def test_a_weight_can_be_set_with_no_node_up(ring: Ring) -> None:
    """To set a weight needs Redis alone; what cannot be is refused in one line."""
    await ring.join(node("n1"))
    epoch = await set_weight(ring.redis, ring.keys, "n1", 7)
    reading = await read_ring(ring.redis, ring.keys)
    assert (reading.view.epoch, reading.view.members) == (epoch, (replace(node("n1"), weight=7),))
    assert await set_weight(ring.redis, ring.keys, "n1", 7) == epoch
    with pytest.raises(RingError, match="n9 is no member of cluster"):
        await set_weight(ring.redis, ring.keys, "n9", 7)
    for weight in (0, 1001):
        with pytest.raises(BadRequest, match="weight: 1 to 1000"):
            await set_weight(ring.redis, ring.keys, "n1", weight)


async def test_the_first_table_of_an_epoch_is_what_others_are_held_against(ring: Ring) -> None:
    """Written, then the same, or one that differs; a table of an epoch that has passed is not looked at."""
    view = ring.view(await ring.scripts.join(node("n1"), 0))
    full = RingView.build("c", view.epoch, view.members)
    wrong = RingView.build("c", view.epoch, view.members, ["n2"] * SLOTS)
    assert (await ring.scripts.table(full)).status == "written"
    assert (await ring.scripts.table(full)).status == "same"
    assert (await ring.scripts.table(wrong)).status == "differs"
    await ring.join(node("n2"))
    assert (await ring.scripts.table(full)).status == "stale"


async def test_a_ring_is_read_from_the_server_alone(ring: Ring) -> None:
    """Members, the table that nodes route by, and for how long each has not renewed."""
    await ring.join(node("n1"))
    ring.later(500)
    view = await ring.join(node("n2"))
    ring.later(250)
    before = await ring.scripts.read("c")
    assert before.view.owners == place(view.members)
    assert before.renewed_s == {"n1": 0.75, "n2": 0.25}
    assert before.ttl_s == 3
    told = ["n1"] * (SLOTS - 1) + ["n2"]
    await ring.scripts.table(RingView.build("c", view.epoch, view.members, told))
    after = await ring.scripts.read("c")
    assert after.view.owners == told
    assert (after.view.epoch, after.view.names, after.view.cluster) == (view.epoch, ("n1", "n2"), "c")


async def test_a_ring_that_never_was_reads_as_empty(ring: Ring) -> None:
    """No members, epoch 0."""
    reading = await read_ring(ring.redis, ring.keys)
    assert (reading.view.epoch, reading.view.members, reading.renewed_s) == (0, (), {})


async def test_the_servers_own_clock_is_used(ring: Ring) -> None:
    """Without a time given leases count by Redis TIME."""
    await Scripts(ring.redis, ring.keys, ttl_ms=60_000).join(node("n1"), 0)
    reading = await read_ring(ring.redis, ring.keys)
    assert 0 <= reading.renewed_s["n1"] < 5
    assert reading.view.epoch > T0 // 1000


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(text, text, text, st.integers(1, 1000)), min_size=1, max_size=4, unique_by=lambda m: m[0]
    )
)
def test_the_server_computes_the_same_members_hash(
    redis_url: str, parts: list[tuple[str, str, str, int]]
) -> None:
    """The scripts' hash and `members_hash` agree, whatever names and addresses contain."""
    members = [Member(name, inc, edge, edge, inc, weight, "up", "1") for name, inc, edge, weight in parts]

    async def compute() -> str | bytes | None:
        async with connected(redis_url) as redis:
            ring = Ring(redis)
            for member in members:
                await ring.join(member)
            return await redis.hget(ring.keys.epoch, "members")

    assert int(trio.run(compute) or 0) == members_hash(members)
