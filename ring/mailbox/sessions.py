"""Which sessions are at the mailboxes of a node, on this node or at other gateways, and how they go.

The base of `owner.Mailboxes`, which says how they come and what they get.
"""

from collections.abc import Callable
from time import monotonic

from ring.mailbox.arrival import drop_bare
from ring.mailbox.attachment import Attachment
from ring.mailbox.keeping import Keeping
from ring.mailbox.letter import Letter, Notify
from ring.mailbox.mailbox import Mailbox
from ring.mailbox.spill import Spill
from ring.transport.wheel import TimerWheel


class Sessions(Keeping):
    """Sessions by their gateways.

    Args:
        node: this node's name; for the others see `Keeping`.
    """

    def __init__(
        self,
        *,
        node: str,
        wheel: TimerWheel,
        notify: Notify,
        spill: Spill | None,
        linger_s: float,
        window_bytes: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(
            wheel=wheel,
            notify=notify,
            spill=spill,
            linger_s=linger_s,
            window_bytes=window_bytes,
            clock=clock,
        )
        self.node = node
        self._remote: dict[str, dict[int, Attachment]] = {}

    def detach(self, attachment: Attachment, *, clean: bool) -> None:
        """A session has ended; `clean` if its client said goodbye, so that nobody waits for it."""
        box = self.boxes.get(attachment.user)
        if box is None or attachment not in box.attachments:
            return
        self._remove(box, attachment)
        now = self._clock()
        if not box.attachments:
            box.waited_until = now if clean else now + self._linger_s
        self.wait(box)

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
            self.wait(box)  # the slot may come back, and the session not

    def remote(self, gateway: str, handle: int) -> Attachment | None:
        """The attachment of a session on another node."""
        return self._remote.get(gateway, {}).get(handle)

    def _remove(self, box: Mailbox, attachment: Attachment) -> None:
        box.attachments.remove(attachment)
        sessions = self._remote.get(attachment.gateway)
        if sessions is not None and sessions.get(attachment.handle) is attachment:
            del sessions[attachment.handle]

    def merge(self, box: Mailbox, letters: list[Letter]) -> None:
        """Puts letters into a closed mailbox, by their numbers.

        It may have sessions: the node has owned the slot before, and does not know who did in between. What
        lies before what they have had would count as acknowledged with it: it goes to the end.
        """
        ends = [(one.floor, box.before(one.position)) for one in box.attachments]
        low = max(map(max, ends), default=(0, 0))
        box.merge([letter for letter in letters if (letter.epoch, letter.number) > low])
        drop_bare(box, box.first_unsettled - box.base)
        end = box.end
        for letter in letters:
            late = (letter.epoch, letter.number) <= low and letter.status is None
            if late and not self.waits_with_another(box, letter):
                box.append_anew(letter)
        if box.end > end:
            box.merge([])  # their numbers are of this node's last tenure; owners since have given later ones

    def waits_with_another(self, box: Mailbox, letter: Letter) -> bool:
        """True if its sender has sent it again meanwhile: then who waits for it waits for that one."""
        known = box.find(letter.sender, letter.id)
        if known is None or (known.status == "failed" and known.home is None):
            return False
        if letter.home is not None and letter.home != known.home:
            if known.status is not None:
                self.forget_stored(box, [letter.home])
            elif known.pushing:
                return False
            else:
                known.home = letter.home
                self.tell_queued([known])
        waiters = [(letter.gateway, letter.ref), *(letter.waiters or [])]
        known.waiters = [*(known.waiters or []), *(waiter for waiter in waiters if waiter[1])]
        if known.status is not None:
            self.answer_waiters(known)
        return True

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
