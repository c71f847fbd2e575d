"""What `ring plan` says beside what a cluster then does, and what commands find out with all nodes down."""

import json
import sys
from collections import Counter
from functools import partial
from typing import Any

import trio

import ring
from ring.cluster.scripts import set_weight
from ring.node import Node
from ring.protocol.names import slot_of
from ring.store.client import Redis
from ring.store.keys import Keys
from tests.cluster.seats import eventually
from tests.integration.cluster import nodes, settings

NAMES = ("n1", "n2", "n3")
USERS = [f"user{number}" for number in range(40)]
DEADLINE_S = 60
GONE = "n1, n2 and n3 have not renewed their leases: they are down, or cut off from Redis"


async def command(*arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
    """What a command prints as JSON; it ends with one of these codes."""
    done = await trio.run_process(
        [sys.executable, "-m", "ring", *arguments, "--json"], capture_stdout=True, check=False
    )
    assert done.returncode in codes
    return json.loads(done.stdout)


async def settled(running: dict[str, Node], *names: str) -> list[str]:
    """The slot table, once all of these route by a ring of just these."""

    def tables() -> list[list[str]]:
        views = [running[name].view for name in names]
        return [view.owners for view in views if view is not None and view.names == names]

    await eventually(lambda: len(tables()) == len(names))
    assert all(table == tables()[0] for table in tables())
    return tables()[0]


def owners(node: Node) -> list[str]:
    """The slot table that it routes by."""
    assert node.view is not None
    return node.view.owners


def moves(before: list[str], after: list[str]) -> dict[tuple[str, str], int]:
    """How many slots went from where to where."""
    return Counter(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])


def told(plan: Any) -> dict[tuple[str, str], int]:
    """The same, as the plan has it."""
    return {(move["from"], move["to"]): move["slots"] for move in plan["moves"]}


async def test_a_plan_is_what_happens(redis_url: str, nursery: trio.Nursery) -> None:
    """A node comes, gets another weight, another one leaves: to the slot, and to the session."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, *NAMES) as running:
            api = ("--api", running["n2"].addresses["api"])
            before = await settled(running, *NAMES)
            edges = [node.addresses["edge"] for node in running.values()]
            connected = trio.Event()
            left = {user: edges[number % 3] for number, user in enumerate(USERS)}

            async def connect(user: str) -> None:
                async with ring.connect(f"ws://{left.pop(user)}", user):
                    if not left:
                        connected.set()
                    await trio.sleep_forever()

            for user in USERS:
                nursery.start_soon(connect, user)
            await connected.wait()

            # comes
            plan = await command("plan", "--add", "n4=2", *api)
            running["n4"] = Node(settings("n4", redis_url, weight=2))
            await nursery.start(running["n4"].run)
            after = await settled(running, *NAMES, "n4")
            assert told(plan) == moves(before, after)
            assert plan["slots"] == sum(moves(before, after).values()) > 0
            slots = [slot_of(user) for user in USERS]
            moved = sum(before[slot] != after[slot] for slot in slots)
            assert (plan["sessions"], plan["sessions_known"]) == (moved, len(USERS))
            shares = {node["name"]: node["slots_after"] for node in plan["nodes"]}
            assert shares == Counter(after)

            # weighs more
            before = after
            plan = await command("plan", "--weight", "n1=3", *api)
            await _set_weight(redis_url, "n1", 3)
            await eventually(lambda: all(owners(node) != before for node in running.values()))
            after = await settled(running, *NAMES, "n4")
            assert told(plan) == moves(before, after)

            # goes
            before = after
            plan = await command("plan", "--remove", "n4", *api)
            leaving = running.pop("n4")
            nursery.start_soon(leaving.drain)
            after = await settled(running, *NAMES)
            assert told(plan) == moves(before, after)
            nursery.cancel_scope.cancel()


async def _set_weight(redis_url: str, name: str, weight: int) -> None:
    redis = Redis.from_url(redis_url, client_name="test")
    async with trio.open_nursery() as connection:
        await connection.start(redis.run)
        await set_weight(redis, Keys("test"), name, weight)
        connection.cancel_scope.cancel()


async def test_with_all_nodes_down(redis_url: str) -> None:
    """Redis alone tells the same shares and the same plan as the nodes did; of sessions nobody tells."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, *NAMES, ttl_s=1.0) as running:
            await settled(running, *NAMES)
            api = ("--api", running["n1"].addresses["api"])
            ask = {name: partial(command, *words) for name, words in COMMANDS.items()}
            alive = {name: await asked(*api) for name, asked in ask.items()}
        redis = ("--redis", redis_url, "--cluster", "test")
        down: dict[str, Any] = {"status": {"warnings": []}}
        while down["status"]["warnings"] != [GONE]:  # until all leases have run out
            down["status"] = await command("status", *redis, codes=(0, 1))
        down |= {name: await ask[name](*redis) for name in ("balance", "plan")}
    for name, known in alive.items():
        assert (known["source"], down[name]["source"]) == ("nodes", "redis")
        assert known["epoch"] == down[name]["epoch"]
    for name in ("status", "balance"):
        for up, gone in zip(alive[name]["nodes"], down[name]["nodes"], strict=True):
            assert (up["name"], up["slots"], up["share"]) == (gone["name"], gone["slots"], gone["share"])
            assert (up["sessions"], gone["sessions"]) == (0, None)
    assert told(alive["plan"]) == told(down["plan"])
    assert (alive["plan"]["sessions"], down["plan"]["sessions"]) == (0, None)


COMMANDS = {"status": ("status",), "balance": ("balance",), "plan": ("plan", "--add", "n4", "--remove", "n1")}


async def test_what_nodes_say_of_themselves(redis_url: str, nursery: trio.Nursery) -> None:
    """`ring status` of a healthy cluster has no question mark but for what a node does not tell, and no
    warning."""
    with trio.fail_after(DEADLINE_S):
        async with nodes(redis_url, *NAMES) as running:
            await settled(running, *NAMES)
            node = running["n3"]
            other = next(user for user in USERS if owners(node)[slot_of(user)] != "n3")
            async with ring.connect(f"ws://{node.addresses['edge']}", other):
                found = await command("status", "--api", running["n1"].addresses["api"])
    assert found["warnings"] == []
    assert found["total"] == {"sessions": 1, "users": 1, "off_owner": 1, "of": 3}
    third = found["nodes"][2]
    assert (third["name"], third["sessions"], third["off_owner"], third["links_up"]) == ("n3", 1, 1, 2)
    for told_of in found["nodes"]:
        assert (told_of["state"], told_of["degraded"]) == ("up", [])
        assert told_of["lease_age_s"] is not None
