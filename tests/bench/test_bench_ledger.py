"""The accounts of a load: each way in which a message can go wrong, alone."""

import pytest

from ring.bench.ledger import FAULTS, DirectLedger, RoomLedger, Tally


def faults(tally: Tally) -> dict[str, int]:
    """What was found, by name."""
    return {name: getattr(tally, name) for name in FAULTS if getattr(tally, name)}


class TestDirect:
    def test_what_arrives_once(self) -> None:
        """Is delivered; its sender is told, so that the next can go, and how long it took is kept."""
        ledger = DirectLedger(100, receipts=False)
        assert ledger.send(1, 2, 1000) == 100
        assert ledger.send(3, 2, 1500) == 101
        assert ledger.open == 2
        assert ledger.arrive(101, 2, 1700) == 3
        assert ledger.arrive(100, 2, 1800) == 1
        assert ledger.open == 0
        assert list(ledger.one_way_ns) == [200, 800]
        assert (ledger.tally.sent, ledger.tally.delivered, faults(ledger.tally)) == (2, 2, {})

    def test_doubled(self) -> None:
        """The second time frees nobody to send more."""
        ledger = DirectLedger(0, receipts=False)
        ledger.send(1, 2, 0)
        assert ledger.arrive(0, 2, 1) == 1
        assert ledger.arrive(0, 2, 2) is None
        assert (ledger.tally.delivered, faults(ledger.tally)) == (1, {"doubled": 1})

    def test_misrouted(self) -> None:
        """What came to another one may still come to the right one."""
        ledger = DirectLedger(0, receipts=False)
        ledger.send(1, 2, 0)
        assert ledger.arrive(0, 3, 1) is None
        assert ledger.arrive(0, 2, 1) == 1
        assert faults(ledger.tally) == {"misrouted": 1}

    def test_reordered(self) -> None:
        """Per sender and recipient: between pairs there is no order."""
        ledger = DirectLedger(0, receipts=False)
        for sender, recipient in ((1, 2), (1, 3), (4, 2), (1, 2)):
            ledger.send(sender, recipient, 0)
        for number, recipient in ((2, 2), (3, 2), (1, 3)):
            ledger.arrive(number, recipient, 1)
        assert faults(ledger.tally) == {}
        ledger.arrive(0, 2, 1)
        assert faults(ledger.tally) == {"reordered": 1}

    @pytest.mark.parametrize("number", [-1, 4, 6])
    def test_strangers(self, number: int) -> None:
        """A number that was not sent: before the first, beyond the last, or none at all."""
        ledger = DirectLedger(5, receipts=True)
        ledger.send(1, 2, 0)
        assert ledger.arrive(number, 2, 1) is None
        assert ledger.answer(number, "", 1) is None
        assert faults(ledger.tally) == {"strangers": 2}

    def test_lost_and_late(self) -> None:
        """What is given up is lost, and frees its sender; if it comes after all, it was late."""
        ledger = DirectLedger(0, receipts=False)
        ledger.send(1, 2, 10)
        ledger.send(3, 2, 20)
        assert ledger.give_up(20) == [1]
        assert (ledger.tally.lost, ledger.open) == (1, 1)
        assert ledger.arrive(0, 3, 25) is None
        assert faults(ledger.tally) == {"lost": 1, "misrouted": 1}
        assert ledger.arrive(0, 2, 30) is None
        assert (ledger.tally.late, ledger.tally.delivered) == (1, 1)
        assert faults(ledger.tally) == {"misrouted": 1}
        assert ledger.arrive(0, 2, 31) is None
        assert faults(ledger.tally) == {"misrouted": 1, "doubled": 1}

    def test_receipts(self) -> None:
        """One each, timed; the sender waits for it, not for the delivery."""
        ledger = DirectLedger(0, receipts=True)
        ledger.send(1, 2, 10)
        assert ledger.arrive(0, 2, 20) == 1
        assert ledger.open == 1
        assert ledger.answer(0, "", 35) == 1
        assert (list(ledger.receipt_ns), ledger.open) == ([25], 0)
        assert ledger.answer(0, "", 40) is None
        assert faults(ledger.tally) == {"answered_twice": 1}

    def test_no_receipt(self) -> None:
        """Is given up, and frees the sender once."""
        ledger = DirectLedger(0, receipts=True)
        ledger.send(1, 2, 10)
        assert ledger.give_up(20) == [1]
        assert faults(ledger.tally) == {"lost": 1, "unanswered": 1}

    def test_refused(self) -> None:
        """A message that the server says has failed is not lost; if it comes, it is late, not doubled."""
        ledger = DirectLedger(0, receipts=True)
        ledger.send(1, 2, 10)
        assert ledger.answer(0, "offline", 20) == 1
        assert ledger.open == 0
        assert (faults(ledger.tally), dict(ledger.tally.errors)) == ({}, {"offline": 1})
        ledger.arrive(0, 2, 30)
        assert (faults(ledger.tally), ledger.tally.late) == ({}, 1)

    def test_refused_after_it_came(self) -> None:
        """Is an error, and nothing more."""
        ledger = DirectLedger(0, receipts=True)
        ledger.send(1, 2, 10)
        ledger.arrive(0, 2, 15)
        ledger.answer(0, "owner_unavailable", 20)
        assert (ledger.tally.delivered, ledger.tally.lost, sum(ledger.tally.errors.values())) == (1, 0, 1)


