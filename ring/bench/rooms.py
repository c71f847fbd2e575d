"""A room: what its publishers say is due once at each of its members, in one order for all."""

from dataclasses import dataclass
from math import inf
from time import perf_counter_ns

from ring.bench.clients import Client, Ear, Switchboard
from ring.bench.ledger import RoomLedger
from ring.bench.meter import spending
from ring.bench.results import Latency, Run, make_run
from ring.bench.stage import LOST_S, QUIET_S, Stage, Teller, Texts
from ring.bench.storm import CannotConnect, connect_all

JOIN_S = 10.0
"""How long all members may take to join."""

_SWEEP_S = 0.5


@dataclass(frozen=True, slots=True)
class RoomPlan:
    """Who publishes how much.

    Attributes:
        members: of the room.
        publishers: they are not members, and take turns.
        in_flight: messages of which not all copies are there, in a closed loop.
        rate: messages per second, in an open loop; None for a closed one.
        size: bytes of each.
        publishes: how many are counted; None where `duration_s` says how long.
        duration_s: how long messages are published.
        warm_up: that share more is published before, of which only the faults are counted.
    """

    members: int = 200
    publishers: int = 1
    in_flight: int = 4
    rate: float | None = None
    size: int = 100
    publishes: int | None = 500
    duration_s: float | None = None
    warm_up: float = 0.2


def run_rooms(stage: Stage, plan: RoomPlan) -> Run:
    """Connects the clients, has the members join, warms up, and measures.

    Raises:
        BadRequest: more clients than this process may open sockets for.
        CannotConnect: not all of them were let in, or into the room.
        ServerEnded: a local server died.
    """
    texts = Texts(plan.size)
    teller = Teller(stage.progress)
    with Switchboard(stage.dialect) as board:
        users = [texts.user(index) for index in range(plan.members + plan.publishers)]
        clients = connect_all(board, stage, users)
        load = _Rooms(board, clients, texts, plan)
        board.ear = load
        load.join()
        load.play(plan.warm_up, "warming up", teller)
        board.quiet(QUIET_S)
        with spending(stage.meter) as spent:
            load.play(1.0, "publishing", teller)
        board.quiet(QUIET_S)
    for part in load.ledgers:
        part.compare_orders()
    warm, ledger = load.ledgers
    ledger.tally.add_faults(warm.tally)
    return make_run(
        ledger.tally,
        done=ledger.tally.delivered,
        spent=spent,
        latencies={"one_way": Latency.of(ledger.one_way_ns)},
    )


class _Rooms(Ear):
    def __init__(self, board: Switchboard, clients: list[Client], texts: Texts, plan: RoomPlan) -> None:
        self._board = board
        self._clients = clients
        self._texts = texts
        self._plan = plan
        self._room = f"bench-{texts.token}"
        self._joining: set[int] = set()
        self._refusal = ""
        self._members = range(plan.members)
        self._ledger = RoomLedger(0, self._members)
        self.ledgers: list[RoomLedger] = []  # of the parts

    def join(self) -> None:
        """All members join; returns when all have.

        Raises:
            CannotConnect: not all may, or it takes too long.
        """
        self._joining = set(self._members)
        for index in self._members:
            self._clients[index].send(self._board.dialect.join(self._room))
        end = perf_counter_ns() + int(JOIN_S * 1e9)
        while self._joining and not self._refusal and perf_counter_ns() < end:
            self._board.tick(_SWEEP_S)
        if self._joining:
            reason = self._refusal or f"no answer within {JOIN_S:.0f} s"
            raise CannotConnect(
                f"{len(self._joining)} of {self._plan.members} cannot join the room: {reason}"
            )

    def play(self, share: float, what: str, teller: Teller) -> None:
        """Publishes this share of the plan; returns when nothing of it is due any more."""
        plan = self._plan
        first = self.ledgers[-1].next if self.ledgers else 0
        self._ledger = ledger = RoomLedger(first, self._members)
        self.ledgers.append(ledger)
        start = perf_counter_ns()
        last = inf if plan.publishes is None else first + max(int(plan.publishes * share), 1)
        end = inf if plan.duration_s is None else start + int(plan.duration_s * share * 1e9)
        sweep_at = 0
        while True:
            now = perf_counter_ns()
            wait_s = _SWEEP_S
            while ledger.next < last and now < end:
                due = now
                if plan.rate is not None:
                    due = start + int((ledger.next - first) * 1e9 / plan.rate)
                    if due > now:
                        wait_s = min((due - now) / 1e9, _SWEEP_S)
                        break
                elif ledger.open >= plan.in_flight:
                    break
                self._publish(due)
                now = perf_counter_ns()
            if not ledger.open and (ledger.next >= last or now >= end):
                return
            self._board.tick(wait_s)
            if now >= sweep_at:
                sweep_at = now + int(_SWEEP_S * 1e9)
                ledger.give_up(now - int(LOST_S * 1e9))
                done = (
                    (now - start) / (end - start)
                    if plan.duration_s
                    else (ledger.next - first) / (last - first)
                )
                teller.tell(what, done)

    def _publish(self, at_ns: int) -> None:
        number = self._ledger.publish(self._ledger.next % self._plan.publishers, at_ns)
        publisher = self._clients[self._plan.members + number % self._plan.publishers]
        publisher.send(self._board.dialect.publish(number, self._room, self._texts.make(number)))

    def on_text(self, client: Client, text: str) -> None:
        """See `Ear`."""
        number = self._texts.number(text)
        for ledger in self.ledgers:
            if ledger.first <= number < ledger.next:
                ledger.arrive(number, client.index, self._board.now_ns)
                return
        self._ledger.arrive(number, client.index, self._board.now_ns)

    def on_ok(self, client: Client) -> None:
        """See `Ear`."""
        self._joining.discard(client.index)

    def on_error(self, client: Client, code: str) -> None:
        """See `Ear`."""
        self._refusal = code
        self._ledger.tally.errors[code] += 1

    def on_closed(self, client: Client, reason: str) -> None:
        """See `Ear`."""
        self._refusal = reason
        self._ledger.tally.errors[reason] += 1
