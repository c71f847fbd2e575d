"""The steps of a change of the ring, one by one, at one node."""

from structlog.testing import capture_logs

from ring.cluster.barrier import ENTER_S, HOLD_S, NEWS_S
from ring.protocol import peer
from ring.protocol.names import slot_of
from ring.router.transition import ABREAST_BYTES, UNREACHED_S
from tests.router.node import FakeSender, Node, message


def letters(node: Node, name: str) -> list[str | None]:
    """The ids of the letters that were handed over to a peer."""
    overs = node.links[name].said(peer.HandOver)
    return [letter.id for over in overs for letter in over.letters]


class TestEntering:
    """A new view."""

    def test_it_is_told_before_all_that_is_routed_by_it(self) -> None:
        """Then sessions and repeats, then mailboxes, then *handed*, on every link."""
        node, alice = Node(carol="n3"), FakeSender()
        bob = node.open("bob")
        node.send(alice, "m1", "bob")
        node.send(alice, "m2", "carol")
        node.down("n3")
        del node.members["n3"]
        node.entered(6)
        node.enter(6, bob="n2", carol="n2")
        kinds = [type(item) for item in node.links["n2"].said()]
        assert kinds == [peer.Entered, peer.Attach, peer.Send, peer.HandOver, peer.Handed]
        assert bob.owner == "n2"

    def test_alone_a_node_serves_at_once(self) -> None:
        """There is nobody to wait for."""
        node = Node(peers=(), bob="")
        assert (node.settled, node.transition.settled) == (1, True)
        node.enter(6, bob="n1")
        assert node.settled == 2
        bob = node.open("bob")
        node.send(FakeSender(), "m1", "bob")
        assert len(bob.got) == 1

    def test_alone_it_serves_what_it_was_unsure_of(self) -> None:
        """Epochs were skipped: whoever owned in between is gone."""
        node = Node(peers=())
        bob = node.open("bob")
        node.enter(9, skipped=True)
        node.send(FakeSender(), "m1", "bob")
        assert len(bob.got) == 1

    def test_gateways_that_are_no_members_are_forgotten(self) -> None:
        """Their sessions broke."""
        node = Node()
        node.says("n2", peer.Attach(7, "bob", "d", "n2.1", "far", 0, None, None, "client", None))
        node.down("n2")
        del node.members["n2"]
        node.enter(6)
        assert node.mailboxes.gateways() == []

    def test_it_settles_once_all_is_done(self) -> None:
        """Told once per change: this node has handed over, and serves what is its own."""
        node = Node(bob="n2")
        told = node.settled
        node.enter(6, bob="n1")
        assert not node.transition.settled
        node.entered(6)
        node.says("n2", peer.Handed(6))
        assert (node.settled, node.transition.settled) == (told, False)
        node.says("n3", peer.Handed(6))
        assert (node.settled, node.transition.settled) == (told + 1, True)
        node.done(6)
        node.pass_time(5)
        assert node.settled == told + 1


