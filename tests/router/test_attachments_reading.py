"""Sessions that wait for what the store keeps for their users: what comes of them meanwhile."""

import pytest

from ring.mailbox.spill import PATIENCE_S
from ring.protocol import peer
from ring.protocol.codes import CloseCode
from tests.mailbox.vault_model import ModelVault
from tests.router.node import FakeSender, FakeSession, Node


def stored(count: int = 2) -> Node:
    """A node, and so many messages to bob in the store."""
    node = Node(store=ModelVault(letters=1000, size=2**20, keep_s=3600))
    alice = FakeSender()
    for index in range(count):
        node.send(alice, f"m{index}", "bob")
    node.pass_time(2.2)  # after a change users are waited for
    node.carry()
    assert [receipt[1] for receipt in alice.receipts] == ["queued"] * count
    node.pass_time(1)
    assert node.mailboxes.boxes == {}
    return node


def attach(handle: int, session: str = "n2.1", *, since_ms: int = 0) -> peer.Attach:
    """What a gateway says of a session of bob's phone."""
    return peer.Attach(handle, "bob", "phone", session, "far", since_ms, None, None, "client", None)


def kept(node: Node) -> int:
    """Messages to bob in the store."""
    assert node.store is not None
    return sum(len(box.kept) for (_, user), box in node.store.boxes.items() if user == "bob")


def acknowledge(node: Node, session: FakeSession) -> None:
    """A session of this node has all that it was sent."""
    session.acked_epoch, session.acked_number = session.sent_epoch, session.sent_number
    node.attachments.acknowledge(session)


class TestHere:
    """Sessions of this node."""

    def test_they_are_welcomed_when_it_has_been_read(self) -> None:
        """Behind what they are told to start at comes the first that was stored."""
        node = stored()
        bob = node.open("bob")
        assert (bob.welcomes, bob.attachment) == ([], None)
        node.carry()
        assert (bob.welcomes, len(bob.got)) == ([False], 2)
        acknowledge(node, bob)
        node.carry()
        assert kept(node) == 0
        laptop = node.open("bob", "laptop")
        assert (laptop.welcomes, node.carry()) == ([False], 0)

    def test_one_that_has_gone_meanwhile(self) -> None:
        """Is attached to nothing; the others are."""
        node = stored()
        leaves, stays = node.open("bob"), node.open("bob", "laptop")
        node.attachments.close(leaves, clean=True)
        node.carry()
        assert (leaves.welcomes, stays.welcomes) == ([], [False])
        assert [one.session for one in node.mailboxes.boxes["bob"].attachments] == [stays.name]

    def test_one_that_connected_again_meanwhile(self) -> None:
        """The later one stays."""
        node = stored()
        first, second = node.open("bob"), node.open("bob")
        node.carry()
        assert (first.closed, second.closed, len(second.got)) == (CloseCode.REPLACED, None, 2)

    def test_the_slot_is_lost_meanwhile(self) -> None:
        """They go to the new owner, and are attached there; what was read here changes nothing."""
        node = stored()
        bob = node.open("bob")
        node.enter(6, bob="n2")
        [said] = node.links["n2"].said(peer.Attach)
        assert (said.session, said.sent) == (bob.name, None)
        node.carry()
        assert (bob.welcomes, bob.attachment) == ([], None)
        node.says("n2", peer.Attached(said.handle, (5, 0), False))
        assert bob.welcomes == [False]
        node.done(6)
        node.carry()
        assert "bob" not in node.mailboxes.boxes
        assert (bob.got, kept(node)) == ([], 2)

    def test_the_slot_comes_back_meanwhile(self) -> None:
        """It is read anew: another owner had it in between."""
        node = stored()
        bob = node.open("bob")
        node.enter(6, bob="n2")
        node.enter(7, bob="n1")
        node.done(7)
        node.carry()
        assert (bob.welcomes, len(bob.got)) == ([False], 2)
        assert bob.attachment is not None

    def test_a_store_that_is_away(self) -> None:
        """They are welcomed without, in the end."""
        node = stored()
        bob = node.open("bob")
        node.now += PATIENCE_S
        assert node.spill is not None
        node.spill.give_up()
        assert (bob.welcomes, bob.got) == ([False], [])
        node.pass_time(0.6)
        node.carry()
        assert len(bob.got) == 2


