"""A client of the crowd that is an application on the client library.

The oracle is told of both: the frames as they are on the wire, and what the library gives to its application.
"""

from collections.abc import Callable, Sequence
from random import Random

import trio

from ring.client.backoff import Backoff
from ring.client.client import Client, attached
from ring.client.connection import Connection
from ring.client.messages import ConnectionEnded, Message
from ring.client.wire import parse_url
from ring.protocol import client as wire
from ring.verify.oracle import Oracle
from ring.verify.raw import UNANSWERED
from ring.verify.record import Device, Key, Session
from ring.verify.text import Strange, body, by_of, code_of, key_in, key_of

BACKOFF = Backoff(first_s=0.05, cap_s=0.5)
"""A cluster of this size, on one machine, needs no mercy."""


class LibraryClient:
    """A device of a user. `run` is its life; a library client is one of several that follow each other.

    Args:
        oracle: told of everything.
        edges: where all nodes are.
        user: whose device.
        name: of the device among the user's.
        random: in which order it tries the nodes.
    """

    def __init__(
        self, oracle: Oracle, edges: Callable[[], Sequence[str]], user: str, name: str, *, random: Random
    ) -> None:
        self.user = user
        self.device: Device = oracle.device(user, name, "client", library=True)
        self._oracle = oracle
        self._edges = edges
        self._random = random
        self._session: Session | None = None
        self._client: Client | None = None
        self._sending: trio.Nursery
        self._sent: dict[Key, None] = {}  # and not returned
        self._keys: dict[str, Key] = {}  # by the library's ids
        self._present = trio.Event()
        self._present.set()
        self._leaving = trio.CancelScope()

    # --- what it does

    @property
    def connected(self) -> bool:
        """Whether there is a session now."""
        return self._client is not None and self._client.connected

    @property
    def ready(self) -> bool:
        """Whether it can send something new."""
        return self.connected and len(self._sent) < UNANSWERED

    @property
    def waits(self) -> bool:
        """Whether the application waits for a `send` to return."""
        return bool(self._sent)

    @property
    def pending(self) -> list[Key]:
        """The messages of these `send`s."""
        return list(self._sent)

    def send(self, to: str, pad: str) -> None:
        """Sends the next message."""
        assert self._client is not None
        self._sending.start_soon(self._send, self._client, to, pad)

    def go_away(self, *, politely: bool) -> None:
        """The application ends; `politely` is how the library always does it."""
        self._present = trio.Event()
        self._leaving.cancel()

    def come_back(self) -> None:
        """Another application takes its place."""
        self._present.set()

    # --- its life

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._present.wait()
            with trio.CancelScope() as self._leaving:
                try:
                    await self._live()
                except* ConnectionEnded as group:
                    why = f"the end of its connection: {group.exceptions[0]}"
                    self._oracle.strange(self.device, trio.current_time(), why)
                    self._present = trio.Event()
            self._client = None
            self._oracle.ended(self.device, trio.current_time(), "the application ended")

    async def _live(self) -> None:
        self._oracle.reborn(self.device, trio.current_time())
        edges = list(self._edges())
        self._random.shuffle(edges)
        connection = Connection(
            [parse_url(f"ws://{edge}") for edge in edges],
            user=self.user,
            device=self.device.name,
            token=None,
            on_gap=None,
            ssl_context=None,
            backoff=BACKOFF,
            observer=self,
        )
        async with attached(connection, self.device.name) as client, trio.open_nursery() as self._sending:
            self._client = client
            try:
                async for message in client:
                    assert isinstance(message, Message)  # it joins no room
                    self._oracle.took(self.device, trio.current_time(), key_in(message.raw))
            finally:
                self._client = None  # nothing more is sent

    async def _send(self, client: Client, to: str, pad: str) -> None:
        # No checkpoint between the number and the library's queue: both are of one order.
        key = self._oracle.issue(self.user, to)
        self._sent[key] = None
        try:
            receipt = await client.send(to, body(key, pad))
        except BaseException:
            self._oracle.abandoned(key, trio.current_time())
            raise
        finally:
            del self._sent[key]
        self._oracle.returned(key, trio.current_time(), receipt.status)

    # --- what is on the wire: see `Observer`

    def received(self, message: wire.ServerMessage | None) -> None:
        """See `ring.client.session.Observer`."""
        now = trio.current_time()
        match message:
            case wire.Message():
                try:
                    key = key_of(message)
                except Strange as strange:
                    self._oracle.strange(self.device, now, str(strange))
                else:
                    marked = message.redelivered is True
                    self._oracle.arrived(self.device, now, key, message.seq, marked=marked)
            case wire.Receipt() if message.id in self._keys:
                key, code, by = self._keys[message.id], code_of(message), by_of(message)
                self._oracle.answered(key, now, message.status, code=code, by=by)
            case wire.Welcome():
                self._session = self._oracle.welcomed(
                    self.device,
                    now,
                    session=message.session,
                    node=message.node,
                    owner=message.owner,
                    resumed=message.resumed,
                )
            case wire.Reconnect():
                pass
            case _:
                self._oracle.strange(self.device, now, f"a frame of no known use: {message!r}")

    def resuming(self, seq: str) -> None:
        """See `ring.client.session.Observer`: it acknowledges what a session before has brought."""
        self._oracle.acknowledged(self.device, trio.current_time(), seq)

    def sending(self, message: wire.ClientMessage) -> None:
        """See `ring.client.session.Observer`."""
        now = trio.current_time()
        match message:
            case wire.Send() if message.id is not None and self._session is not None:
                key = self._keys[message.id] = key_in(message.data)
                while len(self._keys) > 2 * UNANSWERED:
                    del self._keys[next(iter(self._keys))]
                self._oracle.wrote(key, now, self._session, again=message.again)
            case wire.Ack():
                self._oracle.acknowledged(self.device, now, message.seq)
