"""Sessions and owners: attached, moved, told of each other over links that come and go."""

from ring.protocol import peer
from ring.protocol.codes import CloseCode
from tests.router.node import FakeSender, FakeSession, Node

BODY = b'{"type":"message","from":"carol","id":"m1","seq":"5-1","data":1,"sent_at":5}'


def attach(
    handle: int,
    *,
    user: str = "bob",
    session: str = "n2.1",
    sent: peer.Seq | None = None,
    resume: str | None = None,
) -> peer.Attach:
    """What a gateway says of a session."""
    return peer.Attach(handle, user, f"d-{session}", session, "far", handle, sent, sent, "client", None)


def welcomed(node: Node, user: str = "bob", owner: str = "n2") -> FakeSession:
    """A session of this node whose owner is another, and knows it."""
    session = node.open(user)
    [sent] = node.links[owner].said(peer.Attach)
    node.says(owner, peer.Attached(sent.handle, (5, 0), False))
    return session


class TestHere:
    """Sessions of this node, of users that it owns."""

    def test_they_are_welcomed_at_once(self) -> None:
        """Before the first message."""
        node = Node()
        node.says("n2", attach(1))
        node.says("n2", peer.Send(1, "carol", "m1", "bob", b"1", 5, False, "", 0))
        bob = node.open("bob")
        assert bob.welcomes == [False]
        assert len(bob.got) == 1
        assert bob.attachment is not None

    def test_while_the_slot_is_held_they_wait(self) -> None:
        """They are welcomed once it is served; one that has gone meanwhile is not."""
        node = Node(bob="n2")
        node.enter(6, bob="n1")
        stays, leaves = node.open("bob"), node.open("bob", "laptop")
        node.attachments.close(leaves, clean=True)
        assert stays.welcomes == []
        node.done(6)
        assert (stays.welcomes, leaves.welcomes) == ([False], [])
        assert len(node.mailboxes.boxes["bob"].attachments) == 1

    def test_one_that_has_been_replaced_meanwhile_is_turned_away(self) -> None:
        """Of two sessions of a device that move here, the later one stays."""
        node = Node(bob="n2")
        bob = welcomed(node)
        node.enter(6, bob="n1")
        node.says(
            "n3",
            peer.Entered(6),
            peer.Attach(7, "bob", "phone", "n3.1", "far", 10**9, (5, 0), (5, 0), "client", None),
        )
        node.done(6)
        assert bob.closed == CloseCode.REPLACED
        [attachment] = node.mailboxes.boxes["bob"].attachments
        assert attachment.session == "n3.1"

    def test_one_that_was_replaced_does_not_come_back(self) -> None:
        """The slot was gained twice before it was served, and so the session attached twice."""
        node = Node(bob="n2")
        bob = welcomed(node)
        node.enter(6, bob="n1")
        later = peer.Attach(7, "bob", "phone", "n3.1", "far", 10**9, (5, 0), (5, 0), "client", None)
        node.says("n3", peer.Entered(6), later)
        node.enter(7, bob="n2")
        node.enter(8, bob="n1")
        node.done(8)
        assert (bob.closed, bob.attachment) == (CloseCode.REPLACED, None)
        [attachment] = node.mailboxes.boxes["bob"].attachments
        assert attachment.session == "n3.1"

    def test_leaving_tells_the_mailbox(self) -> None:
        """A goodbye makes the user offline; a second end is none."""
        node, alice = Node(), FakeSender()
        bob = node.open("bob")
        node.attachments.close(bob, clean=True)
        node.attachments.close(bob, clean=False)
        node.send(alice, "m1", "bob")
        assert [receipt[1] for receipt in alice.receipts] == ["failed"]


