"""How a peer link begins, stays and ends, on a socket of which the test takes the frames."""

import pytest

from ring.peers.link import FAREWELL_S
from ring.peers.proof import Handshake, hello
from ring.protocol.codes import CloseCode
from ring.protocol.peer import (
    Batch,
    Hello,
    Proof,
    decode_hello,
    encode,
)
from tests.peers.fakes import SECRET, FakeHome, FakeSocket, batch, numbered, numbers


def test_a_dialer_speaks_first_and_is_up_once_the_other_is_proven(home: FakeHome) -> None:
    """The mesh is told once; then the link has a name and an incarnation."""
    link, socket = home.make_link(), FakeSocket()
    other = Handshake(hello("demo", "n2", "i2", 9), SECRET, dials=None, admit=lambda _: None)
    link.on_open(socket.real)
    link.on_binary(other.receive(socket.take()[0]))
    assert home.risen == []
    link.on_binary(other.receive(socket.take()[0]))
    assert link.up
    assert home.risen == [link]
    assert (link.name, link.incarnation, link.epoch) == ("n2", "i2", 9)
    assert link.settled.is_set()
    assert not link.over.is_set()


def test_an_acceptor_is_up_with_the_proof_that_it_sends(home: FakeHome) -> None:
    """It listens first; behind its proof comes its first batch."""
    link, socket = home.make_link(dials=None), FakeSocket()
    other = Handshake(hello("demo", "n1", "i1", 4), SECRET, dials="n2", admit=lambda _: None)
    link.on_open(socket.real)
    assert not socket.frames
    link.on_binary(other.start())
    link.on_binary(other.receive(socket.take()[0]))
    assert home.risen == [link]
    home.flush()
    proof, first = socket.take()
    assert type(decode_hello(proof)) is Proof
    assert first == batch([])


def test_the_first_batch_tells_the_ring_even_without_items(home: FakeHome) -> None:
    """News of a ring that changed while there was no link travels at once."""
    link, socket = home.make_link(), FakeSocket()
    other = Handshake(hello("demo", "n2", "i2", 9), SECRET, dials=None, admit=lambda _: None)
    link.on_open(socket.real)
    link.on_binary(other.receive(socket.take()[0]))
    link.on_binary(other.receive(socket.take()[0]))
    home.flush()
    assert socket.take_batches() == [Batch(5, 77, [])]


def test_a_refused_proof_closes_the_link_and_is_logged(home: FakeHome) -> None:
    """The hello that is owed goes out before the close; the log gets words, the other side none."""
    link, socket = home.make_link(dials=None), FakeSocket()
    link.on_open(socket.real)
    link.on_binary(encode(hello("prod", "n1", "i1", 4)))
    assert type(decode_hello(socket.take()[0])) is Hello
    assert socket.closed == (CloseCode.FORBIDDEN, "refused")
    assert link.name == "n1"
    assert "is of cluster 'prod'" in home.complaints[0]
    link.on_close(CloseCode.FORBIDDEN, "refused")
    assert len(home.complaints) == 1
    assert not home.risen
    assert home.over == [link]


def test_a_malformed_hello_closes_with_1002(home: FakeHome) -> None:
    """Nothing is answered to bytes that no peer sends."""
    link, socket = home.make_link(dials=None), FakeSocket()
    link.on_open(socket.real)
    link.on_binary(b"\xff\xff")
    assert socket.take() == []
    assert socket.closed is not None
    assert socket.closed[0] == CloseCode.PROTOCOL_ERROR
    assert link.name == ""


def test_a_node_that_is_refused_logs_what_to_check(home: FakeHome) -> None:
    """Close 4003 before the proof: secret, cluster name and versions are named."""
    link, socket = home.make_link(), FakeSocket()
    link.on_open(socket.real)
    link.on_close(CloseCode.FORBIDDEN, "refused")
    assert "same secret and cluster name" in home.complaints[0]
    assert "versions" in home.complaints[0]
    assert link.over.is_set()


def test_a_dial_that_ends_otherwise_is_logged_as_it_ended(home: FakeHome) -> None:
    """The reason that the pump gives is in the log."""
    link = home.make_link()
    link.on_close(CloseCode.ABNORMAL, "HTTP 404")
    assert home.complaints == ["ended with 1006 HTTP 404"]
    assert link.settled.is_set()


def test_a_peer_that_chose_no_subprotocol_is_none(home: FakeHome) -> None:
    """Some other WebSocket server at that address is sent nothing."""
    link, socket = home.make_link(), FakeSocket(subprotocol=None)
    link.on_open(socket.real)
    assert socket.take() == []
    assert socket.closed == (CloseCode.PROTOCOL_ERROR, "no sub-protocol")
    assert "sub-protocol" in home.complaints[0]