class TestOthers:
    """Sessions of other nodes."""

    def test_they_are_answered_when_it_has_been_read(self) -> None:
        """The answer first, then the messages."""
        node = stored()
        node.says("n2", attach(7))
        assert node.links["n2"].said() == []
        node.carry()
        attached, *deliveries = node.links["n2"].said()
        assert attached == peer.Attached(7, (5, 0), False)
        assert [(one.handle, one.number) for one in deliveries] == [(7, 1), (7, 2)]

    def test_what_comes_of_them_meanwhile_is_done_in_order(self) -> None:
        """They acknowledge what they will be sent, and go."""
        node = stored(3)
        node.says("n2", attach(7))
        node.says("n2", peer.Ack(7, 5, 2, "client"))
        node.says("n3", attach(7, "n3.1", since_ms=1))
        node.says("n3", peer.Detach(9, True))
        assert node.attachments._reading.keys() == {("n2", 7), ("n3", 7)}
        node.carry()
        assert kept(node) == 1
        [delivery] = node.links["n3"].said(peer.Deliver)
        assert delivery.number == 3
        node.says("n3", peer.Detach(7, True))
        assert node.mailboxes.boxes["bob"].attachments == []
        assert node.attachments._reading == {}

    def test_one_that_goes_meanwhile(self) -> None:
        """It has been there for a moment, and keeps nothing; acknowledgements of others count at once."""
        node = stored()
        node.says("n2", peer.Attach(3, "carol", "d", "n2.9", "far", 0, (5, 0), (5, 0), "client", None))
        node.carry()
        alice = FakeSender()
        node.send(alice, "x", "carol")
        node.says("n2", attach(7))
        node.says("n2", peer.Ack(3, *_last(node), "client"), peer.Detach(7, True))
        assert [receipt[1] for receipt in alice.receipts] == ["delivered"]
        node.carry()
        assert node.mailboxes.boxes["bob"].attachments == []
        assert kept(node) == 2

    @pytest.mark.parametrize("incarnation", ["n2/1", "n2/2"])
    def test_its_link_breaks_meanwhile(self, incarnation: str) -> None:
        """It attaches again when the link is back; what the earlier life said is void."""
        node = stored()
        node.says("n2", attach(7))
        node.down("n2")
        node.carry()
        assert node.attachments._reading == {}
        assert node.mailboxes.boxes["bob"].attachments == []
        node.up("n2", incarnation)
        node.says("n2", attach(8))
        node.carry()
        assert len(node.links["n2"].said(peer.Deliver)) == 2

    def test_its_link_is_back_before_it_has_been_read(self) -> None:
        """The session has one place, under its new handle."""
        node = stored()
        node.says("n2", attach(7))
        node.down("n2")
        node.up("n2").said()
        node.says("n2", attach(8))
        node.carry()
        assert [one.handle for one in node.mailboxes.boxes["bob"].attachments] == [8]
        assert {one.handle for one in node.links["n2"].said(peer.Deliver)} >= {8}

    def test_the_slot_is_lost_meanwhile(self) -> None:
        """Their gateways attach them to the new owner: here they are forgotten."""
        node = stored()
        node.says("n2", attach(7))
        node.says("n2", peer.Ack(7, 5, 2, "client"))
        node.enter(6, bob="n3")
        node.carry()
        node.done(6)
        node.carry()
        assert node.links["n2"].said(peer.Attached) == []
        assert node.attachments._reading == {}
        assert "bob" not in node.mailboxes.boxes
        assert kept(node) == 2

    def test_held_first_and_then_read(self) -> None:
        """What came of them while the slot was held is kept until it has been read, too."""
        node = stored(3)
        node.enter(6, bob="n2")
        node.done(6)
        node.enter(7, bob="n1")
        node.says("n3", peer.Entered(7), attach(7, "n3.1"), peer.Ack(7, 5, 2, "client"))
        assert node.attachments._early.keys() == {("n3", 7)}
        node.done(7)
        assert node.attachments._early == {}
        assert node.attachments._reading.keys() == {("n3", 7)}
        node.says("n3", peer.Ack(7, 5, 3, "client"))
        assert kept(node) == 3
        node.carry()
        assert kept(node) == 0
        assert node.attachments._reading == {}


def _last(node: Node) -> peer.Seq:
    """The sequence of the latest message to carol."""
    letter = node.mailboxes.boxes["carol"].letters[-1]
    return letter.epoch, letter.number