class TestRooms:
    def test_a_copy_for_each(self) -> None:
        """The publisher goes on when the last one is there."""
        ledger = RoomLedger(0, range(3))
        assert ledger.publish(7, 100) == 0
        assert [ledger.arrive(0, member, 100 + member) for member in (2, 0, 1)] == [None, None, 7]
        ledger.compare_orders()
        assert (ledger.tally.sent, ledger.tally.delivered, ledger.open) == (3, 3, 0)
        assert (list(ledger.one_way_ns), faults(ledger.tally)) == ([2, 0, 1], {})

    def test_faults(self) -> None:
        """Doubled while others wait and after; at one who is no member; never sent."""
        ledger = RoomLedger(0, range(2))
        ledger.publish(7, 0)
        for number, member in ((0, 0), (0, 0), (0, 1), (0, 1), (0, 5), (1, 0), (-1, 0)):
            ledger.arrive(number, member, 1)
        assert faults(ledger.tally) == {"doubled": 2, "misrouted": 1, "strangers": 2}

    def test_lost_and_late(self) -> None:
        """Copies are given up together, and may come one by one."""
        ledger = RoomLedger(0, range(3))
        ledger.publish(7, 0)
        ledger.publish(8, 50)
        ledger.arrive(0, 1, 1)
        assert ledger.give_up(50) == [7]
        assert (ledger.tally.lost, ledger.open) == (2, 1)
        assert ledger.arrive(0, 2, 60) is None
        assert (ledger.tally.lost, ledger.tally.late, ledger.tally.delivered) == (1, 1, 2)
        ledger.arrive(0, 2, 61)
        assert ledger.tally.doubled == 1

    @pytest.mark.parametrize(
        ("got", "reordered"),
        [
            ([(0, 1, 2, 3), (0, 1, 2, 3)], 0),
            ([(0, 2, 1, 3), (0, 2, 1, 3)], 0),  # 1 and 2 are of two publishers: any order, but one for all
            ([(0, 2, 1, 3), (0, 1, 2, 3)], 1),
            ([(2, 1, 0, 3), (2, 1, 0, 3)], 1),  # all agree, but not with the publisher
            ([(1, 2, 3), (0, 2, 3), (0, 1, 3)], 0),  # what is lost does not make the rest reordered
            ([(0, 1, 2, 3), (0, 1, 2, 3), (1, 2, 3, 0)], 1),
        ],
    )
    def test_one_order_for_all(self, got: list[tuple[int, ...]], reordered: int) -> None:
        """That of the publishers, where they have one: 0 and 2 are of one publisher, 1 and 3 of another."""
        ledger = RoomLedger(0, range(len(got)))
        for number in range(4):
            ledger.publish(number % 2, number)
        for member, numbers in enumerate(got):
            for number in numbers:
                ledger.arrive(number, member, 10)
        ledger.compare_orders()
        assert ledger.tally.reordered == reordered


def test_the_faults_of_the_warm_up_count() -> None:
    """What was sent in it does not."""
    warm, tally = Tally(sent=5, delivered=4, lost=1), Tally(sent=10, delivered=10)
    warm.errors["busy"] = 2
    tally.add_faults(warm)
    assert (tally.sent, tally.lost, dict(tally.errors)) == (10, 1, {"busy": 2})
