"""The users of a cluster under test: who they are, what they send, and how they come and go.

They are spread over all nodes, and each sends to a few others, in short bursts, so that one that is lost,
doubled or overtaken is seen at once. Most do as they should; `misbehave` has some of them read slowly, not at
all, or acknowledge nothing for a while.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import trio

from ring.verify.library import LibraryClient
from ring.verify.oracle import Oracle
from ring.verify.raw import Manners, RawClient

FRIENDS = 2
"""To so many others each user sends: few, so that the numbers of a stream come close after each other."""

BURST = 3
"""At most so many messages go to one recipient in a row."""

PADS = ((0.7, 100), (0.95, 1000), (1.0, 8000))
"""How long messages are: 70 % up to 100 bytes more than their name, …"""

HERE_S, AWAY_S = (3.0, 8.0), (2.5, 7.0)
"""How long a commuter stays, and stays away: longer than a user is lingered for, so that mail is stored."""

DROP_S = (2.0, 6.0)
"""How often someone whose connection is bad loses it."""

Client = RawClient | LibraryClient

# Of 20 users: what their devices are.
_KINDS = (
    *["steady"] * 4,
    *["lazy"] * 2,
    *["pong"] * 3,
    *["library"] * 3,
    *["twins"] * 2,
    *["commuter"] * 3,
    *["commuting library"] * 2,
    "flaky",
)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody, with one device or two; the first one sends."""

    name: str
    kind: str
    devices: tuple[Client, ...]
    friends: tuple[str, ...]


class Crowd:
    """See the module. `run` is its life.

    Args:
        oracle: told of everything.
        edges: where nodes are that clients should try.
        users: how many.
        rate: messages per second, of all together.
        seed: of who they are and what they do. When they do it is the clock's affair.

    Attributes:
        users: by name.
        stalled_s: the longest that this program itself stood still since it was last set to 0: no figure is
            better than that.
    """

    def __init__(
        self, oracle: Oracle, edges: Callable[[], Sequence[str]], *, users: int, rate: float, seed: int
    ) -> None:
        self.stalled_s = 0.0
        self._oracle = oracle
        self._edges = edges
        self._rate = rate
        self._random = Random(f"crowd of {seed}")  # noqa: S311 - it has to be the same again
        self._talking = True
        self._moving = True
        self._sent: Counter[str] = Counter()
        names = [f"u{number:03}" for number in range(users)]
        self.users = {name: self._user(name, index, names) for index, name in enumerate(names)}

    def _user(self, name: str, index: int, names: Sequence[str]) -> User:
        kind = _KINDS[index % len(_KINDS)]
        others = [other for other in names if other != name]
        friends = tuple(self._random.sample(others, min(FRIENDS, len(others))))
        return User(name, kind, tuple(self._devices(name, kind)), friends)

    def _devices(self, name: str, kind: str) -> list[Client]:
        random = Random(self._random.random())  # noqa: S311 - as above
        if kind in ("library", "commuting library"):
            return [LibraryClient(self._oracle, self._edges, name, "app", random=random)]
        by_pong = RawClient(self._oracle, self._edges, name, "plain", by="pong", random=random)
        if kind == "pong":
            return [by_pong]
        gathers_s = 0.1 if kind == "lazy" else 0.0
        by_ack = RawClient(
            self._oracle, self._edges, name, "raw", by="client", ack_every_s=gathers_s, random=random
        )
        return [by_ack, by_pong] if kind == "twins" else [by_ack]

    # --- running

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for user in self.users.values():
                for device in user.devices:
                    nursery.start_soon(device.run)
                if user.kind.startswith("commut"):
                    nursery.start_soon(self._commute, user.devices[0])
                elif user.kind in ("flaky", "twins"):
                    nursery.start_soon(self._lose, user.devices[-1])
            nursery.start_soon(self._talk)
            nursery.start_soon(self._watch_stalls)

    @property
    def present(self) -> int:
        """How many devices are connected."""
        return sum(device.connected for user in self.users.values() for device in user.devices)

    async def until_present(self) -> None:
        """Returns when all devices are connected; callers own the deadline."""
        everybody = sum(len(user.devices) for user in self.users.values())
        while self.present < everybody:  # noqa: ASYNC110 - once in a run
            await trio.sleep(0.05)

    async def _talk(self) -> None:
        names = list(self.users)
        due = trio.current_time()
        while self._talking:
            sender = self.users[self._random.choice(names)]
            to, burst = self._random.choice(sender.friends), self._random.randint(1, BURST)
            device = sender.devices[0]
            if device.ready:
                self._sent[to] += burst
                for _ in range(burst):
                    device.send(to, self._pad())
            due = max(due + burst / self._rate, trio.current_time() - 0.5)
            await trio.sleep_until(due)

    def _pad(self) -> str:
        draw = self._random.random()
        longest = next(longest for share, longest in PADS if draw <= share)
        return "x" * self._random.randint(0, longest)

    async def _commute(self, device: Client) -> None:
        while self._moving:
            await trio.sleep(self._random.uniform(*HERE_S))
            if self._moving:
                device.go_away(politely=self._random.random() < 0.5)
                await trio.sleep(self._random.uniform(*AWAY_S))
            device.come_back()

    async def _lose(self, device: Client) -> None:
        assert isinstance(device, RawClient)
        while self._moving:
            await trio.sleep(self._random.uniform(*DROP_S))
            if self._moving:
                device.hang_up(politely=False)

    async def _watch_stalls(self) -> None:
        while True:
            due = trio.current_time() + 0.1
            await trio.sleep_until(due)
            self.stalled_s = max(self.stalled_s, trio.current_time() - due)

    # --- what is asked of it

    @property
    def sent(self) -> Counter[str]:
        """How many messages each user was sent until now."""
        return self._sent.copy()

    def misbehave(self, manners: Manners, share: float, random: Random) -> list[RawClient]:
        """Has this share of the raw devices read so, until `recover`; those whom others send to."""
        loved = {friend for user in self.users.values() for friend in user.friends}
        raw = [
            device
            for name in sorted(loved)
            for device in self.users[name].devices
            if isinstance(device, RawClient) and self.users[name].kind in ("steady", "lazy", "pong")
        ]
        chosen = random.sample(raw, max(1, math.ceil(share * len(raw))))
        for device in chosen:
            device.behave(manners)
        return chosen

    def recover(self, devices: Sequence[RawClient]) -> None:
        """They read as they should again."""
        for device in devices:
            device.behave("good")

    def hush(self) -> None:
        """Nobody sends anything new; who is away comes back, and stays."""
        self._talking = self._moving = False
        for user in self.users.values():
            for device in user.devices:
                device.come_back()

    @property
    def waiting(self) -> list[Client]:
        """Devices that wait for an answer."""
        return [device for user in self.users.values() for device in user.devices if device.waits]

    def close_books(self, now: float) -> None:
        """Tells the oracle of `send`s that have not returned."""
        for device in self.waiting:
            if isinstance(device, LibraryClient):
                for key in device.pending:
                    self._oracle.unreturned(key, now)
