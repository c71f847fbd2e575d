"""Mailboxes over a store, under random histories, against what their users may rely on.

Bob's sessions come, go and acknowledge; alice and bob himself send; answers of the store are lost, it goes
away and comes back; the mailbox changes owner, with a handover and without.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ring.mailbox import mailbox
from ring.mailbox.spill import Batch
from ring.mailbox.vault import Result
from ring.protocol.codes import CloseCode
from tests.mailbox.moving import SLOT, hand_over
from tests.mailbox.office import EPOCH, Office, Seat, stored_office

WINDOW, HISTORY, PAGE = 4, 12, 5  # small, so that they are met


@dataclass
class Sent:
    """A message, and what its sender knows of it."""

    id: str
    origin: str
    refs: list[int] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)

    @property
    def sender(self) -> str:
        """Whose it is."""
        return "bob" if self.origin else "alice"


class Stored(RuleBasedStateMachine):
    """See the module."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(mailbox, "WINDOW_LETTERS", WINDOW)
        self.patch.setattr(mailbox, "HISTORY_LETTERS", HISTORY)
        self.office = stored_office(page_letters=PAGE)
        self.sent: dict[str, Sent] = {}
        self.seats: dict[str, Seat] = {}
        self.had: dict[str, set[str | None]] = {}  # message -> the sessions that were sent it
        self.told = 0
        self.sessions = 0
        self.disturbed = False  # order, and once to a session, are not promised across an outage or a crash
        self.epoch = EPOCH
        self.under_way: tuple[Batch, list[Result]] | None = None  # the store has done it, nobody knows yet

    def teardown(self) -> None:
        if hasattr(self, "office"):
            self.finish()
            self.patch.undo()

    # --- what may happen

    @rule(count=st.integers(1, 8), own=st.booleans())
    def send(self, count: int, own: bool) -> None:
        """Messages come, from alice or from one of bob's sessions."""
        here = [seat for seat in self.seats.values() if seat.attachment is not None]
        origin = here[0].name if own and here else ""
        for _ in range(count):
            one = Sent(f"m{len(self.sent)}", origin)
            self.sent[one.id] = one
            self._send(one, again=False)

    def _send(self, one: Sent, *, again: bool) -> None:
        one.refs.append(self.office.send(one.id, sender=one.sender, origin=one.origin, again=again))

    @precondition(lambda self: self.sent)
    @rule(choice=st.integers(0, 99), new=st.booleans())
    def send_again(self, choice: int, new: bool) -> None:
        """A gateway, or a client that came back, sends again what has no receipt."""
        waiting = [one for one in self.sent.values() if not one.fates]
        if not waiting:
            return
        one = waiting[choice % len(waiting)]
        if new:
            self._send(one, again=True)
        else:
            ref = one.refs[-1]
            self.office.send(one.id, sender=one.sender, ref=ref, again=True, origin=one.origin)

    @rule(device=st.sampled_from("ab"))
    def attach(self, device: str) -> None:
        """A client that remembers nothing."""
        self.sessions += 1
        seat = self.office.attach(device, session=f"s{self.sessions}", since_ms=self.sessions)
        other = self.seats.get(device)
        if other is not None and other.closed is None:
            other.leave(clean=False)  # if it still waits, so does the one that is to replace it
        self.seats[device] = seat

    @precondition(lambda self: self.seats)
    @rule(device=st.sampled_from("ab"), part=st.floats(0, 1))
    def ack(self, device: str, part: float) -> None:
        """A session acknowledges a part of what it was sent."""
        seat = self.seats.get(device)
        if seat is not None and seat.got:
            seat.ack(seat.got[round(part * (len(seat.got) - 1))][0])

    @precondition(lambda self: self.seats)
    @rule(device=st.sampled_from("ab"), clean=st.booleans())
    def leave(self, device: str, clean: bool) -> None:
        """A session ends."""
        seat = self.seats.pop(device, None)
        if seat is not None:
            seat.leave(clean=clean)

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.1, 61.0]), carried=st.booleans())
    def time_passes(self, seconds: float, carried: bool) -> None:
        """With a store that answers, or one that takes its time."""
        if carried:
            self.hear()
            self.office.spend(seconds)
        else:
            self.office.pass_time(min(seconds, 2.1))

    @rule()
    def carry(self) -> None:
        """The store does all that it is asked for."""
        self.hear()
        self.office.carry()

    @precondition(lambda self: self.under_way is None)
    @rule()
    def begin_a_batch(self) -> None:
        """The store does one batch; what happens before it is heard of happens meanwhile."""
        batch = self.office.asked.take()
        self.under_way = batch, [self.office.do_job(job) for job in batch.jobs]

    @rule()
    def hear(self) -> None:
        """The answer comes."""
        if self.under_way is not None:
            batch, results = self.under_way
            self.under_way = None
            self.office.asked.settle(batch, results)

    @precondition(lambda self: self.under_way is not None)
    @rule()
    def lose_an_answer(self) -> None:
        """It does not."""
        assert self.under_way is not None
        self.office.asked.put_back(self.under_way[0])
        self.under_way = None

    @rule(seconds=st.sampled_from([0.5, 1.9, 2.5, 5.0]))
    def outage(self, seconds: float) -> None:
        """The store is away."""
        self.disturbed = True
        if self.under_way is not None:
            self.lose_an_answer()
        self.office.be_away(seconds)

    @rule(handed=st.booleans(), linger=st.booleans())
    def change_owner(self, handed: bool, linger: bool) -> None:
        """All connections break, and the slot goes to another node: with what the mailbox had, or without."""
        self.fates_are_true()
        for seat in self.seats.values():
            seat.leave(clean=not linger)
        self.seats.clear()
        self.disturbed = True
        old = self.office
        self.epoch += 1
        new = Office(epoch=self.epoch - 1, clock=old.clock, node=f"n{self.epoch}", store=old.store)
        new._ids, new.fates, new._told = old._ids, old.fates, old._told
        old.mailboxes.moved(self.epoch, set(), [SLOT])
        new.mailboxes.moved(self.epoch, {SLOT}, ())
        if handed and "bob" in old.mailboxes.boxes:
            hand_over(old, new)
        old.mailboxes.handed_over([SLOT])
        if self.under_way is not None:
            if handed:
                self.hear()
            self.under_way = None
        new.mailboxes.serve([SLOT])
        self.office = new
        if handed:
            old.carry()  # what it had asked for before
        for one in self.sent.values():  # its gateway sends again what has no answer
            if not one.fates:
                self.office.send(one.id, sender=one.sender, ref=one.refs[-1], again=True, origin=one.origin)

    # --- what must hold

    @invariant()
    def fates_are_true(self) -> None:
        """`delivered` says that some session, and not the sender's own, was sent it."""
        if not hasattr(self, "office"):
            return
        for device, seat in tuple(self.seats.items()):
            for name in seat.ids:
                assert name is not None
                assert self.sent[name].origin != seat.name, "nobody gets his own"
                self.had.setdefault(name, set()).add(seat.name)
            if not self.disturbed:
                assert len(set(seat.ids)) == len(seat.ids), "twice to one session"
                order = [int(name[1:]) for name in seat.ids if name]
                assert order == sorted(order)
            if seat.closed is not None:
                assert seat.closed == CloseCode.SLOW_CONSUMER
                del self.seats[device]
        new, self.told = self.office.fates[self.told :], len(self.office.fates)
        for name, status, _, _ in new:
            self.sent[name].fates.append(status)
            if status == "delivered":
                assert self.had.get(name), "nobody had it"

    @invariant()
    def sums_are_right(self) -> None:
        """What a mailbox counts as it goes is what counting shows."""
        if not hasattr(self, "office"):
            return
        for box in self.office.mailboxes.boxes.values():
            unsettled = [one for one in box.letters if one.status is None or one.home is not None]
            assert box.unsettled() == unsettled
            assert box.unsettled_bytes == sum(letter.size for letter in unsettled)
            kept = box.letters[box.kept - box.base :]
            assert box.kept_bytes == sum(letter.size for letter in kept)
            assert all(letter.body is not None for letter in kept)
            assert box.gate >= box.base
            for attachment in box.attachments:
                assert attachment.acked <= attachment.position <= min(box.end, box.gate)
            numbers = [(letter.epoch, letter.number) for letter in box.letters]
            assert numbers == sorted(set(numbers))

    def finish(self) -> None:
        """The store is there; somebody comes who reads all: nothing that was promised is missing or left."""
        self.hear()
        self.fates_are_true()
        for seat in self.seats.values():
            seat.leave(clean=True)
        self.seats.clear()
        self.office.spend(5)
        self.attach("a")
        self.office.spend(1)
        self.fates_are_true()
        for _ in range(len(self.sent) + 3):
            if "a" not in self.seats:
                self.attach("a")
            seat = self.seats["a"]
            assert seat.attachment is not None
            if seat.got:
                seat.ack()
            self.office.spend(0.6)
            self.fates_are_true()
        self.office.spend(5)
        self.fates_are_true()
        for one in self.sent.values():
            assert one.fates, f"{one.id}: nobody was told"
            if one.fates[0] != "failed":
                assert self.had.get(one.id), f"{one.id} is lost"
        assert self.office.kept() == [], "it would come once more"
        for seat in self.seats.values():
            seat.leave(clean=True)
        self.office.spend(130)
        assert self.office.mailboxes.boxes == {}
        assert self.office.asked.waiting == 0


TestStored = Stored.TestCase
TestStored.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
