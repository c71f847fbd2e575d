"""A cluster as `ring status` shows it to people. Imported when there is one to show: rich loads slowly."""

from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.text import Text

from ring.cli.printable import printable
from ring.cli.sheet import Column, fit, per_cent, sheet
from ring.cli.survey import NodeReport, Survey


class Picture:
    """A survey, to be printed.

    Args:
        found: what was found out.
        terminal: where.
    """

    def __init__(self, found: Survey, terminal: Console) -> None:
        asked = "its nodes" if found.source == "nodes" else "Redis alone"
        nodes = "1 node" if len(found.nodes) == 1 else f"{len(found.nodes)} nodes"
        self.title = Text(
            printable(f"cluster {found.cluster}, epoch {found.epoch}, {nodes}, as told by {asked}")
        )
        self.table = sheet(fit(_columns(found.nodes), terminal.width), terminal)
        self.total = Text(_total(found))
        self.warnings = [warning_line(warning) for warning in found.warnings]

    def show(self, terminal: Console) -> None:
        """Prints it below what was printed before."""
        for part in (self.title, "", self.table, self.total, *self.warnings):
            terminal.print(part, soft_wrap=isinstance(part, Text))

    def screen(self, trouble: str | None) -> list[RenderableType]:
        """Its lines on a screen of their own, the table last: of many nodes it may be cut."""
        above = self.warnings if trouble is None else [warning_line(trouble)]
        return [self.title, self.total, *above, "", self.table]


def warning_line(text: str) -> Text:
    """As it is shown."""
    return Text(f"warning: {printable(text)}", style="yellow")


def _columns(nodes: list[NodeReport]) -> list[Column]:
    def each(what: Callable[[NodeReport], object]) -> list[object]:
        return [what(node) for node in nodes]

    return [
        Column("node", each(lambda node: node.name), right=False),
        Column("state", each(lambda node: node.state), right=False),
        Column("weight", each(lambda node: node.weight), rank=5),
        Column("slots", each(lambda node: node.slots), rank=6),
        Column("share", each(lambda node: per_cent(node.share))),
        Column("sessions", each(lambda node: node.sessions)),
        Column("off-owner", each(lambda node: _part(node.off_owner, node.sessions)), rank=3),
        Column("links", each(lambda node: _links(node.links_up, len(nodes) - 1))),
        Column("lag", each(lambda node: _amount(node.lag_ms, "ms")), rank=1),
        Column("lease", each(lambda node: _amount(node.lease_age_s, "s"))),
        Column("redis", each(lambda node: _redis(node.degraded)), right=False),
        Column("epoch", each(lambda node: node.epoch), rank=2),
        Column("version", each(lambda node: node.version), rank=4, right=False),
        Column("edge", each(lambda node: node.edge), rank=7, right=False),
    ]


def _links(up: int | None, others: int) -> str | None:
    return None if up is None else f"{up}/{others}"


def _amount(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:.1f} {unit}"


def _part(some: int | None, of: int | None) -> str | None:
    """Per cent; nothing of nothing is none of it."""
    if some is None or of is None:
        return None
    return per_cent(some / of if of else 0.0)


def _redis(degraded: list[str] | None) -> str | None:
    if degraded is None:
        return None
    return "frozen" if "frozen" in degraded else "away" if "redis" in degraded else "ok"


def _total(found: Survey) -> str:
    total = found.total
    if not total.of:
        return "total: ? sessions, ? users, ? off their owner: no node was asked"
    least = "" if total.of == len(found.nodes) else "at least "
    sessions = "1 session" if total.sessions == 1 else f"{total.sessions} sessions"
    users = "1 user" if total.users == 1 else f"{total.users} users"
    return f"total: {least}{sessions}, {users}, {_part(total.off_owner, total.sessions)} off their owner"
