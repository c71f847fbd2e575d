"""Stored mailboxes on real servers, rule by rule; a model agrees (test_vault_histories.py: random ones)."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio

from ring.mailbox.vault import (
    MAX_ORIGIN_BYTES,
    MAX_SIZE,
    Job,
    Page,
    Push,
    Read,
    Remove,
    Result,
    Stored,
    Vault,
)
from ring.protocol.codes import BadRequest
from ring.store.connection import ScriptMissing, StoreError
from tests.mailbox.strongroom import KEEP_MS, SLOT, Strongroom, letter


class TestPush:
    async def test_letters_are_stored_and_read_as_they_were(self, room: Strongroom) -> None:
        """Any bytes, any origin, both flags."""
        letters = [
            letter(0, bytes(range(256))),
            letter(1, b"", seen=True),
            letter(2, b"\r\n", origin="köln\x00", ttl_ms=500),
            letter(2**52 - 1, b"x" * 3000, epoch=2**52 - 1, origin="o" * MAX_ORIGIN_BYTES),
        ]
        assert await room.push(*letters, epoch=9) == ["stored"] * 4
        assert await room.read(epoch=9) == letters
        await room.inspect()

    async def test_what_was_pushed_before_is_not_stored_again(self, room: Strongroom) -> None:
        """An owner whose answer was lost pushes the same again, with more behind."""
        first = [letter(number) for number in (1, 2, 5)]
        assert await room.push(*first) == ["stored"] * 3
        assert await room.push(*first, letter(6)) == ["already"] * 3 + ["stored"]
        assert [one.number for one in await room.read()] == [1, 2, 5, 6]

    async def test_nothing_goes_in_front_of_what_is_stored(self, room: Strongroom) -> None:
        """Below the last and not there: refused, with all behind it, which is to keep its order with it."""
        await room.push(letter(5, epoch=2), epoch=2)
        verdicts = await room.push(letter(9, epoch=1), letter(4, epoch=2), letter(5, epoch=2), epoch=2)
        assert verdicts == ["disordered", "disordered", "already"]
        assert await room.push(letter(7, epoch=2), letter(6, epoch=2), letter(1, epoch=3), epoch=2) == [
            "stored", "disordered", "disordered",
        ]  # as a table # fmt: skip
        verdicts = await room.push(letter(6, epoch=2), letter(7, epoch=2), letter(8, epoch=2), epoch=2)
        assert verdicts == ["disordered", "already", "disordered"]
        await room.inspect()

    async def test_numbers_are_compared_as_numbers(self, room: Strongroom) -> None:
        """As text, 9 would come behind 10."""
        for number in (9, 10, 99, 100, 2**32, 2**33, 2**40):
            assert await room.push(letter(number)) == ["stored"]
        assert await room.push(letter(8), letter(99), letter(2**40)) == ["disordered", "already", "already"]

    async def test_a_push_of_nothing_raises_the_fence(self, room: Strongroom) -> None:
        """And answers nothing."""
        assert await room.push(epoch=4) == []
        assert await room.fence() == 4

    async def test_more_than_one_command_takes(self, room: Strongroom) -> None:
        """A push may be longer than what Lua puts on its stack at once."""
        wide = Strongroom(room.redis, letters=10_000, size=10**6)
        letters = [letter(number) for number in range(9000)]
        assert await wide.push(*letters) == ["stored"] * 9000
        assert await wide.push(*letters[-3:]) == ["already"] * 3
        await wide.inspect()

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (letter(-1), "negative"),
            (letter(1, ttl_ms=-1), "run out"),
            (letter(1, epoch=-1), "negative"),
            (letter(2**52), "beyond"),
            (letter(1, ttl_ms=2**52), "beyond"),
            (letter(1, origin="o" * (MAX_ORIGIN_BYTES + 1)), "origin"),
        ],
    )
    async def test_a_letter_that_cannot_be_is_refused(self, room: Strongroom, bad: Stored, why: str) -> None:
        """Before anything is sent: the other jobs are not done either."""
        with pytest.raises(BadRequest, match=why):
            await room.vault.exchange(
                [Push("ann", SLOT, 1, [letter(0)]), Push("ann", SLOT, 1, [bad])],
            )
        assert await room.vault.count("ann", SLOT) == 0


class TestFence:
    async def test_a_stale_owner_can_neither_push_nor_read(self, room: Strongroom) -> None:
        """From the moment at which a later one has used any mailbox of the slot, be it an empty one."""
        assert await room.push(letter(1)) == ["stored"]
        assert await room.read(epoch=3, user="someone else") == []
        assert await room.fence() == 3
        assert await room.push(letter(1), letter(2)) == ["fenced", "fenced"]
        assert await room.page() == Page(True, [], False)
        assert await room.push(letter(1), letter(1, epoch=3), epoch=3) == ["already", "stored"]
        assert await room.fence() == 3
        assert await room.vault.count("ann", SLOT) == 2

    async def test_a_full_mailbox_raises_it_too(self, room: Strongroom) -> None:
        """What is refused for another reason has come from the owner all the same."""
        small = Strongroom(room.redis, letters=0)
        assert await small.push(letter(1), epoch=6) == ["full"]
        assert await small.fence() == 6

    async def test_each_slot_has_its_own(self, room: Strongroom) -> None:
        """An owner of another slot may be of a lower epoch."""
        await room.push(letter(1), epoch=5)
        assert await room.do(Push("bob", SLOT + 1, 2, [letter(1)])) == [["stored"]]

    async def test_anyone_may_remove(self, room: Strongroom) -> None:
        """What was acknowledged may go, whoever owns the user now; that moves no fence."""
        await room.push(letter(1), letter(2), epoch=5)
        await room.remove(1)
        assert await room.fence() == 5
        assert [one.number for one in await room.read(epoch=5)] == [2]


class TestBounds:
    async def test_no_more_letters_than_that(self, room: Strongroom) -> None:
        """The rest of the push is refused; once there is room, it goes on."""
        small = Strongroom(room.redis, letters=3)
        assert await small.push(*[letter(number) for number in range(5)]) == ["stored"] * 3 + ["full"] * 2
        assert await small.push(letter(2), letter(3)) == ["already", "full"]
        await small.remove(0)
        assert await small.push(letter(3), letter(4)) == ["stored", "full"]
        await small.inspect()

    async def test_no_more_bytes_than_that(self, room: Strongroom) -> None:
        """Bodies count. Nothing goes past one that was refused, even where it would fit."""
        small = Strongroom(room.redis, size=10)
        assert await small.push(letter(1, b"x" * 6, origin="long" * 9), letter(2, b"x" * 4)) == ["stored"] * 2
        assert await small.push(letter(3, b"")) == ["stored"]
        await small.remove(2)
        verdicts = await small.push(letter(4, b"x" * 5), letter(5, b"x"))
        assert verdicts == ["full", "full"]
        assert await small.push(letter(5, b"x" * 4)) == ["stored"]
        await small.inspect()

    async def test_an_empty_mailbox_takes_what_it_is_allowed_to_hold(self, room: Strongroom) -> None:
        """A letter of exactly that size fits, one byte more never does."""
        small = Strongroom(room.redis, size=1000, letters=1)
        assert await small.push(letter(1, b"x" * 1001)) == ["full"]
        assert await small.push(letter(1, b"x" * 1000)) == ["stored"]

    async def test_bytes_are_right_after_any_removal(self, room: Strongroom) -> None:
        """From the head, from the middle, from the tail."""
        small = Strongroom(room.redis, size=100)
        assert (
            await small.push(*[letter(number, b"x" * (10 + number)) for number in range(6)]) == ["stored"] * 6
        )
        for number in (2, 0, 5, 3):
            await small.remove(number)
            await small.inspect()
        assert await small.push(letter(9, b"x" * 75), letter(10, b"x")) == ["stored", "full"]

    async def test_expired_letters_make_room(self, room: Strongroom) -> None:
        """At the head at once, behind others as soon as the mailbox is full."""
        small = Strongroom(room.redis, letters=4)
        await small.push(letter(1, ttl_ms=10), letter(2), letter(3, ttl_ms=10), letter(4, ttl_ms=2000))
        small.later(10)
        assert await small.push(letter(5)) == ["stored"]
        assert await small.vault.count("ann", SLOT) == 4
        assert await small.push(letter(6)) == ["stored"]
        assert [one.number for one in await small.read()] == [2, 4, 5, 6]
        assert await small.push(letter(7)) == ["full"]
        small.later(1990)
        assert await small.push(letter(7), letter(8)) == ["stored", "full"]
        await small.inspect()

    async def test_a_full_mailbox_is_not_searched_in_vain(self, room: Strongroom) -> None:
        """Once what had expired is out of it, it says when there is something to look for again."""
        small = Strongroom(room.redis, letters=3)
        await small.push(letter(1), letter(2, ttl_ms=10), letter(3, ttl_ms=500))
        assert await small.soonest_ms() == 10
        small.later(10)
        await small.push(letter(4))
        assert await small.soonest_ms() == 490

    async def test_a_push_that_makes_room_in_its_middle(self, room: Strongroom) -> None:
        """The mailbox adds up, and knows when something expires, also if that was not room enough."""
        small = Strongroom(room.redis, letters=4, size=20)
        await small.push(letter(1, b"x" * 5), letter(2, b"x" * 5, ttl_ms=10))
        small.later(10)
        verdicts = await small.push(letter(3, b"x" * 5, ttl_ms=7), letter(4, b"x" * 15))
        assert verdicts == ["stored", "full"]
        await small.inspect()
        assert await small.soonest_ms() == 7
        small.later(7)
        assert await small.push(letter(4, b"x" * 15)) == ["stored"]
        await small.inspect()

    async def test_a_mailbox_of_nothing_but_expired_letters(self, room: Strongroom) -> None:
        """Is empty: the bytes of what is dropped do not count, and none of it is looked for."""
        small = Strongroom(room.redis, letters=2, size=10)
        await small.push(letter(1, b"x" * 5, ttl_ms=10), letter(2, b"x" * 5, ttl_ms=5))
        await small.read()
        small.later(10)
        assert await small.push(letter(2), letter(3, b"x" * 10)) == ["already", "stored"]
        await small.inspect()

    @pytest.mark.parametrize("size", [0, -1, MAX_SIZE + 1])
    async def test_a_size_that_no_mailbox_has(self, room: Strongroom, size: int) -> None:
        """Refused at once."""
        with pytest.raises(BadRequest, match="bytes"):
            Vault(room.redis, room.keys, letters=1, size=size, keep_s=1)

    @pytest.mark.parametrize("wait_s", [0.0, -1.0, 4.1, float("inf")])
    async def test_a_wait_that_would_hold_up_everybody(self, room: Strongroom, wait_s: float) -> None:
        """Refused at once: 0 would be for ever."""
        with pytest.raises(BadRequest, match="waiting for replicas"):
            Vault(room.redis, room.keys, letters=1, size=1, keep_s=1, wait_s=wait_s)


class TestExpiry:
    async def test_a_letter_waits_for_its_ttl(self, room: Strongroom) -> None:
        """To the millisecond, by the server's clock; what is left of it is told."""
        await room.push(letter(1, ttl_ms=1000), letter(2, ttl_ms=2000), letter(3))
        room.later(999)
        assert [(one.number, one.ttl_ms) for one in await room.read()] == [(1, 1), (2, 1001), (3, 0)]
        room.later(1)
        assert [(one.number, one.ttl_ms) for one in await room.read()] == [(2, 1000), (3, 0)]

    async def test_without_a_ttl_it_waits_as_long_as_mailboxes_keep_letters(self, room: Strongroom) -> None:
        """Each for itself: that others come later does not prolong it."""
        await room.push(letter(1))
        room.later(1000)
        await room.push(letter(2))
        room.later(KEEP_MS - 1000)
        assert [(one.number, one.ttl_ms) for one in await room.read()] == [(2, 0)]

    async def test_keys_live_as_long_as_their_longest_living_letter(self, room: Strongroom) -> None:
        """A shorter one does not shorten it, a longer one prolongs it, for the read mark too."""
        await room.push(letter(1, ttl_ms=500_000))
        await room.read()
        await room.push(letter(2, ttl_ms=10))
        box, mark = await room.left_ms()
        assert 500_000 - 5000 < mark <= box <= 560_000
        await room.push(letter(3))
        box, mark = await room.left_ms()
        assert KEEP_MS - 5000 < mark <= box <= KEEP_MS + 60_000

    async def test_the_server_drops_a_mailbox_that_nobody_uses(self, room: Strongroom) -> None:
        """By its own clock, without a word from us."""
        vault = Vault(room.redis, room.keys, letters=9, size=99, keep_s=60)
        await vault.exchange(
            [Push("ann", SLOT, 1, [letter(1), letter(2, ttl_ms=1)]), Read("ann", SLOT, 1, None)]
        )
        box, mark = await room.left_ms()
        assert 55_000 < mark <= box <= 120_000

    async def test_time_is_the_servers(self, room: Strongroom) -> None:
        """Where the test gives none."""
        vault = Vault(room.redis, room.keys, letters=9, size=99, keep_s=60)
        page: Any
        _, page = await vault.exchange(
            [Push("ann", SLOT, 1, [letter(1, ttl_ms=40_000)]), Read("ann", SLOT, 1, None)]
        )
        assert 30_000 < page.letters[0].ttl_ms <= 40_000


