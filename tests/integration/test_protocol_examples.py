"""What docs/protocol.md shows of a conversation is what is said: every frame, by a node and to it."""

import json
import re
from contextlib import AsyncExitStack
from functools import partial
from operator import not_
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from tests.integration.cluster import nodes
from tests.integration.foreign import Foreign, OfTrioWebsocket, OfWebsockets
from tests.polling import until

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
DEADLINE_S = 30
CHANGES = ("seq", "sent_at")  # from run to run


def conversation() -> list[str]:
    """The lines of the page's conversation."""
    [block] = re.findall(r"```\n((?:alice|bob) .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return str(block).splitlines()


@pytest.mark.parametrize("kind", [OfWebsockets, OfTrioWebsocket])
async def test_who_comes_back(redis_url: str, kind: type[Foreign]) -> None:
    """`queued`, resumed, marked as redelivered, acknowledged; and a gap for a cursor that is none."""
    lines = conversation()
    assert len(lines) >= 10
    numbers: dict[str, str] = {}  # as the page has them -> as they are here
    clients: dict[str, Foreign] = {}
    with trio.fail_after(DEADLINE_S):
        async with (
            nodes(redis_url, "n1", linger_s=0.1, spill_after_s=10.0) as cluster,
            AsyncExitStack() as block,
        ):
            node = cluster["n1"]

            async def connect(user: str, **query: str) -> Any:
                address = f"ws://{node.addresses['edge']}/v1/connect"
                target = urlencode({"user": user, "device": "one", "ack": "client", **query})
                clients[user] = await block.enter_async_context(
                    kind.connect(f"{address}?{target}", ["ring.v1"])
                )
                return json.loads(await clients[user].receive())

            for user in ("alice", "bob"):
                assert (await connect(user))["resumed"] is False
            for line in lines:
                parts = re.match(r"(\w+) +(\S+) (.*)", line)
                assert parts is not None
                user, what, said = parts.groups()
                if what == ">":
                    frame = json.loads(said)
                    if "seq" in frame:
                        frame["seq"] = numbers[frame["seq"]]
                    await clients[user].send(json.dumps(frame))
                elif what == "<":
                    heard, shown = json.loads(await clients[user].receive()), json.loads(said)
                    if "seq" in shown:
                        assert numbers.setdefault(shown["seq"], heard["seq"]) == heard["seq"], line
                        assert isinstance(heard["sent_at"], int)
                    for key in CHANGES:
                        assert (key in heard) == (key in shown), line
                        heard.pop(key, None), shown.pop(key, None)
                    assert heard == shown, line
                elif what == "is":
                    assert said == "cut"
                    await clients[user].cut()
                    await until(partial(not_, node.mailboxes.boxes[user].attachments))
                else:
                    back = re.fullmatch(r'behind (\S+): "resumed":(.+)', said)
                    assert back is not None
                    cursor, told = back.groups()
                    welcome = await connect(user, resume=numbers.get(cursor, cursor))
                    assert welcome["resumed"] == json.loads(told), line
