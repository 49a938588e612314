"""The report's section on history: each case over the runs, its breaks and changes."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from tlbench.changes import FEWEST
from tlbench.reports.cells import Cell, Row, Table, missing, word
from tlbench.reports.drawing import (
    INK,
    MUTED,
    SERIES,
    Chart,
    NoChart,
    draw,
    mark,
    table_has_more,
)
from tlbench.reports.history import Break, History, Point, Shift
from tlbench.reports.quantities import QUANTITIES
from tlbench.reports.trend import p_text, shift_interval, value_text
from tlbench.reports.verdicts import TIMES
from tlbench.units import format_number

MAX_PANELS = 8
"""Most cases of the chart; the table has the rest."""
PANEL_INCHES = 1.7
MAX_TICKS = 10
MAX_BREAK_TEXT = 40
HEADINGS = ("case", "runs", "newest", "at run", "what", "new / old", "p", "there")


def history_chart(histories: Sequence[History]) -> Chart | NoChart:
    """A panel for each case: its value in every run."""
    drawn = histories[:MAX_PANELS]
    if not drawn:
        return NoChart("no case has been measured in two runs")

    def paint(figure: Figure) -> None:
        panels = figure.subplots(len(drawn), squeeze=False)[:, 0]
        for axes, history in zip(panels, drawn, strict=True):
            _panel(axes, history)

    left_out = len(histories) - len(drawn)
    return Chart(
        draw("history", "Values over the runs", PANEL_INCHES * len(drawn), paint),
        "Median over the trials of each run with its 95 % interval. Dashed: another"
        " machine, driver or library, across which nothing is compared. Triangles: a"
        " change of level, and its size." + table_has_more(left_out, "case"),
    )


def _panel(axes: Axes, history: History) -> None:
    edges = [0, *(found.place for found in history.breaks), len(history.points)]
    for low, high in pairwise(edges):
        _segment(axes, history, low, high)
    for number, found in enumerate(history.breaks):
        _break_mark(axes, found, number)
    for number, shift in enumerate(history.shifts):
        _shift_mark(axes, history, shift, number)
    quantity = QUANTITIES.get(history.metric)
    heading = history.metric if quantity is None else quantity.heading
    axes.set_title(f"{history.title}: {heading}")
    ticks = _ticks(history)
    axes.set_xticks(ticks, [_tick(history.points[place]) for place in ticks])
    axes.set_xlim(-0.6, len(history.points) - 0.4)
    axes.margins(y=0.25)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _scale(history: History) -> float:
    quantity = QUANTITIES.get(history.metric)
    return 1.0 if quantity is None else quantity.scale


def _segment(axes: Axes, history: History, low: int, high: int) -> None:
    """The runs between two breaks, joined by a line."""
    scale = _scale(history)
    measured = [
        (place, point)
        for place, point in enumerate(history.points[low:high], start=low)
        if point.value is not None
    ]
    for place, point in measured:
        if point.interval is not None:
            ends = [scale * end for end in point.interval]
            axes.plot([place, place], ends, color=MUTED, linewidth=1)
    places = [place for place, _ in measured]
    values = [scale * (point.value or 0.0) for _, point in measured]
    (line,) = axes.plot(
        places, values, color=SERIES[0], linewidth=1, marker="o", markersize=4
    )
    mark(line, "history", low)


def _break_mark(axes: Axes, found: Break, number: int) -> None:
    line = axes.axvline(found.place - 0.5, color=MUTED, dashes=(4, 3), linewidth=1)
    mark(line, "break", number)
    text = found.text
    if len(text) > MAX_BREAK_TEXT:
        text = f"{text[: MAX_BREAK_TEXT - 1]}\N{HORIZONTAL ELLIPSIS}"
    axes.annotate(
        text,
        (found.place - 0.5, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -2),
        textcoords="offset points",
        verticalalignment="top",
        color=MUTED,
        fontsize=7.5,
    )


def _shift_mark(axes: Axes, history: History, shift: Shift, number: int) -> None:
    value = _scale(history) * (history.points[shift.place].value or 0.0)
    is_up = (shift.ratio.value or 1.0) > 1
    (triangle,) = axes.plot(
        shift.place, value, marker="^" if is_up else "v", color=INK, linestyle="none"
    )
    mark(triangle, "change", number)
    axes.annotate(
        f"{shift.verdict} {format_number(shift.ratio.value, 3)}{TIMES}",
        (shift.place, value),
        xytext=(6, 6 if is_up else -6),
        textcoords="offset points",
        verticalalignment="bottom" if is_up else "top",
    )


def _ticks(history: History) -> list[int]:
    """The places that are named: at even steps, the first and the newest too."""
    last = len(history.points) - 1
    step = max(1, -(-last // MAX_TICKS))
    return [*range(last, -1, -step)][::-1]


def _tick(point: Point) -> str:
    return f"{point.run_id}\n{point.started_at:%y-%m-%d}"


# ---------------------------------------------------------------- the table


def history_table(histories: Sequence[History]) -> Table:
    """A row for every break and every change; one for a case that has none."""
    return Table(
        headings=HEADINGS,
        rows=tuple(
            Row((*_case_cells(history), *cells))
            for history in histories
            for cells in _event_cells(history)
        ),
    )


def _case_cells(history: History) -> tuple[Cell, ...]:
    newest = history.points[-1]
    runs = len(history.points)
    if newest.value is None:
        value = missing(newest.reason)
    else:
        value = Cell(
            value_text(history, newest.value),
            hint=f"{history.metric}, median of {newest.n} trials",
            key=newest.value,
        )
    return word(history.title), Cell(str(runs), key=runs), value


def _event_cells(history: History) -> Iterator[tuple[Cell, ...]]:
    events: list[Break | Shift] = [*history.breaks, *history.shifts]
    for event in sorted(events, key=lambda e: (e.place, isinstance(e, Shift))):
        run_id = history.points[event.place].run_id
        at = Cell(str(run_id), key=run_id)
        if isinstance(event, Break):
            nothing = missing("nothing is compared across a break")
            yield at, word("break"), nothing, nothing, word(event.text)
        else:
            yield (at, *_shift_cells(event))
    if not events:
        found = "no change" if history.is_searched else "too few runs"
        nothing = missing(f"a change is looked for in {FEWEST} runs or more")
        yield nothing, word(found), nothing, nothing, nothing


def _shift_cells(shift: Shift) -> tuple[Cell, ...]:
    size = Cell(
        f"{format_number(shift.ratio.value, 3)}{TIMES}",
        shift_interval(shift),
        "95 % interval, for this place of the change",
        shift.ratio.value,
    )
    p_value = Cell(
        p_text(shift.p_value).removeprefix("p ").removeprefix("= "),
        hint="of such a change anywhere in the part by noise alone",
        key=shift.p_value,
    )
    return word(shift.verdict), size, p_value, word(shift.code)
