"""A store that has letters already, as tests of reading it need it."""

from ring.mailbox.vault import Push, Stored
from tests.mailbox.office import EPOCH, Office, Seat, body, stored_office


def keep(office: Office, *letters: tuple[str, int, int], user: str = "bob", seen: bool = False) -> None:
    """An earlier owner has stored these: (id, epoch, number)."""
    assert office.store is not None
    for message_id, epoch, number in letters:
        stored = Stored(epoch, number, 0, seen, "", body(message_id, epoch, number))
        assert office.store.do(Push(user, office.bobs_slot, epoch, [stored])) == ["stored"]


def full(count: int, **options: int) -> Office:
    """An office of a later epoch, and so many letters of the owner before in the store."""
    office = stored_office(**options)
    keep(office, *((f"m{index}", EPOCH - 1, index + 1) for index in range(count)))
    return office


def drink(office: Office, seat: Seat) -> list[int]:
    """The session acknowledges all that comes; returns how many were unsettled here each time."""
    sizes = []
    while True:
        before = len(seat.got)
        sizes.append(len(office.box().unsettled()))
        seat.ack()
        office.carry()
        if len(seat.got) == before:
            return sizes
