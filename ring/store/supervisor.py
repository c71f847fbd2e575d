"""Runs a server for as long as its own standard input stays open.

    python supervisor.py [--remove DIR] PROGRAM ARGUMENT…

`EmbeddedServer` (embedded.py) starts it, by path and isolated from the environment, and says why it exists.
It imports the standard library alone, so that it starts quickly and stays small.
"""

import os
import shutil
import subprocess
import sys
import threading

GRACE_S = 3.0  # for a server that is asked to stop


def stop_at_end_of_input(server: "subprocess.Popen[bytes]") -> None:
    """Stops `server` once whoever holds the other end of our standard input closed it, or died."""
    # Not sys.stdin's own read: Python aborts at exit if a thread sits in one.
    source = sys.stdin.fileno()
    while os.read(source, 4096):
        pass
    server.terminate()
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        server.kill()


def main(arguments: list[str]) -> int:
    """Runs the server, its output ours; returns its exit code. Removes DIR afterwards."""
    directory = arguments[1] if arguments[0] == "--remove" else None
    command = arguments if directory is None else arguments[2:]
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own caller's command
        threading.Thread(target=stop_at_end_of_input, args=(server,), daemon=True).start()
        return server.wait()
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
