"""What happens in the mailboxes that a node owns: accepting, attaching, acknowledging, giving up.

Called by the router, in the pump's tick: plain functions that do no I/O.
"""

from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Literal

from msgspec import UNSET, Raw

from ring.mailbox.letter import By, Letter, Notify
from ring.mailbox.mailbox import FATES_S, WINDOW_BYTES, Attachment, Mailbox, Outlet
from ring.mailbox.shelf import Shelf
from ring.protocol.client import Message, encode, parse_seq
from ring.protocol.codes import BadRequest, CloseCode, ErrorCode
from ring.protocol.peer import Attach, Send
from ring.transport.wheel import TimerWheel

UNSETTLED_LETTERS = 4096
"""Letters without a fate in one mailbox; beyond it senders are told `mailbox_full`."""
UNSETTLED_BYTES = 4 * 1024 * 1024
"""The same in bytes."""

OFFLINE = "the recipient is not connected"
SILENT = "the recipient's client did not acknowledge in time"
EXPIRED = "ttl_s went by before the recipient's client acknowledged"


class Mailboxes(Shelf):
    """The mailboxes of the users whose slots this node owns.

    Args:
        node: this node's name, and `incarnation` its life.
        wheel: for giving up and forgetting.
        notify: tells a gateway a fate.
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
        linger_s: float = 2.0,
        spill_after_s: float = 2.0,
        window_bytes: int = WINDOW_BYTES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(linger_s=linger_s, window_bytes=window_bytes, clock=clock)
        self.node = node
        self.incarnation = incarnation
        self.dropped_untracked = 0  # `receipt:false` messages that found nobody, or a session too far behind
        self._wheel = wheel
        self._notify = notify
        self._spill_after_s = spill_after_s
        self._remote: dict[str, dict[int, Attachment]] = {}

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
        if now >= box.waited_until and not _reaches(attachments, send.session):
            self._notify(gateway, send.ref, "failed", None, ErrorCode.OFFLINE, OFFLINE)
            self._tend_later(box, now)
            return
        if box.unsettled_bytes > UNSETTLED_BYTES or box.end - box.first_unsettled > UNSETTLED_LETTERS:
            self._notify(
                gateway, send.ref, "failed", None, ErrorCode.MAILBOX_FULL, "too much waits for the recipient"
            )
            return
        patience = self._spill_after_s
        if send.ttl_ms and send.ttl_ms / 1000 < patience:
            patience = send.ttl_ms / 1000
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
        )
        if box.closed:
            box.merge([letter])  # what another owner numbered later may have been handed over already
        else:
            box.append(letter)
        due = now + patience if attachments else min(now + patience, box.waited_until)
        if box.due > due:
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
            if attachment.position == box.end and attachment.outlet is not None and not box.closed:
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
            return False
        if letter.status is not None:
            if send.ref:
                self._notify(gateway, send.ref, letter.status, letter.by, letter.code, letter.message)
        elif send.ref and (letter.gateway, letter.ref) != (gateway, send.ref):
            waiters = letter.waiters = letter.waiters or []
            if (gateway, send.ref) not in waiters:
                waiters.append((gateway, send.ref))
        return True

    def settled(self, letters: Iterable[Letter]) -> None:
        """Tells everybody who waits for these letters what became of them."""
        notify = self._notify
        for letter in letters:
            assert letter.status is not None
            if letter.ref:
                notify(letter.gateway, letter.ref, letter.status, letter.by, letter.code, letter.message)
            if letter.waiters:
                self.answer_waiters(letter)

    def answer_waiters(self, letter: Letter) -> None:
        """Tells those who asked again about a letter that has its fate."""
        assert letter.status is not None
        for gateway, ref in letter.waiters or ():
            self._notify(gateway, ref, letter.status, letter.by, letter.code, letter.message)
        letter.waiters = None

    # --- sessions

    def attach(
        self, attach: Attach, gateway: str, incarnation: str, outlet: Outlet
    ) -> tuple[Attachment, bool | Literal["gap"]] | None:
        """Puts a session to its user's mailbox; `start` sends it what waits there.

        Returns the attachment and the welcome's `resumed`; None if a later session of the same device is
        there, and this one has been closed for it.
        """
        box = self.boxes.get(attach.user) or self._make(attach.user)
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
            self.settled(box.acknowledge(attachment, *(attach.acked or (0, 0)), attach.by))
        elif attach.resume is not None:
            resumed = self._resume(box, attachment, attach.resume, attach.by)
        else:
            box.place_fresh(attachment)
        return attachment, resumed

    def before(self, attachment: Attachment) -> tuple[int, int]:
        """The sequence after which this session gets its letters."""
        return self.boxes[attachment.user].before(attachment.position)

    def serve(self, slots: Iterable[int]) -> None:
        """All that was handed over for these slots is here: it is sent, and what comes now goes behind it."""
        for box in self.reopen(slots):
            for attachment in tuple(box.attachments):
                self.start(attachment)

    def start(self, attachment: Attachment) -> None:
        """Sends a session what waits for it: called once it has been welcomed."""
        box = self.boxes.get(attachment.user)
        if box is not None and not box.push(attachment):
            self._expel_slow(attachment)

    def _resume(self, box: Mailbox, attachment: Attachment, resume: str, by: By) -> Literal[True, "gap"]:
        try:
            seq = parse_seq(resume)
        except BadRequest:
            seq = (0, 0)  # a cursor that no node of this cluster wrote: there is a gap
        resumed = box.resume(attachment, seq)
        if resumed is True:
            self.settled(box.acknowledge(attachment, *seq, by))
        return resumed

    def acknowledge(self, attachment: Attachment, epoch: int, number: int, by: By) -> None:
        """A session has everything up to (epoch, number)."""
        box = self.boxes.get(attachment.user)
        if box is None:
            return
        settled = box.acknowledge(attachment, epoch, number, by)
        if settled:
            self.settled(settled)
        if attachment.position < box.end and not box.push(attachment):
            self._expel_slow(attachment)

    def acknowledge_remote(self, gateway: str, handle: int, epoch: int, number: int, by: By) -> None:
        """The same for a session on another node."""
        attachment = self._remote.get(gateway, {}).get(handle)
        if attachment is not None:
            self.acknowledge(attachment, epoch, number, by)

    def detach(self, attachment: Attachment, *, clean: bool) -> None:
        """A session has ended; `clean` if its client said goodbye, so that nobody waits for it."""
        box = self.boxes.get(attachment.user)
        if box is None or attachment not in box.attachments:
            return
        self._remove(box, attachment)
        now = self._clock()
        if not box.attachments:
            box.waited_until = now if clean else now + self._linger_s
        self._tend_later(box, now)

    def detach_remote(self, gateway: str, handle: int, *, clean: bool) -> None:
        """The same for a session on another node."""
        attachment = self.remote(gateway, handle)
        if attachment is not None:
            self.detach(attachment, clean=clean)

    def release(self, attachment: Attachment) -> None:
        """A session of this node goes to another owner: its user is waited for until the mailbox has
        followed."""
        box = self.boxes.get(attachment.user)
        if box is not None and attachment in box.attachments:
            self._remove(box, attachment)
            now = self._clock()
            box.waited_until = now + self._linger_s
            self._tend_later(box, now)  # the slot may come back, and the session not

    def remote(self, gateway: str, handle: int) -> Attachment | None:
        """The attachment of a session on another node."""
        return self._remote.get(gateway, {}).get(handle)

    def _remove(self, box: Mailbox, attachment: Attachment) -> None:
        box.attachments.remove(attachment)
        sessions = self._remote.get(attachment.gateway)
        if sessions is not None and sessions.get(attachment.handle) is attachment:
            del sessions[attachment.handle]

    def _expel_slow(self, attachment: Attachment) -> None:
        outlet = attachment.outlet
        assert outlet is not None  # else nothing was to be sent
        self.detach(attachment, clean=False)
        outlet.expel(CloseCode.SLOW_CONSUMER, "too far behind: what comes next is no longer kept")

    # --- gateways

    def suspend(self, gateway: str) -> None:
        """The link to a gateway broke: its sessions keep their places, and nothing is sent to them."""
        for attachment in self._remote.get(gateway, {}).values():
            attachment.outlet = None

    def forget_gateway(self, gateway: str, *, but: str | None = None) -> None:
        """A gateway is gone, or lives as incarnation `but`: sessions of its earlier lives have ended."""
        for attachment in tuple(self._remote.get(gateway, {}).values()):
            if attachment.incarnation != but:
                self.detach(attachment, clean=False)
        if not self._remote.get(gateway):
            self._remote.pop(gateway, None)

    def gateways(self) -> list[str]:
        """The other nodes that have sessions here."""
        return list(self._remote)

    def reconciled(self, gateway: str) -> None:
        """A gateway has attached all its sessions again: those that it did not name ended meanwhile."""
        for attachment in tuple(self._remote.get(gateway, {}).values()):
            if attachment.outlet is None:
                self.detach(attachment, clean=False)

    def drop(self, box: Mailbox) -> None:
        """Forgets a mailbox that has been handed over."""
        for attachment in tuple(box.attachments):
            self._remove(box, attachment)
        self.forget(box)

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
        if box.first_unsettled < box.end:
            at = min(letter.at + letter.patience for letter in box.unsettled())
            if not box.attachments:
                at = min(at, box.waited_until)
        elif box.letters:
            at = box.letters[0].at + FATES_S
        elif not box.attachments:
            at = box.waited_until
        else:
            return
        if at < box.due:
            self._schedule(box, now, at)

    def _tend(self, box: Mailbox) -> None:
        """Gives up what has waited long enough; forgets what is old, and a mailbox that is empty."""
        box.timer, box.due = None, float("inf")
        now = self._clock()
        given_up: list[Letter] = []
        for letter in box.unsettled():
            waited = now >= letter.at + letter.patience
            if not waited and (box.attachments or now < box.waited_until):
                continue
            letter.status = "failed"
            if waited and letter.patience < self._spill_after_s:
                letter.code, letter.message = ErrorCode.EXPIRED, EXPIRED
            else:
                letter.code, letter.message = ErrorCode.OFFLINE, SILENT if box.attachments else OFFLINE
            given_up.append(letter)
        for letter in given_up:
            box.settle(letter)
        self.settled(given_up)
        box.trim(now)
        if box.letters or box.attachments or now < box.waited_until:
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
