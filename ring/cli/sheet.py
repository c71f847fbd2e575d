"""Tables for people: as many of their columns as the terminal has room for.

What is in them was said by others: it is no markup, and commands no terminal. Imported by the commands that
print, inside of them: rich loads slowly.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ring.cli.printable import printable

PLAIN_WIDTH = 1_000_000
"""Columns where standard output is no terminal: nothing is cut, and no line is folded."""

GAP = 2
"""Blanks between columns."""

UNKNOWN = "?"

LEAST_NAME = 8
"""So many letters of a node's name are left, if the terminal is as narrow as that."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; where there is no room, those of the highest `rank` are left out first, those of 0 never."""

    head: str
    cells: Sequence[object]
    rank: int = 0
    right: bool = True

    @property
    def texts(self) -> list[Text]:
        """The cells as they are shown: None is unknown."""
        return [
            cell if isinstance(cell, Text) else Text(UNKNOWN if cell is None else printable(str(cell)))
            for cell in self.cells
        ]

    @property
    def width(self) -> int:
        """In cells of the terminal."""
        return max([cell_len(self.head), *(text.cell_len for text in self.texts)])


def console() -> Console:
    """The terminal, or whatever standard output is; plain text alone goes to what is no terminal."""
    return Console(
        highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH
    )


def fit(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that have room side by side."""
    chosen = list(columns)
    while width_of(chosen) > width and any(column.rank for column in chosen):
        chosen.remove(max(chosen, key=lambda column: column.rank))
    return chosen


def width_of(columns: Sequence[Column]) -> int:
    """Of all of them side by side."""
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def sheet(columns: Sequence[Column], terminal: Console) -> Table:
    """The columns as a table, with a line per cell; those on the left are cut if all are too wide."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    over = max(0, width_of(columns) - terminal.width)
    for column in columns:
        own = column.width
        if not column.right and over:
            own = max(min(own, LEAST_NAME), own - over)
            over -= column.width - own
        table.add_column(
            Text(column.head),
            justify="right" if column.right else "left",
            width=own,
            no_wrap=True,
            overflow="crop" if terminal.options.ascii_only else "ellipsis",
        )
    for row in zip(*(column.texts for column in columns), strict=True):
        table.add_row(*row)
    return table


def per_cent(share: float | None) -> str | None:
    """A share as it is shown."""
    return None if share is None else f"{share:.1%}"