class TestThere:
    """Sessions of this node, of users of others."""

    def test_the_owner_is_told_and_welcomes(self) -> None:
        """By a handle of this node's; a second welcome is none."""
        node = Node(bob="n2")
        bob = node.open("bob", resume="5-3")
        [said] = node.links["n2"].said()
        assert (said.handle, said.session, said.resume, said.sent) == (bob.handle, bob.name, "5-3", None)
        for _ in range(2):
            node.says("n2", peer.Attached(bob.handle, (5, 3), True))
        node.says("n2", peer.Attached(1, (5, 3), True))
        assert bob.welcomes == [True]

    def test_messages_come_over_the_link(self) -> None:
        """By handle; what comes for nobody is counted, and dropped: it comes again with the mailbox."""
        node = Node(bob="n2")
        bob = welcomed(node)
        node.says(
            "n2", peer.Deliver(bob.handle, 5, 1, BODY, True), peer.Deliver(bob.handle + 1, 5, 2, BODY, True)
        )
        assert bob.got == [BODY]
        assert node.attachments.late_deliveries == 1

    def test_without_a_link_the_session_waits_for_one(self) -> None:
        """It is attached when the link stands; its acknowledgements go along."""
        node = Node(bob="n2")
        node.down("n2")
        bob = node.open("bob")
        node.attachments.acknowledge(bob)
        said = node.up("n2").said(peer.Attach, peer.Reconciled)
        assert [type(item) for item in said] == [peer.Attach, peer.Reconciled]
        assert said[0].handle == bob.handle

    def test_a_new_link_attaches_it_again(self) -> None:
        """Under a new handle, with how far it has got; what is under way for the old one finds nobody."""
        node = Node(bob="n2", carol="n3")
        bob = welcomed(node)
        welcomed(node, "carol", "n3")
        old = bob.handle
        node.says("n2", peer.Deliver(old, 5, 1, BODY, True), peer.Deliver(old, 5, 2, BODY, True))
        bob.acked_number = 1
        node.down("n2")
        [again] = node.up("n2").said(peer.Attach)
        assert (again.session, again.sent, again.acked, again.resume) == (bob.name, (5, 2), (5, 1), None)
        assert again.handle == bob.handle != old
        node.says("n2", peer.Deliver(old, 5, 3, BODY, True))
        assert len(bob.got) == 2

    def test_acknowledgements_and_the_end_go_over_the_link(self) -> None:
        """Without a link the next attachment, or its absence, says it."""
        node = Node(bob="n2")
        bob = welcomed(node)
        bob.acked_epoch, bob.acked_number = 5, 4
        node.attachments.acknowledge(bob)
        node.attachments.close(bob, clean=True)
        assert node.links["n2"].said() == [
            peer.Ack(bob.handle, 5, 4, "client"),
            peer.Detach(bob.handle, True),
        ]
        gone = welcomed(node)
        node.down("n2")
        node.attachments.acknowledge(gone)
        node.attachments.close(gone, clean=False)
        assert node.up("n2").said(peer.Attach) == []

    def test_the_owner_can_end_it(self) -> None:
        """4009 or 4008; a word about nobody is none."""
        node = Node(bob="n2")
        bob = welcomed(node)
        node.says("n2", peer.Expel(bob.handle + 1, 4008, "x"))
        assert bob.closed is None
        node.says("n2", peer.Expel(bob.handle, 4009, "x"))
        assert bob.closed == 4009


class TestAstray:
    """An owner that is none."""

    def test_it_is_attached_anew(self) -> None:
        """To the owner by the ring as it is now."""
        node = Node(bob="n2")
        bob = node.open("bob")
        node.links["n2"].said()
        node.says("n2", peer.Astray(bob.handle, 4))
        [said] = node.links["n2"].said(peer.Attach)
        assert said.handle == bob.handle

    def test_a_node_that_is_behind_waits_for_the_ring_that_the_peer_knows(self) -> None:
        """Then it is attached by that."""
        node = Node(bob="n2")
        bob = node.open("bob")
        node.links["n2"].said()
        node.says("n2", peer.Astray(bob.handle, 6))
        assert node.links["n2"].said() == []
        node.enter(6, bob="n3")
        [said] = node.links["n3"].said(peer.Attach)
        assert said.session == bob.name

    def test_of_a_session_that_is_gone_nothing_is_said(self) -> None:
        """The word came late."""
        node = Node(bob="n2")
        bob = node.open("bob")
        node.attachments.close(bob, clean=True)
        node.links["n2"].said()
        node.says("n2", peer.Astray(bob.handle, 5))
        assert node.links["n2"].said() == []


