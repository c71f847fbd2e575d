"""What a session tells the owners of its user: how far it was sent letters, epoch by epoch."""

from ring.edge.session import EARLIER_EPOCHS
from ring.protocol import peer
from tests.edge.desk import Desk


def test_it_knows_how_far_it_got_in_each_of_the_last_epochs() -> None:
    """When its owner changes it says so, since one number of the last epoch says nothing of the others."""
    desk = Desk(away=("bob",))
    bob = desk.connect("bob")
    [attach] = desk.link.items
    assert isinstance(attach, peer.Attach)
    assert (attach.sent, attach.earlier) == (None, [])
    desk.from_peer(peer.Attached(attach.handle, (7, 3), False))
    body = b'{"type":"message","from":null,"id":"m","seq":"7-4","data":1,"sent_at":1}'
    for epoch, number in [(7, 4), (7, 5), (9, 1), (9, 2), (12, 1)]:
        desk.from_peer(peer.Deliver(attach.handle, epoch, number, body, True))
    desk.attachments.attach(bob.session)
    moved = desk.link.items[-1]
    assert isinstance(moved, peer.Attach)
    assert (moved.sent, moved.earlier) == ((12, 1), [(7, 5), (9, 2)])
    for epoch in range(20, 40):
        desk.from_peer(peer.Deliver(moved.handle, epoch, 1, body, True))
    assert bob.session.earlier == [(epoch, 1) for epoch in range(39 - EARLIER_EPOCHS, 39)]
