"""Who removes the dead from a frozen ring, when, and what becomes of two who do."""

from collections.abc import AsyncIterator
from typing import cast

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from ring.cluster.lease import Standing
from ring.cluster.view import Member, RingView
from ring.protocol.names import SLOTS
from ring.router.frozen_ring import DISPUTE_S, LOOK_EVERY_S, PROBE_S, FrozenRing
from ring.router.routing import Routing
from tests.router.node import FakeLink

NAMES = ("n1", "n2", "n3", "n4")
MEMBERS = {name: Member(name, f"{name}/1", "e", "p", "a", 1, "up", "0") for name in NAMES}


class Node:
    """A node of a frozen ring; by a clock that jumps to whatever comes next.

    Attributes:
        gone, silent: whose process is gone, and who says nothing.
        odd: whose address makes a probe fail as nobody expected.
        rings: the members of each that it has proposed.
    """

    def __init__(self, name: str, epoch: int = 5) -> None:
        self.name = name
        self.routing = Routing(node=name, incarnation=f"{name}/1", links={})
        self.links = cast("dict[str, FakeLink]", self.routing.links)
        self.gone: set[str] = set()
        self.silent: set[str] = set()
        self.odd: set[str] = set()
        self.rings: list[tuple[int, set[str]]] = []
        self.disputes: list[bool] = []  # whether each was a second one of its epoch
        self.ring = FrozenRing(self.routing, probe=self.probe, go_on_without=self.go_on_without)
        self.probing = 0
        self.probed, self.proposed = trio.Event(), trio.Event()
        self.enter(epoch, *NAMES)
        for other in NAMES:
            if other != name:
                self.link(other)

    def link(self, name: str) -> None:
        """A link stands."""
        self.links[name] = FakeLink(name, f"{name}/1")

    def enter(self, epoch: int, *names: str) -> None:
        """The ring is this."""
        members = [MEMBERS[name] for name in names]
        self.routing.view = RingView.build("c", epoch, members, ["n1"] * SLOTS)

    def lose(self, *names: str, gone: bool = True) -> None:
        """Peers die, or their links end at least."""
        for name in names:
            del self.links[name]
            if gone:
                self.gone.add(name)
        self.ring.link_down()

    async def probe(self, member: Member) -> bool:
        self.probing += 1
        self.probed.set()
        if member.name in self.silent:
            await trio.sleep_forever()
        if member.name in self.odd:
            raise UnicodeError("label empty or too long")
        await trio.sleep(0.001)
        return member.name in self.gone

    def go_on_without(self, dead: object, disputed: bool) -> None:
        view = self.routing.view
        assert view is not None
        assert isinstance(dead, set)
        names = [name for name in view.names if name not in dead]
        self.rings.append((view.epoch + 1, set(names)))
        self.disputes.append(disputed)
        self.proposed.set()
        self.enter(view.epoch + 1, *names)


async def freeze(nursery: trio.Nursery, node: Node) -> Node:
    """It runs, and Redis is away."""
    nursery.start_soon(node.ring.run)
    await wait_all_tasks_blocked()
    assert node.probing == 0
    node.ring.on_standing("frozen")
    await wait_all_tasks_blocked()
    return node


@pytest.fixture
async def node(nursery: trio.Nursery, autojump_clock: MockClock) -> AsyncIterator[Node]:
    """n2, in a frozen ring of four. (A test has to ask for the clock itself.)"""
    yield await freeze(nursery, Node("n2"))
    nursery.cancel_scope.cancel()


async def test_the_coordinator_goes_on_without_the_dead(autojump_clock: MockClock, node: Node) -> None:
    """n1 has died, so it is n2 that speaks: at once, without both that died at once, and only once."""
    began = trio.current_time()
    node.lose("n1", "n4")
    await node.proposed.wait()
    assert trio.current_time() - began < LOOK_EVERY_S / 2
    await trio.sleep(10)
    assert node.rings == [(6, {"n2", "n3"})]


