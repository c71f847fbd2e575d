"""Bars, as cells of a terminal and as SVG."""

from xml.etree import ElementTree as ET

import pytest

from ring.cli.balance import BOUND
from ring.cli.chart import PLOT, Bar, pieces, reach_of, svg
from ring.cluster.placement import bound
from ring.protocol.names import SLOTS

SVG = "{http://www.w3.org/2000/svg}"


def bar(share: float, fair: float = 0.25, most: float = 0.2625, name: str = "n1") -> Bar:
    """A bar."""
    return Bar(name, share, fair, most, f"{share:.1%}")


def drawn(one: Bar, width: int = 20, *, ascii_only: bool = False) -> str:
    """Its cells, on a scale that ends at 0.5."""
    return "".join(text for text, _ in pieces(one, 0.5, width, ascii_only=ascii_only))


class TestCells:
    @pytest.mark.parametrize(
        ("share", "cells"),
        [
            (0.0, "            │┊      "),
            (0.1, "████        │┊      "),
            (0.11, "████▍       │┊      "),
            (0.36, "████████████│┊▍     "),
            (0.5, "████████████│┊██████"),
        ],
    )
    def test_a_bar(self, share: float, cells: str) -> None:
        """To an eighth of a cell; the marks stand before it."""
        assert drawn(bar(share, fair=0.3, most=0.325)) == cells

    def test_ascii(self) -> None:
        """Where the output knows no other letters."""
        assert drawn(bar(0.11, fair=0.3, most=0.325), ascii_only=True) == "####        |:      "

    def test_marks_in_one_cell(self) -> None:
        """The fair share is the one to be seen."""
        assert drawn(bar(0.1)) == "████      │         "

    def test_marks_at_the_end(self) -> None:
        """They stay inside."""
        assert drawn(bar(0.1, fair=0.49, most=0.5), width=10) == "██       │"

    def test_no_marks(self) -> None:
        """A node that should have nothing has none."""
        assert drawn(bar(0.1, 0, 0)) == "████                "

    def test_pieces(self) -> None:
        """Neighbours of a kind are one piece, and what is too much is another kind."""
        assert pieces(bar(0.25, 0.4, 0.45), 0.5, 10) == [
            ("█████", "bar"),
            ("   ", ""),
            ("│", "fair"),
            ("┊", "bound"),
        ]
        assert pieces(bar(0.3, 0.1, 0.2), 0.5, 5)[0] == ("█", "over")

    def test_reach(self) -> None:
        """All bars and bounds fit, and where there is nothing, nothing fails."""
        assert reach_of([bar(0.1), bar(0.3), bar(0.2, most=0.28)]) == 0.3
        assert reach_of([bar(0.1)]) == 0.2625
        assert drawn(bar(0.0, 0, 0)) == " " * 20
        assert reach_of([bar(0, 0, 0)]) > 0


class TestSvg:
    def test_bars(self) -> None:
        """Lengths and marks are to one scale, which the axis tells."""
        document = ET.fromstring(svg("Title", "Summary", [bar(0.5), bar(0.25, name="n2")]))
        rows = document.findall(f"{SVG}g")
        assert [row.findtext(f"{SVG}title") for row in rows] == [
            "n1: 50.0%; fair 25.0%, at most 26.2%",
            "n2: 25.0%; fair 25.0%, at most 26.2%",
        ]
        first, second = (row.find(f"{SVG}rect") for row in rows)
        assert first is not None
        assert second is not None
        assert (first.get("class"), second.get("class")) == ("over", "bar")
        assert (first.get("width"), second.get("width")) == (f"{PLOT:.1f}", f"{PLOT / 2:.1f}")
        left = float(first.get("x", ""))
        marks = {line.get("class"): float(line.get("x1", "")) for line in rows[1].findall(f"{SVG}line")}
        assert marks["fair"] == pytest.approx(left + PLOT / 2, abs=0.1)
        assert marks["bound"] == pytest.approx(left + PLOT * 0.525, abs=0.1)
        ticks = [
            (text.text, float(text.get("x", "")) - left)
            for text in document.findall(f"{SVG}text")
            if text.get("text-anchor") == "middle"
        ]
        assert [words for words, _ in ticks] == ["0%", "10%", "20%", "30%", "40%", "50%"]
        assert [x for _, x in ticks] == pytest.approx([PLOT * share for share in (0, 0.2, 0.4, 0.6, 0.8, 1)])

    def test_who_cannot_see_it(self) -> None:
        """A screen reader is told what it is and what it shows."""
        document = ET.fromstring(svg("Title", "Summary", [bar(0.5)]))
        assert document.get("role") == "img"
        named = {element.get("id"): element.text for element in document if element.get("id")}
        assert [named[name] for name in document.get("aria-labelledby", "").split()] == ["Title", "Summary"]

    def test_light_and_dark(self) -> None:
        """Every colour has one for the dark, and the page has its own."""
        text = svg("Title", "Summary", [bar(0.5)])
        light, dark = text.split("@media (prefers-color-scheme: dark)")
        for kind in ("text", ".dim", ".page", ".grid", ".bar", ".over", ".fair", ".bound"):
            assert f"{kind} {{ " in light
            assert f"{kind} {{ " in dark

    def test_names_are_no_markup(self) -> None:
        """Whatever they are, the document is one."""
        document = ET.fromstring(svg("<b>&", "a<b", [bar(0.5, name='<script x="1">&]]>')]))
        assert document.find(f"{SVG}g/{SVG}text").text == '<script x="1">&]]>'  # type: ignore[union-attr] # it is there

    def test_room_for_names(self) -> None:
        """Long names, and those of wide letters, push the bars to the right."""

        def left_of(name: str) -> float:
            rect = ET.fromstring(svg("", "", [bar(0.5, name=name)])).find(f"{SVG}g/{SVG}rect")
            assert rect is not None
            return float(rect.get("x", ""))

        assert left_of("n" * 64) > left_of("n") + 400
        assert left_of("节" * 8) == left_of("n" * 16)

    @pytest.mark.parametrize("size", [0, 1, 2, 128])
    def test_sizes(self, size: int) -> None:
        """As high as it has to be, with an axis that can be read."""
        document = ET.fromstring(svg("", "", [bar(1 / max(size, 1))] * size))
        rows = document.findall(f"{SVG}g")
        assert len(rows) == size
        assert float(document.get("height", "")) > 20 * size + 60
        ticks = [text for text in document.findall(f"{SVG}text") if text.get("text-anchor") == "middle"]
        assert 1 < len(ticks) <= 9


def test_the_bound_is_that_of_placement() -> None:
    """What the chart says of it."""
    assert bound(1, 100) == pytest.approx(BOUND * SLOTS / 100, abs=1)
