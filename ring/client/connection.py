"""What keeps a client connected: one task that dials, serves a session, and decides what its end means.

It owns what outlives a session: the inbox, the outbox, the rooms, the token, the back-off. It raises nothing;
how it ended is kept for whoever sends or takes (client.py).
"""

import inspect
import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Sequence

import trio
from wsproto.utilities import LocalProtocolError

from ring.client.backoff import Addresses, Backoff, Ending
from ring.client.inbox import Inbox
from ring.client.messages import ConnectionEnded
from ring.client.outbox import Outbox
from ring.client.rooms import Rooms
from ring.client.session import Observer, Session
from ring.client.wire import Address, dial, unreachable
from ring.protocol.client import Welcome
from ring.protocol.codes import BadRequest, CloseCode, Reaction

Token = str | Callable[[], str | Awaitable[str]]

ATTEMPT_S = 10.0
"""From dialling to the welcome; then the next address is tried."""

STEADY_S = 5.0
"""A session that lasted this long was a good one: the back-off starts anew after it."""

FAREWELL_S = 2.0
"""What leaving may take: the last acknowledgement and the closing handshake."""

_log = logging.getLogger("ring.client")


class Connection:
    """See the module. The arguments are those of `ring.connect`, and who sees the wire.

    Attributes:
        inbox: what came.
        outbox: what goes.
        rooms: what is joined, and published.
        session: the present session, None between two.
        welcome: the last one.
        gaps: how often a welcome told of one.
        reconnects: how many welcomes came after the first.
        ended: True once there is no session and will be none.
        left: True if that is because the application left.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        user: str | None,
        device: str,
        token: Token | None,
        on_gap: Callable[[], None] | None,
        ssl_context: ssl.SSLContext | None,
        backoff: Backoff,
        observer: Observer | None = None,
    ) -> None:
        self.inbox = Inbox()
        self.outbox = Outbox()
        self.rooms = Rooms(self.inbox, backoff)
        self.session: Session | None = None
        self.welcome: Welcome | None = None
        self.gaps = 0
        self.reconnects = 0
        self.ended = False
        self.left = False
        self._addresses = Addresses(addresses)
        self._user = user
        self._device = device
        self._token = token
        self._bearer: str | None = None
        self._token_refused = False  # and another asked for, with no welcome since
        self._on_gap = on_gap
        self._ssl_context = ssl_context
        self._backoff = backoff
        self._observer = observer
        self._ready = trio.Event()  # the first welcome, or the end
        self._arrived = trio.Event()
        self._end: ConnectionEnded | None = None
        self._cause: BaseException | None = None
        self._scope = trio.CancelScope(shield=True)
        self._parting = trio.CancelScope(shield=True)

    async def wait_ready(self) -> None:
        """Returns once a node has welcomed this client, or none will."""
        await self._ready.wait()

    async def wait_arrival(self) -> None:
        """Returns when the inbox has something new, or never will. One task at a time."""
        self._arrived = trio.Event()
        await self._arrived.wait()

    def end(self) -> ConnectionEnded:
        """How it ended; new for each who is told: one exception that many raise collects their tracebacks."""
        if self._end is None:
            return ConnectionEnded("this client was closed", close_code=CloseCode.NORMAL)
        end = self._end
        fresh = ConnectionEnded(
            str(end), reason=end.reason, close_code=end.close_code, status=end.status, code=end.code
        )
        fresh.__cause__ = self._cause
        return fresh

    async def leave(self) -> None:
        """The application leaves: no more messages, and a farewell if there is somebody to say it to."""
        self.ended = self.left = True
        self._arrived.set()
        try:
            with self._parting:
                self._parting.deadline = trio.current_time() + FAREWELL_S
                if self.session is not None:
                    await self.session.farewell()
        finally:
            self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Runs until an ending says that connecting again is no use, or until the application has left.

        Neither a cancellation from outside nor Ctrl-C reaches it, which are for the application: its farewell
        goes over this connection. `leave` ends it, and must be called.
        """
        with self._scope:
            await self._run()

    async def _run(self) -> None:
        try:
            self._end = await self._stay_connected()
        except Exception as error:  # of the application's `token` or `on_gap`; or a bug
            self._cause = _leaf(error)
            self._end = ConnectionEnded(f"the client failed: {self._cause!r}")
            _log.error("the client failed", exc_info=error)
        finally:
            self.ended = True
            self.left = self.left or self._end is None
            self.inbox.clear()
            self.outbox.clear()
            self.rooms.clear()
            self._arrived.set()
            self._ready.set()

    async def _stay_connected(self) -> ConnectionEnded:
        tries = 0
        await self._renew_token()
        while True:
            address, not_before = self._addresses.next(trio.current_time())
            await trio.sleep_until(max(not_before, trio.current_time()))
            ending, lasted_s = await self._attempt(address)
            if self.left:
                self._parting.cancel()  # there is nobody left to say goodbye to
                await trio.sleep_forever()
            self.outbox.cut()
            self.rooms.cut()
            reaction = await self._reaction(ending)
            if reaction is Reaction.STOP:
                return _end_of(ending, address)
            if lasted_s >= STEADY_S or ending.by_us:
                tries = 0
            delay = self._backoff.delay(tries, slow=reaction is Reaction.RECONNECT_SLOWLY)
            if ending.redial_s is not None:
                # The node spreads its clients itself; but not for ever, one after the other.
                delay = max(delay, ending.redial_s) if tries else ending.redial_s
            if ending.retry_after_s:
                self._addresses.defer(address, trio.current_time() + ending.retry_after_s + delay)
            _log.log(
                logging.INFO if tries else logging.WARNING,  # one warning for an outage
                "%s: %s; connecting again in %.2f s",
                address.authority,
                ending.reason,
                delay,
            )
            tries += 1
            await trio.sleep(delay)

    async def _reaction(self, ending: Ending) -> Reaction:
        """What to do now, which is never NEW_TOKEN: there is a new one, or it is no use."""
        if ending.untrusted and self.welcome is None:
            return Reaction.STOP  # it never was right; one that has expired since may be renewed
        if ending.reaction is not Reaction.NEW_TOKEN:
            return ending.reaction
        if self._token_refused or not callable(self._token):
            return Reaction.STOP
        self._token_refused = True
        await self._renew_token()
        return Reaction.RECONNECT

    async def _renew_token(self) -> None:
        token = self._token() if callable(self._token) else self._token
        self._bearer = await token if inspect.isawaitable(token) else token
        if self._bearer is not None and not (self._bearer.isascii() and self._bearer.isprintable()):
            raise BadRequest("token: ASCII without control characters, since it travels in an HTTP header")

    async def _attempt(self, address: Address) -> tuple[Ending, float]:
        """One connection from dialling to its end, and how long it lasted from its welcome on."""
        ending = Ending(f"no welcome within {ATTEMPT_S:g} s")
        welcomed_at = math.inf
        with trio.move_on_after(ATTEMPT_S) as patience:
            try:
                wire = await dial(address, self._ssl_context)
            except (OSError, trio.BrokenResourceError) as error:
                return unreachable(error), 0.0
            try:
                async with trio.open_nursery() as nursery:
                    websocket = await wire.upgrade(nursery, address, self._target(address), self._headers())
                    session = Session(
                        websocket, wire, self.inbox, self.outbox, self.rooms, self._arrival, self._observer
                    )
                    welcome = await session.welcome()
                    if isinstance(welcome, Ending):
                        ending = welcome
                    else:
                        patience.deadline = math.inf
                        welcomed_at = trio.current_time()
                        self._begin(session, welcome)
                        ending = await session.run(welcome.heartbeat_s)
                    nursery.cancel_scope.cancel()
            except* LocalProtocolError:
                # trio-websocket's reader dies of a ping that comes after we have closed; it is done anyway.
                ending = Ending("the connection ended")
            except* Exception as group:
                if wire.opened:
                    raise
                # The answer was a refusal, or no HTTP, of which h11 and wsproto tell in many ways.
                ending = unreachable(_leaf(group))
            finally:
                self.session = None
                await trio.aclose_forcefully(wire)
        return ending, trio.current_time() - welcomed_at

    def _target(self, address: Address) -> str:
        parameters = {"device": self._device, "ack": "client"}
        if self._user is not None:
            parameters["user"] = self._user
        if self.inbox.position is not None:
            parameters["resume"] = self.inbox.position
            if self._observer is not None:
                self._observer.resuming(self.inbox.position)
        return address.target(parameters)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        # Not in the query, which balancers and proxies log.
        return [] if self._bearer is None else [(b"Authorization", f"Bearer {self._bearer}".encode())]

    def _begin(self, session: Session, welcome: Welcome) -> None:
        self.reconnects += self.welcome is not None
        self.welcome = welcome
        self._token_refused = False
        self.inbox.new_session()
        self.outbox.in_flight = max(1, welcome.limits.in_flight)
        self.rooms.begin(self.outbox.in_flight)
        self.session = session
        self._ready.set()
        if welcome.resumed == "gap":
            self.gaps += 1
            if self._on_gap is not None:
                self._on_gap()

    def _arrival(self) -> None:
        self._arrived.set()


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _end_of(ending: Ending, address: Address) -> ConnectionEnded:
    """What the application is told of an ending that connecting again would not mend."""
    what = "refused the connection" if ending.close_code is None else f"closed with {ending.close_code}"
    return ConnectionEnded(
        f"{address.authority} {what}: {ending.reason}",
        reason=ending.reason,
        close_code=ending.close_code,
        status=ending.status,
        code=ending.code,
    )
