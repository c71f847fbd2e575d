"""The Trio client library of Ring; it speaks to a cluster over trio-websocket.

::

    async with ring.connect("ws://127.0.0.1:8001", user="alice") as client:
        await client.send("bob", {"text": "hello"})
        async for message in client:
            print(message.sender, message.data)
"""

from ring.client.backoff import Backoff
from ring.client.client import Client, connect
from ring.client.messages import ConnectionEnded, Message, Receipt

__all__ = ["Backoff", "Client", "ConnectionEnded", "Message", "Receipt", "connect"]
