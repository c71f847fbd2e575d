"""Where a message goes: to a mailbox here, over a link, or back to its sender."""

import pytest

from ring.protocol import peer
from ring.protocol.codes import ErrorCode
from ring.protocol.names import slot_of
from tests.router.node import FakeSender, Node, message


class TestSending:
    """What this node's clients send."""

    def test_to_a_user_of_this_node(self) -> None:
        """Into the mailbox; the session's acknowledgement is the sender's receipt."""
        node, alice = Node(), FakeSender()
        bob = node.open("bob")
        node.send(alice, "m1", "bob")
        assert len(bob.got) == 1
        assert len(node.pending) == 1
        bob.acked_epoch, bob.acked_number = 5, 1
        node.attachments.acknowledge(bob)
        assert alice.receipts == [("m1", "delivered", None)]
        assert (len(node.pending), alice.refs) == (0, {})

    def test_to_a_user_of_another_node(self) -> None:
        """Over the link to the owner alone; its word is the receipt, once."""
        node, alice = Node(bob="n2"), FakeSender()
        send = node.send(alice, "m1", "bob")
        assert node.links["n2"].said() == [send]
        assert node.links["n3"].said() == []
        assert send.ref != 0
        for _ in range(2):
            node.says("n2", peer.Receipt(send.ref, "failed", None, ErrorCode.OFFLINE, "x"))
        node.says("n2", peer.Receipt(12, "delivered", "client", None, None))
        assert alice.receipts == [("m1", "failed", ErrorCode.OFFLINE)]

    def test_without_a_receipt_nothing_is_held(self) -> None:
        """At most once: reference 0, and nobody waits."""
        node, alice = Node(bob="n2"), FakeSender()
        node.send(alice, None, "bob", receipt=False)
        node.send(alice, None, "zoe", receipt=False)
        [send] = node.links["n2"].said()
        assert (send.ref, send.id) == (0, None)
        assert len(node.pending) == 0
        assert node.mailboxes.dropped_untracked == 1, "zoe is offline, here"

    @pytest.mark.parametrize("owner", ["n1", "n2"])
    def test_to_oneself_the_session_is_named(self, owner: str) -> None:
        """So that it gets no copy, wherever the mailbox is; to others it is not told."""
        node = Node(alice=owner, bob="n2")
        alice = FakeSender("alice", "n1.77")
        other = node.open("alice", "laptop")
        node.links["n2"].said()
        assert node.send(alice, "m1", "alice").session == "n1.77"
        assert node.send(alice, "m2", "bob").session == ""
        assert len(other.got) == (1 if owner == "n1" else 0)

    def test_a_busy_link_takes_no_new_messages(self) -> None:
        """The sender is told at once, and may try later; what is at most once is dropped and counted."""
        node, alice = Node(bob="n2", carol="n3"), FakeSender()
        node.links["n2"].busy = True
        node.send(alice, "m1", "bob")
        node.send(alice, None, "bob", receipt=False)
        node.send(alice, "m2", "carol")
        assert alice.receipts == [("m1", "failed", ErrorCode.BUSY)]
        assert node.mailboxes.dropped_untracked == 1
        assert node.links["n2"].said() == []
        assert len(node.links["n3"].said()) == 1

    def test_a_repeat_over_a_busy_link_is_no_failure(self) -> None:
        """The owner may have it already: it waits, and goes out when it is tried again."""
        node, alice = Node(bob="n2"), FakeSender()
        send = node.send(alice, "m1", "bob")
        [held] = node.pending
        node.links["n2"].said()
        node.links["n2"].busy = True
        node.router.route_again(held)
        assert alice.receipts == []
        assert node.links["n2"].said() == []
        node.links["n2"].busy = False
        node.router.route_again(held)
        assert node.links["n2"].said() == [send]
        assert send.again

    def test_without_a_link_a_message_waits_for_one(self) -> None:
        """It goes out unmarked when the link stands: the owner cannot have it."""
        node, alice = Node(bob="n2"), FakeSender()
        node.down("n2")
        node.send(alice, "m1", "bob")
        node.send(alice, None, "bob", receipt=False)
        assert (alice.receipts, node.mailboxes.dropped_untracked) == ([], 1)
        [send] = node.up("n2").said(peer.Send)
        assert (send.id, send.again) == ("m1", False)

    def test_without_an_owner_a_message_waits_for_one(self) -> None:
        """Nobody may own for the moment: it goes out with the next view."""
        node, alice = Node(bob=""), FakeSender()
        node.send(alice, "m1", "bob")
        node.enter(6, bob="n3")
        [send] = node.links["n3"].said(peer.Send)
        assert (send.id, send.again) == ("m1", False)

    def test_for_want_of_a_link_it_fails_in_time(self) -> None:
        """After `send_timeout` the sender hears that the owner is unavailable."""
        node, alice = Node(bob="n2"), FakeSender()
        node.down("n2")
        node.send(alice, "m1", "bob")
        node.now += 9.9
        for held in node.pending.overdue():
            node.router.route_again(held)
        node.now += 0.2
        node.pending.overdue()
        assert alice.receipts == [("m1", "failed", ErrorCode.OWNER_UNAVAILABLE)]


