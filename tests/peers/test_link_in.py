"""What a peer link receives, and what waits for an epoch."""

import pytest

from ring.peers.link import HOLD_S, PeerLink
from ring.protocol.codes import CloseCode
from ring.protocol.peer import (
    Item,
    Members,
    MembersWanted,
    encode,
)
from tests.peers.fakes import FakeHome, FakeSocket, Recorder, batch, kinds, numbered, receipt


def test_a_batch_is_handed_on_whole(home: FakeHome) -> None:
    """One call per frame, the items in order; no news where the ring is the same."""
    link, _ = home.open_link()
    link.on_binary(batch([numbered(1), receipt(1), numbered(2)]))
    assert [kinds(items) for items in home.recorder.batches] == [["Deliver", "Receipt", "Deliver"]]
    assert home.recorder.heard == []


def test_an_older_ring_is_news_and_its_items_do_not_wait(home: FakeHome) -> None:
    """Whoever is behind is served; what to do about it is the receiver's to decide."""
    link, socket = home.open_link()
    link.on_binary(batch([numbered(1)], epoch=4))
    link.on_binary(batch([numbered(2)], members_hash=78))
    assert home.recorder.heard == [(4, 77), (5, 78)]
    assert home.recorder.numbers == [1, 2]
    home.flush()
    assert socket.take() == []


def test_data_of_a_higher_epoch_waits_for_it(home: FakeHome) -> None:
    """Until the node has entered it; urgent items do not wait; the members are asked for once."""
    link, socket = home.open_link()
    link.on_binary(batch([numbered(1), receipt(1)], epoch=6, members_hash=88))
    link.on_binary(batch([numbered(2), Members(6, []), MembersWanted()], epoch=6, members_hash=88))
    link.on_binary(batch([numbered(3)], epoch=5))
    assert kinds(home.recorder.items) == ["Receipt", "Members", "MembersWanted"]
    assert home.recorder.heard == [(6, 88), (6, 88)]
    assert link.epoch == 6
    home.flush()
    assert [kinds(frame.items) for frame in socket.take_batches()] == [["MembersWanted"]]
    home.epoch, home.members_hash = 6, 88
    link.release()
    assert home.recorder.numbers == [1, 2, 3]
    link.on_binary(batch([numbered(4)], epoch=6, members_hash=88))
    assert home.recorder.numbers == [1, 2, 3, 4]
    home.advance(2 * HOLD_S)
    assert home.recorder.numbers == [1, 2, 3, 4]


def test_a_batch_of_urgent_items_alone_is_not_held(home: FakeHome) -> None:
    """There is nothing in it that could wait."""
    link, _ = home.open_link()
    link.on_binary(batch([receipt(1)], epoch=6))
    assert kinds(home.recorder.items) == ["Receipt"]
    assert not link._held


def test_only_the_epochs_that_are_entered_are_released(home: FakeHome) -> None:
    """And the rest has its full time from then on."""
    link, _ = home.open_link()
    link.on_binary(batch([numbered(1)], epoch=6))
    link.on_binary(batch([numbered(2)], epoch=7))
    home.advance(0.9)
    home.epoch = 6
    link.release()
    assert home.recorder.numbers == [1]
    home.advance(0.9)
    assert home.recorder.numbers == [1]
    home.advance(0.2)
    assert home.recorder.numbers == [1, 2]


def test_held_data_waits_no_longer_than_a_second(home: FakeHome) -> None:
    """Then it is handed on, and what follows at this epoch does not wait either."""
    link, _ = home.open_link()
    link.on_binary(batch([numbered(1)], epoch=6))
    link.on_binary(batch([numbered(2)], epoch=5))
    home.advance(HOLD_S - 0.1)
    assert home.recorder.numbers == []
    home.advance(0.2)
    assert home.recorder.numbers == [1, 2]
    link.on_binary(batch([numbered(3)], epoch=6))
    assert home.recorder.numbers == [1, 2, 3]
    link.on_binary(batch([numbered(4)], epoch=7))
    assert home.recorder.numbers == [1, 2, 3]
    home.advance(HOLD_S + 0.1)
    assert home.recorder.numbers == [1, 2, 3, 4]


def test_held_data_is_bounded(home: FakeHome) -> None:
    """A peer that floods a node with a ring it does not enter loses the link; what it sent is handed on."""
    link, socket = home.open_link()
    frame = batch([numbered(1, 4_000_000)], epoch=6)
    for _ in range(4):
        link.on_binary(frame)
    assert socket.aborts == 0
    link.on_binary(frame)
    assert socket.aborts == 1
    assert home.over == [link]
    assert "wait for epoch 6" in home.complaints[0]
    assert len(home.recorder.numbers) == 5


def test_what_is_held_when_a_link_ends_is_handed_on_first(home: FakeHome) -> None:
    """A node that hands over and leaves must not be cut short by a view that is late."""
    link, _ = home.open_link()
    link.on_binary(batch([numbered(1)], epoch=6))
    link.on_close(CloseCode.GOING_AWAY, "the node stops")
    assert home.recorder.numbers == [1]
    assert home.over == [link]
    assert home.complaints == []
    home.advance(2 * HOLD_S)
    assert home.recorder.numbers == [1]


def test_a_receiver_that_fails_on_held_items_costs_the_link_alone(home: FakeHome) -> None:
    """Entering a view goes on."""
    link, socket = home.open_link()
    link.on_binary(batch([numbered(1)], epoch=6))
    link.on_binary(batch([numbered(2)], epoch=6))

    class Failing(Recorder):
        def on_items(self, link: PeerLink, items: list[Item]) -> None:
            raise ZeroDivisionError

    home.receiver = Failing()
    home.epoch = 6
    link.release()
    assert socket.closed == (CloseCode.INTERNAL_ERROR, "internal error")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        encode([1, 2]),
        encode(["5", 77, []]),
        batch([])[:-1],
        encode([5, 77, [[99, 1]]]),
        encode([5, 77, [[4, 1, "never", None, None, None]]]),
        b"\x93\x05\x4d\x91\x92\x08\xa1\xff",
    ],
)
def test_a_frame_that_is_no_batch_ends_the_link(home: FakeHome, frame: bytes) -> None:
    """1007, with a word in the log; nothing of it is handed on."""
    link, socket = home.open_link()
    link.on_binary(frame)
    assert socket.closed == (CloseCode.INVALID_DATA, "not a batch")
    assert home.complaints[0].startswith("sent no batch: ")
    assert home.recorder.batches == []


@pytest.mark.parametrize("proven", [True, False])
def test_a_text_frame_ends_the_link(home: FakeHome, proven: bool) -> None:
    """1003, before the proof and after it."""
    link, socket = home.open_link() if proven else (home.make_link(), FakeSocket())
    link.on_open(socket.real)
    link.on_text(b"hello")
    assert socket.closed is not None
    assert socket.closed[0] == CloseCode.UNSUPPORTED_DATA
    assert home.complaints == ["sent a text frame"]
