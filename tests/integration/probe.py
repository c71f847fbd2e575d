"""Watches the metrics of one node from outside, by HTTP, as Prometheus does."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families

from ring.node import Node

DEADLINE_S = 30.0  # for a number to get where it should, on a machine that is busy with other things
LOOK_S = 0.02

Page = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Probe:
    """One node's metrics, against what they were at the last `mark`; `moved` are those that it saw move."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.moved: set[str] = set()
        self.page: Page = {}
        self._http = http

    async def look(self) -> Page:
        """All samples, by name and labels."""
        response = await self._http.get("/metrics")
        assert response.status_code == 200
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    async def mark(self) -> None:
        """From here on it is looked for what changes."""
        self.page = await self.look()

    async def grows(self, name: str, amount: float | None = None, /, **labels: str) -> None:
        """Returns once a number has grown since the mark: by so much, or at all."""

        def grown(value: float, before: float) -> bool:
            return value > before if amount is None else value == before + amount

        await self._until(name, labels, grown)

    async def becomes(self, name: str, value: float, /, **labels: str) -> None:
        """Returns once a number that was another at the mark is this one."""
        await self._until(name, labels, lambda now, before: now == value != before)

    async def exceeds(self, name: str, value: float, /, **labels: str) -> None:
        """Returns once a number that was not above this one at the mark is."""
        await self._until(name, labels, lambda now, before: now > value >= before)

    async def shows(self, name: str, value: float, /, **labels: str) -> None:
        """A number that does not change is this one."""
        assert (await self.look())[_key(name, labels)] == value
        self.moved.add(f"ring_{name}")

    async def _until(
        self, name: str, labels: dict[str, str], condition: Callable[[float, float], bool]
    ) -> None:
        key = _key(name, labels)
        before = self.page.get(key, 0.0)
        value = None
        try:
            with trio.fail_after(DEADLINE_S):
                while True:
                    value = (await self.look()).get(key)
                    if value is not None and condition(value, before):
                        break
                    await trio.sleep(LOOK_S)  # a page tells of no events: it is looked at again
        except trio.TooSlowError:
            raise AssertionError(f"{name}{labels or ''} was {before}, is {value}") from None
        for end in ("_count", "_sum"):
            name = name.removesuffix(end)
        self.moved.add(f"ring_{name}")


def _key(name: str, labels: dict[str, str]) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"ring_{name}", frozenset(labels.items())


@asynccontextmanager
async def probing(node: Node, *names: str) -> AsyncIterator[Probe]:
    """A probe of a node; the block must see just these metrics (without `ring_`) move."""
    async with httpx.AsyncClient(base_url=f"http://{node.addresses['api']}", trust_env=False) as http:
        probe = Probe(http)
        await probe.mark()
        yield probe
    assert probe.moved == {f"ring_{name}" for name in names}
