"""What HAProxy should have of a ring: servers for nodes, and the owner and successor of each slot. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from ring.cluster.placement import NOBODY
from ring.cluster.view import RingView

EPOCH = "epoch"
"""The row of the map that says which ring it is of; the others are slots."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a node is: for clients, and for the question whether it is healthy. Both are "host:port"."""

    address: str
    check: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A ring, as HAProxy needs it.

    Attributes:
        servers: by the names of the nodes that take clients.
        slots: owner and successor of each slot, as far as they take clients.
    """

    cluster: str
    epoch: int
    servers: Mapping[str, Server]
    slots: tuple[tuple[str, ...], ...]


def wanted(view: RingView) -> Wanted:
    """What HAProxy should have of this ring. Nodes that drain get nobody more.

    It computes a placement for each node: some milliseconds, hundreds for dozens of nodes.
    """
    servers = {
        member.name: Server(member.edge, member.api) for member in view.members if member.state == "up"
    }
    slots = []
    for slot, owner in enumerate(view.owners):
        names = (owner, view.successor_of_slot(slot)) if owner != NOBODY else ()
        slots.append(tuple(name for name in names if name in servers))
    return Wanted(view.cluster, view.epoch, servers, tuple(slots))


def rows(wanted: Wanted, places: Mapping[str, str]) -> list[tuple[str, str]]:
    """The rows of the map: each slot's servers, with a colon between them, and the epoch.

    Args:
        wanted: the ring.
        places: the server in HAProxy of each node that has one.
    """
    lines = [
        (str(slot), ":".join(places[name] for name in names if name in places))
        for slot, names in enumerate(wanted.slots)
    ]
    return [(EPOCH, str(wanted.epoch)), *(line for line in lines if line[1])]
