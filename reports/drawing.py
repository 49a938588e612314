"""The ground that charts stand on: colours, axes, panels, and figures as SVG or PNG.

The colours are those of the page in its light theme. Inside the page they become CSS
variables, so that the page decides what they look like; a file of its own keeps them.
No pyplot, and so no global figure.
"""

import gc
import io
import os
import re
import sys
import textwrap
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from typing import Any, Literal, NamedTuple, TypeVar

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from tlbench.reports.cases import CaseTrials, Summary
from tlbench.reports.quantities import QUANTITIES
from tlbench.units import format_counted

INK, MUTED, GRID, PAPER = "#1b1f24", "#646c77", "#dfe3e8", "#ffffff"
SERIES = (
    *("#0173b2", "#c27a00", "#028c66", "#d55e00"),
    *("#a8509a", "#8f5f3c", "#cf64b6", "#6b6b6b"),
)
"""Colours of models that the colour-blind tell apart: those of `style.css`."""
CSS_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)"} | {
    colour: f"var(--series-{index})" for index, colour in enumerate(SERIES)
}
MARKERS = "osD^vPX"
"""The next model has the next marker: nothing is told by the colour alone."""

ChartFormat = Literal["svg", "png"]
WIDTH_INCHES = 10.5
TITLE_INCHES = 0.35
DOTS_PER_INCH = 200
MAX_ROWS = 24
"""Most rows of a chart that stacks its panels; the table has the rest."""
LINE_LENGTH = 44
"""Characters of a line of a name beside its row."""
CHARACTER_INCHES = 0.075
"""Of a figure of the font that matplotlib measures with; few browsers' are wider."""
LEGEND_LINES = 4
"""Lines of a legend that the height of a chart has room for."""
LEGEND_LINE_INCHES = 0.2
WIDE = 10
"""Where the largest value is so many times the smallest, an axis is logarithmic."""

STYLE: dict[Any, Any] = {  # matplotlib types the keys as a literal of all their names
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],  # comes along; others are searched for long
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 3.0,
    "lines.markersize": 7,
}


@dataclass(frozen=True)
class Picture:
    """A figure that can be drawn for the page, or into a file of its own."""

    name: str
    title: str
    height_inches: float
    paint: Callable[[Figure], None]

    @cached_property
    def svg(self) -> Markup:
        """An element of the page, in the page's colours."""
        return _inline(self._draw("svg").decode(), self.name, self.title)

    def file(self, kind: ChartFormat) -> bytes:
        """A document of its own: on white, with its title."""
        return self._draw(kind, is_alone=True)

    def _draw(self, kind: ChartFormat, *, is_alone: bool = False) -> bytes:
        height = self.height_inches + TITLE_INCHES * is_alone
        with mpl.rc_context(STYLE | {"svg.hashsalt": self.name}):
            figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
            self.paint(figure)
            if is_alone:
                figure.set_facecolor(PAPER)
                figure.suptitle(self.title, size=11, weight="bold", x=0.01, ha="left")
            _settle(figure)
            drawn = io.BytesIO()
            about = _SILENT[kind] | ({"Title": self.title} if is_alone else {})
            figure.savefig(drawn, format=kind, dpi=DOTS_PER_INCH, metadata=about)
        return drawn.getvalue()


