"""`ring chat` between its lines and its client: a pipe on one side, a client that does what the test says."""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import msgspec
import pytest
import trio

from ring.cli.conversation import Conversation
from ring.client import Client, ConnectionEnded, Message, Receipt, RoomEnded, RoomGap, RoomMessage
from ring.client.messages import Incoming
from ring.protocol import client as wire
from ring.protocol.codes import BadRequest, ErrorCode, RingError

COMMANDS = "* the commands are /to NAME, /join ROOM, /leave ROOM and /room ROOM"


class ScriptedClient:
    """A client whose incoming messages and receipts are the test's."""

    def __init__(self) -> None:
        self.node, self.owner = "n1", "n2"
        self.connected, self.reconnects = True, 0
        self.said: list[tuple[str, object]] = []
        self.asked: list[tuple[str, str]] = []  # of rooms: what, which
        self.refusals: dict[str, RingError] = {}  # of anything that concerns a room
        self.receipts: dict[object, Receipt | BadRequest] = {}
        self.hold = trio.Event()
        self.hold.set()
        self.deliver, self._arrivals = trio.open_memory_channel[Incoming | ConnectionEnded](100)

    async def send(self, to: str, data: object) -> Receipt:
        self.said.append((to, data))
        await self.hold.wait()
        answer = self.receipts.get(data, Receipt("1", "delivered", by="client"))
        if isinstance(answer, BadRequest):
            raise answer
        return answer

    async def join(self, room: str) -> None:
        await self._ask("join", room)

    async def leave(self, room: str) -> None:
        await self._ask("leave", room)

    async def publish(self, room: str, data: object) -> None:
        await self._ask(f"publish {data}", room)

    async def _ask(self, what: str, room: str) -> None:
        self.asked.append((what, room))
        await self.hold.wait()
        if room in self.refusals:
            raise self.refusals[room]

    async def __aiter__(self) -> AsyncIterator[Incoming]:
        async for message in self._arrivals:
            if isinstance(message, ConnectionEnded):
                raise message
            yield message


def incoming(sender: str | None, data: object) -> Message:
    """A message as the client hands it out."""
    raw = msgspec.Raw(msgspec.json.encode(data))
    return Message(wire.Message(from_=sender, id="1", seq="1-1", data=raw, sent_at=0))


def said_in(room: str, sender: str | None, data: object) -> RoomMessage:
    """A message of a room."""
    raw = msgspec.Raw(msgspec.json.encode(data))
    return RoomMessage(wire.Room(room=room, from_=sender, id="1", data=raw, sent_at=0))


class Terminal:
    """A conversation that runs: what is typed, and what is shown."""

    def __init__(self, to: str | None = None, rooms: tuple[str, ...] = ()) -> None:
        self.client = ScriptedClient()
        self.shown: list[str] = []
        self._changed = trio.Event()
        self._reading, self._writing = os.pipe()
        self._conversation = Conversation("alice", to, rooms, show=self._show, stdin=self._reading)

    def _show(self, line: str) -> None:
        self.shown.append(line)
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        await self._conversation.hold(cast("Client", self.client))

    def type(self, text: str | bytes) -> None:
        os.write(self._writing, text.encode() if isinstance(text, str) else text)

    def end(self) -> None:
        """Ctrl-D."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    def close(self) -> None:
        self.end()
        os.close(self._reading)

    async def until_shown(self, line: str) -> None:
        """Returns once the line has been shown."""
        with trio.fail_after(5):
            while line not in self.shown:
                await self._changed.wait()

    async def talk(self, text: str | bytes) -> list[str]:
        """The whole conversation in which this is typed; what it showed after its greeting."""
        self.type(text)
        self.end()
        with trio.fail_after(5):
            await self.run()
        return self.shown[2:]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A conversation of alice's in which nobody was named."""
    terminal = Terminal()
    yield terminal
    terminal.close()


async def test_greeting(terminal: Terminal) -> None:
    """Who and where one is, and what to type."""
    await terminal.talk("")
    assert terminal.shown == [
        "* you are alice, on node n1; your owner is n2",
        "* say who a line is for, as in  bob: hello",
    ]


async def test_greeting_to_somebody() -> None:
    """Whom --to names gets the lines."""
    terminal = Terminal(to="bob")
    assert await terminal.talk("hello\n") == []
    assert terminal.shown[1] == "* lines go to bob"
    assert terminal.client.said == [("bob", "hello")]
    terminal.close()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("bob: hello\n", [("bob", "hello")]),
        (
            "bob: one\ntwo\ncarol: three\nfour\n",
            [("bob", "one"), ("bob", "two"), ("carol", "three"), ("carol", "four")],
        ),
        ("/to bob\nhello\n", [("bob", "hello")]),
        ("/to b o b\nhello\n", [("b o b", "hello")]),
        ("bob: no line's end", [("bob", "no line's end")]),
        ("bob: windows\r\n\r\n\n  \n", [("bob", "windows")]),
        ("bob: a: b\n", [("bob", "a: b")]),
        ("bob: x\nhttp://a.test is no name\n", [("bob", "x"), ("bob", "http://a.test is no name")]),
        ("bob: é".encode() + b"\xff\n", [("bob", "é�")]),
    ],
)
async def test_lines(terminal: Terminal, typed: str | bytes, said: list[tuple[str, str]]) -> None:
    """Each goes to the one it names, or to the last one named, in the order in which they were typed."""
    assert await terminal.talk(typed) == []
    assert terminal.client.said == said


