"""What happens in the mailboxes that a node owns: accepting, attaching, acknowledging, giving up.

Called by the router, in the pump's tick: plain functions that do no I/O.
"""

from collections.abc import Callable, Collection
from functools import partial
from time import monotonic
from typing import Literal

from msgspec import UNSET, Raw

from ring.mailbox.attachment import Attachment, Outlet
from ring.mailbox.letter import NEVER, By, Letter, Notify
from ring.mailbox.mailbox import FATES_S, OPEN, WINDOW_BYTES, Mailbox
from ring.mailbox.sessions import Sessions
from ring.mailbox.spill import Spill
from ring.protocol.client import Message, encode, parse_seq
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode
from ring.protocol.peer import Attach, Send
from ring.transport.wheel import TimerWheel

UNSETTLED_LETTERS = 4096
"""Letters without a fate in one mailbox; beyond it senders are told `mailbox_full`."""
UNSETTLED_BYTES = 4 * 1024 * 1024
"""The same in bytes."""

OFFLINE = "the recipient is not connected"
GATED_S = 0.1
"""When a mailbox is looked at again whose oldest fates lie behind its gate."""

SILENT = "the recipient's client did not acknowledge in time"
EXPIRED = "ttl_s went by before the recipient's client acknowledged"


class Mailboxes(Sessions):
    """The mailboxes of the users whose slots this node owns.

    Args:
        node: this node's name, and `incarnation` its life.
        wheel: for giving up and forgetting.
        notify: tells a gateway a fate.
        spill: carries what nobody acknowledges to Redis; None if that is given up.
        linger_s: how long a user whose last session broke, or whose slot moved, is waited for.
        spill_after_s: how long a letter waits for an acknowledgement.
        window_bytes: of letters on their way to one session without an acknowledgement.
    """

    def __init__(
        self,
        *,
        node: str,
        incarnation: str,
        wheel: TimerWheel,
        notify: Notify,
        spill: Spill | None = None,
        linger_s: float = 2.0,
        spill_after_s: float = 2.0,
        window_bytes: int = WINDOW_BYTES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(
            node=node,
            wheel=wheel,
            notify=notify,
            spill=spill,
            linger_s=linger_s,
            window_bytes=window_bytes,
            clock=clock,
        )
        self.incarnation = incarnation
        self.dropped_untracked = 0  # `receipt:false` messages that found nobody, or a session too far behind
        self._spill_after_s = spill_after_s

    # --- messages

    def accept(self, gateway: str, send: Send, routed: int = 0) -> None:
        """Takes a message for a user of this node; the gateway is told its fate, now or later.

        `routed` is the epoch by which it came here: while the mailbox is closed, that is what orders it.
        """
        to = send.to
        box = self.boxes.get(to)
        if box is None:
            box = self._make(to)
        if send.again and self._known(box, gateway, send):
            return
        now = self._clock()
        attachments = box.attachments
        if not send.ref:
            self._pass_on(box, send)
            return
        offline = now >= box.waited_until and not box.waiting and not _reaches(attachments, send.session)
        if offline and self.spill is None:
            self._notify(gateway, send.ref, "failed", None, ErrorCode.OFFLINE, OFFLINE)
            self._tend_later(box, now)
            return
        if box.end - box.first_unsettled > UNSETTLED_LETTERS:
            self.leave_own(box)
        if box.unsettled_bytes > UNSETTLED_BYTES or box.end - box.first_unsettled > UNSETTLED_LETTERS:
            self._notify(
                gateway, send.ref, "failed", None, ErrorCode.MAILBOX_FULL, "too much waits for the recipient"
            )
            return
        patience, expires_at = self._spill_after_s, NEVER
        if send.ttl_ms:
            patience = min(patience, send.ttl_ms / 1000)
            expires_at = now + send.ttl_ms / 1000
        box.number = number = box.number + 1
        epoch = routed if routed and box.closed else box.epoch
        body = _body(send, epoch, number)
        letter = Letter(
            epoch,
            number,
            send.sender,
            send.id,
            body,
            len(body),
            now,
            patience,
            gateway,
            send.ref,
            send.session,
            expires_at=expires_at,
        )
        if box.closed:
            self.merge(box, [letter])  # what another owner numbered later may have been handed over already
        else:
            box.append(letter)
        due = now + patience if attachments else min(now + patience, box.waited_until)
        if offline and not box.closed:
            self.store_last(box)
        elif box.due > due:
            self._schedule(box, now, due)
        for attachment in tuple(attachments):  # one that is too slow is taken out of the list
            if not box.push(attachment):
                self._expel_slow(attachment)

    def _pass_on(self, box: Mailbox, send: Send) -> None:
        """At most once: to the sessions that are there and keep up; nothing is kept."""
        box.number = number = box.number + 1
        body, sent = _body(send, box.epoch, number), False
        for attachment in box.attachments:
            # A session behind in the letters would get this one before them, and acknowledge those with it.
            if (
                attachment.position == box.end <= box.gate
                and attachment.outlet is not None
                and not box.closed
            ):
                if attachment.session == send.session:
                    continue
                attachment.outlet.deliver(box.epoch, number, body, False)
                sent = True
        if not sent:
            self.dropped_untracked += 1
            self._tend_later(box, self._clock())

    def _known(self, box: Mailbox, gateway: str, send: Send) -> bool:
        """A message that was sent again: answered by its fate, or one more waits for it."""
        letter = box.find(send.sender, send.id)
        if letter is None:
            if not self.is_queued(box.user, send.sender, send.id):
                return False
            if send.ref:
                self._notify(gateway, send.ref, "queued", None, None, None)
            self._tend_later(box, self._clock())
            return True
        if letter.status is not None:
            if send.ref:
                self._notify(gateway, send.ref, letter.status, letter.by, letter.code, letter.message)
        elif send.ref and (letter.gateway, letter.ref) != (gateway, send.ref):
            waiters = letter.waiters = letter.waiters or []
            if (gateway, send.ref) not in waiters:
                waiters.append((gateway, send.ref))
        return True

    # --- sessions

    def attach(
        self, attach: Attach, gateway: str, incarnation: str, outlet: Outlet
    ) -> tuple[Attachment, bool | Literal["gap"]] | None:
        """Puts a session to its user's mailbox; `start` sends it what waits there.

        Returns the attachment and the welcome's `resumed`; None if a later session of the same device is
        there, and this one has been closed for it.
        """
        box = self.open(attach.user)
        for other in tuple(box.attachments):
            if other.session == attach.session:
                self._remove(box, other)
            elif other.device == attach.device:
                if attach.sent is not None and other.since_ms > attach.since_ms:
                    outlet.expel(CloseCode.REPLACED, "the same device connected again")
                    return None
                self._remove(box, other)
                if other.outlet is not None:
                    other.outlet.expel(CloseCode.REPLACED, "the same device connected again")
        attachment = Attachment(attach, gateway, incarnation, outlet)
        if gateway != self.node:
            self._remote.setdefault(gateway, {})[attach.handle] = attachment
        box.attachments.append(attachment)
        resumed: bool | Literal["gap"] = False
        if attach.sent is not None:
            box.place(attachment, attach.sent)
            self._acknowledge(box, attachment, attach.acked or (0, 0), attach.by)
        elif attach.resume is not None:
            resumed = self._resume(box, attachment, attach.resume, attach.by)
        else:
            box.place_fresh(attachment)
        attachment.floor = attach.sent or self.before(attachment)
        return attachment, resumed

    def before(self, attachment: Attachment) -> tuple[int, int]:
        """The sequence after which this session gets its letters."""
        return self.boxes[attachment.user].before(attachment.position)

    def serve(self, slots: Collection[int]) -> None:
        """All that was handed over for these slots is here: it is sent, and what comes now goes behind it."""
        for box in self.reopen(slots):
            self.wait(box)
            if box.waiting:
                self.read(box)
            for attachment in tuple(box.attachments):
                self.start(attachment)

    def start(self, attachment: Attachment) -> None:
        """Sends a session what waits for it: called once it has been welcomed."""
        box = self.boxes.get(attachment.user)
        if box is not None:
            if not box.push(attachment):
                self._expel_slow(attachment)
            if box.gate != OPEN or box.late:
                self.feed(box)

    def _resume(self, box: Mailbox, attachment: Attachment, resume: str, by: By) -> Literal[True, "gap"]:
        try:
            seq = parse_seq(resume)
        except BadRequest:
            seq = (0, 0)  # a cursor that no node of this cluster wrote: there is a gap
        resumed = box.resume(attachment, seq)
        if resumed is True:
            self._acknowledge(box, attachment, seq, by)
        return resumed

    def _acknowledge(self, box: Mailbox, attachment: Attachment, seq: tuple[int, int], by: By) -> None:
        settled, homes = box.acknowledge(attachment, *seq, by)
        if settled:
            self.settled(settled)
        if homes:
            self.forget_stored(box, homes)

    def acknowledge(self, attachment: Attachment, epoch: int, number: int, by: By) -> None:
        """A session has everything up to (epoch, number)."""
        box = self.boxes.get(attachment.user)
        if box is None:
            return
        self._acknowledge(box, attachment, (epoch, number), by)
        if attachment.position < box.end:
            self.start(attachment)
        elif box.gate != OPEN or box.late:
            self.feed(box)

    def acknowledge_remote(self, gateway: str, handle: int, epoch: int, number: int, by: By) -> None:
        """The same for a session on another node."""
        attachment = self.remote(gateway, handle)
        if attachment is not None:
            self.acknowledge(attachment, epoch, number, by)

    def _expel_slow(self, attachment: Attachment) -> None:
        outlet = attachment.outlet
        assert outlet is not None  # else nothing was to be sent
        self.detach(attachment, clean=False)
        outlet.expel(CloseCode.SLOW_CONSUMER, "too far behind: what comes next is no longer kept")

    def drop(self, box: Mailbox) -> None:
        """Forgets a mailbox that has been handed over."""
        for attachment in tuple(box.attachments):
            self._remove(box, attachment)
        self.forget(box)
        self._attach_waiting(box)

    def wait(self, box: Mailbox) -> None:
        """Sees to a mailbox's unsettled letters and to its end."""
        self._tend_later(box, self._clock())

    # --- time

    def _schedule(self, box: Mailbox, now: float, at: float) -> None:
        if box.timer is not None:
            box.timer.cancel()
        box.due = at
        box.timer = self._wheel.call_later(max(at - now, 0.0), partial(self._tend, box))

    def _tend_later(self, box: Mailbox, now: float) -> None:
        """Makes sure that the mailbox is looked at when the next thing about it is due."""
        at = NEVER
        if box.first_unsettled < box.end:
            waiting = [letter for letter in box.unsettled() if letter.status is None and not letter.pushing]
            at = min((letter.at + letter.patience for letter in waiting), default=at)
            if not (box.attachments or box.waiting) and not all(one.pushing for one in box.unsettled()):
                at = min(at, box.waited_until)
        elif box.letters:
            at = max(box.letters[0].at + FATES_S, now + GATED_S)  # what is behind a gate stays longer
        elif not (box.attachments or box.waiting or box.reading):
            at = box.waited_until
        if at < box.due:
            self._schedule(box, now, at)

    def _tend(self, box: Mailbox) -> None:
        """Stores or gives up what has waited long enough; forgets what is old, and an empty mailbox."""
        box.timer, box.due = None, NEVER
        now = self._clock()
        if box.closed and self.spill is not None:
            return  # older letters may still come, and are stored before; `serve` looks again
        gone = not (box.attachments or box.waiting) and now >= box.waited_until
        given_up: list[Letter] = []
        last: Letter | None = None
        for letter in box.unsettled():
            if letter.status is not None or letter.pushing:
                continue
            if not gone and now < letter.at + letter.patience:
                continue
            if now >= letter.expires_at:
                letter.code, letter.message = ErrorCode.EXPIRED, EXPIRED
            elif self.spill is None:
                letter.code, letter.message = ErrorCode.OFFLINE, SILENT if box.attachments else OFFLINE
            else:
                last = letter
                continue
            letter.status = "failed"
            given_up.append(letter)
        for letter in given_up:
            box.settle(letter)
        self.settled(given_up)
        if last is not None:
            self.store(box, last)
        if gone:
            self.leave_to_redis(box)
        box.trim(now)
        if box.letters or box.attachments or box.waiting or box.reading or now < box.waited_until:
            self._tend_later(box, now)
        else:
            self.forget(box)


def _reaches(attachments: list[Attachment], origin: str) -> bool:
    """True if there is a session beside the one that sent the message itself."""
    if not origin:
        return bool(attachments)
    return any(attachment.session != origin for attachment in attachments)


def _body(send: Send, epoch: int, number: int) -> bytes:
    return encode(
        Message(
            send.sender,
            send.id,
            f"{epoch}-{number}",
            Raw(send.data),
            send.sent_at,
            True if send.again else UNSET,
        )
    )
