"""`/metrics`: what a node counts, in Prometheus' text format or OpenMetrics, as the scraper asks for.

`ring.telemetry` has the table of metrics and reads plain numbers; here they become a page. Nothing is kept
between two scrapes, and each node has a registry of its own: several may run in one process.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector


class Metric(NamedTuple):
    """A row of the table of metrics.

    Attributes:
        name: with `ring_` in front and the unit at the end; counters end in `_total`.
        help: what it tells, in one line.
        labels: names of the labels; their values are few, and never a user, a room or an address.
        group: where the page and the dashboard show it.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    group: str


class Distribution(NamedTuple):
    """What a histogram shows. `counts` are up to each bound and not up to the one before; the last is of the
    rest."""

    bounds: tuple[float, ...]
    counts: list[int]
    sum: float


Value = float | dict[tuple[str, ...], float] | Distribution
"""Of a metric without labels; with labels, by their values; of a histogram."""

Reading = tuple[Metric, Value]

Read = Callable[[], Iterable[Reading]]
"""Looks at all that is counted."""


class Exposition:
    """A node's page of metrics, those of its process included.

    Args:
        read: called with each scrape, on the scraper's own task.
    """

    def __init__(self, read: Read) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Node(read))
        ProcessCollector(registry=self._registry)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type, for the `Accept` of a request.

        On Trio's thread: some milliseconds. Another would hold the interpreter's lock against the pump.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Node(Collector):
    def __init__(self, read: Read) -> None:
        self._read = read

    def describe(self) -> list[Family]:
        """Nothing: it is asked for at registration, before there is anything to read."""
        return []

    def collect(self) -> Iterator[Family]:
        """Everything as it is now."""
        for metric, value in self._read():
            yield _family(metric, value)


def _family(metric: Metric, value: Value) -> Family:
    name, kind, text, labels, _ = metric
    if isinstance(value, Distribution):
        histogram = HistogramMetricFamily(name, text)
        histogram.add_metric([], list(_cumulated(value)), value.sum)
        return histogram
    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
    for label_values, number in value.items() if isinstance(value, dict) else [((), value)]:
        family.add_metric(label_values, number)
    return family


def _cumulated(value: Distribution) -> Iterator[tuple[str, float]]:
    count = 0
    for bound, more in zip((*map(str, value.bounds), "+Inf"), value.counts, strict=True):
        count += more
        yield bound, count
