"""Makes one HAProxy agree with the ring. It keeps nothing: what HAProxy has is read from HAProxy each time.

So it heals whatever was restarted, this agent included, and several may tend one HAProxy. In this order, so
that no client is ever sent to a node that HAProxy does not know:

    nodes that are new get a server | the map is replaced in one step | servers of those that went are closed
"""

import os
from collections.abc import Mapping
from pathlib import Path

import trio

from ring.haproxy.runtime import Place, Runtime
from ring.haproxy.wanted import EPOCH, Server, Wanted, rows
from ring.protocol.codes import RingError
from ring.transport.address import join_address, split_address

BACKEND, MAP = "nodes", "ring.map"
"""As Ring's configuration calls them."""

STATE = "servers.state"


class TooFewPlaces(RingError):
    """There are more nodes than servers in HAProxy's configuration."""


class OtherEpoch(RingError):
    """HAProxy has a later ring than the one that it was to get."""


class Agent:
    """See the module.

    Args:
        runtime: of the HAProxy.
        directory: where it keeps its map and the state of its servers, if that is here: they are written
            there, so that a reload starts with them. None if it is elsewhere.
    """

    def __init__(self, runtime: Runtime, directory: Path | None = None) -> None:
        self.runtime = runtime
        self._directory = directory
        self._agreed: tuple[str, list[tuple[str, str]]] | None = None  # a worker, and the rows that it had
        self._written: list[tuple[str, str]] | None = None

    async def reconcile(self, wanted: Wanted) -> list[str]:
        """Makes HAProxy agree with a ring; returns what was done for it, in words.

        Raises:
            HAProxySilent, HAProxyRefused: it cannot be done now.
            OtherEpoch: HAProxy has a later ring; nothing was changed.
            TooFewPlaces: some nodes have no server; all else is done.
        """
        runtime, done = self.runtime, list[str]()
        path = await runtime.map_named(MAP)
        epoch = await self._check_epoch(path, wanted)
        places = {place.name: place for place in await runtime.places(BACKEND)}
        servers = await _resolved(wanted.servers)
        given, homeless = await self._assign(places, servers)
        for node, name in given.items():
            place, server = places[name], servers[node]
            if (place.address, place.check) != (server.address, server.check):
                await runtime.put(BACKEND, name, server.address, server.check)
                done.append(f"{name} is {node} at {server.address}")
            if not place.ready:
                await runtime.set_state(BACKEND, name, "ready")
                done.append(f"{name} ({node}) takes clients")
        table = rows(wanted, given)
        if epoch != str(wanted.epoch) or not await self._agrees(path, table):
            await runtime.replace_map(path, table)
            done.append(f"the map is that of epoch {wanted.epoch}")
        for place in places.values():
            if place.ready and place.name not in given.values():
                await runtime.set_state(BACKEND, place.name, "maint")
                done.append(f"{place.name} takes no more clients")
        await self._write(path, table, changed=bool(done))
        if homeless:
            raise TooFewPlaces(
                f"HAProxy at {runtime.address} has {len(places)} servers for {len(servers)} nodes: none is "
                f"left for {', '.join(homeless)}: render its configuration with more --places"
            )
        return done

    async def differences(self, wanted: Wanted) -> list[str]:
        """Where HAProxy does not agree with a ring, in words.

        Raises:
            HAProxySilent, HAProxyRefused: it cannot be asked.
        """
        runtime, found = self.runtime, list[str]()
        path = await runtime.map_named(MAP)
        there = await runtime.rows(path)
        places = await runtime.places(BACKEND)
        servers = await _resolved(wanted.servers)
        at = {place.address: place for place in places if place.ready}
        names = {node: at[server.address].name for node, server in servers.items() if server.address in at}
        found += [f"{node} at {servers[node].address} has no server" for node in servers if node not in names]
        found += [
            f"{place.name} at {place.address} takes clients, and is no node of the ring"
            for place in at.values()
            if place.name not in names.values()
        ]
        epoch = there.pop(EPOCH, "none")
        if epoch != str(wanted.epoch):
            found.append(f"its map is of epoch {epoch}, the ring is at {wanted.epoch}")
        right = dict(rows(wanted, names))
        wrong = sum(there.get(slot) != right.get(slot) for slot in {*there, *right} - {EPOCH})
        if wrong:
            found.append(f"its map differs in {wrong} of {len(wanted.slots)} slots")
        return found

    async def _check_epoch(self, path: str, wanted: Wanted) -> str | None:
        """The epoch of the ring that HAProxy has, which is no later one; None if it has none."""
        epoch = await self.runtime.row(path, EPOCH)
        if epoch is not None and epoch.isdecimal() and int(epoch) > wanted.epoch:
            raise OtherEpoch(
                f"HAProxy at {self.runtime.address} has the ring of epoch {epoch}, and is not given that of "
                f"{wanted.epoch}"
            )
        return epoch

    async def _assign(
        self, places: dict[str, Place], servers: dict[str, Server]
    ) -> tuple[dict[str, str], list[str]]:
        """A server of HAProxy for each node: the one that it has, or a free one; and the nodes without."""
        at = {place.address: place.name for place in reversed(places.values())}
        given = {node: at[server.address] for node, server in servers.items() if server.address in at}
        new = [node for node in servers if node not in given]
        if not new:
            return given, []
        free = [name for name in places if name not in given.values()]
        busy = await self.runtime.busy(BACKEND)
        # One whose node went may have clients still; it is seen in the statistics as long as it stays.
        free.sort(key=lambda name: (places[name].ready, busy.get(name, 0)))
        given |= zip(new, free, strict=False)
        return given, new[len(free) :]

    async def _agrees(self, path: str, table: list[tuple[str, str]]) -> bool:
        """Whether the map has these rows. All of them are read again only if something has changed."""
        now = await self.runtime.pid(), table
        if now == self._agreed:
            return await self.runtime.count(path) == len(table)
        if await self.runtime.rows(path) != dict(table):
            return False
        self._agreed = now
        return True

    async def _write(self, path: str, table: list[tuple[str, str]], *, changed: bool) -> None:
        """Leaves what a reload or a restart starts with."""
        if self._directory is None:
            return
        if not changed and table == self._written:
            return
        state = await self.runtime.ask("show servers state")
        text = "".join(f"{key} {value}\n" for key, value in table)
        try:
            for name, content in ((MAP, text), (STATE, state)):
                await trio.to_thread.run_sync(_replace, self._directory / name, content)
        except OSError as error:
            raise RingError(f"cannot write to {self._directory}: {error.strerror}") from None
        self._written = table


def _replace(path: Path, content: str) -> None:
    """Whole or not at all: HAProxy may be starting."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


async def _resolved(servers: Mapping[str, Server]) -> dict[str, Server]:
    """With IP addresses: the Runtime API knows no names."""
    return {
        name: Server(await _numeric(server.address), await _numeric(server.check))
        for name, server in servers.items()
    }


async def _numeric(address: str) -> str:
    host, port = split_address(address)
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except OSError as error:
        raise RingError(f"{address} cannot be found: {error.strerror or error}") from None
    return join_address((str(found[0][4][0]), port))
