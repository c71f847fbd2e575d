"""How long after kill -9 of a node others serve its users, and where the time goes.

    .venv/bin/python -m tests.integration.kills --kills 20 [--json]

Each kill is that of a user's owner, in the middle of what another user sends from one survivor to the other.
"""

from argparse import ArgumentParser
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import time

import httpx
import msgspec
import trio

from ring.protocol.client import parse_seq
from ring.protocol.names import slot_of
from ring.store.embedded import EmbeddedServer
from ring.verify.node import NodeProcess
from tests.integration.cluster import Processes, processes
from tests.integration.raw import RawClient
from tests.integration.test_churn import table

PAUSE_S = 0.01  # between two messages of the sender
UNDER_WAY = 5  # messages of the same breath in which the owner is killed
ANSWERED_S = 10.0  # for what happens before the kill, and after it
WHOLE_S = 30.0
POLL_S = 0.05


@dataclass(frozen=True)
class Kill:
    """What happened, in seconds after the kill."""

    detected: float  # the first survivor lost its link
    accused: float  # and found nobody at its address
    removed: float  # the last survivor has entered the ring without it
    served: float  # the first message that the new owner numbered has arrived


async def whole(nodes: list[NodeProcess]) -> None:
    """Returns once these nodes agree on a ring of these and no others."""
    with trio.fail_after(WHOLE_S):
        async with httpx.AsyncClient() as http:
            while True:
                rings = []
                for node in nodes:
                    ring = (await http.get(f"http://{node.ready['api']}/v1/ring")).json()
                    rings.append((ring["epoch"], sorted(member["name"] for member in ring["nodes"])))
                if all(ring == rings[0] for ring in rings) and len(rings[0][1]) == len(nodes):
                    return
                await trio.sleep(POLL_S)  # HTTP tells a state, no event


def logged(node: NodeProcess, event: str, since: float) -> list[float]:
    """When a node logged this, in seconds after `since`."""
    lines = map(msgspec.json.decode, node.log.read_text().splitlines())
    times = [
        datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines if line["event"] == event
    ]
    return [at - since for at in times if at >= since]


async def kill(victim: NodeProcess, survivors: list[NodeProcess], owner: list[str]) -> Kill:
    """Kills a node that is the owner of somebody who is being written to."""
    user = next(name for name in map("to{}".format, count()) if owner[slot_of(name)] == victim.name)
    sender = RawClient([survivors[0].edge], "from")
    recipient = RawClient([survivors[-1].edge], user, watch=sender.watch)

    async def send_steadily() -> None:
        while True:
            sender.send(user)
            await trio.sleep(PAUSE_S)  # the pace of the load

    async with trio.open_nursery() as nursery:
        await nursery.start(sender.run)
        await nursery.start(recipient.run)
        nursery.start_soon(send_steadily)
        with trio.fail_after(ANSWERED_S):
            await sender.watch.until(lambda: len(recipient.arrivals) >= 10)
            before = parse_seq(recipient.arrivals[-1].seq)[0]
            under_way = [sender.send(user) for _ in range(UNDER_WAY)]
            killed_at, clock = time(), trio.current_time()
            victim.kill()
            await sender.watch.until(lambda: parse_seq(recipient.arrivals[-1].seq)[0] > before)
            served = recipient.arrivals[-1].at - clock
            await sender.watch.until(lambda: all(sent.answers for sent in under_way))
        assert [sent for sent in under_way if sent.status != "delivered"] == []
        nursery.cancel_scope.cancel()

    def first(event: str) -> float:
        return min(at for node in survivors for at in logged(node, event, killed_at))

    return Kill(
        detected=first("peer link down"),
        accused=first("peer seems dead: suspecting it"),
        removed=max(logged(node, "epoch entered", killed_at)[0] for node in survivors),
        served=served,
    )


async def kills(cluster: Processes, nodes: int, rounds: int) -> list[Kill]:
    """Kills the nodes in turn; each is started again, and the ring is whole, before the next."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    running = {node.name: node for node in await cluster.start(*names)}
    await whole(list(running.values()))
    seen = []
    for number in range(rounds):
        victim = running.pop(names[number % nodes])
        survivors = list(running.values())
        seen.append(await kill(victim, survivors, table(*names)))
        await victim.process.wait()
        again = await cluster.spawn(victim.name, victim.ready)
        await again.wait_ready()
        running[victim.name] = again
        await whole(list(running.values()))
    return seen


async def main() -> None:
    """See the module."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--ttl-s", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as directory:
        async with (
            EmbeddedServer() as store,
            processes(store.url, Path(directory), "--ttl-s", str(options.ttl_s)) as cluster,
        ):
            seen = await kills(cluster, options.nodes, options.kills)
    seconds = {
        field.name: [getattr(one, field.name) for one in seen]
        for field in fields(Kill)
    }  # as a table # fmt: skip
    if options.json:
        figures = {
            name: {"median": median(values), "worst": max(values), "all": values}
            for name, values in seconds.items()
        }
        said = {"kills": len(seen), "nodes": options.nodes, "ttl_s": options.ttl_s, "seconds": figures}
        print(msgspec.json.encode(said).decode())  # noqa: T201 - a command
        return
    print(f"{len(seen)} kills, {options.nodes} nodes, ttl {options.ttl_s:g} s; seconds after the kill:")  # noqa: T201 - a command
    for name, values in seconds.items():
        print(f"{name:>10}  median {median(values):.3f}  worst {max(values):.3f}")  # noqa: T201 - a command


if __name__ == "__main__":
    trio.run(main)
