"""What clients see that know HAProxy alone, when their node is killed, and when it stands still.

    .venv/bin/python -m tests.integration.outages --kills 20 --freezes 3 [--program haproxy] [--json]

Four nodes, 50 clients of the library, some 500 messages per second with receipts. It hits the node that has
most clients, with messages on their way to them.
"""

from argparse import ArgumentParser
from itertools import pairwise
from logging import NullHandler, getLogger
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec
import trio

from ring.client.connection import STEADY_S
from ring.haproxy.program import find
from ring.logs import logging
from tests.integration.scene import NAMES, Scene, behind_haproxy

WHOLE_S = 30.0
FROZEN_S = 10.0
CALM_S = STEADY_S + 1.0  # a client that loses one connection after the other waits longer each time
MOST_S = 60.0  # for one of them


def busiest(here: Scene) -> tuple[str, list[str]]:
    """The node that has most clients, and who they are."""
    return max(((name, here.on(name)) for name in NAMES), key=lambda node: len(node[1]))


async def served(here: Scene, users: list[str], since: float) -> list[float]:
    """Returns once each has got a message that was sent after this time: after how many seconds each did."""
    await here.load.watch.until(lambda: here.load.served_since(users, since))
    sent = {user: client.sent for user, client in here.load.users.items()}
    return [
        min(
            arrival.at
            for arrival in here.load.users[user].arrivals
            if arrival.at > since and sent[arrival.sender][arrival.n].at > since
        )
        - since
        for user in users
    ]


async def until_under_way(here: Scene, users: list[str]) -> None:
    """Returns when messages are on their way to these."""
    await here.load.watch.until(lambda: len(here.load.under_way(here.load.users, users)) > 0)


async def kill(here: Scene) -> list[float]:
    """SIGKILL, and a start: for each client of the node, after how many seconds it was served again."""
    name, hit = busiest(here)
    assert hit
    await until_under_way(here, hit)
    here.site.kill(name)
    seconds = await served(here, hit, trio.current_time())
    await here.site.start(name)
    await here.site.whole(WHOLE_S)
    await trio.sleep(CALM_S)  # the pace of the kills
    return seconds


async def freeze(here: Scene) -> tuple[list[float], list[float]]:
    """SIGSTOP for ten seconds: the longest silence of each of its clients, and of each of the others."""
    name, hit = busiest(here)
    others = [user for user in here.load.users if user not in hit]
    assert hit
    assert others
    await until_under_way(here, hit)
    began = trio.current_time()
    here.site.freeze(name)
    await trio.sleep(FROZEN_S)  # this is the fault: how long it stands still
    here.site.thaw(name)
    await served(here, hit + others, trio.current_time())
    await here.site.whole(WHOLE_S)
    await trio.sleep(CALM_S)  # as above
    silences = []
    for users in (hit, others):
        times = [[at for at in here.arrivals(user) if at > began - 1.0] for user in users]
        silences.append([max(after - before for before, after in pairwise(at)) for at in times])
    assert min(silences[0]) > FROZEN_S / 2, "its clients heard nothing"
    return silences[0], silences[1]


async def run(program: str, kills: int, freezes: int) -> dict[str, object]:
    """The figures, and what became of all messages."""
    with TemporaryDirectory(prefix="ring-outages-") as directory:
        async with behind_haproxy(Path(directory), program, MOST_S * (kills + freezes + 2)) as here:
            killed = [await kill(here) for _ in range(kills)]
            frozen = [await freeze(here) for _ in range(freezes)]
            await here.settle()
            load = here.load
            sent = list(load.sent())
    return {
        "kills": _summary(killed),
        "frozen_s": FROZEN_S,
        "frozen": _summary([hit for hit, _ in frozen]),
        "others": _summary([others for _, others in frozen]),
        "messages": len(sent),
        "queued": sum(one.status == "queued" for one in sent),
        "failed": sum(one.status == "failed" for one in sent),
        "lost": len(load.missing()),
        "doubled": len(load.doubled()),
        "reordered": len(load.disordered()),
        "stood_still_s": load.stalled_s,
    }


def _summary(times: list[list[float]]) -> dict[str, object]:
    if not times:
        return {"times": 0}
    everybody = [seconds for one in times for seconds in one]
    return {
        "times": len(times),
        "clients": len(everybody),
        "median": median(everybody),
        "worst": max(everybody),
        "all": [[round(seconds, 3) for seconds in one] for one in times],
    }


async def main() -> None:
    """See the module."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--freezes", type=int, default=3)
    parser.add_argument("--program", default=find())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    getLogger("ring.client").addHandler(NullHandler())  # which says that it lost its connection: it shall
    with logging("error", "console", "outages"):
        found = await run(options.program, options.kills, options.freezes)
    if options.json:
        print(msgspec.json.encode(found).decode())  # noqa: T201 - a command
        return
    for name, value in found.items():
        if isinstance(value, dict):
            value.pop("all", None)
        print(f"{name:>14}  {value}")  # noqa: T201 - a command


if __name__ == "__main__":
    trio.run(main)
