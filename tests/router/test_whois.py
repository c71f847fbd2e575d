"""Where a user is: asked on any node, answered by the owner."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ring.protocol import peer
from ring.protocol.codes import ErrorCode, RingError
from tests.router.node import FakeSender, Node


async def test_of_a_user_of_this_node_it_answers_itself() -> None:
    """Every session, wherever its gateway is, with what is on its way to it."""
    node = Node()
    bob = node.open("bob")
    node.says("n2", peer.Attach(7, "bob", "laptop", "n2.1", "far", 0, None, None, "client", None))
    node.send(FakeSender(), "m1", "bob")
    node.send(FakeSender(), "m2", "bob")
    node.says("n2", peer.Ack(7, 5, 1, "client"))
    assert await node.whois.ask("bob") == [
        peer.SessionEntry(bob.name, "phone", "n1", "here", 2),
        peer.SessionEntry("n2.1", "laptop", "n2", "far", 1),
    ]
    assert await node.whois.ask("nobody") == []


async def test_of_others_it_asks_the_owner() -> None:
    """Each question has its own answer, in whichever order they come."""
    node = Node(bob="n2", carol="n2")
    answers: dict[str, list[peer.SessionEntry]] = {}

    async def ask(user: str) -> None:
        answers[user] = await node.whois.ask(user)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "bob")
        nursery.start_soon(ask, "carol")
        await wait_all_tasks_blocked()
        refs = {item.user: item.ref for item in node.links["n2"].said(peer.WhoIs)}
        node.says("n2", peer.ThisIs(99, []))
        node.says("n2", peer.ThisIs(refs["carol"], []))
        entry = peer.SessionEntry("n3.1", "d", "n3", "far", 0)
        node.says("n2", peer.ThisIs(refs["bob"], [entry]))
        node.says("n2", peer.ThisIs(refs["bob"], []))
    assert answers == {"bob": [entry], "carol": []}
    node.says("n2", peer.ThisIs(refs["bob"], []))


async def test_an_owner_that_does_not_answer_is_the_callers_to_time() -> None:
    """Given up, the question leaves nothing behind, and a late answer finds nobody."""
    node = Node(bob="n2")
    with trio.CancelScope() as scope:
        scope.cancel()
        await node.whois.ask("bob")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.whois.ask, "bob")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    [asked] = node.links["n2"].said(peer.WhoIs)
    node.says("n2", peer.ThisIs(asked.ref, []))
    assert node.whois._waiting == {}


@pytest.mark.parametrize("owner", ["n2", ""])
async def test_without_a_way_to_the_owner_it_says_so(owner: str) -> None:
    """`owner_unavailable`: it may be tried again."""
    node = Node(bob=owner)
    node.down("n2")
    with pytest.raises(RingError, match=f"no link to {owner or 'any node'}") as caught:
        await node.whois.ask("bob")
    assert caught.value.code is ErrorCode.OWNER_UNAVAILABLE


async def test_a_node_that_does_not_own_the_user_says_so() -> None:
    """The slot is moving: the asker is told to ask again."""
    node = Node(bob="n2")

    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(RingError, match="ask again") as caught:
                await node.whois.ask("bob")
            assert caught.value.code is ErrorCode.OWNER_UNAVAILABLE

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        [asked] = node.links["n2"].said(peer.WhoIs)
        node.says("n2", peer.ThisIs(asked.ref, None))
    node.says("n3", peer.WhoIs(4, "bob"))
    assert node.links["n3"].said() == [peer.ThisIs(4, None)]


def test_it_answers_its_peers() -> None:
    """Of its own users, with or without sessions."""
    node = Node()
    bob = node.open("bob")
    node.says("n2", peer.WhoIs(4, "bob"), peer.WhoIs(5, "nobody"))
    assert node.links["n2"].said() == [
        peer.ThisIs(4, [peer.SessionEntry(bob.name, "phone", "n1", "here", 0)]),
        peer.ThisIs(5, []),
    ]
