"""`python -m ring`: the same as `ring`."""

from ring.cli.main import run

run()
