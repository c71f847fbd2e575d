"""Makes the table in configuration.md from ring/config.py: `make docs`. With `--check` it only compares."""

import re
import sys
from pathlib import Path

from ring.config import OPTIONS, Option

PAGE = Path(__file__).with_name("configuration.md")

_TABLE = re.compile(r"(<!-- the table .*? -->\n).*?(<!-- end of the table -->\n)", re.DOTALL)


def table() -> str:
    """All options, as the page shows them."""
    return "| option | value | default | |\n|---|---|---|---|\n" + "".join(map(_row, OPTIONS))


def _row(option: Option) -> str:
    if option.required:
        default = "must be given"
    elif option.default in (None, ()):
        default = "none"
    else:
        default = f"`{str(option.default).lower() if option.plain is bool else option.default}`"
    return f"| `{option.name}` | {option.expects} | {default} | {option.help} |\n"


def main(*, check: bool) -> None:
    """Writes the page anew, or exits 1 if it is not what it should be."""
    old = PAGE.read_text("utf-8")
    new, found = _TABLE.subn(lambda match: match[1] + table() + match[2], old)
    if not found:
        sys.exit(f"{PAGE.name} has lost the marks around its table")
    if not check:
        PAGE.write_text(new, "utf-8")
    elif new != old:
        sys.exit(f"{PAGE.name} is not what ring/config.py says: run make docs")


if __name__ == "__main__":
    main(check="--check" in sys.argv[1:])
