"""Bugs that are planted in the nodes: a run notices each, by the promise that it breaks, and tells its story.

A checker that was never seen red proves nothing.
"""

import sys
from pathlib import Path

import pytest
import trio

from ring.verify.campaign import Outcome, Progress, verify
from ring.verify.plan import Plan
from ring.verify.record import Promise
from tests.verify import planted

RUN_S = 60.0
"""A run of some seconds, on a machine that is busy with other things."""

SEEDS = (5, 6, 7)
"""A bug in one message of 1,000 may hit none, in some seconds, of which it would be seen."""


def short(bug: str, seed: int) -> Plan:
    """A run that is as short as it may be: some seconds of calm, and the faults without which a bug does not
    show, or that could hide it."""
    entry = str(Path(planted.__file__))
    order = {"bare": ("freeze", "freeze"), "forget": ("redis-empty",)}.get(bug, ())
    return Plan(
        seed=seed,
        order=order,
        nodes=3 if bug == "bare" else 2,
        users=40,
        rate=200.0,
        pause_s=7.0 if bug in ("forget", "none") else 2.5,  # until there is somebody to store for
        ttl_s=3.0,
        send_timeout_s=1.0 if bug == "silent" else 3.0,  # what does not come is waited for
        drain_s=3.0,
        command=(sys.executable, entry, bug),
        options={"linger_s": "0.5", "spill_after_s": "1"},
    )


async def run(bug: str, seed: int = SEEDS[0]) -> Outcome:
    """What came of a short run with this bug."""
    heard: list[Progress] = []
    with trio.fail_after(RUN_S):
        outcome = await verify(short(bug, seed), heard.append)
    assert heard
    assert sum(row.sent for row in outcome.rows) > 300
    return outcome


async def test_none() -> None:
    """Without a bug all promises are kept."""
    outcome = await run("none")
    assert outcome.ok, outcome
    row = outcome.rows[0]
    assert row.queued
    assert row.delivered


@pytest.mark.parametrize(
    ("bug", "promises"),
    [
        ("drop", {Promise.NOT_PASSED_OVER, Promise.TRUE_RECEIPT}),
        ("double", {Promise.MARKED}),
        ("swap", {Promise.IN_ORDER}),
        ("early", {Promise.TRUE_RECEIPT}),
        ("forget", {Promise.KEPT}),
        ("refuse", {Promise.CARRIED_OUT}),
        ("bare", {Promise.MARKED}),
        ("astray", {Promise.TO_ADDRESSEE}),
        ("twice", {Promise.ANSWERED_ONCE}),
        ("silent", {Promise.ANSWERED}),
    ],
)
async def test_bug(bug: str, promises: set[Promise]) -> None:
    """The bug breaks these promises; the first breach of each says which message, and what became of it."""
    for seed in SEEDS:
        outcome = await run(bug, seed)
        if promises <= set(outcome.breached):
            break
    assert not outcome.ok
    assert promises <= set(outcome.breached), outcome.breached
    for promise in promises:
        breach = next(breach for breach in outcome.breaches if breach.promise is promise)
        assert breach.key is not None
        assert any("sent through" in line for line in breach.story)
