"""What a client sends: in order, never more unanswered than its node allows, and again after a cut.

Pure. The client (client.py) adds, the session (session.py) takes what may be written and brings the answers.
It outlives the sessions. Its bound is the number of tasks that send: each waits for its own message.
"""

from collections import deque
from collections.abc import Callable

from ring.client.messages import Receipt
from ring.protocol.client import Send


class Outgoing:
    """A message on its way; `settle` is called once, when there is nothing more to wait for."""

    __slots__ = ("abandoned", "frame", "receipt", "settle", "written")

    def __init__(self, frame: Send, settle: Callable[[], None]) -> None:
        self.frame = frame
        self.settle = settle
        self.receipt: Receipt | None = None
        self.written = False
        self.abandoned = False


class Outbox:
    """See the module; `in_flight` is what the present session allows."""

    __slots__ = ("_queue", "_unanswered", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 1
        self._queue: deque[Outgoing] = deque()  # not written in this session
        self._unanswered: dict[str, Outgoing] = {}  # written in it, by id, in that order

    def add(self, outgoing: Outgoing) -> None:
        """Puts a message last."""
        self._queue.append(outgoing)

    def next(self) -> Outgoing | None:
        """The next message, for the caller to write now; None if none is left, or none may be written yet."""
        if not self._queue:
            return None
        frame = self._queue[0].frame
        if frame.receipt:
            # One that wants no receipt waits behind one that does: the order is the sender's.
            if len(self._unanswered) >= self.in_flight:
                return None
            assert frame.id is not None
            self._unanswered[frame.id] = self._queue[0]
        outgoing = self._queue.popleft()
        outgoing.written = True
        return outgoing

    def answer(self, receipt: Receipt) -> bool:
        """A receipt came; False if it answers nothing that was sent."""
        outgoing = self._unanswered.pop(receipt.id, None)
        if outgoing is None:
            return False
        outgoing.receipt = receipt
        outgoing.settle()
        return True

    def abandon(self, outgoing: Outgoing) -> None:
        """Nobody waits for it any more: it is not written if it wasn't, and not sent again if it was."""
        outgoing.abandoned = True
        if outgoing in self._queue:
            self._queue.remove(outgoing)

    def cut(self) -> None:
        """The session ended: what got no receipt goes again, marked and in order, before anything else."""
        again = [outgoing for outgoing in self._unanswered.values() if not outgoing.abandoned]
        for outgoing in again:
            outgoing.frame.again = True
        self._queue.extendleft(reversed(again))
        self._unanswered.clear()

    def clear(self) -> None:
        """There is no next session: everybody who waits is told."""
        self.cut()
        for outgoing in self._queue:
            outgoing.settle()
        self._queue.clear()
