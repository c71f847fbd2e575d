"""The frozen picture of the ring that a node routes by.

A view is built whole, off the pump's path, and swapped whole: whoever holds one sees one epoch. The router
looks into `owners` for every message.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Self

from ring.cluster.placement import NOBODY, place, table_hash
from ring.protocol.names import slot_of
from ring.protocol.peer import MemberEntry

Member = MemberEntry


@dataclass(frozen=True, slots=True, eq=False)
class RingView:
    """The members of one epoch and the slot table that follows from them."""

    cluster: str
    epoch: int
    members: tuple[Member, ...]
    """Sorted by name."""
    members_hash: int
    """Of all that placement and peers depend on; the same in Redis, where a script computes it."""
    owners: list[str]
    """Slot -> name of the owner, `NOBODY` where there is none. Not to be changed."""
    table_hash: str
    previous: int
    """The epoch before this one; 0 if that is not known. Who was not in it may have missed a change and its
    return."""
    _by_name: dict[str, Member] = field(repr=False)
    _without: dict[str, list[str]] = field(default_factory=dict, repr=False)

    @classmethod
    def build(
        cls,
        cluster: str,
        epoch: int,
        members: Iterable[Member],
        owners: list[str] | None = None,
        *,
        previous: int = 0,
    ) -> Self:
        """The view of these members: some milliseconds of work (tens at 64 members), for a worker thread.

        Args:
            cluster: the cluster's name.
            epoch: the epoch that the members belong to.
            members: in any order.
            owners: the slot table, if it is known already.
            previous: the epoch before, if that is known.
        """
        by_name = {member.name: member for member in members}
        ordered = tuple(by_name[name] for name in sorted(by_name))
        table = place(ordered) if owners is None else owners
        return cls(
            cluster, epoch, ordered, members_hash(ordered), table, table_hash(table), previous, by_name
        )

    def owner(self, user: str) -> str:
        """The name of the member that owns `user`, `NOBODY` if no member may own."""
        return self.owners[slot_of(user)]

    def owner_of_slot(self, slot: int) -> str:
        """The name of the member that owns `slot`, `NOBODY` if no member may own."""
        return self.owners[slot]

    def successor_of_slot(self, slot: int) -> str:
        """The member that would own `slot` if its owner went, `NOBODY` if none would.

        The first call for an owner computes a placement (see `build`), later ones look it up.
        """
        owner = self.owners[slot]
        if owner == NOBODY:
            return NOBODY
        table = self._without.get(owner)
        if table is None:
            table = self._without[owner] = place(member for member in self.members if member.name != owner)
        return table[slot]

    def member(self, name: str) -> Member | None:
        """The member of this name."""
        return self._by_name.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, sorted."""
        return tuple(member.name for member in self.members)

    def shares(self) -> dict[str, int]:
        """How many slots each member owns."""
        counts = Counter(self.owners)
        return {member.name: counts[member.name] for member in self.members}


def members_hash(members: Iterable[Member]) -> int:
    """A number that differs where members differ in name, incarnation, addresses, weight or state.

    A sum of one hash per member, so that Redis' scripts can compute it too without sorting (Lua sorts by the
    server's locale), and of 48 bits, since Lua counts in doubles. `version` is left out: what a release is
    called changes nothing that nodes must agree on.
    """
    return sum(map(_member_hash, members)) % (1 << 48)


def _member_hash(member: Member) -> int:
    text = "\n".join(
        (
            member.name,
            member.incarnation,
            member.edge,
            member.peer,
            member.api,
            str(member.weight),
            member.state,
        )
    )
    return int.from_bytes(sha1(text.encode(), usedforsecurity=False).digest()[:6])
