"""A node with a planted bug: `python planted.py BUG serve …`. `ring verify` must notice it.

It ends when its standard input does, like `ring.cli.child`.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from typing import Any

from msgspec.structs import replace

from ring.cli import child
from ring.cli.main import main
from ring.edge.session import ClientSession
from ring.mailbox.letter import Letter
from ring.mailbox.owner import Mailboxes
from ring.mailbox.vault import Job, Push, Result, Vault
from ring.protocol import peer
from ring.protocol.codes import ErrorCode

EVERY, FIRST = 1000, 100
"""One message in 1,000 of each node's; but in a short run the first must come soon."""

EVERY_STORED, FIRST_STORED = 100, 3
"""Few are stored."""

EVERY_EARLY = 20


class Turn:
    """Says of a few of many that it is their turn."""

    def __init__(self, every: int, first: int) -> None:
        self._every, self._left = every, first

    def __call__(self) -> bool:
        self._left -= 1
        if self._left:
            return False
        self._left = self._every
        return True


_deliver = ClientSession.deliver


class _Nothing:
    """A socket to which what is written is lost."""

    queued = 0

    def send_text(self, body: bytes) -> None:
        pass


def drop() -> None:
    """A gateway's session passes a message on to nobody; what comes after it has it acknowledged with it."""
    turn = Turn(EVERY, FIRST)

    def deliver(self: ClientSession, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        if not turn():
            _deliver(self, epoch, number, body, tracked)
            return
        socket, self.socket = self.socket, _Nothing()  # type: ignore[assignment] # all that `deliver` uses
        _deliver(self, epoch, number, body, tracked)
        self.socket = socket

    ClientSession.deliver = deliver  # type: ignore[method-assign] # the bug


def double() -> None:
    """A gateway's session writes a message twice."""
    turn = Turn(EVERY, FIRST)

    def deliver(self: ClientSession, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        _deliver(self, epoch, number, body, tracked)
        if turn():
            _deliver(self, epoch, number, body, tracked)

    ClientSession.deliver = deliver  # type: ignore[method-assign] # the bug


def swap() -> None:
    """A gateway's session writes a message behind the next one, if that is of the same sender."""
    turn = Turn(EVERY, FIRST)
    kept: dict[int, tuple[int, int, bytes, bool]] = {}

    def deliver(self: ClientSession, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        if kept and (held := kept.get(self.sid)) is not None:
            if _sender(held[2]) == _sender(body):
                del kept[self.sid]
                _deliver(self, epoch, number, body, tracked)
                _deliver(self, *held)
                return
            _deliver(self, *kept.pop(self.sid))
            kept[self.sid] = (epoch, number, body, tracked)  # the next may be of this one's sender
        elif turn():
            kept[self.sid] = (epoch, number, body, tracked)
        else:
            _deliver(self, epoch, number, body, tracked)

    ClientSession.deliver = deliver  # type: ignore[method-assign] # the bug


def _sender(body: bytes) -> bytes:
    return body.partition(b'"from":"')[2].partition(b'"')[0]


def early() -> None:
    """A gateway acknowledges a message for its client as soon as it has been written.

    That comes out only where the recipient takes longer to acknowledge than the receipt takes to come.
    """
    turn = Turn(EVERY_EARLY, EVERY_EARLY)

    def acknowledge(self: ClientSession, epoch: int, number: int) -> None:
        self.acked_epoch, self.acked_number = epoch, number
        self._gateway.attachments.acknowledge(self)

    def hasty(self: ClientSession, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        _deliver(self, epoch, number, body, tracked)
        if tracked and turn():
            self._gateway.wheel.call_later(0.0, partial(acknowledge, self, epoch, number))

    ClientSession.deliver = hasty  # type: ignore[method-assign] # the bug


def forget() -> None:
    """A message is said to be stored, and is not."""
    turn = Turn(EVERY_STORED, FIRST_STORED)
    exchange = Vault.exchange

    async def forgetful(self: Vault, jobs: Sequence[Job]) -> list[Result]:
        lost = {index: len(job.letters) for index, job in enumerate(jobs) if isinstance(job, Push) and turn()}
        kept = [job for index, job in enumerate(jobs) if index not in lost]
        results = iter(await exchange(self, kept) if kept else [])
        return [["stored"] * lost[index] if index in lost else next(results) for index in range(len(jobs))]

    Vault.exchange = forgetful  # type: ignore[method-assign] # the bug


def refuse() -> None:
    """A message fails for no reason."""
    turn = Turn(EVERY, FIRST)
    accept = Mailboxes.accept

    def fickle(self: Mailboxes, gateway: str, send: peer.Send, routed: int = 0) -> None:
        if send.ref and turn():
            self._notify(gateway, send.ref, "failed", None, ErrorCode.INTERNAL, "no reason")
        else:
            accept(self, gateway, send, routed)

    Mailboxes.accept = fickle  # type: ignore[method-assign] # the bug


def bare() -> None:
    """What comes again does not say so."""
    Letter.mark_redelivered = lambda self: None  # type: ignore[method-assign] # the bug
    accept = Mailboxes.accept

    def mute(self: Mailboxes, gateway: str, send: peer.Send, routed: int = 0) -> None:
        # It is looked up as one that is sent again, and then written as one that is not.
        if not (send.again and (box := self.boxes.get(send.to)) and self._known(box, gateway, send)):
            accept(self, gateway, replace(send, again=False), routed)

    Mailboxes.accept = mute  # type: ignore[method-assign] # the bug


def astray() -> None:
    """A message comes to another user as well."""
    turn = Turn(EVERY, FIRST)
    last: list[ClientSession] = []

    def deliver(self: ClientSession, epoch: int, number: int, body: bytes, tracked: bool) -> None:
        _deliver(self, epoch, number, body, tracked)
        if last and last[0].user != self.user and last[0].socket is not None and turn():
            last[0].socket.send_text(body)
        last[:] = [self]

    ClientSession.deliver = deliver  # type: ignore[method-assign] # the bug


def twice() -> None:
    """A receipt comes twice."""
    turn = Turn(EVERY, FIRST)
    receipt = ClientSession.receipt

    def eager(self: ClientSession, *what: Any) -> None:
        receipt(self, *what)
        if turn():
            receipt(self, *what)

    ClientSession.receipt = eager  # type: ignore[method-assign,assignment] # the bug


def silent() -> None:
    """A receipt does not come at all."""
    turn = Turn(EVERY, FIRST)
    receipt = ClientSession.receipt

    def shy(self: ClientSession, *what: Any) -> None:
        if not turn():
            receipt(self, *what)

    ClientSession.receipt = shy  # type: ignore[method-assign,assignment] # the bug


def none() -> None:
    """No bug: a run of the same shape, started in the same way, has nothing to complain of."""


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__: bug
    for bug in (drop, double, swap, early, forget, refuse, bare, astray, twice, silent, none)
}

if __name__ == "__main__":
    BUGS[sys.argv[1]]()
    Thread(target=child._follow, name="parent watch", daemon=True).start()
    sys.exit(main(sys.argv[2:]))
