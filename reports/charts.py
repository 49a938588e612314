"""Charts with a row for each case: throughput, memory, stages and speed-ups."""

from collections.abc import Callable, Collection, Sequence
from math import log10
from sys import float_info

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from tlbench.reports.cases import CaseTrials, Summary
from tlbench.reports.compare import THROUGHPUT, Comparison
from tlbench.reports.drawing import (
    INK,
    MUTED,
    SERIES,
    Chart,
    Extent,
    NoChart,
    Palette,
    add_legend,
    draw,
    extent_of,
    height_of,
    mark,
    name_rows,
    panels_of,
    rows_left_out,
    scale_axis,
    shared,
    stacked,
    write_behind,
)
from tlbench.reports.findings import MODE_WORDS
from tlbench.reports.quantities import QUANTITIES, STAGE_TIME, STAGES
from tlbench.reports.verdicts import TIMES
from tlbench.units import format_number

FAR = 20
"""Where the largest is more times the smallest, bars would hide small values."""


def throughput_chart(cases: Sequence[CaseTrials], palette: Palette) -> Chart | NoChart:
    """Throughput of each case, a panel for each mode."""
    rows = [case for case in cases if case.values(THROUGHPUT)]
    if not rows:
        return NoChart("no case measured a throughput")
    return _bar_chart("throughput", "Throughput", rows, palette, lambda _: THROUGHPUT)


def memory_chart(cases: Sequence[CaseTrials], palette: Palette) -> Chart | NoChart:
    """Peak memory of each case, a panel for each mode."""
    rows = [case for case in cases if case.values(case.memory_metric)]
    if not rows:
        return NoChart("no case measured its memory")
    return _bar_chart(
        "memory", "Peak memory", rows, palette, lambda case: case.memory_metric
    )


def stage_chart(cases: Sequence[CaseTrials]) -> Chart | NoChart:
    """Time of one step of each case, laid out by the stages of its model."""
    rows = [case for case in cases if _stage_times(case)]
    if not rows:
        return NoChart("no case attributed its time to the stages of its model")
    heading = f"inference: {STAGE_TIME.title} of a step [{STAGE_TIME.unit}]"
    panels = shared(panels_of(rows, lambda _: heading))
    timed = {stage for case in rows for stage in _stage_times(case)}

    def paint(figure: Figure) -> None:
        (axes,), (members,) = stacked(figure, panels), panels.values()
        for y, case in enumerate(members):
            # The first row names every stage, those that it lacks too.
            _stage_row(axes, y, case, named=timed if y == 0 else ())
        name_rows(axes, [case.label for case in members], heading)
        ends = [sum(_stage_times(case).values()) for case in members]
        write_behind(axes, ends, [_at_best(case) for case in members])
        add_legend(figure, axes)

    height = height_of(panels) + 0.3
    return Chart(
        draw("stages", "Time by stage", height, paint),
        "Median over the trials. Behind each bar, the speed-up at best: that of a step"
        f" whose blocks after the reduction are free.{rows_left_out(rows, panels)}",
    )


def speedup_chart(compared: Sequence[Comparison], palette: Palette) -> Chart | NoChart:
    """The speed-up that the operations predict, and the one that was measured."""
    rows = [c for c in compared if c.predicted_speedup and c.speedup.value]
    if not rows:
        return NoChart("no two models that differ only in TokenLearner were both timed")
    panels = shared(panels_of(rows, lambda c: MODE_WORDS[c.other.mode]))

    def paint(figure: Figure) -> None:
        for axes, (mode, members) in zip(
            stacked(figure, panels), panels.items(), strict=True
        ):
            ends = [_speedup_row(axes, palette, y, c) for y, c in enumerate(members)]
            name_rows(axes, [_versus(c) for c in members], mode)
            axes.axvline(1, color=MUTED, linewidth=1)
            write_behind(axes, ends, [_share_of_predicted(c) for c in members])
        axes.set_xlabel("times the speed of the baseline")
        _speedup_legend(figure)

    title = "Predicted and realised speed-up"
    height = height_of(panels) + 0.3
    return Chart(draw("speed-up", title, height, paint), rows_left_out(rows, panels))


def _bar_chart(
    name: str,
    title: str,
    cases: Sequence[CaseTrials],
    palette: Palette,
    metric_of: Callable[[CaseTrials], str],
) -> Chart:
    """Horizontal bars with intervals and the numbers written out.

    Points on a logarithmic axis where the values are far apart: a bar begins at zero.
    """
    panels = shared(
        panels_of(
            cases,
            lambda c: f"{MODE_WORDS[c.mode]}: {QUANTITIES[metric_of(c)].heading}",
        )
    )

    def paint(figure: Figure) -> None:
        for axes, (heading, members) in zip(
            stacked(figure, panels), panels.items(), strict=True
        ):
            summaries = [(metric_of(c), c.summary(metric_of(c))) for c in members]
            extents = [extent_of(metric, summary) for metric, summary in summaries]
            is_wide = _is_wide(extents)
            draw_one = _point if is_wide else _bar
            ends = [
                draw_one(axes, palette.colour(case.model), y, extent)
                for y, (case, extent) in enumerate(zip(members, extents, strict=True))
            ]
            name_rows(axes, [case.label for case in members], heading)
            write_behind(axes, ends, [_number(*summary) for summary in summaries])
            if is_wide:
                _make_logarithmic(axes, min(e.low for e in extents), max(ends))

    note = "Median over the trials, 95 % interval, and number of trials."
    return Chart(
        draw(name, title, height_of(panels), paint),
        f"{note}{rows_left_out(cases, panels)}",
    )


