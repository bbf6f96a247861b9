"""Plots as inline SVG, without scripts; colors come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .safe_markup import plain

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 28, 14, 66


@dataclass(frozen=True)
class Point:
    """A point of a plot.

    Attributes:
        x, y: its place, in the units of the axes.
        title: shown when the mouse rests on it.
        low, high: its interval on the y axis, or None.
        link: where a click leads, or "".
        style: name of the style, such as "right" or "wrong".
    """

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None
    link: str = ""
    style: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a plot: its name, its points from left to right, and the number of its color."""

    name: str
    points: Sequence[Point]
    color: int
    steps: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: its range, its ticks with their texts of one or two lines, and what it measures."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    label: str = ""


def amount_axis(most: float, label: str) -> Axis:
    """Return an axis from 0 to at least `most`, with three to six round ticks."""
    if not most > 0 or not math.isfinite(most):
        most = 1.0
    unit = 10 ** math.floor(math.log10(most))
    step = next(unit * f for f in (0.2, 0.5, 1, 2) if most / (unit * f) <= 5)
    ticks = [(i * step, f"{i * step:,.10g}") for i in range(math.ceil(most / step) + 1)]
    return Axis(0.0, ticks[-1][0], ticks, label)


def percent_axis(lowest: float) -> Axis:
    """Return an axis of shares up to 1, that begins at a round number below `lowest`."""
    low = 0.0 if lowest < 0.5 else math.floor(lowest * 10) / 10
    low = min(low, 0.8)
    step = 0.2 if low < 0.3 else 0.1 if low < 0.75 else 0.05
    ticks = [low + i * step for i in range(int((1 - low) / step + 1e-6) + 1)]
    return Axis(low, 1.0, [(value, f"{value:.0%}") for value in ticks])


def line_plot(lines: Sequence[Line], x: Axis, y: Axis, description: str) -> Markup:
    """Return lines with a band around each that has intervals, and a legend if there are more."""
    place_x, place_y = _scales(x, y)
    parts = [_frame(x, y, place_x, place_y)]
    for line in lines:
        banded = [point for point in line.points if point.low is not None]
        if len(banded) > 1:
            upper = [(place_x(p.x), place_y(p.high or 0.0)) for p in banded]
            lower = [(place_x(p.x), place_y(p.low or 0.0)) for p in reversed(banded)]
            parts.append(_shape("band", line.color, _path([*upper, *lower], False) + "Z"))
    for line in lines:
        corners = [(place_x(point.x), place_y(point.y)) for point in line.points]
        parts.append(_shape("line", line.color, _path(corners, line.steps)))
        if not line.steps:
            parts += [_dot(p, place_x(p.x), place_y(p.y), f"c{line.color}") for p in line.points]
    if len(lines) > 1:
        parts.append(_legend([(line.name, f"c{line.color}") for line in lines]))
    return _svg(parts, description)


def scatter_plot(points: Sequence[Point], x: Axis, y: Axis, description: str) -> Markup:
    """Return points, each with its link, and a legend of their styles."""
    place_x, place_y = _scales(x, y)
    parts = [_frame(x, y, place_x, place_y)]
    parts += [_dot(p, place_x(p.x), place_y(p.y), p.style, 4.5) for p in points]
    styles = list(dict.fromkeys(p.style for p in points))
    if len(styles) > 1:
        parts.append(_legend([(style, style) for style in sorted(styles)]))
    return _svg(parts, description)


def bar_plot(bars: Sequence[tuple[str, float]], description: str) -> Markup:
    """Return horizontal bars below their names; the plot is as high as they need."""
    most = max((value for _, value in bars), default=0) or 1
    parts = []
    for index, (name, value) in enumerate(bars):
        y = 18 + index * 44
        width = 2 + 430 * value / most
        shown = name if len(name) <= 48 else f"{name[:47]}…"
        parts.append(
            Markup(
                '<g><title>{}: {:,}</title><text class="name" x="0" y="{}">{}</text>'
                '<rect class="bar" x="0" y="{}" width="{:.1f}" height="14" rx="3"/>'
                '<text class="tick" x="{:.1f}" y="{}">{:,}</text></g>'
            ).format(plain(name), value, y, plain(shown), y + 6, width, width + 7, y + 18, value)
        )
    return _svg(parts, description, 16 + 44 * len(bars))


def _scales(x: Axis, y: Axis) -> tuple[Callable[[float], float], Callable[[float], float]]:
    def place_x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - x.low) / ((x.high - x.low) or 1)

    def place_y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - y.low) / ((y.high - y.low) or 1)

    return place_x, place_y


def _frame(
    x: Axis, y: Axis, place_x: Callable[[float], float], place_y: Callable[[float], float]
) -> Markup:
    parts = []
    for value, text in y.ticks:
        at = place_y(value)
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(LEFT, WIDTH - RIGHT, at, at, LEFT - 8, at + 4, text)
        )
    for value, text in x.ticks:
        for row, words in enumerate(text.split("\n")):
            parts.append(
                Markup(
                    '<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
                ).format(place_x(value), HEIGHT - BOTTOM + 18 + 19 * row, words)
            )
    parts.append(
        Markup('<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x.label
        )
    )
    return Markup("").join(parts)


def _path(corners: Sequence[tuple[float, float]], steps: bool) -> str:
    words = []
    for index, (x, y) in enumerate(corners):
        words.append(f"{'HL'[not steps] if index else 'M'}{x:.1f}")
        words.append(f"V{y:.1f}" if steps and index else f",{y:.1f}")
    return "".join(words)


def _shape(kind: str, color: int, path: str) -> Markup:
    return Markup('<path class="{} c{}" d="{}"/>').format(kind, color, path)


def _dot(point: Point, x: float, y: float, style: str, radius: float = 4) -> Markup:
    dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>')
    drawn = dot.format(style, x, y, radius, plain(point.title))
    return Markup('<a href="{}">{}</a>').format(point.link, drawn) if point.link else drawn


def _legend(names: Sequence[tuple[str, str]]) -> Markup:
    """Return the names with their colors, one below the other in the corner below the lines."""
    parts = []
    top = HEIGHT - BOTTOM - 12 - 22 * (len(names) - 1)
    for index, (name, style) in enumerate(names):
        y = top + 22 * index
        parts.append(
            Markup(
                '<circle class="dot {}" cx="{}" cy="{}" r="5"/>'
                '<text class="name" x="{}" y="{}" text-anchor="end">{}</text>'
            ).format(style, WIDTH - RIGHT - 8, y - 4, WIDTH - RIGHT - 19, y, plain(name))
        )
    return Markup("").join(parts)


def _svg(parts: Sequence[Markup], description: str, height: int = HEIGHT) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, description, Markup("").join(parts)
    )
