"""How own and published values look: filled and hollow, each with its error."""

from collections.abc import Collection, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tlbench.reports.drawing import INK, MUTED, mark
from tlbench.reports.publication.entries import Value

OWN_LABEL = "own: counted or measured here"
PUBLISHED_LABEL = "published"
_LEGEND_CHARACTERS = 120
"""What one line of a legend has room for."""


def draw_value(
    axes: Axes,
    x: Value,
    y: Value,
    *,
    place: int,
    colour: str,
    marker: str,
    is_own: bool,
) -> None:
    """One value, with the interval or the reading error of both its coordinates.

    Its id in the SVG has its place in the panel, and whether it is own or published.
    """
    assert x.value is not None
    assert y.value is not None
    point, _, _ = axes.errorbar(
        x.value,
        y.value,
        xerr=_ends(x),
        yerr=_ends(y),
        color=colour,
        ecolor=colour,
        elinewidth=1.4,
        capsize=3,
        zorder=3 if is_own else 4,
        **_shape(marker, colour, is_own),
    )
    mark(point, origin(is_own), place)


def origin(is_own: bool) -> str:
    """What the ids of values begin with."""
    return "own" if is_own else "published"


def sample(
    label: str, *, colour: str = INK, marker: str = "o", is_own: bool = True
) -> Line2D:
    """One line of a legend."""
    look = _shape(marker, colour, is_own)
    return Line2D([], [], color=colour, label=label, **look)


def _shape(marker: str, colour: str, is_own: bool) -> dict[str, Any]:
    """Filled where it is own; a larger ring, which leaves that to be seen, if not."""
    return {
        "marker": marker,
        "markersize": 6 if is_own else 9.5,
        "markerfacecolor": colour if is_own else "none",
        "linestyle": "none",
    }


def origin_samples(origins: Collection[bool]) -> list[Line2D]:
    """Those of own values where there are any (True), and of published ones (False)."""
    own = sample(OWN_LABEL)
    published = sample(PUBLISHED_LABEL, colour=MUTED, is_own=False)
    return [
        line for is_own, line in ((True, own), (False, published)) if is_own in origins
    ]


def add_samples(figure: Figure, samples: Sequence[Artist]) -> None:
    """The legend, under the chart, in as many columns as the words leave room for."""
    longest = max(len(str(entry.get_label())) for entry in samples)
    columns = max(1, min(len(samples), _LEGEND_CHARACTERS // (longest + 6)))
    figure.legend(handles=samples, loc="outside lower center", ncols=columns)


def _ends(mark: Value) -> list[list[float]] | None:
    if mark.value is None or not mark.has_interval:
        return None
    below, above = mark.value - mark.low, mark.high - mark.value
    return [[max(0.0, below)], [max(0.0, above)]]