class TestRead:
    async def test_from_the_first_or_behind_one(self, room: Strongroom) -> None:
        """Also behind one that is not there any more, or above all."""
        await room.push(*[letter(number, epoch=epoch) for epoch in (1, 2) for number in (1, 3, 5)])
        every = [(1, 1), (1, 3), (1, 5), (2, 1), (2, 3), (2, 5)]
        for after in (None, (0, 9), (1, 0), (1, 1), (1, 4), (1, 5), (1, 9), (2, 0), (2, 4), (2, 5), (3, 0)):
            found = [(one.epoch, one.number) for one in await room.read(after=after)]
            assert found == [seq for seq in every if after is None or seq > after]

    async def test_an_empty_mailbox(self, room: Strongroom) -> None:
        """Answers nothing, also behind something."""
        assert await room.read() == []
        assert await room.read(after=(4, 4)) == []

    async def test_a_page_holds_so_many_letters(self, room: Strongroom) -> None:
        """`more` says whether any follow that are still to be read; expired ones take no place."""
        paged = Strongroom(room.redis, page_letters=2)
        letters = [letter(number, ttl_ms=5 if number in (1, 3, 5) else 0) for number in range(6)]
        await paged.push(*letters)
        assert await paged.page() == Page(False, [letter(0), letter(1, ttl_ms=5)], True)
        paged.later(5)
        page = await paged.page(after=(1, 0))
        assert [(one.number, one.seen) for one in page.letters] == [(2, False), (4, False)]
        assert not page.more

    async def test_a_page_holds_about_so_many_bytes(self, room: Strongroom) -> None:
        """At least one letter, however long; none that would go beyond."""
        paged = Strongroom(room.redis, page_bytes=100)
        await paged.push(letter(1, b"x" * 500), letter(2, b"x" * 99), letter(3, b"x"), letter(4, b"x"))
        found, after, more = [], None, True
        while more:
            page = await paged.page(after=after)
            found.append([one.number for one in page.letters])
            after, more = (1, found[-1][-1]), page.more
        assert found == [[1], [2, 3], [4]]

    async def test_a_long_mailbox_in_pages(self, room: Strongroom) -> None:
        """Each letter once, in order."""
        long = Strongroom(room.redis, letters=1000, page_letters=97)
        await long.push(*[letter(number) for number in range(1000)])
        numbers: list[int] = []
        page = await long.page()
        numbers += [one.number for one in page.letters]
        while page.more:
            page = await long.page(after=(1, numbers[-1]))
            numbers += [one.number for one in page.letters]
        assert numbers == list(range(1000))

    async def test_what_an_owner_has_read_is_seen(self, room: Strongroom) -> None:
        """By the next who reads, whoever that is; what came behind it is not."""
        paged = Strongroom(room.redis, page_letters=2)
        await paged.push(letter(1), letter(2), letter(3), letter(4, seen=True))
        assert [one.seen for one in (await paged.page()).letters] == [False, False]
        assert [one.seen for one in await paged.read(after=(1, 2))] == [False, True]
        await paged.push(letter(5))
        page = await paged.page(epoch=2)
        assert [one.seen for one in page.letters] == [True, True]
        # Reading from the first again has taken nothing back.
        page = await paged.page(epoch=2, after=(1, 2))
        assert [(one.number, one.seen) for one in page.letters] == [(3, True), (4, True)]
        assert [one.seen for one in await paged.read(epoch=2, after=(1, 4))] == [False]
        await paged.inspect()

    async def test_an_emptied_mailbox_has_no_read_mark(self, room: Strongroom) -> None:
        """However it was emptied: nothing is left of it."""
        await room.push(letter(1, ttl_ms=5), letter(2))
        await room.read()
        await room.remove(1, 2)
        await room.inspect()
        await room.push(letter(3, ttl_ms=5))
        await room.read()
        room.later(5)
        assert await room.read() == []
        await room.inspect()
        assert await room.push(letter(1)) == ["stored"]  # of another life, after the fence fell
        assert [one.seen for one in await room.read()] == [False]