def _is_wide(extents: Sequence[Extent]) -> bool:
    """Whether they are far apart, and all have a place on a logarithmic axis."""
    values = [extent.value for extent in extents]
    return min(e.low for e in extents) > 0 and max(values) > FAR * min(values)


def _point(axes: Axes, colour: str, y: int, extent: Extent) -> float:
    """Draw one; returns where it ends."""
    if extent.low < extent.high:
        _interval(axes, y, extent.low, extent.high, INK, ends="|")
    (point,) = axes.plot(extent.value, y, marker="o", color=colour)
    mark(point, "point", y)
    return max(extent.value, extent.high)


def _make_logarithmic(axes: Axes, low: float, high: float) -> None:
    """Keep the share of the width that was left for the numbers."""
    share = high / axes.get_xlim()[1]
    start = log10(low / 1.2)
    end = start + (log10(high) - start) / share
    axes.set_xlim(low / 1.2, 10.0 ** min(end, float_info.max_10_exp))
    scale_axis(axes, "x", [low, high])
    if high > 1000 * low:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
    axes.set_xlabel("logarithmic axis")


def _bar(axes: Axes, colour: str, y: int, extent: Extent) -> float:
    """Draw one; returns where it ends."""
    (bar,) = axes.barh(y, extent.value, height=0.5, color=colour)
    mark(bar, "bar", y)
    if extent.low < extent.high:
        _interval(axes, y, extent.low, extent.high, INK, ends="|")
    return max(extent.value, extent.high)


def _interval(
    axes: Axes, y: int, low: float, high: float, colour: str, ends: str = ""
) -> None:
    (line,) = axes.plot([low, high], [y, y], color=colour, lw=1.4, marker=ends)
    mark(line, "interval", y)


def _number(metric: str, summary: Summary) -> str:
    assert summary.value is not None
    quantity = QUANTITIES[metric]
    interval = quantity.interval_text(summary.interval)
    spread = f" ({interval})" if interval else ""
    return f"{quantity.text(summary.value)}{spread}, n={summary.n}"


def _stage_times(case: CaseTrials) -> dict[str, float]:
    """The stages that were timed, in the unit that is shown."""
    times = {stage: case.summary(f"stage_{stage}_time_s").value for stage in STAGES}
    return {s: v * STAGE_TIME.scale for s, v in times.items() if v is not None}


def _stage_row(axes: Axes, y: int, case: CaseTrials, named: Collection[str]) -> None:
    times, end = _stage_times(case), 0.0
    for place, (stage, title) in enumerate(STAGES.items()):
        value = times.get(stage, 0.0)
        label = title if stage in named else None
        colour = SERIES[place]
        (bar,) = axes.barh(y, value, left=end, height=0.5, color=colour, label=label)
        mark(bar, stage, y)
        end += value


def _at_best(case: CaseTrials) -> str:
    ceiling = case.summary("removal_ceiling_ratio").value
    return "" if ceiling is None else f"at best {format_number(ceiling, 3)}{TIMES}"


def _speedup_row(axes: Axes, palette: Palette, y: int, comparison: Comparison) -> float:
    """Draw one; returns where it ends."""
    predicted, realised = comparison.predicted_speedup, comparison.speedup.value
    assert predicted is not None  # rows without either are not drawn
    assert realised is not None
    colour = palette.colour(comparison.other.model)
    low, high = comparison.speedup.interval or (realised, realised)
    (hollow,) = axes.plot(predicted, y, marker="D", markerfacecolor="none", color=MUTED)
    mark(hollow, "predicted", y)
    _interval(axes, y, low, high, colour)
    (point,) = axes.plot(realised, y, marker="o", color=colour)
    mark(point, "realised", y)
    return max(predicted, high)


def _share_of_predicted(comparison: Comparison) -> str:
    fraction = comparison.realised_speedup_fraction
    assert fraction is not None
    realised = format_number(comparison.speedup.value, 3)
    predicted = format_number(comparison.predicted_speedup, 3)
    return f"{realised} of {predicted} = {format_number(100 * fraction, 3)} %"


def _speedup_legend(figure: Figure) -> None:
    marks = [
        Line2D([], [], marker="D", markerfacecolor="none", color=MUTED, ls="none"),
        Line2D([], [], marker="o", color=INK),
    ]
    labels = ["predicted by the operations", "realised, 95 % interval"]
    figure.legend(marks, labels, loc="outside lower center", ncols=2)


def _versus(comparison: Comparison) -> str:
    if comparison.has_own_baseline:
        return comparison.other.label
    return f"{comparison.other.label}\nagainst {comparison.base.model}"
