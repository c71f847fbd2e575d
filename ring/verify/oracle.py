"""What became of every message, held against what was promised. Pure: it is told, and asks nobody.

The clients of the crowd tell it all that they send and get, as it is on the wire, in the order in which it
happens. What can be known at once is judged at once; what a fault may excuse, when it is known which faults
there were; and a message's fate when nothing more can come of it. Then it is forgotten, but for a few bits,
so that a soak of hours fits in memory.
"""

import math
from dataclasses import replace

from ring.verify.judge import Terms, answered_late, forgotten, is_known, passed_over
from ring.verify.record import (
    AFTERSHOCK_S,
    Answer,
    Around,
    Breach,
    By,
    Copy,
    Device,
    Key,
    Message,
    Promise,
    Resumed,
    Session,
    Status,
    Stream,
    Suspicion,
    Windows,
    Write,
)
from ring.verify.story import story
from ring.verify.tally import Heard, Row, silences

KEEP_S = 75.0
"""A message is known whole for so long: 15 s more than a node remembers a fate."""

MOST_STORIES = 50
"""So many breaches are kept with their story; all are counted."""

MOST_PASSED = 1024
"""So many numbers that did not come are remembered of one sender at one device."""


class Oracle:
    """See the module.

    Attributes:
        rows: of the table, the present one last.
        breached: how often each promise was broken.
        origin: when it began to listen.
    """

    def __init__(self, terms: Terms, now: float = 0.0) -> None:
        self.windows = Windows()
        self.rows = [Row("calm", now)]
        self.breached: dict[Promise, int] = {}
        self.origin = now
        self._terms = terms
        self._messages: dict[Key, Message] = {}
        self._issued: dict[tuple[str, str], int] = {}
        self._suspicions: list[Suspicion] = []
        self._heard: list[Heard] = []
        self._told: list[tuple[Breach, Message | None, Around]] = []
        self._devices: dict[str, list[Device]] = {}

    # --- what goes on

    def begin(self, name: str, now: float) -> Row:
        """A new row of the table begins, and the one before it ends."""
        self._heard.clear()
        self.rows.append(Row(name, now))
        return self.rows[-1]

    def measure(self, users: set[str], began: float, until: float) -> None:
        """Says in the present row how long a fault was felt by `users`."""
        self.rows[-1].served_s, self.rows[-1].silence_s = silences(self._heard, users, began, until)

    # --- who sends

    def issue(self, sender: str, to: str) -> Key:
        """The name of the next message of one to another."""
        n = self._issued.get((sender, to), 0)
        self._issued[sender, to] = n + 1
        return Key(sender, to, n)

    def wrote(self, key: Key, at: float, session: Session, *, again: bool) -> None:
        """A message goes out, for the first time or again."""
        message = self._messages.get(key)
        if message is None:
            message = self._messages[key] = Message(key, at, len(self.rows) - 1)
            self.rows[-1].sent += 1
        message.writes.append(Write(at, session.name, session.node, again))

    def answered(
        self, key: Key, at: float, status: Status, *, code: str | None = None, by: By | None = None
    ) -> None:
        """A final answer came."""
        message = self._messages.get(key)
        if message is None:
            self._breach(Promise.ANSWERED_ONCE, at, f"{status}, long after it was settled", key=key)
            return
        message.answers.append(Answer(at, status, code, by))
        if len(message.answers) > 1:
            first = message.answers[0]
            words = f"{first.status} first, then {status}"
            self._breach(Promise.ANSWERED_ONCE, at, words, message)
            return
        row = self.rows[message.row]
        if status == "delivered":
            row.delivered += 1
            if not any(copy.acknowledged_at <= at and by == copy.device.by for copy in message.copies):
                words = f"delivered by {by}, which nobody had acknowledged"
                self._breach(Promise.TRUE_RECEIPT, at, words, message)
        elif status == "queued":
            row.queued += 1
        else:
            row.failed[code or "?"] += 1
            self._suspect(Promise.CARRIED_OUT, at, f"failed: {code}", message)

    def abandoned(self, key: Key, at: float) -> None:
        """The sender's client ended, or nobody waits any more."""
        message = self._messages.get(key)
        if message is not None and not message.answers:
            message.abandoned = min(message.abandoned, at)
            self.rows[message.row].abandoned += 1

    def returned(self, key: Key, at: float, status: Status) -> None:
        """The library told its application what became of a message."""
        message = self._messages.get(key)
        if message is not None and message.status != status:
            words = f"the library said {status}, the node {message.status}"
            self._breach(Promise.ANSWERED_ONCE, at, words, message)

    def unreturned(self, key: Key, at: float) -> None:
        """An application still waits for its library, when all is over."""
        self._breach(Promise.ANSWERED, at, "`send` has not returned", self._messages.get(key), key=key)

    def deaf(self, user: str, at: float) -> None:
        """A client has not read until now: what it was answered is not late."""
        for message in self._messages.values():
            if message.key.sender == user and not message.answers:
                message.deaf_until = at

    # --- who gets

    def device(self, user: str, name: str, by: By, *, library: bool = False) -> Device:
        """A device that will be told of."""
        device = Device(user, name, by, library=library)
        self._devices.setdefault(user, []).append(device)
        return device

    def welcomed(
        self, device: Device, at: float, *, session: str, node: str, owner: str, resumed: Resumed
    ) -> Session:
        """A session begins."""
        device.session = Session(session, node, at)
        device.copies.clear()
        device.lately.append(
            (at, f"welcomed by {node} (session {session}), owner {owner}, resumed {resumed}")
        )
        if resumed is not True:
            device.unbroken_since = at
        return device.session

    def ended(self, device: Device, at: float, why: str) -> None:
        """A session is over, or the attempt at one."""
        device.session = None
        device.lately.append((at, f"disconnected: {why}"))

    def reborn(self, device: Device, at: float) -> None:
        """Another library client takes the place of the last, and knows nothing of it."""
        device.unbroken_since = at
        for stream in device.streams.values():
            stream.new_life()

    def arrived(self, device: Device, at: float, key: Key, seq: str, *, marked: bool) -> None:
        """A frame brought a message."""
        session = device.session
        if session is None:
            self.strange(device, at, f"{key} before its welcome")
            return
        message = self._messages.get(key)
        copy = Copy(at, device, session.name, key, seq, marked)
        device.copies.append(copy)
        device.lately.append((at, f"{key} came as {seq}{', redelivered' if marked else ''}"))
        if key.n >= self._issued.get((key.sender, key.to), 0):
            self._breach(Promise.TO_ADDRESSEE, at, f"{device} got what nobody sent", key=key)
            return
        if key.to != device.user:
            self._breach(Promise.TO_ADDRESSEE, at, f"{device} got it", message, key=key)
            return
        if message is not None:
            message.copies.append(copy)
        stream = device.streams.setdefault(key.sender, Stream())
        bits = stream.get(key.n)
        if bits & Stream.SEEN:
            self._double(copy, bits, message)
        else:
            self._first(copy, stream, message)
        stream.put(key.n, Stream.SEEN if marked else Stream.SEEN | Stream.UNMARKED)

    def _first(self, copy: Copy, stream: Stream, message: Message | None) -> None:
        key, at, device = copy.key, copy.at, copy.device
        if message is not None:
            self._heard.append(Heard(at, device.user, message.sent_at))
        if key.n > stream.top:
            self._pass_over(copy, stream)
            stream.top = key.n
            return
        stream.passed.pop(key.n, None)
        self._row(message).reordered += 1
        words = f"{device} got it behind #{stream.top}"
        self._suspect(Promise.IN_ORDER, at, words, message, key=key)
        if not copy.marked and (message is None or message.is_sent_again(at, self.windows)):
            self._breach(Promise.AGAIN_MARKED, at, f"{words}, unmarked", message, key=key)
        elif copy.marked and key.n < stream.late:
            words = f"{words}, and behind #{stream.late}, which was late too"
            self._breach(Promise.AGAIN_MARKED, at, words, message, key=key)
        if copy.marked:
            stream.late = max(stream.late, key.n)

    def _pass_over(self, copy: Copy, stream: Stream) -> None:
        """Those before this one have not come to this device; they may still."""
        around = [(copy.device, list(copy.device.lately))]
        for n in range(max(stream.top + 1, copy.key.n - MOST_PASSED), copy.key.n):
            stream.passed[n] = (copy.at, copy.device.unbroken_since)
            message = self._messages.get(copy.key._replace(n=n))
            if message is not None:
                message.around = around
        while len(stream.passed) > MOST_PASSED:
            del stream.passed[next(iter(stream.passed))]

    def _double(self, copy: Copy, bits: int, message: Message | None) -> None:
        key, at, device = copy.key, copy.at, copy.device
        row = self._row(message)
        row.doubled += 1
        if not copy.marked and bits & Stream.UNMARKED:
            row.unmarked += 1
            self._breach(Promise.MARKED, at, f"{device} got a second copy unmarked", message, key=key)
        elif message is not None and any(is_known(one, copy) for one in message.copies[:-1]):
            self._suspect(Promise.ONCE_IN_CALM, at, f"{device} got another copy", message)

    def acknowledged(self, device: Device, at: float, seq: str | None = None) -> None:
        """A client is about to acknowledge what came in its session, up to `seq`; None: all of it.

        Or it is about to resume from there, which says the same of the last session.
        """
        copies = device.copies
        end = len(copies)
        if seq is not None:
            end = max((i + 1 for i, copy in enumerate(copies) if copy.seq == seq), default=0)
        if end:
            device.lately.append((at, f"acknowledged up to {copies[end - 1].seq}"))
        for copy in copies[:end]:
            copy.acknowledged_at = at
            if device.library:
                stream = device.streams.get(copy.key.sender)
                if stream is not None and not stream.get(copy.key.n) & Stream.TAKEN:
                    words = f"{device} acknowledged it"
                    self._breach(Promise.TAKEN, at, words, self._messages.get(copy.key), key=copy.key)
        del copies[:end]

    def took(self, device: Device, at: float, key: Key) -> None:
        """The application of a library client was given a message."""
        message = self._messages.get(key)
        stream = device.streams.setdefault(key.sender, Stream())
        if message is not None:
            message.taken.append((at, device))
        if stream.get(key.n) & Stream.TAKEN:
            self._row(message).doubled_to_application += 1
            words = f"the application of {device} got it twice"
            self._breach(Promise.ONCE_TO_APPLICATION, at, words, message, key=key)
        elif key.n < stream.taken_top:
            words = f"the application of {device} got it behind #{stream.taken_top}"
            self._suspect(Promise.IN_ORDER, at, words, message, key=key)
        stream.put(key.n, Stream.TAKEN)
        stream.taken_top = max(stream.taken_top, key.n)

    def strange(self, device: Device, at: float, words: str) -> None:
        """A frame brought something that no client of the crowd sends."""
        self._breach(Promise.AS_DOCUMENTED, at, f"{device} got {words}")

    # --- judging

    def take_stock(self, now: float) -> None:
        """To be called before Redis is made to forget: what should have come by now cannot be in there."""
        since = now - AFTERSHOCK_S
        if not self.windows.calm(since, now):
            return
        for message in self._messages.values():
            devices = self._devices.get(message.key.to, ())
            there = any(device.session is not None and device.session.at < since for device in devices)
            owed = message.owed and message.reached_at == math.inf and message.answers[0].at < since
            message.due_here |= there and owed and not forgotten(message, self.windows)

    def waits_since(self, before: float) -> int:
        """How many of those that were sent before a time wait for an answer."""
        return sum(
            not message.answers and message.abandoned == math.inf and message.sent_at < before
            for message in self._messages.values()
        )

    @property
    def missing(self) -> int:
        """How many messages are owed to their recipients."""
        return sum(
            message.owed and message.reached_at == math.inf and not forgotten(message, self.windows)
            for message in self._messages.values()
        )

    def judge(self, now: float, *, final: bool = False) -> None:
        """Decides what can be decided.

        Args:
            now: the time.
            final: all is over: what has not become of a message now, never will.
        """
        if self.windows.open and not final:
            return
        for suspicion in self._suspicions:
            if self.windows.calm(suspicion.since, suspicion.breach.at):
                self._keep(suspicion.breach, suspicion.message, suspicion.around)
        self._suspicions.clear()
        done = []
        for message in self._messages.values():
            if not final and now - message.sent_at < KEEP_S:
                break  # they are in the order in which they were sent
            self._judge_answer(message, now, final=final)
            if final or (message.settled and now - message.last_at >= KEEP_S):
                self._judge_fate(message, now)
                done.append(message.key)
        for key in done:
            del self._messages[key]

    def _judge_answer(self, message: Message, now: float, *, final: bool) -> None:
        at = answered_late(message, self.windows, self._terms, ended=final)
        if at is not None and not message.overdue:
            message.overdue = True
            took = "no answer" if at == math.inf else f"answered after {at - message.sent_at:.1f} s"
            self._breach(Promise.ANSWERED, min(at, now), took, message)

    def _judge_fate(self, message: Message, now: float) -> None:
        if not message.owed:
            return
        row = self.rows[message.row]
        if message.reached_at == math.inf:
            if forgotten(message, self.windows):
                row.forgotten += 1
            else:
                row.lost += 1
                words = f"{message.status}, and never seen"
                self._breach(Promise.KEPT, now, words, message, around=message.around)
        for device, at in passed_over(message, self._devices.get(message.key.to, ()), self.windows):
            words = f"{device} got later ones at {at - self.origin:.3f} s, and never this one"
            self._breach(Promise.NOT_PASSED_OVER, at, words, message, around=message.around)

    # --- telling

    def _row(self, message: Message | None) -> Row:
        return self.rows[-1 if message is None else message.row]

    def _suspect(
        self, promise: Promise, at: float, words: str, message: Message | None, *, key: Key | None = None
    ) -> None:
        since = at - KEEP_S if message is None else message.sent_at
        breach = Breach(promise, at, words, message.key if message else key)
        self._suspicions.append(Suspicion(breach, since, message, self._around(breach)))

    def _breach(
        self,
        promise: Promise,
        at: float,
        words: str,
        message: Message | None = None,
        *,
        key: Key | None = None,
        around: Around | None = None,
    ) -> None:
        breach = Breach(promise, at, words, message.key if message else key)
        self._keep(breach, message, around or self._around(breach))

    def _keep(self, breach: Breach, message: Message | None, around: Around) -> None:
        self.breached[breach.promise] = self.breached.get(breach.promise, 0) + 1
        self._row(message).breaches += 1
        if len(self._told) < MOST_STORIES:
            self._told.append((breach, message, around))

    def breaches(self) -> list[Breach]:
        """The first of all breaches, each with the whole story of its message until now."""
        return [
            replace(breach, story=story(message, around, self.windows, self.origin))
            for breach, message, around in self._told
        ]

    def _around(self, breach: Breach) -> Around:
        """What happened at the recipient's devices until now."""
        devices = self._devices.get(breach.key.to, ()) if breach.key else ()
        return [(device, list(device.lately)) for device in devices]
