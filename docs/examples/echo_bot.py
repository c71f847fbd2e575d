"""A user who sends back whatever it is sent, until Ctrl-C.

python docs/examples/echo_bot.py ws://127.0.0.1:8001 echo
"""
# ruff: noqa: T201 - a program for people

import sys
from contextlib import suppress

import trio

import ring


async def main(url: str, user: str) -> None:
    """Listens and answers, one message after the other."""
    async with ring.connect(url, user) as client:
        print(f"{client.user} listens, on node {client.node}", flush=True)
        async for message in client:
            # Of rooms, which it has not joined, nothing comes; and a backend has no mailbox.
            if isinstance(message, ring.Message) and message.sender is not None:
                await client.send(message.sender, message.data)


if __name__ == "__main__":
    _, url, user = sys.argv
    with suppress(KeyboardInterrupt):
        trio.run(main, url, user)
