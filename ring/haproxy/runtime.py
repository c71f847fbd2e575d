"""HAProxy's Runtime API: what it is asked, and told, while it runs.

One connection per command: then its end is that of the answer, and there is no prompt to be told from it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from ring.protocol.codes import ErrorCode, RingError
from ring.transport.address import join_address, split_address

ANSWER_S = 5.0
"""How long an answer may take: the replacement of a map takes 30 ms."""

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes; of a thousand servers and a whole map."""

PAYLOAD_BYTES = 12_000
"""Of rows in one command: HAProxy cuts silently what is longer than its `tune.bufsize` (16 kB)."""

MAINT = 1 | 2 | 32 | 64
"""The bits of a server's administrative state that mean maintenance. (4 means that it began with that.)"""
DRAIN = 8 | 16
"""Those that mean draining: it gets no more but those whom a rule names."""


class HAProxyRefused(RingError):
    """It did not do what it was told."""

    code = ErrorCode.INTERNAL


class HAProxySilent(RingError):
    """Nobody answers at its Runtime API."""

    code = ErrorCode.OWNER_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Place:
    """A server of a backend, as it is now.

    Attributes:
        name: of the server.
        address: "host:port" where it sends clients.
        check: "host:port" where it asks for health.
        admin: the bits of its administrative state.
    """

    name: str
    address: str
    check: str
    admin: int

    @property
    def ready(self) -> bool:
        """Whether it takes clients, if it is healthy."""
        return not self.admin & (MAINT | DRAIN)


