"""Fixtures of the tests of stored mailboxes: vaults on each server that is installed."""

import queue
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from ring.store.embedded import EmbeddedServer
from tests.mailbox.strongroom import PROGRAMS, Strongroom, connected

_Started = tuple[EmbeddedServer, trio.lowlevel.TrioToken, trio.CancelScope]


def _serve(program: str, started: "queue.SimpleQueue[_Started]") -> None:
    async def until_cancelled() -> None:
        with trio.CancelScope() as scope:
            async with EmbeddedServer(program=program) as server:
                started.put((server, trio.lowlevel.current_trio_token(), scope))
                await trio.sleep_forever()

    trio.run(until_cancelled)


@pytest.fixture(scope="session", params=PROGRAMS, ids=lambda program: Path(program).name)
def mailbox_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """Each kind of server, for the whole session; what a test puts there is under a cluster of its own."""
    started: queue.SimpleQueue[_Started] = queue.SimpleQueue()
    thread = threading.Thread(target=_serve, args=(request.param, started), daemon=True)
    thread.start()
    server, token, scope = started.get(timeout=10)
    yield server
    token.run_sync_soon(scope.cancel)
    thread.join(10)


@pytest.fixture
async def room(mailbox_server: EmbeddedServer) -> AsyncIterator[Strongroom]:
    """A vault whose time the test sets, and the server under it."""
    with trio.fail_after(30):
        async with connected(mailbox_server.url) as redis:
            yield Strongroom(redis)
