"""A node's membership of the ring: its lease in Redis, and the views that follow from everybody's.

`Membership.run` joins, then keeps two tasks: one talks to Redis (renews the lease, compares the slot table),
the other turns the newest members, from Redis or from a peer, into a view and hands it to the node. So what a
peer tells is entered while Redis does not answer.

                 renew (ttl/3) .. members ..+
    Redis  <----------------------          |    pending: the newest alone      view, epochs only rise
                                            +-> members --> place() --> on_view
    peers  ----- heard(), offer() ----------+                       in a thread
"""

import hmac
import re
import time
from collections.abc import Callable, Collection
from functools import partial

import structlog
import trio
from msgspec.structs import replace

from ring.cluster.placement import ALGORITHM
from ring.cluster.scripts import OLDEST_SCHEMA, SCHEMA, Answer, Scripts
from ring.cluster.view import Member, RingView
from ring.cluster.view import members_hash as hash_of
from ring.protocol.codes import BadRequest, RingError
from ring.protocol.names import SLOTS
from ring.protocol.peer import Members
from ring.store.client import Redis
from ring.store.connection import StoreError, StoreUnavailable
from ring.store.keys import Keys

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

TAKE_OVER_S = 0.1
"""How often a node that waits for its name asks, in the first ttl."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("ring.cluster")


def check_node_name(name: str) -> str:
    """Returns `name` if it may name a node: it becomes a server's name in HAProxy and a word in commands.

    Raises:
        BadRequest: it is not 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
    """
    if _NAME.fullmatch(name) is None:
        raise BadRequest(
            f"node name {name!r}: 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit"
        )
    return name


def boottime() -> float:
    """Seconds by a clock that goes on while the machine sleeps, as leases do; else by the monotonic one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Membership:
    """One node's place in the ring.

    The node must stop when `run` raises. Time-outs of `drain` and `leave` are the caller's.

    Args:
        redis: run by the caller; it may be away, at the start and later.
        keys: of the cluster.
        me: this node; its incarnation is new at each start.
        ttl_s: how long the lease lasts without being renewed; the same on all nodes.
        secret: the cluster's; a node with another would own users whom no peer could reach.
        on_view: called on Trio's thread with each view entered, epochs rising; what it raises ends `run`.
        clock: seconds that go on while the machine sleeps.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        me: Member,
        *,
        ttl_s: float = 3.0,
        secret: bytes = b"",
        on_view: Callable[[RingView], None],
        clock: Callable[[], float] = boottime,
    ) -> None:
        check_node_name(me.name)
        self._scripts = Scripts(
            redis, keys, ttl_ms=round(ttl_s * 1000), secret_mark=_mark(secret, keys.cluster)
        )
        self._cluster = keys.cluster
        self._me = me  # as it wants to be: Redis is told until it agrees
        self._ttl_s = ttl_s
        self._on_view = on_view
        self._clock = clock
        self._view: RingView | None = None
        self._pending: Members | None = None
        self._seen = 0  # the highest epoch that anybody showed: what comes next has to be above
        self.renewed_at = clock()
        """When the lease was renewed last, counted from before the renewal was sent."""
        self._run_began = self.renewed_at
        self._compared = 0  # the last epoch whose slot table was compared with Redis
        self.disagreed = trio.Event()
        """Set once this node's slot table differed from the others': it must give up its slots."""
        self._disputed: tuple[int, int] | None = None
        self._news = trio.Event()
        self._urgent = trio.Event()
        self._entered = trio.Event()
        self._leasing = trio.CancelScope()
        self._renewing = trio.CancelScope()

    @property
    def view(self) -> RingView:
        """The ring as this node routes by it; not before `run` has started."""
        assert self._view is not None, "run() has not joined yet"
        return self._view

    @property
    def lease_age_s(self) -> float:
        """For how long the lease has not been renewed, counted from before the last renewal was sent."""
        return self._clock() - self.renewed_at

    @property
    def run_s(self) -> float:
        """For how long the lease had not lapsed when it was renewed last."""
        return self.renewed_at - self._run_began

    async def run(self, *, task_status: trio.TaskStatus[RingView] = trio.TASK_STATUS_IGNORED) -> None:
        """Joins, enters the first view (with which it is started), and renews until it is cancelled.

        While another live node has this name, joining waits, until that one leaves or its lease lapses.

        Raises:
            RingError: the cluster refuses this node, or another node has taken over its name.
        """
        answer = await self._join()
        self._enter(await self._build(_members(answer)))
        refusal: RingError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._enter_views)
            task_status.started(self.view)
            try:
                with self._leasing:
                    await self._keep_lease()
            except RingError as error:
                # Raised below: out of a nursery it would come in a group.
                refusal = error
                nursery.cancel_scope.cancel()
        assert refusal is not None  # whoever is cancelled from outside does not come here
        raise refusal

    def renew_soon(self) -> None:
        """Renews now, not when it is due: whoever lost a link to a peer wants to know what Redis says."""
        self._urgent.set()

    def heard(self, epoch: int, members_hash: int) -> None:
        """A peer routes by this epoch; cheap enough for every frame. The members come by `offer`."""
        if self._view is None or epoch < self._view.epoch:
            return
        self._seen = max(self._seen, epoch)
        other = epoch == self._view.epoch and members_hash != self._view.members_hash
        if other and self._disputed != (epoch, members_hash):
            # One of us differs from Redis, and learns it there: renewing raises the epoch for both.
            self._disputed = epoch, members_hash
            self.renew_soon()

    def offer(self, members: Members) -> None:
        """The members as a peer knows them; entered if of a later epoch, also while Redis is away."""
        if self._view is None or members.epoch < self._view.epoch:
            return
        if members.epoch == self._view.epoch:
            self.heard(members.epoch, hash_of(members.members))
            return
        self._consider(members)

    def document(self) -> Members:
        """The members of this node's view, for a peer that asks."""
        return Members(self.view.epoch, list(self.view.members), self.view.previous)

    async def suspect(self, member: Member) -> str:
        """Has `member` removed, as one whose process has died, unless it shows a sign of life in time.

        Returns what came of it: "evicted" or "gone" (it is a member no more), "refuted" (it has renewed its
        lease), "unproven" (another node has to suspect it too) or "stale" (this one is no live member
        itself). May be repeated at any time.

        Raises:
            StoreUnavailable, StoreError: nothing may have come of it.
        """
        answer = await self._scripts.suspect(self._me, member)
        while answer.status in ("suspected", "wait"):
            await trio.sleep(answer.details[0] / 1000)
            answer = await self._scripts.evict(self._me, member, self._seen)
        self._adopt(answer)
        return answer.status

    def go_on_without(self, dead: Collection[str], *, disputed: bool = False) -> None:
        """Enters a ring of the next epoch without these members, which peers enter too when they see it.

        For one node of a ring that is frozen. Redis is told when it is back, and then is behind. `disputed`:
        there are two rings of this epoch, so nobody knows who was in the one before.
        """
        if self._pending is None:
            view = self.view
            rest = [member for member in view.members if member.name not in dead]
            # `_seen` rises when it is entered: a renewal that showed it before would raise the old ring.
            self._pending = Members(max(self._seen, view.epoch) + 1, rest, 0 if disputed else view.epoch)
            self._news.set()

    async def drain(self) -> None:
        """Gives up all slots; returns when the view in which this node owns nothing has been entered.

        Waits for Redis where that is away. The node stays a member, and draining, until it leaves.
        """
        await trio.lowlevel.checkpoint()
        self._me = replace(self._me, state="draining")
        self.renew_soon()
        while (mine := self.view.member(self._me.name)) is None or mine.state != "draining":
            await self._entered.wait()

    async def leave(self) -> None:
        """Ends the membership; the lease is not renewed any more. Waits for Redis where that is away."""
        self._leasing.cancel()
        while True:
            try:
                await self._scripts.leave(self._me, self._seen)
            except StoreUnavailable:
                await trio.sleep(self._retry_s)
            else:
                return

    @property
    def _retry_s(self) -> float:
        return self._ttl_s / 12

    @property
    def _newest(self) -> int:
        """The epoch that is entered or about to be."""
        return self.view.epoch if self._pending is None else self._pending.epoch

    async def _join(self) -> Answer:
        told = ""
        began = self._clock()
        while True:
            sent = self._clock()
            try:
                answer = await self._scripts.join(self._me, self._seen)
            except StoreUnavailable as error:
                reason, pause_s = str(error), self._retry_s
            else:
                if answer.status == "joined":
                    self._note_renewal(sent)
                    return answer
                if answer.status == "refused":
                    raise RingError(_explain(self._cluster, *answer.details))
                if self._view is not None:
                    raise self._taken_over()
                left_ms = max(1, answer.details[0])
                # One that was killed is gone within a second: the others suspect it.
                patient = self._clock() - began > self._ttl_s
                pause_s = min(self._ttl_s / 6 if patient else TAKE_OVER_S, left_ms / 1000)
                reason = "a live node has this name"
            if reason != told:
                _log.warning("waiting to join", cluster=self._cluster, name=self._me.name, reason=reason)
            told = reason
            await trio.sleep(pause_s)

    async def _keep_lease(self) -> None:
        troubled = False
        while True:
            # Before it renews: who asks for a renewal meanwhile gets another one.
            self._urgent = trio.Event()
            due = trio.current_time() + self._ttl_s / 3
            try:
                # An answer that comes later than this renews nothing.
                with trio.move_on_after(self._ttl_s) as self._renewing:
                    await self._renew()
                    await self._compare()
                    troubled = False
            except (StoreUnavailable, StoreError) as error:
                if not troubled:
                    _log.warning("the lease cannot be renewed", cluster=self._cluster, reason=str(error))
                troubled = True
                due = trio.current_time() + self._retry_s
            with trio.move_on_at(due):
                await self._urgent.wait()

    async def _renew(self) -> None:
        sent = self._clock()
        view = self.view
        answer = await self._scripts.renew(self._me, self._seen, view)
        if answer.status == "behind":
            _log.warning(
                "the store has forgotten the ring: telling it", cluster=self._cluster, epoch=view.epoch
            )
            answer = await self._scripts.restore(self._seen, view)
            if answer.status == "ahead":
                self.renew_soon()
                return
        if answer.status == "taken":
            raise self._taken_over()
        if answer.status == "gone":
            _log.warning("no longer a member: joining again", cluster=self._cluster, epoch=view.epoch)
            answer = await self._join()
        else:
            self._note_renewal(sent)
        self._adopt(answer)
        members = answer.members or view.members
        if any(member.name == self._me.name and member.state != self._me.state for member in members):
            self._adopt(await self._scripts.state(self._me, self._seen))

    def _note_renewal(self, sent: float) -> None:
        if sent - self.renewed_at >= self._ttl_s:
            self._run_began = sent
        self.renewed_at = sent

    def _adopt(self, answer: Answer) -> None:
        if answer.members is not None:
            self._consider(_members(answer))

    async def _compare(self) -> None:
        """Holds the slot table against the one that Redis has for this epoch, or puts it there."""
        view = self.view
        if view.epoch == self._compared or self._pending is not None:
            return
        answer = await self._scripts.table(view)
        if answer.status == "stale":
            return
        self._compared = view.epoch
        if answer.status == "differs":
            self.disagreed.set()
            _log.error(
                "table mismatch: another node computes another ring of these members; owning nothing",
                cluster=self._cluster,
                epoch=view.epoch,
                table_hash=view.table_hash,
            )

    def _consider(self, members: Members) -> None:
        self._seen = max(self._seen, members.epoch)
        if members.epoch > self._newest:
            self._pending = members
            self._news.set()

    async def _enter_views(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while (members := self._pending) is not None:
                view = await self._build(members)
                if self._pending is members:  # else there is a newer one, and this one is skipped
                    self._pending = None
                    self._enter(view)

    async def _build(self, members: Members) -> RingView:
        build = partial(
            RingView.build, self._cluster, members.epoch, members.members, previous=members.previous
        )
        return await trio.to_thread.run_sync(build)

    def _enter(self, view: RingView) -> None:
        self._view = view
        self._seen = max(self._seen, view.epoch)
        mine = view.member(self._me.name)
        if mine is not None and mine.incarnation == self._me.incarnation:
            self._me = replace(self._me, weight=mine.weight)  # `set_weight` may have changed it
        # Redis is to be told this view's table, and asked why this node is not in it if it is not. A renewal
        # that still waits for it is of the view before.
        self._renewing.cancel()
        self.renew_soon()
        self._entered.set()
        self._entered = trio.Event()
        self._on_view(view)

    def _taken_over(self) -> RingError:
        return RingError(
            f"another node took over the name {self._me.name} in cluster {self._cluster}: "
            "this one stops; give each node a name of its own"
        )


def _mark(secret: bytes, cluster: str) -> str:
    """What differs where secrets do, and tells nothing of them."""
    return hmac.new(secret, b"ring membership of " + cluster.encode(), "sha256").hexdigest()[:16]


def _members(answer: Answer) -> Members:
    return Members(answer.epoch, list(answer.members or ()), answer.previous)


def _explain(cluster: str, what: bytes, value: bytes) -> str:
    """Why a cluster refuses a node, and what to do."""
    has = f"cluster {cluster} has {what.decode()} {value.decode()}"
    return {
        b"schema": f"{has}, this release works with {OLDEST_SCHEMA} to {SCHEMA}: use a release in between",
        b"slots": f"{has}, this release has {SLOTS}: use another cluster name, or the release that made it",
        b"algorithm": f"{has}, this node {ALGORITHM}: stop the other nodes first, or use their release",
        b"secret": f"the nodes of cluster {cluster} have another secret: give all the same --secret-file",
        b"ttl_ms": f"{has}, this node another lease: give all nodes the same, or stop the others first",
    }[what]
