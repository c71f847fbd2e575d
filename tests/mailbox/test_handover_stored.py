"""Mailboxes that change owner while the store keeps some of their letters, or is about to."""

import pytest

from ring.mailbox import handover
from ring.mailbox.handover import pack, put_behind, take
from ring.mailbox.vault import Push, Read, Remove
from ring.protocol.codes import ErrorCode
from ring.protocol.peer import Attach
from tests.mailbox.moving import LATER, SLOT, follow, gaining, hand_over, moved, wired
from tests.mailbox.office import EPOCH, Office, Seat, stored_office


def stored(count: int, **options: int) -> tuple[Office, Seat]:
    """A client that has been sent so many, and acknowledges nothing: the store has them."""
    office = stored_office(**options)
    seat = office.attach()
    office.carry()
    for index in range(count):
        office.send(f"m{index}", gateway="g")
    office.spend(2.1)
    assert len(office.kept()) == count
    return office, seat


class TestHome:
    """Letters that the store has, handed over."""

    def test_they_go_on_where_they_were(self) -> None:
        """The session is not sent them again; its acknowledgement takes them out; nobody is told twice."""
        old, seat = stored(3)
        new = gaining(old)
        items = hand_over(old, new)
        assert [letter.home for item in items for letter in item.letters] == [
            (EPOCH, 1),
            (EPOCH, 2),
            (EPOCH, 3),
        ]
        new.mailboxes.serve([SLOT])
        back = follow(seat, new)
        new.send("new")
        new.carry()
        assert back.ids == ["new"]
        back.ack((EPOCH, 2))
        new.carry()
        assert new.kept() == ["m2"]
        back.ack()
        new.carry()
        assert (new.kept(), new.fates) == ([], [("new", "delivered", "client", None)])

    def test_while_it_is_away(self) -> None:
        """An acknowledgement takes them out as soon as it is back."""
        old, seat = stored(3)
        new = gaining(old)
        hand_over(old, new)
        new.mailboxes.serve([SLOT])
        back = follow(seat, new)
        new.be_away(2.5)
        assert back.attachment is not None
        back.ack((EPOCH, 3))
        new.spend(1)
        assert (back.got, new.kept(), new.fates) == ([], [], [])

    def test_what_had_left_memory_is_read(self) -> None:
        """Behind what the session has had, before what is new."""
        old, seat = stored(300)
        assert len(seat.got) == len(old.box().letters) == 256
        new = gaining(old)
        hand_over(old, new)
        new.mailboxes.serve([SLOT])
        back = follow(seat, new)
        new.send("new")
        new.carry()
        while "new" not in back.ids:
            back.ack(None if back.got else (EPOCH, 256))
            new.carry()
        assert back.ids == [*(f"m{index}" for index in range(256, 300)), "new"]
        back.ack()
        new.carry()
        assert new.kept() == []

    def test_pages_of_what_is_here_already(self) -> None:
        """Each is looked through before a session comes; then it goes on where it was."""
        old, seat = stored(5, page_letters=2)
        new = gaining(old)
        hand_over(old, new)
        new.mailboxes.serve([SLOT])
        back = follow(seat, new)
        reads = [job for job in new.carry() if isinstance(job, Read)]
        assert [job.after for job in reads] == [None, (EPOCH, 2), (EPOCH, 4)]
        assert (back.attachment is not None, back.got) == (True, [])
        back.ack((EPOCH, 5))
        new.carry()
        assert new.kept() == []

    def test_while_others_may_still_hand_over_nothing_is_stored(self) -> None:
        """Their letters are older, and would come too late."""
        old, _ = stored(0)
        new = gaining(old)
        new.send("m1", routed=LATER)
        new.send("x1", to="bert")
        new.spend(0.2)
        assert new.spend(5) == []
        old.send("m0")
        hand_over(old, new)
        new.mailboxes.serve([SLOT])
        new.spend(5)
        assert new.kept() == ["m0", "m1"]

    def test_if_nobody_hands_anything_over_it_is_stored_then(self) -> None:
        """As soon as the slot is served."""
        new = gaining(stored_office())
        new.send("m1", routed=LATER)
        assert new.spend(5) == []
        new.mailboxes.serve([SLOT])
        new.spend(0.3)
        assert new.kept() == ["m1"]

    def test_fates_without_their_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Behind a letter that is read they would send a session away: they are dropped."""
        monkeypatch.setattr(handover, "HISTORY_BYTES", 0)
        old = stored_office()
        mine = old.attach(session="mine")
        old.carry()
        old.send("own", sender="bob", origin="mine")
        old.spend(2.1)
        for index in range(5):
            old.send(f"m{index}")
            mine.ack()
        new = gaining(old)
        [item] = hand_over(old, new)
        assert [letter.body for letter in item.letters] == [None] * 6
        new.mailboxes.serve([SLOT])
        laptop = new.attach("laptop")
        new.carry()
        new.send("new")
        assert (laptop.closed, laptop.ids) == (None, ["own", "new"])

    def test_without_a_session_nothing_need_go(self) -> None:
        """The store has it all, and the next owner reads it."""
        old, seat = stored(3)
        seat.leave(clean=True)
        old.spend(1)
        new = moved(old) if "bob" in old.mailboxes.boxes else gaining(old)
        new.mailboxes.serve([SLOT])
        back = new.attach()
        new.carry()
        assert back.ids == back.marked == ["m0", "m1", "m2"]

    def test_a_page_that_comes_before_the_mailbox(self) -> None:
        """It is looked at when all that is handed over is there: then it is read again."""
        old, _ = stored(2)
        new = gaining(old)
        new.send("m2", routed=LATER)
        early = new.attach("laptop")
        new.carry()
        assert early.attachment is None
        hand_over(old, new)
        new.mailboxes.serve([SLOT])
        new.carry()
        assert early.ids == ["m0", "m1", "m2"]

    def test_its_time_goes_on(self) -> None:
        """A letter with a ttl expires when it would have, stored or not."""
        old = stored_office()
        seat = old.attach()
        old.carry()
        old.send("m1", ttl_ms=1500)
        old.send("m2", ttl_ms=60_000)
        old.pass_time(1)
        new = gaining(old)
        hand_over(old, new)
        new.mailboxes.serve([SLOT])
        follow(seat, new)
        new.spend(0.7)
        assert new.code("m1") is ErrorCode.EXPIRED
        new.spend(1.6)
        assert new.store is not None
        [kept] = new.store.box(SLOT, "bob").kept
        assert 55_000 < kept.letter.ttl_ms < 58_000


class TestPushing:
    """Letters that are on their way to the store when the slot goes."""

    def pushing(self) -> tuple[Office, Office]:
        old = stored_office()
        old.send("m1", gateway="g")
        old.pass_time(0.1)
        return old, gaining(old)

    def test_stored_before_the_new_owner_reads(self) -> None:
        """It is told once by each, and both say the same; it comes once."""
        old, new = self.pushing()
        batch = old.asked.take()
        hand_over(old, new)
        old.do(batch)
        assert old.told("m1") == [("g", "queued", None)]
        new.mailboxes.serve([SLOT])
        seat = new.attach()
        new.carry()
        assert (seat.ids, new.told("m1")) == (["m1"], [("g", "queued", None)])
        seat.ack()
        new.carry()
        assert new.kept() == []

    def test_fenced_by_the_new_owner(self) -> None:
        """The old one says nothing: the letter is the new one's, which stores it."""
        old, new = self.pushing()
        batch = old.asked.take()
        hand_over(old, new)
        new.mailboxes.serve([SLOT])
        seat = new.attach()
        new.carry()
        old.do(batch)
        assert (old.fates, old.fenced, new.kept()) == ([], 1, [])
        assert seat.ids == ["m1"]
        new.spend(2.5)
        assert (new.told("m1"), new.kept()) == ([("g", "queued", None)], ["m1"])

    def test_not_sent_yet(self) -> None:
        """Then it need not go: by the new epoch it would be stored behind the new owner's back."""
        old, new = self.pushing()
        hand_over(old, new)
        old.mailboxes.moved(LATER, set(), [SLOT])
        old.mailboxes.handed_over([SLOT])
        new.mailboxes.serve([SLOT])
        seat = new.attach()
        new.carry()
        assert old.carry() == []
        seat.ack()
        new.carry()
        assert (new.kept(), new.told("m1")) == ([], [("g", "delivered", None)])

    def test_stored_by_the_old_owner_and_failed_at_the_new_one(self) -> None:
        """The old one said that it is queued: so it comes, though the new one could not store it."""
        old, _ = stored(0)
        old.send("m1", gateway="g")
        old.pass_time(2.05)
        batch = old.carry_unheard()
        new = gaining(old)
        hand_over(old, new)
        new.mailboxes.serve([SLOT])
        new.do(new.asked.take())
        new.be_away(5)
        seat = new.attach()
        new.be_away(3)
        new.spend(3)
        assert batch
        assert seat.ids == ["m1"]

    def test_failed_at_the_old_owner(self) -> None:
        """That is not its to say any more."""
        old, new = self.pushing()
        batch = old.asked.take()
        hand_over(old, new)
        old.asked.settle(batch, [["full"]])
        assert old.fates == []

    def test_the_old_owner_uses_its_own_epoch_as_long_as_it_has_the_mailbox(self) -> None:
        """It has entered the next ring, and waits for the others before it hands over."""
        old, new = self.pushing()
        old.mailboxes.moved(LATER, set(), [SLOT])
        [push] = old.asked.take().jobs
        assert isinstance(push, Push)
        assert push.epoch == EPOCH
        assert new.mailboxes.epoch_of(SLOT) == LATER


