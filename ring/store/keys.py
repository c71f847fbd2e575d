"""The names of Ring's keys in the store, in one place."""

import re

from ring.protocol.codes import BadRequest

_CLUSTER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Keys:
    """The keys of one cluster.

    Those of membership share a hash tag, since scripts touch several: a Redis Cluster keeps them on one node.
    The channels of rooms share none: there they are spread over the nodes.

    Args:
        cluster: the cluster's name, 1 to 64 of `A-Z a-z 0-9 _ . -`.

    Raises:
        BadRequest: the name is something else.
    """

    __slots__ = ("_room", "cluster", "epoch", "geometry", "leases", "members", "table")

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
        self._room = f"ring:{cluster}:room:".encode()

    def channel(self, room: str) -> bytes:
        """The Pub/Sub channel of a room."""
        return self._room + room.encode()
