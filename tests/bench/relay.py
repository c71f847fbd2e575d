"""A server that relays between clients as Ring's protocol has it, and errs where it is told to."""

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import parse_qs

import trio

from ring.protocol.client import SUBPROTOCOL
from ring.protocol.codes import ErrorCode
from ring.protocol.upgrade import Request, UpgradeRefused
from ring.transport.handshake import Accept
from ring.transport.pump import Pump
from ring.transport.socket import Socket

START_S = 10.0
FAULTY = 30  # the message that goes wrong: beyond the warm-up


class Client:
    """One connection of a relay."""

    def __init__(self, relay: "Relay", user: str) -> None:
        self._relay = relay
        self.user = user

    def on_open(self, socket: Socket) -> None:
        self._socket = socket
        self._relay.users[self.user] = self
        if not self._relay.welcomes(self.user):
            self.say(type="error", code="busy", message="", retryable=True)
        else:
            self.say(type="welcome", user=self.user)
            self._relay.on_arrival(self)
            if "cut when idle" in self._relay.faults and self.user.endswith("-1"):
                self.cut()

    def say(self, **frame: Any) -> None:
        """Sends a frame."""
        self._socket.send_text(json.dumps(frame).encode())

    def on_text(self, payload: bytes) -> None:
        self._relay.on_frame(self, json.loads(payload))

    def on_binary(self, payload: bytes) -> None: ...

    def on_pong(self, payload: bytes) -> None: ...

    def on_drained(self) -> None: ...

    def on_close(self, code: int, reason: str) -> None:
        self._relay.users.pop(self.user, None)

    def cut(self) -> None:
        """Closes it."""
        self._socket.close(1011, "as told")


class Relay:
    """See the module; `faults` happen to one message (or copy), `cut when idle` to one user,
    `unwelcome` and `refused` to all."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        self.users: dict[str, Client] = {}
        self.rooms: dict[str, list[Client]] = {}
        self.address = ""
        self._count = 0
        self._kept: list[tuple[Client, dict[str, Any]]] = []

    def door(self, request: Request, peername: str) -> Accept:
        """Lets everybody in."""
        if "closed" in self.faults:
            raise UpgradeRefused(503, ErrorCode.BUSY, "full")
        user = parse_qs(request.query)["user"][0]
        return Accept(Client(self, user), subprotocol=SUBPROTOCOL, max_message=100_000, max_queued=10_000_000)

    def welcomes(self, user: str) -> bool:
        """Or leaves the user without an answer."""
        return "unwelcome" not in self.faults

    def on_arrival(self, client: Client) -> None:
        """A client was welcomed."""

    def on_frame(self, client: Client, frame: dict[str, Any]) -> None:
        """Does what it says, or errs."""
        match frame["type"]:
            case "send":
                message = {"type": "message", "from": client.user, "id": frame.get("id"), "seq": "1-1"}
                if (to := self.users.get(frame["to"])) is not None:  # it may have been cut
                    self.deliver(to, message | {"data": frame["data"]})
                if "id" in frame:
                    self.answer(client, frame["id"])
            case "join" if "no rooms" in self.faults:
                client.say(type="error", id=frame["id"], code="forbidden", message="", retryable=False)
            case "join":
                self.rooms.setdefault(frame["room"], []).append(client)
                client.say(type="ok", id=frame["id"])
            case "publish":
                message = {"type": "room", "room": frame["room"], "from": client.user, "data": frame["data"]}
                for member in self.rooms[frame["room"]]:
                    self.deliver(member, message)
                client.say(type="ok", id=frame["id"])

    def answer(self, client: Client, number: str) -> None:
        """The receipt."""
        fault = self.fault()
        if fault == "unanswered":
            return
        if fault == "refused":
            client.say(type="receipt", id=number, status="failed", code="offline", message="")
            return
        client.say(type="receipt", id=number, status="delivered", by="client")
        if fault == "answered_twice":
            client.say(type="receipt", id=number, status="delivered", by="client")

    def fault(self) -> str:
        """What is to go wrong now."""
        return next(iter(self.faults), "") if self._count == FAULTY else ""

    def deliver(self, to: Client, frame: dict[str, Any]) -> None:
        """Or not."""
        self._count += 1
        fault = self.fault()
        if fault in ("lost", "refused"):
            return
        if fault == "cut":
            to.cut()
            return
        if fault == "misrouted":
            other = next(client for client in self.users.values() if client is not to)
            other.say(**frame)
            return
        if fault == "stranger":
            to.say(**{**frame, "data": "somebody else's"})
        if fault == "garbage":
            to._socket.send_text(b"garbage")
        if fault == "reordered":
            self._kept.append((to, frame))
            return
        to.say(**frame)
        if fault == "doubled":
            to.say(**frame)
        for kept in [kept for kept in self._kept if kept[0] is to and kept[1]["from"] == frame["from"]]:
            self._kept.remove(kept)
            to.say(**kept[1])

    async def serve(self, started: threading.Event) -> None:
        """Until it is told to stop."""
        self.token = trio.lowlevel.current_trio_token()
        self.scope = trio.CancelScope()
        pump = Pump()
        with self.scope:
            async with trio.open_nursery() as nursery:
                self.address = pump.listen("127.0.0.1:0", self.door).address
                await nursery.start(pump.run)
                started.set()
                await trio.sleep_forever()

    def stop(self) -> None:
        """Ends it, from another thread."""
        self.token.run_sync_soon(self.scope.cancel)


def relay(*faults: str) -> AbstractContextManager[str]:
    """The address of a relay, while the block runs."""
    return served(Relay(faults))


@contextmanager
def served(serving: Relay) -> Iterator[str]:
    """Serves while the block runs, in a thread; yields the address."""
    started = threading.Event()
    thread = threading.Thread(target=trio.run, args=(serving.serve, started))
    thread.start()
    try:
        assert started.wait(START_S)
        yield serving.address
    finally:
        serving.stop()
        thread.join(START_S)
