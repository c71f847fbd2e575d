"""A connection to the store that is made again whenever it breaks: dial, log in, hold, back off, and again.

`Redis` (client.py), for commands, and `Subscriber` (subscriber.py), for what is published, are kinds of it.
Each owns one connection at a time; its node runs it.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, NoReturn, TypeVar

import structlog
import trio
from redis.backoff import EqualJitterBackoff

from ring.protocol.codes import RingError
from ring.store.address import Address
from ring.store.connection import Connection, StoreUnavailable, log_in, open_stream

CONNECT_S = 5.0  # for dial, TLS and log-in together; a server that accepts and says nothing must not hold us

# 20 to 40 ms at first, then twice as long, up to 1 s: a store that comes back after a long outage is found
# within that. The jitter keeps the nodes of a cluster from coming all at once.
BACKOFF = EqualJitterBackoff(base=0.04, cap=1.0)

AnyConnection = TypeVar("AnyConnection", bound=Connection)

_log: structlog.stdlib.BoundLogger = structlog.get_logger("ring.store")


class Lasting(ABC, Generic[AnyConnection]):
    """What keeps a connection; a kind of it says how a stream becomes its connection, and what follows.

    Args:
        address: whom to log in to.
        client_name: shown in the server's CLIENT LIST.
        dial: opens a stream, each time anew; by default to `address`. For those who look the server up.
        labels: put into each line of the log, to tell one connection from another.
    """

    def __init__(
        self,
        address: Address,
        *,
        client_name: str,
        dial: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        **labels: str,
    ) -> None:
        self.address = address
        self.client_name = client_name
        self.connections_made = 0
        self.trouble = ""  # why there is no connection, one line without secrets; empty while there is one
        self._trouble_since = 0.0
        self._dial = dial or partial(open_stream, address)
        self._labels = {"store": str(address), **labels}
        self._connection: AnyConnection | None = None

    @property
    def connected(self) -> bool:
        """True while there is a connection that has logged in."""
        return self._connection is not None and not self._connection.broken

    @property
    def away_s(self) -> float:
        """For how long it has been known that there is no connection; 0 while there is one."""
        return trio.current_time() - self._trouble_since if self.trouble else 0.0

    @abstractmethod
    def _wrap(self, stream: trio.abc.Stream) -> AnyConnection:
        """The connection that is to be on this stream."""

    @abstractmethod
    def _begin(self, connection: AnyConnection) -> None:
        """It has logged in."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps a connection until cancelled; started once the first one has logged in.

        To go on without waiting for the store, use `start_soon`.

        Raises:
            StoreRefused: credentials, rights, database or certificate are wrong; the message says what to do.
        """
        failures, before = 0, self.connections_made
        while True:
            made = self.connections_made
            try:
                await self._hold(task_status if made == before else trio.TASK_STATUS_IGNORED)
            except trio.TooSlowError:
                self._note_trouble(f"no answer within {CONNECT_S:g} s")
            except (OSError, trio.BrokenResourceError, StoreUnavailable) as error:
                self._note_trouble(_reason(error))
            failures = 0 if self.connections_made > made else failures + 1
            # Bounded: 2 to the power of an outage of half an hour is no float any more.
            await trio.sleep(BACKOFF.compute(min(failures, 10)))

    async def _hold(self, task_status: trio.TaskStatus[None]) -> NoReturn:
        """One connection, from the dial until it breaks, or until it could not be made."""
        deadline = trio.current_time() + CONNECT_S
        with trio.fail_at(deadline):
            stream = await self._dial()
        connection = self._wrap(stream)
        refusal: RingError | trio.TooSlowError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            try:
                with trio.fail_at(deadline):
                    await log_in(connection, self.address, client_name=self.client_name)
            except (RingError, trio.TooSlowError) as error:
                # Raised below: out of a nursery it would come in a group.
                refusal = error
                nursery.cancel_scope.cancel()
            else:
                self._connection = connection
                self.connections_made += 1
                self.trouble = ""
                _log.info("store connected", **self._labels)
                self._begin(connection)
                task_status.started()
        if refusal is not None:
            raise refusal
        raise StoreUnavailable("the connection to the store broke") from connection.cause

    def _note_trouble(self, reason: str) -> None:
        if not self.trouble:  # once per outage
            _log.warning("store away", **self._labels, reason=reason)
            self._trouble_since = trio.current_time()
        self.trouble = reason


def _reason(error: BaseException) -> str:
    """What is behind an error of the network, in one line."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):  # one for each of the host's addresses
        cause = cause.exceptions[0]
    return " ".join(str(cause).split())
