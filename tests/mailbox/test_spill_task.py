"""The task that carries batches to the store: when it goes, how long it waits."""

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ring.config import Settings
from ring.mailbox import spill
from ring.mailbox.spill import BATCH_LETTERS, PATIENCE_S, POLL_S
from ring.mailbox.vault import Remove
from ring.protocol.codes import RingError
from ring.store.client import Redis
from ring.store.connection import StoreUnavailable
from tests.mailbox.asking import Desk, Server, letters


def _flush() -> None:
    """There is nothing to flush."""


class TestTask:
    """The task that carries batches."""

    async def test_it_sleeps_until_something_is_asked_for(self, nursery: trio.Nursery) -> None:
        """Then carries all of it, and has it flushed."""
        desk, server, flushed = Desk(), Server(), []
        nursery.start_soon(desk.spill.run, cast("Any", server), lambda: flushed.append(len(server.asked)))
        await wait_all_tasks_blocked()
        assert server.asked == []
        desk.push("bob", *letters(1))
        await wait_all_tasks_blocked()
        assert (len(server.asked), flushed, desk.spill.waiting) == (1, [1], 0)
        desk.push("bob", *letters(BATCH_LETTERS + 1, first=2))
        desk.push("carol", *letters(1))
        await wait_all_tasks_blocked()
        assert (len(server.asked), flushed) == (3, [1, 2, 3])

    async def test_a_lost_answer(self, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
        """After a moment it is asked for again."""
        desk, server = Desk(), Server()
        server.broken = 1
        told = trio.Event()
        desk.keeper.on_told = told.set
        nursery.start_soon(desk.spill.run, cast("Any", server), _flush)
        desk.push("bob", *letters(1))
        began = trio.current_time()
        await told.wait()
        assert trio.current_time() - began == pytest.approx(POLL_S)
        assert (len(server.asked), desk.keeper.pushed) == (2, [("bob", [1], ["stored"])])

    async def test_an_answer_that_does_not_come(
        self, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        """A server that says nothing is as good as away; the letter fails and is removed later."""
        desk, server = Desk(), Server()
        server.stuck = 1
        told = trio.Event()
        desk.keeper.on_told = told.set
        desk.spill._clock = trio.current_time
        nursery.start_soon(desk.spill.run, cast("Any", server), _flush)
        desk.push("bob", *letters(1))
        await wait_all_tasks_blocked()
        assert desk.spill.waiting == 1
        await told.wait()
        assert trio.current_time() == pytest.approx(PATIENCE_S + POLL_S)
        assert desk.spill.failed["away"] == 1
        await wait_all_tasks_blocked()
        assert [type(job) for job in server.asked[-1]] == [Remove]

    async def test_time_in_which_this_process_stood_still(
        self, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        """Counts for no letter: Redis could not answer in it, and is there."""
        desk, server = Desk(), Server()
        server.stuck = 1
        told = trio.Event()
        desk.keeper.on_told = told.set
        desk.spill._clock = trio.current_time
        nursery.start_soon(desk.spill.run, cast("Any", server), _flush)
        desk.push("bob", *letters(1))
        await wait_all_tasks_blocked()
        autojump_clock.jump(60)
        await told.wait()
        assert desk.keeper.pushed == [("bob", [1], ["stored"])]

    async def test_without_a_connection_nothing_is_sent(
        self, nursery: trio.Nursery, autojump_clock: MockClock
    ) -> None:
        """It is looked at again until there is one."""
        desk, server = Desk(), Server()
        desk.there = False
        nursery.start_soon(desk.spill.run, cast("Any", server), _flush)
        desk.push("bob", *letters(1))
        await trio.sleep(1)
        assert server.asked == []
        desk.there = True
        await trio.sleep(POLL_S)
        assert desk.keeper.pushed == [("bob", [1], ["stored"])]

    async def test_it_is_checked_before(
        self, nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the settings' bounds; a server that is away just then ends nothing, but is waited for."""
        desk, made, checks = Desk(), [], iter([StoreUnavailable("LOADING"), None, True])

        class Vault(Server):
            def __init__(self, redis: Redis, keys: object, **options: object) -> None:
                super().__init__()
                made.append(options)

            async def check(self) -> None:
                await trio.lowlevel.checkpoint()
                outcome = next(checks)
                if outcome is None:
                    await trio.sleep_forever()
                if isinstance(outcome, Exception):
                    raise outcome

        monkeypatch.setattr(spill, "Vault", Vault)
        settings = Settings(name="n1", mailbox_messages=7, mailbox_keep_s=9.0, mailbox_fsync=True)
        desk.push("bob", *letters(1))
        nursery.start_soon(desk.spill.serve, cast("Any", None), settings, _flush)
        await trio.sleep(PATIENCE_S + 3 * POLL_S)
        assert desk.keeper.pushed == [("bob", [1], ["stored"])]
        [options] = made
        assert (options["letters"], options["keep_s"], options["fsync"]) == (7, 9.0, True)

    async def test_a_server_that_cannot_do_what_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ends the node, with what to do."""

        class Vault(Server):
            def __init__(self, *_: object, **__: object) -> None:
                super().__init__()

            async def check(self) -> None:
                await trio.lowlevel.checkpoint()
                raise RingError("no WAITAOF there")

        monkeypatch.setattr(spill, "Vault", Vault)
        with pytest.raises(RingError, match="no WAITAOF there"):
            await Desk().spill.serve(cast("Any", None), Settings(name="n1"), _flush)
