"""Random histories of the membership scripts on a real server, held against a model."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ring.cluster.scripts import GRACE_MS, Answer
from ring.cluster.view import Member, RingView
from tests.cluster.seats import T0, TTL, Ring, connected, node


@dataclass
class Suspicion:
    """What stands against a member."""

    incarnation: str
    at: int
    lapse: int  # of its lease then
    reporters: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class Model:
    """What the scripts are to do, written down a second time."""

    epoch: int = 0
    swept: int | None = None
    members: dict[str, Member] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    suspicions: dict[str, Suspicion] = field(default_factory=dict)

    def bump(self, now: int, seen: int) -> None:
        self.epoch = max(self.epoch + 1, seen + 1, now // 1000)

    def sweep(self, now: int) -> bool:
        away = TTL + 1 if self.swept is None else max(0, now - self.swept)
        self.swept = now
        lapsed = []
        for name, lapse in self.leases.items():
            if away > TTL / 2:
                lapse = now + TTL if away > TTL else lapse + away
            self.leases[name] = min(lapse, now + TTL)
            if self.leases[name] <= now:
                lapsed.append(name)
        for name in lapsed:
            self.strike(name)
        return bool(lapsed)

    def strike(self, name: str) -> None:
        del self.leases[name], self.members[name]
        self.suspicions.pop(name, None)

    def holder(self, me: Member) -> str:
        held = self.members.get(me.name)
        if held is None:
            return "gone"
        return "mine" if held.incarnation == me.incarnation else "taken"

    def join(self, me: Member, now: int, seen: int) -> str:
        changed = self.sweep(now)
        if self.holder(me) == "taken":
            if changed:
                self.bump(now, seen)
            return "wait"
        changed |= self.members.get(me.name) != me
        self.members[me.name] = me
        self.leases[me.name] = now + TTL
        self.suspicions.pop(me.name, None)
        if changed or self.epoch < seen:
            self.bump(now, seen)
        return "joined"

    def renew(self, me: Member, now: int, seen: int, view: RingView) -> str:
        if self.epoch < view.epoch:
            return "behind"
        if (holder := self.holder(me)) != "mine":
            return holder
        self.leases[me.name] = now + TTL
        self.suspicions.pop(me.name, None)
        changed = self.sweep(now)
        disputed = self.epoch == view.epoch and set(self.members.values()) != set(view.members)
        if changed or disputed or self.epoch < seen:
            self.bump(now, seen)
        return "renewed"

    def restore(self, now: int, seen: int, view: RingView) -> str:
        if self.epoch >= view.epoch:
            return "ahead"
        self.members = {member.name: member for member in view.members}
        self.leases = dict.fromkeys(self.members, now + TTL)
        self.suspicions = {}
        self.bump(now, seen)
        return "restored"

    def amend(self, name: str, now: int, seen: int, **change: Any) -> str:
        if self.members[name] != (member := replace(self.members[name], **change)):
            self.members[name] = member
            self.bump(now, seen)
        return "changed"

    def state(self, me: Member, now: int, seen: int) -> str:
        holder = self.holder(me)
        return self.amend(me.name, now, seen, state=me.state) if holder == "mine" else holder

    def weight(self, name: str, now: int, weight: int) -> str:
        return self.amend(name, now, 0, weight=weight) if name in self.members else "gone"

    def leave(self, me: Member, now: int, seen: int) -> str:
        if (holder := self.holder(me)) != "mine":
            return holder
        self.strike(me.name)
        self.bump(now, seen)
        return "left"

    def lives(self, member: Member, now: int) -> bool:
        return self.holder(member) == "mine" and self.leases[member.name] > now

    def against(self, whom: Member, now: int) -> Suspicion | None:
        it = self.suspicions.get(whom.name)
        if it is None or it.incarnation != whom.incarnation or it.lapse != self.leases[whom.name]:
            return None
        return it if 0 <= now - it.at <= TTL else None

    def suspect(self, me: Member, whom: Member, now: int) -> str:
        if not self.lives(me, now):
            return "stale"
        if self.holder(whom) != "mine":
            return "gone"
        it = self.against(whom, now) or Suspicion(whom.incarnation, now, self.leases[whom.name])
        it.reporters.add((me.name, me.incarnation))
        self.suspicions[whom.name] = it
        return "suspected"

    def evict(self, me: Member, whom: Member, now: int, seen: int) -> str:
        if not self.lives(me, now):
            return "stale"
        if self.holder(whom) != "mine":
            return "gone"
        it = self.against(whom, now)
        if it is None:
            return "refuted"
        if now - it.at < GRACE_MS:
            return "wait"
        others = [each for each in self.members.values() if each.name != whom.name and self.lives(each, now)]
        heard = sum((each.name, each.incarnation) in it.reporters for each in others)
        if heard < min(2, len(others)):
            return "unproven"
        self.strike(whom.name)
        self.bump(now, seen)
        return "evicted"


@dataclass
class Fairness:
    """What holds of evictions, whatever the model says: by what was said and done alone, and when.

    Its clock never goes back.
    """

    now: int = 0

    reports: dict[tuple[str, str], dict[tuple[str, str], int]] = field(default_factory=dict)

    def sign(self, me: Member) -> None:
        self.reports.pop((me.name, me.incarnation), None)

    def report(self, me: Member, whom: Member) -> None:
        reports = self.reports.setdefault((whom.name, whom.incarnation), {})
        reports.setdefault((me.name, me.incarnation), self.now)

    def assert_fair(self, whom: Member, living: set[tuple[str, str]]) -> None:
        """It has had its time since the first report that no sign of life came after, and enough said so."""
        reports = self.reports[whom.name, whom.incarnation]
        assert self.now - min(reports.values()) >= GRACE_MS
        assert len(living & reports.keys()) >= min(2, len(living))


Action = Literal["join", "renew", "state", "weight", "leave", "forget", "seen", "later", "suspect", "evict"]
Step = tuple[Action, int, int, bool]
"""What is done, by which node, a number for what it needs, and whether the first answer to it is lost."""

ANY: list[Action] = ["join", "join", "renew", "renew", "renew", "later", "later"]
ANY += ["state", "weight", "leave", "forget", "seen", "suspect", "evict"]
TIMES = [1, 400, 1000, 1000, 1500, 2999, 3000, 3001, 10_000, -1000, -100_000]

steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.sampled_from(ANY), st.integers(0, 5), st.sampled_from(TIMES), st.booleans()),
    min_size=15,
    max_size=50,
)

HUNT: list[Action] = ["renew", "later", "later", "suspect", "suspect", "suspect", "evict", "evict"]

hunts: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from([*HUNT, *HUNT, "join", "join", "leave"]),
        st.sampled_from([0, 0, 2, 2, 4, 4, 1]),
        # Times in ms; and, modulo 6, who is suspected: n1, n2 or n3 as a rule.
        st.sampled_from([102, 104, 100, 248, 250, 252, 252, 900, 2751, -50]),
        st.booleans(),
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_random_histories_follow_the_model(redis_url: str, history: list[Step]) -> None:
    """Three names, two incarnations each; clocks that jump, servers that forget, answers that are lost.

    Whatever happens, server and model agree on the answer, the members, the leases and the epoch, and the
    epochs that one node sees rise with each change.
    """
    trio.run(_replay, redis_url, history)


def test_random_suspicions_follow_the_model(redis_url: str) -> None:
    """Three members suspect, renew and evict in any order: nobody is removed who has renewed since it was
    suspected, or before its time, or at the word of one where two others live."""
    seen: Counter[str] = Counter()

    @settings(max_examples=120, deadline=None)
    @given(hunts)
    def hunt(history: list[Step]) -> None:
        members: list[Step] = [("join", index, 0, False) for index in (0, 2, 4)]
        seen.update(trio.run(_replay, redis_url, members + history))

    hunt()
    assert all(seen[status] for status in ("evicted", "refuted", "wait", "unproven", "stale", "gone")), seen


async def _replay(url: str, history: list[Step]) -> Counter[str]:
    async with connected(url) as redis:
        replay = Replay(Ring(redis))
        for step in history:
            await replay.take(step)
        return replay.statuses


class Replay:
    """A history, on the server and in the model."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.model = Model()
        self.fairness = Fairness()
        self.nodes = [node(name, incarnation) for name in ("n1", "n2", "n3") for incarnation in ("i1", "i2")]
        self.views: dict[int, RingView] = {}
        self.seen = [0] * len(self.nodes)
        self.statuses: Counter[str] = Counter()

    async def take(self, step: Step) -> None:
        """A step, and what holds after it."""
        action, index, number, lost = step
        epoch = self.model.epoch
        if action == "later":
            self.ring.later(number)
            self.fairness.now += max(0, number)
        elif action == "seen":
            self.seen[index] = max(self.seen[index], epoch + number)
        elif action == "forget":
            await self.ring.forget()
            self.model = Model()
            epoch = 0
        else:
            if action == "state":
                state: Literal["up", "draining"] = "draining" if self.nodes[index].state == "up" else "up"
                self.nodes[index] = replace(self.nodes[index], state=state)
            if lost:
                await self.ask(action, index, number)
            self.learn(action, index, await self.ask(action, index, number))
        model, ring = self.model, self.ring
        assert await ring.epoch() == model.epoch >= epoch
        assert {member.name: member for member in await ring.members()} == model.members
        assert {name: lapse + T0 for name, lapse in (await ring.leases()).items()} == model.leases
        suspects: Any = await ring.redis.hkeys(ring.keys.suspects)
        assert {name.decode() for name in suspects} == model.suspicions.keys()

    async def ask(self, action: Action, index: int, number: int) -> Answer:
        """The server's answer, which is the model's."""
        model, scripts = self.model, self.ring.scripts
        me, whom, view = self.nodes[index], self.nodes[number % len(self.nodes)], self.views.get(index)
        now, seen = scripts.now_ms, self.seen[index]
        assert now is not None
        answer, expected = Answer(""), ""
        living = {(each.name, each.incarnation) for each in model.members.values() if model.lives(each, now)}
        if action == "join":
            expected = model.join(me, now, seen)
            answer = await scripts.join(me, seen)
        elif action == "renew" and view is not None:
            expected = model.renew(me, now, seen, view)
            answer = await scripts.renew(me, seen, view)
            if expected == answer.status == "behind":
                expected = model.restore(now, seen, view)
                answer = await scripts.restore(seen, view)
        elif action == "state":
            expected = model.state(me, now, seen)
            answer = await scripts.state(me, seen)
        elif action == "weight":
            expected = model.weight(me.name, now, 1 + number % 7)
            answer = await scripts.weight(me.name, 1 + number % 7)
        elif action == "leave":
            expected = model.leave(me, now, seen)
            answer = await scripts.leave(me, seen)
        elif action == "suspect":
            expected = model.suspect(me, whom, now)
            answer = await scripts.suspect(me, whom)
        elif action == "evict":
            expected = model.evict(me, whom, now, seen)
            answer = await scripts.evict(me, whom, seen)
        assert answer.status == expected, (action, me, whom)
        self.statuses[expected] += 1
        if expected in ("joined", "renewed"):
            self.fairness.sign(me)
        elif expected == "suspected":
            self.fairness.report(me, whom)
        elif expected == "evicted":
            self.fairness.assert_fair(whom, living - {(whom.name, whom.incarnation)})
        return answer

    def learn(self, action: Action, index: int, answer: Answer) -> None:
        """What the node makes of an answer that it got."""
        if answer.members is None:
            return
        told, view = self.ring.view(answer), self.views.get(index)
        assert told.epoch == self.model.epoch
        if (
            view is not None and action == "renew"
        ):  # which compares them; a join leaves that to the next renewal
            assert told.epoch > view.epoch or told.members_hash == view.members_hash
        if action in ("join", "renew") and told.epoch > (view.epoch if view else 0):
            self.views[index] = told
            self.seen[index] = max(self.seen[index], told.epoch)
