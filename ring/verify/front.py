"""HAProxy in front of a site, with the agent that keeps it equal to the ring: `ring verify --haproxy` has its
clients connect there, and restarts it too."""

from contextlib import AsyncExitStack
from functools import partial
from typing import Self

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


class Front:
    """`async with Front(site) as front`: HAProxy runs, and has the site's ring. Its tasks are the block's.

    Attributes:
        address: where clients connect, in all its lives.

    Raises:
        RingError: there is no HAProxy, or it does not start.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._seats = Seat(), Seat()
        self.address = self._seats[0].address
        options = Options(
            listen=self.address,
            operations=self._seats[1].address,
            places=MAX_NODES,
            max_clients=CLIENTS,
            address_connections=CLIENTS,
            address_rate=1_000_000,
        )
        self._balancer = Balancer(site.directory / "haproxy", options)
        self._epoch = 0
        self._agreed = trio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _begin(self) -> None:
        for seat in self._seats:
            self._stack.callback(seat.close)
        await self._stack.enter_async_context(self._balancer)
        nursery = await self._stack.enter_async_context(trio.open_nursery())
        self._stack.callback(nursery.cancel_scope.cancel)
        source = Nodes([f"http://{node.places['api']}" for node in self._site.nodes.values()])
        nursery.start_soon(partial(sync, source, [self._balancer.agent()], on_synced=self._on_synced))
        await self.agrees(30.0)

    def _on_synced(self, agent: Agent, ring: Wanted) -> None:
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
                path.unlink()
        await self._balancer.start()
        self._site.note("HAProxy is back")
