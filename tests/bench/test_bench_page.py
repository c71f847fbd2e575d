"""docs/benchmarks.md is what docs/benchmarks.json says, and every table is made from its runs."""

import sys
from pathlib import Path

import msgspec
import pytest

import benchmarks.__main__ as program
from benchmarks import machine, page, verified
from benchmarks.data import Data, EchoCost, Entry
from benchmarks.servers import RING, SERVERS, DoesNotStart, Server
from benchmarks.work import FULL, QUICK, Work
from ring.bench.direct import DirectPlan
from ring.bench.ledger import Tally
from ring.bench.mailbox import MailboxPlan
from ring.bench.meter import Spent
from ring.bench.results import Latency, Run, make_run
from ring.bench.rooms import RoomPlan
from ring.bench.storm import IdlePlan

Output = pytest.CaptureFixture[str]

MS = 1_000_000


def test_the_page_is_what_was_measured() -> None:
    """No figure gets there by hand: `make bench` writes both, `python -m benchmarks.page` the page alone."""
    text = page.PAGE.read_text("utf-8")
    assert text == page.render(text, page.load())
    assert page.main(["--check"]) == 0


def run(cpu_us: float, *, lost: int = 0, p99_ms: int = 4) -> Run:
    """Of ten messages."""
    tally = Tally(sent=10 + lost, delivered=10, lost=lost)
    if lost:
        tally.errors["busy"] = 2
        tally.unanswered = 1
    return make_run(
        tally,
        done=10,
        spent=Spent(seconds=0.01, cpu_us={"nodes": cpu_us * 9, "redis": cpu_us}, own_cpu_s=0.001),
        latencies={"one_way": Latency.of([MS, p99_ms * MS]), "receipt": None},
    )


def data() -> Data:
    """Three runs of everything by Ring and NATS."""
    entries = []
    for repetition in (1, 2, 3):
        for server in SERVERS[:2]:
            factor = 1 if server.name == "Ring" else 2
            for variant in server.variants:
                receipts = 1.5 if variant.dialect.receipts else 1
                for nodes in (2, 8):
                    spent = (10.0 + repetition) * nodes * factor * receipts
                    lost = 1 if (server.name, nodes, repetition) == ("NATS", 8, 2) else 0
                    entries.append(
                        Entry(
                            server=server.name,
                            variant=variant.name,
                            nodes=nodes,
                            load="direct",
                            repetition=repetition,
                            run=run(spent, lost=lost),
                        )
                    )
            for load in ("open", "rooms", "idle", *(["many idle", "mailbox"] if factor == 1 else [])):
                measured = run(5.0 * repetition, p99_ms=repetition)
                measured.memory_kib = {"nodes": 2.0}
                measured.figures = {"stored_per_s": 1000.0 * repetition}
                entries.append(
                    Entry(
                        server=server.name,
                        variant="",
                        nodes=8,
                        load=load,
                        repetition=repetition,
                        run=measured,
                    )
                )
        entries += [
            Entry(
                server="Ring",
                variant="",
                nodes=1,
                load=load,
                repetition=repetition,
                echo=EchoCost(7.0 + repetition, 100_000),
            )
            for load in ("echo", "echo open")
        ]
    return Data(
        machine={
            "date": "2027-01-02",
            "commit": "abc",
            "cpu": "a CPU",
            "cores": 2,
            "memory_gib": 4.0,
            "system": "Linux 6",
            "versions": {"Ring": "1.0"},
        },
        left_out={"Socket.IO": "not installed"},
        work=FULL.words(),
        entries=entries,
    )


