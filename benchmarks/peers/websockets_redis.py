"""A node on `websockets`, redis-py and uvloop, with a Redis channel for each user and room that is here.

Speaks as much of Ring's protocol as the loads need. Argument: the URL of Redis.
"""

import contextlib
import json
import os
import sys
from urllib.parse import parse_qs, urlsplit

import redis.asyncio
import uvloop
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed


class Node:
    """Its clients, and what it listens to for them."""

    def __init__(self, url):
        self.redis = redis.asyncio.from_url(url)
        self.channels = self.redis.pubsub(ignore_subscribe_messages=True)
        self.users = {}  # channel -> connection
        self.rooms = {}  # channel -> connections

    async def deliver(self):
        """Passes on what comes from Redis."""
        async for event in self.channels.listen():
            channel, text = event["channel"].decode(), event["data"].decode()
            if channel in self.rooms:
                broadcast(self.rooms[channel], text)
            elif channel in self.users:
                with contextlib.suppress(ConnectionClosed):  # its own task sees to it
                    await self.users[channel].send(text)

    async def serve_client(self, connection):
        """One client, as long as it is connected."""
        user = parse_qs(urlsplit(connection.request.path).query)["user"][0]
        own, joined = f"user:{user}", []
        self.users[own] = connection
        await self.channels.subscribe(own)
        try:
            await connection.send(json.dumps({"type": "welcome", "user": user}))
            async for text in connection:
                await self.receive(user, connection, joined, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            del self.users[own]
            await self.channels.unsubscribe(own)
            for channel in joined:
                self.rooms[channel].discard(connection)

    async def receive(self, user, connection, joined, frame):
        """What a client says."""
        kind = frame["type"]
        if kind == "send":
            message = {"type": "message", "from": user, "id": frame.get("id"), "data": frame["data"]}
            await self.redis.publish(f"user:{frame['to']}", json.dumps(message))
        elif kind == "publish":
            message = {
                "type": "room", "room": frame["room"], "from": user, "id": frame["id"], "data": frame["data"]
            }  # as a table # fmt: skip
            await self.redis.publish(f"room:{frame['room']}", json.dumps(message))
        elif kind == "join":
            channel = f"room:{frame['room']}"
            members = self.rooms.setdefault(channel, set())
            members.add(connection)
            joined.append(channel)
            if len(members) == 1:
                await self.channels.subscribe(channel)
            await connection.send(json.dumps({"type": "ok", "id": frame["id"]}))


async def main(url):
    """Serves until it is told to stop."""
    node = Node(url)
    await node.channels.subscribe("nodes")  # `listen` wants something to listen to
    async with serve(node.serve_client, "127.0.0.1", 0, compression=None) as server:
        host, port = next(iter(server.sockets)).getsockname()
        ready = {"event": "ready", "part": "node", "edge": f"{host}:{port}", "pid": os.getpid()}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await node.deliver()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