def test_a_peer_that_never_proves_itself_is_dropped_in_time(home: FakeHome) -> None:
    """A connection without a proof does not stay."""
    link, socket = home.make_link(dials=None), FakeSocket()
    link.on_open(socket.real)
    home.advance(4.9)
    assert socket.aborts == 0
    home.advance(0.2)
    assert socket.aborts == 1
    assert link.timed_out
    assert home.over == [link]
    assert home.complaints == ["has not proven itself in time"]
    link.on_binary(encode(hello("demo", "n1", "i1", 4)))
    assert socket.take() == []


def test_the_time_for_the_proof_begins_before_the_upgrade(home: FakeHome) -> None:
    """A machine that takes the connection and says nothing costs no more than one that says half."""
    link, socket = home.make_link(), FakeSocket()
    home.advance(5.1)
    assert link.timed_out
    assert link.over.is_set()
    link.on_open(socket.real)
    assert socket.aborts == 1
    assert socket.take() == []


def test_a_link_on_which_nothing_is_heard_is_dead_after_two_pings(home: FakeHome) -> None:
    """A ping each 5 s; without an answer to two of them the link is cut."""
    link, socket = home.open_link()
    home.advance(5.1)
    assert socket.pings == 1
    home.advance(5)
    assert socket.pings == 2
    assert socket.aborts == 0
    home.advance(5)
    assert socket.aborts == 1
    assert home.complaints == ["nothing was heard for 10 s"]
    assert home.over == [link]
    home.advance(60)
    assert socket.pings == 2


@pytest.mark.parametrize("sign", ["pong", "batch"])
def test_every_sign_of_life_counts(home: FakeHome, sign: str) -> None:
    """A pong may wait behind much data: that data is proof enough."""
    link, socket = home.open_link()
    for _ in range(10):
        home.advance(5)
        if sign == "pong":
            link.on_pong(b"")
        else:
            link.on_binary(batch([numbered(1)]))
    assert link.up
    assert socket.aborts == 0
    assert socket.pings >= 9


def test_one_missed_ping_is_forgiven(home: FakeHome) -> None:
    """The count begins anew with each sign of life."""
    link, _ = home.open_link()
    for _ in range(5):
        home.advance(9.9)
        link.on_pong(b"")
    assert link.up


def test_a_link_that_retires_closes_at_once_if_nothing_waits(home: FakeHome) -> None:
    """What the tick has brought goes out before the close."""
    link, socket = home.open_link()
    link.send(numbered(1))
    link.retire(CloseCode.GOING_AWAY, "the node stops")
    assert numbers(socket.take_batches()[0].items) == [1]
    assert socket.closed == (CloseCode.GOING_AWAY, "the node stops")
    assert link.up
    link.on_close(CloseCode.GOING_AWAY, "the node stops")
    assert home.over == [link]
    assert home.complaints == []


def test_a_link_that_retires_flushes_its_lanes_first(home: FakeHome) -> None:
    """And is read until then."""
    link, socket = home.open_link()
    for number in range(20):
        link.send(numbered(number, 60_000))
    link.retire(CloseCode.GOING_AWAY, "the node stops")
    assert socket.closed is None
    link.on_binary(batch([numbered(100)]))
    assert home.recorder.numbers == [100]
    received = []
    while frames := socket.take_batches():
        received += [number for frame in frames for number in numbers(frame.items)]
        link.on_drained()
    assert received == list(range(20))
    assert socket.closed == (CloseCode.GOING_AWAY, "the node stops")


def test_a_farewell_takes_no_longer_than_its_time(home: FakeHome) -> None:
    """Lanes that nobody reads do not keep a link that is no longer wanted."""
    link, socket = home.open_link()
    for number in range(20):
        link.send(numbered(number, 60_000))
    link.retire(CloseCode.GOING_AWAY, "the node stops")
    home.advance(FAREWELL_S + 0.1)
    assert socket.aborts == 1
    assert home.over == [link]


def test_a_link_that_is_not_up_retires_by_being_dropped(home: FakeHome) -> None:
    """Without a word in the log: nobody wants it any more."""
    link, socket = home.make_link(), FakeSocket()
    link.on_open(socket.real)
    link.retire(CloseCode.GOING_AWAY, "no longer dialled")
    assert socket.aborts == 1
    assert link.over.is_set()
    assert home.complaints == []


def test_a_link_ends_once(home: FakeHome) -> None:
    """Whatever else the socket says afterwards."""
    link, _ = home.open_link()
    link.drop("replaced")
    link.on_close(CloseCode.ABNORMAL, "aborted")
    assert home.over == [link]
    assert home.complaints == ["replaced"]


def test_a_link_knows_where_the_other_side_is(home: FakeHome) -> None:
    """For logs: before the upgrade there is nothing to tell."""
    link, socket = home.make_link(), FakeSocket()
    assert link.address == ""
    assert link.queued_bytes == 0
    link.on_open(socket.real)
    assert link.address == "127.0.0.1:9"
