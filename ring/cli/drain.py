"""`ring drain` and `ring weight`: what an operator does to a node of a running cluster."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct, field

from ring.cli.reach import ApiOption, ClusterOption, KeyOption, RedisOption, Unreachable, find
from ring.protocol.codes import BadRequest, RingError

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


class _Life(Struct):
    name: str
    incarnation: str
    api: str
    own: dict[str, Any] | None = field(default=None, name="self")


class _Lives(Struct):
    nodes: list[_Life]


async def _drain(reach: "Reach", name: str, wait_s: float) -> int:
    import trio

    from ring.cli.reach import api_url, client, get_any, post_any

    async with client(reach) as http:
        nodes = (await get_any(http, reach, "/v1/nodes", _Lives)).nodes
        node = next((node for node in nodes if node.name == name), None)
        if node is None:
            known = ", ".join(node.name for node in nodes)
            raise BadRequest(f"the ring has no node {name!r}: it has {known}")
        await post_any(http, reach, "/v1/drain", dict[str, str], {"node": name})
        typer.echo(f"{name} drains: its slots go to the others, then its clients")
        if not wait_s:
            return 0
        asked_itself = node.own is not None
        others = tuple(api_url(other.api) for other in nodes if other is not node)
        looks = (
            # It leaves the ring. Silence says so if nobody but it could be asked.
            (replace(reach, api=(*others, *reach.api)), not asked_itself),
            # Then it ends.
            (replace(reach, api=(api_url(node.api), *(reach.api if asked_itself else ()))), False),
        )
        with trio.move_on_after(wait_s):
            for asked, if_silent in looks:
                while await _is_there(http, asked, node, if_silent=if_silent):  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(LOOK_EVERY_S)
            typer.echo(f"{name} has left")
            return 0
    typer.echo(f"{name} is still there after {wait_s:g} s: see `ring status`, and its log", err=True)
    return 1


async def _is_there(http: "httpx.AsyncClient", reach: "Reach", node: _Life, *, if_silent: bool) -> bool:
    """Whether this life of a node is in the ring of those who can be asked."""
    from ring.cli.reach import get_any

    try:
        nodes = (await get_any(http, reach, "/v1/nodes", _Lives)).nodes
    except Unreachable:
        return if_silent
    except RingError:
        return True  # it knows no ring, but it answers
    return any((other.name, other.incarnation) == (node.name, node.incarnation) for other in nodes)


def weight(
    context: typer.Context,
    node: NodeArgument,
    weight: Annotated[int, typer.Argument(metavar="WEIGHT", help="1 to 1000, beside those of the others.")],
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
) -> None:
    """Gives a node another share of the users, until it is started again; see `ring plan --weight` first.

    A node is asked (--api), or the cluster's Redis itself (--redis). `weight` in the node's settings is for
    good.
    """
    import trio

    if _source(context, "redis") == "COMMANDLINE" and _source(context, "api") == "ENVIRONMENT":
        api = None  # RING_API may be of another cluster
    reach = find(api, api_key_file, redis, cluster)
    epoch = trio.run(_ask_for_weight if reach.api else _weigh, reach, node, weight)
    typer.echo(f"{node} has weight {weight} from epoch {epoch} on")


def _source(context: typer.Context, name: str) -> str:
    """Where an option comes from."""
    source = context.get_parameter_source(name)
    return "" if source is None else source.name


class _Weighed(Struct):
    epoch: int


async def _ask_for_weight(reach: "Reach", name: str, weight: int) -> int:
    from ring.cli.reach import client, post_any

    async with client(reach) as http:
        asked = {"node": name, "weight": weight}
        return (await post_any(http, reach, "/v1/weight", _Weighed, asked)).epoch


async def _weigh(reach: "Reach", name: str, weight: int) -> int:
    from ring.cli.reach import ask_redis
    from ring.cluster.scripts import set_weight

    return await ask_redis(reach, lambda redis, keys: set_weight(redis, keys, name, weight))
