"""`ring bench` on real clusters, in small: its own, and one that runs already."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from ring.bench import local, meter
from ring.bench.local import LocalCluster, local_cluster
from ring.bench.results import Run
from ring.bench.watch import Watched, watching
from ring.cli import bench_report, bench_target
from ring.cli.main import main
from tests.bench.relay import relay
from tests.bench.test_bench_results import run as a_run

Output = pytest.CaptureFixture[str]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which only Linux has")

METRICS = """process_cpu_seconds_total 1.5
process_resident_memory_bytes 2048
ring_anything 1
"""
LOADS = {
    "direct": ("--clients", "8", "--senders", "4", "--messages", "200"),
    "rooms": ("--members", "6", "--publishers", "2", "--publishes", "20"),
    "storm": ("--connections", "30", "--concurrency", "4"),
    "idle": ("--connections", "200", "--hold-s", "0.2"),
}


@pytest.fixture(autouse=True)
def _no_other_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None is found that somebody happens to run; and idle connections settle sooner."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("RING_API", "RING_REDIS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ring.bench.storm.SETTLE_S", 0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One that runs already."""
    with local_cluster(2) as running:
        yield running


def measured(output: Output, *arguments: str) -> dict[str, Any]:
    """The document of a command that finds nothing wrong."""
    code = main(["bench", *arguments, "--runs", "1", "--json"])
    said = output.readouterr()
    assert code == 0, said
    document: dict[str, Any] = json.loads(said.out)
    assert document["ok"]
    return document


@pytest.mark.parametrize("load", LOADS)
def test_a_cluster_of_its_own(capsys: Output, load: str) -> None:
    """It is started, measured with its Redis, and ended; everything arrives."""
    document = measured(capsys, load, "--local", "2", *LOADS[load])
    (run,) = document["runs"]
    assert document["target"] == "2 local nodes, users on their owners"
    assert run["counts"]["sent"] == run["counts"]["delivered"] == run["done"] > 0
    assert set(run["cpu_us"]) == {"nodes", "redis"}
    assert 0 < run["cpu_us"]["nodes"] < 100_000
    assert run["generator_us"] > 0
    assert document["summary"]["cpu_us"]["median"] > 0
    assert [warning for warning in document["warnings"] if "unknown" in warning] == []
    if load == "idle":
        assert 0.1 < run["memory_kib"]["nodes"] < 50
        assert run["idle_cpu_us"]["nodes"] >= 0


MAILBOX = ("--mailboxes", "300", "--connections", "100", "--senders", "8")
_DEEP, _WARM = 160, 6  # 6 mailboxes of 10 and one of 100; 2 % of the mailboxes


@pytest.mark.parametrize("how", [(), ("--leave", "--live", "0"), ("--placement", "random")])
def test_stored_messages(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, cluster: LocalCluster, how: tuple[str, ...]
) -> None:
    """They are kept in Redis, fetched by those who connect, and gone then; nothing stays behind."""
    monkeypatch.setattr("ring.bench.mailbox.SETTLE_S", 0.1)
    monkeypatch.setattr("ring.bench.mailbox.LIVE_BEFORE_S", 0.5)
    document = measured(capsys, "mailbox", "--api", cluster.apis[0], "--redis", cluster.redis, *MAILBOX, *how)
    (run,) = document["runs"]
    assert run["done"] == 100
    assert run["counts"]["sent"] == run["counts"]["delivered"] == 300 + _DEEP + ("--leave" not in how) * _WARM
    figures = run["figures"]
    assert figures["stored"] == 300
    assert figures["epoch_changes"] == 0
    assert 0 < figures["longest_lease_age_s"] < 3
    assert 200 < figures["stored_redis_bytes_of_100"] < 2000  # of 200 bytes each
    assert 0 < run["cpu_us"]["redis"] < 100_000
    assert ("live_in_the_storm" in run["latency_ms"]) == ("--live" not in how)
    assert document["summary"]["stored_per_s"]["median"] == figures["stored_per_s"]


