"""What `ring chat` does while it is connected: lines in, messages out, and the other way round."""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import trio
import typer

from ring.cli.printable import printable
from ring.client import Client, ConnectionEnded, Message, Receipt, RoomEnded, RoomGap, RoomMessage
from ring.protocol.codes import BadRequest, RingError
from ring.protocol.names import check_name

WATCH_S = 0.1
"""How often it looks whether the connection was cut or made again."""

FATE_S = 15.0
"""How long the end of input waits for the fate of what was said: a node gives a message up after 10 s."""

STDIN = 0

_ADDRESSED = re.compile(r"(\S+): (.*)")
_COMMANDS = "the commands are /to NAME, /join ROOM, /leave ROOM and /room ROOM"

Act = Callable[[Client], Awaitable[None]]


class Conversation:
    """A user who talks from a terminal, or from a pipe.

    Args:
        user: who talks.
        to: whom lines without a name are for; None until somebody is named.
        rooms: to join at once. Without `to`, lines are for the first of them.
        show: takes the lines to show.
        stdin: the descriptor to read lines from.
    """

    def __init__(
        self,
        user: str,
        to: str | None,
        rooms: Sequence[str] = (),
        *,
        show: Callable[[str], None] = typer.echo,
        stdin: int = STDIN,
    ) -> None:
        self.user = user
        self._to = to
        self.rooms = rooms
        self._room = rooms[0] if rooms and to is None else None  # lines are for it, and for nobody else
        self._show = show
        self._stdin = stdin

    async def hold(self, client: Client) -> None:
        """Talks until the input ends.

        Raises:
            ConnectionEnded: the connection is over, for good.
        """
        self._note(f"you are {self.user}, on node {client.node}; your owner is {client.owner}")
        goes = self._to or (f"room {self._room}" if self._room else None)
        self._note(f"lines go to {goes}" if goes else "say who a line is for, as in  bob: hello")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, client)
            nursery.start_soon(self._watch, client)
            with trio.CancelScope() as saying:
                async with trio.open_nursery() as said:
                    for room in self.rooms:
                        await said.start(self._do, client, partial(self._join, room))
                    async for line in self._lines():
                        if (act := self._understand(line)) is not None:
                            await said.start(self._do, client, act)
                    saying.deadline = trio.current_time() + FATE_S
            nursery.cancel_scope.cancel()

    async def _lines(self) -> AsyncIterator[str]:
        rest = b""
        # A plain read in a thread that may be left behind: sys.stdin's lock would still be held at exit.
        while chunk := await trio.to_thread.run_sync(os.read, self._stdin, 65536, abandon_on_cancel=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace").rstrip("\r")
        if rest:
            yield rest.decode(errors="replace")

    def _understand(self, line: str) -> Act | None:
        """What a line asks for; None if that is nothing."""
        if not line.strip():
            return None
        if line.startswith("/"):
            command, _, name = line.partition(" ")
            return self._command(command, name.strip())
        text = line
        if (match := _ADDRESSED.fullmatch(line)) is not None:
            name, text = match.groups()
            if not self._address("to", name):
                return None
        if self._room is not None:
            return partial(self._publish, self._room, text)
        if self._to is not None:
            return partial(self._send, self._to, text)
        self._note("say who it is for, as in  bob: hello")
        return None

    def _command(self, command: str, name: str) -> Act | None:
        if not name or command not in ("/to", "/join", "/leave", "/room"):
            self._note(_COMMANDS)
        elif command == "/leave":
            return partial(self._leave, name)
        elif self._address("to" if command == "/to" else "room", name) and command == "/join":
            return partial(self._join, name)
        return None

    def _address(self, what: str, name: str) -> bool:
        """Lines are for this user, or this room, from now on."""
        try:
            check_name(name, what)
        except BadRequest as error:
            self._note(str(error))
            return False
        self._to, self._room = (name, None) if what == "to" else (None, name)
        return True

    async def _do(self, client: Client, act: Act, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()  # what is asked for next comes after this: the client queues before it waits
        await act(client)

    async def _send(self, to: str, text: str, client: Client) -> None:
        try:
            receipt = await client.send(to, text)
        except BadRequest as error:
            self._note(f"not sent to {to}: {error}")
            return
        if receipt is not None and (note := _fate(receipt, to)):
            self._note(note)

    async def _publish(self, room: str, text: str, client: Client) -> None:
        await self._granted(client.publish(room, text), f"not said in room {room}")

    async def _join(self, room: str, client: Client) -> None:
        if await self._granted(client.join(room), f"not in room {room}"):
            self._note(f"you are in room {room}")
        else:
            self._forget(room)

    async def _leave(self, room: str, client: Client) -> None:
        self._forget(room)
        if await self._granted(client.leave(room), f"not left room {room}"):
            self._note(f"you left room {room}")

    async def _granted(self, request: Awaitable[None], refused: str) -> bool:
        """Whether a request was granted; that it was refused is said, but for the end of the connection."""
        try:
            await request
        except ConnectionEnded:
            raise
        except RingError as error:
            self._note(f"{refused}: {error}")
            return False
        return True

    def _forget(self, room: str) -> None:
        """Lines are not for this room any more."""
        if self._room == room:
            self._room = None

    async def _listen(self, client: Client) -> None:
        async for incoming in client:
            match incoming:
                case Message():
                    self._show(_spoken(incoming))
                case RoomMessage(room=room):
                    self._show(f"[{printable(room)}] {_spoken(incoming)}")
                case RoomGap(room=room, reason=reason):
                    self._note(f"room {room}: something said there may be missing here: {reason}")
                case RoomEnded(room=room, reason=reason):
                    self._forget(room)
                    self._note(f"you are no longer in room {room}: {reason}")

    async def _watch(self, client: Client) -> None:
        connected, reconnects = True, client.reconnects
        while True:
            if client.reconnects != reconnects:
                self._note(f"connected again, on node {client.node}")
                connected, reconnects = True, client.reconnects
            elif connected and not client.connected:
                self._note("the connection broke; connecting again")
                connected = False
            await trio.sleep(WATCH_S)

    def _note(self, text: str) -> None:
        self._show(f"* {printable(text)}")


def _spoken(message: Message | RoomMessage) -> str:
    text = message.data if isinstance(message.data, str) else bytes(message.raw).decode()
    return f"{printable(message.sender or '(server)')}: {printable(text)}"


def _fate(receipt: Receipt, to: str) -> str | None:
    if receipt.status == "queued":
        return f"{to} is not there: stored until they come"
    if receipt.status == "failed":
        return f"not delivered to {to}: {receipt.message or receipt.code}"
    return None