class TestAgain:
    """Messages that are sent a second time."""

    def test_a_link_that_is_back_gets_what_has_no_answer(self) -> None:
        """Marked, since the owner may have it; in the order of sending. Others' messages stay."""
        node, alice = Node(bob="n2", carol="n3"), FakeSender()
        for index in range(3):
            node.send(alice, f"m{index}", "bob")
        node.send(alice, "c", "carol")
        node.says("n2", peer.Receipt(alice.refs["m1"], "delivered", "client", None, None))
        node.down("n2")
        sends = node.up("n2").said(peer.Send)
        assert [(send.id, send.again) for send in sends] == [("m0", True), ("m2", True)]
        assert [send.id for send in node.links["n3"].said(peer.Send)] == ["c"]

    def test_a_change_of_the_ring_moves_what_lies_with_nobody(self) -> None:
        """What a dead owner had goes to the next one, marked; what a live one has, it hands over."""
        node, alice = Node(bob="n2", carol="n3"), FakeSender()
        node.send(alice, "m1", "bob")
        node.send(alice, "m2", "carol")
        node.down("n2")
        del node.members["n2"]
        node.enter(6, bob="n3", carol="n1")
        sends = node.links["n3"].said(peer.Send)
        assert [(send.id, send.again) for send in sends] == [("m2", False), ("m1", True)]
        assert len(node.pending) == 2

    def test_one_that_is_overdue_goes_again(self) -> None:
        """To whoever owns the recipient now."""
        node, alice = Node(bob="n2"), FakeSender()
        node.send(alice, "m1", "bob")
        node.links["n2"].said()
        node.now += 4
        for held in node.pending.overdue():
            node.router.route_again(held)
        [send] = node.links["n2"].said(peer.Send)
        assert send.again

    def test_to_a_mailbox_here_it_is_recognised(self) -> None:
        """The message is there once, and its sender is told once."""
        node, alice = Node(), FakeSender()
        bob = node.open("bob")
        node.send(alice, "m1", "bob")
        for held in node.pending:
            node.router.route_again(held)
        assert len(bob.got) == 1
        bob.acked_epoch, bob.acked_number = 5, 1
        node.attachments.acknowledge(bob)
        assert alice.receipts == [("m1", "delivered", None)]


class TestMoved:
    """An owner that is none."""

    def test_what_came_to_the_wrong_node_is_routed_anew(self) -> None:
        """A peer that has entered as much as this node: by the ring as it is now, marked."""
        node, alice = Node(bob="n2"), FakeSender()
        send = node.send(alice, "m1", "bob")
        node.enter(6, bob="n3")
        node.links["n3"].said()
        node.says("n2", peer.Moved(send.ref, 6))
        [again] = node.links["n3"].said(peer.Send)
        assert (again.id, again.ref, again.again) == ("m1", send.ref, True)

    def test_a_node_that_is_behind_waits_for_the_ring_that_the_peer_knows(self) -> None:
        """Sent by the same ring it would come back for ever."""
        node, alice = Node(bob="n2"), FakeSender()
        send = node.send(alice, "m1", "bob")
        node.links["n2"].said()
        node.says("n2", peer.Moved(send.ref, 6))
        assert (node.links["n2"].said(), alice.receipts) == ([], [])
        node.enter(6, bob="n3")
        [again] = node.links["n3"].said(peer.Send)
        assert (again.id, again.again) == ("m1", True)

    def test_of_what_has_its_fate_nothing_moves(self) -> None:
        """The word came late."""
        node = Node(bob="n2")
        node.says("n2", peer.Moved(99, 5))
        assert node.links["n2"].said() == []


