"""What `ring verify` and repeated kills have shown, in docs/how-to/verify.md: no figure gets there by hand.

python -m benchmarks.verified           runs both (some twenty minutes): docs/verified.json, the page
python -m benchmarks.verified --check   is the page what the file says?
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import describe

SEEDS = range(1, 6)
FAULTS = 20
KILLS = 20
OUTAGE_S = 10

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "how-to" / "verify.md"
FILE = DOCS / "verified.json"
MARK, END = "<!-- verified -->", "<!-- /verified -->"

_COLUMNS = {
    "sent": "sent",
    "delivered": "delivered",
    "queued": "queued",
    "failed": "failed",
    "abandoned": "given up",
    "lost": "lost",
    "forgotten": "forgotten",
    "doubled_raw": "doubled",
    "doubled_raw_unmarked": "unmarked",
    "doubled_to_application": "to app",
    "reordered": "reordered",
    "breaches": "promises broken",
}
_KILLS = {
    "detected": "a survivor lost its link",
    "removed": "the last survivor has entered the ring without it",
    "served": "the first message served by the new owner has arrived",
}


def measure() -> dict[str, Any]:
    """Runs all of it; says how far it is."""
    on, runs = describe(), [_verify(seed) for seed in SEEDS]
    kills = _run("tests.integration.kills", "--kills", str(KILLS), "--json")
    return {"on": on, "runs": runs, "kills": kills}


def _verify(seed: int) -> Any:
    print(f"ring verify --random {FAULTS} --seed {seed}", file=sys.stderr)  # noqa: T201 - a command
    options = ["--random", str(FAULTS), "--seed", str(seed), "--outage-s", str(OUTAGE_S), "--json"]
    return _run("ring", "verify", *options)


def _run(module: str, *arguments: str) -> Any:
    # Its exit code says whether all was well: the document says so, too, and what was not.
    said = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own
    return json.loads(said.stdout)


def render(text: str, data: dict[str, Any]) -> str:
    """The page with the tables of `data` between its marks."""
    before, _, rest = text.partition(MARK)
    _, _, after = rest.partition(END)
    return f"{before}{MARK}\n{_tables(data)}\n{END}{after}"


def _tables(data: dict[str, Any]) -> str:
    on = data["on"]
    where = f"{on['cores']} cores ({on['cpu']}), Python {on['versions']['Python']}"
    lines = [
        f"{on['date']}, commit {on['commit']}, {where}:",
        f"`ring verify --random {FAULTS} --seed N --outage-s {OUTAGE_S}`, for each seed.",
        "",
        _row("seed", *_COLUMNS.values(), "longest until served again"),
        _row("--:", *["--:" for _ in _COLUMNS], "--:"),
    ]
    for run in data["runs"]:
        total = {**run["total"], "failed": sum(run["total"]["failed"].values())}
        served = [row["served_again_s"] for row in run["rows"] if row["served_again_s"] is not None]
        longest = f"{max(served):.2f} s" if served else "-"
        lines.append(_row(run["seed"], *(f"{total[name]:,}" for name in _COLUMNS), longest))
    kills = data["kills"]
    times = f"{kills['kills']} times, {kills['nodes']} nodes, a lease of {kills['ttl_s']:g} s"
    lines += [
        "",
        f"`kill -9` of an owner with messages on their way to it, {times}; seconds after the kill:",
        "",
        _row("", "median", "worst"),
        _row("---", "--:", "--:"),
    ]
    for name, words in _KILLS.items():
        figures = kills["seconds"][name]
        lines.append(_row(words, f"{figures['median']:.3f}", f"{figures['worst']:.3f}"))
    return "\n".join(lines)


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main(arguments: list[str]) -> int:
    """The command; 1 if the page is not what the file says, or a promise was broken."""
    text = PAGE.read_text("utf-8")
    if arguments == ["--check"]:
        if text == render(text, json.loads(FILE.read_text("utf-8"))):
            return 0
        print(f"{PAGE.name} is not what {FILE.name} says: python -m benchmarks.verified", file=sys.stderr)  # noqa: T201 - a command
        return 1
    data = measure()
    FILE.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    PAGE.write_text(render(text, data), "utf-8")
    return 0 if all(run["ok"] for run in data["runs"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
