"""Charts of values along an axis of numbers: a place, a number of tokens, a cost."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tlbench.models.publication import MISPRINT_MARK
from tlbench.reports.drawing import (
    INK,
    MARKERS,
    MUTED,
    SERIES,
    Picture,
    draw,
    mark,
    panels_of,
    scale_axis,
)
from tlbench.reports.publication.entries import Entry, Panel, Value
from tlbench.reports.publication.looks import (
    add_samples,
    draw_value,
    origin,
    origin_samples,
    sample,
)
from tlbench.suites.model_spec import ModelSpec

COLUMNS = 3
MAX_CELLS = 9
"""Axes of one chart, those of what ran here first."""
ROW_INCHES = 2.6
TITLE_CHARACTERS = 42
WIDE = 30
"""GFLOPS over the place, 22 times apart, are linear as they are published."""
OWN_DASHES, PUBLISHED_DASHES = "-", (0, (4, 3))


class Point(NamedTuple):
    """One value of a chart."""

    spec: ModelSpec
    x: Value | None
    """None: it has no place on the axis, and is a line across."""
    y: Value
    is_own: bool


class Cell(NamedTuple):
    """One axes of a chart: a quantity of one family of models."""

    family: str
    heading: str
    points: Sequence[Point]
    places: Sequence[float]
    """Where the values of the family stand on the axis, in all its cells."""


@dataclass(frozen=True)
class Along:
    """A chart over `x`; models of one series share a colour, of one kind a marker."""

    x: Panel
    series: Callable[[ModelSpec], str]
    family: Callable[[ModelSpec], str]
    """Models of one family share their axes."""
    kind: Callable[[ModelSpec], str] = lambda _: ""
    across: str = ""
    """What is drawn as a line across, having no place on the axis."""
    has_ticks_at_values: bool = False
    is_joined: bool = True
    """Whether a line runs through the points of a series."""

    def chart(
        self, name: str, title: str, entries: Sequence[Entry], panels: Sequence[Panel]
    ) -> Picture | None:
        """None: there is no value to draw."""
        cells = self.cells(entries, panels)[:MAX_CELLS]
        if not cells:
            return None
        columns = min(COLUMNS, len(cells))
        rows = -(-len(cells) // columns)
        looks = _Looks(self, [point for cell in cells for point in cell.points])

        def paint(figure: Figure) -> None:
            first_of: dict[str, Axes] = {}
            for place, cell in enumerate(cells, start=1):
                first = first_of.get(cell.family)
                axes = figure.add_subplot(rows, columns, place, sharex=first)
                first_of.setdefault(cell.family, axes)
                self._paint(axes, cell, looks)
            add_samples(figure, looks.samples())

        return draw(name, title, ROW_INCHES * rows + 0.8, paint)

    def cells(self, entries: Sequence[Entry], panels: Sequence[Panel]) -> list[Cell]:
        """One for each family and quantity that has a value; what ran here first."""
        families = panels_of(
            [entry for entry in entries if entry.spec is not None],
            lambda entry: self.family(entry.spec) if entry.spec else "",
        )
        ordered = sorted(families, key=lambda f: not any(e.cases for e in families[f]))
        return [
            Cell(family, panel.heading, points, _places(found.values()))
            for family in ordered
            for found in [{p: self._points(p, families[family]) for p in panels}]
            for panel, points in found.items()
            if points
        ]

    def _points(self, panel: Panel, entries: Sequence[Entry]) -> list[Point]:
        found = [
            Point(entry.spec, x, y, is_own)
            for entry in entries
            for x, y, is_own in (
                (self.x.own_value(entry), panel.own_value(entry), True),
                (self.x.published_value(entry), panel.published_value(entry), False),
            )
            if entry.spec is not None and y is not None
        ]
        return [point for point in found if point.x is not None or self.across]

    def _paint(self, axes: Axes, cell: Cell, looks: "_Looks") -> None:
        looks.draw(axes, cell.points)
        axes.set_title(f"{cell.family}\n{fill(cell.heading, TITLE_CHARACTERS)}")
        axes.set_xlabel(self.x.heading)
        axes.margins(0.1)
        scale_axis(axes, "x", cell.places)
        ends = [end for point in cell.points for end in (point.y.low, point.y.high)]
        scale_axis(axes, "y", ends, WIDE)
        if self.has_ticks_at_values:
            axes.set_xticks(cell.places)


class _Looks:
    """The colours and markers of one chart."""

    def __init__(self, along: Along, points: Sequence[Point]) -> None:
        self._along = along
        placed = [point for point in points if point.x is not None]
        series = dict.fromkeys(along.series(point.spec) for point in placed)
        kinds = dict.fromkeys(along.kind(point.spec) for point in placed)
        self._colours = {s: SERIES[i % len(SERIES)] for i, s in enumerate(series)}
        self._markers = {k: MARKERS[i % len(MARKERS)] for i, k in enumerate(kinds)}
        self._origins = {point.is_own for point in points}
        across = [point for point in points if point.x is None]
        self._across_origins = {point.is_own for point in across}
        self._has_bands = any(point.y.has_interval for point in across)

    def draw(self, axes: Axes, points: Sequence[Point]) -> None:
        if self._along.is_joined:
            self._join(axes, points)
        for place, point in enumerate(points):
            self._draw_point(axes, place, point)

    def _join(self, axes: Axes, points: Sequence[Point]) -> None:
        """A line through the points of each series, solid where they are own."""
        for is_own in (True, False):
            alike = panels_of(
                [p for p in points if p.is_own == is_own and p.x is not None],
                lambda point: self._along.series(point.spec),
            )
            for series, joined in alike.items():
                axes.plot(
                    *zip(*sorted((_x(p), p.y.value) for p in joined), strict=True),
                    color=self._colours[series],
                    linestyle=OWN_DASHES if is_own else PUBLISHED_DASHES,
                    linewidth=1.2,
                )

    def _draw_point(self, axes: Axes, place: int, point: Point) -> None:
        if point.x is None:
            _draw_across(axes, place, point)
            return
        colour = self._colours[self._along.series(point.spec)]
        marker = self._markers[self._along.kind(point.spec)]
        draw_value(
            axes,
            point.x,
            point.y,
            place=place,
            colour=colour,
            marker=marker,
            is_own=point.is_own,
        )
        if point.x.is_misprint or point.y.is_misprint:
            at = (point.x.value, point.y.value)
            axes.annotate(MISPRINT_MARK, at, (7, 2), textcoords="offset points")

    def samples(self) -> list[Artist]:
        """The lines of the legend."""
        series = [
            Line2D([], [], color=colour, linewidth=4, label=name)
            for name, colour in self._colours.items()
        ]
        kinds = [sample(name, marker=m) for name, m in self._markers.items() if name]
        return [*series, *self._across(), *kinds, *origin_samples(self._origins)]

    def _across(self) -> Iterator[Artist]:
        """Of the lines across, by whether they are own, and of their bands."""
        for is_own, words in ((True, "own"), (False, "published")):
            if is_own in self._across_origins:
                colour, dashes = _line_look(is_own)
                label = f"{self._along.across}, {words}"
                yield Line2D([], [], color=colour, linestyle=dashes, label=label)
        if self._has_bands:
            yield Patch(color=MUTED, alpha=0.15, label="its interval")


def _x(point: Point) -> float | None:
    return None if point.x is None else point.x.value


def _places(cells: Iterable[Sequence[Point]]) -> list[float]:
    """Each place on the axis once, in order."""
    places = (_x(point) for points in cells for point in points)
    return sorted({place for place in places if place is not None})


def _line_look(is_own: bool) -> tuple[str, Any]:
    """Colour and dashes of a line across."""
    return (INK, OWN_DASHES) if is_own else (MUTED, PUBLISHED_DASHES)


def _draw_across(axes: Axes, place: int, point: Point) -> None:
    """A line across the axes, and a band for its interval or reading error."""
    assert point.y.value is not None
    colour, dashes = _line_look(point.is_own)
    line = axes.axhline(point.y.value, color=colour, linestyle=dashes, linewidth=1.2)
    mark(line, f"across-{origin(point.is_own)}", place)
    if point.y.has_interval:
        axes.axhspan(point.y.low, point.y.high, color=MUTED, alpha=0.15, linewidth=0)
