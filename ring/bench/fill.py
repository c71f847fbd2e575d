"""Fills the mailboxes of users who are not there, through the cluster, in a closed loop with receipts."""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter_ns

from ring.bench.clients import Client, Ear, Switchboard
from ring.bench.stage import LOST_WITH_RECEIPT_S, Teller, Texts
from ring.bench.stored import Shelf, StoredLedger
from ring.bench.storm import CannotConnect
from ring.protocol.codes import RingError

ENOUGH = 1000
"""If so many messages have a receipt and none is stored, none will be."""

_SWEEP_S = 0.5


class NothingStored(RingError):
    """A cluster keeps nothing for users who are not there."""


class Filling(Ear):
    """Those who send.

    Args:
        board: whose clients they are; its ear must be this.
        senders: welcomed, and called 0, 1, 2, …
        texts: what they say, and the names of the users.
        ledger: notes what becomes of it.
        in_flight: messages that each has under way.
    """

    def __init__(
        self,
        board: Switchboard,
        senders: Sequence[Client],
        texts: Texts,
        ledger: StoredLedger,
        in_flight: int,
    ) -> None:
        self._board = board
        self._senders = senders
        self._texts = texts
        self._ledger = ledger
        self._in_flight = in_flight
        self._rest: list[Iterator[int]] = []  # what each sender has yet to send
        self._user: Callable[[int], int] = lambda number: number
        self._cut = ""

    def fill(self, shelf: Shelf, what: str, teller: Teller) -> None:
        """Sends all messages of a shelf; returns when each has a receipt, or is given up.

        Raises:
            CannotConnect: a sender's connection ended.
            NothingStored: the cluster stores none of them.
        """
        ledger, parts = self._ledger, len(self._senders)
        stored_before = ledger.stored
        self._user = shelf.user
        self._rest = [iter(shelf.numbers(part, parts)) for part in range(parts)]
        for sender in self._senders:
            for _ in range(self._in_flight):
                self._post(sender)
        sweep_at = 0
        while ledger.open:
            self._board.tick(_SWEEP_S)
            if self._cut:
                raise CannotConnect(f"a client that fills mailboxes was cut off: {self._cut}")
            now = perf_counter_ns()
            if now < sweep_at:
                continue
            sweep_at = now + int(_SWEEP_S * 1e9)
            for number in ledger.give_up(now - int(LOST_WITH_RECEIPT_S * 1e9)):
                self._post(self._senders[shelf.part(number, parts)])
            if not ledger.stored and ledger.refused >= ENOUGH:
                break
            teller.tell(what, (ledger.stored - stored_before) / (shelf.end - shelf.first))
        if not ledger.stored:
            reasons = ", ".join(f"{code} ({count})" for code, count in ledger.tally.errors.most_common(3))
            raise NothingStored(
                f"no message is stored for users who are not there: {reasons or 'no receipt'}; "
                "does the cluster reach Redis?"
            )

    def _post(self, sender: Client) -> None:
        number = next(self._rest[sender.index], None)
        if number is None:
            return
        self._ledger.send(number, perf_counter_ns())
        to = self._texts.user(self._user(number))
        sender.send(self._board.dialect.direct(number, to, self._texts.make(number)))

    def on_receipt(self, client: Client, number: int, failure: str) -> None:
        """See `Ear`; of a message that is stored, the dialect makes the failure `queued`."""
        if self._ledger.answer(number, failure, self._board.now_ns):
            self._post(client)

    def on_text(self, client: Client, text: str) -> None:
        """See `Ear`: nobody writes to those who fill."""
        self._ledger.tally.strangers += 1

    def on_error(self, client: Client, code: str) -> None:
        """See `Ear`."""
        self._ledger.tally.errors[code] += 1

    def on_closed(self, client: Client, reason: str) -> None:
        """See `Ear`."""
        self._cut = reason