class TestOthers:
    """Sessions of other nodes, of users that this one owns."""

    def test_they_are_answered_and_get_what_waits(self) -> None:
        """The answer first."""
        node, alice = Node(), FakeSender()
        node.says("n3", attach(1, session="n3.1"))
        node.links["n3"].said()
        node.send(alice, "m1", "bob")
        node.says("n2", attach(7))
        attached, deliver = node.links["n2"].said()
        assert attached == peer.Attached(7, (5, 0), False)
        assert (deliver.handle, deliver.epoch, deliver.number, deliver.tracked) == (7, 5, 1, True)
        node.says("n2", peer.Ack(7, 5, 1, "pong"))
        assert alice.receipts == [("m1", "delivered", None)]

    def test_one_that_moved_here_is_not_answered(self) -> None:
        """Its client was welcomed long ago."""
        node = Node()
        node.says("n2", attach(7, sent=(4, 2)))
        assert node.links["n2"].said() == []
        assert len(node.mailboxes.boxes["bob"].attachments) == 1

    def test_one_that_is_late_is_turned_away(self) -> None:
        """A later session of its device is there."""
        node = Node()
        bob = node.open("bob")
        node.says("n2", peer.Attach(7, "bob", bob.device, "n2.1", "far", 0, (4, 2), (4, 2), "client", None))
        [expel] = node.links["n2"].said()
        assert (expel.handle, expel.code) == (7, CloseCode.REPLACED)

    def test_of_a_user_of_another_node_it_is_astray(self) -> None:
        """With the epoch by which this node knows better."""
        node = Node(bob="n3")
        node.says("n2", attach(7))
        assert node.links["n2"].said() == [peer.Astray(7, 5)]

    def test_they_leave(self) -> None:
        """By handle."""
        node = Node()
        node.says("n2", attach(7), attach(8, session="n2.2"))
        node.says("n2", peer.Detach(7, True), peer.Detach(9, True))
        assert [attachment.handle for attachment in node.mailboxes.boxes["bob"].attachments] == [8]

    def test_a_flapping_link_keeps_their_places(self) -> None:
        """Nothing is sent meanwhile; those that are not named again have ended."""
        node, alice = Node(), FakeSender()
        node.says("n2", attach(7), attach(8, session="n2.2"))
        node.down("n2")
        node.send(alice, "m1", "bob")
        link = node.up("n2")
        assert len(node.mailboxes.boxes["bob"].attachments) == 2
        link.said()
        node.says("n2", attach(9, sent=(5, 0)), peer.Reconciled())
        [deliver] = link.said()
        assert deliver.handle == 9
        assert [attachment.handle for attachment in node.mailboxes.boxes["bob"].attachments] == [9]

    def test_a_gateway_that_lives_again_has_lost_them(self) -> None:
        """Its earlier life's sessions are gone with it."""
        node = Node()
        node.says("n2", attach(7))
        node.down("n2")
        node.up("n2", "n2/2")
        assert node.mailboxes.boxes["bob"].attachments == []


