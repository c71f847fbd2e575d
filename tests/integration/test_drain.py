"""A node that is told to stop ends with code 0: when its clients have gone, or when its time is over."""

from pathlib import Path

import trio

from ring.verify.site import Site
from tests.integration.raw import RawClient, Watch
from tests.integration.visitors import visiting

DEADLINE_S = 60
DRAIN_S = 1.0
MARGIN_S = 4.0  # its process has to end


async def stopped(site: Site) -> tuple[float, int]:
    """How long n1 took to end, with code 0, and how many sessions it had left then."""
    began = trio.current_time()
    await site.stop("n1")
    [left] = site.nodes["n1"].logged("left")
    return trio.current_time() - began, left["sessions"]


async def test_when_they_have_gone(tmp_path: Path) -> None:
    """Not before, and at the pace of the budget: 20 clients at 10 per second."""
    with trio.fail_after(DEADLINE_S):
        options = {"drain_timeout_s": "20", "reconnects_per_s": "10"}
        async with (
            Site(nodes=2, ttl_s=3.0, options=options, directory=tmp_path) as site,
            trio.open_nursery() as nursery,
        ):
            watch, edges = Watch(), [site.edge("n1"), site.edge("n2")]
            clients = [RawClient(edges, f"u{n}", roams=True, watch=watch) for n in range(20)]
            for client in clients:
                await nursery.start(client.run)
            took, left = await stopped(site)
            assert left == 0
            assert 2.0 < took < 20.0 - MARGIN_S
            assert all(client.closes == [(1012, "the node drains")] for client in clients)
            await watch.until(lambda: {client.welcome.node for client in clients} == {"n2"})
            nursery.cancel_scope.cancel()


async def test_when_its_time_is_over(tmp_path: Path) -> None:
    """However little that is: all are told, and nobody is waited for who does not hear it."""
    with trio.fail_after(DEADLINE_S):
        async with Site(
            nodes=2, ttl_s=3.0, options={"drain_timeout_s": f"{DRAIN_S:g}"}, directory=tmp_path
        ) as site:
            client = RawClient([site.edge("n1"), site.edge("n2")], "ann", roams=True)
            port = int(site.edge("n1").rpartition(":")[2])
            async with trio.open_nursery() as nursery, visiting(port, "deaf"):  # but for its welcome
                await nursery.start(client.run)
                took, left = await stopped(site)
                nursery.cancel_scope.cancel()
            assert left == 0
            assert client.closes[:1] == [(1012, "the node drains")]
            assert took < DRAIN_S + MARGIN_S
