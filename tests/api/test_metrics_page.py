"""The page of metrics, of numbers that the test makes up."""

import os
import sys
from collections.abc import Iterable

import httpx
import pytest
import trio
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from ring.api.metrics import Distribution, Exposition, Metric, Reading
from tests.api.test_app import KEY, Facts, served

PLAIN = Metric("ring_users", "gauge", "users here", (), "clients")
LABELLED = Metric("ring_ends_total", "counter", "ends, by code", ("code", "by"), "clients")
TIMES = Metric("ring_tick_seconds", "histogram", "time of a tick", (), "pump")

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def readings() -> Iterable[Reading]:
    """One of each kind."""
    yield PLAIN, 3
    yield LABELLED, {("1000", "us"): 7, ("1006", ""): 0}
    yield TIMES, Distribution((0.001, 0.5), [4, 2, 1], 1.25)


def samples(page: bytes) -> dict[str, float]:
    """All samples, as they are written."""
    lines = [line for line in page.decode().splitlines() if line.startswith("ring_")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


class TestPage:
    def test_each_kind(self) -> None:
        """A number, numbers by labels, and a histogram whose buckets add up."""
        page, content_type = Exposition(readings).page("")
        assert content_type.startswith("text/plain; version=0.0.4")
        assert samples(page) == {
            "ring_users": 3,
            'ring_ends_total{by="us",code="1000"}': 7,
            'ring_ends_total{by="",code="1006"}': 0,
            'ring_tick_seconds_bucket{le="0.001"}': 4,
            'ring_tick_seconds_bucket{le="0.5"}': 6,
            'ring_tick_seconds_bucket{le="+Inf"}': 7,
            "ring_tick_seconds_count": 7,
            "ring_tick_seconds_sum": 1.25,
        }

    def test_what_it_says_of_them(self) -> None:
        """Kind and help of each."""
        page = Exposition(readings).page("")[0].decode()
        families = {family.name: family for family in text_string_to_metric_families(page)}
        assert (families["ring_users"].type, families["ring_users"].documentation) == ("gauge", "users here")
        assert families["ring_ends"].type == "counter"
        assert families["ring_tick_seconds"].type == "histogram"

    @pytest.mark.parametrize(
        ("accept", "content_type"),
        [
            ("", "text/plain"),
            ("*/*", "text/plain"),
            ("text/plain;version=0.0.4", "text/plain"),
            (OPENMETRICS, "application/openmetrics-text; version=1.0.0"),
            ("application/openmetrics-text", "application/openmetrics-text"),
        ],
    )
    def test_the_scraper_chooses(self, accept: str, content_type: str) -> None:
        """OpenMetrics where it is asked for, and it is valid; else the text that everybody reads."""
        page, got = Exposition(readings).page(accept)
        assert got.startswith(content_type)
        if "openmetrics" in content_type:
            names = {family.name for family in openmetrics.text_string_to_metric_families(page.decode())}  # type: ignore[no-untyped-call] # theirs
            assert {"ring_users", "ring_ends", "ring_tick_seconds"} <= names

    def test_it_is_read_anew(self) -> None:
        """With each scrape, and not before."""
        users = iter((1, 2))
        exposition = Exposition(lambda: [(PLAIN, next(users))])
        assert [samples(exposition.page("")[0])["ring_users"] for _ in range(2)] == [1, 2]

    def test_several_nodes_in_one_process(self) -> None:
        """Each has its own numbers, in a registry of its own."""
        pages = [Exposition(lambda count=count: [(PLAIN, count)]).page("")[0] for count in (1, 2)]  # type: ignore[misc] # bound now
        assert [samples(page)["ring_users"] for page in pages] == [1, 2]

    @pytest.mark.skipif(sys.platform != "linux", reason="prometheus_client reads /proc")
    def test_the_process(self) -> None:
        """What it costs, for those who measure: CPU, memory, descriptors."""
        page = Exposition(list).page("")[0].decode()
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }
        times = os.times()
        assert values["process_cpu_seconds_total"] == pytest.approx(times.user + times.system, abs=0.5)
        assert values["process_resident_memory_bytes"] > 10_000_000
        assert 3 <= values["process_open_fds"] < values["process_max_fds"]


class TestPath:
    async def test_it_needs_no_key(self) -> None:
        """A scraper has none; what it sees holds no names."""
        async with served(Facts(), KEY) as http:
            response = await http.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "ring_things_total 3.0" in response.text

    async def test_openmetrics(self) -> None:
        """By the header of the request."""
        async with served(Facts()) as http:
            response = await http.get("/metrics", headers={"Accept": OPENMETRICS})
        assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0;")
        assert response.text.endswith("# EOF\n")

    async def test_a_node_that_is_joining(self) -> None:
        """It has metrics, too."""
        async with served(Facts(state="joining", view=None)) as http:
            assert (await http.get("/metrics")).status_code == 200

    async def test_many_scrapers(self) -> None:
        """Each gets a whole page."""
        pages: list[httpx.Response] = []

        async def scrape(http: httpx.AsyncClient) -> None:
            pages.append(await http.get("/metrics"))

        async with served(Facts()) as http, trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(scrape, http)
        assert [(page.status_code, "ring_things_total 3.0" in page.text) for page in pages] == [
            (200, True)
        ] * 8
