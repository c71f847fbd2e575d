"""Random histories of stored mailboxes on real servers: against a model, and against what was promised."""

from dataclasses import dataclass, field

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring.mailbox.vault import Job, Push, Read, Remove, Stored
from ring.protocol.peer import Seq
from ring.store.embedded import EmbeddedServer
from tests.mailbox.strongroom import KEEP_MS, SLOT, Strongroom, connected, letter

USERS = ("ann", "bob")

seqs = st.tuples(st.integers(1, 3), st.integers(0, 9))
letters = st.builds(
    lambda seq, size, ttl_ms, seen, origin: Stored(seq[0], seq[1], ttl_ms, seen, origin, b"x" * size),
    seqs,
    st.integers(0, 12),
    st.sampled_from([0, 0, 0, 5, 50]),
    st.booleans(),
    st.sampled_from(["", "", "s1"]),
)
users = st.sampled_from(USERS)
epochs = st.integers(1, 3)
jobs = st.one_of(
    # Ascending, as they should come, or not; the latter must be refused, not stored.
    st.builds(
        lambda user, epoch, some, ascending: Push(
            user, SLOT, epoch, sorted(some, key=lambda one: (one.epoch, one.number)) if ascending else some
        ),
        users,
        epochs,
        st.lists(letters, max_size=6),
        st.sampled_from([True, True, True, False]),
    ),
    st.builds(lambda user, epoch, after: Read(user, SLOT, epoch, after), users, epochs, st.none() | seqs),
    st.builds(lambda user, some: Remove(user, SLOT, sorted(set(some))), users, st.lists(seqs, max_size=8)),
)
Step = Job | int  # a job; the time that passes; or how far back the job is that is done once more
steps = st.lists(
    st.one_of(
        jobs,
        jobs,
        jobs,
        st.sampled_from([1, 5, 45, 50, KEEP_MS - 1, KEEP_MS]),
        st.integers(-4, -1),
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_random_histories_follow_the_model(mailbox_server: EmbeddedServer, history: list[Step]) -> None:
    """Any jobs, also of owners that are none any more, repeated as after a lost answer, while letters expire.

    Server and model agree on every answer, and afterwards on what lies in the boxes.
    """

    async def replay() -> None:
        async with connected(mailbox_server.url) as redis:
            room = Strongroom(redis, letters=6, size=40, page_letters=4, page_bytes=20)
            done: list[Job] = []
            for step in history:
                if not isinstance(step, int):
                    done.append(step)
                    await room.do(step)
                elif step > 0:
                    room.later(step)
                elif done:
                    await room.do(*done[step:])
                for user in USERS:
                    await room.inspect(user)
            assert await room.fence() == room.model.fences.get(SLOT, 0)

    trio.run(replay)


@dataclass(eq=False)
class Owner:
    """One of two nodes that take turns in owning a user, and may not know that they do not any more."""

    epoch: int = 0
    number: int = 0
    unstored: list[Stored] = field(default_factory=list)
    held: list[Seq] = field(
        default_factory=list
    )  # read, or known to be stored: to be delivered by this owner
    stopped: bool = False


moves = st.lists(
    st.tuples(
        st.sampled_from(["new", "new", "push", "push", "lost", "deliver", "deliver", "take over", "later"]),
        st.integers(0, 1),
        st.integers(1, 5),
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves)
def test_two_owners_lose_nothing(mailbox_server: EmbeddedServer, history: list[tuple[str, int, int]]) -> None:
    """Owners change at any moment, answers are lost, stale owners go on: what was promised is kept.

    A letter of which an owner heard that it is stored is with the last owner, or has been delivered, or has
    expired. What an owner pushes after another has read is refused. Each owner holds letters in order.
    """

    async def replay() -> None:
        async with connected(mailbox_server.url) as redis:
            await _Trial(Strongroom(redis, letters=50, size=1000, page_letters=3)).run(history)

    trio.run(replay)


class _Trial:
    def __init__(self, room: Strongroom) -> None:
        self.room = room
        self.owners = [Owner(), Owner()]
        self.epoch = 0
        self.promised: dict[Seq, float] = {}  # until when
        self.delivered: set[Seq] = set()

    async def run(self, history: list[tuple[str, int, int]]) -> None:
        await self.take_over(self.owners[0])
        for action, index, number in history:
            owner = self.owners[index]
            if action == "later":
                self.room.later(number)
            elif action == "take over":
                await self.take_over(owner)
            elif owner.epoch and not owner.stopped:
                await self.act(owner, action, number)
        await self.take_over(self.owners[0])
        held = self.owners[0].held
        assert held == sorted(held)
        assert len(held) == len(set(held))
        now = self.room.model.now_ms
        kept = {seq for seq, until in self.promised.items() if until > now} - self.delivered
        assert kept <= set(held)

    async def take_over(self, owner: Owner) -> None:
        """Becomes the owner: reads the whole mailbox, in pages."""
        self.epoch += 1
        owner.epoch, owner.number, owner.unstored, owner.stopped = self.epoch, 0, [], False
        found: list[Seq] = []
        more = True
        while more:
            page = await self.room.page(owner.epoch, found[-1] if found else None)
            assert not page.fenced
            found += [(one.epoch, one.number) for one in page.letters]
            more = page.more
        owner.held = found

    async def act(self, owner: Owner, action: str, number: int) -> None:
        if action == "new":
            owner.number += 1
            ttl_ms = number if number > 3 else 0
            owner.unstored.append(letter(owner.number, b"x" * number, epoch=owner.epoch, ttl_ms=ttl_ms))
        elif action in ("push", "lost"):
            await self.push(owner, answered=action == "push")
        elif action == "deliver" and owner.held:
            # A device acknowledges some of what it was sent, not always the first.
            acked = sorted({owner.held[0], owner.held[number % len(owner.held)]})
            self.delivered |= set(acked)
            owner.held = [seq for seq in owner.held if seq not in acked]
            await self.room.do(Remove("ann", SLOT, acked))

    async def push(self, owner: Owner, *, answered: bool) -> None:
        # As much earlier as the answer took: no owner believes that a letter lives longer than it does.
        verdicts = await self.room.push(*owner.unstored, epoch=owner.epoch)
        stale = owner.epoch < self.epoch
        assert stale == ("fenced" in verdicts) or not verdicts
        if not answered:
            return
        if stale:
            owner.stopped = bool(verdicts)
            return
        now = self.room.model.now_ms
        for one, verdict in zip(owner.unstored, verdicts, strict=True):
            seq = (one.epoch, one.number)
            if verdict in ("stored", "already"):
                owner.held.append(seq)
                born = self.room.model.box(SLOT, "ann")
                until = next((kept.expires_ms for kept in born.kept if kept.seq == seq), now)
                self.promised[seq] = until
            else:
                # One of this push was stored, the answer was lost, and it expired in front of one that is
                # still there. An owner numbers it and those behind it anew; this one gives them up.
                assert verdict == "disordered"
                assert any(other.ttl_ms for other in owner.unstored)
        owner.unstored = []