def test_mailboxes_that_are_not_as_they_should_be(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, cluster: LocalCluster
) -> None:
    """What is left of those who came, and missing of those who did not, is counted; so is a new ring."""

    async def count(url: str, name: str, users: list[str]) -> int:
        assert (url, name) == (cluster.redis, "dev")
        return 7

    @contextmanager
    def watching(url: str, name: str) -> Iterator[Watched]:
        yield Watched(epochs=[4, 5])

    monkeypatch.setattr("ring.bench.mailbox.SETTLE_S", 0.1)
    monkeypatch.setattr("ring.bench.mailbox.GONE_S", 0.3)
    monkeypatch.setattr("ring.bench.mailbox.count_mailboxes", count)
    monkeypatch.setattr("ring.bench.mailbox.watching", watching)
    arguments = ("mailbox", "--api", cluster.apis[0], "--redis", cluster.redis, *MAILBOX, "--live", "0")
    assert main(["bench", *arguments, "--runs", "1", "--json"]) == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["errors"] == {"ring_changed_in_the_storm": 1, "mailbox_not_removed": 7, "mailbox_missing": 193}


def test_a_cluster_by_its_api(capsys: Output, cluster: LocalCluster) -> None:
    """Users are on their owners, and the nodes tell what they spend; Redis too, where it is named."""
    arguments = ("direct", "--api", cluster.apis[0], *LOADS["direct"])
    document = measured(capsys, *arguments)
    assert document["target"] == "cluster dev, 2 nodes, users on their owners"
    assert set(document["runs"][0]["cpu_us"]) == {"nodes"}
    assert any("give --redis" in warning for warning in document["warnings"])
    document = measured(capsys, *arguments, "--redis", cluster.redis, "--placement", "random")
    assert document["target"] == "cluster dev, 2 nodes, users anywhere"
    assert set(document["runs"][0]["cpu_us"]) == {"nodes", "redis"}


def test_a_cluster_by_its_redis(capsys: Output, cluster: LocalCluster) -> None:
    """The same, with no API named: the nodes' own are in the ring."""
    document = measured(capsys, "storm", "--redis", cluster.redis, "--cluster", "dev", *LOADS["storm"])
    assert document["target"] == "cluster dev, 2 nodes, users on their owners"
    assert set(document["runs"][0]["cpu_us"]) == {"nodes", "redis"}


def test_a_balancer_and_the_nodes_behind_it(capsys: Output, cluster: LocalCluster) -> None:
    """Clients connect where they are told; the API says what it costs."""
    edge = cluster.edges["n1"]
    document = measured(capsys, "storm", "--edge", edge, "--api", cluster.apis[1], *LOADS["storm"])
    assert document["target"] == f"{edge}, users anywhere"
    assert set(document["runs"][0]["cpu_us"]) == {"nodes"}


def test_edges_alone(capsys: Output, cluster: LocalCluster, tmp_path: Path) -> None:
    """What is not known is called so, never guessed; the table and the picture are there all the same."""
    edges = [part for edge in cluster.edges.values() for part in ("--edge", f"ws://{edge}")]
    picture = tmp_path / "latency.svg"
    arguments = [*LOADS["direct"], "--mode", "open", "--rate", "400", "--runs", "2", "--plot", str(picture)]
    assert main(["bench", "direct", *edges, *arguments]) == 0
    said = capsys.readouterr()
    assert "what the nodes spent is unknown" in said.out
    rows = {line[:26].strip(): line[26:].split() for line in said.out.splitlines()}
    assert rows["CPU us per message"][:2] == ["?", "?"]
    assert rows["delivered"][:3] == ["200", "200", "200"]
    assert rows["lost"][:3] == ["0", "0", "0"]
    assert len(rows["one way ms p99.9"]) == 4
    assert picture.read_text("utf-8").count("<polyline") == 4
    assert said.err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["direct", "--rate", "5"], 2, "--mode open"),
        (["direct", "--local", "1", "--edge", "a:1"], 2, "--local"),
        (["direct", "--clients", "3", "--senders", "4"], 2, "more --clients"),
        (["direct", "--edge", "nonsense"], 2, "write host:port"),
        (["storm", "--edge", "127.0.0.1:1", "--placement", "owner"], 1, "give --api"),
        (["idle", "--edge", "127.0.0.1:1", "--connections", "100000000"], 2, "ulimit"),
        (["rooms"], 3, "ring dev"),
    ],
)
def test_what_cannot_be_done(capsys: Output, arguments: list[str], code: int, complaint: str) -> None:
    """Is refused before anything is measured, in words that help."""
    assert main(["bench", *arguments]) == code
    assert complaint in capsys.readouterr().err


