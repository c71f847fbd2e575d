"""HAProxy in front of a site, with the agent that keeps it equal to the ring: `ring verify --haproxy` has its
clients connect there, and restarts it too."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from ring.haproxy.agent import BACKEND, Agent
from ring.haproxy.config import Options
from ring.haproxy.program import Balancer
from ring.haproxy.source import Nodes
from ring.haproxy.sync import sync
from ring.haproxy.wanted import Wanted
from ring.verify.gate import Seat
from ring.verify.node import SiteFailed
from ring.verify.site import MAX_NODES, Site

CLIENTS = 5000
"""More than a crowd has, though all of it should connect twice at one time."""

BEGIN_S = 30.0
"""How long it may take until it has the ring for the first time."""


class Front:
    """An HAProxy in front of a site; made by `in_front_of`.

    Attributes:
        address: where clients connect, in all its lives.
    """

    def __init__(self, site: Site, address: str, balancer: Balancer) -> None:
        self.address = address
        self._site = site
        self._balancer = balancer
        self._epoch = 0
        self._agreed = trio.Event()

    def on_synced(self, agent: Agent, ring: Wanted) -> None:
        """The agent has seen that HAProxy has this ring."""
        self._epoch = ring.epoch
        self._agreed.set()
        self._agreed = trio.Event()

    async def agrees(self, within_s: float) -> float:
        """Returns once it has the site's ring: after how many seconds.

        Raises:
            SiteFailed: not in time.
        """
        began = trio.current_time()
        epochs = [report.epoch for report in (await self._site.reports()).values() if report is not None]
        with trio.move_on_after(within_s):
            await self._agreed.wait()  # the agent may have looked before whatever has happened
            while True:
                await self._agreed.wait()
                if self._epoch >= max(epochs, default=0):
                    return trio.current_time() - began
        raise SiteFailed(f"HAProxy has not got the ring within {within_s:g} s: it is at epoch {self._epoch}")

    async def pid(self) -> str:
        """Of its process."""
        return await self._balancer.runtime.pid()

    async def connections(self) -> int:
        """Of clients, to nodes."""
        return sum((await self._balancer.runtime.busy(BACKEND)).values())

    async def stop(self) -> None:
        """All connections through it are cut."""
        await self._balancer.stop()
        self._site.note("HAProxy has stopped")

    async def start(self, *, empty: bool) -> None:
        """Starts it again; with nothing on its disk, if `empty`."""
        if empty:
            for path in self._balancer.directory.iterdir():
                path.unlink(missing_ok=True)  # the agent may be writing
        await self._balancer.start()
        self._site.note("HAProxy is back")


@asynccontextmanager
async def in_front_of(site: Site, program: str | None = None) -> AsyncIterator[Front]:
    """HAProxy runs, and has the site's ring, for the block; it is `site.front` meanwhile.

    Args:
        site: the cluster.
        program: the HAProxy; found if it is not given.

    Raises:
        RingError: there is no HAProxy, or it does not start.
    """
    seats = Seat(), Seat()
    options = Options(
        listen=seats[0].address,
        operations=seats[1].address,
        places=MAX_NODES,
        max_clients=CLIENTS,
        address_connections=CLIENTS,
        address_rate=1_000_000,
    )
    try:
        # Of a short name: the path of a socket in there may have a hundred bytes.
        async with Balancer(site.directory / "h", options, program) as balancer:
            site.front = front = Front(site, seats[0].address, balancer)
            source = Nodes([f"http://{node.places['api']}" for node in site.nodes.values()])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(sync, source, [balancer.agent()], on_synced=front.on_synced))
                await front.agrees(BEGIN_S)
                yield front
                nursery.cancel_scope.cancel()
    finally:
        site.front = None
        for seat in seats:
            seat.close()
