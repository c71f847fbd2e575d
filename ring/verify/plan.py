"""What a run of `ring verify` does: which faults, in which order, on what. The same for the same seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from ring.child import COMMAND
from ring.protocol.codes import BadRequest
from ring.verify.faults import OUTAGE_S, TTL_S, Fault, faults
from ring.verify.judge import Terms
from ring.verify.misconduct import MISCONDUCTS, Misconduct
from ring.verify.record import AFTERSHOCK_S

PAUSE_S = 3.0
"""Seconds of calm before, between and after the faults, once these are felt no more."""

SEND_TIMEOUT_S = 10.0
"""The default of the nodes."""

HEARTBEAT_S = 5.0
"""So that clients on a frozen node notice it within one fault, not within two minutes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module.

    Attributes:
        order: the faults, by name, in the order in which they are tried.
        rate: messages per second.
        outage_s: how long the long faults last.
        drain_s: at the end: so long without any of what is owed coming, and the rest will not come.
        haproxy: whether clients connect through HAProxy.
        options: of the nodes, beside those that the plan itself sets.
        command: what the nodes are started with.
    """

    seed: int
    order: tuple[str, ...]
    nodes: int = 4
    users: int = 120
    rate: float = 150.0
    pause_s: float = PAUSE_S
    ttl_s: float = TTL_S
    outage_s: float = OUTAGE_S
    send_timeout_s: float = SEND_TIMEOUT_S
    drain_s: float = 15.0
    haproxy: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = COMMAND

    @property
    def terms(self) -> Terms:
        """What the oracle goes by."""
        return Terms(send_timeout_s=self.send_timeout_s)

    @property
    def node_options(self) -> dict[str, str]:
        """Of every node."""
        given = {"send_timeout_s": f"{self.send_timeout_s:g}", "heartbeat_s": f"{HEARTBEAT_S:g}"}
        return {**given, "log_level": "warning", **self.options}

    @property
    def longest_s(self) -> float:
        """How long all the faults may last, at most."""
        known = known_faults(self.nodes, self.ttl_s, self.outage_s, haproxy=self.haproxy)
        return sum(known[name].longest_s + AFTERSHOCK_S + self.pause_s for name in self.order)


def known_faults(
    nodes: int = 4, ttl_s: float = TTL_S, outage_s: float = OUTAGE_S, *, haproxy: bool = False
) -> dict[str, Fault | Misconduct]:
    """All there are, by name; those of HAProxy where there is one."""
    of_site = faults(nodes=nodes, ttl_s=ttl_s, outage_s=outage_s, haproxy=haproxy)
    return {**of_site, **MISCONDUCTS}


def choose(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The faults that `all`, `none` or a list like "kill,freeze" names.

    Raises:
        BadRequest: one is not known.
    """
    if text == "all":
        return tuple(known)
    names = () if text == "none" else tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in known:
            if name in known_faults(haproxy=True):
                raise BadRequest(f"{name} needs an HAProxy: give --haproxy")
            raise BadRequest(f"no fault is called {name!r}: ring verify --list names them")
    return names


def order(names: Sequence[str], seed: int, *, alone: bool, random: int) -> tuple[str, ...]:
    """Each fault once, if `alone`, and then so many at random: none follows itself if there are others."""
    chosen = list(names) if alone else []
    draw = Random(f"order of {seed}")  # noqa: S311 - it has to be the same again
    for _ in range(random if names else 0):
        others = [name for name in names if not chosen or name != chosen[-1]] or list(names)
        chosen.append(draw.choice(others))
    return tuple(chosen)