def _settle(figure: Figure) -> None:
    """Lay it out once: to save a figure would do it twice, which is what takes long."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)
    figure.set_layout_engine("none")


_SILENT: dict[ChartFormat, dict[str, str | None]] = {
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    "png": {"Software": None},
}
"""What matplotlib would write into a file by itself."""


@dataclass(frozen=True)
class Chart:
    """One picture, and what it leaves out."""

    picture: Picture
    note: str = ""

    @property
    def svg(self) -> Markup:
        return self.picture.svg


@dataclass(frozen=True)
class NoChart:
    """Why there is nothing to draw."""

    reason: str


class Palette:
    """One colour and marker a model, the same in every chart."""

    def __init__(self, cases: Sequence[CaseTrials]) -> None:
        models = dict.fromkeys(case.model for case in cases)
        self._places = {model: place for place, model in enumerate(models)}

    def colour(self, model: str) -> str:
        return SERIES[self._places[model] % len(SERIES)]

    def marker(self, model: str) -> str:
        return MARKERS[self._places[model] % len(MARKERS)]


def draw(
    name: str, title: str, height_inches: float, paint: Callable[[Figure], None]
) -> Picture:
    """A picture of that name, which its file and all ids in its SVG begin with."""
    return Picture(name, title, height_inches, paint)


@contextmanager
def drawn_together(pictures: Sequence[Picture]) -> Iterator[None]:
    """Draw them for the page, in as many processes as there are cores, meanwhile.

    In forks, since what paints cannot be pickled; and so only where this is the only
    thread: a lock that another one holds is never released in a fork. Threads of Ray
    are not all known to Python, and some outlive it. Elsewhere each picture is drawn
    when the page asks for it.
    """
    workers = min(_cores_for_forks(), len(pictures))
    if workers < 2 or threading.active_count() > 1 or "ray" in sys.modules:
        yield
        return
    _TO_DRAW[:] = pictures
    gc.freeze()  # or a collection in a fork would write to, and so copy, every page
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
            # The last first: curves of training take the longest, as seaborn loads.
            drawn = pool.map(_draw_one, reversed(range(len(pictures))))
            yield
            for picture, svg in zip(reversed(pictures), drawn, strict=True):
                vars(picture)["svg"] = svg  # where the property keeps it
    finally:
        gc.unfreeze()
        _TO_DRAW.clear()


def _cores_for_forks() -> int:
    """None but on Linux, where alone a fork is safe."""
    on_linux = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if on_linux else 0


_TO_DRAW: list[Picture] = []
"""What the forks find in their copy of this process."""


def _draw_one(place: int) -> Markup:
    return _TO_DRAW[place].svg


def mark(artist: Artist, kind: str, place: int) -> None:
    """Give what shows a value an id in the SVG, by which the value is read back.

    The id is the kind, the number of the panel, and the place in the panel.
    """
    figure = artist.get_figure(root=True)
    assert figure is not None  # a chart marks what it has drawn
    panel = figure.axes.index(artist.axes)  # type: ignore[arg-type]  # any axes do
    artist.set_gid(f"{kind}-{panel}-{place}")


# ---------------------------------------------------------------- values


class Extent(NamedTuple):
    """A value and the ends of its interval, in the unit that is shown."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> list[list[float]]:
        """How far the interval reaches to both sides, as `errorbar` wants it."""
        below, above = self.value - self.low, self.high - self.value
        return [[max(0.0, below)], [max(0.0, above)]]


def extent_of(metric: str, summary: Summary) -> Extent:
    """Of a metric that was measured; no interval is a point."""
    assert summary.value is not None
    scale = QUANTITIES[metric].scale
    low, high = summary.interval or (summary.value, summary.value)
    return Extent(summary.value * scale, low * scale, high * scale)