class TestRemove:
    async def test_exactly_these(self, room: Strongroom) -> None:
        """At the head, in the middle, at the end, beside each other or not, there or not."""
        await room.push(*[letter(number) for number in range(20)])
        await room.remove(0, 1, 2)
        await room.remove(5, 6, 12, 19)
        await room.remove(4, 5, 6, 7, 30)
        assert [one.number for one in await room.read()] == [3, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18]
        await room.inspect()

    async def test_it_may_be_repeated(self, room: Strongroom) -> None:
        """What is gone already is no error; nor is an empty mailbox, nor the wish to remove nothing."""
        await room.push(letter(1), letter(2))
        for _ in range(2):
            await room.remove(1)
            await room.remove()
        assert [one.number for one in await room.read()] == [2]
        for _ in range(2):
            await room.remove(1, 2)
        await room.inspect()

    async def test_of_another_epoch_is_another_letter(self, room: Strongroom) -> None:
        """Its number alone does not name a letter."""
        await room.push(letter(1), letter(1, epoch=2), letter(2, epoch=2), epoch=2)
        await room.do(Remove("ann", SLOT, [(1, 2), (2, 1), (3, 1)]))
        assert [(one.epoch, one.number) for one in await room.read(epoch=2)] == [(1, 1), (2, 2)]

    async def test_from_among_many(self, room: Strongroom) -> None:
        """Behind hundreds that stay; then all that is left in one go."""
        long = Strongroom(room.redis, letters=1000)
        await long.push(*[letter(number) for number in range(1000)])
        await long.remove(*range(500, 700), 900, 999)
        await long.inspect()
        assert await long.vault.count("ann", SLOT) == 798
        await long.remove(*range(1000))
        await long.inspect()

    async def test_the_last_one_gives_way(self, room: Strongroom) -> None:
        """What is pushed next is compared with the last that is left."""
        await room.push(letter(1), letter(5))
        await room.remove(5)
        assert await room.push(letter(3)) == ["stored"]
        await room.inspect()


