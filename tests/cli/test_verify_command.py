"""`ring verify`: its options, what it prints, and its exit code. What it does is tested in tests/verify."""

import json
import signal
import sys
from collections.abc import Callable

import pytest
import trio

from ring.cli import verify_report
from ring.cli.main import main
from ring.verify import campaign
from ring.verify.campaign import Outcome, Progress
from ring.verify.plan import Plan
from ring.verify.record import Breach, Key, Promise
from ring.verify.tally import Row
from tests.cli.terminal import at_a_terminal, plain

Output = pytest.CaptureFixture[str]
Tell = Callable[[Progress], None]


def row(name: str, **counts: int) -> Row:
    """A row of the table."""
    made = Row(name, 102.0, "seen after 1 s", ("n2",), served_s=0.25, silence_s=0.5)
    for count, value in counts.items():
        setattr(made, count, value)
    return made


def kept(plan: Plan) -> Outcome:
    """A run in which nothing was wrong."""
    return Outcome(
        plan, 1, 100.0, 12.0, [Row("calm", 100.0, sent=5, delivered=5), row("kill", sent=7, queued=7)]
    )


def broken(plan: Plan) -> Outcome:
    """A run in which everything was."""
    outcome = kept(plan)
    outcome.rows.append(row("freeze", sent=3, lost=1, doubled=2, unmarked=1, breaches=13))
    outcome.rows[-1].failed["offline"] = 2
    lost = Breach(Promise.KEPT, 104.0, "queued, and never seen", Key("a", "b", 3), ("  1.000 s  sent",))
    outcome.breached = {Promise.KEPT: 12, Promise.AS_DOCUMENTED: 1}
    outcome.breaches = [lost] * 12 + [Breach(Promise.AS_DOCUMENTED, 103.0, "b/raw got an odd frame")]
    outcome.failures = ["freeze: n2 went on by itself"]
    outcome.complaints = ["n1.1: it died"]
    outcome.notes = ["the machine is too busy"]
    return outcome


