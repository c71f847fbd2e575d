"""A session as rooms see it: where its copies go, what it has been promised, and what waits while it is slow.

Made by `edge` with a session's first room command; most sessions never have one.
"""

from collections import defaultdict, deque
from typing import Protocol

from ring.protocol import client
from ring.protocol.codes import ErrorCode


class Socket(Protocol):
    """A client's connection, as a member needs it; the transport's `Socket` is one."""

    queued: int
    low_water: int

    @property
    def open(self) -> bool:
        """True until either side began to close."""

    def send_text(self, payload: bytes) -> None:
        """Queues a text message."""

    def send_frame(self, frame: bytes) -> None:
        """Queues a whole frame."""


class Member:
    """A session in rooms.

    Args:
        sid: the session's number at this node.
        user: whose session it is.
        socket: its connection.
        backlog_bytes: how much of rooms with the policy `drop_oldest` waits for a client that reads slowly:
            this much queued at its socket, and this much here. One message is always kept.
        errors: counts the errors that sessions are told, by code.

    Attributes:
        channels: of the rooms that it has joined, or is joining.
        unanswered: room commands that still get their answer.
    """

    __slots__ = ("_backlog", "_backlog_bytes", "_errors", "channels", "sid", "socket", "unanswered", "user")

    def __init__(
        self, sid: int, user: str, socket: Socket, backlog_bytes: int, errors: defaultdict[ErrorCode, int]
    ) -> None:
        self.sid = sid
        self.user = user
        self.socket = socket
        self.channels: set[bytes] = set()
        self.unanswered = 0
        self._backlog: _Backlog | None = None
        self._backlog_bytes = backlog_bytes
        self._errors = errors

    # --- answers

    def confirm(self, frame_id: str) -> None:
        """The command was done. After the end of the session this, as all that is sent, does nothing."""
        self.socket.send_text(client.encode(client.Ok(frame_id)))

    def refuse(self, frame_id: str, code: ErrorCode, message: str) -> None:
        """The command was not done, or nobody knows."""
        self._errors[code] += 1
        self.socket.send_text(client.encode(client.Error(code, message, code.retryable, frame_id)))

    # --- copies, by the policy `drop_oldest`

    def offer(self, room: str, frame: bytes) -> int:
        """Sends a frame, or keeps it until the client has read what is queued for it.

        Returns:
            How many older ones had to go for it.
        """
        socket = self.socket
        if self._backlog is None:
            queued = socket.queued
            # One frame may always be queued: it would else wait for the end of a queue that is empty.
            if not queued or queued + len(frame) <= self._backlog_bytes:
                socket.send_frame(frame)
                return 0
            if not socket.open:
                return 0  # nothing will be drained any more
            self._backlog = _Backlog(socket.low_water)
            socket.low_water = 0  # something is queued: there will be an `on_drained`
        return self._backlog.keep(room, frame, self._backlog_bytes)

    def on_drained(self) -> None:
        """All that was queued has been sent: sends what waits, in order, behind the news of what is gone."""
        backlog, self._backlog = self._backlog, None
        if backlog is None:
            return
        socket = self.socket
        socket.low_water = backlog.low_water
        for room, count in backlog.lost.items():
            message = f"the client reads too slowly: {count} message{'s' * (count > 1)} of this room dropped"
            self._errors[ErrorCode.BUSY] += 1
            error = client.Error(ErrorCode.BUSY, message, ErrorCode.BUSY.retryable, room=room)
            socket.send_text(client.encode(error))
        for _, frame in backlog.frames:
            socket.send_frame(frame)

    def forget(self, room: str) -> None:
        """Nothing of this room is to be sent any more."""
        if self._backlog is not None:
            self._backlog.forget(room)


class _Backlog:
    """Frames that wait, oldest first, and how many of each room have gone."""

    __slots__ = ("frames", "lost", "low_water", "size")

    def __init__(self, low_water: int) -> None:
        self.frames: deque[tuple[str, bytes]] = deque()
        self.size = 0
        self.lost: dict[str, int] = {}
        self.low_water = low_water  # the socket's own, to be restored

    def keep(self, room: str, frame: bytes, bound: int) -> int:
        frames, lost = self.frames, self.lost
        frames.append((room, frame))
        self.size += len(frame)
        dropped = 0
        while self.size > bound and len(frames) > 1:
            oldest, gone = frames.popleft()
            self.size -= len(gone)
            lost[oldest] = lost.get(oldest, 0) + 1
            dropped += 1
        return dropped

    def forget(self, room: str) -> None:
        self.frames = deque(entry for entry in self.frames if entry[0] != room)
        self.size = sum(len(frame) for _, frame in self.frames)
        self.lost.pop(room, None)
