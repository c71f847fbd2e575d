"""The previous release beside this one: nodes are upgraded in turn under load, and back again."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ring.verify.site import Site
from tests.integration.load import LibraryClient, Load
from tests.integration.raw import RawClient

ROOT = Path(__file__).parents[2]
PREVIOUS = "77cdef7c2ee969f7627829709f84a4c13bca7459"
"""The last commit of the release before this one: peer protocol 1, no mailboxes in Redis, no rooms."""

DEADLINE_S = 120
WHOLE_S = 20.0
NAMES = ("n1", "n2", "n3")
WARM_UP = 200

Record = Callable[[str, object], None]


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What starts a node of the previous release, taken from this repository's history."""
    directory = tmp_path_factory.mktemp("previous")
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    packed = subprocess.run([*git, "archive", PREVIOUS, "ring"], capture_output=True, check=False)
    if packed.returncode:
        shallow = subprocess.run(
            [*git, "rev-parse", "--is-shallow-repository"], capture_output=True, check=False
        )
        if shallow.stdout.strip() != b"false":
            pytest.xfail(f"no commit {PREVIOUS[:7]} here: these are sources without their history")
        pytest.skip(f"no commit {PREVIOUS[:7]} in this history")
    subprocess.run(["tar", "-x", "-C", str(directory)], input=packed.stdout, check=True)
    start = f"import runpy, sys; sys.path.insert(0, {str(directory)!r}); "
    return sys.executable, "-c", start + "runpy.run_module('ring.cli.child', run_name='__main__')"


async def is_previous(site: Site, name: str) -> bool:
    """Whether the node is of the release that had no metrics."""
    return (await site.nodes[name].http.get("/metrics")).status_code == 404


@asynccontextmanager
async def talking(site: Site) -> AsyncIterator[Load]:
    """Clients of both kinds on all nodes, who know all of them and talk to each other."""
    load = Load(seed=1)
    edges = [site.edge(name) for name in NAMES]
    async with trio.open_nursery() as nursery:
        for number in range(21):
            mine = edges[number % 3 :] + edges[: number % 3]
            if number % 7 < 4:
                user = f"raw {number}"
                load.raw[user] = RawClient(mine, user, roams=True, watch=load.watch)
                await nursery.start(load.raw[user].run)
            else:
                user = f"library {number}"
                load.library[user] = LibraryClient(mine, user, load.watch)
                await nursery.start(load.library[user].run)
        nursery.start_soon(load.run)
        await load.until_answered(WARM_UP)
        yield load
        await load.until_answered(WARM_UP)
        await load.stop()
        await load.until_arrived()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("back", [False, True])
async def test_nodes_are_upgraded_in_turn(
    tmp_path: Path, previous: tuple[str, ...], record: Record, back: bool
) -> None:
    """One after the other is stopped and started as this release, or goes back to the one before: nobody
    notices."""
    was, now = (None, previous) if back else (previous, None)
    with trio.fail_after(DEADLINE_S):
        async with Site(nodes=0, ttl_s=3.0, directory=tmp_path) as site:
            for name in NAMES:
                await site.start(name, was)
            await site.whole(WHOLE_S)
            async with talking(site) as load:
                for name in NAMES:
                    assert await is_previous(site, name) is not back
                    await site.stop(name)
                    await site.start(name, now)
                    assert await is_previous(site, name) is back
                    await site.whole(WHOLE_S)
                    await load.until_answered(WARM_UP)
            sent = list(load.sent())
            record("messages", len(sent))
            record("not delivered", sum(one.status != "delivered" for one in sent))
            record("doubled to raw clients", len(load.doubled()))
            assert load.missing() == []
            assert [double for double in load.doubled() if double.to in load.library] == []
            assert [double for double in load.doubled() if not double.arrival.redelivered] == []
            assert [one for one in sent if one.status != "delivered"] == []
            assert site.complaints() == []