def test_a_picture_that_cannot_be_written(capsys: Output) -> None:
    """Or that would show nothing."""
    with relay() as address:
        arguments = ["bench", "storm", "--edge", address, "--connections", "2", "--runs", "1", "--plot"]
        assert main([*arguments, "/nowhere/a.svg"]) == 1
    assert "cannot write /nowhere/a.svg" in capsys.readouterr().err
    with relay("closed") as address:
        assert main(["bench", "storm", "--edge", address, "--runs", "1", "--plot", "a.svg"]) == 1
    assert "nothing to draw" in capsys.readouterr().err


class TestReport:
    def test_faults_and_warnings(self, capsys: Output) -> None:
        """Are told in words, run by run."""
        good, bad = a_run({"nodes": 10.0, "redis": 1.0}), a_run(None, lost=3)
        bad.generator_share = 0.97
        bad.memory_kib = {"nodes": 1.5}
        bench_report.print_report("title", "message", [good, bad])
        said = capsys.readouterr().out
        assert "run 2 is not as it should be: lost: 3" in said
        assert "the load itself used 97% of a core" in said
        assert "what the nodes spent is unknown" in said
        assert "memory KiB per message, nodes" in said

    def test_redis_alone_is_unknown(self) -> None:
        """Then the total is that of the nodes, and it is said."""
        assert "give --redis" in bench_report.warnings([a_run({"nodes": 1.0})])[0]
        assert bench_report.warnings([a_run({"nodes": 1.0, "redis": 1.0})]) == []

    def test_a_run_without_latencies(self, capsys: Output) -> None:
        """Nothing arrived in the second run: its figures are unknown."""
        empty: Run = a_run(done=0)
        empty.latency_ms.clear()
        bench_report.print_report("title", "message", [a_run(), empty])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "ms p50" in line]
        assert line.split()[-3:] == ["1", "?", "?"]

    def test_progress_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
        """A line that comes and goes on standard error; elsewhere nothing."""
        with bench_report.progress(3) as tell:
            tell(1)("sending", 0.5)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        with bench_report.progress(3) as tell:
            tell(2)("sending", 0.5)
        assert "run 2 of 3: sending" in capsys.readouterr().err


