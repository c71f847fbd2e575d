"""Histories for the oracle, written as a play: who sent what when, who got it, and what was answered."""

from ring.verify.judge import Terms
from ring.verify.oracle import Oracle
from ring.verify.record import Breach, By, Device, Key, Promise, Resumed, Window

LONG = 200.0
"""After so long the oracle keeps nothing."""


class Play:
    """An oracle, its clock, and its actors: users of one device each, unless more are asked for.

    Alice sends, Bob gets, both acknowledging by `ack`, on nodes of their own.
    """

    def __init__(self, *, send_timeout_s: float = 10.0) -> None:
        self.oracle = Oracle(Terms(send_timeout_s=send_timeout_s, margin_s=1.0), 0.0)
        self.now = 0.0
        self.sessions = 0
        self.numbers = 0
        self.alice = self.enter("alice", node="n1")
        self.bob = self.enter("bob", node="n2")

    def enter(
        self,
        user: str,
        name: str = "raw",
        *,
        by: By = "client",
        library: bool = False,
        node: str = "n2",
        resumed: Resumed = False,
    ) -> Device:
        """A device comes for the first time."""
        device = self.oracle.device(user, name, by, library=library)
        self.welcome(device, node=node, resumed=resumed)
        return device

    def welcome(self, device: Device, *, node: str = "n2", resumed: Resumed = True) -> None:
        """A device is connected, again."""
        self.sessions += 1
        session = f"{node}.{self.sessions}"
        self.oracle.welcomed(device, self.now, session=session, node=node, owner="n3", resumed=resumed)

    def later(self, seconds: float = 0.01) -> None:
        """Time goes by."""
        self.now += seconds

    def send(self, to: str = "bob", sender: Device | None = None) -> Key:
        """A new message."""
        sender = sender or self.alice
        key = self.oracle.issue(sender.user, to)
        self.write(key, sender)
        return key

    def write(self, key: Key, sender: Device | None = None, *, again: bool = False) -> None:
        """It goes out."""
        sender = sender or self.alice
        assert sender.session is not None
        self.later()
        self.oracle.wrote(key, self.now, sender.session, again=again)

    def bring(
        self, *keys: Key, to: Device | None = None, marked: bool = False, acknowledged: bool = True
    ) -> None:
        """Messages come, and are acknowledged."""
        device = to or self.bob
        for key in keys:
            self.later()
            self.numbers += 1
            self.oracle.arrived(device, self.now, key, f"1-{self.numbers}", marked=marked)
            if device.library:
                self.oracle.took(device, self.now, key)
        if acknowledged:
            self.acknowledge(device)

    def acknowledge(self, device: Device | None = None) -> None:
        """All that came is acknowledged."""
        self.later()
        self.oracle.acknowledged(device or self.bob, self.now)

    def deliver(self, *keys: Key, by: By = "client") -> None:
        """Receipts come that say so."""
        for key in keys:
            self.later()
            self.oracle.answered(key, self.now, "delivered", by=by)

    def queue(self, *keys: Key) -> None:
        """Receipts come that say so."""
        for key in keys:
            self.later()
            self.oracle.answered(key, self.now, "queued")

    def fail(self, key: Key, code: str = "owner_unavailable") -> None:
        """A receipt comes that says so."""
        self.later()
        self.oracle.answered(key, self.now, "failed", code=code)

    def fault(
        self,
        name: str = "kill",
        *,
        planned: bool = False,
        forgets: bool = False,
        holds: bool = False,
        victims: tuple[str, ...] = (),
    ) -> Window:
        """A fault begins; `heal` ends it."""
        self.later()
        window = Window(name, self.now, planned, forgets, victims, holds=holds)
        self.oracle.windows.add(window)
        return window

    def heal(self, window: Window) -> None:
        """It is over, and its aftershock too."""
        self.later()
        window.healed = self.now
        self.later(5.0)

    def verdict(self) -> list[Promise]:
        """The promises that were broken, when all is over."""
        self.later(LONG)
        self.oracle.judge(self.now, final=True)
        return [breach.promise for breach in self.oracle.breaches()]

    def breach(self) -> Breach:
        """The only one, when all is over."""
        assert len(self.verdict()) == 1, self.oracle.breaches()
        return self.oracle.breaches()[0]