class TestExchange:
    async def test_jobs_are_done_in_their_order(self, room: Strongroom) -> None:
        """Each with its own answer, for many users in one round trip."""
        jobs: list[Job] = [
            Push("ann", SLOT, 1, [letter(1), letter(2)]),
            Read("ann", SLOT, 1, None),
            Remove("ann", SLOT, [(1, 1)]),
            Push("köln:{1}", SLOT + 1, 1, [letter(1)]),
            Read("ann", SLOT, 1, (1, 0)),
            Read("ann", SLOT, 0, None),
        ]
        results = await room.do(*jobs)
        assert results[:1] == [["stored", "stored"]]
        assert results[4] == Page(False, [letter(2, seen=True)], False)
        assert results[5] == Page(True, [], False)

    async def test_nothing_to_do(self, room: Strongroom) -> None:
        """Costs no round trip."""
        assert await room.do() == []

    async def test_an_error_takes_the_place_of_its_own_job_alone(self, room: Strongroom) -> None:
        """The others are done."""
        await room.redis.set(room.keys.box(SLOT, "bob"), "no list")
        results = await room.vault.exchange(
            [
                Push("ann", SLOT, 1, [letter(1)]),
                Push("bob", SLOT, 1, [letter(1)]),
                Read("bob", SLOT, 1, None),
                Remove("bob", SLOT, [(1, 1)]),
                Read("ann", SLOT, 1, None),
            ]
        )
        for refused in results[1:4]:
            assert isinstance(refused, StoreError)
            assert "WRONGTYPE" in str(refused)
        assert [results[0], results[4]] == [["stored"], Page(False, [letter(1)], False)]

    async def test_scripts_that_somebody_has_flushed(self, room: Strongroom) -> None:
        """Are loaded again; the jobs are done, in their order."""
        await room.push(letter(1))
        await room.redis.script_flush()
        results = await room.do(
            Push("ann", SLOT, 1, [letter(1), letter(2)]),
            Read("ann", SLOT, 1, None),
            Remove("ann", SLOT, [(1, 1)]),
        )
        assert results[0] == ["already", "stored"]
        assert await room.vault.count("ann", SLOT) == 1

    async def test_what_was_done_is_not_done_again(
        self, room: Strongroom, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where scripts are flushed between two jobs, it goes on from the first that was missed."""
        missing = ScriptMissing("NOSCRIPT No matching script.")
        jobs = [Remove("ann", SLOT, [(1, number)]) for number in range(3)]
        asked: list[Sequence[Job]] = []

        async def exchange(some: Sequence[Job]) -> list[Result]:
            asked.append(some)
            return [None, missing, missing] if len(asked) == 1 else [None] * len(some)

        monkeypatch.setattr(room.vault, "_exchange", exchange)
        assert await room.vault.exchange(jobs) == [None] * 3
        assert asked == [jobs, jobs[1:]]

    async def test_no_later_job_is_done_before_an_earlier_one(
        self, room: Strongroom, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where another client loads flushed scripts between two jobs, what was missed is told."""
        missing = ScriptMissing("NOSCRIPT No matching script.")
        rounds = [[["stored"], missing, None]]

        async def exchange(jobs: Sequence[Job]) -> list[Result]:
            return cast("list[Result]", rounds.pop(0))

        monkeypatch.setattr(room.vault, "_exchange", exchange)
        assert await room.vault.exchange([Remove("ann", SLOT, [])] * 3) == [["stored"], missing, None]

    async def test_many_at_once(self, room: Strongroom) -> None:
        """Two tasks may use a vault; each gets its own answers."""

        async def use(user: str) -> None:
            for number in range(20):
                results = await room.vault.exchange(
                    [
                        Push(user, SLOT, 1, [letter(number, user.encode())]),
                        Read(user, SLOT, 1, (1, number - 1) if number else None),
                    ]
                )
                assert results == [["stored"], Page(False, [letter(number, user.encode())], False)]

        async with trio.open_nursery() as nursery:
            for user in ("ann", "bob", "cleo"):
                nursery.start_soon(use, user)
