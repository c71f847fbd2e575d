"""Ports for servers that tests start: two tests run at once, and a port that is only free may be the other's
in a moment."""

from ring.verify.gate import Seat

_KEPT: list[Seat] = []  # until the suite ends: no port is given twice


def own_port() -> int:
    """A port of loopback that nobody else gets; who listens there has to say SO_REUSEADDR, as servers do."""
    seat = Seat()
    _KEPT.append(seat)
    return seat.port
