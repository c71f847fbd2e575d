"""Says hello to a user, and what became of it.

python docs/examples/hello.py ws://127.0.0.1:8001 alice bob
"""
# ruff: noqa: T201 - a program for people

import sys

import trio

import ring


async def main(url: str, user: str, to: str) -> None:
    """One message, and its receipt."""
    async with ring.connect(url, user) as client:
        receipt = await client.send(to, {"text": f"Hello, this is {user}."})
        print(f"{to}: {receipt.status}")


if __name__ == "__main__":
    _, url, user, to = sys.argv
    trio.run(main, url, user, to)