class TestLate:
    """The new owner serves already."""

    def test_what_the_store_has_comes_from_there(self) -> None:
        """Of the rest, each letter once: by sender and id."""
        old, _ = stored(2)
        old.send("m2", gateway="g")
        items = wired(pack(old.box(), old.clock.now))
        new = gaining(old)
        new.mailboxes.serve([SLOT])
        seat = new.attach("tablet")
        new.carry()
        assert seat.ids == ["m0", "m1"]
        for item in items:
            take(new.mailboxes, item, new.clock.now)
        assert seat.ids == ["m0", "m1", "m2"]
        seat.ack()
        new.carry()
        assert (new.kept(), new.told("m2")) == ([], [("g", "delivered", None)])

    def test_before_the_page_that_has_it(self) -> None:
        """Stored, and its receipt not told: what is read stands for both."""
        old = stored_office()
        old.send("m1", gateway="g")
        old.pass_time(0.1)
        items = wired(pack(old.box(), old.clock.now))
        old.carry_unheard()
        new = gaining(old)
        new.mailboxes.serve([SLOT])
        seat = new.attach()
        for item in items:
            take(new.mailboxes, item, new.clock.now)
        new.carry()
        assert (seat.ids, new.told("m1")) == (["m1"], [("g", "queued", None)])
        seat.ack()
        new.carry()
        assert new.kept() == []