class TestPeers:
    """What other nodes send for the users of this one."""

    def test_it_goes_into_the_mailbox(self) -> None:
        """The gateway is told the fate, over its link, in front of all data."""
        node = Node()
        bob = node.open("bob")
        node.says("n2", message("m1", ref=8))
        node.says("n2", message("m2", ref=9))
        assert len(bob.got) == 2
        bob.acked_epoch, bob.acked_number = 5, 2
        node.attachments.acknowledge(bob)
        assert node.links["n2"].urgent == [
            peer.Receipt(8, "delivered", "client", None, None),
            peer.Receipt(9, "delivered", "client", None, None),
        ]

    def test_a_gateway_without_a_link_is_told_when_it_asks_again(self) -> None:
        """Its receipt is lost with the link; the fate is not."""
        node = Node()
        bob = node.open("bob")
        node.says("n2", message("m1", ref=8))
        node.down("n2")
        bob.acked_epoch, bob.acked_number = 5, 1
        node.attachments.acknowledge(bob)
        node.up("n2").said()
        node.says("n2", message("m1", ref=8, again=True))
        assert node.links["n2"].said() == [peer.Receipt(8, "delivered", "client", None, None)]

    def test_for_a_user_of_another_node_it_goes_back(self) -> None:
        """`moved`, with the epoch by which this node knows better; at most once is dropped and counted."""
        node = Node(bob="n3")
        node.says("n2", message("m1", ref=8), message(None, ref=0))
        assert node.links["n2"].said() == [peer.Moved(8, 5)]
        assert node.mailboxes.dropped_untracked == 1
        assert "bob" not in node.mailboxes.boxes

    def test_while_the_slot_is_held_it_waits(self) -> None:
        """What came by the new ring stands behind what the old owner hands over."""
        node = Node(bob="n2")
        node.enter(6, bob="n1")
        node.entered(6)
        node.says("n2", peer.Handed(6))
        bob = node.open("bob")
        alice = FakeSender()
        node.says("n2", message("m2", ref=8))
        node.send(alice, "m3", "bob")
        assert bob.got == []
        letter = peer.Letter(
            5, 1, "zoe", "m1", b'{"id":"m1"}', 0, 2000, False, "", None, None, None, None, []
        )
        node.says("n3", peer.HandOver("bob", [letter], (5, 0), 0))
        node.says("n3", peer.Handed(6))
        assert [bob.got[index].count(b'"m%d"' % (index + 1)) for index in range(3)] == [1, 1, 1]

    def test_what_was_routed_before_stands_in_front(self) -> None:
        """This node gave the slot away and has it back: a peer that has entered neither still sends to it."""
        node = Node()
        bob = node.open("bob")
        node.enter(6, bob="n2")
        node.enter(7, bob="n1")
        node.says("n3", message("m1", ref=8))  # n3 routes by 5
        node.entered(7)
        node.says("n3", message("m3", ref=9))  # and now by 7
        letter = peer.Letter(
            6, 1, "zoe", "m2", b'{"id":"m2"}', 0, 2000, False, "", None, None, None, None, []
        )
        node.says("n2", peer.HandOver("bob", [letter], (6, 0), 0))
        node.done(7)
        assert [bob.got[index].count(b'"m%d"' % (index + 1)) for index in range(3)] == [1, 1, 1]

    def test_while_it_waits_to_be_handed_over_it_goes_along(self) -> None:
        """A peer that has not entered sends by the ring before: this node takes it, and hands it over."""
        node = Node()
        node.open("bob")
        node.enter(6, bob="n2")
        assert slot_of("bob") in node.routing.losing
        node.says("n3", message("m1", ref=8))
        node.links["n2"].said()
        node.entered(6)
        items = node.links["n2"].said()
        [over] = [item for item in items if isinstance(item, peer.HandOver)]
        assert [(letter.id, letter.waiters) for letter in over.letters] == [("m1", [("n3", 8)])]
        assert isinstance(items[-1], peer.Handed)
        node.says("n3", message("m2", ref=9))
        assert node.links["n3"].said(peer.Moved) == [peer.Moved(9, 6)]

    def test_a_ring_that_this_node_never_entered_made_it_the_owner(self) -> None:
        """It takes what came by that ring, numbers it by that, and hands it over."""
        node = Node(bob="n2")
        node.says("n3", peer.Entered(6))  # in 6 bob is n1's
        node.enter(7, bob="n2", skipped=True)
        node.says("n3", message("m1", ref=8))
        assert node.links["n3"].said(peer.Moved) == []
        node.entered(7)
        [over] = node.links["n2"].said(peer.HandOver)
        assert [(letter.id, letter.epoch) for letter in over.letters] == [("m1", 6)]

    def test_what_was_held_is_numbered_by_the_ring_that_brought_it(self) -> None:
        """Gained, lost, gained unseen and lost again before it was served: what came in the second of these
        times is newer than what the owner between has."""
        node = Node(bob="n2")
        node.enter(6, bob="n1")
        node.entered(6)
        node.says("n3", message("m1", ref=1))
        node.enter(7, bob="n2")
        node.says("n3", peer.Entered(7), peer.Entered(8))  # in 8 bob is n1's
        node.says("n3", message("m2", ref=2))
        node.enter(9, bob="n2", skipped=True)
        node.entered(9)
        [over] = node.links["n2"].said(peer.HandOver)
        assert [(letter.id, letter.epoch) for letter in over.letters] == [("m1", 6), ("m2", 8)]
