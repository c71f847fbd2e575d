"""`ring send` and `ring chat`: a message, or a conversation, from a terminal. Users of the client library."""

import math
import random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ring.cli.reach import (
    ApiOption,
    ClusterOption,
    JsonOption,
    KeyOption,
    Reach,
    RedisOption,
    Unreachable,
    find,
)

if TYPE_CHECKING:
    from ring.cli.conversation import Conversation
    from ring.client import Receipt

CONNECT_S = 10.0
"""How long the way into the cluster may take."""

SEND_S = 30.0
"""How long a message may take to have a fate: a node gives one up after 10 s, and may be lost meanwhile."""

UserOption = Annotated[str, typer.Option("--user", help="Who to be.", show_default=False)]
EdgeOption = Annotated[
    str | None,
    typer.Option(
        "--edge", metavar="ADDRESS", help="Connect here: a node's edge, or a balancer; else any node."
    ),
]


def send(
    user: UserOption,
    to: Annotated[str, typer.Argument(help="The recipient.", show_default=False)],
    text: Annotated[str | None, typer.Argument(help="What to say.", show_default=False)] = None,
    json_data: Annotated[
        str | None, typer.Option("--json-data", help="JSON to send, in place of a text.")
    ] = None,
    edge: EdgeOption = None,
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
    as_json: JsonOption = False,
) -> None:
    """Sends one message and says what became of it. Exits 1 if it failed."""
    import trio

    from ring.protocol.names import check_name

    for name, what in ((user, "user"), (to, "to")):
        check_name(name, what)
    data = _data(text, json_data)
    receipt = trio.run(_send, edge, _reach(edge, api, api_key_file, redis, cluster), user, to, data)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(receipt))
    else:
        typer.echo(_fate(receipt))
    if not receipt.ok:
        raise typer.Exit(1)


def _data(text: str | None, json_data: str | None) -> Any:
    import msgspec

    if (text is None) == (json_data is None):
        raise typer.BadParameter("give either a text or --json-data")
    if json_data is None:
        return text
    try:
        return msgspec.json.decode(json_data)
    except msgspec.DecodeError as error:
        raise typer.BadParameter(f"--json-data is no JSON: {error}") from None


def _reach(edge: str | None, *where: Any) -> Reach | None:
    return None if edge else find(*where)


async def edges(edge: str | None, reach: Reach | None) -> list[str]:
    """The URLs to connect to: the one named; or a known balancer, and all nodes that serve in any order.

    Raises:
        Unreachable: nobody could be asked, or no node serves.
    """
    if edge is not None:
        return [edge if "://" in edge else f"ws://{edge}"]
    assert reach is not None  # `_reach` looked
    from ring.cli.survey import survey

    found = await survey(reach)
    # Of those that do not answer themselves nothing is known but that their lease still runs.
    nodes = [node for node in found.nodes if node.state == "up" and (node.epoch or found.source == "redis")]
    if not nodes:
        raise Unreachable(f"no node of cluster {found.cluster} serves: see ring status")
    # As a balancer that knows nothing would spread them.
    any_of_them = random.sample([f"ws://{node.edge}" for node in nodes], len(nodes))
    return any_of_them if reach.front is None else [f"ws://{reach.front}", *any_of_them]


async def _send(edge: str | None, reach: Reach | None, user: str, to: str, data: object) -> "Receipt":
    import trio

    import ring

    urls = await edges(edge, reach)
    trouble = f"no node lets {user} in, tried {', '.join(urls)}"
    with trio.move_on_after(CONNECT_S) as patience:
        async with ring.connect(urls, user) as client:
            patience.deadline = trio.current_time() + SEND_S
            trouble = f"no word of the message's fate within {SEND_S:.0f} s: it may arrive all the same"
            receipt = await client.send(to, data)
            assert receipt is not None  # one was asked for
            return receipt
    raise Unreachable(trouble)


def _fate(receipt: "Receipt") -> str:
    if receipt.status == "delivered":
        proof = "its client acknowledged it" if receipt.by == "client" else "its WebSocket answered"
        return f"delivered: {proof}"
    if receipt.status == "queued":
        return "queued: stored until the recipient comes"
    return f"failed: {receipt.code}: {receipt.message}"


def chat(
    user: UserOption,
    to: Annotated[
        str | None, typer.Option("--to", help="Whom lines without a name are for.", show_default=False)
    ] = None,
    room: Annotated[
        list[str] | None,
        typer.Option("--room", help="A room to join; may be given several times.", show_default=False),
    ] = None,
    edge: EdgeOption = None,
    api: ApiOption = None,
    api_key_file: KeyOption = None,
    redis: RedisOption = None,
    cluster: ClusterOption = "ring",
) -> None:
    """Talks to other users, and in rooms, line by line, until end of file (Ctrl-D).

    `bob: hello` says hello to bob; after that, or after `/to bob`, a line alone goes to bob too. After
    `/join lobby` lines go to all in the room lobby, until `/leave lobby`; `/room lobby` goes back to it.
    """
    import trio

    from ring.cli.conversation import Conversation
    from ring.protocol.names import check_name

    rooms = room or []
    for name, what in ((user, "user"), (to or user, "to"), *((name, "room") for name in rooms)):
        check_name(name, what)
    trio.run(_chat, Conversation(user, to, rooms), edge, _reach(edge, api, api_key_file, redis, cluster))


async def _chat(conversation: "Conversation", edge: str | None, reach: Reach | None) -> None:
    import trio

    import ring

    urls = await edges(edge, reach)
    with trio.move_on_after(CONNECT_S) as patience:
        async with ring.connect(urls, conversation.user) as client:
            patience.deadline = math.inf
            await conversation.hold(client)
            return
    raise Unreachable(f"no node lets {conversation.user} in, tried {', '.join(urls)}")
