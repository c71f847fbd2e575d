"""A mailbox under random histories, against what its users may rely on."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ring.mailbox import mailbox
from ring.mailbox.mailbox import FATES_S
from ring.protocol.codes import CloseCode
from ring.protocol.peer import Seq
from tests.mailbox.office import EPOCH, Office, Seat

WINDOW, HISTORY = 4, 12  # small, so that they are met


@dataclass
class Sent:
    """A tracked message that was accepted."""

    id: str
    number: int
    origin: str
    at: float
    failed: bool = False


@dataclass
class Sitting:
    """A session, since when it has been there, and where its gateway is."""

    seat: Seat
    device: str
    after: Seq
    handle: int
    away: bool = False


class Mailbox(RuleBasedStateMachine):
    """Bob's sessions on another node come, go, resume and acknowledge; alice and bob himself send."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(mailbox, "WINDOW_LETTERS", WINDOW)
        self.patch.setattr(mailbox, "HISTORY_LETTERS", HISTORY)
        self.office = Office()
        self.sent: list[Sent] = []
        self.refused: list[str] = []
        self.sitting: list[Sitting] = []
        self.cursors: list[Seq] = [(EPOCH, 0)]
        self.seen: set[str | None] = set()  # by sessions that are gone
        self.told = 0
        self.handle = 0
        self.untracked = 0

    def teardown(self) -> None:
        if hasattr(self, "office"):
            self.finish()
            self.patch.undo()

    # --- what may happen

    @rule(count=st.integers(1, 6), own=st.booleans(), choice=st.integers(0, 9))
    def send(self, count: int, own: bool, choice: int) -> None:
        """Messages come, from alice or from one of bob's sessions."""
        origin = self.sitting[choice % len(self.sitting)].seat.name if own and self.sitting else ""
        for _ in range(count):
            name = f"m{len(self.sent) + len(self.refused)}"
            self.office.send(name, sender="bob" if origin else "alice", origin=origin)
            if self.office.told(name):
                self.refused.append(name)
                self.told += 1
            else:
                self.sent.append(Sent(name, self.office.box().number, origin, self.office.clock.now))

    @rule()
    def send_untracked(self) -> None:
        """A message that nobody will be told about."""
        self.untracked += 1
        self.office.send(f"u{self.untracked}", tracked=False)

    @precondition(lambda self: self.sent)
    @rule(choice=st.integers(0, 99))
    def send_again(self, choice: int) -> None:
        """A message that was accepted already is sent again: nobody gets it twice for that."""
        letters = (
            {letter.id for letter in self.office.box().letters} if self.office.mailboxes.boxes else set()
        )
        known = [sent for sent in self.sent if sent.id in letters]
        if known:
            sent = known[choice % len(known)]
            told = len(self.office.told(sent.id))
            ref = next(ref for ref, name in self.office._ids.items() if name == sent.id)
            sender = "bob" if sent.origin else "alice"
            self.office.send(sent.id, sender=sender, ref=ref, again=True, origin=sent.origin)
            self.told += len(self.office.told(sent.id)) - told

    @rule(device=st.sampled_from("abc"))
    def attach(self, device: str) -> None:
        """A client that remembers nothing."""
        self._sit(device, None)

    @rule(device=st.sampled_from("abc"), choice=st.integers(0, 99))
    def resume(self, device: str, choice: int) -> None:
        """A client that remembers some sequence."""
        epoch, number = self.cursors[choice % len(self.cursors)]
        sitting = self._sit(device, f"{epoch}-{number}")
        if sitting.seat.resumed is True:
            sitting.after = (epoch, number)

    def _sit(self, device: str, resume: str | None) -> Sitting:
        self.handle += 1
        seat = self.office.attach(
            device, gateway="g", handle=self.handle, since_ms=self.handle, resume=resume
        )
        for other in [one for one in self.sitting if one.device == device]:
            assert other.away or other.seat.closed == CloseCode.REPLACED
            self._gone(other)
        number = self.office.box().number
        sitting = Sitting(seat, device, (EPOCH, number), self.handle)
        self.sitting.append(sitting)
        return sitting

    @precondition(lambda self: self.sitting)
    @rule(choice=st.integers(0, 99), part=st.floats(0, 1))
    def ack(self, choice: int, part: float) -> None:
        """A session acknowledges a part of what it was sent."""
        one = self.sitting[choice % len(self.sitting)]
        if one.seat.got and not one.away:
            one.seat.ack(one.seat.got[round(part * (len(one.seat.got) - 1))][0])

    @precondition(lambda self: self.sitting)
    @rule(choice=st.integers(0, 99), clean=st.booleans())
    def leave(self, choice: int, clean: bool) -> None:
        """A session ends."""
        one = self.sitting[choice % len(self.sitting)]
        self.office.mailboxes.detach_remote("g", one.handle, clean=clean)
        self._gone(one)

    @precondition(lambda self: any(not one.away for one in self.sitting))
    @rule()
    def cut(self) -> None:
        """The link to the gateway breaks."""
        self.away_s = 0.0
        self.office.mailboxes.suspend("g")
        for one in self.sitting:
            one.away = True

    @precondition(lambda self: any(one.away for one in self.sitting))
    @rule()
    def mend(self) -> None:
        """It is there again: the gateway names its sessions, which go on where they were."""
        for one in tuple(self.sitting):
            before = one.seat
            if not one.away:
                continue
            assert before.attachment is not None
            if before.attachment.position < self.office.box().base:
                # It has slept so long that what it would need next is forgotten, and it was to be closed for
                # that with the next letter. Attached again it only looks like one that has had everything.
                self._gone(one)
                continue
            self.handle += 1
            sent = before.last if before.got else (before.start or (EPOCH, 0))
            again = self.office.attach(
                one.device, session=before.name, gateway="g", handle=self.handle, since_ms=one.handle,
                sent=sent, acked=(EPOCH, 0), start=False,
            )  # as a table # fmt: skip
            again.got, again.resumed, again.start = before.got, before.resumed, before.start
            one.seat, one.handle, one.away = again, self.handle, False
            assert again.attachment is not None
            self.office.mailboxes.start(again.attachment)
        self.office.mailboxes.reconciled("g")

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.1, 61.0]))
    def time_passes(self, seconds: float) -> None:
        """Time-outs come. (No link is down as long as fates are remembered: its sessions are sent away.)"""
        if any(one.away for one in self.sitting):
            seconds = min(seconds, 2.1)
            self.away_s += seconds
            if self.away_s > FATES_S / 2:
                self.mend()
        self.office.pass_time(seconds)

    def _gone(self, one: Sitting) -> None:
        self.sitting.remove(one)
        self.seen.update(one.seat.ids)
        if one.seat.got:
            self.cursors.append(one.seat.last)

    # --- what must hold

    @invariant()
    def fates_are_true(self) -> None:
        """Whoever is told `delivered` sent a message that some session of bob's was sent, and not its own."""
        if not hasattr(self, "office"):
            return
        for one in [one for one in self.sitting if one.seat.closed is not None]:
            assert one.seat.closed == CloseCode.SLOW_CONSUMER
            last = (one.seat.last if one.seat.got else one.after)[1]
            behind = [sent for sent in self.sent if sent.number > last]
            assert len(behind) > HISTORY or self.office.clock.now - behind[0].at > FATES_S
            self._gone(one)
        new, self.told = self.office.fates[self.told :], len(self.office.fates)
        for name, status, _, _ in new:
            [sent] = [sent for sent in self.sent if sent.id == name]
            if status == "failed":
                sent.failed = True
            else:
                assert name in self.seen.union(*(one.seat.ids for one in self.sitting)), "nobody had it"

    @invariant()
    def nobody_gets_his_own(self) -> None:
        """No session is sent what it sent; none is sent anything twice or out of order (see `Seat`)."""
        own = {sent.id: sent.origin for sent in getattr(self, "sent", ())}
        for one in getattr(self, "sitting", ()):
            assert all(own.get(name or "") != one.seat.name for name in one.seat.ids)
            assert len(one.seat.ids) == len(set(one.seat.ids))

    @invariant()
    def sums_are_right(self) -> None:
        """What a mailbox counts as it goes is what counting shows."""
        if not hasattr(self, "office"):
            return
        for box in self.office.mailboxes.boxes.values():
            open_ones = [letter for letter in box.letters if letter.status is None]
            assert box.unsettled() == open_ones
            assert box.unsettled_bytes == sum(letter.size for letter in open_ones)
            kept = box.letters[box.kept - box.base :]
            assert box.kept_bytes == sum(letter.size for letter in kept)
            assert all(letter.body is not None for letter in kept)
            assert box.kept <= box.first_unsettled <= box.end
            for attachment in box.attachments:
                assert attachment.acked <= attachment.position <= box.end

    def finish(self) -> None:
        """All who are there acknowledge all that comes: each has had everything, and all fates are told."""
        self.fates_are_true()
        if any(one.away for one in self.sitting):
            self.mend()
        self.fates_are_true()
        for _ in range(len(self.sent) + 1):
            for one in tuple(self.sitting):
                if one.seat.got:
                    one.seat.ack()
            self.fates_are_true()
        for one in self.sitting:
            due = [
                sent.id
                for sent in self.sent
                if (EPOCH, sent.number) > one.after and sent.origin != one.seat.name and not sent.failed
            ]
            got = {name: seq for seq, message, _ in one.seat.got if (name := message.id) is not None}
            missing = [name for name in due if name not in got]
            assert not missing
            in_order = [name for name in got if name in set(due)]
            assert in_order == due
        self.office.pass_time(3)
        self.fates_are_true()
        first = [name for name, _, _, _ in self.office.fates]
        assert set(first) == {sent.id for sent in self.sent} | set(self.refused)


TestMailbox = Mailbox.TestCase
TestMailbox.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