class TestTables:
    def test_medians_and_ranges(self) -> None:
        """Of all runs, by size; and what went wrong in them."""
        table = page.tables(data())["direct"]
        assert "| Ring, on owners, at most once | 24.0 (22.0-26.0) | 96.0 (88.0-104) | 0/0/0/0 |" in table
        assert "| NATS | 48.0 (44.0-52.0) | 192 (176-208) | 1/0/0/0, unanswered: 1, busy: 2 |" in table
        assert "The load used at most 10% of a core." in table

    def test_ratios(self) -> None:
        """Of medians; with receipts to without; and growth."""
        table = page.tables(data())["ratios"]
        assert "| Ring, on owners, at most once : NATS | 0.50 | 0.50 |" in table
        assert "| Ring, at random, receipts : at most once | 1.50 | 1.50 |" in table
        assert "| from 2 to 8 nodes, CPU per message grows | times |" in table
        assert "| NATS | 4.00 |" in table

    def test_the_others(self) -> None:
        """Latencies, rooms, idle connections, echo: a row for each server, a dash for what it has not."""
        tables = page.tables(data())
        assert "| Ring | 10.0 (5.00-15.0) | 1.00 (1.00-1.00) |" in tables["open"]
        assert "| - | 0/0/0/0 |" in tables["open"]
        assert "| 1.00 (0.50-1.50) |" in tables["rooms"]
        assert "| Ring, 18000 connections to one node of Ring | 2.00 (2.00-2.00) |" in tables["idle"]
        assert "| Ring | 9.00 (8.00-10.0) | 100,000 (100,000-100,000) | 9.00 (8.00-10.0) |" in tables["echo"]
        assert "2027-01-02, commit abc; a CPU, 2 cores, 4.0 GiB, Linux 6." in tables["machine"]
        assert "Left out: Socket.IO (not installed)." in tables["machine"]

    def test_stored_messages(self) -> None:
        """A row for each figure; what was not measured is called unknown; before the first run, so is all."""
        table = page.tables(data())["mailbox"]
        assert "| stored messages/s | 2,000 (1,000-3,000) |" in table
        assert "| CPU us per user served, nodes | 9.00 (4.50-13.5) |" in table
        assert "| messages stored | unknown |" in table
        assert table.endswith("| lost/doubled/misrouted/reordered | 0/0/0/0 |")
        nothing = data()
        nothing.entries = [entry for entry in nothing.entries if entry.load != "mailbox"]
        assert page.tables(nothing)["mailbox"] == page.NOTHING

    def test_what_is_unknown(self) -> None:
        """Is called so: one run without a figure leaves no median."""
        assert page.cell([1.0, None]) == "unknown"
        assert page.cell([]) == "-"
        assert page.cell([12_345.0]) == "12,345 (12,345-12,345)"


class TestPage:
    def test_what_is_around_the_tables_stays(self) -> None:
        """And a second rendering changes nothing."""
        marks = "\n".join(f"text\n<!-- {name} -->old<!-- /{name} -->" for name in page.tables(None))
        made = page.render(f"{marks}\nend\n", data())
        assert made.count("text\n") == 8
        assert made.endswith("\nend\n")
        assert "old" not in made
        assert page.render(made, data()) == made
        assert page.NOTHING in page.render(made, None)

    def test_a_mark_that_is_missing(self) -> None:
        """Is an error: a table would be left out silently."""
        with pytest.raises(ValueError, match="must have <!-- machine -->"):
            page.render("nothing here", data())

    def test_data_survives_the_file(self) -> None:
        """Every run is in it, as it was."""
        assert msgspec.json.decode(msgspec.json.encode(data()), type=Data) == data()