async def test_who_died_before_the_ring_froze_is_found(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """No link ends then; nor is every end a death at once."""
    node = Node("n1")
    node.lose("n2")
    await freeze(nursery, node)
    await trio.sleep(0.01)
    assert node.rings == [(6, {"n1", "n3", "n4"})]
    node.lose("n3", gone=False)
    await trio.sleep(1)
    assert len(node.rings) == 1
    node.gone.add("n3")
    await trio.sleep(2 * LOOK_EVERY_S)
    assert node.rings[1:] == [(7, {"n1", "n4"})]


async def test_a_lower_name_that_is_linked_speaks(autojump_clock: MockClock, node: Node) -> None:
    """Even if this one cannot see why it does not."""
    node.lose("n3")
    await trio.sleep(10)
    assert (node.rings, node.probing) == ([], 0)


async def test_who_is_silent_is_not_removed(autojump_clock: MockClock, node: Node) -> None:
    """It may live behind a broken network; and it holds up nobody else's removal for long."""
    node.lose("n1")
    node.silent.add("n3")
    node.lose("n3", gone=False)
    await trio.sleep(2 * PROBE_S)
    assert node.rings == [(6, {"n2", "n3", "n4"})]


async def test_who_is_linked_again_is_not_removed(
    autojump_clock: MockClock, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started again, or had never died."""

    async def probe(member: Member) -> bool:
        node.link(member.name)
        await trio.lowlevel.checkpoint()
        return True

    monkeypatch.setattr(node.ring, "_probe", probe)
    node.lose("n1")
    await trio.sleep(10)
    assert node.rings == []


@pytest.mark.parametrize("standing", ["held", "unsure", "superseded", "isolated"])
async def test_in_any_other_standing_nobody_is_removed(
    autojump_clock: MockClock, node: Node, standing: Standing
) -> None:
    """Redis may say who lives, or it is this node that is cut off; also if that shows while it looks."""
    node.ring.on_standing(standing)
    node.ring.on_standing(standing)
    node.lose("n1")
    await trio.sleep(10)
    assert node.rings == []
    node.ring.on_standing("frozen")
    await node.probed.wait()
    node.ring.on_standing(standing)
    await trio.sleep(10)
    assert node.rings == []


async def test_a_ring_that_changes_meanwhile_is_looked_at_anew(autojump_clock: MockClock, node: Node) -> None:
    """A proposal is made of the ring that it is about."""
    node.lose("n1")
    await node.probed.wait()
    node.enter(9, *NAMES)
    await wait_all_tasks_blocked()
    await trio.sleep(2 * LOOK_EVERY_S)
    assert node.rings == [(10, {"n2", "n3", "n4"})]


@pytest.mark.parametrize("who", ["a guest", "another life", "a node without a ring"])
async def test_only_a_member_speaks(nursery: trio.Nursery, autojump_clock: MockClock, who: str) -> None:
    """Whoever was removed lives on as a gateway, and is not to take the others for dead."""
    node = Node("n1")
    node.lose("n2", "n3", "n4")
    if who == "a guest":
        node.enter(6, "n2", "n3", "n4")
    elif who == "another life":
        members = [replace(MEMBERS["n1"], incarnation="n1/2"), *map(MEMBERS.__getitem__, NAMES[1:])]
        node.routing.view = RingView.build("c", 6, members, ["n1"] * SLOTS)
    else:
        node.routing.view = None
        node.ring.news(5, 1)
    await freeze(nursery, node)
    await trio.sleep(10)
    assert (node.rings, node.probing) == ([], 0)


async def test_of_two_coordinators_one_prevails(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """n1 and n2 take each other for dead and are both linked with the rest: one ring, with one of them."""
    first, second = Node("n1"), Node("n2")
    entered = {name: Node(name) for name in ("n3", "n4")}  # who follow, and tell what they know

    def spread() -> None:
        """News travels: each enters what is of a later epoch, and hears of others of its own."""
        nodes = [first, second, *entered.values()]
        views = [node.routing.view for node in nodes]
        for node in nodes:
            for view in views:
                mine = node.routing.view
                assert mine is not None
                assert view is not None
                if view.epoch > mine.epoch:
                    node.routing.view = view
                node.ring.news(view.epoch, view.members_hash)

    first.lose("n2")
    second.lose("n1")
    for node in (first, second):
        await freeze(nursery, node)
    await trio.sleep(0.01)
    assert [node.rings[0] for node in (first, second)] == [
        (6, {"n1", "n3", "n4"}),
        (6, {"n2", "n3", "n4"}),
    ]
    for _ in range(round(5 * DISPUTE_S / 0.01)):
        spread()
        await trio.sleep(0.01)
    views = [node.routing.view for node in (first, second, *entered.values())]
    assert len({(view.epoch, view.names) for view in views if view is not None}) == 1
    assert len(first.rings) + len(second.rings) < 8
    for node in (first, second):
        assert node.disputes == [False] + [True] * (len(node.rings) - 1)


async def test_a_probe_that_fails_ends_nobody(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """An address that no name can be: its node stays, the dead go all the same, and this one lives on."""
    node = Node("n1")
    node.odd.add("n2")
    node.lose("n2", "n3")
    await freeze(nursery, node)
    with trio.fail_after(10):
        await node.proposed.wait()
    assert node.rings[0] == (6, {"n1", "n2", "n4"})
    nursery.cancel_scope.cancel()
