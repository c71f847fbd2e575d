"""What a run does: which faults, in which order."""

from itertools import pairwise

import pytest

from ring.protocol.codes import BadRequest
from ring.verify.plan import Plan, choose, known_faults, order


class TestChoose:
    def test_names(self) -> None:
        """All, none, or those that are named, in that order."""
        known = ["kill", "freeze", "stop"]
        assert choose("all", known) == ("kill", "freeze", "stop")
        assert choose("none", known) == ()
        assert choose("stop, kill", known) == ("stop", "kill")

    def test_unknown(self) -> None:
        """One that there is not is refused; it says where they are named."""
        with pytest.raises(BadRequest, match=r"no fault is called 'kil'.*--list"):
            choose("kil", ["kill"])


class TestOrder:
    def test_alone(self) -> None:
        """Each once, as they were named."""
        assert order(("a", "b"), 1, alone=True, random=0) == ("a", "b")

    def test_random(self) -> None:
        """So many at random, the same for the same seed, and none twice in a row."""
        names = ("a", "b", "c")
        chosen = order(names, 1, alone=True, random=200)
        assert chosen[:3] == names
        assert len(chosen) == 203
        assert set(chosen[3:]) == set(names)
        assert all(one != other for one, other in pairwise(chosen))
        assert chosen == order(names, 1, alone=True, random=200)
        assert chosen != order(names, 2, alone=True, random=200)

    def test_of_one_or_none(self) -> None:
        """One alone has to follow itself; of none there is nothing to choose."""
        assert order(("a",), 1, alone=False, random=3) == ("a", "a", "a")
        assert order((), 1, alone=True, random=3) == ()


def test_faults() -> None:
    """There are those of the site and those of the crowd, and each says how long it lasts."""
    known = known_faults()
    assert {"kill", "redis-rollback", "link-cut-one-way", "slow-clients", "mute-clients"} <= set(known)
    restarts = {"haproxy-restart", "haproxy-empty-restart"}
    assert not restarts & known.keys()
    with pytest.raises(BadRequest, match="haproxy-restart needs an HAProxy: give --haproxy"):
        choose("kill,haproxy-restart", list(known))
    known = known_faults(haproxy=True)
    assert restarts <= known.keys()
    assert all(name == fault.name and fault.longest_s > 0 for name, fault in known.items())
    assert Plan(1, ("kill", "kill")).longest_s == 2 * (known["kill"].longest_s + 2.5 + 3.0)
