"""Random histories of the membership scripts on a real server, held against a model."""

from dataclasses import dataclass, field
from typing import Any, Literal

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ring.cluster.scripts import Answer
from ring.cluster.view import Member, RingView
from tests.cluster.seats import T0, TTL, Ring, connected, node


@dataclass
class Model:
    """What the scripts are to do, written down a second time."""

    epoch: int = 0
    swept: int | None = None
    members: dict[str, Member] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)

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
            del self.leases[name], self.members[name]
        return bool(lapsed)

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
        if changed or self.epoch < seen:
            self.bump(now, seen)
        return "joined"

    def renew(self, me: Member, now: int, seen: int, view: RingView) -> str:
        if self.epoch < view.epoch:
            return "behind"
        if (holder := self.holder(me)) != "mine":
            return holder
        self.leases[me.name] = now + TTL
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
        del self.members[me.name], self.leases[me.name]
        self.bump(now, seen)
        return "left"


Step = tuple[Literal["join", "renew", "state", "weight", "leave", "forget", "seen", "later"], int, int]

steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "join",
                "join",
                "renew",
                "renew",
                "renew",
                "later",
                "later",
                "state",
                "weight",
                "leave",
                "forget",
                "seen",
            ]
        ),
        st.integers(0, 5),
        st.sampled_from([1, 400, 1000, 1000, 1500, 2999, 3000, 3001, 10_000, -1000, -100_000]),
    ),
    min_size=15,
    max_size=50,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_random_histories_follow_the_model(redis_url: str, history: list[Step]) -> None:
    """Three names, two incarnations each: joins, renewals, clocks that jump, servers that forget.

    Whatever happens, server and model agree on the answer, the members, the leases and the epoch, and the
    epochs that one node sees rise with each change.
    """
    trio.run(_replay, redis_url, history)


async def _replay(url: str, history: list[Step]) -> None:
    async with connected(url) as redis:
        ring, model = Ring(redis), Model()
        nodes = [node(name, incarnation) for name in ("n1", "n2", "n3") for incarnation in ("i1", "i2")]
        views: dict[int, RingView] = {}
        seen = [0] * len(nodes)
        for action, index, number in history:
            me, view, now = nodes[index], views.get(index), ring.scripts.now_ms
            assert now is not None
            answer, expected = Answer(""), ""
            if action == "later":
                ring.later(number)
            elif action == "seen":
                seen[index] = max(seen[index], model.epoch + number)
            elif action == "forget":
                await ring.forget()
                model = Model()
            elif action == "join":
                expected = model.join(me, now, seen[index])
                answer = await ring.scripts.join(me, seen[index])
            elif action == "renew" and view is not None:
                expected = model.renew(me, now, seen[index], view)
                answer = await ring.scripts.renew(me, seen[index], view)
                if expected == answer.status == "behind":
                    expected = model.restore(now, seen[index], view)
                    answer = await ring.scripts.restore(seen[index], view)
            elif action == "state":
                nodes[index] = me = replace(me, state="draining" if me.state == "up" else "up")
                expected = model.state(me, now, seen[index])
                answer = await ring.scripts.state(me, seen[index])
            elif action == "weight":
                expected = model.weight(me.name, now, 1 + number % 7)
                answer = await ring.scripts.weight(me.name, 1 + number % 7)
            elif action == "leave":
                expected = model.leave(me, now, seen[index])
                answer = await ring.scripts.leave(me, seen[index])
            assert answer.status == expected, (action, me)
            if answer.members is not None:
                told = ring.view(answer)
                assert told.epoch == model.epoch
                if view is not None and action in ("join", "renew"):
                    assert told.epoch > view.epoch or told.members_hash == view.members_hash
                if action in ("join", "renew") and told.epoch > (view.epoch if view else 0):
                    views[index] = told
                    seen[index] = max(seen[index], told.epoch)
            assert await ring.epoch() == model.epoch
            assert {member.name: member for member in await ring.members()} == model.members
            assert {name: lapse + T0 for name, lapse in (await ring.leases()).items()} == model.leases
