"""Random histories of a cluster in memory whose mailboxes are stored, and what must hold at their ends.

A history is a list of steps, each a name and a number that decides the rest of it: any part of a history is
a history too, so one that breaks a promise can be made smaller.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ring.cluster.view import Member
from ring.mailbox.mailbox import FATES_S
from ring.protocol.codes import ErrorCode
from ring.protocol.names import slot_of
from tests.router.simulated_client import Client
from tests.router.simulated_redis import SimulatedRedis
from tests.router.simulation import Cluster, Node

USERS = [f"u{i}" for i in range(5)]

REDIS_S = 2.0
"""One that is well answers within this time."""

Step = tuple[str, int]

CALM = {
    "send": 20,
    "arrive": 50,
    "read": 12,
    "acknowledge": 8,
    "enter": 5,
    "redis": 20,
    "wait": 5,
    "leave": 3,
    "come": 4,
    "lag": 1,
}
"""Steps of traffic, and how often they come."""
PLANNED = CALM | {"join": 1, "drain": 1}
FAULTY = PLANNED | {
    "die": 1,
    "snap": 1,
    "notice": 3,
    "freeze": 1,
    "run on": 1,
    "thaw": 1,
    "evict": 2,
    "rejoin": 2,
    "redis away": 1,
    "redis back": 2,
    "answer lost": 2,
}
FORGETFUL = FAULTY | {"stray": 3, "save": 1, "roll back": 1, "empty": 1}


@dataclass
class History:
    """A cluster under way, and its Redis. In a `healthy` one nodes and links have no faults."""

    cluster: Cluster
    redis: SimulatedRedis
    joined: int
    healthy: bool
    choices: random.Random
    estranged: set[Client] = field(default_factory=set)  # came anew where nobody knew what they had had
    unheard_s: float = 0.0  # since Redis had answered everybody
    forgotten: int = 0  # so many messages had been sent when Redis lost some of what it had

    @classmethod
    def begin(
        cls, *, nodes: int, healthy: bool = False, letters: int = 1000, page_letters: int = 6
    ) -> "History":
        """Every user has a client on some node, and user 0 two."""
        redis = SimulatedRedis(letters=letters, page_letters=page_letters)
        cluster = Cluster(0, redis)
        cluster.clients = [Client(user, "d") for user in USERS]
        cluster.clients.append(Client(USERS[0], "second"))
        for index in range(nodes):
            cluster.start(f"n{index}")
        cluster.settle()
        for one in cluster.clients:
            cluster.reconnect(one)
        cluster.settle()
        while not all(node.transition.settled for node in cluster.nodes.values()):
            cluster.pass_time(0.25)
            cluster.settle()
        cluster.pass_time(2.5)
        cluster.settle()
        for one in cluster.clients:
            one.lags = True
        return cls(cluster, redis, nodes, healthy, random.Random(0))

    def run(self, steps: Sequence[Step]) -> None:
        """Does steps; one that cannot be done is left out."""
        for name, number in steps:
            self.choices = self.cluster.random = random.Random(number)
            _STEPS[name](self)

    # --- what may be chosen

    def running(self) -> list[Node]:
        return [node for node in self.cluster.nodes.values() if not node.frozen]

    def online(self) -> list[Client]:
        return [one for one in self.cluster.clients if one.session is not None]

    def up(self) -> list[str]:
        return [name for name, member in self.cluster._members.items() if member.state == "up"]

    # --- traffic

    def send(self) -> None:
        senders = [one for one in self.online() if len(one.unanswered) < 20]
        if senders:
            one = self.choices.choice(senders)
            user = self.choices.choice([user for user in USERS if user != one.user or user == USERS[0]])
            ttl_ms = self.choices.choice([500, 3000, 20_000]) if self.choices.random() < 0.1 else 0
            for _ in range(self.choices.choice([1, 1, 1, 2, 5])):
                self.cluster.send(one, user, ttl_ms)

    def arrive(self) -> None:
        if links := self.cluster.live_links():
            link = self.choices.choice(links)
            for _ in range(self.choices.choice([1, 1, 1, 3, 10])):
                if link.can_step():
                    link.step()

    def read(self) -> None:
        if sessions := [one.session for one in self.online() if one.session and one.session.wire]:
            self.choices.choice(sessions).read(self.choices.choice([1, 2, 100]))

    def acknowledge(self) -> None:
        if online := self.online():
            session = self.choices.choice(online).session
            assert session is not None
            session.acknowledge()

    def enter(self) -> None:
        if behind := self.cluster.behind():
            assert self.cluster.view is not None
            self.choices.choice(behind).enter(self.cluster.view)

    def to_redis(self) -> None:
        if ways := self.cluster.carriers():
            way = self.choices.choice(ways)
            for _ in range(self.choices.choice([1, 1, 2, 5])):
                if way.can_step():
                    way.step()

    def wait(self) -> None:
        seconds = self.choices.choice([0.05, 0.25, 0.25, 1.0, 2.1])
        if self.healthy:
            self.run_network()
            self.unheard_s += seconds
            if self.unheard_s > REDIS_S:
                self.unheard_s = 0.0
                while ways := self.cluster.carriers():
                    ways[0].step()
        self.cluster.pass_time(seconds)

    def run_network(self) -> None:
        """Without faults nothing takes as long as any limit of the barrier or of senders."""
        cluster = self.cluster
        while True:
            for node in cluster.behind():
                assert cluster.view is not None
                node.enter(cluster.view)
            links = cluster.live_links()
            if not links:
                return
            self.choices.choice(links).step()

    def leave(self) -> None:
        if online := self.online():
            one = self.choices.choice(online)
            session, clean = one.session, self.choices.random() < 0.5
            assert session is not None
            if self.choices.random() < 0.5:
                session.read(100)
                session.acknowledge()
            if one.session is session:  # it may have been too slow
                self.cluster.leave(one, clean=clean)

    def come(self) -> None:
        if away := [one for one in self.cluster.clients if one.session is None]:
            one = self.choices.choice(away)
            resume = one.got[-1].seq if one.got and self.choices.random() < 0.7 else None
            node = self.choices.choice(self.running())
            if resume is None and node.name not in self.cluster._members:
                self.estranged.add(one)
            self.cluster.attach(one, node, resume)

    def lag(self) -> None:
        one = self.choices.choice(self.cluster.clients)
        one.lags = not one.lags

    # --- the ring

    def join(self) -> None:
        if len(self.cluster.nodes) < 5:
            self.cluster.start(f"n{self.joined}")
            self.joined += 1

    def drain(self) -> None:
        up = self.up()
        if len(up) > 1 and (able := [name for name in up if name in self.cluster.nodes]):
            self.cluster.drain(self.choices.choice(able))

    # --- faults of nodes and links

    def die(self) -> None:
        alive = self.running()
        if len(alive) > 1 and len(self.up()) > 1:
            self.cluster.kill(self.choices.choice(alive).name)

    def evict(self) -> None:
        """Who does not renew is no member any more."""
        nodes, members = self.cluster.nodes, self.cluster._members
        gone = [name for name in members if name not in nodes or nodes[name].frozen]
        if gone and len(self.up()) > 1:
            self.cluster.evict(self.choices.choice(gone))

    def snap(self) -> None:
        nodes = self.cluster.nodes.values()
        if links := [link for node in nodes for link in node.links.values() if not link.broken]:
            self.cluster.snap(self.choices.choice(links), self.choices.choice([0, 0, 2, 100]))

    def notice(self) -> None:
        if ends := [end for end in self.cluster.snapped if not end.here.frozen]:
            self.cluster.notice(self.choices.choice(ends))
        self.link_again()

    def link_again(self) -> None:
        """Members that have no link make one."""
        assert self.cluster.view is not None
        for node in self.running():
            if node.epoch and node.name in self.cluster._members:
                self.cluster.connect_all(node, self.cluster.view)

    def freeze(self) -> None:
        alive = self.running()
        if len(alive) > 1:
            self.choices.choice(alive).frozen = True

    def run_on(self) -> None:
        """What a node had on its way to Redis is done, though it stands still."""
        for node in self.cluster.nodes.values():
            if node.frozen and node.carrier is not None:
                node.carrier.do()

    def thaw(self) -> None:
        """It goes on, by its old ring; what its clients did comes to it."""
        if frozen := [node for node in self.cluster.nodes.values() if node.frozen]:
            thaw(self.choices.choice(frozen))

    def rejoin(self) -> None:
        """Who was removed and lives learns it, and joins again."""
        members = self.cluster._members
        if out := [node for node in self.running() if node.name not in members]:
            node = self.choices.choice(out)
            members[node.name] = _member(node)
            self.cluster.change()

    # --- faults of Redis

    def redis_away(self) -> None:
        self.redis.stop()

    def redis_back(self) -> None:
        self.redis.start()

    def answer_lost(self, *, stray: bool = False) -> None:
        ways = [node.carrier for node in self.running() if node.carrier and node.carrier.batch]
        if ways:
            self.choices.choice(ways).lose(stray=stray)

    def stray(self) -> None:
        """What a broken connection left is read, one job of it; or a connection breaks so."""
        if self.redis.stray and self.redis.up:
            jobs = self.redis.stray[0]
            self.redis.do(jobs.popleft())
            if not jobs:
                self.redis.stray.pop(0)
        else:
            self.answer_lost(stray=True)

    def save(self) -> None:
        self.redis.save()

    def roll_back(self) -> None:
        self._forget()
        self.redis.roll_back()

    def empty(self) -> None:
        self._forget()
        self.redis.empty()

    def _forget(self) -> None:
        self.redis.stop()
        for node in self.cluster.nodes.values():
            if node.carrier is not None and node.carrier.batch is not None and not node.frozen:
                node.carrier.lose()
        self.forgotten = len(self.cluster.order)

    # --- the end

    def heal(self) -> None:
        """All faults end, everybody comes back, reads and acknowledges; all that waits for a time is over."""
        cluster, self.choices = self.cluster, random.Random(0)
        cluster.random = random.Random(0)
        for node in tuple(cluster.nodes.values()):
            if node.frozen:
                thaw(node)
        self.redis.start()
        while self.redis.stray:
            self.stray()
        for name in [name for name in cluster._members if name not in cluster.nodes]:
            del cluster._members[name]
        for node in cluster.nodes.values():
            cluster._members.setdefault(node.name, _member(node))
        if not self.up():
            cluster._members = {node.name: _member(node) for node in cluster.nodes.values()}
        cluster.change()
        for end in tuple(cluster.snapped):
            cluster.notice(end)
        cluster.settle()
        self.link_again()
        self.pass_time(16.0)

    def pass_time(self, seconds: float) -> None:
        """Everything arrives, and everything that waits for a time-out gets it."""
        cluster = self.cluster
        for _ in range(round(seconds / 0.25)):
            for one in cluster.clients:
                if one.session is None:
                    cluster.reconnect(one)
            cluster.settle()
            cluster.pass_time(0.25)
        cluster.settle()
        for one in cluster.clients:
            assert one.session is not None, f"{one.user}.{one.device} was thrown out"
            assert one.session.welcomed, f"{one.user}.{one.device} was never welcomed"

    def come_back(self) -> None:
        """Everybody goes, for longer than any mailbox is remembered, and comes back."""
        for one in self.cluster.clients:
            self.cluster.leave(one, clean=True)
        for _ in range(round(FATES_S) + 10):
            self.cluster.pass_time(1.0)
            self.cluster.settle()
        self.pass_time(3.0)

    # --- what is promised

    def check_answers(self) -> None:
        """Every message has its one answer, and no answer lies.

        That somebody acknowledged what is `delivered` is looked at when it is said (`simulation.Session`).
        """
        cluster = self.cluster
        arrived: dict[str, set[str | None]] = {user: set() for user in USERS}
        for one in cluster.clients:
            arrived[one.user].update(message.id for message in one.got)
        for at, (message_id, sender) in enumerate(cluster.order):
            send = cluster.sent[message_id]
            answers = sender.receipts.get(message_id, [])
            assert len(answers) == 1, f"{message_id} has {len(answers)} answers: {answers}"
            ((status, code),) = answers
            kept = at >= self.forgotten and not send.ttl_ms
            if status == "delivered" or (status == "queued" and kept):
                assert message_id in arrived[send.to], f"{message_id} was {status} and never arrived"
            failures = {ErrorCode.EXPIRED} if self.healthy else FAILURES
            assert code is None or code in failures, f"{message_id} failed: {code}"

    def check_doubles(self) -> None:
        """Of what comes twice all copies but one say so."""
        for one in self.cluster.clients:
            if one in self.estranged:
                continue
            copies = Counter(message.id for message in one.got if message.redelivered is not True)
            plain = [message_id for message_id, count in copies.items() if count > 1]
            assert not plain, f"{one.user} got {plain} twice, unmarked"

    def check_store(self) -> None:
        """Nothing waits for Redis, and nothing is left there."""
        for node in self.cluster.nodes.values():
            assert node.carrier is not None
            assert not node.carrier.batch
            assert not node.carrier.spill.waiting
        vault = self.redis.vault
        kept = [each for user in USERS for each in vault.box(slot_of(user), user).kept]
        left = [each.letter for each in kept if each.expires_ms > vault.now_ms]
        assert not left, f"left in Redis: {left}"

    def check_order(self) -> None:
        """Messages of one sender come in the order of their sending; a copy may come behind them."""
        position = {message_id: index for index, (message_id, _) in enumerate(self.cluster.order)}
        sender = dict(self.cluster.order)
        for one in self.cluster.clients:
            last: dict[Client, int] = {}
            once = [m for m in one.got if m.from_ != one.user and m.id not in self.cluster.resent]
            for message_id in dict.fromkeys(message.id for message in once):
                assert message_id is not None
                at, by = position[message_id], sender[message_id]
                assert at > last.get(by, -1), f"{one.user} got {message_id} after a later one of {by.user}"
                last[by] = at

    def check_once(self) -> None:
        """What a session has acknowledged does not come to it again; nor to the next one of its client, but
        marked."""
        for one in self.cluster.clients:
            assert not one.again, f"{one.user}.{one.device} got again what it had acknowledged: {one.again}"


FAILURES = {
    ErrorCode.EXPIRED,
    ErrorCode.MAILBOX_FULL,
    ErrorCode.OWNER_UNAVAILABLE,
    ErrorCode.STORE_UNAVAILABLE,
}
"""How a message may fail here."""


def thaw(node: Node) -> None:
    """It goes on where it stood."""
    node.frozen = False
    later, node.later = node.later, []
    for action in later:
        action()


def _member(node: Node) -> Member:
    return Member(node.name, node.incarnation, "e", "p", "a", 1, "up", "0")


_STEPS: dict[str, Callable[[History], None]] = {
    "send": History.send,
    "arrive": History.arrive,
    "read": History.read,
    "acknowledge": History.acknowledge,
    "enter": History.enter,
    "redis": History.to_redis,
    "wait": History.wait,
    "leave": History.leave,
    "come": History.come,
    "lag": History.lag,
    "join": History.join,
    "drain": History.drain,
    "die": History.die,
    "evict": History.evict,
    "snap": History.snap,
    "notice": History.notice,
    "freeze": History.freeze,
    "run on": History.run_on,
    "thaw": History.thaw,
    "rejoin": History.rejoin,
    "redis away": History.redis_away,
    "redis back": History.redis_back,
    "answer lost": History.answer_lost,
    "stray": History.stray,
    "save": History.save,
    "roll back": History.roll_back,
    "empty": History.empty,
}
