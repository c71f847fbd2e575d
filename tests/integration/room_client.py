"""A client that joins rooms, for tests of what is said there, and of what is answered when nothing can be."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import msgspec
import trio

from ring.protocol import client as wire
from tests.integration.roommate import InRooms

ANSWER_S = 10.0  # after which an answer is none
REFUSED_S = 5.5  # a refusal is given within 5 s, by a node that has more to do
AGAIN_S = 0.05


class RoomClient(InRooms):
    """A client that also joins rooms, and waits for each answer; it hears the words that are said there."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heard: list[wire.Room] = []
        self.sent_away: list[wire.Reconnect] = []
        self.longest_s = 0.0  # that an answer took

    async def join(self, room: str) -> str:
        """What is answered: "ok" or the error's code."""
        return await self._ask(lambda frame_id: wire.Join(frame_id, room))

    async def publish(self, room: str, words: str, *, echo: bool = False) -> str:
        """What is answered: "ok" or the error's code."""
        data = msgspec.Raw(msgspec.json.encode(words))
        return await self._ask(lambda frame_id: wire.Publish(frame_id, room, data, echo))

    def words(self, room: str) -> list[str]:
        """What was said there."""
        return [msgspec.json.decode(said.data, type=str) for said in self.heard if said.room == room]

    async def until_warned(self, room: str) -> None:
        """Returns once it has been told that messages of this room may be missing."""
        with trio.fail_after(ANSWER_S):
            await self.watch.until(lambda: room in [gap.room for gap in self.gaps])

    async def until_more(self, room: str, count: int) -> None:
        """Returns once it has heard more than so much there."""
        await self.watch.until(lambda: len(self.words(room)) > count)

    async def _ask(self, question: Callable[[str], wire.ClientMessage]) -> str:
        began = trio.current_time()
        with trio.fail_after(ANSWER_S):
            answer = await self.answer(self._command(question))
        self.longest_s = max(self.longest_s, trio.current_time() - began)
        return "ok" if isinstance(answer, wire.Ok) else answer.code.value

    def _copy(self, message: wire.Room) -> None:
        self.heard.append(message)

    def _hear(self, now: float, payload: bytes, *others: Any) -> None:
        message = wire.decode_server(payload)
        match message:
            case wire.Reconnect():
                self.sent_away.append(message)
            case wire.Error(id=str(frame_id)) if frame_id.startswith("asked "):
                self.answers[frame_id] = [message]  # to a frame that a test wrote itself
            case _:
                super()._hear(now, payload, *others)


async def rooms_flow(members: Iterable[RoomClient], room: str) -> None:
    """Returns once all of these have joined, and heard of each other there."""
    members = list(members)
    for member in members:
        await _until_ok(partial(member.join, room))
    for member in members:
        others = [other for other in members if other is not member]
        before = [len(other.words(room)) for other in others]
        heard = False
        while not heard:
            # What is said in a room comes at most once: it is said again until it does.
            await _until_ok(partial(member.publish, room, f"words of {member.user}"))
            with trio.move_on_after(AGAIN_S):
                heard = await _have_heard(others, room, before)


async def _have_heard(members: list[RoomClient], room: str, before: list[int]) -> bool:
    for member, count in zip(members, before, strict=True):
        await member.until_more(room, count)
    return True


async def _until_ok(ask: Callable[[], Awaitable[str]]) -> None:
    while (answer := await ask()) != "ok":
        assert answer == "rooms_unavailable", answer
        await trio.sleep(AGAIN_S)  # what is refused now may be done soon


async def rooms_are_refused(members: Iterable[RoomClient]) -> None:
    """Returns when these have been told so, each in time."""
    for member in members:
        assert await member.join("another room") == "rooms_unavailable", member.user
        assert await member.publish("lobby", "words") == "rooms_unavailable", member.user
        assert member.longest_s < REFUSED_S, (member.user, member.longest_s)


async def told_of_the_gap(members: Iterable[RoomClient], room: str) -> None:
    """Returns once all of these know that they may have missed something."""
    for member in members:
        await member.until_warned(room)