class TestMeter:
    def test_a_process(self) -> None:
        """Its CPU and memory; none of it once it is gone."""
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
            try:
                read = meter.of_processes({"nodes": [process.pid]})
                first = read()
                assert first is not None
                later = first
                while later["nodes"].cpu_s <= first["nodes"].cpu_s + 0.05:
                    later = read() or first
            finally:
                process.kill()
        assert 50_000 < (meter.cpu_between(first, later) or {})["nodes"] < 10_000_000
        assert later["nodes"].memory_bytes > 2**20
        with pytest.raises(meter.ServerEnded, match="see what it logged"):
            read()

    def test_no_proc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Elsewhere than on Linux nobody can tell."""
        monkeypatch.setattr("ring.bench.meter.sys.platform", "darwin")
        assert meter.of_processes({"nodes": [1]})() is None

    def test_readings_that_do_not_match(self) -> None:
        """A part that did not answer once, or a server that began anew, makes the difference unknown."""
        one, two = meter.Usage(1.0, 2048), meter.Usage(3.0, 4096)
        assert meter.cpu_between({"nodes": one}, {"nodes": two}) == {"nodes": 2e6}
        assert meter.memory_between({"nodes": one}, {"nodes": two}) == {"nodes": 2.0}
        for before, after in ((None, {"nodes": two}), ({"nodes": two}, {"nodes": one}), ({}, {})):
            assert meter.cpu_between(before, after) is None
        nothing: tuple[meter.Reading | None, ...] = (None, {})
        for other in nothing:
            assert meter.cpu_between({"nodes": one}, other) is None
            assert meter.memory_between({"nodes": one}, other) is None

    @pytest.mark.parametrize(
        ("answer", "usage"),
        [
            (httpx.Response(200, text=METRICS), meter.Usage(1.5, 2048)),
            (httpx.Response(200, text=METRICS.partition("\n")[0]), None),
            (httpx.Response(200, text=METRICS.replace("2048", "many")), None),
            (httpx.Response(401, text=METRICS), None),
            (httpx.ConnectError("nobody is there"), None),
        ],
    )
    def test_what_nodes_tell(
        self, answer: httpx.Response | httpx.ConnectError, usage: meter.Usage | None
    ) -> None:
        """CPU and memory, by their /metrics; what is none of that is unknown."""

        def node(request: httpx.Request) -> httpx.Response:
            assert request.url == "http://n1.test:7001/metrics"
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def read() -> meter.Usage | None:
            async with httpx.AsyncClient(transport=httpx.MockTransport(node)) as http:
                return await bench_target._read_metrics(http, "http://n1.test:7001")

        assert trio.run(read) == usage


class TestLocal:
    @contextmanager
    def command(self, monkeypatch: pytest.MonkeyPatch, code: str) -> Iterator[None]:
        """Something else in place of `ring dev`."""
        monkeypatch.setattr("ring.bench.local._COMMAND", (sys.executable, "-c", code))
        yield

    def test_one_that_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is an error that says where to look."""
        with (
            self.command(monkeypatch, "print('{}')"),
            pytest.raises(local.NoCluster, match="did not start"),
            local_cluster(1),
        ):
            pass

    def test_one_that_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is given up, and killed if it does not end."""
        started: list[subprocess.Popen[bytes]] = []

        class Recorded(subprocess.Popen[bytes]):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                started.append(self)

        monkeypatch.setattr("ring.bench.local.subprocess.Popen", Recorded)
        monkeypatch.setattr("ring.bench.local.START_S", 0.2)
        monkeypatch.setattr("ring.bench.local.STOP_S", 0.2)
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its child ignores it too, from the first
        try:
            with (
                self.command(monkeypatch, "import signal; signal.pause()"),
                pytest.raises(local.NoCluster, match="was not ready"),
                local_cluster(1),
            ):
                pass
        finally:
            signal.signal(signal.SIGTERM, before)
        assert [process.returncode for process in started] == [-signal.SIGKILL]

    def test_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is measured for others to see runs with the defaults."""
        monkeypatch.setenv("RING_LOG_LEVEL", "debug")
        assert "RING_LOG_LEVEL" not in local.environment_without_ring()


def test_a_redis_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is an error, in one line."""
    from ring.bench import store

    monkeypatch.setattr(store, "ANSWER_S", 0.3)
    with pytest.raises(store.StoreSilent, match=r"no answer from Redis at 127\.0\.0\.1:1"):
        trio.run(store.read_info, "redis://127.0.0.1:1/0")
    with (
        pytest.raises(store.StoreSilent, match=r"no answer from Redis at 127\.0\.0\.1:1"),
        watching("redis://127.0.0.1:1/0", "dev"),
    ):
        pytest.fail("nothing can be seen")
