"""What a client sends: order, the bound on what is unanswered, and what goes again after a cut."""

from typing import Literal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ring.client.messages import Receipt
from ring.client.outbox import Outbox, Outgoing
from ring.protocol.client import Send


class Sender:
    """Adds messages to an outbox and knows which of them were settled."""

    def __init__(self, in_flight: int = 16) -> None:
        self.outbox = Outbox()
        self.outbox.in_flight = in_flight
        self.settled: list[str] = []

    def add(self, name: str, *, receipt: bool = True) -> Outgoing:
        frame = Send(to="bob", data=msgspec.Raw(b"1"), id=name if receipt else None, receipt=receipt)
        outgoing = Outgoing(frame, lambda: self.settled.append(name))
        self.outbox.add(outgoing)
        return outgoing

    def write(self) -> list[tuple[str | None, bool]]:
        """Everything that may be written now: (id, again)."""
        written = []
        while (outgoing := self.outbox.next()) is not None:
            written.append((outgoing.frame.id, outgoing.frame.again))
        return written

    def answer(self, name: str, status: Literal["delivered", "failed"] = "delivered") -> bool:
        return self.outbox.answer(Receipt(name, status))


def test_messages_are_written_in_order() -> None:
    """First added, first written, once."""
    sender = Sender()
    sender.add("a")
    sender.add("b")

    assert sender.write() == [("a", False), ("b", False)]
    assert sender.write() == []


def test_receipts_settle_in_any_order() -> None:
    """A receipt belongs to the message of its id, and settles it once."""
    sender = Sender()
    first, second = sender.add("a"), sender.add("b")
    sender.write()

    assert sender.answer("b")
    assert sender.answer("a", "failed")
    assert sender.settled == ["b", "a"]
    assert first.receipt == Receipt("a", "failed")
    assert second.receipt == Receipt("b", "delivered")
    assert not sender.answer("a")
    assert not sender.answer("stranger")


def test_no_more_in_flight_than_allowed() -> None:
    """Beyond `in_flight` unanswered messages the next waits for a receipt."""
    sender = Sender(in_flight=2)
    for name in "abc":
        sender.add(name)
    assert sender.write() == [("a", False), ("b", False)]

    sender.answer("b")
    assert sender.write() == [("c", False)]


def test_messages_without_receipt_keep_their_place() -> None:
    """They don't count as unanswered, but never overtake what was sent before them."""
    sender = Sender(in_flight=1)
    sender.add("-", receipt=False)
    sender.add("a")
    sender.add("-", receipt=False)
    sender.add("b")
    sender.add("-", receipt=False)

    assert sender.write() == [(None, False), ("a", False), (None, False)]
    sender.answer("a")
    assert sender.write() == [("b", False), (None, False)]


def test_unanswered_messages_go_again_first_and_marked() -> None:
    """After a cut what got no receipt is written again, in order and marked, before what never was."""
    sender = Sender(in_flight=3)
    for name in "abcd":
        sender.add(name)
    sender.write()
    sender.answer("b")
    sender.outbox.cut()

    assert sender.write() == [("a", True), ("c", True), ("d", False)]


def test_second_cut_keeps_the_order() -> None:
    """A cut in the midst of sending again changes nothing about the order, nor about the marks."""
    sender = Sender(in_flight=3)
    for name in "abcd":
        sender.add(name)
    sender.write()
    sender.outbox.cut()
    sender.outbox.in_flight = 1
    assert sender.write() == [("a", True)]
    sender.outbox.cut()
    sender.outbox.in_flight = 9

    assert sender.write() == [("a", True), ("b", True), ("c", True), ("d", False)]


def test_messages_without_receipt_never_go_again() -> None:
    """At most once: what was written is gone, what was not is written in the next session."""
    sender = Sender(in_flight=1)
    sender.add("-", receipt=False)
    sender.write()
    sender.add("-", receipt=False)
    sender.outbox.cut()

    assert sender.write() == [(None, False)]


def test_abandoned_message_is_not_written() -> None:
    """A call that was cancelled before its message was written sends nothing."""
    sender = Sender()
    sender.add("a")
    sender.outbox.abandon(sender.add("b"))
    sender.add("c")

    assert sender.write() == [("a", False), ("c", False)]


def test_abandoned_message_counts_until_answered_and_goes_once() -> None:
    """A call that was cancelled later leaves its message in flight, but nobody sends it again."""
    sender = Sender(in_flight=1)
    abandoned = sender.add("a")
    sender.add("b")
    sender.write()
    sender.outbox.abandon(abandoned)
    assert sender.write() == []

    sender.outbox.cut()
    assert sender.write() == [("b", False)]


def test_cleared_outbox_tells_everybody() -> None:
    """When there will be no session, whoever waits is told, without a receipt."""
    sender = Sender(in_flight=1)
    first, second = sender.add("a"), sender.add("b")
    sender.write()
    sender.outbox.clear()

    assert sender.settled == ["a", "b"]
    assert first.receipt is second.receipt is None
    assert sender.write() == []


@given(
    st.integers(1, 4),
    st.lists(st.one_of(st.just("add"), st.just("write"), st.just("cut"), st.integers(0, 20)), max_size=60),
)
def test_order_survives_any_history(in_flight: int, steps: list[str | int]) -> None:
    """In every session, messages are written in the order in which they were added; none is left out, and one
    is marked exactly if it was written before."""
    sender = Sender(in_flight)
    added = 0
    answered: set[int] = set()
    ever: set[int] = set()
    session: list[int] = []
    for step in steps:
        if step == "add":
            sender.add(str(added))
            added += 1
        elif step == "write":
            for name, again in sender.write():
                number = int(str(name))
                assert again is (number in ever)
                ever.add(number)
                session.append(number)
            assert session == sorted(session)
            assert len([number for number in session if number not in answered]) <= in_flight
        elif step == "cut":
            sender.outbox.cut()
            session = []
        elif sender.answer(str(step)):
            answered.add(int(step))
    sender.outbox.cut()
    sender.outbox.in_flight = 1000
    assert [int(str(name)) for name, _ in sender.write()] == [n for n in range(added) if n not in answered]
