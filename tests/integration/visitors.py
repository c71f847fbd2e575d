"""Clients that come, are welcomed and go: where each landed."""

import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import trio

from ring.protocol import client as wire
from ring.protocol.upgrade import Fields, check_response, client_request
from ring.protocol.websocket import Decoder

AT_ONCE = 50


def users(count: int, seed: int) -> list[str]:
    """Names of all kinds."""
    chance = random.Random(seed)
    kinds = ["abc019", "äöüß€", "漢字かな", "🙂👍🏽🇩🇪", " +&=;%#?/:@'\"\\"]
    return [
        "".join(chance.choice(chance.choice(kinds)) for _ in range(chance.randrange(1, 12))) + str(n)
        for n in range(count)
    ]


@asynccontextmanager
async def visiting(
    port: int,
    user: str,
    context: ssl.SSLContext | None = None,
    headers: Fields = (),
    offers: Sequence[str] = (wire.SUBPROTOCOL,),
    **query: str,
) -> AsyncIterator[wire.Welcome]:
    """What a client is told first; it stays for the block."""
    stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
    if context is not None:
        stream = trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
    target = f"{wire.CONNECT_PATH}?{urlencode({'user': user, **query})}"
    request, key = client_request("localhost", target, offers, headers)
    async with stream:
        await stream.send_all(request)
        answer = bytearray()
        while b"\r\n\r\n" not in answer:
            part = await stream.receive_some()
            assert part, bytes(answer)
            answer += part
        head, _, rest = bytes(answer).partition(b"\r\n\r\n")
        check_response(head + b"\r\n\r\n", key, offers)
        decoder = Decoder(role="client", max_message=1 << 20)
        while not (frames := list(decoder.feed(rest))):
            rest = bytes(await stream.receive_some())
            assert rest
        welcome = wire.decode_server(frames[0][1])
        assert isinstance(welcome, wire.Welcome)
        yield welcome


async def visits(port: int, names: list[str], context: ssl.SSLContext | None = None) -> list[wire.Welcome]:
    """What many are told."""
    welcomes: list[wire.Welcome] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(name: str) -> None:
        async with limit, visiting(port, name, context) as welcome:
            welcomes.append(welcome)

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(one, name)
    return welcomes


def off_owner(welcomes: list[wire.Welcome]) -> list[str]:
    """Whose owner is another node than theirs."""
    return [welcome.user for welcome in welcomes if welcome.node != welcome.owner]
