"""What a client has received: doubles dropped, kept until the application takes it, acknowledged when it did.

Pure. The session (session.py) offers what a node sent, the client (client.py) takes. It outlives the
sessions: what one brought and the application has not taken yet is handed out under the next.
"""

from collections import deque

from ring.client.messages import Message
from ring.protocol import client as wire

BUFFER_BYTES = 4 * 1024 * 1024
"""At most this much waits for a slow application; a node keeps the rest until there is room again."""

OVERHEAD_BYTES = 512
"""What a waiting message costs beside its text; so at most 8192 wait."""

WINDOW = 16384
"""So many messages are remembered to know their doubles by: all that wait, and 16 s of 1000 a second, which
is longer than a sender goes on sending again (10 s)."""


class Arrival:
    """A message that came, and whether the application has it."""

    __slots__ = ("message", "size")

    def __init__(self, message: wire.Message, size: int) -> None:
        self.message: wire.Message | None = message  # None: handed out
        self.size = size


class Inbox:
    """See the module.

    Attributes:
        position: up to here the application has everything that came; None if that is nothing. A new
            session resumes from here.
        unacknowledged: messages of the present session that `position` covers and no acknowledgement has
            told.
        overrun: there was no room. What the session brings from there on is left to the node, in order:
            none of it is kept or acknowledged, and another session brings it once there is room.
    """

    __slots__ = ("_bytes", "_keys", "_seen", "_tracked", "_waiting", "overrun", "position", "unacknowledged")

    def __init__(self) -> None:
        self.position: str | None = None
        self.unacknowledged = 0
        self.overrun = False
        self._waiting: deque[Arrival] = deque()
        self._bytes = 0
        self._tracked: deque[tuple[str, Arrival]] = deque()  # the session's messages behind `position`
        self._seen: dict[tuple[str | None, str] | str, Arrival] = {}
        self._keys: deque[tuple[str | None, str] | str] = deque()  # of `_seen`, the oldest first

    def __len__(self) -> int:
        return len(self._waiting)

    def new_session(self) -> None:
        """A new session begins: a node takes acknowledgements only of what it sent to that session."""
        self._tracked.clear()
        self.unacknowledged = 0
        self.overrun = False

    def offer(self, received: wire.Message, size: int) -> bool:
        """Takes in a message of `size` bytes; True if the application gets it.

        Doubles are known by sender and id, not by the order of `seq`: what was stored while a mailbox changed
        its owner may come late, with an older number, and is no double.
        """
        if self.overrun:
            return False
        key = (received.from_, received.id) if received.id is not None else received.seq
        arrival = self._seen.get(key)
        if arrival is not None:
            self._tracked.append((received.seq, arrival))
            self._advance()
            return False
        size += OVERHEAD_BYTES
        if self._waiting and self._bytes + size > BUFFER_BYTES:
            self.overrun = True
            return False
        arrival = self._seen[key] = Arrival(received, size)
        self._keys.append(key)
        if len(self._keys) > WINDOW:
            del self._seen[self._keys.popleft()]
        self._tracked.append((received.seq, arrival))
        self._waiting.append(arrival)
        self._bytes += size
        return True

    def take(self) -> Message:
        """The oldest message that waits, which the application has from now on."""
        arrival = self._waiting.popleft()
        assert arrival.message is not None
        message, arrival.message = arrival.message, None
        self._bytes -= arrival.size
        self._advance()
        return Message(message)

    def acknowledged(self) -> str:
        """The position to acknowledge; it counts as told."""
        assert self.position is not None
        self.unacknowledged = 0
        return self.position

    def clear(self) -> None:
        """Drops what waits: it was not acknowledged, so a node still has it."""
        self._waiting.clear()
        self._bytes = 0

    def _advance(self) -> None:
        tracked = self._tracked
        while tracked and tracked[0][1].message is None:
            self.position = tracked.popleft()[0]
            self.unacknowledged += 1
