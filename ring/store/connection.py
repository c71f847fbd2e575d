"""One connection to the store: RESP3, shared by any number of tasks, pipelined by itself.

`Redis` (client.py) keeps one of these alive; nothing here reconnects. Commands are written in the order in
which `execute` was called, those of one scheduler tick in one send. Replies come back in the same order, and
nothing else says whose they are: so every reply must find its slot, also when its caller has gone.

    execute() -> _out, _pending -> _send -> socket -> _receive -> _pending.popleft() -> the caller's task
"""

import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import hiredis
import trio
from outcome import Error, Value
from redis.exceptions import NoScriptError
from trio.lowlevel import (
    Abort,
    ParkingLot,
    checkpoint_if_cancelled,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from ring.protocol.codes import ErrorCode, RingError
from ring.store.address import Address

# Replies awaited; further callers wait. Redis keeps a buffer per client too: be polite.
MAX_IN_FLIGHT = 10_000
MAX_QUEUED_BYTES = 16 * 1024 * 1024  # commands not yet given to the kernel; further callers wait
RECEIVE_BYTES = 65536
PING_EVERY_S = 5.0  # a connection that was silent for so long is asked whether it lives,
PING_ANSWER_S = 5.0  # and has so long to answer

_NOTHING: Final = object()
_TEMPORARY = {
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
}

Argument = str | bytes | int | float | memoryview
# hiredis' own types speak of tuples of one.
pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


class StoreUnavailable(RingError):
    """The store cannot do it now (away, loading, full), or the connection broke: it may have been done.

    Nothing is sent again for the caller: what must happen has to be safe to repeat, or be looked up first.
    """

    code = ErrorCode.STORE_UNAVAILABLE


class NotSent(StoreUnavailable):
    """The connection broke before the command's first byte went out; even a write may be sent on another."""


class StoreRefused(RingError):
    """The store will not have us: credentials, rights, database or certificate. Trying again is no use."""

    code = ErrorCode.STORE_UNAVAILABLE


class StoreError(RingError):
    """The server answered a command with an error; the message is the server's."""

    @property
    def word(self) -> str:
        """The first word of the server's answer, such as ERR, WRONGTYPE or NOPERM."""
        return str(self).partition(" ")[0]


class ScriptMissing(StoreError, NoScriptError):
    """NOSCRIPT; redis-py's `AsyncScript` catches its own class, loads the script and calls it again."""


def error_reply(text: str) -> RingError:
    """The exception for an error reply (hiredis calls this for each, also for those inside arrays)."""
    word = text.partition(" ")[0]
    if word == "NOSCRIPT":
        return ScriptMissing(text)
    if word in _TEMPORARY or text.startswith("ERR max number of clients"):
        return StoreUnavailable(text)
    return StoreError(text)


class Slot:
    """Where one reply goes, or `want` replies as a list; to nobody if there is no `task`."""

    __slots__ = ("got", "task", "want")

    def __init__(self, want: int, task: trio.lowlevel.Task | None) -> None:
        self.task = task
        self.want = want
        self.got: list[Any] = []

    def abandon(self, _: object) -> Abort:
        """The caller was cancelled. The slot stays in the queue: its reply is dropped when it comes."""
        self.task = None
        return Abort.SUCCEEDED


class Connection:
    """A stream to a server, ours until it breaks; `run` must be running for anything to happen.

    A kind of connection that has more to say and to hear overrides `refill`, `pushed` and `deliver`
    (subscriber.py). All three are plain functions, in the order of the bytes.

    Args:
        stream: connected, TLS done.
        max_in_flight: see `MAX_IN_FLIGHT`.
    """

    def __init__(self, stream: trio.abc.Stream, *, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        self.cause: BaseException | None = None  # why it ended
        self.scripts: set[str] = set()  # digests of those that this connection has loaded into the server
        self._stream = stream
        self._max_in_flight = max_in_flight
        self._reader = hiredis.Reader(replyError=error_reply, notEnoughData=_NOTHING)
        self._pending: deque[Slot] = deque()
        self._in_flight = 0  # replies awaited by all of _pending
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._unsent = 0  # slots at the tail of _pending whose bytes are in _out
        self._writer: trio.lowlevel.Task | None = None  # when it sleeps
        self._full = ParkingLot()
        self._received = 0

    @property
    def broken(self) -> bool:
        """True once the connection ended, by whichever side; nothing more will be sent."""
        return self.cause is not None

    async def execute(self, data: bytes) -> Any:
        """Sends one packed command and returns its reply.

        Raises:
            StoreError: the server answered an error.
            StoreUnavailable: the server cannot do it now, or the connection broke after the command was sent:
                its outcome is unknown.
            NotSent: the connection was broken, or broke, before the command was sent.
        """
        return await self._exchange(data, 0)

    async def execute_many(self, data: bytes, replies: int) -> list[Any]:
        """Sends `replies` packed commands in one piece; returns their replies, with errors left in the list.

        Raises:
            StoreUnavailable: the connection broke after they were sent; their outcome is unknown.
            NotSent: it broke before.
        """
        got: list[Any] = await self._exchange(data, replies)
        return got

    async def _exchange(self, data: bytes, want: int) -> Any:
        await checkpoint_if_cancelled()
        while self.cause is None and self._is_full():
            await self._full.park()
        if self.cause is not None:
            raise NotSent("the connection to the store is gone; nothing was sent") from self.cause
        slot = Slot(want, current_task())
        self.put(slot, data)
        self.wake()
        return await wait_task_rescheduled(slot.abandon)

    def put(self, slot: Slot, data: bytes) -> None:
        """Queues a command behind the others, however many wait, and where its reply goes."""
        self._pending.append(slot)
        self._in_flight += slot.want or 1
        self._unsent += 1
        self._out.append(data)
        self._out_bytes += len(data)

    def wake(self) -> None:
        """Makes the writer look for what there is to send."""
        if (writer := self._writer) is not None:
            self._writer = None
            reschedule(writer)

    def refill(self) -> None:
        """Called before each send, to `put` what should go with it."""

    def _is_full(self) -> bool:
        return self._in_flight >= self._max_in_flight or self._out_bytes >= MAX_QUEUED_BYTES

    def _admit(self) -> None:
        # As many as there is room for, not all: whoever finds none parks again, behind the others.
        if self._full and not self._is_full():
            self._full.unpark(count=self._max_in_flight - self._in_flight)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Moves the bytes until the connection breaks or this is cancelled; then everyone waiting is told.

        Returns when it broke. Errors of the network or the protocol are not raised here: callers of `execute`
        get them as the cause of their StoreUnavailable, and `cause` keeps them.
        """
        try:
            async with trio.open_nursery() as nursery:
                for loop in (self._send, self._receive, self._watch):
                    nursery.start_soon(self._until_broken, loop, nursery.cancel_scope)
                task_status.started()
        finally:
            self._end(trio.ClosedResourceError("closed by us"))
            # Forcefully: there is nothing to say goodbye with, and whoever cancelled us should not wait.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    async def _until_broken(self, loop: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        try:
            await loop()
        except (OSError, trio.BrokenResourceError, hiredis.ProtocolError, RingError) as error:
            self._end(error)
            scope.cancel()

    async def _send(self) -> None:
        out = self._out
        while True:
            self.refill()
            if not out:
                self._writer = current_task()
                await wait_task_rescheduled(self._stop_writer)
                continue
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._out_bytes = 0
            self._unsent = 0  # from here on nobody can know how much of it arrives
            self._admit()
            await self._stream.send_all(data)

    def _stop_writer(self, _: object) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    async def _receive(self) -> None:
        receive, feed, gets = self._stream.receive_some, self._reader.feed, self._reader.gets
        deliver, pushed = self.deliver, self.pushed
        while True:
            data = await receive(RECEIVE_BYTES)
            if not data:
                raise trio.BrokenResourceError("the server closed the connection")
            self._received += 1
            feed(bytes(data))  # a bytearray if TLS: no copy of what is bytes
            while (reply := gets()) is not _NOTHING:
                if type(reply) is hiredis.PushNotification:
                    pushed(reply)
                else:
                    deliver(reply)
            self._admit()

    def pushed(self, push: list[Any]) -> None:
        """Takes what the server sends unasked; nobody here asked for that."""

    def deliver(self, reply: Any) -> None:
        """Takes a reply to the oldest command; whatever this raises ends the connection."""
        if not self._pending:
            # Who turns us away at the door (protected mode, too many clients) does not wait for HELLO.
            unasked = trio.BrokenResourceError("a reply that nobody asked for")
            raise reply if isinstance(reply, RingError) else unasked
        slot = self._pending[0]
        if slot.want:
            slot.got.append(reply)
            if len(slot.got) < slot.want:
                return
            reply = slot.got
        self.settle()
        if (task := slot.task) is not None:
            slot.task = None
            reschedule(task, Error(reply) if isinstance(reply, Exception) else Value(reply))

    def settle(self) -> None:
        """Forgets the oldest command: its reply has come."""
        self._in_flight -= self._pending.popleft().want or 1

    async def _watch(self) -> None:
        """Finds a dead peer: one that vanished without a FIN would leave callers waiting for ever."""
        ping = pack(("PING",))
        while True:
            before = self._received
            await trio.sleep(PING_EVERY_S)
            if self._received != before:
                continue
            with trio.move_on_after(PING_ANSWER_S) as scope:
                # A list, since an error (BUSY) is an answer as well.
                await self.execute_many(ping, 1)
            if scope.cancelled_caught:
                # If this process stood still, the deadline and the answer come in one tick: look again.
                await trio.lowlevel.checkpoint()
                if self._received == before:
                    silent = PING_EVERY_S + PING_ANSWER_S
                    raise trio.BrokenResourceError(f"the server has not answered for {silent:g} s")

    def _end(self, cause: BaseException) -> None:
        if self.cause is not None:
            return
        self.cause = cause
        sent = len(self._pending) - self._unsent
        for place, slot in enumerate(self._pending):
            if (task := slot.task) is None:
                continue
            slot.task = None
            error: StoreUnavailable
            if place < sent:
                error = StoreUnavailable(
                    "the connection to the store broke; the command's outcome is unknown"
                )
            else:
                error = NotSent("the connection to the store broke before the command was sent")
            error.__cause__ = cause
            reschedule(task, Error(error))
        self._pending.clear()
        self._full.unpark_all()


async def open_stream(address: Address) -> trio.abc.Stream:
    """Dials `address`: TCP, TLS or a Unix socket.

    Raises:
        OSError, trio.BrokenResourceError: it is not there now.
        StoreRefused: its certificate is not trusted.
    """
    if address.path is not None:
        return await trio.open_unix_socket(address.path)
    tcp = await trio.open_tcp_stream(address.host, address.port)  # sets TCP_NODELAY
    if address.tls is None:
        return tcp
    stream = trio.SSLStream(tcp, address.tls, server_hostname=address.host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException as error:
        await trio.aclose_forcefully(tcp)
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise StoreRefused(
                f"store {address}: its certificate is not trusted ({error.__cause__.verify_message}): "
                "name the right authority with ssl_ca_certs in the URL"
            ) from error
        raise
    return stream


async def log_in(connection: Connection, address: Address, *, client_name: str) -> None:
    """Says who we are, selects the database, and asks whether the server is ready; one round trip.

    Raises:
        StoreRefused: the server will not have us; the message, one line, says what to do.
        StoreUnavailable: it is not ready (loading, busy, full), or the connection broke.
    """
    # HELLO refuses names with spaces and anything beyond printable ASCII.
    name = "".join(character if "!" <= character <= "~" else "_" for character in client_name)
    login = () if address.password is None else ("AUTH", address.username or "default", address.password)
    # PING, because HELLO and SELECT are answered also while the server loads its data or a script blocks it.
    commands: list[tuple[Argument, ...]] = [("HELLO", 3, *login, "SETNAME", name), ("PING",)]
    if address.db:
        commands.insert(1, ("SELECT", address.db))
    try:
        replies = await connection.execute_many(b"".join(map(pack, commands)), len(commands))
    except StoreUnavailable as error:
        if not isinstance(error.__cause__, StoreError):
            raise
        replies = [error.__cause__]
    for command, reply in zip(commands, replies, strict=False):
        if isinstance(reply, StoreError):
            raise StoreRefused(_explain(reply, str(command[0]), address))
        if isinstance(reply, RingError):
            raise reply


def _explain(error: StoreError, command: str, address: Address) -> str:
    where, user = f"store {address}", address.username or "default"
    # Old servers quote the arguments of a command that they do not know: the password among them.
    said = " ".join(str(error).split())
    if address.password:
        said = said.replace(address.password, "***")
    match error.word:
        case "NOAUTH":
            return f"{where} wants a login: write it into the URL, as in redis://USER:PASSWORD@HOST"
        case "WRONGPASS":
            return f"{where} does not accept the password for user {user!r}: correct the URL's USER:PASSWORD"
        case "NOPERM":
            return f"{where} denies user {user!r} {command}: grant it with ACL SETUSER ({said})"
        case "DENIED":
            return f"{where} runs in protected mode: give it a password, or connect to it over loopback"
        case _ if command == "SELECT":
            return f"{where} has no database {address.db}: correct the number at the end of the URL ({said})"
        case _ if command == "HELLO":
            return f"{where} refuses HELLO 3: Redis 6 or later, or Valkey, is needed ({said})"
    return f"{where} refuses us ({said})"
