"""What the tests of sessions stand on: a node's edge with real services behind it, sockets that remember."""

from typing import Any, cast

import msgspec

from ring.edge.gateway import Gateway
from ring.edge.session import ClientSession
from ring.mailbox.letter import By
from ring.mailbox.owner import Mailboxes
from ring.mailbox.pending import Pending
from ring.protocol import peer
from ring.protocol.codes import CloseCode
from ring.protocol.names import SLOTS, slot_of
from ring.protocol.websocket import Decoder
from ring.rooms.policy import Policies
from ring.rooms.rooms import Rooms
from ring.router.attachments import Attachments
from ring.router.router import Router
from ring.router.routing import Routing
from ring.store.keys import Keys
from ring.transport.socket import Socket
from ring.transport.wheel import TimerWheel

Frame = dict[str, Any]


class FakeSocket:
    """A socket that remembers what was sent, as frames."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.pings: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.queued = 0
        self.low_water = 0

    @property
    def open(self) -> bool:
        return self.closed is None

    def send_text(self, payload: bytes) -> None:
        if self.closed is None:
            self.frames.append(msgspec.json.decode(payload))

    def send_frame(self, frame: bytes) -> None:
        for _, payload in Decoder(role="client", max_message=1 << 20).feed(frame):
            self.send_text(payload)

    def ping(self, payload: bytes = b"") -> None:
        if self.closed is None:
            self.pings.append(payload)

    def close(self, code: int, reason: str = "") -> None:
        if self.closed is None:
            self.closed = (code, reason)


class FakeLink:
    """A link that keeps what is sent on it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.incarnation = f"{name}/1"
        self.busy = False
        self.queued_bytes = 0
        self.items: list[peer.Item] = []
        self.urgent: list[peer.Item] = []

    def send(self, item: peer.Item) -> None:
        self.items.append(item)

    def send_urgent(self, item: peer.Item) -> None:
        self.urgent.append(item)


class Client:
    """A client's end of a session."""

    def __init__(self, desk: "Desk", session: ClientSession) -> None:
        self.desk = desk
        self.session = session
        self.socket = FakeSocket()
        self.gone = False

    def say(self, kind: str, **fields: object) -> None:
        """Sends a frame, and the tick ends."""
        self.say_raw(msgspec.json.encode({"type": kind, **fields}))

    def say_raw(self, payload: bytes) -> None:
        """Sends any text."""
        self.session.on_text(payload)
        self.desk.tick()

    def heard(self, *kinds: str) -> list[Frame]:
        """What came since it was last asked; of these types, if any are named."""
        frames, self.socket.frames = self.socket.frames, []
        return [frame for frame in frames if not kinds or frame["type"] in kinds]

    def only(self) -> Frame:
        """The one frame that came."""
        [frame] = self.heard()
        return frame

    def pings(self) -> list[bytes]:
        """The pings that came since it was last asked."""
        pings, self.socket.pings = self.socket.pings, []
        return pings

    def pong(self, payload: bytes = b"") -> None:
        """Answers a ping."""
        self.session.on_pong(payload)
        self.desk.tick()

    def hang_up(self, code: int = CloseCode.NORMAL) -> None:
        """The connection ends."""
        self.gone = True
        self.session.on_close(code, "")

    def close_code(self) -> int | None:
        """The code by which the node closed it."""
        return None if self.socket.closed is None else self.socket.closed[0]


class Desk:
    """Node n1, which owns every user but those that `away` names: they are n2's, over a link."""

    def __init__(self, *, away: tuple[str, ...] = (), heartbeat_s: float = 25.0) -> None:
        self.now = 1000.0
        self.wheel = TimerWheel(self.clock)
        self.link = FakeLink("n2")
        self.routing = Routing(node="n1", incarnation="n1/1", links=cast("Any", {"n2": self.link}))
        self.routing.owners = ["n1"] * SLOTS
        for user in away:
            self.routing.owners[slot_of(user)] = "n2"
        self.mailboxes = Mailboxes(
            node="n1",
            incarnation="n1/1",
            wheel=self.wheel,
            notify=lambda *fate: self.router.notify(*fate),
            clock=self.clock,
        )
        self.mailboxes.moved(7, set(), ())
        self.pending = Pending(clock=self.clock)
        self.attachments = Attachments(self.routing, self.mailboxes)
        self.router = Router(self.routing, self.mailboxes, self.pending)
        self.rooms = Rooms(
            node="n1", keys=Keys("test"), wheel=self.wheel, policies=Policies(), rooms_per_session=3
        )
        self.due: list[ClientSession] = []
        self.gateway = Gateway(
            node="n1",
            router=self.router,
            attachments=self.attachments,
            mailboxes=self.mailboxes,
            pending=self.pending,
            rooms=self.rooms,
            wheel=self.wheel,
            due=self.due,
            message_bytes=1000,
            in_flight=4,
            output_bytes=10_000,
            heartbeat_s=heartbeat_s,
        )
        self.clients: list[Client] = []

    def clock(self) -> float:
        return self.now

    def connect(
        self,
        user: str,
        device: str = "phone",
        *,
        by: By = "client",
        resume: str | None = None,
        expires_at: float | None = None,
    ) -> Client:
        """A client's connection is open."""
        session = ClientSession(
            sid=len(self.clients) + 1,
            user=user,
            device=device,
            address="1.2.3.4:5",
            by=by,
            resume=resume,
            expires_at=expires_at,
            gateway=self.gateway,
        )
        client = Client(self, session)
        self.clients.append(client)
        session.on_open(cast("Socket", client.socket))
        self.tick()
        return client

    def welcomed(self, user: str, device: str = "phone", *, by: By = "client") -> Client:
        """A client that has heard its welcome."""
        client = self.connect(user, device, by=by)
        assert client.only()["type"] == "welcome"
        return client

    def from_peer(self, *items: peer.Item) -> None:
        """What n2 says."""
        self.routing.on_items(cast("Any", self.link), list(items))
        self.tick()

    def tick(self) -> None:
        """The end of a tick: pings go out, and closed connections are over."""
        due, self.due[:] = self.due[:], []
        for session in due:
            session.ping_now()
        for client in self.clients:
            if client.socket.closed is not None and not client.gone:
                client.hang_up(client.socket.closed[0])

    def pass_time(self, seconds: float) -> None:
        """Time goes by, and what is due happens when it is due."""
        end = self.now + seconds
        while (due := self.wheel.next_due()) is not None and due <= end:
            self.now = max(self.now, due)
            self.wheel.advance(self.now)
            self.tick()
        self.now = end
