"""Mailboxes on their way from an old owner to a new one.

What nobody has acknowledged goes whole, with who is owed a receipt; of what is settled, the fates and the end
of the history go too, so that a repeat is still recognised and a client can still resume behind the change.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from ring.mailbox.cursors import horizon
from ring.mailbox.letter import NEVER, Letter
from ring.mailbox.mailbox import Mailbox
from ring.mailbox.owner import Mailboxes
from ring.protocol.peer import Attach, HandOver
from ring.protocol.peer import Letter as PeerLetter

CHUNK_BYTES = 128 * 1024
"""About this much goes into one item: half a frame, so that receipts get in between."""
HISTORY_BYTES = 64 * 1024
"""This much of a mailbox's settled letters keeps its text; of older ones the fate alone is handed over. What
is settled behind the first open letter keeps its text all the same: a new session starts at that letter."""
LETTER_BYTES = 100
"""What a letter takes beside its text, about."""


def pack(box: Mailbox, now: float) -> Iterator[HandOver]:
    """A mailbox as items for its new owner, in order. The last one may be empty: it carries the floor."""
    linger_ms = max(0, round((box.waited_until - now) * 1000))
    floor = horizon(box)
    first_kept = box.end
    kept = 0
    for position in range(box.end - 1, box.kept - 1, -1):
        letter = box.letters[position - box.base]
        if letter.status is not None and letter.home is None:
            kept += letter.size
            if kept > HISTORY_BYTES and position < box.first_unsettled:
                floor = max(floor, (letter.epoch, letter.number))
                break
        first_kept = position
    letters: list[PeerLetter] = []
    size = 0
    for position, letter in enumerate(box.letters, box.base):
        unsettled = letter.status is None or letter.home is not None
        packed = _pack(letter, now, text=unsettled or position >= first_kept)
        letters.append(packed)
        size += LETTER_BYTES + len(packed.body or b"")
        if size > CHUNK_BYTES:
            yield HandOver(box.user, letters, floor, linger_ms)
            letters, size = [], 0
    yield HandOver(box.user, letters, floor, linger_ms, box.left)


def _pack(letter: Letter, now: float, *, text: bool) -> PeerLetter:
    waiters = [(letter.gateway, letter.ref)] if letter.ref else []
    return PeerLetter(
        letter.epoch,
        letter.number,
        letter.sender,
        letter.id,
        letter.body if text else None,
        max(0, round((now - letter.at) * 1000)),
        round(letter.patience * 1000),
        letter.seen,
        letter.origin,
        letter.status,
        letter.by,
        letter.code,
        letter.message,
        waiters + (letter.waiters or []),
        letter.home,
        0 if letter.expires_at == NEVER else max(1, round((letter.expires_at - now) * 1000)),
        letter.found,
    )


def take(mailboxes: Mailboxes, item: HandOver, now: float) -> None:
    """Puts handed-over letters into the mailbox of the user.

    While it is closed they go where their numbers belong. Once it is served, newer letters have been sent
    already: then what is unsettled is taken like a message that was sent again, under a number of its own.
    """
    box = mailboxes.open(item.user)
    box.waited_until = max(box.waited_until, now + item.linger_ms / 1000)
    letters = [_unpack(packed, now) for packed in item.letters]
    if box.closed:
        box.floor = item.floor if not box.letters else min(box.floor, item.floor)
        mailboxes.merge(box, letters)
        box.left += item.left
    else:
        for letter in letters:
            if letter.status is None and not mailboxes.waits_with_another(box, letter):
                box.append_anew(letter)
        for attachment in tuple(box.attachments):
            mailboxes.start(attachment)
    mailboxes.wait(box)


def put_behind(mailboxes: Mailboxes, attach: Attach) -> None:
    """What a session has missed goes behind what it has been sent, before it is attached.

    An owner that has been replaced and does not know it yet (it stood still, or was cut off) takes letters
    whose numbers lie before what the session gets of its successor. An acknowledgement of that would count
    for those too: for each epoch the session says how far it really got. It does not say what Redis kept
    meanwhile, and an earlier owner could not read, or left there.
    """
    box = mailboxes.boxes.get(attach.user)
    if box is None or attach.sent is None:
        return
    reached = dict([*attach.earlier, attach.sent])
    for letter in box.unsettled():
        if (letter.epoch, letter.number) > attach.sent:
            break
        had = letter.number <= reached.get(letter.epoch, 0) and not letter.found
        if had or letter.origin == attach.session:
            continue
        again = replace(letter, pushing=False)
        letter.void()
        box.settle(letter)
        if box.find(letter.sender, letter.id) is letter or not mailboxes.waits_with_another(box, again):
            box.append_anew(again)
    mailboxes.wait(box)


def _unpack(packed: PeerLetter, now: float) -> Letter:
    (gateway, ref), *others = packed.waiters or [("", 0)]
    # Its sessions are on the move too: they get the whole time to acknowledge once more.
    age_s = 0.0 if packed.status is None else packed.age_ms / 1000
    return Letter(
        packed.epoch,
        packed.number,
        packed.sender,
        packed.id,
        packed.body,
        len(packed.body or b""),
        now - age_s,
        min(packed.patience_ms, packed.expires_ms or packed.patience_ms) / 1000,
        gateway,
        ref,
        packed.origin,
        others or None,
        packed.seen,
        packed.status,
        packed.by,
        packed.code,
        packed.message,
        now + packed.expires_ms / 1000 if packed.expires_ms else NEVER,
        packed.home,
        handed=True,
        # A node of the release before does not say it.
        found=packed.found or (packed.home is not None and not packed.seen),
    )
