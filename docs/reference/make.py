"""Makes what follows from the code: `make docs`. With `--check` it only compares.

The table in configuration.md comes from ring/config.py; the tables in metrics.md, and docs/grafana/ring.json,
from ring/telemetry/table.py.
"""

import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from dashboard import dashboard

from ring.api.metrics import Metric
from ring.config import OPTIONS
from ring.option import Option
from ring.telemetry.table import METRICS

HERE = Path(__file__).parent
CONFIGURATION = HERE / "configuration.md"
METRICS_PAGE = HERE / "metrics.md"
DASHBOARD = HERE.parent / "grafana" / "ring.json"

_TABLE = re.compile(r"(<!-- the table .*? -->\n).*?(<!-- end of the table -->\n)", re.DOTALL)


def options() -> str:
    """All options, as the page shows them."""
    return "| option | value | default | |\n|---|---|---|---|\n" + "".join(map(_option, OPTIONS))


def _option(option: Option) -> str:
    if option.required:
        default = "must be given"
    elif option.default in (None, ()):
        default = "none"
    else:
        default = f"`{str(option.default).lower() if option.plain is bool else option.default}`"
    return f"| `{option.name}` | {option.expects} | {default} | {option.help} |\n"


def metrics() -> str:
    """All metrics, as the page shows them: a table for each group."""
    tables = []
    for group, rows in groupby(METRICS, lambda metric: metric.group):
        head = (
            f"\n### {group.capitalize()}\n\n| metric | kind | labels | what it tells |\n|---|---|---|---|\n"
        )
        tables.append(head + "".join(map(_metric, rows)))
    return "".join(tables) + "\n"


def _metric(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n"


def _with_table(page: Path, table: str) -> str:
    text, found = _TABLE.subn(lambda match: match[1] + table + match[2], page.read_text("utf-8"))
    if not found:
        sys.exit(f"{page.name} has lost the marks around its table")
    return text


def pages() -> Iterator[tuple[Path, str]]:
    """Each file, and what it should be."""
    yield CONFIGURATION, _with_table(CONFIGURATION, options())
    yield METRICS_PAGE, _with_table(METRICS_PAGE, metrics())
    yield DASHBOARD, dashboard()


def main(*, check: bool) -> None:
    """Writes the files anew, or exits 1 if one is not what it should be."""
    for page, content in pages():
        if not check:
            page.write_text(content, "utf-8")
        elif not page.exists() or page.read_text("utf-8") != content:
            sys.exit(f"{page.name} is not what the code says: run make docs")


if __name__ == "__main__":
    main(check="--check" in sys.argv[1:])
