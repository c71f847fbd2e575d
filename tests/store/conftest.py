"""Fixtures of the store's tests: connections in memory (wires.py)."""

import pytest
import trio

from ring.store.connection import Connection
from tests.store.wires import Harbour, Peer


@pytest.fixture
async def harbour() -> Harbour:
    """Where the client under test dials."""
    return Harbour()


@pytest.fixture
async def peer() -> Peer:
    """The server's end of the connection."""
    return Peer()


@pytest.fixture
async def connection(nursery: trio.Nursery, peer: Peer) -> Connection:
    """A running connection with room for three commands."""
    connection = Connection(peer.client_end, max_in_flight=3)
    await nursery.start(connection.run)
    return connection
