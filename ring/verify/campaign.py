"""A run of `ring verify`: a site and a crowd, one fault after the other, and the judgement.

calm | fault, whole again, all answered, calm | … | nobody sends, all come back, all is drained | judged
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random

import msgspec
import trio

from ring.protocol.codes import RingError
from ring.protocol.names import slot_of
from ring.verify.crowd import Crowd
from ring.verify.effect import Effect
from ring.verify.front import in_front_of
from ring.verify.misconduct import Misconduct
from ring.verify.node import SiteFailed
from ring.verify.oracle import Oracle
from ring.verify.plan import Plan, known_faults
from ring.verify.record import AFTERSHOCK_S, Breach, Promise, Window
from ring.verify.site import Site
from ring.verify.tally import Row

WHOLE_S = 60.0
"""How long a site may take to be whole again after a fault."""

ENTER_S = 30.0
"""How long the crowd may take to connect."""

LATE_S = 1.0
"""After everything is there: for a double that is still on its way."""

POLL_S = 0.1
ASK_S = 2.0

SLOW_S = 1.0
"""A program that stood still for so long cannot say how fast the cluster was."""

MOST_COMPLAINTS, COMPLAINT = 20, 3000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is.

    Attributes:
        what: goes on.
        row: the last one that is complete, when it has just become so.
    """

    what: str
    done: int
    of: int
    sent: int
    row: Row | None = None


