"""What a client has received: doubles, order, acknowledgements, the bound."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.client import inbox as inbox_module
from ring.client.inbox import BUFFER_BYTES, OVERHEAD_BYTES, WINDOW, Inbox
from ring.client.messages import Message
from ring.protocol import client as protocol


def _message(
    name: str | None, seq: str = "1-1", *, sender: str | None = "bob", text: bytes = b"0"
) -> protocol.Message:
    return protocol.Message(from_=sender, id=name, seq=seq, data=msgspec.Raw(text), sent_at=0)


def _taken(inbox: Inbox) -> Message:
    message = inbox.take()
    assert isinstance(message, Message)
    return message


def test_messages_are_taken_in_the_order_they_came() -> None:
    """First come, first taken."""
    inbox = Inbox()
    assert inbox.offer(_message("a", "1-1"), 1)
    assert inbox.offer(_message("b", "1-2"), 1)

    assert len(inbox) == 2
    assert [_taken(inbox).id, _taken(inbox).id] == ["a", "b"]
    assert not inbox


def test_position_follows_what_was_taken() -> None:
    """Acknowledged is what the application has, and only up to the first that it has not."""
    inbox = Inbox()
    inbox.offer(_message("a", "1-1"), 1)
    inbox.offer(_message("b", "1-2"), 1)
    assert (inbox.position, inbox.unacknowledged) == (None, 0)

    inbox.take()
    assert (inbox.position, inbox.unacknowledged) == ("1-1", 1)
    assert inbox.acknowledged() == "1-1"
    assert (inbox.position, inbox.unacknowledged) == ("1-1", 0)


def test_double_of_a_taken_message_is_dropped_and_acknowledged() -> None:
    """Sent again under another number it is no news, but the node must hear that it came."""
    inbox = Inbox()
    inbox.offer(_message("a", "1-1"), 1)
    inbox.take()
    inbox.acknowledged()

    assert not inbox.offer(_message("a", "2-1"), 1)
    assert not inbox
    assert inbox.acknowledged() == "2-1"


def test_double_is_acknowledged_in_its_turn() -> None:
    """An acknowledgement covers all before it, so a double waits for the message before it to be taken."""
    inbox = Inbox()
    inbox.offer(_message("a", "1-1"), 1)
    inbox.take()
    inbox.acknowledged()
    inbox.offer(_message("b", "2-1"), 1)
    inbox.offer(_message("a", "2-2"), 1)
    assert inbox.unacknowledged == 0

    inbox.take()
    assert inbox.acknowledged() == "2-2"


def test_same_id_of_another_sender_is_no_double() -> None:
    """Ids are the sender's own."""
    inbox = Inbox()

    assert inbox.offer(_message("a", "1-1"), 1)
    assert inbox.offer(_message("a", "1-2", sender="carol"), 1)
    assert inbox.offer(_message("a", "1-3", sender=None), 1)


def test_messages_without_id_are_known_by_seq() -> None:
    """What was sent without an id is a double if it comes with the same number."""
    inbox = Inbox()

    assert inbox.offer(_message(None, "1-1"), 1)
    assert inbox.offer(_message(None, "1-2"), 1)
    assert not inbox.offer(_message(None, "1-2"), 1)


def test_older_numbers_may_come_late() -> None:
    """A stored message that comes after newer ones is news all the same: dropping it would lose it."""
    inbox = Inbox()

    assert inbox.offer(_message("b", "2-1"), 1)
    assert inbox.offer(_message("a", "1-9"), 1)


def test_new_session_is_acknowledged_only_what_it_brought() -> None:
    """What an earlier session brought is handed out, but acknowledged when the new one has brought it too."""
    inbox = Inbox()
    inbox.offer(_message("a", "1-1"), 1)
    inbox.offer(_message("b", "1-2"), 1)
    inbox.take()
    inbox.new_session()
    assert inbox.position == "1-1"
    assert inbox.unacknowledged == 0

    assert _taken(inbox).id == "b"
    assert inbox.unacknowledged == 0
    assert not inbox.offer(_message("b", "1-2"), 1)
    assert inbox.acknowledged() == "1-2"