@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("hello\n", "* say who it is for, as in  bob: hello"),
        ("/help\n", COMMANDS),
        ("/to\n", COMMANDS),
        ("/to  \n", COMMANDS),
        (f"{'x' * 256}: hello\n", "* to: 1 to 255 bytes of UTF-8, not 256"),
        (f"/to {'x' * 256}\n", "* to: 1 to 255 bytes of UTF-8, not 256"),
    ],
)
async def test_lines_that_say_nothing(terminal: Terminal, typed: str, note: str) -> None:
    """They are answered, and nothing is sent."""
    assert await terminal.talk(typed) == [note]
    assert terminal.client.said == []


@pytest.mark.parametrize(
    ("receipt", "note"),
    [
        (Receipt("1", "delivered", by="pong"), []),
        (Receipt("1", "queued"), ["* bob is not there: stored until they come"]),
        (
            Receipt("1", "failed", code=ErrorCode.MAILBOX_FULL, message="too many"),
            ["* not delivered to bob: too many"],
        ),
        (Receipt("1", "failed", code=ErrorCode.MAILBOX_FULL), ["* not delivered to bob: mailbox_full"]),
        (BadRequest("data: too large"), ["* not sent to bob: data: too large"]),
    ],
)
async def test_receipts(terminal: Terminal, receipt: Receipt | BadRequest, note: list[str]) -> None:
    """Only what was not delivered is worth a line; the end of input waits for it."""
    terminal.client.receipts["hello"] = receipt
    assert await terminal.talk("bob: hello\n") == note


@pytest.mark.parametrize(
    ("to", "typed", "greeting", "said"),
    [
        (None, "hello\n", "* lines go to room a", [("publish hello", "a")]),
        (None, "/room b\nhello\n", "* lines go to room a", [("publish hello", "b")]),
        ("bob", "/room b\nhello\n", "* lines go to bob", [("publish hello", "b")]),
        ("bob", "hello\n", "* lines go to bob", []),
    ],
)
async def test_rooms_that_are_joined_at_once(
    to: str | None, typed: str, greeting: str, said: list[tuple[str, str]]
) -> None:
    """Whom --room names are joined; lines go to the first of them, unless somebody is named."""
    terminal = Terminal(to, ("a", "b"))
    notes = await terminal.talk(typed)
    assert terminal.shown[1] == greeting
    assert sorted(notes) == ["* you are in room a", "* you are in room b"]
    assert terminal.client.asked == [("join", "a"), ("join", "b"), *said]
    assert terminal.client.said == ([] if said else [("bob", "hello")])
    terminal.close()


async def test_lines_in_rooms(terminal: Terminal) -> None:
    """To join is to talk there, from the next line on; so is to name somebody, or another room."""
    typed = "/join a\none\n/join b\ntwo\nbob: three\nfour\n/room  a \nfive\n/to bob\nsix\n"
    notes = await terminal.talk(typed)
    assert sorted(notes) == ["* you are in room a", "* you are in room b"]
    assert terminal.client.asked == [
        ("join", "a"),
        ("publish one", "a"),
        ("join", "b"),
        ("publish two", "b"),
        ("publish five", "a"),
    ]
    assert terminal.client.said == [("bob", "three"), ("bob", "four"), ("bob", "six")]


async def test_after_leaving_a_room(terminal: Terminal) -> None:
    """Lines are for nobody, if they were for it; to leave another one changes nothing."""
    notes = await terminal.talk("/join a\n/join b\n/leave a\none\n/leave b\ntwo\n")
    assert set(notes) == {
        "* you are in room a",
        "* you are in room b",
        "* you left room a",
        "* you left room b",
        "* say who it is for, as in  bob: hello",
    }
    assert [what for what, _ in terminal.client.asked] == ["join", "join", "leave", "publish one", "leave"]


@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("/join a\n", "* not in room a: no"),
        ("/leave a\n", "* not left room a: no"),
        ("/room a\nhello\n", "* not said in room a: no"),
        (f"/join {'x' * 256}\n", "* room: 1 to 255 bytes of UTF-8, not 256"),
    ],
)
async def test_what_is_refused_of_rooms(terminal: Terminal, typed: str, note: str) -> None:
    """Is said, and the conversation goes on."""
    terminal.client.refusals["a"] = RingError("no", code=ErrorCode.TOO_MANY_ROOMS)
    assert await terminal.talk(typed) == [note]


