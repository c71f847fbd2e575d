"""The table of metrics, and what is made of it: names that Prometheus likes, a page, a dashboard."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ring.api.metrics import Metric
from ring.telemetry.table import METRICS

DOCS = Path(__file__).parents[2] / "docs"
LABELS = {
    "by",
    "cluster",
    "code",
    "direction",
    "kind",
    "node",
    "outcome",
    "owner",
    "peer",
    "python",
    "reason",
    "state",
    "status",
    "use",
    "version",
    "what",
}
"""All that there are: each has few values, and none is a user, a device, a room or an address."""


def dashboard() -> Any:
    """What is imported into Grafana."""
    return json.loads((DOCS / "grafana/ring.json").read_text("utf-8"))


def panels() -> list[Any]:
    """Its panels, without the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def named(text: str) -> set[str]:
    """The metrics that a text of PromQL names."""
    histograms = {metric.name for metric in METRICS if metric.kind == "histogram"}
    names = set(re.findall(r"\b((?:ring|process)_\w+)", text))
    return {
        next(
            (name for name in histograms if found.removeprefix(name) in ("_bucket", "_sum", "_count")), found
        )
        for found in names
    }


class TestNames:
    @pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
    def test_a_metric(self, metric: Metric) -> None:
        """A prefix, base units, `_total` for counters alone; a help of one line; known labels."""
        assert re.fullmatch(r"ring_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not re.search(r"_(ms|milliseconds|kib|percent|count|sum|bucket|created)\b", metric.name)
        assert metric.help
        assert "\n" not in metric.help
        assert "|" not in metric.help, "it would break the page's table"
        assert not metric.help.endswith(".")
        assert set(metric.labels) <= LABELS

    def test_no_two_are_the_same(self) -> None:
        """Nor do they differ by what Prometheus adds."""
        stems = [metric.name.removesuffix("_total") for metric in METRICS]
        assert len(stems) == len(set(stems))

    def test_no_label_is_left_over(self) -> None:
        """The list above is that of the table."""
        assert {label for metric in METRICS for label in metric.labels} == LABELS


class TestDashboard:
    def test_it_shows_what_there_is(self) -> None:
        """Every expression names metrics that exist, and every metric is shown."""
        shown = set()
        for panel in panels():
            for target in panel["targets"]:
                names = named(target["expr"])
                assert names, target["expr"]
                shown |= names
        known = {metric.name for metric in METRICS}
        assert {name for name in shown if name.startswith("ring_")} == known
        page = (DOCS / "reference/metrics.md").read_text("utf-8")
        assert all(f"`{name}`" in page for name in shown)

    def test_counters_are_shown_as_rates(self) -> None:
        """And nothing else is: a gauge has none."""
        counters = {metric.name for metric in METRICS if metric.kind != "gauge"}
        for panel in panels():
            for target in panel["targets"]:
                for name in named(target["expr"]):
                    in_rate = re.search(rf"rate\({name}\w*\{{", target["expr"]) is not None
                    assert in_rate == (name in counters or name == "process_cpu_seconds_total"), target[
                        "expr"
                    ]

    def test_labels_are_those_of_the_metric(self) -> None:
        """What an expression groups by, or a legend shows, is there."""
        known = {metric.name: {"instance", "le", *metric.labels} for metric in METRICS}
        for panel in panels():
            for target in panel["targets"]:
                used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                for group in re.findall(r"by \(([^)]+)\)", target["expr"]):
                    used |= set(group.split(", "))
                for name in named(target["expr"]) & known.keys():
                    assert used <= known[name], (name, used)

    def test_everything_is_chosen_by_variables(self) -> None:
        """The data source and the nodes: none is written down."""
        variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
        assert [variable["type"] for variable in variables.values()] == ["datasource", "query", "query"]
        assert variables.keys() == {"datasource", "cluster", "node"}
        for panel in panels():
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            for target in panel["targets"]:
                assert target["datasource"] == panel["datasource"]
                selectors = re.findall(r"\w+\{([^}]*)\}", target["expr"])
                assert selectors
                assert all('instance=~"$node"' in selector for selector in selectors)

    def test_panels_do_not_overlap(self) -> None:
        """Each has its number and its place in Grafana's grid of 24 columns, below the row it belongs to."""
        everything = dashboard()["panels"]
        assert [panel["id"] for panel in everything] == list(range(1, len(everything) + 1))
        cells: set[tuple[int, int]] = set()
        for panel in everything:
            place = panel["gridPos"]
            mine = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & mine
            assert max(x for x, _ in mine) < 24
            cells |= mine

    def test_its_rows(self) -> None:
        """One for each group of the table."""
        rows = [panel["title"].lower() for panel in dashboard()["panels"] if panel["type"] == "row"]
        assert sorted(rows) == sorted({metric.group for metric in METRICS})


def test_the_alerts_name_what_there_is() -> None:
    """The page that tells how to observe a cluster speaks of no other metrics."""
    text = (DOCS / "how-to/observe.md").read_text("utf-8")
    names = named(text)
    assert len(names) >= 6
    assert names <= {metric.name for metric in METRICS}
    assert text.count("- alert:") == 6
