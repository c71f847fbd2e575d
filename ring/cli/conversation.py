"""What `ring chat` does while it is connected: lines in, messages out, and the other way round."""

import os
import re
from collections.abc import AsyncIterator, Callable

import trio
import typer

from ring.client import Client, Receipt
from ring.protocol.codes import BadRequest
from ring.protocol.names import check_name

WATCH_S = 0.1
"""How often it looks whether the connection was cut or made again."""

FATE_S = 15.0
"""How long the end of input waits for the fate of what was said: a node gives a message up after 10 s."""

STDIN = 0

_ADDRESSED = re.compile(r"(\S+): (.*)")


class Conversation:
    """A user who talks from a terminal, or from a pipe.

    Args:
        user: who talks.
        to: whom lines without a name are for; None until somebody is named.
        show: takes the lines to show.
        stdin: the descriptor to read lines from.
    """

    def __init__(
        self, user: str, to: str | None, *, show: Callable[[str], None] = typer.echo, stdin: int = STDIN
    ) -> None:
        self.user = user
        self._to = to
        self._show = show
        self._stdin = stdin

    async def hold(self, client: Client) -> None:
        """Talks until the input ends.

        Raises:
            ConnectionEnded: the connection is over, for good.
        """
        self._note(f"you are {self.user}, on node {client.node}; your owner is {client.owner}")
        self._note(f"lines go to {self._to}" if self._to else "say who a line is for, as in  bob: hello")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, client)
            nursery.start_soon(self._watch, client)
            with trio.CancelScope() as saying:
                async with trio.open_nursery() as said:
                    async for line in self._lines():
                        if (addressed := self._understand(line)) is not None:
                            await said.start(self._say, client, *addressed)
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

    def _understand(self, line: str) -> tuple[str, str] | None:
        """Whom a line is for, and what it says; None if it is nothing to send."""
        if not line.strip():
            return None
        if line.startswith("/"):
            command, _, name = line.partition(" ")
            if command == "/to" and name.strip():
                self._address(name.strip())
            else:
                self._note("there is one command: /to NAME")
            return None
        text = line
        if (match := _ADDRESSED.fullmatch(line)) is not None:
            name, text = match.groups()
            if not self._address(name):
                return None
        if self._to is None:
            self._note("say who it is for, as in  bob: hello")
            return None
        return self._to, text

    def _address(self, name: str) -> bool:
        try:
            self._to = check_name(name, "to")
        except BadRequest as error:
            self._note(str(error))
            return False
        return True

    async def _say(self, client: Client, to: str, text: str, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()  # what is said next comes after this: `send` queues it before it waits
        try:
            receipt = await client.send(to, text)
        except BadRequest as error:
            self._note(f"not sent to {to}: {error}")
            return
        if receipt is not None and (note := _fate(receipt, to)):
            self._note(note)

    async def _listen(self, client: Client) -> None:
        async for message in client:
            text = message.data if isinstance(message.data, str) else bytes(message.raw).decode()
            self._show(f"{printable(message.sender or '(server)')}: {printable(text)}")

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


def _fate(receipt: Receipt, to: str) -> str | None:
    if receipt.status == "queued":
        return f"{to} is not there: stored until they come"
    if receipt.status == "failed":
        return f"not delivered to {to}: {receipt.message or receipt.code}"
    return None


def printable(text: str) -> str:
    """`text` without what could command a terminal: it comes from strangers."""
    return "".join(ch if ch.isprintable() else f"\\x{ord(ch):02x}" for ch in text)
