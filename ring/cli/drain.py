"""`ring drain` and `ring weight`: what an operator does to a node of a running cluster."""

from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from ring.cli.reach import ApiOption, ClusterOption, KeyOption, RedisOption, Unreachable, find
from ring.protocol.codes import BadRequest

if TYPE_CHECKING:
    import httpx

    from ring.cli.reach import Reach

GONE_S = 60.0
"""How long a node may take to leave once it drains, if `--wait` says nothing else."""

LOOK_EVERY_S = 0.2
"""How often is looked whether it has left."""

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="The node's name.")]


def drain(
    node: NodeArgument,
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="Wait so long until it has left; 0: do not.")
    ] = GONE_S,
) -> int:
    """Empties a node and ends it: its slots are handed over, its clients are asked to connect elsewhere.

    The same as SIGTERM to its process. Whatever started it may start it again.
    """
    import trio

    return trio.run(_drain, find(api, api_key_file, None, "ring"), node, wait)


async def _drain(reach: "Reach", name: str, wait_s: float) -> int:
    import httpx
    import trio

    from ring.cli.reach import client, get_any
    from ring.cli.survey import Nodes

    async with client(reach) as http:
        nodes = (await get_any(http, reach, "/v1/nodes", Nodes)).nodes
        address = next((node.api for node in nodes if node.name == name), None)
        if address is None:
            known = ", ".join(node.name for node in nodes)
            raise BadRequest(f"the ring has no node {name!r}: it has {known}")
        try:
            response = await http.post(f"http://{address}/v1/drain")
        except httpx.HTTPError as error:
            raise Unreachable(f"no answer from {name} at {address} ({type(error).__name__})") from None
        if response.status_code != 202:
            raise Unreachable(f"{name} at {address} answers HTTP {response.status_code}: {response.text}")
        typer.echo(f"{name} drains: its slots go to the others, then its clients")
        if not wait_s:
            return 0
        with trio.move_on_after(wait_s):
            while await _is_there(http, address):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(LOOK_EVERY_S)
            typer.echo(f"{name} has left")
            return 0
    typer.echo(f"{name} is still there after {wait_s:g} s: see `ring status`, and its log", err=True)
    return 1


async def _is_there(http: "httpx.AsyncClient", address: str) -> bool:
    import httpx

    try:
        await http.get(f"http://{address}/healthz")
    except httpx.HTTPError:
        return False
    return True


def weight(
    node: NodeArgument,
    weight: Annotated[int, typer.Argument(metavar="WEIGHT", help="1 to 1000, beside those of the others.")],
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
) -> None:
    """Gives a node another share of the users, until it is started again; see `ring plan --weight` first.

    It is set in the cluster's Redis, by any node or with none asked. `weight` in the node's settings is for
    good.
    """
    import trio

    reach = find(api, api_key_file, redis, cluster)
    epoch = trio.run(_ask_for_weight if reach.api else _weigh, reach, node, weight)
    typer.echo(f"{node} has weight {weight} from epoch {epoch} on")


class _Weighed(Struct):
    epoch: int


async def _ask_for_weight(reach: "Reach", name: str, weight: int) -> int:
    from ring.cli.reach import client, post_any

    async with client(reach) as http:
        asked = {"node": name, "weight": weight}
        return (await post_any(http, reach, "/v1/weight", _Weighed, asked)).epoch


async def _weigh(reach: "Reach", name: str, weight: int) -> int:
    import trio

    from ring.cli.reach import ANSWER_S
    from ring.cluster.scripts import set_weight
    from ring.logs import logging
    from ring.protocol.codes import RingError
    from ring.store.client import Redis
    from ring.store.keys import Keys

    assert reach.redis is not None  # there is no API
    redis = Redis.from_url(reach.redis, client_name="ring command")
    outcome: int | RingError = 0
    with logging("error", "console", "ring"), trio.move_on_after(ANSWER_S) as patience:
        async with trio.open_nursery() as nursery:
            await nursery.start(redis.run)
            try:
                outcome = await set_weight(redis, Keys(reach.cluster), name, weight)
            except RingError as error:
                outcome = error  # raised below: out of a nursery it would come in a group
            nursery.cancel_scope.cancel()
    if patience.cancelled_caught:
        trouble = redis.trouble or "it is silent"
        raise Unreachable(f"no answer from Redis at {redis.address} ({trouble})")
    if isinstance(outcome, RingError):
        raise outcome
    return outcome
