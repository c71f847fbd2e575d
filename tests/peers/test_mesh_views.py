"""What links do when the ring changes, and when a node ends."""

import socket

import msgspec
import structlog
import trio

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


async def test_a_peer_that_left_is_closed_once_its_lanes_are_flushed(pair: tuple[Node, Node]) -> None:
    """1001; what was sent before still arrives."""
    one, other = pair
    await link_all(5, one, other)
    for number in range(100):
        one.link("n2").send(numbered(number, 50_000))
    one.mesh.update(view(6, one))
    assert one.mesh.links.get("n2") is None
    await other.recorder.until_events(2)
    await one.recorder.until_events(2)
    assert other.recorder.numbers == list(range(100))
    assert one.recorder.story == ["up n2/i1", "down n2/i1"]
    assert one.mesh.dial_outcome("n2") is None


async def test_a_node_that_has_just_joined_is_linked_before_the_view_shows_it(
    pair: tuple[Node, Node],
) -> None:
    """Its frames bring the news; a view that lacks it and is as new as what it knows closes the link."""
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
    assert other.mesh.links.get("n1") is None
    await other.recorder.until_events(2)
    assert other.recorder.story[:2] == ["up n1/i1", "down n1/i1"]


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
