"""What links do when the ring changes, and when a node ends."""

import socket

import msgspec
import pytest
import structlog
import trio
import trio.testing

from ring.protocol.peer import MembersWanted
from tests.peers.fakes import numbered, receipt
from tests.peers.nodes import Node, link_all, start, until_logged, until_outcome, view


async def test_data_of_a_higher_epoch_waits_until_the_view_is_entered(pair: tuple[Node, Node]) -> None:
    """The node that is behind asks the one ahead; what it was sent comes once it has followed."""
    one, other = pair
    await link_all(5, one, other)
    one.mesh.update(view(6, one, other))
    one.link("n2").send(numbered(1))
    one.link("n2").send_urgent(receipt(1))
    await other.recorder.until_items(1)
    await one.recorder.until_items(1)
    assert isinstance(one.recorder.items[0], MembersWanted)
    assert other.recorder.heard[-1] == (6, one.mesh.members_hash)
    assert other.recorder.numbers == []
    other.mesh.update(view(6, one, other))
    assert other.recorder.numbers == [1]
    assert one.recorder.heard[-1][0] == 5


async def test_a_peer_that_was_removed_stays_linked_as_a_guest(pair: tuple[Node, Node]) -> None:
    """It may live on as a gateway for its clients; but nobody dials it any more."""
    one, other = pair
    await link_all(5, one, other)
    one.mesh.update(view(6, one))
    for number in range(100):
        one.link("n2").send(numbered(number, 50_000))
    await other.recorder.until_items(100)
    assert other.recorder.numbers == list(range(100))
    assert one.recorder.story == ["up n2/i1"]
    other.scope.cancel()
    await one.recorder.until_events(2)
    assert one.mesh.dial_outcome("n2") is None


async def test_a_node_that_was_removed_dials_all_members(nursery: trio.Nursery) -> None:
    """They do not dial it: it comes to them, lower names too; as a member again it leaves those to dial."""
    low, high = await start(nursery, Node("n1"), Node("n3"))
    out = Node("n2")
    await nursery.start(out.run)
    for member in (low, high):
        member.mesh.update(view(6, low, high))
    out.mesh.update(view(6, low, high))
    await out.mesh.wait_linked(["n1", "n3"])
    for node in (low, high, out):
        node.mesh.update(view(7, low, high, out))
    assert out.mesh._dials.keys() == {"n3"}
    await until_outcome(low, "n2", "up")
    out.link("n1").drop("a cut")
    while "down n2/i1" not in low.recorder.story:
        await low.recorder.change()
    await low.mesh.wait_linked(["n2"])
    await out.mesh.wait_linked(["n1"])


@pytest.mark.parametrize("attempt", range(10))
async def test_views_that_come_while_the_node_ends(attempt: int) -> None:
    """The membership ends a moment later than the mesh: what it still tells makes no dials. (Which task ends
    first is chance: one attempt in three hits the moment.)"""
    one = Node("n1")

    async def goes_on_telling() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for epoch in range(5, 15):
                    one.mesh.update(view(epoch, one, msgspec.structs.replace(one.member, name=f"n{epoch}")))
                    await trio.lowlevel.checkpoint()

    one.mesh.update(view(4, one, msgspec.structs.replace(one.member, name="n4", peer="127.0.0.1:1")))
    async with trio.open_nursery() as nursery:
        await nursery.start(one.pump.run)
        await nursery.start(one.mesh.run)
        nursery.start_soon(goes_on_telling)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert one.mesh.links == {}


async def test_a_member_that_may_be_cut_off_dials_lower_names_too(nursery: trio.Nursery) -> None:
    """Else it could not tell a peer that is dead from one that it cannot reach."""
    one, other = await start(nursery, Node("n1"), Node("n2"))
    gone = msgspec.structs.replace(one.member, name="n0", peer="127.0.0.1:1")
    other.mesh.update(view(5, other, gone))
    assert other.mesh.dial_outcome("n0") is None
    other.mesh.dial_all(True)
    await until_outcome(other, "n0", "refused")
    other.mesh.dial_all(True)
    other.mesh.dial_all(False)
    assert other.mesh.dial_outcome("n0") is None


async def test_two_nodes_that_dial_each_other_end_up_with_one_link(nursery: trio.Nursery) -> None:
    """Whatever links replace each other on the way, one stands at last, the same on both sides."""
    one, other = await start(nursery, Node("n1"), Node("n2"))
    other.mesh.dial_all(True)
    for node in (one, other):
        node.mesh.update(view(5, one, other))
    await one.mesh.wait_linked(["n2"])
    await other.mesh.wait_linked(["n1"])
    sent = 0
    while not other.recorder.numbers:
        if "n2" in one.mesh.links:
            one.link("n2").send(numbered(sent, 10))
            sent += 1
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_node_that_has_just_joined_is_linked_before_the_view_shows_it(
    pair: tuple[Node, Node],
) -> None:
    """Its frames bring the news; views that lack it do not cut it off."""
    one, other = pair
    other.mesh.update(view(5, other))
    one.mesh.update(view(6, one, other))
    await other.recorder.until_events(1)
    await one.recorder.until_events(1)
    assert other.recorder.story == ["up n1/i1"]
    while not other.recorder.heard:
        await trio.lowlevel.checkpoint()
    assert other.recorder.heard[0] == (6, one.mesh.members_hash)
    first = other.link("n1")
    other.mesh.update(view(5, other))
    assert other.mesh.links.get("n1") is first
    other.mesh.update(view(7, other))
    assert other.mesh.links.get("n1") is first


