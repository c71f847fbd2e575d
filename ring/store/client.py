"""The store's client: redis-py's commands and scripts over one connection that is kept alive.

Every service of a node shares one `Redis`; its node runs it. redis-py itself has no Trio mode and opens a
connection per task; here any number of tasks share one (connection.py), which costs a tenth of the CPU. From
redis-py come the commands, the scripts and the shapes of replies. Some of that is private there:
tests/store/test_redis_py.py holds what is relied on.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import trio
from redis._parsers import Encoder
from redis._parsers.response_callbacks import get_response_callbacks
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.commands import AsyncCoreCommands
from redis.commands.core import AsyncScript
from redis.event import EventDispatcher
from trio.lowlevel import ParkingLot

from ring.protocol.codes import BadRequest
from ring.store.address import Address, parse_url
from ring.store.connection import Connection, NotSent, ScriptMissing, StoreUnavailable, pack
from ring.store.lasting import Lasting

if TYPE_CHECKING:
    import redis.asyncio

# Sent again once when the connection broke before the answer: these change nothing.
_READ_ONLY = {
    "EVALSHA_RO", "EVAL_RO", "EXISTS", "GET", "HGET", "HGETALL", "HLEN", "HMGET", "LLEN", "LRANGE",
    "MGET", "PING", "PTTL", "SCARD", "SISMEMBER", "SMEMBERS", "TIME", "TTL", "XLEN", "XRANGE", "ZCARD",
    "ZRANGE", "ZSCORE",
}  # as a table # fmt: skip

# These change what the replies after them mean or hold them up, for everybody on the connection.
_UNSHARED = {
    "AUTH", "BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN",
    "DISCARD", "EXEC", "HELLO", "MONITOR", "MULTI", "PSUBSCRIBE", "PSYNC", "PUNSUBSCRIBE", "QUIT",
    "RESET", "SELECT", "SSUBSCRIBE", "SUBSCRIBE", "SUNSUBSCRIBE", "SYNC", "UNSUBSCRIBE", "UNWATCH",
    "WATCH", "CLIENT REPLY",
}  # as a table # fmt: skip

_SUSPECT = _UNSHARED | {"CLIENT", "XREAD", "XREADGROUP"}  # the latter by their arguments

_ENCODER: Any = Encoder("utf-8", "strict", decode_responses=False)  # type: ignore[no-untyped-call]  # redis-py gives it no types
_CALLBACKS = get_response_callbacks(3, legacy_responses=False)
_EVENTS = EventDispatcher()


class Commands(AsyncCoreCommands):
    """redis-py's commands, packed for the wire, and its shapes for the replies (bytes stay bytes)."""

    # redis-py's types choose between the sync and the async signature of each command by this.
    _is_async_client: Literal[True] = True

    def __init__(self) -> None:
        # Only redis-py's types ask for it: its commands use it for connections of its own.
        self._event_dispatcher = _EVENTS

    def get_encoder(self) -> Any:
        """For redis-py, which asks its client for it."""
        return _ENCODER

    def register_script(  # type: ignore[override]  # redis-py's async class overrides its sync one likewise
        self, script: str | bytes | memoryview
    ) -> AsyncScript:
        """A Lua script to call, `await script(keys=[…], args=[…])`; loaded into a server that lacks it."""
        return AsyncScript(cast("redis.asyncio.Redis", self), script)

    def _pack(self, args: tuple[Any, ...]) -> bytes:
        name: str = args[0]
        if " " in name:  # redis-py's "SCRIPT LOAD"
            args = (*name.split(), *args[1:])
        if _is_unshared(name, args):
            raise BadRequest(f"{name} needs a connection of its own: the store's is shared")
        try:
            return pack(args)
        except TypeError:  # redis-py's rules decide about bytearray, bool, None and the rest
            return pack(tuple(bytes(_ENCODER.encode(arg)) for arg in args))

    def _shape(self, name: str, options: dict[str, Any], reply: Any) -> Any:
        if options:
            for internal in (NEVER_DECODE, EMPTY_RESPONSE, "keys"):
                options.pop(internal, None)
        callback = _CALLBACKS.get(name.upper())
        return reply if callback is None else callback(reply, **options)


def _is_unshared(name: str, args: tuple[Any, ...]) -> bool:
    name = name.upper()
    if name not in _SUSPECT:
        return False
    if name == "CLIENT":
        name = f"CLIENT {args[1]}".upper()
    if name in ("XREAD", "XREADGROUP"):
        words = [word.upper() for word in args[1:7] if isinstance(word, str | bytes)]
        return "BLOCK" in words or b"BLOCK" in words
    return name in _UNSHARED


