"""`python -m ring.cli.child …`: `ring …` that ends when its standard input does.

`ring dev` starts its nodes so: if it is killed outright, nobody else could stop them.
"""

import os
import signal
import sys
from threading import Thread, Timer

from ring.cli.main import main

FAREWELL_S = 5.0
"""How long an orphan may drain."""


def _follow() -> None:
    while os.read(0, 4096):
        pass
    farewell = Timer(FAREWELL_S, os._exit, [1])
    farewell.daemon = True
    farewell.start()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    Thread(target=_follow, name="parent watch", daemon=True).start()
    sys.exit(main(sys.argv[1:]))