async def test_a_node_that_restarted_is_dialled_at_its_new_address(nursery: trio.Nursery) -> None:
    """The view names another incarnation: the link to the old one is dropped at once."""
    one, other = await start(nursery, Node("n1"), Node("n2", "old"))
    await link_all(5, one, other)
    new = Node("n2", "new")
    await nursery.start(new.run)
    one.mesh.update(view(6, one, new))
    assert one.recorder.story == ["up n2/old", "down n2/old"]
    new.mesh.update(view(6, one, new))
    await one.mesh.wait_linked(["n2"])
    assert one.recorder.story == ["up n2/old", "down n2/old", "up n2/new"]
    assert one.link("n2").incarnation == "new"


async def test_a_link_that_is_ahead_of_the_view_is_kept_and_not_dialled_again(nursery: trio.Nursery) -> None:
    """A node restarted and is linked before the ring shows it: no view on the way cuts that."""
    one, other = await start(nursery, Node("n1"), Node("n2", "new"))
    old = msgspec.structs.replace(other.member, incarnation="old")
    other.mesh.update(view(7, one, other))
    one.mesh.update(view(5, one, old))
    await one.mesh.wait_linked(["n2"])
    link = one.link("n2")
    one.mesh.update(view(6, one, old))
    assert one.mesh.links.get("n2") is link
    one.mesh.update(view(7, one, other))
    await trio.testing.wait_all_tasks_blocked()
    assert one.mesh.links.get("n2") is link
    assert one.recorder.story == ["up n2/new"]
    one.cut("n2")
    await one.recorder.until_events(3)
    assert one.recorder.story == ["up n2/new", "down n2/new", "up n2/new"]


async def test_a_newer_incarnation_takes_the_place_of_an_older_one(nursery: trio.Nursery) -> None:
    """Even while the old link seems up; the older one does not get in again."""
    old, other = await start(nursery, Node("n1", "old"), Node("n2"))
    await link_all(5, old, other)
    new = Node("n1", "new")
    await nursery.start(new.run)
    with structlog.testing.capture_logs() as logs:
        new.mesh.update(view(6, new, other))
        await other.recorder.until_events(3)
        assert other.recorder.story == ["up n1/old", "down n1/old", "up n1/new"]
        await until_logged(logs, "is incarnation 'old', the ring has 'new'")
    assert other.link("n1").incarnation == "new"


async def test_an_incarnation_that_another_has_followed_sees_a_later_ring(nursery: trio.Nursery) -> None:
    """All refuse it; but what they showed before tells it that it is they who live on, and not it."""
    old, member = await start(nursery, Node("n1", "old"), Node("n2"))
    new = msgspec.structs.replace(old.member, incarnation="new")
    member.mesh.update(view(6, member, new))
    old.mesh.update(view(6, old, member))
    await until_outcome(old, "n2", "refused_by_peer")
    seen = [old.mesh.outpaced]
    member.mesh.update(view(7, member, new))
    while not seen[-1]:
        await trio.testing.wait_all_tasks_blocked(0.01)
        seen.append(old.mesh.outpaced)
    assert seen[0] is False
    assert old.mesh.dial_outcome("n2") == "refused_by_peer"


async def test_a_stranger_at_a_members_address_shows_no_later_ring(nursery: trio.Nursery) -> None:
    """A node of another cluster has the address now: its epochs are nothing to this one."""
    one, stranger = await start(nursery, Node("n1"), Node("n2", cluster="another"))
    stranger.mesh.update(view(9, stranger))
    one.mesh.update(view(5, one, stranger))
    await until_outcome(one, "n2", "refused_by_peer")
    assert not one.mesh.outpaced


async def test_a_dial_on_its_way_is_given_up_with_its_member(nursery: trio.Nursery) -> None:
    """Whatever it has reached so far."""
    one = Node("n1")
    await nursery.start(one.run)
    with socket.socket() as frozen:
        frozen.bind(("127.0.0.1", 0))
        frozen.listen(100)
        ghost = msgspec.structs.replace(one.member, name="n2", peer=f"127.0.0.1:{frozen.getsockname()[1]}")
        with structlog.testing.capture_logs() as logs:
            one.mesh.update(view(5, one, ghost))
            accepted, _ = await trio.to_thread.run_sync(frozen.accept)
            one.mesh.update(view(6, one))
            await trio.testing.wait_all_tasks_blocked()
            accepted.close()
        assert one.mesh.dial_outcome("n2") is None
        assert logs == []


async def test_a_mesh_that_ends_says_goodbye(pair: tuple[Node, Node]) -> None:
    """Its links close with 1001, nobody is let in any more, and no log calls it a loss."""
    one, other = pair
    await link_all(5, one, other)
    with structlog.testing.capture_logs() as logs:
        other.mesh_scope.cancel()
        await one.recorder.until_events(2)
        await other.recorder.until_events(2)
        await until_outcome(one, "n2", "refused_by_peer")
        refused = await until_logged(logs, "the node stops")
    assert "503" in refused["why"]
    assert "peer link lost" not in [entry["event"] for entry in logs]
    assert other.recorder.story == ["up n1/i1", "down n1/i1"]


async def test_a_node_that_ends_is_found_dead(nursery: trio.Nursery) -> None:
    """Its link goes, and the next dial is refused."""
    one, other = await start(nursery, Node("n1"), Node("n2"))
    await link_all(5, one, other)
    other.scope.cancel()
    await one.recorder.until_events(2)
    await until_outcome(one, "n2", "refused")
