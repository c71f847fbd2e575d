"""Bars of shares beside what would be fair: as cells of a terminal, and as SVG. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from unicodedata import east_asian_width

ROW = 20
"""Pixels from bar to bar."""

PLOT = 480
"""Pixels that the longest bar may take."""

LETTER = 7.3
"""Pixels of a letter of 12 px at most, in the fonts that there are; those of East Asia take two."""

MARGIN = 16

MOST_TICKS = 8

_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class Bar:
    """What one node has, and should have, of the whole (1.0)."""

    name: str
    share: float
    fair: float
    bound: float
    """It should have this at most."""
    figures: str
    """In words, for the end of the bar."""

    @property
    def over(self) -> bool:
        """It has more than it should."""
        return self.share > self.bound


def reach_of(bars: Sequence[Bar]) -> float:
    """What the whole width stands for: nothing that is drawn is more."""
    return max([*(max(bar.share, bar.bound) for bar in bars), 1e-9])


def pieces(bar: Bar, reach: float, width: int, *, ascii_only: bool = False) -> list[tuple[str, str]]:
    """A bar of `width` cells in pieces, with what each is: `bar`, `over`, `fair`, `bound` or, empty, ""."""
    full, fair_mark, bound_mark = ("#", "|", ":") if ascii_only else ("█", "│", "┊")
    length = bar.share / reach * width
    drawn = [(full, "over" if bar.over else "bar")] * int(length)
    if not ascii_only and (part := int(length % 1 * 8)):
        drawn.append((_EIGHTHS[part], "over" if bar.over else "bar"))
    drawn += [(" ", "")] * (width - len(drawn))
    for share, mark, kind in ((bar.bound, bound_mark, "bound"), (bar.fair, fair_mark, "fair")):
        if share:
            drawn[min(width - 1, int(share / reach * width))] = (mark, kind)
    return [
        ("".join(cell for cell, _ in run_of), kind)
        for kind, run_of in groupby(drawn, key=lambda cell: cell[1])
    ]


_STYLE = """
svg { font: 12px system-ui, sans-serif; }
text { fill: #1f2328; } .dim { fill: #59636e; } .title { font-size: 15px; font-weight: 600; }
.figures { font-variant-numeric: tabular-nums; } .page { fill: #ffffff; }
.grid { stroke: #d1d9e0; } .bar { fill: #4493d8; } .over { fill: #cf222e; }
.fair { stroke: #1f2328; stroke-width: 2; }
.bound { stroke: #9a6700; stroke-width: 2; stroke-dasharray: 3 2; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; } .dim { fill: #9198a1; } .page { fill: #0d1117; }
.grid { stroke: #3d444d; } .bar { fill: #2f6fb2; } .over { fill: #f85149; }
.fair { stroke: #f0f6fc; } .bound { stroke: #d29922; }
}
"""


def svg(title: str, summary: str, bars: Sequence[Bar]) -> str:
    """The bars as a document of their own, that needs nothing else: no font, no script.

    Args:
        title: above the bars.
        summary: below the title, and what a screen reader is told first.
        bars: from above.
    """
    reach = reach_of(bars)
    left = MARGIN + max([_pixels(bar.name) for bar in bars], default=0) + 8
    top = MARGIN + 66
    bottom = top + ROW * len(bars)
    right = left + PLOT + 10 + max([_pixels(bar.figures) for bar in bars], default=0)
    width = MARGIN + max(right, MARGIN + _pixels(summary), MARGIN + _pixels(title) * 1.3)
    height = bottom + 28 + MARGIN
    size = f'width="{width:.0f}" height="{height}" viewBox="0 0 {width:.0f} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title summary">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="summary">{escape(summary)}</desc>',
        f"<style>{_STYLE}</style>",
        '<rect class="page" width="100%" height="100%"/>',
        f'<text class="title" x="{MARGIN}" y="{MARGIN + 14}">{escape(title)}</text>',
        f'<text class="dim" x="{MARGIN}" y="{MARGIN + 34}">{escape(summary)}</text>',
        *_legend(left, MARGIN + 54),
        *_axis(reach, left, top, bottom),
    ]
    for number, bar in enumerate(bars):
        lines += _row(bar, reach, left, top + ROW * number)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _row(bar: Bar, reach: float, left: float, top: float) -> list[str]:
    scale = PLOT / reach
    text = top + 14
    marks = [
        f'<line class="{mark}" x1="{x:.1f}" y1="{top + 1}" x2="{x:.1f}" y2="{top + ROW - 1}"/>'
        for mark, share in (("bound", bar.bound), ("fair", bar.fair))
        if share
        for x in [left + share * scale]
    ]
    kind = "over" if bar.over else "bar"
    size = f'width="{bar.share * scale:.1f}" height="{ROW - 6}"'
    told = f"{bar.name}: {bar.figures}; fair {bar.fair:.1%}, at most {bar.bound:.1%}"
    return [
        f"<g><title>{escape(told)}</title>",
        f'<text x="{left - 8:.1f}" y="{text}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect class="{kind}" x="{left:.1f}" y="{top + 3}" {size} rx="2"/>',
        *marks,
        f'<text class="figures dim" x="{left + PLOT + 10:.1f}" y="{text}">{escape(bar.figures)}</text>',
        "</g>",
    ]


def _axis(reach: float, left: float, top: float, bottom: float) -> list[str]:
    lines = []
    step = _step(reach * 100)
    for number in range(int(reach * 100 / step) + 1):
        x = left + number * step / 100 / reach * PLOT
        lines += [
            f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom + 4}"/>',
            f'<text class="dim" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{number * step:g}%</text>',
        ]
    return lines


def _step(most: float) -> float:
    """A round number of which at most `MOST_TICKS` go into `most`."""
    power = 10.0 ** math.floor(math.log10(most / MOST_TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= MOST_TICKS)


def _legend(left: float, y: float) -> list[str]:
    lines = []
    for kind, x, words in (("fair", left, "fair share"), ("bound", left + 90, "bound, 1.05 of it")):
        lines += [
            f'<line class="{kind}" x1="{x + 2:.1f}" y1="{y - 12}" x2="{x + 2:.1f}" y2="{y + 2}"/>',
            f'<text class="dim" x="{x + 9:.1f}" y="{y}">{words}</text>',
        ]
    return lines


def _pixels(text: str) -> float:
    return LETTER * sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