def test_taken_between_sessions_is_resumed_behind() -> None:
    """What the application takes while there is no connection need not be sent again."""
    inbox = Inbox()
    inbox.offer(_message("a", "1-1"), 1)
    inbox.take()

    assert inbox.position == "1-1"


def test_full_inbox_leaves_the_rest_to_the_node() -> None:
    """Beyond the bound nothing is kept or acknowledged, not even what would fit, until another session."""
    inbox = Inbox()
    half = BUFFER_BYTES // 2 - OVERHEAD_BYTES
    assert inbox.offer(_message("a", "1-1"), half)
    assert inbox.offer(_message("b", "1-2"), half)
    assert not inbox.offer(_message("c", "1-3"), 1)
    assert inbox.overrun is True

    inbox.take()
    assert not inbox.offer(_message("d", "1-4"), 1)
    inbox.take()
    assert inbox.position == "1-2"

    inbox.new_session()
    assert inbox.offer(_message("c", "1-3"), 1)
    assert not inbox.overrun


def test_message_beyond_the_bound_passes_alone() -> None:
    """Nothing is too large to be received: it only waits alone."""
    assert Inbox().offer(_message("a"), BUFFER_BYTES * 2)


def test_all_that_waits_is_remembered() -> None:
    """The window holds at least as many as may wait, or a double of one that waits could pass."""
    assert BUFFER_BYTES // OVERHEAD_BYTES <= WINDOW


def test_cleared_inbox_is_empty() -> None:
    """When there will be no session, what waits is dropped; its room too."""
    inbox = Inbox()
    inbox.offer(_message("a", "1-1"), BUFFER_BYTES)
    inbox.clear()

    assert not inbox
    assert inbox.offer(_message("b", "1-2"), 1)
    assert inbox.position is None


def test_window_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of doubles is bounded: the oldest goes first."""
    monkeypatch.setattr(inbox_module, "WINDOW", 2)
    inbox = Inbox()
    for number, name in enumerate("abc"):
        inbox.offer(_message(name, f"1-{number}"), 1)

    assert not inbox.offer(_message("b", "2-1"), 1)
    assert not inbox.offer(_message("c", "2-2"), 1)
    assert inbox.offer(_message("a", "2-3"), 1)


SENDERS = st.sampled_from(["bob", "carol", None])
STEPS = st.one_of(
    st.tuples(st.just("offer"), SENDERS, st.integers(0, 30)),
    st.tuples(st.just("take"), SENDERS, st.integers(1, 5)),
    st.tuples(st.just("session"), SENDERS, st.integers(0, 3)),
)


@given(st.lists(STEPS, max_size=80))
def test_each_message_once_in_order_and_never_acknowledged_early(
    steps: list[tuple[str, str | None, int]],
) -> None:
    """Whatever is repeated, in whatever sessions: each message is taken once, in the order in which they came
    first, and a session is acknowledged no more than what it brought and the application has."""
    inbox = Inbox()
    came: list[tuple[str | None, str]] = []  # in the order of their first arrival
    taken: list[tuple[str | None, str]] = []
    session: list[tuple[str, tuple[str | None, str]]] = []  # what the present one brought
    seqs = 0
    for what, sender, number in steps:
        if what == "offer":
            seqs += 1
            key = (sender, f"m{number}")
            news = inbox.offer(_message(key[1], f"1-{seqs}", sender=sender), 1)
            assert news is (key not in came)
            if news:
                came.append(key)
            session.append((f"1-{seqs}", key))
        elif what == "take":
            for _ in range(min(number, len(inbox))):
                got = _taken(inbox)
                assert got.id is not None
                taken.append((got.sender, got.id))
        else:
            inbox.new_session()
            session.clear()
        if inbox.unacknowledged:
            covered = [seq for seq, _ in session].index(inbox.acknowledged()) + 1
            assert all(key in taken for _, key in session[:covered])
            # And everything that could be acknowledged is.
            assert covered == len(session) or session[covered][1] not in taken
    assert taken == came[: len(taken)]
    assert len(taken) + len(inbox) == len(came)
