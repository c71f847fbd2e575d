"""What a peer link sends, and what waits while its socket is backed up."""

import pytest

from ring.peers.link import BUSY_BYTES, HIGH_WATER
from ring.protocol.peer import (
    BATCH_BYTES,
    decode_batch,
)
from tests.peers.fakes import FakeHome, kinds, numbered, numbers, receipt


def test_a_tick_becomes_one_frame_with_the_urgent_in_front(home: FakeHome) -> None:
    """However many items a tick brings, in their order; it wakes the mesh once."""
    link, socket = home.open_link()
    wakes = home.wakes
    for number in range(3):
        link.send(numbered(number))
    link.send_urgent(receipt(1))
    link.send(numbered(3))
    link.send_urgent(receipt(2))
    assert home.dirty == [link]
    assert home.wakes == wakes + 1
    home.flush()
    (frame,) = socket.take_batches()
    assert (frame.epoch, frame.members_hash) == (5, 77)
    assert kinds(frame.items) == ["Receipt", "Receipt", "Deliver", "Deliver", "Deliver", "Deliver"]
    assert numbers(frame.items) == [0, 1, 2, 3]
    home.flush()
    assert socket.take() == []


def test_an_urgent_item_makes_a_link_dirty_too(home: FakeHome) -> None:
    """A receipt needs no data to travel with."""
    link, socket = home.open_link()
    link.send_urgent(receipt(1))
    home.flush()
    assert kinds(socket.take_batches()[0].items) == ["Receipt"]


def test_frames_carry_the_ring_of_the_moment_they_are_sent(home: FakeHome) -> None:
    """Not the ring of the moment an item was queued."""
    link, socket = home.open_link()
    link.send(numbered(1))
    home.epoch, home.members_hash = 6, 88
    home.flush()
    (frame,) = socket.take_batches()
    assert (frame.epoch, frame.members_hash) == (6, 88)


@pytest.mark.parametrize(("count", "size"), [(1000, 100), (40, 60_000), (257, 0), (6, 200_000), (5000, 300)])
def test_no_frame_is_longer_than_a_batch_may_be(home: FakeHome, count: int, size: int) -> None:
    """Many small items, or few large ones: frames are cut between items and keep their order."""
    link, socket = home.open_link()
    for number in range(count):
        link.send(numbered(number, size))
    home.flush()
    received: list[int] = []
    while frames := socket.take():
        assert all(len(frame) <= BATCH_BYTES for frame in frames)
        for frame in frames:
            received += numbers(decode_batch(frame).items)
        link.on_drained()
    assert received == list(range(count))


def test_frames_are_filled(home: FakeHome) -> None:
    """Cutting up makes no more frames than needed."""
    link, socket = home.open_link()
    for number in range(1000):
        link.send(numbered(number, 200))
    home.flush()
    assert [len(frame) > 1000 for frame in socket.take()] == [True]


def test_an_item_longer_than_a_batch_goes_alone(home: FakeHome) -> None:
    """An item is never split."""
    link, socket = home.open_link()
    link.send(numbered(1))
    link.send(numbered(2, BATCH_BYTES))
    link.send(numbered(3))
    home.flush()
    link_frames = []
    while frames := socket.take_batches():
        link_frames += [numbers(frame.items) for frame in frames]
        link.on_drained()
    assert link_frames == [[1], [2], [3]]


def test_an_item_that_no_peer_would_read_is_dropped(home: FakeHome) -> None:
    """It is logged, and the link lives."""
    link, socket = home.open_link()
    link.send(numbered(1, 5 * 1024 * 1024))
    link.send(numbered(2))
    home.flush()
    assert [numbers(frame.items) for frame in socket.take_batches()] == [[2]]
    assert link.queued_bytes == 0


def test_what_is_urgent_overtakes_data_that_waits(home: FakeHome) -> None:
    """A socket that is backed up is not given more than `HIGH_WATER` and one frame."""
    link, socket = home.open_link()
    for number in range(100):
        link.send(numbered(number, 20_000))
    home.flush()
    assert HIGH_WATER < socket.queued <= HIGH_WATER + BATCH_BYTES + 100
    assert link.queued_bytes > 100 * 20_000
    first = socket.frames.copy()
    link.send(numbered(100))
    link.send_urgent(receipt(1))
    home.flush()
    assert socket.frames == first
    received = [item for frame in socket.take_batches() for item in frame.items]
    link.on_drained()
    frames = socket.take_batches()
    assert kinds(frames[0].items)[:2] == ["Receipt", "Deliver"]
    while frames:
        received += [item for frame in frames for item in frame.items]
        link.on_drained()
        frames = socket.take_batches()
    assert numbers(received) == list(range(101))
    assert link.queued_bytes == 0


def test_urgent_items_that_fill_a_frame_let_no_data_before_them(home: FakeHome) -> None:
    """Data does not slip into the gap that a long urgent item leaves."""
    link, socket = home.open_link()
    for number in range(3):
        link.send_urgent(numbered(number, 200_000))
    link.send(numbered(3, 10))
    home.flush()
    order = []
    while frames := socket.take_batches():
        order += [numbers(frame.items) for frame in frames]
        link.on_drained()
    assert order == [[0], [1], [2, 3]]


def test_a_link_is_busy_above_its_bound_and_not_below(home: FakeHome) -> None:
    """The router may ask at any time; the answer follows what is queued."""
    link, socket = home.open_link()
    answers = [link.busy]
    for number in range(100):
        link.send(numbered(number, BUSY_BYTES // 100))
    home.flush()
    answers.append(link.busy)
    while socket.take():
        link.on_drained()
    answers.append(link.busy)
    assert answers == [False, True, False]
    assert link.queued_bytes == 0


def test_a_link_that_nobody_reads_breaks_before_it_eats_memory(home: FakeHome) -> None:
    """Above the hard bound it is dropped, and says so."""
    link, socket = home.open_link()
    for _ in range(66):
        for _ in range(16):
            link.send(numbered(1, 64 * 1024))
        home.flush()
    assert socket.aborts == 1
    assert home.over == [link]
    assert "does not read" in home.complaints[0]
    assert not link.up


def test_what_is_sent_after_the_end_is_dropped(home: FakeHome) -> None:
    """A receiver that still holds the link harms nobody."""
    link, socket = home.open_link()
    link.drop("for a test")
    link.send(numbered(1))
    link.send_urgent(receipt(1))
    home.flush()
    link.on_drained()
    assert socket.frames == []
    assert not link._data
    assert not link._urgent
