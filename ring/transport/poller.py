"""The selector under the pump: epoll on Linux, what `selectors` offers elsewhere (kqueue on macOS).

Both have the same methods and report the same two bits, so that the pump and its sockets know of no
platform. Level-triggered: what was not read is reported again.
"""

import select
import selectors
import sys
from typing import Protocol

READ = 1  # of epoll: EPOLLIN
WRITE = 4  # of epoll: EPOLLOUT. Any other bit (an error, a hang-up) is found by reading
EVENTS_PER_POLL = 512


class Poller(Protocol):
    """Which of many file descriptors are ready."""

    def fileno(self) -> int:
        """The descriptor that is readable while `poll` would report something."""

    def register(self, fd: int) -> None:
        """Begins to report `fd` when it can be read."""

    def want_write(self, fd: int, wanted: bool) -> None:
        """Begins or ends to report when `fd` can be written, too."""

    def unregister(self, fd: int) -> None:
        """Ends all reports of `fd`; to be called before it is closed."""

    def poll(self) -> list[tuple[int, int]]:
        """What is ready now, as (fd, bits). Does not block."""

    def close(self) -> None:
        """Frees the selector."""


class SelectorPoller(Poller):
    """On the selector that the standard library finds best on this platform."""

    __slots__ = ("_selector",)

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        """As of `Poller`."""
        return self._selector.fileno()

    def register(self, fd: int) -> None:
        """As of `Poller`."""
        self._selector.register(fd, selectors.EVENT_READ)

    def want_write(self, fd: int, wanted: bool) -> None:
        """As of `Poller`."""
        self._selector.modify(fd, selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0))

    def unregister(self, fd: int) -> None:
        """As of `Poller`."""
        self._selector.unregister(fd)

    def poll(self) -> list[tuple[int, int]]:
        """As of `Poller`."""
        bits = {selectors.EVENT_READ: READ, selectors.EVENT_WRITE: WRITE}
        return [(key.fd, bits.get(events, READ | WRITE)) for key, events in self._selector.select(0)]

    def close(self) -> None:
        """As of `Poller`."""
        self._selector.close()


if sys.platform == "linux":

    class EpollPoller(Poller):
        """On epoll itself: no objects between the kernel's answer and the pump."""

        __slots__ = ("_epoll",)

        def __init__(self) -> None:
            self._epoll = select.epoll()

        def fileno(self) -> int:
            """As of `Poller`."""
            return self._epoll.fileno()

        def register(self, fd: int) -> None:
            """As of `Poller`."""
            self._epoll.register(fd, READ)

        def want_write(self, fd: int, wanted: bool) -> None:
            """As of `Poller`."""
            self._epoll.modify(fd, READ | WRITE if wanted else READ)

        def unregister(self, fd: int) -> None:
            """As of `Poller`."""
            self._epoll.unregister(fd)

        def poll(self) -> list[tuple[int, int]]:
            """As of `Poller`."""
            return self._epoll.poll(0, EVENTS_PER_POLL)

        def close(self) -> None:
            """As of `Poller`."""
            self._epoll.close()

    def make_poller() -> Poller:
        """The best poller of this platform."""
        return EpollPoller()

else:

    def make_poller() -> Poller:
        """The best poller of this platform."""
        return SelectorPoller()