class Runs:
    """In place of a run: the plans that it was asked for, and what comes of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plans: list[Plan] = []
        self.outcome = kept
        self.signals = 0
        monkeypatch.setattr(campaign, "verify", self.run)

    async def run(self, plan: Plan, tell: Tell, stop: trio.Event) -> Outcome:
        """See `campaign.verify`."""
        self.plans.append(plan)
        for _ in range(self.signals):
            signal.raise_signal(signal.SIGINT)
            await stop.wait()
            await trio.lowlevel.checkpoint()
        if self.signals > 1:
            await trio.sleep_forever()
        outcome = self.outcome(plan)
        tell(Progress("calm", 0, len(plan.order), 5))
        for number, each in enumerate(outcome.rows[1:], 1):
            tell(Progress(each.name, number, len(plan.order), 12, each))
        return outcome


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """No cluster is started."""
    return Runs(monkeypatch)


class TestPlans:
    def test_default(self, runs: Runs, capsys: Output) -> None:
        """Every fault once, by a seed that is printed first."""
        assert main(["verify"]) == 0
        (plan,) = runs.plans
        assert len(plan.order) == len(set(plan.order)) > 20
        assert capsys.readouterr().out.startswith(f"seed {plan.seed}: {len(plan.order)} faults on 4 nodes")
        main(["verify"])
        assert runs.plans[1].seed != plan.seed

    def test_random(self, runs: Runs) -> None:
        """At random, in place of each once, or after that; what is left to chance hangs on the seed."""
        main(["verify", "--random", "30", "--seed", "7", "--faults", "kill,freeze"])
        main(["verify", "--random", "30", "--seed", "7", "--faults", "kill,freeze", "--alone"])
        first, second = runs.plans
        assert set(first.order) == {"kill", "freeze"}
        assert second.order == ("kill", "freeze", *second.order[2:])
        assert (len(first.order), len(second.order)) == (30, 32)

    def test_options(self, runs: Runs) -> None:
        """What is run on what."""
        options = "--nodes 3 --users 20 --rate 50 --pause-s 1 --ttl-s 2 --outage-s 5 --faults none --seed 1"
        assert main(["verify", *options.split()]) == 0
        assert runs.plans == [Plan(1, (), 3, 20, 50.0, 1.0, 2.0, 5.0)]

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ("--faults kil", "no fault is called 'kil'"),
            ("--ttl-s 5 --outage-s 4", "--outage-s: more than --ttl-s"),
            ("--nodes 1", "--nodes"),
        ],
    )
    def test_wrong(self, runs: Runs, capsys: Output, options: str, why: str) -> None:
        """What cannot be run is wrong usage."""
        assert main(["verify", *options.split()]) == 2
        assert why in capsys.readouterr().err
        assert runs.plans == []

    def test_list(self, runs: Runs, capsys: Output) -> None:
        """The faults are named, with what they do."""
        assert main(["verify", "--list"]) == 0
        out = capsys.readouterr().out
        assert "kill -9 of a node" in out
        assert "some clients do not read" in out
        assert runs.plans == []


class TestSignals:
    def test_one(self, runs: Runs, capsys: Output) -> None:
        """Ctrl-C ends the faults; what was seen until then is told."""
        runs.signals = 1
        assert main(["verify", "--seed", "1"]) == 0
        out, err = capsys.readouterr()
        assert "no further faults; once more to stop at once" in err
        assert "all promises were kept" in out

    def test_two(self, runs: Runs, capsys: Output) -> None:
        """A second one ends all, and nothing is told."""
        runs.signals = 2
        assert main(["verify", "--seed", "1"]) == 130
        assert "promises" not in capsys.readouterr().out


class TestReport:
    def test_kept(self, runs: Runs, capsys: Output) -> None:
        """A table with a row for each fault and for all; the verdict is the last line."""
        assert main(["verify", "--seed", "1"]) == 0
        out, err = capsys.readouterr()
        lines = plain(out)
        assert lines[1].split()[:4] == ["fault", "hit", "sent", "delivered"]
        assert [line.split()[0] for line in lines[2:5]] == ["calm", "kill", "all"]
        assert lines[4].split()[1:4] == ["12", "5", "7"]
        assert lines[-1].startswith("all promises were kept: 12 messages, 1 faults, ")
        assert err.startswith("1/")
        assert "kill of n2 (seen after 1 s): 7 sent, 7 queued; served again after 0.25 s" in err

    def test_broken(self, runs: Runs, capsys: Output) -> None:
        """Every promise that was broken, with the story of the first messages; and what else was wrong."""
        runs.outcome = broken
        assert main(["verify", "--seed", "1"]) == 1
        lines = plain(capsys.readouterr().out)
        assert f"BROKEN 12 times: {Promise.KEPT.value}" in lines
        assert lines.count("  a>b#3: queued, and never seen, at 4.000 s") == verify_report.MOST_TOLD
        assert "      1.000 s  sent" in lines
        assert "  b/raw got an odd frame, at 3.000 s" in lines
        assert "proves nothing: freeze: n2 went on by itself" in lines
        assert "a node logged an error: n1.1: it died" in lines
        assert "note: the machine is too busy" in lines
        assert lines[-1].startswith(
            "NOT as promised: 13 promises broken, 1 faults that prove nothing, 1 errors logged by nodes: "
        )

    def test_json(self, runs: Runs, capsys: Output) -> None:
        """One document on standard output; the seed goes to standard error, before anything can go wrong."""
        runs.outcome = broken
        assert main(["verify", "--seed", "1", "--json"]) == 1
        out, err = capsys.readouterr()
        assert err.startswith("seed 1: ")
        told = json.loads(out)
        assert (told["ok"], told["seed"], told["plan"]["nodes"]) == (False, 1, 4)
        assert [each["fault"] for each in told["rows"]] == ["calm", "kill", "freeze"]
        assert (told["total"]["sent"], told["total"]["failed"], told["total"]["lost"]) == (
            15,
            {"offline": 2},
            1,
        )
        promises = {each["promise"]: each["broken"] for each in told["promises"]}
        assert (promises["kept"], promises["marked"], len(promises)) == (12, 0, len(Promise))
        assert len(told["breaches"]) == 13
        assert told["breaches"][0]["message"] == "a>b#3"
        assert told["breaches"][-1]["message"] is None
        assert told["failures"] == ["freeze: n2 went on by itself"]

    def test_on_a_terminal(self, runs: Runs, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
        """It shows how far it is, and a line for each fault; the table leaves out what has no room."""
        runs.outcome = broken
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        at_a_terminal(monkeypatch, 110)
        assert main(["verify", "--seed", "1"]) == 1
        out, err = capsys.readouterr()
        head = next(line for line in plain(out) if line.startswith("fault"))
        assert "lost" in head
        assert "hit" not in head
        assert any("freeze of n2" in line and "13 BREACHES" in line for line in plain(err))

    @pytest.mark.parametrize(("seconds", "told"), [(30, "1 min"), (600, "10 min"), (7200, "2.0 h")])
    def test_how_long(self, seconds: int, told: str) -> None:
        """It says beforehand how long it may take."""
        assert verify_report._minutes(seconds) == told
