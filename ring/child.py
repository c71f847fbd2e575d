"""`ring …` as a child process: how it is started so that it ends with us, and the events that it says.

`ring dev` and `ring verify` start their nodes so. A node says one line of JSON on its standard output when it
serves (`ring.process`); what else comes there is nobody's business.
"""

import sys
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import trio

COMMAND = (sys.executable, "-m", "ring.cli.child")
"""`ring` that ends when its standard input does. We hold the other end: it ends with us, however we end."""

LINE_BYTES = 64 * 1024
"""The longest line that a node says on its standard output."""

Event = dict[str, Any]


async def events(process: trio.Process) -> AsyncGenerator[Event, None]:
    """What a child says on its standard output, which has to be a pipe; ends when the child does."""
    assert process.stdout is not None
    rest = b""
    async for chunk in process.stdout:
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[-LINE_BYTES:]
        for line in lines:
            try:
                event = msgspec.json.decode(line, type=Event)
            except msgspec.DecodeError:
                continue
            yield event