class TestLimits:
    """Peers that say nothing."""

    def test_an_old_owner_does_not_wait_for_ever(self) -> None:
        """After `ENTER_S` it hands over; what still comes to it is moved on."""
        node = Node()
        node.open("bob")
        node.says("n2", message("m1"))
        node.enter(6, bob="n2")
        node.says("n3", peer.Entered(6))
        node.pass_time(ENTER_S - 0.1)
        assert letters(node, "n2") == []
        node.pass_time(0.2)
        assert letters(node, "n2") == ["m1"]

    def test_a_new_owner_does_not_wait_for_ever(self) -> None:
        """`HOLD_S` after the first peer entered it serves, and says whom it did not hear."""
        node = Node(bob="n2")
        node.enter(6, bob="n1")
        bob = node.open("bob")
        node.says("n3", peer.Entered(6), peer.Handed(6))
        node.pass_time(HOLD_S - 0.1)
        assert bob.welcomes == []
        with capture_logs() as logs:
            node.pass_time(0.2)
        assert bob.welcomes == [False]
        assert [(entry["log_level"], entry["silent"]) for entry in logs] == [("warning", ["n2"])]

    def test_without_any_news_it_waits_longer(self) -> None:
        """Until a peer has entered, the old owners still serve."""
        node = Node(bob="n2")
        node.enter(6, bob="n1")
        bob = node.open("bob")
        node.pass_time(NEWS_S - 0.1)
        assert bob.welcomes == []
        node.pass_time(0.2)
        assert bob.welcomes == [False]

    def test_another_change_starts_anew(self) -> None:
        """The steps of the earlier one are done with it."""
        node = Node(bob="n2")
        node.enter(6, bob="n1")
        node.pass_time(0.5)
        node.enter(7)
        node.done(7)
        assert node.transition.settled
        assert node.routing.held == {}

    def test_what_is_still_being_lost_is_not_served(self) -> None:
        """Gained and lost again while others' letters were awaited: it goes on to the next owner."""
        node = Node(bob="n2", carol="n2")
        node.enter(6, bob="n1", carol="n1")
        carol = node.open("carol")
        node.enter(7, bob="n2")
        for name in ("n2", "n3"):
            node.says(name, peer.Handed(7))
        assert carol.welcomes == [False]
        assert list(node.routing.held) == [slot_of("bob")]
        node.entered(7)
        assert node.routing.held == {}
        assert node.transition.settled


class TestHandingOver:
    """Mailboxes that leave."""

    def lost(self, *users: str) -> Node:
        """A node that has lost these users to n2, each with a letter, and must wait for n3."""
        node = Node()
        for user in users:
            node.open(user)
            node.says("n3", message(f"for {user}", user))
            node.table[slot_of(user)] = "n2"
        node.enter(6)
        node.says("n2", peer.Entered(6))
        node.links["n2"].said()
        node.links["n3"].said()
        return node

    def test_live_traffic_shares_the_link(self) -> None:
        """Only so much is queued at a time; then it goes on, and *handed* comes last."""
        node = self.lost("bob", "carol")
        node.links["n2"].queued_bytes = ABREAST_BYTES + 1
        node.says("n3", peer.Entered(6))
        assert node.links["n2"].said() == []
        node.links["n2"].queued_bytes = ABREAST_BYTES
        node.pass_time(0.1)
        kinds = [type(item) for item in node.links["n2"].said()]
        assert kinds[:1] == [peer.HandOver]
        node.links["n2"].queued_bytes = 0
        node.pass_time(0.1)
        kinds += [type(item) for item in node.links["n2"].said()]
        assert kinds == [peer.HandOver, peer.HandOver, peer.Handed]
        assert node.links["n3"].said() == [peer.Handed(6)]
        assert node.mailboxes.boxes == {}

    def test_a_new_owner_whose_link_is_down_is_waited_for(self) -> None:
        """When it is back the mailbox goes."""
        node = self.lost("bob")
        node.down("n2")
        node.says("n3", peer.Entered(6))
        node.pass_time(UNREACHED_S - 0.2)
        assert "bob" in node.mailboxes.boxes
        node.up("n2").said()
        node.pass_time(0.1)
        assert letters(node, "n2") == ["for bob"]
        assert node.transition.lost_mailboxes == 0

    def test_but_not_for_ever(self) -> None:
        """Then it is dropped, counted and logged: the senders' gateways send again. *handed* is said."""
        node = self.lost("bob")
        node.mailboxes._linger_s = node.mailboxes._spill_after_s = 60
        node.mailboxes.boxes["bob"].waited_until = node.now + 60
        node.down("n2")
        node.says("n3", peer.Entered(6))
        with capture_logs() as logs:
            for index in range(round(UNREACHED_S) * 5):  # what still comes keeps it from being empty
                node.says("n3", message(f"more {index}"))
                node.pass_time(0.2)
            node.pass_time(0.1)
        assert node.transition.lost_mailboxes == 1
        assert [entry["log_level"] for entry in logs if entry["log_level"] == "error"] == ["error"]
        assert node.links["n3"].said(peer.Handed) == [peer.Handed(6)]
        assert node.mailboxes.boxes == {}

    def test_without_an_owner_nothing_open_is_lost_in_silence(self) -> None:
        """Nobody may own: the mailbox goes at once; what has its fate already is no loss."""
        node = Node(carol="n2")
        bob = node.open("bob")
        node.says("n3", message("m1"))
        bob.acked_epoch, bob.acked_number = 5, 1
        node.attachments.acknowledge(bob)
        node.enter(6, bob="")
        node.entered(6)
        assert (node.mailboxes.boxes, node.transition.lost_mailboxes) == ({}, 0)

    def test_an_owner_that_gets_the_slot_back_keeps_the_mailbox(self) -> None:
        """Before it was handed over: nothing goes, nothing is lost."""
        node = self.lost("bob")
        node.enter(7, bob="n1")
        node.done(7)
        assert letters(node, "n2") == []
        assert "bob" in node.mailboxes.boxes

    def test_one_that_was_forgotten_meanwhile_is_left_out(self) -> None:
        """It had waited for its turn, and time took it."""
        node = Node()
        bob = node.open("bob")
        node.attachments.close(bob, clean=False)
        node.enter(6, bob="n2")
        node.links["n2"].queued_bytes = ABREAST_BYTES + 1
        node.entered(6)
        node.pass_time(3)
        node.links["n2"].queued_bytes = 0
        node.pass_time(0.1)
        assert letters(node, "n2") == []
        assert node.transition.settled


