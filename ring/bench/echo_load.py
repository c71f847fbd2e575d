"""A load for echo servers of any make, and what they spend on it: CPU per message, from /proc.

One lean process holds all clients: bare sockets on an epoll, frames made beforehand. The servers are commands
that print the line that `ring bench echo` prints (`{"event":"ready","edge":"host:port","pid":…}`);
`benchmarks/` has two others. In each repetition every server has its turn, so that a disturbed moment of the
machine does not fall on one of them alone; medians are what counts. Linux only.

    python -m ring.bench.echo_load 'ring=ring bench echo --listen 127.0.0.1:0' 'other=python other.py'
"""

import json
import select
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ring.protocol.upgrade import check_response, client_request
from ring.protocol.websocket import TEXT, encode_frame, header
from ring.transport.address import split_address

_FRAMES = 64  # made with as many masks
_START_S = 20.0
_STALL_S = 5.0  # without an answer: the server is broken


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients do.

    Attributes:
        connections: how many there are.
        size: bytes of each text message.
        seconds: how long it is counted, after a warm-up of a fifth of that.
        rate: messages per second, over all connections in turn; None for a closed loop, in which each
            connection sends its next message when the last has come back.
    """

    connections: int = 100
    size: int = 100
    seconds: float = 3.0
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a server spent."""

    cpu_us: float  # per message
    per_s: float


class Clients:
    """The connections of one load, and the loop that drives them."""

    def __init__(self, address: str, load: Load) -> None:
        self._load = load
        payload = b"x" * load.size
        self._frames = [encode_frame(TEXT, payload, mask=True) for _ in range(_FRAMES)]
        self._answer_size = len(header(TEXT, load.size)) + load.size
        self._epoll = select.epoll()
        self._sockets = [self._connect(address) for _ in range(load.connections)]
        self._by_fd = {sock.fileno(): sock for sock in self._sockets}
        self._partial = dict.fromkeys(self._by_fd, 0)  # bytes of an unfinished answer
        self._sent = 0
        self.answered = 0

    def _connect(self, address: str) -> socket.socket:
        sock = socket.create_connection(split_address(address))
        request, key = client_request(address, "/")
        sock.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        check_response(head, key)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return sock

    def close(self) -> None:
        """Cuts all connections."""
        for sock in self._sockets:
            sock.close()
        self._epoll.close()

    def _send(self, sock: socket.socket) -> None:
        sock.send(self._frames[self._sent % _FRAMES])
        self._sent += 1

    def run(self, seconds: float) -> None:
        """Drives them for so long, then waits for the answers that are still to come."""
        if self._load.rate is None:
            self._run_closed(seconds)
        else:
            self._run_open(seconds, self._load.rate)
        while self.answered < self._sent:
            self._read(_STALL_S)

    def _run_closed(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for sock in self._sockets:
            self._send(sock)
        while time.monotonic() < end:
            for sock in self._read(_STALL_S):
                self._send(sock)

    def _run_open(self, seconds: float, rate: float) -> None:
        start = time.monotonic()
        for index in range(int(seconds * rate)):
            due = start + index / rate
            while (left := due - time.monotonic()) > 0:
                self._read(left, may_stall=True)
            self._send(self._sockets[index % len(self._sockets)])

    def _read(self, wait_s: float, *, may_stall: bool = False) -> list[socket.socket]:
        """Counts the answers that come; returns whose is complete."""
        ready = self._epoll.poll(wait_s)
        if not ready and not may_stall:
            raise RuntimeError(f"no answer for {wait_s} s")
        complete = []
        for fd, _ in ready:
            sock = self._by_fd[fd]
            data = sock.recv(65536)
            if not data:
                raise RuntimeError("the server closed a connection")
            count, self._partial[fd] = divmod(self._partial[fd] + len(data), self._answer_size)
            self.answered += count
            if count:
                complete.append(sock)
        return complete


def cpu_us(pid: int) -> float:
    """The time that all threads of a process were on a CPU, in microseconds.

    From `schedstat`, which counts in nanoseconds; `stat` has the same sum in steps of 10 ms.
    """
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_bytes().split()[0]) for task in tasks) / 1000


@contextmanager
def started(command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A server's address and process, while it runs."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - the caller's own
        try:
            assert process.stdout is not None
            if not select.select([process.stdout], [], [], _START_S)[0]:
                raise RuntimeError(f"{command[0]} does not say that it is ready")
            ready = json.loads(process.stdout.readline())
            yield ready["edge"], ready["pid"]
        finally:
            process.terminate()


def measure(command: Sequence[str], load: Load) -> Cost:
    """What one server, started for it, spends on `load`."""
    with started(command) as (address, pid):
        clients = Clients(address, load)
        try:
            clients.run(load.seconds / 5)
            answered, cpu, start = clients.answered, cpu_us(pid), time.monotonic()
            clients.run(load.seconds)
            took = time.monotonic() - start
            count = clients.answered - answered
            return Cost((cpu_us(pid) - cpu) / count, count / took)
        finally:
            clients.close()


def compare(servers: Mapping[str, Sequence[str]], load: Load, repetitions: int = 3) -> dict[str, list[Cost]]:
    """What each server spends, by name, once per repetition."""
    costs: dict[str, list[Cost]] = {name: [] for name in servers}
    for _ in range(repetitions):
        for name, command in servers.items():
            costs[name].append(measure(command, load))
    return costs


def table(costs: dict[str, list[Cost]]) -> str:
    """Medians, ranges, and how many times the first server's cost each has."""
    lines = [f"{'server':20} {'CPU us/message':>15} {'range':>15} {'ratio':>7} {'messages/s':>11}"]
    medians = {name: median(cost.cpu_us for cost in each) for name, each in costs.items()}
    first = next(iter(medians.values()))
    for name, each in costs.items():
        spent = [cost.cpu_us for cost in each]
        extent = f"{min(spent):.1f}-{max(spent):.1f}"
        per_s = median(cost.per_s for cost in each)
        ratio = medians[name] / first
        lines.append(f"{name:20} {medians[name]:15.2f} {extent:>15} {ratio:7.2f} {per_s:11.0f}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Compares the servers given as NAME=COMMAND: a closed loop, then 500 messages per second."""
    servers = {name: shlex.split(command) for name, _, command in (each.partition("=") for each in arguments)}
    for title, load in (("closed loop", Load()), ("500 messages/s", Load(rate=500))):
        costs = compare(servers, load)
        sys.stdout.write(f"{title}, {load.connections} connections, {load.size} bytes\n{table(costs)}\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
