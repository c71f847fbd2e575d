"""A relay that keeps messages for users who are not there, and errs where it is told to."""

from collections import defaultdict
from contextlib import AbstractContextManager
from typing import Any

from tests.bench.relay import FAULTY, Client, Relay, served

FAULTY_SEND = 30  # the kept message that goes wrong: none of the warm-up
FAULTY_FETCH = 5  # the fetched one


class Keeper(Relay):
    """See the module; `not removed`, `stores nothing` and `unwelcome in the storm` are about all messages and
    users, `cut` is about a sender, `live doubled` about users who are there."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__(faults)
        self.kept: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._numbers = iter(range(1, 10**9))
        self._sent = self._fetched = 0

    def welcomes(self, user: str) -> bool:
        """Whom?"""
        return super().welcomes(user) and ("sender" in user or "unwelcome in the storm" not in self.faults)

    def fault(self) -> str:
        """What is to go wrong of a message between users who are there."""
        return "doubled" if "live doubled" in self.faults and self._count == FAULTY else ""

    def on_frame(self, client: Client, frame: dict[str, Any]) -> None:
        """Keeps it, if nobody is there."""
        if frame["type"] == "ack" and "not removed" not in self.faults:
            number = int(frame["seq"].partition("-")[2])
            kept = self.kept[client.user]
            kept[:] = [each for each in kept if int(each["seq"].partition("-")[2]) > number]
        elif frame["type"] == "send" and frame["to"] not in self.users:
            self._sent += 1
            self.keep(client, frame, next(iter(self.faults), "") if self._sent == FAULTY_SEND else "")
        else:
            super().on_frame(client, frame)

    def keep(self, sender: Client, frame: dict[str, Any], fault: str) -> None:
        """Keeps a message, and says so."""
        if "stores nothing" in self.faults:
            fault = "refused"
        message = {"type": "message", "from": sender.user, "id": frame["id"], "data": frame["data"]}
        if fault not in ("refused", "forgotten"):
            self.kept[frame["to"]].append({**message, "seq": f"1-{next(self._numbers)}"})
        receipt: dict[str, Any] = {"type": "receipt", "id": frame["id"], "status": "queued"}
        match fault:
            case "refused":
                receipt |= {"status": "failed", "code": "offline", "message": ""}
            case "false promise":
                receipt["status"] = "delivered"
            case "unanswered":
                return
            case "answered_twice":
                sender.say(**receipt)
            case "cut":
                sender.cut()
                return
            case "written to":
                sender.say(**message, seq="1-1")
        sender.say(**receipt)

    def on_arrival(self, client: Client) -> None:
        """The user gets what was kept."""
        messages = list(self.kept[client.user])
        if "reordered" in self.faults and len(messages) == 10:
            messages[3], messages[4] = messages[4], messages[3]
        for message in messages:
            self._fetched += 1
            fault = next(iter(self.faults), "") if self._fetched == FAULTY_FETCH else ""
            match fault:
                case "lost":
                    continue
                case "doubled":
                    client.say(**message)
                case "stranger":
                    client.say(**{**message, "data": "somebody else's"})
                case "misrouted":
                    other = next(each for each in self.users.values() if each is not client)
                    other.say(**message)
                    continue
                case "welcomed_twice":
                    client.say(type="welcome", user=client.user)
                case "complained":
                    client.say(type="error", code="internal", message="", retryable=True)
                case "cut off":
                    client.cut()
                    return
            client.say(**message)


def keeper(*faults: str) -> AbstractContextManager[str]:
    """The address of one, while the block runs."""
    return served(Keeper(faults))
