"""Plots: well-formed, within their frame, and with round axes (1 s)."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from eightfold.solver.report.svg_plots import (
    HEIGHT,
    WIDTH,
    Line,
    Point,
    amount_axis,
    bar_plot,
    line_plot,
    percent_axis,
    scatter_plot,
)


@pytest.mark.parametrize("most", [0.0, 1e-9, 0.3, 1.0, 7.0, 99.0, 101.0, 123456.0, 4e12])
def test_an_amount_axis_reaches_its_maximum_in_few_round_steps(most: float) -> None:
    axis = amount_axis(most, "tokens")
    assert axis.low == 0.0
    assert axis.high >= most * (1 - 1e-9)
    assert 2 <= len(axis.ticks) <= 7
    assert len({text for _, text in axis.ticks}) == len(axis.ticks)


@pytest.mark.parametrize("lowest", [0.0, 0.3, 0.5, 0.72, 0.95, 1.0])
def test_a_percent_axis_ends_at_one(lowest: float) -> None:
    axis = percent_axis(lowest)
    assert axis.high == 1.0
    assert axis.low <= max(lowest, 0.8)
    assert axis.ticks[-1][1] == "100%"


def test_plots_are_well_formed_and_stay_in_the_frame() -> None:
    points = [Point(k, 0.5 + k / 20, f"<{k}>", 0.4, 1.0, "#p", "right") for k in range(1, 9)]
    x = amount_axis(8, "a & b")
    y = percent_axis(0.4)
    lines = [Line("<b>", points, 0), Line("steps", points, 1, steps=True)]
    plots = (line_plot(lines, x, y, '"quoted"'), scatter_plot(points, x, y, "s"))
    for svg in plots:
        root = ElementTree.fromstring(svg)
        for circle in root.iter("circle"):
            assert 0 <= float(circle.attrib["cx"]) <= WIDTH
            assert 0 <= float(circle.attrib["cy"]) <= HEIGHT
    path = re.search(r'class="line c1" d="([^"]*)"', plots[0])
    assert path is not None
    assert path[1].count("H") == path[1].count("V") == 7
    assert len(ElementTree.fromstring(plots[1]).findall("a")) == 8


def test_bars_are_in_proportion() -> None:
    root = ElementTree.fromstring(bar_plot([("<b>", 40), ("small", 10)], "bars"))
    widths = [float(bar.attrib["width"]) for bar in root.iter("rect")]
    assert (widths[0] - 2) == pytest.approx(4 * (widths[1] - 2), rel=0.01)
    assert ElementTree.fromstring(bar_plot([], "none")) is not None
