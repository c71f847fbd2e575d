"""What comes to a mailbox of which Redis has a part: its letters, and sessions, and in which order.

An acknowledgement counts for all that lies before what it names. So a session must not come between letters
that it has had and letters that it is to get.
"""

from dataclasses import dataclass

import structlog
from msgspec import DecodeError, json

from ring.mailbox.letter import NEVER, Letter
from ring.mailbox.mailbox import OPEN, Mailbox
from ring.mailbox.vault import Page, Stored
from ring.protocol.client import Message
from ring.protocol.codes import ErrorCode
from ring.protocol.peer import Seq

_log = structlog.get_logger()

_decode_message = json.Decoder(Message).decode


def has_read_enough(box: Mailbox, sent: Seq | None) -> bool:
    """False while Redis may have letters that belong before what a session is to get next.

    `sent` is how far an earlier owner brought it.
    """
    if not box.readable or box.owed:
        return False
    if sent is None or box.gate == OPEN or (box.read_to is not None and box.read_to >= sent):
        return True
    last = box.letters[min(box.gate, box.end) - box.base - 1]
    return (last.epoch, last.number) >= sent


def is_storing_unseen(box: Mailbox) -> bool:
    """True while letters that no session has seen are on their way to Redis: if one saw them now, Redis could
    not say so later."""
    return any(letter.pushing and not letter.seen for letter in box.unsettled())


def bring_back(box: Mailbox, letters: list[tuple[Letter, Letter]]) -> None:
    """Puts letters that were left to Redis, since all sessions here had sent them themselves, in their old
    places.

    Args:
        letters: each as it is here, and as it was read.
    """
    for known, read in letters:
        known.home, known.body, known.seen = read.home, read.body, read.seen
    drop_bare(box, min(map(box.letters.index, (known for known, _ in letters))))


def drop_bare(box: Mailbox, first: int) -> None:
    """From the `first` letter on, takes out fates without their text: a session that would have to pass one
    would be taken for one that is too slow."""
    bare = [box.base + place for place, one in enumerate(box.letters) if place >= first and one.body is None]
    for attachment in box.attachments:
        attachment.position -= sum(position < attachment.position for position in bare)
        attachment.acked -= sum(position < attachment.acked for position in bare)
    if box.gate != OPEN:
        box.gate -= sum(position < box.gate for position in bare)
    box.remove([box.letters[position - box.base] for position in bare])


@dataclass(eq=False)
class SortedOut:
    """The letters of a page, by what is to become of them."""

    new: list[Letter]
    """Of which nothing is here."""
    found: list[Letter]
    """Of which it was not known here that Redis has them."""
    double: list[Letter]
    """Sent again before the page was read: what was stored stands for both."""
    back: list[tuple[Letter, Letter]]
    """For `bring_back`."""
    forget: list[Seq]
    """That Redis need not keep: acknowledged or given up, or doubles."""


def sort_out(box: Mailbox, page: Page, now: float) -> SortedOut:
    """Holds a page against what is in memory: each message is to come once, whoever sent it again."""
    # Given up first: what was put in their place overrides them in `here`.
    letters = sorted(box.letters, key=lambda letter: letter.status != "failed")
    here = {letter.home or (letter.epoch, letter.number): letter for letter in letters}
    passed = set(map(id, box.letters[: min(box.gate, box.end) - box.base]))
    read: dict[tuple[str | None, str | None], Letter] = {}
    result = SortedOut([], [], [], [], [])
    for stored in page.letters:
        seq = stored.epoch, stored.number
        known = here.get(seq)
        # (What an earlier owner stored after it had handed it over was not this node's to give up.)
        given_up = known is not None and known.handed and known.code is ErrorCode.STORE_UNAVAILABLE
        if known is not None and not known.fate_only and not given_up:
            if known.status is not None and known.home is None:
                result.forget.append(seq)  # Redis does not know yet
            elif known.status is None and not known.pushing:
                known.home = seq  # an earlier owner stored it after it had handed it over
                result.found.append(known)
            continue
        letter = _letter(stored, now)
        if letter is None:
            continue
        if known is not None and box.unread and box.owed:  # a session comes that did not send it
            result.back.append((known, letter))
            continue
        key = letter.sender, letter.id
        known = read.get(key) or box.find(*key)
        if known is None or known.fate_only or (known.status == "failed" and known.home is None):
            read[key] = letter
        elif known.status is None and id(known) in passed:
            known.home = seq  # sent again, and maybe delivered already: it stands for both
            result.found.append(known)
        elif known.status is None:
            result.double.append(known)
            read[key] = letter
        else:
            result.forget.append(seq)
    result.new = list(read.values())
    return result


def _letter(stored: Stored, now: float) -> Letter | None:
    try:
        message = _decode_message(stored.body)
    except DecodeError as error:  # of a later release, say
        _log.error("a stored message cannot be read", reason=str(error))
        return None
    letter = Letter(
        stored.epoch,
        stored.number,
        message.from_,
        message.id,
        stored.body,
        len(stored.body),
        now,
        0.0,
        "",
        0,
        stored.origin,
        None,
        stored.seen,
        "queued",
        expires_at=now + stored.ttl_ms / 1000 if stored.ttl_ms else NEVER,
        home=(stored.epoch, stored.number),
        found=True,
    )
    if letter.seen:
        letter.mark_redelivered()
    return letter