async def test_lines_are_not_for_a_room_that_refused(terminal: Terminal, nursery: trio.Nursery) -> None:
    """Whoever is not in sees no answers: lines are for nobody then."""
    terminal.client.refusals["a"] = RingError("no", code=ErrorCode.TOO_MANY_ROOMS)
    nursery.start_soon(terminal.run)
    terminal.type("/join a\n")
    await terminal.until_shown("* not in room a: no")
    terminal.type("hello\n")
    await terminal.until_shown("* say who it is for, as in  bob: hello")
    assert terminal.client.asked == [("join", "a")]
    terminal.end()


async def test_the_end_of_the_connection_while_a_room_is_asked_for(terminal: Terminal) -> None:
    """Ends the conversation as it does elsewhere."""
    terminal.client.refusals["a"] = ConnectionEnded("n1 closed with 4009: replaced")
    terminal.type("/join a\n")
    with trio.fail_after(5), pytest.raises(BaseExceptionGroup) as caught:
        await terminal.run()
    assert caught.group_contains(ConnectionEnded, match="4009")


async def test_a_fate_that_never_comes(terminal: Terminal, autojump_clock: trio.testing.MockClock) -> None:
    """The end of input does not wait for ever."""
    terminal.client.hold = trio.Event()
    terminal.type("bob: hello\n")
    terminal.end()
    await terminal.run()
    assert terminal.client.said == [("bob", "hello")]
    assert trio.current_time() >= 15


async def test_a_slow_fate_does_not_hold_up_what_is_said_next(
    terminal: Terminal, nursery: trio.Nursery
) -> None:
    """Lines go out though the ones before them wait for their receipts."""
    terminal.client.hold = trio.Event()
    nursery.start_soon(terminal.run)
    terminal.type("bob: one\n")
    terminal.type("two\n")
    terminal.type("/wait\n")
    await terminal.until_shown(COMMANDS)
    assert terminal.client.said == [("bob", "one"), ("bob", "two")]
    terminal.client.hold.set()
    terminal.end()


@pytest.mark.parametrize(
    ("sender", "data", "shown"),
    [
        ("bob", "hello", "bob: hello"),
        ("bob", {"a": [1, "é"]}, 'bob: {"a":[1,"é"]}'),
        (None, "from a backend", "(server): from a backend"),
        ("bob", "\x1b[2Jgone\n", r"bob: \x1b[2Jgone\x0a"),
    ],
)
async def test_messages(
    terminal: Terminal, nursery: trio.Nursery, sender: str | None, data: Any, shown: str
) -> None:
    """Texts as they are, but for what could command the terminal; other data as JSON."""
    nursery.start_soon(terminal.run)
    terminal.client.deliver.send_nowait(incoming(sender, data))
    await terminal.until_shown(shown)
    terminal.end()


@pytest.mark.parametrize(
    ("incoming", "shown"),
    [
        (said_in("lobby", "bob", "hello"), "[lobby] bob: hello"),
        (said_in("a\u202e", None, {"n": 1}), r'[a\x202e] (server): {"n":1}'),
        (
            RoomGap("a", "Redis was away"),
            "* room a: something said there may be missing here: Redis was away",
        ),
        (RoomEnded("a", ErrorCode.FORBIDDEN, "not you"), "* you are no longer in room a: not you"),
    ],
)
async def test_what_comes_of_rooms(
    terminal: Terminal, nursery: trio.Nursery, incoming: Incoming, shown: str
) -> None:
    """Messages with the room they are of; what may be missing, and an end, as lines of the program's own."""
    nursery.start_soon(terminal.run)
    terminal.client.deliver.send_nowait(incoming)
    await terminal.until_shown(shown)
    terminal.end()


async def test_lines_are_not_for_a_room_that_ended(terminal: Terminal, nursery: trio.Nursery) -> None:
    """As for one that refused."""
    nursery.start_soon(terminal.run)
    terminal.type("/join a\n")
    await terminal.until_shown("* you are in room a")
    terminal.client.deliver.send_nowait(RoomEnded("a", ErrorCode.FORBIDDEN, "not you"))
    await terminal.until_shown("* you are no longer in room a: not you")
    terminal.type("hello\n")
    await terminal.until_shown("* say who it is for, as in  bob: hello")
    assert terminal.client.asked == [("join", "a")]
    terminal.end()


async def test_a_connection_that_is_made_again(
    terminal: Terminal, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """That it broke is said, and where one is afterwards."""
    autojump_clock.autojump_threshold = 0.01  # the thread that reads the pipe is none of the clock's
    nursery.start_soon(terminal.run)
    await terminal.until_shown("* say who a line is for, as in  bob: hello")
    terminal.client.connected = False
    await terminal.until_shown("* the connection broke; connecting again")
    terminal.client.connected, terminal.client.reconnects, terminal.client.node = True, 1, "n3"
    await terminal.until_shown("* connected again, on node n3")
    terminal.end()


async def test_the_end_of_the_connection(terminal: Terminal) -> None:
    """What cannot be mended ends the conversation, with the reason."""
    terminal.client.deliver.send_nowait(ConnectionEnded("n1 closed with 4009: replaced"))
    with trio.fail_after(5), pytest.RaisesGroup(pytest.RaisesExc(ConnectionEnded, match="4009")):
        await terminal.run()
