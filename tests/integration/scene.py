"""Four nodes behind HAProxy, under the load of clients that know HAProxy alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import trio

from ring.verify.front import in_front_of
from ring.verify.site import Site
from tests.integration.load import LibraryClient, Load

NAMES = ("n1", "n2", "n3", "n4")
CLIENTS = 50  # of the library: at its pace some 500 messages per second
BUDGET = 10.0  # reconnects per second
OPTIONS = {"reconnects_per_s": f"{BUDGET:g}", "linger_s": "5", "spill_after_s": "5"}


@dataclass
class Scene:
    """Four nodes, HAProxy, and clients that know it alone."""

    site: Site
    load: Load
    address: str
    reconnects: list[float] = field(default_factory=list)

    async def watch_reconnects(self) -> None:
        """Notes when a client is in another session than before."""
        sessions: dict[str, str] = {}
        while True:
            for user, client in self.load.library.items():
                before = sessions.get(user, client.first_session)
                if client.client.session != before:
                    self.reconnects.append(trio.current_time())
                sessions[user] = client.client.session
            await trio.sleep(0.01)  # a poll

    async def settle(self) -> None:
        """The load ends; all is answered, and there."""
        await self.load.until_answered(300)
        await self.load.stop()
        await self.load.until_arrived()

    def off_owner(self) -> list[str]:
        """Clients that are not on their owner now."""
        clients = self.load.library.values()
        return [one.user for one in clients if one.client.node != one.client.owner]

    def on(self, name: str) -> list[str]:
        """The users who are on this node."""
        return [user for user, one in self.load.library.items() if one.client.node == name]

    def arrivals(self, user: str) -> list[float]:
        """When this user got something."""
        return [arrival.at for arrival in self.load.users[user].arrivals]

    def longest_silence(self, users: list[str]) -> float:
        """The longest time in which somebody got nothing."""
        return max(after - before for user in users for before, after in pairwise(self.arrivals(user)))

    def most_reconnects_per_s(self) -> int:
        """In the worst second."""
        times = self.reconnects
        return max((sum(at <= other < at + 1 for other in times) for at in times), default=0)

    def assert_nobody_noticed(self) -> None:
        """Nothing was lost, doubled, reordered or refused."""
        assert [sent for sent in self.load.sent() if sent.status != "delivered"] == []
        assert self.load.missing() == []
        assert self.load.doubled() == []
        assert self.load.disordered() == []


@asynccontextmanager
async def behind_haproxy(
    directory: Path, program: str | None, deadline_s: float = 150.0
) -> AsyncIterator[Scene]:
    """All of it under load.

    Args:
        directory: for logs and sockets.
        program: the HAProxy; any, if it is not given.
        deadline_s: for the block.
    """
    with trio.fail_after(deadline_s):
        async with (
            Site(nodes=4, ttl_s=3.0, options=OPTIONS, directory=directory) as site,
            in_front_of(site, program) as haproxy,
            trio.open_nursery() as nursery,
        ):
            load = Load(5)
            for number in range(CLIENTS):
                client = LibraryClient([haproxy.address], f"user {number}", load.watch)
                load.library[client.user] = client
                await nursery.start(client.run)
            here = Scene(site, load, haproxy.address)
            assert here.off_owner() == [], "all landed on their owner"
            nursery.start_soon(here.watch_reconnects)
            nursery.start_soon(load.run)
            await load.until_answered(300)
            yield here
            nursery.cancel_scope.cancel()
