"""Says hello in a room, and shows what is said there, until Ctrl-C.

python docs/examples/room.py ws://127.0.0.1:8001 alice lobby
"""
# ruff: noqa: T201 - a program for people

import sys
from contextlib import suppress

import trio

import ring


async def main(url: str, user: str, room: str) -> None:
    """What comes of the room, and what comes for this user alone."""
    async with ring.connect(url, user) as client:
        await client.join(room)
        await client.publish(room, {"text": f"Hello, this is {user}."})
        async for incoming in client:
            match incoming:
                case ring.RoomMessage(room=room, sender=sender, data=data):
                    print(f"{room}: {sender}: {data}", flush=True)
                case ring.RoomGap(room=room, reason=reason):
                    print(f"{room}: something may be missing: {reason}", flush=True)
                case ring.RoomEnded(room=room, reason=reason):
                    print(f"{room}: not a member any more: {reason}", flush=True)
                case ring.Message(sender=sender, data=data):
                    print(f"to me alone, from {sender}: {data}", flush=True)


if __name__ == "__main__":
    _, url, user, room = sys.argv
    with suppress(KeyboardInterrupt):
        trio.run(main, url, user, room)
