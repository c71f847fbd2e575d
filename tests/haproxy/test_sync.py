"""The agent's loop: what it does when it cannot read the ring, or reach HAProxy."""

from typing import cast

import pytest
import trio
from structlog.testing import capture_logs

from ring.cluster.view import Member, RingView
from ring.haproxy import sync as module
from ring.haproxy.agent import Agent
from ring.haproxy.runtime import HAProxySilent, Runtime
from ring.haproxy.source import NoRing, Source
from ring.haproxy.sync import sync
from ring.haproxy.wanted import Wanted, wanted
from ring.protocol.codes import RingError


class Words(Source):
    """A ring that is what the test says, or an error."""

    def __init__(self) -> None:
        self.says: RingView | RingError = NoRing("nobody answers")

    async def read(self) -> RingView:
        await trio.lowlevel.checkpoint()
        if isinstance(self.says, RingError):
            raise self.says
        return self.says


class Tended:
    """An agent of an HAProxy that is not there, or takes everything."""

    runtime = Runtime("/an/admin.sock")

    def __init__(self) -> None:
        self.trouble: RingError | None = None
        self.given: list[int] = []

    async def reconcile(self, wanted: Wanted) -> list[str]:
        await trio.lowlevel.checkpoint()
        if self.trouble:
            raise self.trouble
        if wanted.epoch in self.given:
            return []
        self.given.append(wanted.epoch)
        return [f"epoch {wanted.epoch}"]


def ring(epoch: int, state: str = "up") -> RingView:
    """A ring of one node."""
    member = Member("n1", "1", "127.0.0.1:1", "", "127.0.0.1:2", 1, state, "1")  # type: ignore[arg-type] # as the test says
    return RingView.build("test", epoch, [member])


async def rounds(count: int) -> None:
    """The loop has gone round so often."""
    await trio.sleep(count * module.EVERY_S)


async def test_what_goes_wrong(nursery: trio.Nursery) -> None:
    """It is said once when it begins and once when it is over; HAProxy keeps what it has meanwhile."""
    source, agent = Words(), Tended()
    with capture_logs() as logs:
        nursery.start_soon(sync, source, [cast("Agent", agent)])
        await rounds(4)
        assert [log["event"] for log in logs] == ["haproxy sync: nobody answers"]
        agent.trouble = HAProxySilent("HAProxy is away")
        source.says = ring(7)
        await rounds(4)
        assert sorted(log["event"] for log in logs[1:]) == [
            "haproxy sync: HAProxy is away",
            "haproxy sync: well again",
        ]
        agent.trouble = None
        await rounds(3)
        assert sorted(log["event"] for log in logs[3:]) == [
            "haproxy sync: epoch 7",
            "haproxy sync: well again",
        ]
        nursery.cancel_scope.cancel()
    assert agent.given == [7]


async def test_rings_that_are_not_applied(nursery: trio.Nursery) -> None:
    """One in which nobody takes clients, and one that is earlier than the last."""
    source, agent = Words(), Tended()
    with capture_logs() as logs:
        nursery.start_soon(sync, source, [cast("Agent", agent)])
        source.says = ring(8)
        await rounds(2)
        for view, why in (
            (ring(9, "draining"), "the ring has no node that takes clients"),
            (ring(6), "epoch 6 is before 8, which HAProxy has"),
            (RingView.build("test", 10, []), "the ring has no node that takes clients"),
        ):
            source.says = view
            await rounds(3)
            assert (agent.given, logs[-1]["event"]) == ([8], f"haproxy sync: {why}")
        source.says = ring(11)
        await rounds(3)
        nursery.cancel_scope.cancel()
    assert agent.given == [8, 11]


async def test_a_ring_that_is_read_again_is_not_computed_again(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is read four times a second, each time into a view of its own."""
    source, agent, computed = Words(), Tended(), []

    def counted(view: RingView) -> Wanted:
        computed.append(view.epoch)
        return wanted(view)

    monkeypatch.setattr(module, "wanted", counted)
    nursery.start_soon(sync, source, [cast("Agent", agent)])
    for epoch in (7, 7, 7, 8):
        source.says = ring(epoch)
        await rounds(2)
    nursery.cancel_scope.cancel()
    assert computed == [7, 8]
    assert agent.given == [7, 8]
