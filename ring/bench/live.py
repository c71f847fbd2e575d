"""Messages between users who are there, at a steady rate, beside another load: in a process of its own.

In the load's own process they would wait for what it is busy with, and the servers would be blamed for it.
`live` starts it; what it says and hears is a byte to end a part, and a line of JSON for each answer:

    python -m ring.bench.live TOKEN FLOW      ready | refused, then what was measured of each part
"""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from ring.bench.clients import Switchboard
from ring.bench.dialect import RingDialect
from ring.bench.direct import DirectLoad, DirectPlan
from ring.bench.edge import Edge
from ring.bench.ledger import Tally
from ring.bench.results import Latency
from ring.bench.stage import LOST_WITH_RECEIPT_S, QUIET_S, Stage, Teller, Texts
from ring.bench.storm import CONNECT_S, CannotConnect, connect_all

USERS = 20
"""Of the flow; each sends to all others."""

_START_S = CONNECT_S + 10.0  # it is a Python that starts, and its users connect
_END_S = LOST_WITH_RECEIPT_S + 10.0  # what has no receipt is given up by then


class Flow(Struct):
    """What the process is to do: told on its command line.

    Attributes:
        edges: where each of its users connects.
        rate: messages per second of all of them in turn.
        size: bytes of each.
        parts: how many are measured apart.
    """

    edges: list[Edge]
    rate: float
    size: int
    parts: int


class Part(Struct):
    """What a part came to: its counts, and from when each message was due until its receipt."""

    tally: Tally
    receipts: Latency | None


class _Answer(Struct):
    refused: str = ""
    parts: list[Part] = []


@dataclass(slots=True)
class Live:
    """A flow that goes on. Its first part has begun."""

    _process: subprocess.Popen[bytes]

    def next(self) -> None:
        """Ends a part, and begins the next."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b".")
        except BrokenPipeError:
            raise CannotConnect("what measures live messages has ended: see what it said above") from None

    def finish(self) -> list[Part]:
        """Ends the last part; returns when nothing is due any more, with what each came to."""
        self.next()
        return self.answer(_END_S).parts

    def answer(self, within_s: float) -> _Answer:
        """What it says next.

        Raises:
            CannotConnect: it says that, or nothing.
        """
        assert self._process.stdout is not None
        line = b""
        if select.select([self._process.stdout], [], [], within_s)[0]:
            line = self._process.stdout.readline()
        if not line:
            raise CannotConnect("what measures live messages has ended or hangs: see what it said above")
        answer = msgspec.json.decode(line, type=_Answer, dec_hook=lambda kind, value: kind(value))
        if answer.refused:
            raise CannotConnect(f"live messages: {answer.refused}")
        return answer


@contextmanager
def live(stage: Stage, *, rate: float, size: int, parts: int) -> Iterator[Live]:
    """Has users of its own send to each other while the block runs.

    Raises:
        CannotConnect: not all of them were let in.
    """
    texts = Texts(size)
    edges = [stage.place(texts.user(index)) for index in range(USERS)]
    flow = msgspec.json.encode(Flow(edges, rate, size, parts)).decode()
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "ring.bench.live", texts.token, flow],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is for us: it ends with its standard input
    ) as process:
        try:
            running = Live(process)
            running.answer(_START_S)
            yield running
        except BaseException:
            process.kill()
            raise


def play(flow: Flow, token: str, told: Callable[[], bool], say: Callable[[bytes], None]) -> None:
    """Connects the users, and lets them send, part by part, until each was `told` to end."""
    texts = Texts(flow.size, token)
    users = [texts.user(index) for index in range(len(flow.edges))]
    edge = dict(zip(users, flow.edges, strict=True))
    plan = DirectPlan(
        clients=len(users), senders=len(users), rate=flow.rate, size=flow.size, messages=None, duration_s=None
    )
    teller = Teller(lambda _what, _share: None)
    with Switchboard(RingDialect(receipts=True)) as board:
        try:
            clients = connect_all(board, Stage(board.dialect, edge.__getitem__, lambda: None), users)
        except CannotConnect as error:
            say(msgspec.json.encode(_Answer(refused=str(error))))
            return
        board.ear = load = DirectLoad(board, clients, texts, plan)
        say(msgspec.json.encode(_Answer()))
        for _ in range(flow.parts):
            load.play(1.0, "", teller, until=told)
        board.quiet(QUIET_S)
    parts = [Part(ledger.tally, Latency.of(ledger.receipt_ns)) for ledger in load.ledgers]
    say(msgspec.json.encode(_Answer(parts=parts)))


def _told() -> bool:
    """A part is to end; all are once standard input has."""
    if not select.select([0], [], [], 0)[0]:
        return False
    os.read(0, 1)
    return True


def _say(line: bytes) -> None:
    os.write(1, line + b"\n")


if __name__ == "__main__":
    play(msgspec.json.decode(sys.argv[2], type=Flow), sys.argv[1], _told, _say)
