"""What a gateway holds for its clients until it has a receipt."""

import pytest

from ring.mailbox import pending as pending_module
from ring.mailbox.letter import By, Status
from ring.mailbox.pending import RETRY_S, UNANSWERED, Pending
from ring.protocol.codes import ErrorCode
from ring.protocol.peer import Send
from tests.mailbox.office import Clock


class Client:
    """A session that remembers its receipts."""

    def __init__(self) -> None:
        self.refs: dict[str, int] = {}
        self.receipts: list[tuple[str, Status, By | None, ErrorCode | None, str | None]] = []

    def receipt(
        self, message_id: str, status: Status, by: By | None, code: ErrorCode | None, message: str | None
    ) -> None:
        assert message_id not in self.refs, "the id is free again before the client hears of it"
        self.receipts.append((message_id, status, by, code, message))


def message(message_id: str) -> Send:
    """A message to bob."""
    return Send(0, "alice", message_id, "bob", b"1", 5, False, "", 0)


def ids(pending: Pending) -> list[str | None]:
    """What is held, in order."""
    return [held.send.id for held in pending]


def test_messages_are_held_in_the_order_of_their_sending() -> None:
    """Each under a reference of its own, which its session knows by the message's id."""
    pending, alice, carol = Pending(), Client(), Client()
    one = pending.add(alice, message("m1"))
    two = pending.add(carol, message("m1"))
    three = pending.add(alice, message("m2"))
    assert one.send.ref < two.send.ref < three.send.ref
    assert alice.refs == {"m1": one.send.ref, "m2": three.send.ref}
    assert carol.refs == {"m1": two.send.ref}
    assert (ids(pending), len(pending)) == (["m1", "m1", "m2"], 3)
    assert pending.get(two.send.ref) is two
    assert (one.owner, one.retried) == (None, False)


def test_a_fate_is_told_once() -> None:
    """The first answer counts; a second one, or one that nobody waits for, is ignored."""
    pending, alice = Pending(), Client()
    held = pending.add(alice, message("m1"))
    pending.add(alice, message("m2"))
    pending.settle(held.send.ref, "delivered", "pong", None, None)
    pending.settle(held.send.ref, "failed", None, ErrorCode.OFFLINE, "x")
    pending.settle(1, "delivered", "client", None, None)
    assert alice.receipts == [("m1", "delivered", "pong", None, None)]
    assert (list(alice.refs), ids(pending)) == (["m2"], ["m2"])
    assert pending.get(held.send.ref) is None


def test_what_is_settled_may_be_settled_while_others_are_looked_through() -> None:
    """Looking through them all survives that some go meanwhile."""
    pending, alice = Pending(), Client()
    for index in range(3):
        pending.add(alice, message(f"m{index}"))
    for held in pending:
        pending.settle(held.send.ref, "delivered", "client", None, None)
    assert (len(pending), len(alice.receipts)) == (0, 3)


def test_a_session_that_is_gone_takes_its_messages() -> None:
    """Others keep theirs; a late receipt finds nobody."""
    pending, alice, carol = Pending(), Client(), Client()
    held = pending.add(alice, message("m1"))
    pending.add(carol, message("m2"))
    pending.drop(alice)
    assert (alice.refs, ids(pending)) == ({}, ["m2"])
    pending.settle(held.send.ref, "delivered", "client", None, None)
    assert alice.receipts == []
    pending.drop(alice)
    assert len(pending) == 1


class TestOverdue:
    """Messages whose owner does not answer."""

    def test_one_is_tried_again_once(self) -> None:
        """After 4 s, in the order of their sending; not a second time."""
        clock = Clock()
        pending, alice = Pending(clock=clock), Client()
        first = pending.add(alice, message("m1"))
        clock.now += 1
        second = pending.add(alice, message("m2"))
        clock.now += RETRY_S - 1.01
        assert pending.overdue() == []
        clock.now += 0.01
        assert pending.overdue() == [first]
        clock.now += 1
        assert pending.overdue() == [second]
        clock.now += 1
        assert pending.overdue() == []
        assert (alice.receipts, len(pending)) == ([], 2)

    def test_one_is_given_up_after_send_timeout(self) -> None:
        """`owner_unavailable`, exactly once; younger ones go on."""
        clock = Clock()
        pending, alice = Pending(clock=clock), Client()
        pending.add(alice, message("m1"))
        clock.now += 5
        pending.overdue()
        young = pending.add(alice, message("m2"))
        clock.now += 4.99
        assert pending.overdue() == [young]
        assert alice.receipts == []
        clock.now += 0.01
        assert pending.overdue() == []
        assert alice.receipts == [("m1", "failed", None, ErrorCode.OWNER_UNAVAILABLE, UNANSWERED)]
        assert ids(pending) == ["m2"]
        clock.now += 1
        pending.overdue()
        assert len(alice.receipts) == 1

    def test_the_time_is_a_setting(self) -> None:
        """Also below the time of the retry: then there is none."""
        clock = Clock()
        pending, alice = Pending(send_timeout_s=1.0, clock=clock), Client()
        pending.add(alice, message("m1"))
        clock.now += 0.99
        assert pending.overdue() == []
        assert alice.receipts == []
        clock.now += 0.01
        assert pending.overdue() == []
        assert [receipt[:2] for receipt in alice.receipts] == [("m1", "failed")]


def test_references_of_another_life_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that starts again a second later gives none that it gave before, however busy it was."""
    alice = Client()
    monkeypatch.setattr(pending_module, "time_ns", lambda: 1_700_000_000_000_000_000)
    life = Pending()
    earlier = [life.add(alice, message(f"m{index}")).send.ref for index in range(1000)]
    monkeypatch.setattr(pending_module, "time_ns", lambda: 1_700_000_001_000_000_000)
    life = Pending()
    assert life.add(alice, message("n")).send.ref > max(earlier)
    life.settle(earlier[0], "delivered", "client", None, None)
    assert len(life) == 1
