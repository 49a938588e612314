"""Charts with a row for each model and an axes for each quantity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from tlbench.models.publication import MISPRINT_MARK
from tlbench.reports.drawing import (
    INK,
    SERIES,
    Picture,
    draw,
    name_rows,
    panels_of,
    scale_axis,
)
from tlbench.reports.publication.entries import Entry, Panel, Value, exact
from tlbench.reports.publication.grouping import numbered
from tlbench.reports.publication.looks import add_samples, draw_value, origin_samples

COLUMNS = 4
ROW_INCHES, HEAD_INCHES = 0.3, 1.0
TITLE_CHARACTERS = 24


class Band(NamedTuple):
    """The rows of one family, and as many of its quantities as stand beside another."""

    family: str
    entries: Sequence[Entry]
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Rows:
    """A chart of models by name; those of one family are drawn to one scale."""

    name: Callable[[Entry], str]
    family: Callable[[Entry], str] = lambda _: ""

    def chart(
        self, name: str, title: str, entries: Sequence[Entry], panels: Sequence[Panel]
    ) -> Picture | None:
        """None: there is no value to draw."""
        bands = self.bands(entries, panels)
        if not bands:
            return None
        columns = max(len(band.panels) for band in bands)
        heights = [ROW_INCHES * len(band.entries) + HEAD_INCHES for band in bands]

        def paint(figure: Figure) -> None:
            grid = figure.add_gridspec(len(bands), columns, height_ratios=heights)
            for place, band in enumerate(bands):
                cells = (grid[place, column] for column in range(len(band.panels)))
                self._paint([figure.add_subplot(cell) for cell in cells], band)
            add_samples(figure, origin_samples(_origins(bands)))

        return draw(name, title, sum(heights) + 0.4, paint)

    def bands(self, entries: Sequence[Entry], panels: Sequence[Panel]) -> list[Band]:
        """Families in which something ran here come first."""
        families = panels_of(entries, self.family)
        ordered = sorted(families, key=lambda f: not any(e.cases for e in families[f]))
        return [
            Band(family, _with_values(families[family], beside), beside)
            for family in ordered
            for found in [_that_have_values(panels, families[family])]
            for start in range(0, len(found), COLUMNS)
            for beside in [found[start : start + COLUMNS]]
        ]

    def _paint(self, line: Sequence[Axes], band: Band) -> None:
        for axes, panel in zip(line, band.panels, strict=True):
            for y, entry in enumerate(band.entries):
                _draw_row(axes, y, panel, entry)
            name_rows(axes, numbered([self.name(e) for e in band.entries]), "")
            axes.grid(visible=True, axis="y")  # from each name to its points
            axes.set_title(fill(panel.heading, TITLE_CHARACTERS))
            _scale(axes, [v for e in band.entries for v in panel.values(e)])
        for axes in line[1:]:
            axes.tick_params(labelleft=False)
        if band.family:
            line[0].set_title(f"{band.family}\n{line[0].get_title(loc='left')}")


def _that_have_values(panels: Sequence[Panel], entries: Sequence[Entry]) -> list[Panel]:
    return [p for p in panels if any(p.values(entry) for entry in entries)]


def _with_values(entries: Sequence[Entry], panels: Sequence[Panel]) -> list[Entry]:
    return [e for e in entries if any(panel.values(e) for panel in panels)]


def _origins(bands: Sequence[Band]) -> set[bool]:
    """Whether there are own values (True), and published ones (False)."""
    return {
        is_own
        for band in bands
        for panel in band.panels
        for entry in band.entries
        for is_own, value in (
            (True, panel.own_value(entry)),
            (False, panel.published_value(entry)),
        )
        if value is not None
    }


def _draw_row(axes: Axes, y: int, panel: Panel, entry: Entry) -> None:
    own, published = panel.own_value(entry), panel.published_value(entry)
    row = exact(y, "")
    if own is not None:
        draw_value(axes, own, row, place=y, colour=SERIES[0], marker="o", is_own=True)
    if published is not None:
        draw_value(axes, published, row, place=y, colour=INK, marker="o", is_own=False)
    _write_value(axes, y, own, published)


def _write_value(
    axes: Axes, y: int, own: Value | None, published: Value | None
) -> None:
    """Ours behind the rightmost value; the printed one where it stands alone."""
    shown = own or published
    if shown is None:
        return
    ends = [value.high for value in (own, published) if value is not None]
    is_doubtful = own is not None and published is not None and published.is_misprint
    text = axes.annotate(
        f"{shown.cell.text}{MISPRINT_MARK if is_doubtful else ''}",
        (max(ends), y),
        xytext=(9, 0),
        textcoords="offset points",
        verticalalignment="center",
        fontsize=8,
    )
    text.set_in_layout(False)  # `_scale` leaves room for it, and the layout is fast


def _scale(axes: Axes, values: Sequence[Value]) -> None:
    """Few ticks, and room for the numbers behind the points."""
    # The last tick would touch the first one of the next axes.
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="upper"))
    scale_axis(axes, "x", [end for value in values for end in (value.low, value.high)])
    to_line = axes.xaxis.get_transform()
    low, high = to_line.transform(axes.get_xlim())
    room = (low - 0.05 * (high - low), high + 0.35 * (high - low))
    axes.set_xlim(*to_line.inverted().transform(room))
    if axes.get_xscale() == "log":
        first, last = axes.get_xlim()
        subs = (1.0,) if last > 100 * first else (1.0, 3.0)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.set_xlabel("logarithmic axis")
