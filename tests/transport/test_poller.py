"""Both selectors, by the same contract."""

import socket
from collections.abc import Callable, Iterator

import pytest

from ring.transport.poller import READ, WRITE, Poller, SelectorPoller, make_poller


@pytest.fixture(params=[make_poller, SelectorPoller])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    """Each of them."""
    make: Callable[[], Poller] = request.param
    poller = make()
    yield poller
    poller.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_it_reports_what_can_be_read(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    """Again and again until it was read, and nothing before."""
    one, other = pair
    poller.register(one.fileno())
    assert poller.poll() == []
    other.send(b"x")
    assert poller.poll() == poller.poll() == [(one.fileno(), READ)]
    one.recv(1)
    assert poller.poll() == []


def test_it_reports_what_can_be_written_if_wanted(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Alone or beside reading, from when it is wanted until it no longer is."""
    one, other = pair
    poller.register(one.fileno())
    poller.want_write(one.fileno(), True)
    assert poller.poll() == [(one.fileno(), WRITE)]
    other.send(b"x")
    assert poller.poll() == [(one.fileno(), READ | WRITE)]
    poller.want_write(one.fileno(), False)
    assert poller.poll() == [(one.fileno(), READ)]


def test_a_hang_up_is_reported(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    """As something that is not only writable: reading finds the end."""
    one, other = pair
    poller.register(one.fileno())
    other.close()
    ((fd, events),) = poller.poll()
    assert fd == one.fileno()
    assert events & ~WRITE


def test_it_reports_nothing_of_what_was_taken_off(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """However ready it is."""
    one, other = pair
    poller.register(one.fileno())
    other.send(b"x")
    poller.unregister(one.fileno())
    assert poller.poll() == []


def test_its_own_descriptor_can_be_waited_for(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    """It is readable while there is something to report: that is what Trio waits for."""
    one, other = pair
    poller.register(one.fileno())
    outer = make_poller()
    outer.register(poller.fileno())
    assert outer.poll() == []
    other.send(b"x")
    assert outer.poll() == [(poller.fileno(), READ)]
    outer.close()
