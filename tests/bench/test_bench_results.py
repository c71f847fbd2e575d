"""Percentiles, what several runs come to, and the picture of them."""

from xml.etree import ElementTree as ET

import pytest

from ring.bench.ledger import Tally
from ring.bench.meter import Spent
from ring.bench.plot import plot
from ring.bench.results import Latency, Run, Spread, make_run, percentile, summary

MS = 1_000_000


def run(cpu_us: dict[str, float] | None = None, *, done: int = 10, lost: int = 0, ms: int = 1) -> Run:
    """A run of a second."""
    return make_run(
        Tally(sent=done, delivered=done, lost=lost),
        done=done,
        spent=Spent(seconds=1.0, cpu_us=cpu_us, own_cpu_s=0.5),
        latencies={"one_way": Latency.of([ms * MS]), "receipt": None},
    )


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.01, 1), (0.07, 7), (0.5, 50), (0.9, 90), (0.999, 100), (1.0, 100)]
)
def test_percentiles_are_values_that_occurred(share: float, expected: int) -> None:
    """By nearest rank, of a hundred values."""
    assert percentile(range(1, 101), share) == expected


def test_latency() -> None:
    """In milliseconds, whatever the order; nothing of nothing."""
    assert Latency.of([]) is None
    values = [3 * MS] * 9 + [90 * MS] + [1 * MS] * 10
    assert Latency.of(values) == Latency(p50=1.0, p90=3.0, p99=90.0, p99_9=90.0, max=90.0)


def test_a_run_is_per_thing_done() -> None:
    """What the servers spent, and the load itself; a run in which nothing was done is no division by zero."""
    measured = run({"nodes": 100.0, "redis": 20.0})
    assert measured.cpu_us == {"nodes": 10.0, "redis": 2.0}
    assert measured.cpu_total_us == 12.0
    assert (measured.generator_us, measured.generator_share, measured.per_s) == (50_000.0, 0.5, 10.0)
    assert run(done=0).per_s == 0


def test_what_is_unknown_stays_so() -> None:
    """Redis alone is no total, and a median of runs of which one is unknown is unknown."""
    assert run(None).cpu_total_us is None
    assert run({"redis": 1.0}).cpu_total_us is None
    assert Spread.of([1.0, None]) is None
    assert Spread.of([]) is None
    found = summary([run({"nodes": 100.0}), run(None)])
    assert "cpu_us" not in found
    assert "cpu_us.nodes" not in found


def test_faults_are_named() -> None:
    """Errors among them."""
    measured = run(lost=2)
    measured.errors["busy"] = 1
    assert measured.faults == {"lost": 2, "error busy": 1}
    assert run().faults == {}


def test_summary() -> None:
    """Medians and ranges of every figure, by a dotted name."""
    found = summary([run({"nodes": us}, ms=ms) for us, ms in ((100.0, 1), (120.0, 5), (90.0, 3))])
    assert found["cpu_us.nodes"] == found["cpu_us"] == Spread(10.0, 9.0, 12.0)
    assert found["one_way_ms.p50"] == Spread(3.0, 1.0, 5.0)
    assert found["per_s"] == Spread(10.0, 10.0, 10.0)


def test_a_figure_that_one_run_lacks() -> None:
    """Has no median: nothing arrived in that run."""
    empty = run(done=0)
    empty.latency_ms.clear()
    assert "one_way_ms.p50" not in summary([run(), empty])


@pytest.mark.parametrize("values", [(0.2, 900.0), (1.0, 1.0), (0.0, 0.0)])
def test_the_picture(values: tuple[float, float]) -> None:
    """Well-formed SVG with a line for each run, inside its frame; names escaped; for dark grounds too."""
    low, high = values
    lines = {f"run <{index}>": Latency(low, low, high, high, high) for index in range(7)}
    text = plot("a & b", lines)
    svg = ET.fromstring(text)
    name = "{http://www.w3.org/2000/svg}"
    drawn = svg.findall(f"{name}polyline")
    assert len(drawn) == len({(each.get("stroke"), each.get("stroke-dasharray")) for each in drawn}) == 7
    for line in drawn:
        points = [point.split(",") for point in str(line.get("points")).split()]
        assert len(points) == 5
        assert all(0 < float(x) < 640 and 0 < float(y) < 360 for x, y in points)
        assert (float(points[0][1]) > float(points[-1][1])) == (low < high), "longer is higher"
    assert "run <6>" in [each.text for each in svg.findall(f"{name}text")]
    assert svg.findtext(f"{name}title") == "a & b"
    assert "prefers-color-scheme: dark" in text
