"""Keeps any number of HAProxies equal to the ring, for as long as it runs."""

from collections.abc import Callable, Sequence

import structlog
import trio

from ring.haproxy.agent import Agent
from ring.haproxy.source import Source
from ring.haproxy.wanted import Wanted, wanted
from ring.protocol.codes import RingError

EVERY_S = 0.25
"""How often the ring is read, and HAProxy compared with it."""

_log = structlog.get_logger()


class _Trouble:
    """Is logged when it begins, when it is another, and when it ends: not every time."""

    def __init__(self, **about: str) -> None:
        self._about = about
        self._words = ""

    def is_(self, words: str) -> None:
        if words != self._words:
            self._words = words
            if words:
                _log.warning("haproxy sync: " + words, **self._about)
            else:
                _log.info("haproxy sync: well again", **self._about)


async def sync(
    source: Source,
    agents: Sequence[Agent],
    *,
    on_synced: Callable[[Agent, Wanted], None] = lambda agent, ring: None,
) -> None:
    """Runs until it is cancelled. What cannot be done now is tried again; HAProxy keeps what it has.

    Args:
        source: of the ring.
        agents: of the HAProxies; one that is away does not hold up the others.
        on_synced: called each time that one agrees with the ring.
    """
    latest = trio.Event()
    known: list[Wanted] = []

    async def read() -> None:
        nonlocal latest
        trouble, last, why = _Trouble(), None, ""
        while True:
            try:
                view = await source.read()
            except RingError as error:
                trouble.is_(str(error))
            else:
                if last is None or (view.epoch, view.members) != (last.epoch, last.members):
                    last, ring = view, await trio.to_thread.run_sync(wanted, view)
                    why = _why_not(ring, known)
                    if not why:
                        known[:] = [ring]
                        latest.set()
                        latest = trio.Event()
                trouble.is_(why)
            await trio.sleep(EVERY_S)

    async def tend(agent: Agent) -> None:
        trouble = _Trouble(haproxy=agent.runtime.address)
        while True:
            if known:
                ring = known[0]
                try:
                    for words in await agent.reconcile(ring):
                        _log.info("haproxy sync: " + words, haproxy=agent.runtime.address)
                except RingError as error:
                    trouble.is_(str(error))
                else:
                    trouble.is_("")
                    on_synced(agent, ring)
            with trio.move_on_after(EVERY_S):
                await latest.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(source.run)
        nursery.start_soon(read)
        for agent in agents:
            nursery.start_soon(tend, agent)


def _why_not(ring: Wanted, known: Sequence[Wanted]) -> str:
    """Why a ring is not applied: HAProxy keeps what it has. "" if it is."""
    if not any(ring.slots):
        return "the ring has no node that takes clients"
    if known and ring.epoch < known[0].epoch:
        return f"epoch {ring.epoch} is before {known[0].epoch}, which HAProxy has"
    return ""