@dataclass(slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        tried: how many faults of the plan.
        rows: of the table.
        breached: how often each promise was broken.
        breaches: the first of them, with their stories.
        failures: faults that were not in effect, or did not heal: they prove nothing.
        complaints: what nodes have logged as errors.
        notes: what a reader must know.
        origin: the clock's time at which the rows begin.
    """

    plan: Plan
    tried: int = 0
    origin: float = 0.0
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    breached: dict[Promise, int] = field(default_factory=dict)
    breaches: list[Breach] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all promises were kept, all faults were in effect, and no node complained."""
        return not (self.breached or self.failures or self.complaints)


async def verify(plan: Plan, tell: Callable[[Progress], None], stop: trio.Event | None = None) -> Outcome:
    """Runs a plan.

    Args:
        plan: what to do.
        tell: called now and then, and after each fault.
        stop: once it is set no further fault is tried; what was until then is judged.

    Raises:
        RingError: the cluster does not come up, or there is no Redis or HAProxy; it may be in a group.
    """
    outcome = Outcome(plan)
    parts = "Redis and HAProxy" if plan.haproxy else "Redis"
    tell(Progress(f"starting {plan.nodes} nodes, {parts}", 0, len(plan.order), 0))
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(
            Site(nodes=plan.nodes, ttl_s=plan.ttl_s, options=plan.node_options, command=plan.command)
        )
        if plan.haproxy:
            await stack.enter_async_context(in_front_of(site))
        await _Campaign(plan, site, outcome, tell, trio.Event() if stop is None else stop).run()
    return outcome


class _Campaign:
    def __init__(
        self,
        plan: Plan,
        site: Site,
        outcome: Outcome,
        tell: Callable[[Progress], None],
        stop: trio.Event,
    ) -> None:
        self._plan = plan
        self._stop = stop
        self._site = site
        self._outcome = outcome
        self._tell_with = tell
        self._known = known_faults(plan.nodes, plan.ttl_s, plan.outage_s, haproxy=plan.haproxy)
        self._oracle = Oracle(plan.terms, trio.current_time())
        self._crowd = Crowd(self._oracle, self._edges, users=plan.users, rate=plan.rate, seed=plan.seed)
        self._done = 0
        self._what = "calm"

    async def run(self) -> None:
        """All of it."""
        outcome, oracle = self._outcome, self._oracle
        outcome.origin, outcome.rows = oracle.origin, oracle.rows
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._crowd.run)
            nursery.start_soon(self._tell_steadily)
            self._what = "the clients connect"
            await self._all_connect()
            async with self._watched():
                await self._calm("calm")
            for name in self._plan.order:
                if self._stop.is_set():
                    outcome.notes.append(f"told to stop after {self._done} of {len(self._plan.order)} faults")
                    break
                if not await self._try(name):
                    break
            self._begin("calm")
            await self._finish()
            nursery.cancel_scope.cancel()
        now = trio.current_time()
        self._crowd.close_books(now)
        oracle.judge(now, final=True)
        outcome.breached, outcome.breaches = oracle.breached, oracle.breaches()
        outcome.complaints = self._complaints()
        outcome.seconds = now - oracle.origin

    def _edges(self) -> list[str]:
        if self._site.front is not None:
            return [self._site.front.address]
        return [self._site.edge(name) for name in self._site.serving()]

    # --- one fault

    async def _try(self, name: str) -> bool:
        """A fault, and what comes after; False if the site has not come out of it."""
        oracle, fault = self._oracle, self._known[name]
        self._outcome.tried += 1
        owners = await self._owners()
        self._what, self._crowd.stalled_s = name, 0.0
        row = self._begin(name)
        if fault.forgets:
            oracle.take_stock(trio.current_time())
        window = Window(name, trio.current_time(), fault.planned, fault.forgets, holds=fault.holds)
        oracle.windows.add(window)
        effect: Effect | None = None
        random = Random(f"{self._plan.seed}/{self._done}")  # noqa: S311 - it has to be the same again
        try:
            if isinstance(fault, Misconduct):
                effect = await fault.run(self._crowd, random)
            else:
                effect = await fault.run(self._site, random)
            window.victims, window.detail = effect.victims, effect.detail
        except SiteFailed as failure:
            self._outcome.failures.append(str(failure))
            window.planned = False  # something else has broken than was planned
        self._what = f"{name}: until all is whole"
        try:
            await self._site.whole(WHOLE_S)
            if self._site.front is not None:
                await self._site.front.agrees(WHOLE_S)
        except SiteFailed as failure:
            self._outcome.failures.append(f"{name}: {failure}")
            window.planned = False
            return False
        finally:
            window.healed = trio.current_time()
        async with self._watched():
            await self._calm(f"{name}: until all is answered")
        if effect is not None:
            row.detail, row.victims = effect.detail, effect.victims
            hit = {user for user, owner in owners.items() if not effect.victims or owner in effect.victims}
            oracle.measure(hit, effect.began, window.healed)
        oracle.judge(trio.current_time())
        if self._crowd.stalled_s > SLOW_S:
            self._outcome.notes.append(
                f"{name}: this program stood still for {self._crowd.stalled_s:.1f} s: the machine is too busy"
            )
        self._done += 1
        self._tell(row)
        return True

    def _begin(self, name: str) -> Row:
        return self._oracle.begin(name, trio.current_time())

    async def _calm(self, what: str) -> None:
        """Until all that was sent before is answered, or should be; and a while longer."""
        self._what = what
        now, terms = trio.current_time(), self._plan.terms
        with trio.move_on_after(terms.send_timeout_s + terms.margin_s):
            while self._oracle.waits_since(now):  # noqa: ASYNC110 - books tell no event
                await trio.sleep(POLL_S)
        await trio.sleep(AFTERSHOCK_S + self._plan.pause_s)

    async def _all_connect(self) -> None:
        with trio.move_on_after(ENTER_S) as patience:
            await self._crowd.until_present()
        if patience.cancelled_caught:
            self._outcome.failures.append(f"not all clients were connected after {ENTER_S:g} s")

    async def _finish(self) -> None:
        self._what = "at the end: until all is answered"
        self._crowd.hush()
        terms = self._plan.terms
        await self._all_connect()
        with trio.move_on_after(2 * (terms.send_timeout_s + terms.margin_s)):
            while self._crowd.waiting:  # noqa: ASYNC110 - as above
                await trio.sleep(POLL_S)
        self._what = "at the end: until all that is stored has come"
        missing, since = self._oracle.missing, trio.current_time()
        while missing and trio.current_time() - since < self._plan.drain_s:
            await trio.sleep(POLL_S)
            if self._oracle.missing < missing:
                missing, since = self._oracle.missing, trio.current_time()
        await trio.sleep(LATE_S)

    # --- what it sees of the site

    async def _owners(self) -> dict[str, str]:
        """Each user's owner, as Redis knows it; nobody's if it does not answer."""
        with trio.move_on_after(ASK_S), suppress(RingError):
            view = (await self._site.store.read()).view
            return {user: view.owners[slot_of(user)] for user in self._crowd.users}
        return {}

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Sees if the ring changes in the block, though nobody asked for it: then that is what broke."""
        before, began = await self._stored_epoch(), trio.current_time()
        yield
        after = await self._stored_epoch()
        if before is not None and after is not None and after != before:
            window = Window("the ring changed by itself", began, healed=trio.current_time(), holds=True)
            self._oracle.windows.add(window)
            self._outcome.notes.append(
                f"{(began - self._oracle.origin):.0f} s: the ring changed by itself: a lease of "
                f"{self._plan.ttl_s:g} s is too short for this machine, or a node stood still"
            )
            with suppress(SiteFailed):
                await self._site.whole(WHOLE_S)

    async def _stored_epoch(self) -> int | None:
        with trio.move_on_after(ASK_S), suppress(RingError):
            return (await self._site.store.read()).view.epoch
        return None

    def _complaints(self) -> list[str]:
        """Errors that nodes have logged, in all their lives; and what they died of."""
        found = []
        for path in sorted(self._site.directory.glob("*.log")):
            died = []
            for line in path.read_text(errors="replace").split("\n")[:-1]:  # the last may be half written
                try:
                    logged = msgspec.json.decode(line)
                except msgspec.DecodeError:
                    died.append(line)  # a traceback
                    continue
                if logged.get("level") in ("error", "critical"):
                    found.append(f"{path.stem}: {line[:COMPLAINT]}")
            if died:
                found.append(f"{path.stem}: {'; '.join(died)[-COMPLAINT:]}")
        return found[:MOST_COMPLAINTS]

    # --- telling

    async def _tell_steadily(self) -> None:
        while True:
            self._tell()
            await trio.sleep(0.5)

    def _tell(self, row: Row | None = None) -> None:
        sent = sum(each.sent for each in self._oracle.rows)
        self._tell_with(Progress(self._what, self._done, len(self._plan.order), sent, row))