def scale_axis(
    axes: Axes, which: Literal["x", "y"], values: Sequence[float], wide: float = WIDE
) -> None:
    """Logarithmic, with ticks at 1, 2 and 5, where the values are far apart."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if 0 < min(values) < max(values) / wide:
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))


# ---------------------------------------------------------------- rows

_Row = TypeVar("_Row")


def panels_of(
    rows: Sequence[_Row], heading: Callable[[_Row], str]
) -> dict[str, list[_Row]]:
    panels: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        panels[heading(row)].append(row)
    return {title: members[:MAX_ROWS] for title, members in panels.items()}


def shared(panels: Mapping[str, list[_Row]]) -> dict[str, list[_Row]]:
    """As many rows of each panel, or all it has, as one chart has room for."""
    most = MAX_ROWS
    while most > 1 and sum(min(len(p), most) for p in panels.values()) > MAX_ROWS:
        most -= 1
    return {title: members[:most] for title, members in panels.items()}


def stacked(figure: Figure, panels: Mapping[str, Sequence[object]]) -> list[Axes]:
    """One axes a panel, one over the other, as high as it has rows."""
    heights = [len(rows) + 1 for rows in panels.values()]
    grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    return list(grid[:, 0])


def height_of(panels: Mapping[str, Sequence[object]]) -> float:
    rows = sum(len(members) for members in panels.values())
    return 0.42 * rows + 0.75 * len(panels)


def folded(name: str, length: int = LINE_LENGTH) -> str:
    """A name in lines of that length, three at most."""
    lines = [
        line
        for part in name.split("\n")
        for line in textwrap.wrap(part, length, break_on_hyphens=False)
    ]
    if len(lines) > 3:
        lines[2:] = [f"{lines[2][: length - 1]}\N{HORIZONTAL ELLIPSIS}"]
    return "\n".join(lines)


def name_rows(axes: Axes, names: Sequence[str], heading: str) -> None:
    axes.set_title(heading)
    axes.set_yticks(range(len(names)), [folded(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first on top
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def write_behind(axes: Axes, ends: Sequence[float], texts: Sequence[str]) -> None:
    """Write a text behind the end of each row, and leave room for the longest."""
    for y, (end, text) in enumerate(zip(ends, texts, strict=True)):
        axes.annotate(
            text,
            (end, y),
            xytext=(8, 0),
            textcoords="offset points",
            verticalalignment="center",
        )
    names = [label.get_text() for label in axes.get_yticklabels()]
    lines = [len(line) for name in names for line in name.split("\n")]
    axes_inches = WIDTH_INCHES - 0.5 - CHARACTER_INCHES * max(lines)
    text_inches = 0.15 + CHARACTER_INCHES * max(map(len, texts))
    # Where all are 0, any width will do.
    end = 1.02 * max(ends) or 1.0
    axes.set_xlim(0, end / max(0.3, 1 - text_inches / axes_inches))


def table_has_more(left_out: int, noun: str) -> str:
    """A sentence behind another, where the table has more than the chart."""
    more = format_counted(left_out, f"more {noun}")
    return f" The table has {more}." if left_out > 0 else ""


def rows_left_out(
    rows: Sequence[object], panels: Mapping[str, Sequence[object]]
) -> str:
    left_out = len(rows) - sum(len(members) for members in panels.values())
    return table_has_more(left_out, "row")


def add_legend(figure: Figure, *panels: Axes) -> None:
    """Under the chart, in as many columns as the names leave room for.

    Lines beyond the first few make the chart higher, not what it draws lower.
    """
    named = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels]
    first = {label: handle for panel in named for handle, label in panel}
    handles, lines = list(first.values()), [folded(label, 100) for label in first]
    longest = max(len(line) for label in lines for line in label.split("\n"))
    columns = max(1, min(len(lines), 100 // (longest + 6)))
    surplus = -(-len(lines) // columns) - LEGEND_LINES
    if surplus > 0:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + surplus * LEGEND_LINE_INCHES)
    figure.legend(handles, lines, loc="outside lower center", ncols=columns)


# ---------------------------------------------------------------- the page


def _inline(document: str, name: str, title: str) -> Markup:
    """The SVG element alone, fit to stand in a page beside others."""
    view_box = re.search(r'viewBox="[^"]*"', document)
    body = re.search(r"<svg[^>]*>(.*)</svg>", document, re.DOTALL)
    assert view_box is not None  # every figure that matplotlib writes has both
    assert body is not None
    inner = re.sub(r"<style.*?</style>", "", body[1])  # it would style the whole page
    inner = re.sub(r"font-family: [^;]*; ", "", inner)  # the page's, and long
    inner = inner.replace("xlink:href", "href")
    inner = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", inner)
    for colour, css in CSS_COLOURS.items():
        inner = inner.replace(colour, css)
    return Markup(
        f'<svg role="img" aria-labelledby="{name}-title" {view_box[0]}>'
        f'<title id="{name}-title">{escape(title)}</title>{inner}</svg>'
    )
