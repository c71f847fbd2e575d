"""Stored messages: what it costs to keep them for users who are not there, and what happens when these come.

Mailboxes are filled through the cluster, then some deeper ones. Then a part of the users comes, as fast as
the machine can: each must get what is stored for it, once and in order, while others, who are there all the
time, send to each other. What was fetched must be gone from Redis, and the rest must be there: so some of
those who came come again, and get nothing, and some of the others come, or all if nothing is to stay behind.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from ring.bench.clients import Switchboard
from ring.bench.fill import Filling
from ring.bench.live import Part, live
from ring.bench.meter import NODES, Spent, cpu_between, memory_between, spending
from ring.bench.results import Latency, Run, make_run
from ring.bench.stage import Stage, Teller, Texts
from ring.bench.store import count_mailboxes, used_memory
from ring.bench.stored import Shelf, StoredLedger
from ring.bench.storm import SETTLE_S, allow_descriptors, connect_all, hold
from ring.bench.visit import KEPT, Visit
from ring.bench.watch import Watched, watching

DEPTHS = (10, 100)
"""Messages of the deeper mailboxes; at each depth, a fifth as many as there are mailboxes."""

CHECKED = 1000
"""Users who come after the storm: that many again, and that many others."""

GONE_S = 10.0
"""By then, what was acknowledged is gone from Redis."""

LIVE_BEFORE_S = 4.0
"""So long others send to each other before the storm: what it does to them shows beside that."""

_WARM_UP = 0.02  # of the mailboxes: so many more are filled before, and not counted

FIGURES = {
    "stored": "messages stored",
    "stored_per_s": "stored messages/s",
    "stored_cpu_us_nodes": "CPU us per stored message, nodes",
    "stored_cpu_us_redis": "CPU us per stored message, redis",
    "stored_nodes_bytes": "bytes of nodes' memory per stored message",
    "stored_redis_bytes": "bytes of Redis' memory per stored message",
    **{
        f"stored_redis_bytes_of_{depth}": f"bytes of Redis' memory per stored message, {depth} in a mailbox"
        for depth in DEPTHS
    },
    "storm_s": "seconds until all are served",
    "longest_lease_age_s": "longest age of a lease meanwhile, s",
    "epoch_changes": "changes of the ring meanwhile",
    "freed_redis_bytes": "bytes of Redis' memory freed per message",
}
"""What a run says of itself beside what all loads say, and what it is called."""


@dataclass(frozen=True, slots=True)
class MailboxPlan:
    """What is stored, and who comes.

    Attributes:
        mailboxes: of users who are not there.
        messages: of each.
        size: bytes of each message.
        senders: users who fill them.
        in_flight: messages that each of them has under way.
        connections: how many of the users come in the storm.
        concurrency: how many of them are on their way at once.
        live: messages per second of others meanwhile; 0 for none.
        empty: at the end all others come too, so that nothing stays behind.
    """

    mailboxes: int = 100_000
    messages: int = 1
    size: int = 200
    senders: int = 64
    in_flight: int = 16
    connections: int = 5000
    concurrency: int = 256
    live: float = 50.0
    empty: bool = True


def run_mailbox(stage: Stage, plan: MailboxPlan) -> Run:
    """Fills the mailboxes, has users come, and looks after what is left.

    Raises:
        BadRequest: more clients than this process may open sockets for.
        CannotConnect: those who send were not let in, or cut off.
        NothingStored: the cluster stores nothing.
        ServerEnded: a local server died.
        StoreSilent: the Redis that was named does not answer.
    """
    allow_descriptors(max(plan.connections, KEPT + plan.concurrency) + plan.senders)
    with Switchboard(stage.dialect) as board:
        return _Load(board, stage, plan).run()


@dataclass
class _Storm:
    """What was seen while they came."""

    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)
    live: list[Part] = field(default_factory=list)
    watched: Watched | None = None


class _Load:
    def __init__(self, board: Switchboard, stage: Stage, plan: MailboxPlan) -> None:
        self._board = board
        self._stage = stage
        self._plan = plan
        self._texts = Texts(plan.size)
        self._teller = Teller(stage.progress)
        self._ledger = StoredLedger()
        self._errors = self._ledger.tally.errors
        self._figures: dict[str, float] = {}

    def run(self) -> Run:
        """All of it."""
        shelf, others = self._fill()
        coming = shelf.users[: self._plan.connections]
        staying = shelf.users[len(coming) :]
        visit = self._visit()
        before = self._redis_bytes()
        storm = self._storm(visit, coming)
        visit.leave()
        self._ledger.close(coming)
        # What was acknowledged last has been removed only now.
        storm.spent.cpu_us = cpu_between(storm.spent.before, self._stage.meter())
        self._look_after(coming, staying)
        served = len(visit.served_ns)
        per = max(self._ledger.tally.delivered, 1)
        self._note_per("freed_redis_bytes", self._redis_bytes(), before, per)
        self._check(coming, staying, others)
        return self._finish(storm, visit, served)

    # --- filling

    def _fill(self) -> tuple[Shelf, list[Shelf]]:
        """The mailboxes, and others: those that the cluster was warmed up with, and deeper ones."""
        plan, board = self._plan, self._board
        ledger = self._ledger
        shelf = ledger.add(plan.mailboxes, plan.messages)
        warm = ledger.add(max(int(plan.mailboxes * _WARM_UP), 1), 1)
        names = [f"bench-{self._texts.token}-sender-{index}" for index in range(plan.senders)]
        senders = connect_all(board, self._stage, names)
        board.ear = filling = Filling(board, senders, self._texts, ledger, plan.in_flight)
        filling.fill(warm, "warming up", self._teller)
        warmed, redis = ledger.stored, self._redis_bytes()
        del ledger.receipt_ns[:]
        with spending(self._stage.meter) as spent:
            filling.fill(shelf, "filling mailboxes", self._teller)
        self._receipts = Latency.of(ledger.receipt_ns)
        stored = ledger.stored - warmed
        per = max(stored, 1)
        self._figures |= {"stored": stored, "stored_per_s": round(stored / spent.seconds, 1)}
        for part, us in (spent.cpu_us or {}).items():
            self._figures[f"stored_cpu_us_{part}"] = round(us / per, 2)
        hold(board, SETTLE_S, self._teller)
        memory = memory_between(spent.before, self._stage.meter())
        if memory is not None and NODES in memory:
            self._figures["stored_nodes_bytes"] = round(memory[NODES] * 1024 / per, 1)
        self._note_per("stored_redis_bytes", redis, self._redis_bytes(), per)
        deep = [self._fill_deep(filling, depth) for depth in DEPTHS]
        for sender in senders:
            sender.close()
        return shelf, [warm, *deep]

    def _fill_deep(self, filling: Filling, depth: int) -> Shelf:
        plan, ledger = self._plan, self._ledger
        shelf = ledger.add(max(plan.mailboxes // (5 * depth), 1), depth)
        stored, redis = ledger.stored, self._redis_bytes()
        filling.fill(shelf, f"filling mailboxes with {depth} each", self._teller)
        per = max(ledger.stored - stored, 1)
        self._note_per(f"stored_redis_bytes_of_{depth}", redis, self._redis_bytes(), per)
        return shelf

    def _redis_bytes(self) -> int | None:
        return trio.run(used_memory, self._stage.redis) if self._stage.redis else None

    def _note_per(self, name: str, before: int | None, after: int | None, per: int) -> None:
        if before is not None and after is not None:
            self._figures[name] = round((after - before) / per, 1)

    # --- the storm

    def _visit(self) -> Visit:
        return Visit(self._board, self._stage.place, self._texts, self._ledger)

    def _storm(self, visit: Visit, users: Sequence[int]) -> _Storm:
        plan, storm = self._plan, _Storm()
        with self._beside(storm), spending(self._stage.meter) as storm.spent, self._watching(storm):
            self._board.ear = visit
            start = time.perf_counter_ns()
            visit.come(users, plan.concurrency, len(users), "connecting", self._teller)
            storm.seconds = (time.perf_counter_ns() - start) / 1e9
        storm.spent.seconds = storm.seconds
        self._figures["storm_s"] = round(storm.seconds, 3)
        if storm.watched is not None:
            changes = len(storm.watched.epochs) - 1
            self._figures["longest_lease_age_s"] = round(storm.watched.lease_age_s, 3)
            self._figures["epoch_changes"] = changes
            if changes:
                self._errors["ring_changed_in_the_storm"] += changes
        return storm

    @contextmanager
    def _beside(self, storm: _Storm) -> Iterator[None]:
        """Others send to each other, for a while before the block and while it runs."""
        plan = self._plan
        if not plan.live:
            yield
            return
        with live(self._stage, rate=plan.live, size=plan.size, parts=2) as flow:
            hold(self._board, LIVE_BEFORE_S, self._teller)
            flow.next()
            yield
            storm.live = flow.finish()
        for part in storm.live:
            self._ledger.tally.add_faults(part.tally)

    @contextmanager
    def _watching(self, storm: _Storm) -> Iterator[None]:
        if not self._stage.redis:
            yield
            return
        with watching(self._stage.redis, self._stage.cluster) as storm.watched:
            yield

    # --- afterwards

    def _look_after(self, came: Sequence[int], stayed: Sequence[int]) -> None:
        """Who came has nothing left in Redis, and who did not come has all."""
        if not self._stage.redis:
            return
        end = time.monotonic() + GONE_S
        fetched = [user for user in came if not self._ledger.due(user)]
        while (left := self._count_mailboxes(fetched)) and time.monotonic() < end:
            hold(self._board, 0.2, self._teller)
        due = [user for user in stayed if self._ledger.due(user)]
        missing = len(due) - self._count_mailboxes(due)
        for what, count in (("mailbox_not_removed", left), ("mailbox_missing", missing)):
            if count:
                self._errors[what] += count

    def _count_mailboxes(self, users: Sequence[int]) -> int:
        names = [self._texts.user(user) for user in users]
        return trio.run(count_mailboxes, self._stage.redis, self._stage.cluster, names)

    def _check(self, came: range, stayed: range, others: Sequence[Shelf]) -> None:
        """Who came gets nothing more; others get what is stored. `sent` is what was due to all of them."""
        plan, ledger = self._plan, self._ledger
        checked = stayed if plan.empty else stayed[-CHECKED:]
        _warm, *deep = others
        beside = [shelf.users for shelf in (others if plan.empty else deep)]
        # In the order of their indexes: one visit, so that one pause shows who gets anything twice.
        self._board.ear = visit = self._visit()
        users = [user for part in (came[:CHECKED], checked, *beside) for user in part]
        visit.come(users, plan.concurrency, KEPT, "looking after the rest", self._teller)
        visit.leave()
        for part in (checked, *beside):
            ledger.close(part)

    def _finish(self, storm: _Storm, visit: Visit, served: int) -> Run:
        latencies = {
            "welcome": Latency.of(visit.welcome_ns),
            "served": Latency.of(visit.served_ns),
            "stored_receipt": self._receipts,
        }
        for name, part in zip(("live_before", "live_in_the_storm"), storm.live, strict=False):
            latencies[name] = part.receipts
        run = make_run(self._ledger.tally, done=served, spent=storm.spent, latencies=latencies)
        run.figures = {name: self._figures[name] for name in FIGURES if name in self._figures}
        return run
