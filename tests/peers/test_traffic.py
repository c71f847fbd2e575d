"""What a link counts of its frames: the number, the items in them, their bytes."""

from ring.peers.waiting import Traffic
from ring.protocol.peer import decode_batch
from tests.peers.fakes import FakeHome, FakeSocket, batch, numbered, receipt


def counts(traffic: Traffic) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """In, and out."""
    return (
        (traffic.frames_in, traffic.items_in, traffic.bytes_in),
        (traffic.frames_out, traffic.items_out, traffic.bytes_out),
    )


def taken(socket: FakeSocket) -> tuple[int, int, int]:
    """Frames that were given to the socket: their number, items and bytes."""
    frames = socket.take()
    return len(frames), sum(len(decode_batch(frame).items) for frame in frames), sum(map(len, frames))


def test_what_is_sent_and_received(home: FakeHome) -> None:
    """A tick is one frame, whatever is in it. The proof does not count, nor what is no batch."""
    link, socket = home.open_link()
    assert counts(link.traffic)[0] == (0, 0, 0)
    before = counts(link.traffic)[1]
    link.send(numbered(1))
    link.send(numbered(2, 100))
    link.send_urgent(receipt(1))
    home.flush()
    frames, items, size = taken(socket)
    assert (frames, items) == (1, 3)
    assert counts(link.traffic)[1] == (before[0] + 1, before[1] + 3, before[2] + size)
    payload, ahead = batch([numbered(1), receipt(2)]), batch([numbered(2)], epoch=9)
    link.on_binary(payload)
    link.on_binary(ahead)
    link.on_binary(b"\xc1")
    assert counts(link.traffic)[0] == (2, 3, len(payload) + len(ahead))


def test_what_waits_is_counted_when_it_goes(home: FakeHome) -> None:
    """A link that is backed up has sent what its socket was given, and not what it holds."""
    link, socket = home.open_link()
    before = counts(link.traffic)[1]
    for number in range(100):
        link.send(numbered(number, 20_000))
    home.flush()
    sent = [0, 0, 0]
    while socket.frames:
        for index, more in enumerate(taken(socket)):
            sent[index] += more
        now = counts(link.traffic)[1]
        assert [after - count for after, count in zip(now, before, strict=True)] == sent
        link.on_drained()
    assert sent[1] == 100
    assert sent[0] > 5


def test_links_add_up() -> None:
    """Of several links to one peer."""
    first, second = Traffic(), Traffic()
    first.sent(2, 30)
    second.sent(3, 40)
    second.received(1, 5)
    first.add(second)
    assert counts(first) == ((1, 1, 5), (2, 5, 70))
