"""What waits on a link: on the way out for a socket that is backed up, on the way in for an epoch. Pure."""

from collections import deque
from collections.abc import Iterator

import structlog
from msgspec import Raw, Struct

from ring.protocol.peer import (
    BATCH_BYTES,
    Item,
    Lease,
    LeaseAsked,
    Members,
    MembersWanted,
    Receipt,
    encode,
)

FRAME_BYTES = 4 * 1024 * 1024
"""The longest frame that a peer reads. Only an item alone in its frame makes one beyond `BATCH_BYTES`."""

_ENVELOPE_BYTES = 32
"""More than a batch adds to its items."""

_REGARDLESS = (Lease, LeaseAsked, Members, MembersWanted, Receipt)
"""What does not depend on the ring, or is what it takes to enter it."""

_logger = structlog.get_logger()


class _Encoded(Struct, array_like=True):
    """A `Batch` of items that are encoded already."""

    epoch: int
    members_hash: int
    items: list[Raw]


class Traffic:
    """What one link, or all to one peer, have carried: frames (batches), the items in them, their bytes."""

    __slots__ = ("bytes_in", "bytes_out", "frames_in", "frames_out", "items_in", "items_out")

    def __init__(self) -> None:
        self.frames_in = self.items_in = self.bytes_in = 0
        self.frames_out = self.items_out = self.bytes_out = 0

    def sent(self, items: int, size: int) -> None:
        """Counts a batch that was given to the socket."""
        self.frames_out += 1
        self.items_out += items
        self.bytes_out += size

    def received(self, items: int, size: int) -> None:
        """Counts a batch that came."""
        self.frames_in += 1
        self.items_in += items
        self.bytes_in += size

    def add(self, other: "Traffic") -> None:
        """Adds what another link has carried."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Backlog:
    """Two lanes of encoded items that are still to be sent, the urgent in front.

    Attributes:
        bytes: of all items in it.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._urgent: deque[bytes] = deque()
        self._data: deque[bytes] = deque()

    def take(self, urgent: list[Item], data: list[Item]) -> None:
        """Puts the items of both lists behind those in the lanes; the lists are empty afterwards."""
        for items, lane in ((urgent, self._urgent), (data, self._data)):
            for item in items:
                encoded = encode(item)
                if len(encoded) > FRAME_BYTES - _ENVELOPE_BYTES:
                    # Never what a client sent: the limit at the edge is far lower.
                    _logger.error("peer item too large", item=type(item).__name__, bytes=len(encoded))
                    continue
                lane.append(encoded)
                self.bytes += len(encoded)
            items.clear()

    def next_frame(self, epoch: int, members_hash: int, traffic: Traffic) -> bytes:
        """Takes the next batch out of the lanes: as many items as `BATCH_BYTES` hold, or one longer one.

        It is counted as sent.
        """
        items: list[Raw] = []
        room = BATCH_BYTES - _ENVELOPE_BYTES
        for lane in (self._urgent, self._data):
            while lane and (len(lane[0]) <= room or not items):
                item = lane.popleft()
                room -= len(item)
                self.bytes -= len(item)
                items.append(Raw(item))
            if lane:
                break
        frame = encode(_Encoded(epoch, members_hash, items))
        traffic.sent(len(items), len(frame))
        return frame

    def clear(self) -> None:
        """Drops what is in the lanes."""
        self.bytes = 0
        self._urgent.clear()
        self._data.clear()


class Held:
    """Batches that came from epochs which this node has not entered, and what came behind them, in order.

    Attributes:
        bytes: of all frames in it.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._batches: deque[tuple[int, list[Item], int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._batches)

    def hold(self, epoch: int, items: list[Item], size: int) -> list[Item]:
        """Holds a batch of `size` bytes; returns the items that need not wait."""
        urgent: list[Item] = []
        later: list[Item] = []
        for item in items:
            (urgent if isinstance(item, _REGARDLESS) else later).append(item)
        if later:
            self._batches.append((epoch, later, size))
            self.bytes += size
        return urgent

    def release(self, epoch: float) -> Iterator[list[Item]]:
        """Takes out, one by one, what need not wait any more once `epoch` is entered."""
        while self._batches and self._batches[0][0] <= epoch:
            _, items, size = self._batches.popleft()
            self.bytes -= size
            yield items