class TestBehind:
    """Letters that a session missed, numbered before what it has had since."""

    def come(self, office: Office) -> Seat:
        """It has had (LATER, 5), and of this owner's letters none."""
        attach = Attach(1, "bob", "d", "s", "x", 0, (LATER, 5), (LATER, 5), "client", None, [])
        put_behind(office.mailboxes, attach)
        seat = Seat(office, "s")
        attached = office.mailboxes.attach(attach, "n1", "n1/1", seat)
        assert attached is not None
        seat.attachment, _ = attached
        office.mailboxes.start(seat.attachment)
        return seat

    def regained(self) -> Office:
        """An owner again, which took two letters in its earlier tenure."""
        office = stored_office()
        office.mailboxes._moved_until[SLOT] = office.clock.now + 9
        office.send("m1", gateway="g")
        office.send("m2", gateway="g")
        return office

    def serve(self, office: Office) -> None:
        office.mailboxes.moved(LATER + 1, {SLOT}, ())
        office.mailboxes.serve([SLOT])

    def test_stored_ones(self) -> None:
        """They come behind under new numbers, and are taken out of the store under the old ones."""
        office = self.regained()
        office.attach("away")
        office.spend(2.5)
        assert office.kept() == ["m1", "m2"]
        self.serve(office)
        assert not office.mailboxes.ready("bob", lambda: None)
        office.carry()
        seat = self.come(office)
        assert [seq[0] for seq, _, _ in seat.got] == [LATER + 1] * 2
        assert seat.marked == ["m1", "m2"]
        seat.ack()
        office.carry()
        assert office.kept() == []
        assert office.fates == [("m1", "queued", None, None), ("m2", "queued", None, None)]

    @pytest.mark.parametrize("heard", [False, True])
    def test_ones_that_are_being_pushed(self, heard: bool) -> None:
        """What is stored under the old number is removed: the letter has another by now."""
        office = self.regained()
        self.serve(office)
        office.attach("away")
        office.carry()
        office.pass_time(2.5)
        batch = office.asked.take()
        assert [type(job) for job in batch.jobs] == [Push]
        if not heard:
            results = [office.do_job(job) for job in batch.jobs]
            office.asked.put_back(batch)
            assert results == [["stored", "stored"]]
        seat = self.come(office)
        if heard:
            office.do(batch)
        assert seat.ids == ["m1", "m2"]
        jobs = office.carry()
        assert [type(job) for job in jobs if not isinstance(job, Read)] == [Remove]
        assert office.kept() == []
        seat.ack()
        assert office.told("m1") == [("g", "delivered", None)]
