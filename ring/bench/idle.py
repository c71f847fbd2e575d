"""What idle clients cost a node: resident memory per connection, and CPU per connect. Linux only.

Starts a node of its own with an embedded server, connects that many clients, each welcomed and each its own
user, and reads /proc before and after.

    python -m ring.bench.idle 18000
"""

import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ring.protocol.upgrade import client_request
from ring.transport.address import split_address

_START_S = 30.0
_SETTLE_S = 2.0  # what connecting left to do is done, and freed


@contextmanager
def node() -> Iterator[tuple[str, int]]:
    """The edge's address and the process of a node, while it runs."""
    command = [sys.executable, "-m", "ring", "serve", "--name", "n1", "--redis", "embedded"]
    for where in ("--edge", "--peer", "--api"):
        command += [where, "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - our own
        try:
            assert process.stdout is not None
            if not select.select([process.stdout], [], [], _START_S)[0]:
                raise RuntimeError("the node does not say that it is ready")
            ready = json.loads(process.stdout.readline())
            yield ready["edge"], ready["pid"]
        finally:
            process.terminate()


def connect(address: str, user: str) -> socket.socket:
    """A client that has been welcomed."""
    host, port = split_address(address)
    sock = socket.create_connection((host, port), timeout=10)
    request, _ = client_request(address, f"/v1/connect?user={user}&device=d", (), ())
    sock.sendall(request)
    got = b""
    while b"}}" not in got:  # the end of the welcome
        part = sock.recv(4096)
        if not part:
            raise ConnectionError(f"no welcome for {user}: {got[:200]!r}")
        got += part
    return sock


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no memory")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(count: int) -> str:
    """Connects `count` clients; one line that says what they cost."""
    with node() as (address, pid):
        clients = [connect(address, "first")]
        before, cpu = resident_kib(pid), cpu_s(pid)
        clients += [connect(address, f"user{index}") for index in range(count)]
        spent = cpu_s(pid) - cpu
        time.sleep(_SETTLE_S)
        after = resident_kib(pid)
        for client in clients:
            client.close()
    return (
        f"{count} idle connections: {(after - before) / count:.2f} KiB of the node's memory each "
        f"({before} KiB before, {after} KiB after), {spent / count * 1e6:.0f} us of CPU to connect one"
    )


def main() -> None:
    """Measures as many connections as the first argument says."""
    count = int(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count + 100 > hard:
        sys.exit(f"this process may have {hard} descriptors: too few for {count} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.stdout.write(measure(count) + "\n")


if __name__ == "__main__":
    main()
