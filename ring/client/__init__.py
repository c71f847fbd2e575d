"""The Trio client library of Ring; it speaks to a cluster over trio-websocket.

::

    async with ring.connect("ws://127.0.0.1:8001", user="alice") as client:
        await client.send("bob", {"text": "hello"})
        await client.join("lobby")
        await client.publish("lobby", {"text": "hello, all"})
        async for message in client:
            match message:
                case ring.Message() | ring.RoomMessage():
                    print(message.sender, message.data)
"""

from ring.client.backoff import Backoff
from ring.client.client import Client, connect
from ring.client.messages import ConnectionEnded, Message, Receipt, RoomEnded, RoomGap, RoomMessage

__all__ = [
    "Backoff",
    "Client",
    "ConnectionEnded",
    "Message",
    "Receipt",
    "RoomEnded",
    "RoomGap",
    "RoomMessage",
    "connect",
]
