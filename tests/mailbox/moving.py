"""A mailbox that changes owner, as tests of it need it."""

from collections.abc import Iterable

from ring.mailbox.handover import pack, take
from ring.protocol import peer
from ring.protocol.names import slot_of
from ring.protocol.peer import HandOver
from tests.mailbox.office import EPOCH, Office, Seat

SLOT = slot_of("bob")
LATER = EPOCH + 1


def wired(items: Iterable[HandOver]) -> list[HandOver]:
    """The items as they arrive."""
    batch = peer.decode_batch(peer.encode(peer.Batch(0, 0, list(items))))
    return [item for item in batch.items if isinstance(item, HandOver)]


def gaining(old: Office, *, name: str = "n2", epoch: int = LATER) -> Office:
    """A node that owns bob's slot from now on, and does not serve it yet."""
    new = Office(epoch=epoch - 1, clock=old.clock, node=name, store=old.store)
    new._ids = old._ids
    new.mailboxes.moved(epoch, {SLOT}, ())
    return new


def hand_over(old: Office, new: Office, *, user: str = "bob") -> list[HandOver]:
    """The old owner's mailbox goes to the new owner."""
    box = old.box(user)
    items = wired(pack(box, old.clock.now))
    old.mailboxes.drop(box)
    for item in items:
        take(new.mailboxes, item, new.clock.now)
    return items


def moved(old: Office) -> Office:
    """The whole of a planned change, for users without sessions."""
    new = gaining(old)
    hand_over(old, new)
    new.mailboxes.serve([SLOT])
    return new


def follow(seat: Seat, new: Office, *, acked: tuple[int, int] | None = None) -> Seat:
    """The session attaches to the new owner, where it was."""
    sent = seat.last if seat.got else (EPOCH, 0)
    assert seat.attachment is not None
    return new.attach(
        seat.attachment.device,
        session=seat.name,
        sent=sent,
        acked=acked or (EPOCH, 0),
        gateway="n1",
        handle=1,
    )
