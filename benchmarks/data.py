"""What docs/benchmarks.json holds: every run that was made, and on what."""

from msgspec import Struct

from ring.bench.results import Run


class EchoCost(Struct):
    """What an echo server spent."""

    cpu_us: float
    per_s: float


class Entry(Struct, kw_only=True, omit_defaults=True):
    """One run.

    Attributes:
        server: by its name in tables.
        variant: how it was used; may be empty.
        nodes: of the cluster.
        load: `direct`, `open` (direct messages at a rate), `rooms`, `idle`, `many idle`, `mailbox`, `echo` or
            `echo open`.
        repetition: from 1.
        run: what was measured.
        echo: the same, of the echo servers.
    """

    server: str
    variant: str
    nodes: int
    load: str
    repetition: int
    run: Run | None = None
    echo: EchoCost | None = None


class Data(Struct, kw_only=True):
    """All of it.

    Attributes:
        machine: see `benchmarks.machine`.
        left_out: servers that could not take part, and why.
        work: what each load did, in words.
        entries: every run.
    """

    machine: dict[str, object]
    left_out: dict[str, str]
    work: dict[str, str]
    entries: list[Entry]
