"""Connections: how fast they are made (`storm`), and what they cost while they are idle."""

from collections.abc import Sequence
from dataclasses import dataclass
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
from time import perf_counter_ns

from ring.bench.clients import Client, Ear, Switchboard
from ring.bench.ledger import Tally
from ring.bench.meter import Spent, cpu_between, memory_between, spending
from ring.bench.results import Latency, Run, make_run
from ring.bench.stage import Placement, Stage, Teller, Texts
from ring.protocol.codes import BadRequest, ErrorCode, RingError

CONNECT_S = 30.0
"""A connection that is not welcomed by then has failed."""

CONCURRENCY = 64
"""Connections that are being made at once, where nothing else is said."""

SETTLE_S = 2.0
"""What connecting left to do is done by then, and what it needed is freed."""

_SPARE_DESCRIPTORS = 100
_LOOK_S = 1.0  # the longest wait: who is overdue is seen, and how far it is told


@dataclass(frozen=True, slots=True)
class StormPlan:
    """Connections to be made.

    Attributes:
        connections: how many.
        concurrency: how many are being made at any moment, at most.
        rate: how many are begun per second, at most; None for as fast as the servers do it.
    """

    connections: int = 2000
    concurrency: int = CONCURRENCY
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class IdlePlan:
    """Connections to be held.

    Attributes:
        connections: how many.
        hold_s: how long.
    """

    connections: int = 2000
    hold_s: float = 10.0


class CannotConnect(RingError):
    """Clients that a load needs were not let in."""

    code = ErrorCode.OWNER_UNAVAILABLE


class _Arrivals(Ear):
    """Counts who is welcomed, and who is not."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.welcome_ns: list[int] = []
        self.pending: dict[int, Client] = {}  # by index, the oldest first
        self.welcomed: list[Client] = []

    def on_welcome(self, client: Client) -> None:
        if self.pending.pop(client.index, None) is None:
            self.tally.errors["welcomed_twice"] += 1
            return
        self.tally.delivered += 1
        self.welcome_ns.append(perf_counter_ns() - client.started_ns)
        self.welcomed.append(client)

    def on_error(self, client: Client, code: str) -> None:
        self.tally.errors[code] += 1

    def on_closed(self, client: Client, reason: str) -> None:
        self.pending.pop(client.index, None)
        self.tally.errors[reason] += 1

    def on_text(self, client: Client, text: str) -> None:
        self.tally.strangers += 1


def allow_descriptors(connections: int) -> None:
    """Lets this process open as many sockets.

    Raises:
        BadRequest: the system does not.
    """
    soft, hard = getrlimit(RLIMIT_NOFILE)
    wanted = connections + _SPARE_DESCRIPTORS
    if hard != RLIM_INFINITY and wanted > hard:
        raise BadRequest(
            f"this process may open {hard} files, too few for {connections} connections: raise `ulimit -Hn`"
        )
    if soft != RLIM_INFINITY and wanted > soft:
        setrlimit(RLIMIT_NOFILE, (wanted, hard))


def _make(
    board: Switchboard, place: Placement, users: Sequence[str], plan: StormPlan, teller: Teller
) -> _Arrivals:
    """Connects all users; returns when each is welcomed or has failed."""
    arrivals = _Arrivals()
    board.ear = arrivals
    start, begun = perf_counter_ns(), 0
    while begun < len(users) or arrivals.pending:
        allowed = len(users)
        wait_s = _LOOK_S
        if plan.rate is not None and begun < len(users):
            elapsed_s = (perf_counter_ns() - start) / 1e9
            due = int(elapsed_s * plan.rate) + 1
            allowed = min(allowed, due)
            wait_s = min(wait_s, max(due / plan.rate - elapsed_s, 0.0))
        while begun < allowed and len(arrivals.pending) < plan.concurrency:
            arrivals.tally.sent += 1
            edge = place(users[begun])
            arrivals.pending[begun] = client = board.connect(begun, users[begun], edge)
            if client.closed:
                del arrivals.pending[begun]
            begun += 1
        board.tick(wait_s)
        overdue = perf_counter_ns() - int(CONNECT_S * 1e9)
        while (oldest := next(iter(arrivals.pending.values()), None)) and oldest.started_ns < overdue:
            oldest.fail("not_welcomed")
        teller.tell("connecting", arrivals.tally.delivered / len(users))
    return arrivals


def connect_all(board: Switchboard, stage: Stage, users: Sequence[str]) -> list[Client]:
    """The clients of a load, all welcomed, in the order of `users`.

    Raises:
        CannotConnect: some are not.
    """
    allow_descriptors(len(users))
    arrivals = _make(board, stage.place, users, StormPlan(len(users)), Teller(stage.progress))
    if arrivals.tally.errors:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in arrivals.tally.errors.most_common(3))
        raise CannotConnect(
            f"{len(users) - arrivals.tally.delivered} of {len(users)} clients cannot connect: {reasons}"
        )
    return sorted(arrivals.welcomed, key=lambda client: client.index)


def run_storm(stage: Stage, plan: StormPlan) -> Run:
    """Makes connections as fast as allowed; then ends them.

    Raises:
        BadRequest: more than this process may open.
    """
    allow_descriptors(plan.connections)
    texts = Texts(64)
    users = [texts.user(index) for index in range(plan.connections)]
    with Switchboard(stage.dialect) as board, spending(stage.meter) as spent:
        arrivals = _make(board, stage.place, users, plan, Teller(stage.progress))
    return _finish(arrivals, spent)


def _finish(arrivals: _Arrivals, spent: Spent) -> Run:
    return make_run(
        arrivals.tally,
        done=arrivals.tally.delivered,
        spent=spent,
        latencies={"welcome": Latency.of(arrivals.welcome_ns)},
    )


def run_idle(stage: Stage, plan: IdlePlan) -> Run:
    """Makes connections, holds them, and reads what they cost meanwhile.

    Memory that the servers had freed before is used again without a trace: the first run on fresh servers is
    the one that tells.

    Raises:
        BadRequest: more than this process may open.
        CannotConnect: the first one, which is not counted, is refused.
    """
    allow_descriptors(plan.connections)
    texts = Texts(64)
    users = [texts.user(index) for index in range(plan.connections)]
    teller = Teller(stage.progress)
    with Switchboard(stage.dialect) as board:
        # What a first connection makes the servers load is no cost of each.
        for client in connect_all(board, stage, [texts.user(plan.connections)]):
            client.close()
        with spending(stage.meter) as spent:
            arrivals = _make(board, stage.place, users, StormPlan(plan.connections), teller)
        hold(board, SETTLE_S, teller)
        settled, held = stage.meter(), perf_counter_ns()
        hold(board, plan.hold_s, teller)
        held_s = (perf_counter_ns() - held) / 1e9
        idle_us = cpu_between(settled, stage.meter())
    run = _finish(arrivals, spent)
    per = max(run.done, 1)
    memory = memory_between(spent.before, settled)
    run.memory_kib = memory and {part: round(kib / per, 3) for part, kib in memory.items()}
    run.idle_cpu_us = idle_us and {part: round(us / per / held_s, 3) for part, us in idle_us.items()}
    return run


def hold(board: Switchboard, seconds: float, teller: Teller) -> None:
    """Lets so much time go by, answering the servers' pings."""
    start = perf_counter_ns()
    while (left_s := seconds - (perf_counter_ns() - start) / 1e9) > 0:
        board.tick(min(left_s, _LOOK_S))
        teller.tell("holding", 1 - left_s / seconds)
