"""Direct messages between users: in a closed loop, or at a rate that does not depend on the servers."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import perf_counter_ns

from ring.bench.clients import Client, Ear, Switchboard
from ring.bench.ledger import DirectLedger
from ring.bench.meter import spending
from ring.bench.results import Latency, Run, make_run
from ring.bench.stage import LOST_S, LOST_WITH_RECEIPT_S, QUIET_S, Stage, Teller, Texts, dice
from ring.bench.storm import connect_all

_SWEEP_S = 0.5


@dataclass(frozen=True, slots=True)
class DirectPlan:
    """Who sends how much to whom.

    Attributes:
        clients: users that are connected, and get messages.
        senders: how many of them send: the first.
        in_flight: messages that each sender has under way, in a closed loop.
        rate: messages per second of all senders in turn, in an open loop; None for a closed one.
        size: bytes of each.
        messages: how many are counted; None where `duration_s` says how long.
        duration_s: how long messages are sent.
        warm_up: that share more is sent before, of which only the faults are counted.
        seed: of the choice of recipients.
    """

    clients: int = 400
    senders: int = 64
    in_flight: int = 4
    rate: float | None = None
    size: int = 100
    messages: int | None = 20_000
    duration_s: float | None = None
    warm_up: float = 0.2
    seed: int = 1


def run_direct(stage: Stage, plan: DirectPlan) -> Run:
    """Connects the clients, warms up, and measures.

    Raises:
        BadRequest: more clients than this process may open sockets for.
        CannotConnect: not all of them were let in.
        ServerEnded: a local server died.
    """
    texts = Texts(plan.size)
    teller = Teller(stage.progress)
    with Switchboard(stage.dialect) as board:
        clients = connect_all(board, stage, [texts.user(index) for index in range(plan.clients)])
        load = DirectLoad(board, clients, texts, plan)
        board.ear = load
        load.play(plan.warm_up, "warming up", teller)
        board.quiet(QUIET_S)
        with spending(stage.meter) as spent:
            load.play(1.0, "sending", teller)
        board.quiet(QUIET_S)
    warm, ledger = load.ledgers
    ledger.tally.add_faults(warm.tally)
    return make_run(
        ledger.tally,
        done=ledger.tally.delivered,
        spent=spent,
        latencies={"one_way": Latency.of(ledger.one_way_ns), "receipt": Latency.of(ledger.receipt_ns)},
    )


class DirectLoad(Ear):
    """Plays a plan, part by part.

    Args:
        board: whose clients they are; its ear must be this.
        clients: all of the plan's, welcomed.
        texts: what they say.
        plan: who sends how much.

    Attributes:
        ledgers: of the parts.
    """

    def __init__(self, board: Switchboard, clients: list[Client], texts: Texts, plan: DirectPlan) -> None:
        self._board = board
        self._clients = clients
        self._names = [client.user for client in clients]
        self._texts = texts
        self._plan = plan
        self._receipts = board.dialect.receipts
        self._random = dice(plan.seed).random
        self._more: Callable[[], bool] = lambda: False  # whether this part has another message to send
        self._ledger = DirectLedger(0, receipts=self._receipts)
        self.ledgers: list[DirectLedger] = []

    def play(self, share: float, what: str, teller: Teller, until: Callable[[], bool] | None = None) -> None:
        """Sends this share of the plan, or until told to end; returns when nothing of it is due any more."""
        plan = self._plan
        first = self.ledgers[-1].next if self.ledgers else 0
        self._ledger = ledger = DirectLedger(first, receipts=self._receipts)
        self.ledgers.append(ledger)
        start = perf_counter_ns()
        last = inf if plan.messages is None else first + int(plan.messages * share)
        end = inf if plan.duration_s is None else start + int(plan.duration_s * share * 1e9)
        over = False

        def more() -> bool:
            nonlocal over
            if not over:  # `until` says it once
                over = ledger.next >= last or perf_counter_ns() >= end or (until is not None and until())
            return not over

        self._more = more

        def progress() -> float:
            if plan.duration_s is not None:
                return (perf_counter_ns() - start) / (end - start)
            return (ledger.next - first) / max(last - first, 1)

        if plan.rate is None:
            for sender in range(plan.senders):
                for _ in range(plan.in_flight):
                    self._post(sender)
        sweep_at = 0
        while True:
            wait_s = _SWEEP_S
            sending = self._more()
            if plan.rate is not None and sending:
                wait_s = self._post_due(start, first, plan.rate)
            elif not sending and not ledger.open:
                return
            self._board.tick(wait_s)
            now = perf_counter_ns()
            if now >= sweep_at:
                sweep_at = now + int(_SWEEP_S * 1e9)
                self._sweep(now)
                teller.tell(what, progress())

    def _post_due(self, start: int, first: int, rate: float) -> float:
        """Sends what is due by now, as of when it was due; returns how long it is until the next."""
        while self._more():
            nth = self._ledger.next - first
            due = start + int(nth * 1e9 / rate)
            left = due - perf_counter_ns()
            if left > 0:
                return min(left / 1e9, _SWEEP_S)
            self._post(nth % self._plan.senders, due)
        return 0.0

    def _post(self, sender: int, at_ns: int = 0) -> None:
        if not self._more():
            return
        # Of the others: the sender's own place goes to the last.
        recipient = int(self._random() * (len(self._clients) - 1))
        if recipient == sender:
            recipient = len(self._clients) - 1
        number = self._ledger.send(sender, recipient, at_ns or perf_counter_ns())
        text = self._texts.make(number)
        self._clients[sender].send(self._board.dialect.direct(number, self._names[recipient], text))

    def _sweep(self, now: int) -> None:
        patience_s = LOST_WITH_RECEIPT_S if self._receipts else LOST_S
        for sender in self._ledger.give_up(now - int(patience_s * 1e9)):
            if self._plan.rate is None:
                self._post(sender)

    def _ledger_of(self, number: int) -> DirectLedger:
        """The part's that sent it; the current one's if none did."""
        for ledger in self.ledgers:
            if ledger.first <= number < ledger.next:
                return ledger
        return self._ledger

    def on_text(self, client: Client, text: str) -> None:
        """See `Ear`."""
        number = self._texts.number(text)
        ledger = self._ledger
        if number < ledger.first:
            ledger = self._ledger_of(number)
        sender = ledger.arrive(number, client.index, self._board.now_ns)
        if sender is not None and self._plan.rate is None and not self._receipts:
            self._post(sender)

    def on_receipt(self, client: Client, number: int, failure: str) -> None:
        """See `Ear`."""
        sender = self._ledger_of(number).answer(number, failure, self._board.now_ns)
        if sender is not None and self._plan.rate is None:
            self._post(sender)

    def on_error(self, client: Client, code: str) -> None:
        """See `Ear`."""
        self._ledger.tally.errors[code] += 1

    def on_closed(self, client: Client, reason: str) -> None:
        """See `Ear`."""
        self._ledger.tally.errors[reason] += 1
