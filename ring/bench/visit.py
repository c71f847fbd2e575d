"""Users who come for what is stored for them: raw clients, which acknowledge all they get, hiding nothing."""

from array import array
from collections import deque
from collections.abc import Sequence
from time import perf_counter_ns

from ring.bench.clients import Client, Ear, Switchboard
from ring.bench.stage import QUIET_S, Placement, Teller, Texts
from ring.bench.stored import StoredLedger
from ring.bench.storm import CONNECT_S

KEPT = 1000
"""Of those who have everything, so many stay for a while: what they get twice would come behind."""

_LOOK_S = 0.5


class Visit(Ear):
    """See the module.

    Args:
        board: whose clients they are; its ear must be this.
        place: where they connect.
        texts: their names, and what was sent to them.
        ledger: says what is due, and notes what comes.

    Attributes:
        welcome_ns: from when each began to connect until it was welcomed.
        served_ns: until it had all that was due, of those to whom something was.
    """

    def __init__(self, board: Switchboard, place: Placement, texts: Texts, ledger: StoredLedger) -> None:
        self._board = board
        self._place = place
        self._texts = texts
        self._ledger = ledger
        self._connecting: dict[int, Client] = {}  # by user, the oldest first
        self._waiting: dict[int, Client] = {}  # the same, of those who have not been served
        self._content: deque[Client] = deque()
        self.welcome_ns = array("q")
        self.served_ns = array("q")

    def come(self, users: Sequence[int], concurrency: int, kept: int, what: str, teller: Teller) -> None:
        """Connects them; returns when each is served, or has failed.

        Args:
            users: who.
            concurrency: how many are on their way to a welcome at once, at most.
            kept: how many of those who were served stay, at most.
            what: what this is, for `teller`.
            teller: told how far it is.
        """
        begun = 0
        while begun < len(users) or self._waiting:
            while begun < len(users) and len(self._connecting) < concurrency:
                self._begin(users[begun])
                begun += 1
            self._board.tick(_LOOK_S)
            while len(self._content) > kept:
                self._content.popleft().close()
            self._give_up(perf_counter_ns() - int(CONNECT_S * 1e9))
            teller.tell(what, (begun - len(self._waiting)) / len(users))

    def _begin(self, user: int) -> None:
        name = self._texts.user(user)
        client = self._board.connect(user, name, self._place(name))
        if not client.closed:
            self._connecting[user] = self._waiting[user] = client

    def _give_up(self, before_ns: int) -> None:
        while self._waiting:
            user, client = next(iter(self._waiting.items()))
            if client.started_ns >= before_ns:
                return
            if user in self._connecting:
                client.fail("not_welcomed")
            else:  # what is due is lost, as the ledger will say
                self._content.append(self._waiting.pop(user))

    def leave(self) -> None:
        """They stay until nothing more comes, and go."""
        self._board.quiet(QUIET_S)
        while self._content:
            self._content.popleft().close()

    def _serve(self, client: Client) -> None:
        if self._waiting.pop(client.index, None) is not None:
            self._content.append(client)

    def on_welcome(self, client: Client) -> None:
        """See `Ear`."""
        if self._connecting.pop(client.index, None) is None:
            self._ledger.tally.errors["welcomed_twice"] += 1
            return
        self.welcome_ns.append(self._board.now_ns - client.started_ns)
        if not self._ledger.due(client.index):
            self._serve(client)

    def on_text(self, client: Client, text: str) -> None:
        """See `Ear`."""
        if self._ledger.arrive(self._texts.number(text), client.index):
            self.served_ns.append(self._board.now_ns - client.started_ns)
            if client.index not in self._connecting:
                self._serve(client)

    def on_error(self, client: Client, code: str) -> None:
        """See `Ear`."""
        self._ledger.tally.errors[code] += 1

    def on_closed(self, client: Client, reason: str) -> None:
        """See `Ear`."""
        self._connecting.pop(client.index, None)
        self._waiting.pop(client.index, None)
        self._ledger.tally.errors[reason] += 1
