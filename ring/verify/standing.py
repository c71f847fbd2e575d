"""What the nodes of a site say of themselves, and waiting for it. `Site` is one."""

from collections.abc import Callable, Iterable
from contextlib import suppress

import trio

from ring.verify.node import Report, SiteFailed, SiteNode
from ring.verify.server import Store

POLL_S = 0.05
"""HTTP tells a state, no event: so often it is asked for."""

STORED_S = 2.0
"""How long one look into Redis may take."""

Reports = dict[str, Report | None]


class Standing:
    """See the module. `nodes` and `store` are the site's."""

    def __init__(self) -> None:
        self.nodes: dict[str, SiteNode] = {}
        self.store: Store

    async def reports(self, names: Iterable[str] | None = None) -> Reports:
        """What these nodes say, or all, asked at once: on a busy machine one after the other takes a second.

        None of those that do not answer; of those that are down or frozen this is known without asking.
        """
        reports: Reports = {}

        async def ask(node: SiteNode) -> None:
            with suppress(SiteFailed):
                reports[node.name] = await node.report()

        async with trio.open_nursery() as nursery:
            for name in self.nodes if names is None else names:
                reports[name] = None
                node = self.nodes[name]
                if node.serves and not node.frozen:
                    nursery.start_soon(ask, node)
        return reports

    async def until(
        self,
        what: str,
        condition: Callable[[Report], bool],
        within_s: float,
        names: Iterable[str] | None = None,
        *,
        agreed: bool = False,
    ) -> float:
        """Returns once it holds on all of these nodes, or on all: after how many seconds.

        Args:
            what: names it, where it does not come about.
            condition: on a node's report.
            within_s: how long it may take.
            names: of the nodes.
            agreed: they have to be of one epoch, too.

        Raises:
            SiteFailed: it has not come about in time; says where.
        """
        began = trio.current_time()
        asked = list(self.nodes if names is None else names)
        reports: Reports = dict.fromkeys(asked)
        with trio.move_on_after(within_s):
            while True:
                reports = await self.reports(asked)
                answers = [report for report in reports.values() if report is not None]
                one = len({report.epoch for report in answers}) == 1 or not agreed
                if one and len(answers) == len(asked) and all(map(condition, answers)):
                    return trio.current_time() - began
                await trio.sleep(POLL_S)
        raise SiteFailed(f"not {what} within {within_s:g} s: {_told(reports)}")

    async def stays(
        self, what: str, condition: Callable[[Report], bool], for_s: float, names: Iterable[str]
    ) -> None:
        """Returns after so many seconds, in all of which, and at their end, it held on all of these nodes.

        Raises:
            SiteFailed: it has not.
        """
        asked = list(names)
        end = trio.current_time() + for_s
        while True:
            reports = await self.reports(asked)
            for name, report in reports.items():
                if report is None or not condition(report):
                    raise SiteFailed(f"{name} did not stay {what}: {_told(reports)}")
            if trio.current_time() >= end:
                return
            await trio.sleep(POLL_S)

    async def whole(self, within_s: float) -> float:
        """Returns once every node is up, linked with all, in one ring of all, and Redis knows that ring too:
        after how many seconds.

        Raises:
            SiteFailed: what is missing.
        """
        began = trio.current_time()
        missing = "nothing was seen"
        with trio.move_on_after(within_s):
            while True:
                missing = await self._missing()
                if not missing:
                    return trio.current_time() - began
                await trio.sleep(POLL_S)
        raise SiteFailed(f"not whole within {within_s:g} s: {missing}")

    async def _missing(self) -> str:
        """What keeps the cluster from being whole; "" if nothing does."""
        reports = await self.reports()
        lives: dict[str, str] = {}
        for name, report in reports.items():
            if report is None:
                return self._why_silent(self.nodes[name])
            if (report.status, report.state, report.degraded) != (200, "up", []):
                return f"{name} is {report.state} {' '.join(report.degraded)}".rstrip()
            lives[name] = report.members.get(name, "")
        epochs = set()
        for name, report in reports.items():
            assert report is not None
            if report.members != lives or not all(report.slots.values()):
                return f"{name} knows a ring of {report.slots or 'nobody'}"
            if unlinked := [other for other, link in report.links.items() if link != "up"]:
                return f"{name} has no link to {', '.join(unlinked)}"
            epochs.add(report.epoch)
        if len(epochs) > 1:
            return f"the epochs differ: {_told(reports)}"
        with trio.move_on_after(STORED_S):
            stored = (await self.store.read()).view
            if (set(stored.names), {stored.epoch}) == (set(lives), epochs):
                return ""
            return f"Redis knows a ring of {', '.join(stored.names) or 'nobody'} in epoch {stored.epoch}"
        return "Redis does not answer"

    @staticmethod
    def _why_silent(node: SiteNode) -> str:
        if node.process.alive:
            return f"{node.name} does not answer"
        return (
            f"{node.name} has ended with code {node.process.process.returncode}: {node.process.last_words()}"
        )


def _told(reports: Reports) -> str:
    return "; ".join(
        f"{name} "
        + (
            "does not answer"
            if report is None
            else f"is {report.state} {' '.join(report.degraded)} in epoch {report.epoch} with "
            + (", ".join(report.members) or "nobody")
        )
        for name, report in reports.items()
    )