class Redis(Lasting[Connection], Commands):  # type: ignore[misc]  # redis-py's bases disagree among themselves
    """A server's commands for any number of tasks: `await redis.hgetall(key)`, `redis.pipeline()`, scripts.

    Replies are bytes. A command called while there is no connection waits for one; callers own the time-outs
    (`with trio.fail_after(…)`). Cancelling a call drops its reply; whether the command was done is unknown.

    Commands raise:
        StoreError: the server answered an error (`ScriptMissing`: NOSCRIPT).
        StoreUnavailable: the server cannot do it now, or the connection broke and the outcome is unknown.
            Commands that only read have been sent a second time by then; others never are.
        BadRequest: the command cannot be used on a shared connection (blocking ones, SUBSCRIBE, WATCH, …).

    WAIT works, since it is about this connection, but holds up everybody: bound it well below 5 s.

    Args:
        address: whom to log in to.
        client_name: shown in the server's CLIENT LIST.
        dial: opens a stream, each time anew; by default to `address`. For those who look the server up.
    """

    def __init__(
        self,
        address: Address,
        *,
        client_name: str,
        dial: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    ) -> None:
        Lasting.__init__(self, address, client_name=client_name, dial=dial)
        Commands.__init__(self)
        self._waiting = ParkingLot()
        self._stopped = False

    @classmethod
    def from_url(cls, url: str, *, client_name: str) -> Self:
        """A client for a redis://, rediss:// or unix:// URL (see `parse_url`).

        Raises:
            BadRequest: the URL is malformed.
        """
        return cls(parse_url(url), client_name=client_name)

    async def wait_connected(self) -> None:
        """Returns once there is a connection that has logged in.

        Raises:
            StoreUnavailable: `run` has ended.
        """
        await trio.lowlevel.checkpoint()
        await self.live()

    async def live(self) -> Connection:
        """The connection, once there is one; no checkpoint if there is. For this layer alone."""
        while (connection := self._connection) is None or connection.broken:
            if self._stopped:
                raise StoreUnavailable("the store's client was stopped")
            await self._waiting.park()
        return connection

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps a connection until cancelled; started once the first one has logged in.

        To go on without waiting for the store, use `start_soon`: commands wait for the connection themselves.

        Raises:
            StoreRefused: credentials, rights, database or certificate are wrong; the message says what to do.
        """
        self._stopped = False
        try:
            await super().run(task_status=task_status)
        finally:
            self._stopped = True
            self._waiting.unpark_all()

    def _wrap(self, stream: trio.abc.Stream) -> Connection:
        return Connection(stream)

    def _begin(self, connection: Connection) -> None:
        self._waiting.unpark_all()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends one command; redis-py's command methods all end here."""
        name: str = args[0]
        data = self._pack(args)
        again = name in _READ_ONLY
        while True:
            connection = await self.live()
            try:
                reply = await connection.execute(data)
            except NotSent:
                continue  # live() waits: this connection says that it is broken
            except StoreUnavailable:
                if again and connection.broken:
                    again = False
                    continue
                raise
            return self._shape(name, options, reply)

    def pipeline(self, transaction: bool = True) -> "Pipeline":
        """Commands sent in one piece, by default as a transaction (MULTI … EXEC)."""
        return Pipeline(self, transaction)


class Pipeline(Commands):
    """Commands collected by calling them (without `await`), sent by `await pipeline.execute()`.

    It holds no connection: one that is dropped needs no closing, and one that was executed is empty again.
    """

    def __init__(self, redis: Redis, transaction: bool) -> None:
        super().__init__()
        self._redis = redis
        self._transaction = transaction
        self._commands: list[tuple[str, dict[str, Any], bytes]] = []
        self._scripts: dict[str, AsyncScript] = {}

    def execute_command(self, *args: Any, **options: Any) -> Self:
        """Adds a command; redis-py's command methods all end here."""
        self._commands.append((args[0], options, self._pack(args)))
        return self

    def call_script(self, script: AsyncScript, keys: Sequence[Any] = (), args: Sequence[Any] = ()) -> Self:
        """Adds a call of a registered script, which is loaded before if this connection has not done so."""
        self._scripts[script.sha] = script
        return self.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Sends what was collected and returns the replies in order. All have been run, also when one failed.

        Args:
            raise_on_error: raise the first error that a command was answered; else leave errors in the list.

        Raises:
            StoreError, StoreUnavailable: as commands do; also if the transaction as a whole was refused, when
                nothing of it was done.
        """
        commands, self._commands = self._commands, []
        scripts, self._scripts = self._scripts, {}
        if not commands:
            await trio.lowlevel.checkpoint()
            return []
        packed = [data for _, _, data in commands]
        if self._transaction:
            packed = [pack(("MULTI",)), *packed, pack(("EXEC",))]
        replies = await self._send(packed, list(scripts.values()))
        results: list[Any] = []
        for (name, options, _), reply in zip(commands, replies, strict=True):
            if not isinstance(reply, Exception):
                results.append(self._shape(name, options, reply))
            elif raise_on_error:
                raise reply
            else:
                results.append(reply)
        return results

    async def _send(self, packed: list[bytes], scripts: list[AsyncScript]) -> list[Any]:
        while True:
            connection = await self._redis.live()
            # Per connection: a new one may lead to a server that was restarted, or to another one.
            missing = [script for script in scripts if script.sha not in connection.scripts]
            loads = [pack(("SCRIPT", "LOAD", script.script)) for script in missing]
            try:
                replies = await connection.execute_many(b"".join((*loads, *packed)), len(loads) + len(packed))
            except NotSent:
                continue
            break
        connection.scripts.update(script.sha for script in missing)
        replies = replies[len(loads) :]
        if self._transaction:
            if isinstance(replies[-1], Exception):
                raise next(reply for reply in replies if isinstance(reply, Exception))
            replies = replies[-1]
        if any(isinstance(reply, ScriptMissing) for reply in replies):
            connection.scripts.clear()  # someone flushed them: the next call loads them again
        return replies
