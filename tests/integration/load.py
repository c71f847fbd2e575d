"""A steady load on a cluster, and the books: what was sent, what was answered, what arrived, and when."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import trio
from msgspec import UNSET

import ring
from ring.protocol import client as wire
from ring.protocol.client import parse_seq
from tests.integration.raw import Arrival, RawClient, Sent, Watch

RAW_PAUSE_S = 0.08
LIBRARY_PAUSE_S = 0.1


class LibraryClient:
    """An application that uses the client library: takes what comes, sends to whom it is told."""

    def __init__(self, edges: Sequence[str], user: str, watch: Watch) -> None:
        self.edges = [f"ws://{edge}" for edge in edges]
        self.user = user
        self.arrivals: list[Arrival] = []  # as the application sees them
        self.sent: list[Sent] = []
        self.unanswered: dict[int, Sent] = {}
        self.client: ring.Client
        self.first_session = ""
        self.first_node = ""
        self._watch = watch
        self._nursery: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with ring.connect(self.edges, self.user) as client, trio.open_nursery() as self._nursery:
            self.client = client
            self.first_session, self.first_node = client.session, client.node
            task_status.started()
            async for message in client:
                assert isinstance(message, ring.Message)
                assert isinstance(message.data, dict)
                assert message.sender is not None
                now = trio.current_time()
                arrival = Arrival(now, message.sender, message.data["n"], message.redelivered, message.seq)
                self.arrivals.append(arrival)
                self._watch.arrivals += 1
                self._watch.changed()

    def send(self, to: str) -> Sent:
        """Sends the next message."""
        sent = Sent(self.user, len(self.sent), to, trio.current_time())
        self.sent.append(sent)
        self.unanswered[sent.n] = sent
        self._nursery.start_soon(self._send, sent)
        return sent

    async def _send(self, sent: Sent) -> None:
        receipt = await self.client.send(sent.to, {"n": sent.n})
        code = UNSET if receipt.code is None else receipt.code
        answer = wire.Receipt(receipt.id, receipt.status, code=code)
        sent.answers.append((trio.current_time(), answer))
        del self.unanswered[sent.n]
        self._watch.answers += 1
        self._watch.changed()


@dataclass(frozen=True, slots=True)
class Double:
    """A message that its recipient had before."""

    to: str
    arrival: Arrival


class Load:
    """Clients of a cluster, by user; `run` has everybody send to everybody at random, until `stop`.

    Args:
        seed: of the randomness.
        pace: how much longer than usual everybody rests between two messages.
    """

    def __init__(self, seed: int, pace: float = 1.0) -> None:
        self.watch = Watch()
        self.raw: dict[str, RawClient] = {}
        self.library: dict[str, LibraryClient] = {}
        self.stalled_s = (
            0.0  # the longest that this program itself stood still: no figure is better than that
        )
        self._random = Random(seed)
        self._pace = pace
        self._stopped = False

    @property
    def users(self) -> dict[str, RawClient | LibraryClient]:
        """Everybody."""
        return {**self.raw, **self.library}

    def sent(self) -> Iterator[Sent]:
        """All messages."""
        for client in self.users.values():
            yield from client.sent

    def unanswered(self) -> list[Sent]:
        """The messages that are under way."""
        return [sent for client in self.users.values() for sent in client.unanswered.values()]

    def under_way(self, senders: Container[str], recipients: Container[str]) -> list[Sent]:
        """Those from some to some others."""
        return [sent for sent in self.unanswered() if sent.sender in senders and sent.to in recipients]

    # --- running

    async def run(self) -> None:
        """Returns after `stop`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_stalls)
            for raw in self.raw.values():
                nursery.start_soon(self._send_steadily, raw, RAW_PAUSE_S)
            for library in self.library.values():
                nursery.start_soon(self._send_steadily, library, LIBRARY_PAUSE_S)

    async def _send_steadily(self, client: RawClient | LibraryClient, pause_s: float) -> None:
        others = [user for user in self.users if user != client.user]
        while not self._stopped:
            client.send(self._random.choice(others))
            await trio.sleep(self._pace * pause_s * self._random.uniform(0.5, 1.5))  # the pace of the load

    async def _watch_stalls(self) -> None:
        while not self._stopped:
            due = trio.current_time() + RAW_PAUSE_S
            await trio.sleep_until(due)  # a clock of its own, to see how late it is
            self.stalled_s = max(self.stalled_s, trio.current_time() - due)

    async def until_answered(self, more: int) -> None:
        """Returns when so many more messages have been answered."""
        enough = self.watch.answers + more
        await self.watch.until(lambda: self.watch.answers >= enough)

    async def stop(self) -> None:
        """No more is sent; returns when all that was is answered."""
        self._stopped = True
        await self.watch.until(lambda: not self.unanswered())

    async def until_arrived(self) -> None:
        """Returns when all that was receipted `delivered` has arrived."""
        await self.watch.until(lambda: not self.missing())

    # --- the books

    def missing(self) -> list[Sent]:
        """Messages with a receipt that says `delivered`, which their recipient does not have."""
        has = {
            user: {(arrival.sender, arrival.n) for arrival in client.arrivals}
            for user, client in self.users.items()
        }
        return [
            sent
            for sent in self.sent()
            if sent.status == "delivered" and (sent.sender, sent.n) not in has[sent.to]
        ]

    def doubled(self) -> list[Double]:
        """Arrivals of what had arrived before."""
        doubles = []
        for user, client in self.users.items():
            seen = set()
            for arrival in client.arrivals:
                if (arrival.sender, arrival.n) in seen:
                    doubles.append(Double(user, arrival))
                seen.add((arrival.sender, arrival.n))
        return doubles

    def disordered(self) -> list[tuple[str, Arrival, Arrival]]:
        """Neighbours in what one user has of another that came in another order than they were sent."""
        wrong = []
        for user, client in self.users.items():
            for sender in self.users:
                arrivals = [arrival for arrival in client.arrivals if arrival.sender == sender]
                wrong += [(user, first, then) for first, then in pairwise(arrivals) if then.n < first.n]
        return wrong

    def changed_at(self, users: Sequence[str]) -> float | None:
        """When the first message came that new owners of these users had numbered, by a later epoch."""
        first = min(parse_seq(arrival.seq)[0] for user in users for arrival in self.users[user].arrivals)
        later = [
            arrival.at
            for user in users
            for arrival in self.users[user].arrivals
            if parse_seq(arrival.seq)[0] > first
        ]
        return min(later, default=None)

    def crossed(self, users: Sequence[str]) -> list[Sent]:
        """Messages to these users that were under way when their owner changed."""
        at = self.changed_at(users)
        assert at is not None
        return [sent for sent in self.sent() if sent.to in users and sent.at < at < sent.answers[0][0]]

    def waits(self, recipients: Sequence[str]) -> list[float]:
        """How long each message to these that arrived had been under way, once."""
        waits = []
        for user in recipients:
            first: dict[tuple[str, int], float] = {}
            for arrival in self.users[user].arrivals:
                first.setdefault((arrival.sender, arrival.n), arrival.at)
            for (sender, n), at in first.items():
                waits.append(at - self.users[sender].sent[n].at)
        return waits

    def served_again(self, recipients: Sequence[str], fault_at: float) -> float:
        """Seconds from a fault until one of these got a message that was sent after it."""
        return (
            min(
                arrival.at
                for user in recipients
                for arrival in self.users[user].arrivals
                if self.users[arrival.sender].sent[arrival.n].at > fault_at
            )
            - fault_at
        )

    def served_since(self, recipients: Sequence[str], at: float) -> bool:
        """Whether each of these has got a message that was sent after this time."""
        return all(
            any(
                arrival.at > at and self.users[arrival.sender].sent[arrival.n].at > at
                for arrival in reversed(self.users[user].arrivals)
            )
            for user in recipients
        )
