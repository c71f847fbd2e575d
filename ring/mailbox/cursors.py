"""What the cursors of a user's clients are worth: which of them a mailbox can vouch for.

A client that comes back says up to where it has everything (`resume`). The mailbox sends it the rest, or says
that it cannot tell: a *gap*. Said wrongly, a gap costs the client a look elsewhere; the opposite loses what
nobody will look for. So a cursor is good only if all that came behind it was numbered by this mailbox, by the
one that it follows, or handed over.
"""

from ring.mailbox.mailbox import Mailbox
from ring.protocol.peer import Seq

Traces = tuple[Seq, Seq, int]
"""What is remembered of a mailbox that was forgotten: its floor, its last number, and how many letters it
left to Redis."""


def traces(box: Mailbox) -> Traces | None:
    """What to remember of this mailbox when it is forgotten; None if nobody has a cursor of it."""
    if box.number == box.began[1]:  # it numbered nothing
        return (box.floor, box.ended, box.left) if box.ended != box.began else None
    # Two lives with numbers in them are not told apart later: the first is over.
    floor = box.floor if box.ended == box.began else max(box.floor, box.began)
    return floor, (box.epoch, box.number), box.left


def go_on(box: Mailbox, traces: Traces) -> None:
    """A mailbox follows one that was forgotten, and no other node had the slot in between: a cursor is as
    good as it was."""
    box.floor, box.ended, box.left = traces


def interrupt(box: Mailbox, epoch: int) -> None:
    """Other nodes may have numbered letters until `epoch`: what earlier cursors missed is not known."""
    box.ended, box.began, box.left = (-1, -1), (epoch, 0), 0


def horizon(box: Mailbox) -> Seq:
    """The floor, as the next owner has to know it."""
    return max(box.floor, box.began) if box.ended < box.floor else box.floor


def check_left(box: Mailbox, found: int, *, more: bool) -> None:
    """Redis has so many letters that are not here. Once there are no more: if it has fewer than were left to
    it (it lost its data, or some expired), no cursor of before is good any more."""
    if not box.left:
        return
    box.left -= found
    if more:
        return
    if box.left > 0:
        box.floor = (box.epoch, box.number)
    box.left = 0
