"""The epoch barrier: when slots may change hands. Pure; `router.transition` carries out what it allows.

On a change of the ring every node says *entered(E)* once it routes by epoch E, and links keep order, so an
old owner that has heard it from all live peers has everything that was ever routed to it. It hands its
mailboxes over and says *handed(E)*. A new owner holds the traffic of the slots it gained until every live
peer has said so: then what was handed over stands in front of what was held. Limits keep a silent peer from
stopping the ring: an old owner waits `ENTER_S`; a new one `HOLD_S` from when the first peer has entered, and
`NEWS_S` if none does. What is handed over later is merged by (sender, id), which loses nothing and may
reorder.
"""

from collections.abc import Iterable

ENTER_S = 0.8
"""An old owner hands over after this even if a peer has not entered: less than `HOLD_S`, so that it still
arrives in time."""

HOLD_S = 1.0
"""A new owner serves this long after the first peer entered, even if a peer has not handed over."""

NEWS_S = 2.0
"""How long a new owner waits for a first peer to enter: news of an epoch travels with the renewals at the
latest, and until a peer has entered, the old owners still serve."""


class Barrier:
    """What this node knows of its peers' progress, and what that allows it to do.

    A peer's word counts for its incarnation alone: `peer_up` forgets what an earlier one said.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.handed_over = True
        self.released = True
        self._peers: frozenset[str] = frozenset()
        self._entered: dict[str, int] = {}
        self._handed: dict[str, int] = {}
        self._incarnation: dict[str, str] = {}
        self._began = 0.0
        self._first_entered: float | None = None

    def begin(self, epoch: int, peers: Iterable[str], now: float) -> None:
        """Enters `epoch` among these live peers at `now` (monotonic seconds)."""
        self.epoch = epoch
        self._peers = frozenset(peers)
        self._began = now
        self._first_entered = (
            now if any(self._entered.get(peer, 0) >= epoch for peer in self._peers) else None
        )
        self.handed_over = False
        self.released = False

    def peer_up(self, name: str, incarnation: str) -> None:
        """A link to this incarnation stands; what another incarnation said no longer counts."""
        if self._incarnation.get(name) != incarnation:
            self._incarnation[name] = incarnation
            self._entered.pop(name, None)
            self._handed.pop(name, None)

    def entered(self, name: str, epoch: int, now: float) -> None:
        """The peer routes by `epoch`."""
        self._entered[name] = max(epoch, self._entered.get(name, 0))
        if self._first_entered is None and epoch >= self.epoch and name in self._peers:
            self._first_entered = now

    def routes_by(self, name: str) -> int:
        """The epoch by which a peer routes, as far as it has said."""
        return self._entered.get(name, 0)

    def handed(self, name: str, epoch: int) -> None:
        """The peer has handed over all that it lost at `epoch` and before."""
        self._handed[name] = max(epoch, self._handed.get(name, 0))

    def may_hand_over(self, now: float) -> bool:
        """True once, when everything that was routed to this node by earlier epochs has arrived, or `ENTER_S`
        is over."""
        if self.handed_over:
            return False
        if now - self._began < ENTER_S and any(
            self._entered.get(peer, 0) < self.epoch for peer in self._peers
        ):
            return False
        self.handed_over = True
        return True

    def may_release(self, now: float) -> bool:
        """True once, when every peer has handed over what this node gained, or the time for it is over."""
        if self.released:
            return False
        since = self._first_entered
        waiting = now - self._began < NEWS_S if since is None else now - since < HOLD_S
        if waiting and self.silent():
            return False
        self.released = True
        return True

    def silent(self) -> list[str]:
        """The peers that have not yet handed over: whom a new owner waits for."""
        return sorted(peer for peer in self._peers if self._handed.get(peer, 0) < self.epoch)
