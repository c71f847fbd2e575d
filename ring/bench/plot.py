"""Latencies of several runs as a picture: SVG by hand, readable on light and on dark ground."""

import math
from collections.abc import Mapping
from xml.sax.saxutils import escape

from ring.bench.results import STEPS, Latency

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 44, 40
# Told apart by colour-blind readers too (Okabe and Ito), and by their dashes in print.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_STYLE = """
  .ground { fill: #ffffff } .grid { stroke: #d8dee4 } text { fill: #1f2328; font: 12px system-ui, sans-serif }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } .grid { stroke: #30363d } text { fill: #e6edf3 }
  }
"""


def plot(title: str, lines: Mapping[str, Latency]) -> str:
    """An SVG with a line per run: its percentiles, on a logarithmic scale.

    Args:
        title: above it.
        lines: by what the legend calls them; at least one.
    """
    values = [max(value, 0.001) for each in lines.values() for value in _values(each)]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    across = (_WIDTH - _LEFT - _RIGHT) / (len(STEPS) - 1)

    def y(value: float) -> float:
        share = (math.log10(max(value, 0.001)) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="36">milliseconds</text>',
    ]
    for power in range(low, high + 1):
        at = y(10.0**power)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for index, label in enumerate(STEPS.values()):
        x = _LEFT + index * across
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 16}" text-anchor="middle">{label}</text>')
    for index, (name, latency) in enumerate(lines.items()):
        colour, dash = _COLOURS[index % len(_COLOURS)], _DASHES[index % len(_DASHES)]
        look = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        points = " ".join(
            f"{_LEFT + step * across:.1f},{y(value):.1f}" for step, value in enumerate(_values(latency))
        )
        parts.append(f'<polyline {look} points="{points}"/>')
        at = _TOP + 18 * index
        x = _WIDTH - _RIGHT + 14
        parts.append(f'<line {look} x1="{x}" x2="{x + 24}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{x + 30}" y="{at + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _values(latency: Latency) -> list[float]:
    return [getattr(latency, step) for step in STEPS]