class TestProgram:
    @pytest.fixture
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
        """Nothing is started; what would be is written down."""
        started: list[tuple[str, str, int]] = []

        def play(server: Server, nodes: int, work: Work, repetition: int, tell: program.Tell) -> list[Entry]:
            started.append(("play", server.name, nodes))
            return []

        def idle(server: Server, work: Work, repetition: int, tell: program.Tell) -> list[Entry]:
            started.append(("idle", server.name, 1))
            return [entry for entry in data().entries if entry.server == server.name and entry.nodes == 8]

        def mailbox(work: Work, repetition: int, tell: program.Tell) -> list[Entry]:
            started.append(("mailbox", RING.name, work.mailbox_size))
            return []

        monkeypatch.setattr(program, "play", play)
        monkeypatch.setattr(program, "play_idle", idle)
        monkeypatch.setattr(program, "play_mailbox", mailbox)
        monkeypatch.setattr(program, "play_echo", lambda *_: [])
        monkeypatch.setattr(machine, "describe", dict)
        return started

    def test_servers_take_turns(self, started: list[tuple[str, str, int]]) -> None:
        """Each repetition begins with another one; who is missing is left out by name."""
        one, two = (Server(name, (), lambda: "", SERVERS[0].run) for name in ("one", "two"))
        three = Server("three", (), lambda: "not here", SERVERS[0].run)
        told: list[str] = []
        measured = program.bench([one, two, three], FULL, told.append)
        first = [name for what, name, nodes in started if (what, nodes) == ("play", 2)]
        assert first == ["one", "two", "two", "one", "one", "two"]
        assert {nodes for what, _, nodes in started if what == "play"} == {2, 4, 8}
        assert measured.left_out == {"three": "not here"}
        assert "mailbox" not in {what for what, _, _ in started}  # Ring itself does not take part
        assert told == ["left out: three: not here"]

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which only Linux has")
    def test_a_cluster_is_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ring itself, in small: every load, with what the servers spent."""
        monkeypatch.setattr("ring.bench.storm.SETTLE_S", 0.1)
        monkeypatch.setattr("ring.bench.mailbox.SETTLE_S", 0.1)
        monkeypatch.setattr("ring.bench.mailbox.LIVE_BEFORE_S", 0.5)
        monkeypatch.setattr("benchmarks.servers._SETTLE_S", 0.1)
        work = Work(
            repetitions=1,
            sizes=(1,),
            open_size=1,
            room_size=1,
            direct=DirectPlan(clients=6, senders=3, messages=60),
            open=DirectPlan(clients=6, senders=6, rate=200, messages=None, duration_s=0.2),
            rooms=RoomPlan(members=3, publishes=10),
            idle=IdlePlan(connections=20, hold_s=0.1),
            many_idle=IdlePlan(connections=40, hold_s=0.1),
            echo=0.1,
            mailbox=MailboxPlan(mailboxes=200, connections=50, senders=4, empty=False),
            mailbox_size=1,
        )
        told: list[str] = []
        measured = program.bench([RING], work, told.append)
        loads = [entry.load for entry in measured.entries]
        assert loads[:12] == ["direct"] * 4 + ["open"] * 4 + ["rooms", "idle", "many idle", "mailbox"]
        assert {"echo", "echo open"} == set(loads[12:])
        assert len(told) == len(loads)
        for entry in measured.entries:
            if entry.run is not None:
                assert entry.run.faults == {}
                assert (entry.run.cpu_total_us or 0) > 0
            else:
                assert entry.echo is not None
                assert entry.echo.cpu_us > 0
        assert "0/0/0/0" in page.tables(measured)["direct"]
        stored = page.tables(measured)["mailbox"]
        assert "| messages stored | 200 (200-200) |" in stored
        assert "| lost/doubled/misrouted/reordered | 0/0/0/0 |" in stored
        assert "| - |" not in stored
        assert "unknown" not in stored

    @pytest.mark.parametrize("quick", [True, False])
    def test_the_files(
        self, monkeypatch: pytest.MonkeyPatch, capsys: Output, tmp_path: Path, quick: bool
    ) -> None:
        """A quick run writes none."""
        asked: list[Work] = []

        def bench(servers: object, work: Work, tell: program.Tell) -> Data:
            asked.append(work)
            return data()

        text = "".join(f"<!-- {name} --><!-- /{name} -->" for name in page.tables(None))
        for name in ("PAGE", "JSON"):
            monkeypatch.setattr(page, name, tmp_path / name)
        page.PAGE.write_text(text)
        monkeypatch.setattr(program, "bench", bench)
        assert program.main(["--quick"] if quick else []) == 0
        assert asked == [QUICK if quick else FULL]
        assert ("| NATS | 48.0" in capsys.readouterr().out) == quick
        assert page.JSON.exists() != quick
        assert (page.PAGE.read_text() == text) == quick
        assert page.main(["--check"]) == (1 if quick else 0)
        if not quick:
            page.PAGE.write_text(text)
            assert page.main(["--check"]) == 1
            assert page.main([]) == 0
            assert page.main(["--check"]) == 0

    @pytest.mark.parametrize(("server", "code"), [("Ring", 1), ("NATS", 0)])
    def test_faults(self, monkeypatch: pytest.MonkeyPatch, capsys: Output, server: str, code: int) -> None:
        """Of Ring end it with 1; those of others are for the tables."""
        broken = data()
        for entry in broken.entries:
            if entry.run and entry.server == "NATS":
                entry.run = run(10.0)
        broken.entries.append(
            Entry(server=server, variant="", nodes=8, load="rooms", repetition=1, run=run(1.0, lost=1))
        )
        monkeypatch.setattr(program, "bench", lambda *_: broken)
        assert program.main(["--quick"]) == code

    def test_a_server_that_does_not_start(self, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
        """Is told in one line."""

        def bench(*_: object) -> Data:
            raise DoesNotStart("NATS' mesh was not ready")

        monkeypatch.setattr(program, "bench", bench)
        assert program.main([]) == 1
        assert capsys.readouterr().err == "bench: NATS' mesh was not ready\n"

    def test_the_machine_is_described(self) -> None:
        """With the release of all that is here."""
        about = machine.describe()
        assert about["cpu"]
        assert about["cores"]
        versions = about["versions"]
        assert isinstance(versions, dict)
        assert {"Ring", "Python", "trio", "trio-websocket"} <= set(versions)
        assert all(versions.values())

    def test_a_line_for_each_run(self) -> None:
        """With what went wrong."""
        entry = Entry(server="Ring", variant="v", nodes=2, load="direct", repetition=1)
        line = program._line(entry, run(12.0, lost=1))
        assert "12.00 us" in line
        assert line.endswith("lost: 1, unanswered: 1, error busy: 2")


def test_the_page_of_what_was_verified_is_what_was_measured() -> None:
    """No figure gets there by hand: `make verify` writes both."""
    assert verified.main(["--check"]) == 0