class TestHeld:
    """Sessions of other nodes whose slot is not served yet."""

    def node(self) -> Node:
        node = Node(bob="n2")
        node.enter(6, bob="n1")
        node.says("n3", peer.Entered(6))
        return node

    def test_what_they_do_meanwhile_is_done_in_order(self) -> None:
        """Attached, acknowledged, gone: once the slot is served."""
        node = self.node()
        node.says("n3", attach(7, sent=(5, 1)), attach(8, session="n3.2", sent=(5, 1)))
        node.says("n3", peer.Ack(7, 5, 1, "client"), peer.Detach(8, True))
        letter = peer.Letter(5, 1, "zoe", "m1", BODY, 0, 2000, True, "", None, None, None, None, [("n2", 3)])
        node.says("n2", peer.Entered(6), peer.HandOver("bob", [letter], (5, 0), 0))
        assert node.links["n2"].said(peer.Receipt) == []
        node.done(6)
        assert node.links["n2"].said(peer.Receipt) == [peer.Receipt(3, "delivered", "client", None, None)]
        assert [attachment.handle for attachment in node.mailboxes.boxes["bob"].attachments] == [7]

    def test_their_acknowledgements_count_for_those_that_are_there(self) -> None:
        """While one slot is held, others are served as ever."""
        node, alice = self.node(), FakeSender()
        node.says("n3", attach(5, user="alan", session="n3.9"))
        node.send(alice, "m1", "alan")
        node.says("n3", attach(7))
        node.says("n3", peer.Ack(5, 5, 1, "client"))
        assert [receipt[1] for receipt in alice.receipts] == [], "that was of another life"
        node.says("n3", peer.Ack(5, 6, 1, "client"))
        assert [receipt[1] for receipt in alice.receipts] == ["delivered"]

    def test_a_gateway_whose_link_broke_attaches_them_again(self) -> None:
        """What an earlier life, or link, said of them is void."""
        node = self.node()
        node.says("n3", attach(7))
        node.down("n3")
        node.says("n2", peer.Entered(6), peer.Handed(6))
        node.pass_time(1.1)
        assert node.routing.held == {}
        assert "bob" not in node.mailboxes.boxes
        node.up("n3")
        node.says("n3", attach(9))
        assert [attachment.handle for attachment in node.mailboxes.boxes["bob"].attachments] == [9]

    def test_a_gateway_that_lives_again_has_lost_them(self) -> None:
        """What its earlier life said is void once the slot is served."""
        node = self.node()
        node.says("n3", attach(7))
        node.down("n3")
        node.up("n3", "n3/2")
        node.done(6)
        assert node.routing.held == {}
        assert "bob" not in node.mailboxes.boxes

    def test_one_that_has_been_replaced_meanwhile_does_nothing(self) -> None:
        """Its acknowledgements go with it."""
        node = self.node()
        node.says("n3", peer.Attach(7, "bob", "phone", "n3.1", "far", 9, (5, 1), (5, 1), "client", None))
        node.says("n3", peer.Attach(8, "bob", "phone", "n3.2", "far", 3, (5, 1), (5, 1), "client", None))
        node.says("n3", peer.Ack(8, 5, 1, "client"))
        node.done(6)
        [expel] = node.links["n3"].said(peer.Expel)
        assert expel.handle == 8
        assert [attachment.handle for attachment in node.mailboxes.boxes["bob"].attachments] == [7]

    def test_what_was_said_early_is_void_when_the_slot_goes_on(self) -> None:
        """Lost again before it was served: the gateway attaches to the next owner."""
        node = self.node()
        node.says("n3", attach(7))
        node.says("n3", peer.Ack(7, 5, 1, "client"))
        node.enter(7, bob="n2")
        node.done(7)
        assert node.routing.held == {}
        assert node.attachments._early == {}


class TestMoves:
    """Sessions of this node when the ring changes."""

    def test_they_go_to_the_new_owner(self) -> None:
        """Those of other users stay; what the old owner still sends finds nobody."""
        node = Node(bob="n2", carol="n2")
        bob, carol = welcomed(node), welcomed(node, "carol")
        zoe = node.open("zoe")
        old = bob.handle
        node.enter(6, bob="n3")
        [said] = node.links["n3"].said(peer.Attach)
        assert (said.session, said.sent, said.acked) == (bob.name, (5, 0), (5, 0))
        assert node.links["n2"].said(peer.Attach) == []
        node.says("n2", peer.Deliver(old, 5, 1, BODY, True))
        assert (bob.got, node.attachments.late_deliveries) == ([], 1)
        assert (carol.owner, zoe.owner) == ("n2", "n1")

    def test_from_here_they_leave_their_places(self) -> None:
        """The user is waited for until the mailbox has followed."""
        node, alice = Node(), FakeSender()
        bob = node.open("bob")
        node.send(alice, "m1", "bob")
        node.enter(6, bob="n2")
        assert bob.attachment is None
        [said] = node.links["n2"].said(peer.Attach)
        assert said.sent == (5, 1)
        assert alice.receipts == []

    def test_to_here_they_come(self) -> None:
        """And go on where they were, not welcomed again."""
        node = Node(bob="n2")
        bob = welcomed(node)
        node.enter(6, bob="n1")
        node.done(6)
        assert bob.attachment is not None
        assert bob.welcomes == [False]