class TestLate:
    """Letters that come to a node that does not own them any more."""

    def over(self) -> peer.HandOver:
        body = b'{"type":"message","from":"zoe","id":"m1","seq":"4-1","data":1,"sent_at":5}'
        letter = peer.Letter(4, 1, "zoe", "m1", body, 0, 2000, False, "", None, None, None, None, [])
        return peer.HandOver("bob", [letter], (4, 0), 0)

    def test_they_are_passed_on(self) -> None:
        """To the owner of now."""
        node = Node(bob="n3")
        node.says("n2", self.over())
        assert node.links["n3"].said() == [self.over()]
        assert "bob" not in node.mailboxes.boxes

    def test_if_there_is_a_way(self) -> None:
        """Else they are lost: counted and logged."""
        node = Node(bob="n3")
        node.down("n3")
        with capture_logs() as logs:
            node.says("n2", self.over())
        assert node.transition.lost_mailboxes == 1
        assert [entry["log_level"] for entry in logs] == ["error"]

    def test_while_the_slot_is_being_lost_they_go_along(self) -> None:
        """An owner before this one was late: its letters go over with this node's."""
        node = Node()
        node.enter(6, bob="n3")
        node.says("n2", self.over())
        node.done(6)
        assert letters(node, "n3") == ["m1"]
        assert slot_of("bob") not in node.routing.losing


class TestLinks:
    """A link that comes up."""

    def test_it_is_told_how_far_this_node_is(self) -> None:
        """What it routes by, its sessions, its repeats, that this was all, and what it has handed over."""
        node, alice = Node(bob="n2"), FakeSender()
        node.open("bob")
        node.send(alice, "m1", "bob")
        node.down("n2")
        kinds = [type(item) for item in node.up("n2").said()]
        assert kinds == [peer.Entered, peer.Attach, peer.Send, peer.Reconciled, peer.Handed]

    def test_before_the_first_view_there_is_nothing_to_say(self) -> None:
        """A node that has not entered a ring has no word to give."""
        node = Node.__new__(Node)
        Node.__init__(node, peers=())
        node.routing.view = None
        assert node.up("n2").said() == []

    def test_while_it_hands_over_it_has_not(self) -> None:
        """*handed* comes when it has."""
        node = Node()
        node.open("bob")
        node.enter(6, bob="n2")
        node.down("n2")
        kinds = [type(item) for item in node.up("n2").said()]
        assert kinds == [peer.Entered, peer.Attach, peer.Reconciled]
