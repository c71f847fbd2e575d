"""What happens while letters are on their way to the store, or after: acknowledgements, repeats, outages."""

import pytest

from ring.mailbox import keeping
from ring.mailbox.spill import PATIENCE_S
from ring.mailbox.vault import Push, Remove
from ring.protocol.codes import ErrorCode
from tests.mailbox.office import EPOCH, silent, stored_office


class TestMeanwhile:
    """What happens while a push is under way."""

    def test_an_acknowledgement(self) -> None:
        """`delivered` is what the sender hears, and the store forgets it again."""
        office, seat = silent("m1", "m2")
        office.pass_time(2.1)
        batch = office.asked.take()
        seat.ack((EPOCH, 1))
        office.do(batch)
        assert office.fates == [("m1", "delivered", "client", None), ("m2", "queued", None, None)]
        office.carry()
        assert office.kept() == ["m2"]

    def test_an_acknowledgement_before_it_goes(self) -> None:
        """Then it need not go at all."""
        office, seat = silent("m1", "m2")
        office.pass_time(2.1)
        seat.ack((EPOCH, 1))
        [push] = office.carry()
        assert isinstance(push, Push)
        assert [letter.number for letter in push.letters] == [2]
        office.pass_time(0.1)
        seat.ack()
        assert office.carry() == [Remove("bob", office.bobs_slot, [(EPOCH, 2)])]

    def test_all_are_acknowledged_before_they_go(self) -> None:
        """Nothing is asked for."""
        office, seat = silent("m1", "m2")
        office.pass_time(2.1)
        seat.ack()
        assert office.carry() == []

    def test_a_lost_answer(self) -> None:
        """It is pushed again, is there already, and is queued once."""
        office, _ = silent("m1", "m2")
        office.pass_time(2.1)
        office.carry_unheard()
        office.send("m3")
        office.pass_time(2.1)
        office.carry()
        assert office.kept() == ["m1", "m2", "m3"]
        assert [fate[:2] for fate in office.fates] == [("m1", "queued"), ("m2", "queued"), ("m3", "queued")]
        assert office.asked.stored == 1, "the others were there"

    def test_an_acknowledgement_after_a_lost_answer(self) -> None:
        """The store may have it: it is told to forget."""
        office, seat = silent("m1", "m2")
        office.pass_time(2.1)
        office.carry_unheard()
        seat.ack((EPOCH, 1))
        office.carry()
        assert office.kept() == ["m2"]
        assert office.told("m1") == [("n1", "delivered", None)]

    def test_a_session_that_comes_and_acknowledges(self) -> None:
        """It was stored by then: it is delivered, and gone from the store."""
        office = stored_office()
        office.send("m1")
        office.pass_time(0.1)
        batch = office.asked.take()
        seat = office.attach()
        office.do(batch)
        office.carry()
        assert (seat.ids, seat.marked) == (["m1"], [])
        seat.ack()
        office.carry()
        assert office.kept() == []
        assert office.told("m1") == [("n1", "queued", None)]


class TestAgain:
    """Messages that are sent again after they were stored."""

    def test_they_are_answered_and_not_stored_twice(self) -> None:
        """Also when the owner's memory has let them go; untracked repeats are dropped."""
        office = stored_office()
        office.send("m1")
        office.spend(0.3)
        assert office.mailboxes.boxes == {}
        office.send("m1", again=True, gateway="g2")
        office.send("m1", again=True, tracked=False)
        assert office.told("m1") == [("n1", "queued", None), ("g2", "queued", None)]
        office.spend(1)
        assert (office.kept(), office.mailboxes.boxes) == (["m1"], {})
        office.send("m1", again=True, sender="carol")
        office.spend(1)
        assert office.kept() == ["m1", "m1"], "another sender's is another message"

    def test_in_memory_they_are_answered_too(self) -> None:
        """The session has not acknowledged it yet."""
        office, seat = silent("m1")
        office.spend(2.1)
        office.send("m1", again=True, gateway="g2")
        assert office.told("m1")[1:] == [("g2", "queued", None)]
        assert seat.ids == ["m1"]

    def test_while_it_is_pushed_one_more_waits(self) -> None:
        """Both are told."""
        office = stored_office()
        office.send("m1")
        office.pass_time(0.1)
        batch = office.asked.take()
        office.send("m1", again=True, gateway="g2")
        office.do(batch)
        assert office.told("m1") == [("n1", "queued", None), ("g2", "queued", None)]

    def test_after_a_minute_it_is_forgotten(self) -> None:
        """No sender tries for so long."""
        office = stored_office()
        office.send("m1")
        office.spend(0.3)
        office.pass_time(61)
        office.send("m2")
        office.spend(0.3)
        assert not office.mailboxes.is_queued("bob", "alice", "m1")
        assert office.mailboxes.is_queued("bob", "alice", "m2")

    def test_they_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The oldest are forgotten first."""
        monkeypatch.setattr(keeping, "QUEUED_FATES", 3)
        office = stored_office()
        for index in range(5):
            office.send(f"m{index}", to=f"user{index}")
            office.spend(0.2)
        known = [office.mailboxes.is_queued(f"user{index}", "alice", f"m{index}") for index in range(5)]
        assert known == [False, False, True, True, True]


class TestRedisAway:
    """A store that does not answer."""

    def test_letters_fail_after_a_while(self) -> None:
        """Sooner than their senders give up waiting; what was there before it went stays."""
        office = stored_office()
        office.send("m1")
        office.be_away(PATIENCE_S - 0.2)
        assert office.fates == []
        office.be_away(0.5)
        assert office.code("m1") is ErrorCode.STORE_UNAVAILABLE
        assert sum(office.asked.failed.values()) == 1
        office.spend(70)
        assert office.mailboxes.boxes == {}

    def test_what_it_may_have_after_all_comes_to_nobody(self) -> None:
        """The answer was lost and the letter given up: its sender may send it anew."""
        office = stored_office()
        office.send("m1")
        office.pass_time(0.1)
        office.carry_unheard()
        office.be_away(PATIENCE_S + 0.2)
        assert office.code("m1") is ErrorCode.STORE_UNAVAILABLE
        assert office.kept() == ["m1"]
        office.pass_time(70)
        assert office.mailboxes.boxes == {}
        office.carry()
        assert office.kept() == []

    def test_removals_wait_until_they_are_done(self) -> None:
        """However long it takes."""
        office, seat = silent("m1")
        office.spend(2.1)
        seat.ack()
        office.be_away(10)
        office.carry_unheard()
        assert office.asked.waiting == 1
        office.carry()
        assert (office.kept(), office.asked.waiting) == ([], 0)
