"""What the tests of peer links stand on: a node's half without a pump, and a receiver that remembers."""

from typing import Literal, cast

import trio

from ring.peers.link import PeerLink, Receiver
from ring.peers.proof import Handshake, hello
from ring.protocol.peer import SUBPROTOCOL, Batch, Deliver, Item, Receipt, decode_batch, encode
from ring.transport.socket import Socket
from ring.transport.wheel import TimerWheel

SECRET = b"a secret of the cluster, long enough"


def numbered(number: int, size: int = 0) -> Deliver:
    """An item of data that shows its place in the order."""
    return Deliver(handle=1, epoch=1, number=number, body=b"x" * size, tracked=False)


def receipt(ref: int) -> Receipt:
    """An urgent item."""
    return Receipt(ref=ref, status="delivered", by="client", code=None, message=None)


def numbers(items: list[Item]) -> list[int]:
    """The places in the order of those items that have one."""
    return [item.number for item in items if isinstance(item, Deliver)]


def kinds(items: list[Item]) -> list[str]:
    """The items' types."""
    return [type(item).__name__ for item in items]


class Recorder:
    """A receiver that remembers what it was told, in order; tests wait for what they expect."""

    def __init__(self) -> None:
        self.events: list[tuple[Literal["up", "down"], PeerLink]] = []
        self.items: list[Item] = []
        self.batches: list[list[Item]] = []
        self.heard: list[tuple[int, int]] = []
        self._changed = trio.Event()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def link_up(self, link: PeerLink) -> None:
        self.events.append(("up", link))
        self._change()

    def link_down(self, link: PeerLink) -> None:
        self.events.append(("down", link))
        self._change()

    def on_items(self, link: PeerLink, items: list[Item]) -> None:
        self.batches.append(items)
        self.items += items
        self._change()

    def news(self, link: PeerLink, epoch: int, members_hash: int) -> None:
        self.heard.append((epoch, members_hash))

    @property
    def numbers(self) -> list[int]:
        return numbers(self.items)

    @property
    def story(self) -> list[str]:
        """What became of links, as words."""
        return [f"{what} {link.name}/{link.incarnation}" for what, link in self.events]

    async def change(self) -> None:
        """Returns once something more was told."""
        await self._changed.wait()

    async def until_items(self, count: int) -> None:
        """Returns once `count` items have come."""
        while len(self.items) < count:
            await self.change()

    async def until_events(self, count: int) -> None:
        """Returns once `count` links have come or gone."""
        while len(self.events) < count:
            await self.change()


class FakeSocket:
    """Takes what is sent, as the pump's socket would from a kernel that takes nothing by itself."""

    def __init__(self, subprotocol: str | None = SUBPROTOCOL) -> None:
        self.subprotocol = subprotocol
        self.peername = "127.0.0.1:9"
        self.low_water = 0
        self.queued = 0
        self.frames: list[bytes] = []
        self.pings = 0
        self.closed: tuple[int, str] | None = None
        self.aborts = 0

    @property
    def real(self) -> Socket:
        return cast("Socket", self)

    def send_binary(self, payload: bytes) -> None:
        if self.closed is None and not self.aborts:
            self.frames.append(payload)
            self.queued += len(payload)

    def ping(self, payload: bytes = b"") -> None:
        self.pings += 1

    def close(self, code: int, reason: str = "") -> None:
        self.closed = self.closed or (code, reason)

    def abort(self) -> None:
        self.aborts += 1

    def take(self) -> list[bytes]:
        """The kernel takes everything; returns the frames."""
        frames, self.frames = self.frames, []
        self.queued = 0
        return frames

    def take_batches(self) -> list[Batch]:
        """The same, decoded."""
        return [decode_batch(frame) for frame in self.take()]


class FakeHome:
    """What a link sees of its mesh, by a clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.epoch = 5
        self.members_hash = 77
        self.ping_s = 5.0
        self.handshake_s = 5.0
        self.wheel = TimerWheel(lambda: self.now)
        self.recorder = Recorder()
        self.receiver: Receiver = self.recorder
        self.dirty: list[PeerLink] = []
        self.wakes = 0
        self.complaints: list[str] = []
        self.over: list[PeerLink] = []
        self.risen: list[PeerLink] = []

    def wake(self) -> None:
        self.wakes += 1

    def proven(self, link: PeerLink) -> None:
        self.risen.append(link)

    def ended(self, link: PeerLink) -> None:
        self.over.append(link)

    def complain(self, link: PeerLink, words: str) -> None:
        self.complaints.append(words)

    def flush(self) -> None:
        """The end of a tick."""
        dirty, self.dirty = self.dirty, []
        for link in dirty:
            link.flush()

    def advance(self, seconds: float) -> None:
        """Time passes, in steps as the pump takes them."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 0.05, end)
            self.wheel.advance(self.now)

    def make_link(self, *, dials: str | None = "n2", secret: bytes = SECRET) -> PeerLink:
        """A link of node n1 that dials, or of n2 that is dialled."""
        mine = hello("demo", "n1" if dials else "n2", "i1" if dials else "i2", self.epoch)
        return PeerLink(self, Handshake(mine, secret, dials=dials, admit=lambda _: None), name=dials or "")

    def open_link(self) -> tuple[PeerLink, FakeSocket]:
        """A link from n1 to n2 that is up, its first batch sent."""
        link, socket = self.make_link(), FakeSocket()
        other = Handshake(hello("demo", "n2", "i2", self.epoch), SECRET, dials=None, admit=lambda _: None)
        link.on_open(socket.real)
        answer = other.receive(socket.take()[0])
        link.on_binary(answer)
        link.on_binary(other.receive(socket.take()[0]))
        assert link.up
        self.flush()
        socket.take()
        return link, socket


def batch(items: list[Item], *, epoch: int = 5, members_hash: int = 77) -> bytes:
    """A frame, as another node would send it."""
    return encode(Batch(epoch, members_hash, items))
