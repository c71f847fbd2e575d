"""The names of Ring's keys in the store, in one place."""

import re

from ring.protocol.codes import BadRequest

_CLUSTER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Keys:
    """The keys of one cluster.

    Those of membership share a hash tag, since scripts touch several: a Redis Cluster keeps them on one node.
    So do those of one slot's mailboxes, and each slot has a tag of its own: mailboxes are spread over them.
    The channels of rooms have no tag: they are spread too.

    Args:
        cluster: the cluster's name, 1 to 64 of `A-Z a-z 0-9 _ . -`.

    Raises:
        BadRequest: the name is something else.
    """

    __slots__ = ("_room", "_slot", "cluster", "epoch", "geometry", "leases", "members", "suspects", "table")

    def __init__(self, cluster: str) -> None:
        if _CLUSTER.fullmatch(cluster) is None:
            raise BadRequest("cluster: 1 to 64 of the characters A-Z a-z 0-9 _ . -")
        self.cluster = cluster
        tag = f"ring:{{{cluster}}}:"
        self.members = tag + "members"
        self.leases = tag + "leases"
        self.epoch = tag + "epoch"
        self.geometry = tag + "geometry"
        self.table = tag + "table"
        self.suspects = tag + "suspects"
        self._room = f"ring:{cluster}:room:".encode()
        self._slot = f"ring:{{{cluster}/"

    def channel(self, room: str) -> bytes:
        """The Pub/Sub channel of a room."""
        return self._room + room.encode()

    def fence(self, slot: int) -> str:
        """Of a slot: the highest epoch whose owner has used its mailboxes."""
        return f"{self._slot}{slot}}}:fence"

    def box(self, slot: int, user: str) -> str:
        """A user's stored mailbox."""
        return f"{self._slot}{slot}}}:box:{user}"

    def read_mark(self, slot: int, user: str) -> str:
        """How far a user's stored mailbox has been read."""
        return f"{self._slot}{slot}}}:read:{user}"