class Runtime:
    """The Runtime API of one HAProxy.

    Args:
        address: of its stats socket, of level admin: a path, or "host:port".
    """

    def __init__(self, address: str) -> None:
        self.address = address

    async def ask(self, command: str) -> str:
        """What it answers.

        Raises:
            HAProxySilent: nobody does.
        """
        try:
            with trio.fail_after(ANSWER_S):
                return await self._exchange(command)
        except trio.TooSlowError:
            why = f"no answer within {ANSWER_S:g} s"
        except OSError as error:
            why = error.strerror or str(error)
        except trio.BrokenResourceError:
            why = "the connection broke"
        raise HAProxySilent(f"HAProxy at {self.address}: {why}")

    async def _exchange(self, command: str) -> str:
        stream: trio.abc.Stream
        if "/" in self.address:
            stream = await trio.open_unix_socket(self.address)
        else:
            stream = await trio.open_tcp_stream(*split_address(self.address))
        async with stream:
            await stream.send_all(command.encode() + b"\n")
            answer = bytearray()
            async for part in stream:
                answer += part
                if len(answer) > MAX_ANSWER:
                    raise HAProxyRefused(f"HAProxy at {self.address}: an answer without end to {command!r}")
        return answer.decode(errors="replace")

    async def tell(self, command: str) -> None:
        """Has it do something.

        Raises:
            HAProxyRefused: it says why not.
            HAProxySilent: nobody answers.
        """
        answer = (await self.ask(command)).strip()
        if answer:
            first = command.partition("\n")[0]
            raise HAProxyRefused(f"HAProxy at {self.address}: {first[:80]}: {answer}")

    # --- what it has

    async def pid(self) -> str:
        """Of its worker: another after a restart or a reload."""
        return self._find(r"^Pid: (\d+)", await self.ask("show info"), "show info")

    async def places(self, backend: str) -> list[Place]:
        """The servers of a backend.

        Raises:
            HAProxyRefused: it has none of this name.
        """
        answer = await self.ask(f"show servers state {backend}")
        lines = answer.splitlines()
        if len(lines) < 2 or not lines[1].startswith("# "):
            raise HAProxyRefused(f"HAProxy at {self.address} has no backend {backend!r}: {answer.strip()}")
        names = lines[1].removeprefix("# ").split()
        rows = (dict(zip(names, line.split(), strict=False)) for line in lines[2:] if line.strip())
        return [
            Place(
                row["srv_name"],
                join_address((row["srv_addr"], int(row["srv_port"]))),
                join_address(
                    (
                        _or(row.get("srv_check_addr"), row["srv_addr"]),
                        int(_or(row.get("srv_check_port"), row["srv_port"])),
                    )
                ),
                int(row["srv_admin_state"]),
            )
            for row in rows
            if row.get("be_name") == backend
        ]

    async def busy(self, backend: str) -> dict[str, int]:
        """How many clients each server has."""
        answer = await self.ask(f"show stat {backend} 4 -1")
        lines = answer.splitlines()
        names = lines[0].removeprefix("# ").split(",")
        rows = (dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line)
        return {row["svname"]: int(row["scur"] or 0) for row in rows}

    async def map_named(self, name: str) -> str:
        """The path of the map whose file has this name, as HAProxy calls it.

        Raises:
            HAProxyRefused: it uses none, or several.
        """
        answer = await self.ask("show map")
        paths: list[str] = re.findall(r"^-?\d+ \((.*?)\)", answer, re.MULTILINE)
        found = [path for path in paths if path.rpartition("/")[2] == name]
        if len(found) != 1:
            raise HAProxyRefused(
                f"HAProxy at {self.address} uses {len(found)} maps named {name!r}: is its configuration what "
                "`ring haproxy render` writes?"
            )
        return found[0]

    async def count(self, path: str) -> int:
        """How many rows the map has that it uses now."""
        found = re.escape(f"({path})") + r".*entry_cnt=(\d+)"
        return int(self._find(found, await self.ask("show map"), "show map"))

    async def rows(self, path: str) -> dict[str, str]:
        """The rows of a map."""
        lines = (line.split() for line in (await self.ask(f"show map {path}")).splitlines())
        return {words[1]: words[2] for words in lines if len(words) == 3}

    async def row(self, path: str, key: str) -> str | None:
        """One row of a map; None if there is none."""
        answer = await self.ask(f"get map {path} {key}")
        found = re.search(r'found=yes.*value="([^"]*)"', answer)
        return found[1] if found else None

    # --- what it is told

    async def put(self, backend: str, place: str, address: str, check: str) -> None:
        """A server is somewhere else from now on; its clients stay where they are."""
        host, port = split_address(address)
        answer = await self.ask(f"set server {backend}/{place} addr {host} port {port}")
        # It says what it has changed, or that there was nothing to change.
        if "changed from" not in answer and "no need to change" not in answer:
            raise HAProxyRefused(f"HAProxy at {self.address}: {place} to {address}: {answer.strip()}")
        host, port = split_address(check)
        answer = (await self.ask(f"set server {backend}/{place} check-addr {host} port {port}")).strip()
        if answer and "changed" not in answer and "no need" not in answer:
            raise HAProxyRefused(f"HAProxy at {self.address}: {place} checked at {check}: {answer}")

    async def set_state(self, backend: str, place: str, state: str) -> None:
        """`ready` or `maint`."""
        await self.tell(f"set server {backend}/{place} state {state}")

    async def replace_map(self, path: str, rows: Iterable[tuple[str, str]]) -> int:
        """Replaces all rows at one moment; returns how many there are.

        Raises:
            HAProxyRefused: it did not take all of them; those before are still in use.
        """
        version = self._find(r"New version created: (\d+)", await self.ask(f"prepare map {path}"), "prepare")
        batch: list[str] = []
        size = count = 0
        for key, value in rows:
            line = f"{key} {value}\n"
            if size + len(line) > PAYLOAD_BYTES:
                await self.tell(f"add map @{version} {path} <<\n{''.join(batch)}")
                batch, size = [], 0
            batch.append(line)
            size += len(line)
            count += 1
        if batch:
            await self.tell(f"add map @{version} {path} <<\n{''.join(batch)}")
        await self.tell(f"commit map @{version} {path}")
        if (there := await self.count(path)) != count:
            raise HAProxyRefused(f"HAProxy at {self.address}: {path} has {there} of {count} rows")
        return count

    def _find(self, pattern: str, answer: str, command: str) -> str:
        found = re.search(pattern, answer, re.MULTILINE)
        if found is None:
            raise HAProxyRefused(f"HAProxy at {self.address} answers to {command!r}: {answer.strip()[:200]}")
        return found[1]


def _or(value: str | None, default: str) -> str:
    """What the state says of a check's address, where `-` and 0 mean that of the server."""
    return default if value in (None, "-", "0") else str(value)
