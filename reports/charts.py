"""Charts as inline SVG: deterministic, readable in light and in dark.

matplotlib draws with stand-in colours; on the way out they become CSS variables, so
that the page decides what they look like. No pyplot, and so no global figure.
"""

import io
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from tlbench.reports.cases import CaseTrials, Summary
from tlbench.reports.compare import ACCURACY, THROUGHPUT, Comparison
from tlbench.reports.findings import MODE_WORDS
from tlbench.reports.frontier import asks_for_the_largest
from tlbench.reports.quantities import LARGEST_BATCH, QUANTITIES, STAGE_TIME, STAGES
from tlbench.units import format_number

INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES: list[str] = sns.color_palette("colorblind").as_hex()[:8]
"""Stand-ins for the colours of models; `style.css` has one variable for each."""
CSS_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)"} | {
    colour: f"var(--series-{index})" for index, colour in enumerate(SERIES)
}
MARKERS = "osD^vPX"
"""Where there are more models than colours, the marker changes with each round."""

WIDTH_INCHES = 10.5
MAX_ROWS = 40
"""Most rows of one panel; the table has the rest."""
MAX_CURVES = 12
MAX_POINTS = 200
"""Points of one drawn curve; longer ones are averaged over neighbours."""

STYLE: dict[Any, Any] = {  # matplotlib types the keys as a literal of all their names
    "svg.fonttype": "none",
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
    "lines.markersize": 7,
}

Curves = Mapping[tuple[int, str], Sequence[float]]
"""Series by trial id and name."""


@dataclass(frozen=True)
class Chart:
    """One picture, and what it leaves out."""

    svg: Markup
    note: str = ""


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
        return MARKERS[self._places[model] // len(SERIES) % len(MARKERS)]


def accuracy_chart(cases: Sequence[CaseTrials], palette: Palette) -> Chart | NoChart:
    """Top-1 against GMACs, and the front of models that no other one beats in both."""
    points = [
        _Point(case, *_scaled("macs", macs)[:1], *_scaled(ACCURACY, top1))
        for case in cases
        if (macs := case.summary("macs")).value is not None
        and (top1 := case.summary(ACCURACY)).value is not None
    ]
    if not points:
        return NoChart("no case was trained to accuracy, and random weights have none")

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for point in points:
            _dot(axes, palette, point)
        front = pareto_front([(point.x, point.y) for point in points])
        axes.plot(*zip(*front, strict=True), color=MUTED, dashes=(4, 3), zorder=1)
        if max(p.x for p in points) > 10 * min(p.x for p in points):
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.margins(0.12)
        axes.set(xlabel="GMACs per image, forward", ylabel="top-1 [%]")
        _legend(figure, axes)

    title = "Top-1 accuracy against GMACs per image"
    return Chart(
        _svg("accuracy", title, 4.4, paint),
        "Median over the trials with its 95 % interval. The dashed line joins the"
        " models that no other one beats in both.",
    )


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


def frontier_chart(cases: Sequence[CaseTrials], palette: Palette) -> Chart | NoChart:
    """The largest batch of each case that asked for it, by precision and ZeRO stage."""
    rows = [c for c in asks_for_the_largest(cases) if c.values(LARGEST_BATCH)]
    if not rows:
        return NoChart("no case with batch_size: max found its batch")
    return _bar_chart(
        "frontier", "Largest batch", rows, palette, lambda _: LARGEST_BATCH
    )


def stage_chart(cases: Sequence[CaseTrials]) -> Chart | NoChart:
    """Time of one step of each case, laid out by the stages of its model."""
    rows = [case for case in cases if _stage_times(case)]
    if not rows:
        return NoChart("no case attributed its time to the stages of its model")
    heading = f"inference: {STAGE_TIME.title} of a step [{STAGE_TIME.unit}]"
    panels = _panels(rows, lambda _: heading)
    timed = {stage for case in rows for stage in _stage_times(case)}

    def paint(figure: Figure) -> None:
        (axes,), (members,) = _stacked(figure, panels), panels.values()
        for y, case in enumerate(members):
            # The first row names every stage, those that it lacks too.
            _stage_row(axes, y, case, named=timed if y == 0 else ())
        _name_rows(axes, [case.label for case in members], heading)
        axes.set_xlim(0, 1.25 * axes.get_xlim()[1])
        _legend(figure, axes)

    height = _height(panels) + 0.3
    return Chart(
        _svg("stages", "Time by stage", height, paint),
        "Median over the trials. Behind each bar, the speed-up at best: that of a step"
        f" whose blocks after the reduction are free.{_rows_left_out(rows, panels)}",
    )


def speedup_chart(compared: Sequence[Comparison], palette: Palette) -> Chart | NoChart:
    """The speed-up that the operations predict, and the one that was measured."""
    rows = [c for c in compared if c.predicted_speedup and c.speedup.value]
    if not rows:
        return NoChart("no two models that differ only in TokenLearner were both timed")
    panels = _panels(rows, lambda c: MODE_WORDS[c.other.mode])

    def paint(figure: Figure) -> None:
        for axes, (mode, members) in zip(
            _stacked(figure, panels), panels.items(), strict=True
        ):
            for y, comparison in enumerate(members):
                _speedup_row(axes, palette, y, comparison)
            _name_rows(axes, [_versus(c) for c in members], mode)
            axes.axvline(1, color=MUTED, linewidth=1)
            axes.set_xlim(0, 1.45 * axes.get_xlim()[1])
        axes.set_xlabel("times the speed of the baseline")
        _speedup_legend(figure)

    title = "Predicted and realised speed-up"
    height = _height(panels) + 0.3
    return Chart(_svg("speed-up", title, height, paint), _rows_left_out(rows, panels))


def training_chart(
    cases: Sequence[CaseTrials], curves: Curves, palette: Palette
) -> Chart | NoChart:
    """Loss by step and top-1 by epoch: each seed thin, their mean bold."""
    drawn = [
        case
        for case in cases
        if any((trial.id, "loss") in curves for trial in case.finished)
    ]
    if not drawn:
        return NoChart("no case was trained to accuracy")

    def paint(figure: Figure) -> None:
        loss, top1 = figure.subplots(1, 2)
        for case in drawn[:MAX_CURVES]:
            _curve(loss, palette, case, _curve_frame(case, curves, "loss"))
            if case.values(ACCURACY):
                frame = _curve_frame(case, curves, "eval_top1_percent")
                _curve(top1, palette, case, frame)
        loss.set(title="Training loss", xlabel="optimiser step", ylabel="")
        top1.set(title="Top-1 on held-out images [%]", xlabel="epoch", ylabel="")
        _legend(figure, loss)

    left_out = len(drawn) - MAX_CURVES
    return Chart(
        _svg("training", "Training curves", 4.4, paint),
        "Each seed is a thin line, their mean a bold one."
        + (f" {left_out} more cases are in the table." if left_out > 0 else ""),
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, gain) points such that no other has less cost and as much gain."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


class _Point(NamedTuple):
    """One case in the plane, with the interval of its height."""

    case: CaseTrials
    x: float
    y: float
    low: float
    high: float


def _scaled(metric: str, summary: Summary) -> tuple[float, float, float]:
    """Value, low and high in the unit that is shown; no interval is a point."""
    assert summary.value is not None
    scale = QUANTITIES[metric].scale
    low, high = summary.interval or (summary.value, summary.value)
    return summary.value * scale, low * scale, high * scale


def _dot(axes: Axes, palette: Palette, point: _Point) -> None:
    axes.errorbar(
        point.x,
        point.y,
        yerr=[[max(0.0, point.y - point.low)], [max(0.0, point.high - point.y)]],
        color=palette.colour(point.case.model),
        marker=palette.marker(point.case.model),
        linestyle="none",
        capsize=3,
        label=point.case.label,
    )


def _bar_chart(
    name: str,
    title: str,
    cases: Sequence[CaseTrials],
    palette: Palette,
    metric_of: Callable[[CaseTrials], str],
) -> Chart:
    """Horizontal bars with intervals and the numbers written out."""
    panels = _panels(
        cases,
        lambda case: f"{MODE_WORDS[case.mode]}: {QUANTITIES[metric_of(case)].heading}",
    )

    def paint(figure: Figure) -> None:
        for axes, (heading, members) in zip(
            _stacked(figure, panels), panels.items(), strict=True
        ):
            for y, case in enumerate(members):
                _bar(axes, palette, y, case, metric_of(case))
            _name_rows(axes, [case.label for case in members], heading)
            axes.set_xlim(0, 1.35 * axes.get_xlim()[1])

    svg = _svg(name, title, _height(panels), paint)
    note = "Median over the trials, 95 % interval, and number of trials."
    return Chart(svg, f"{note}{_rows_left_out(cases, panels)}")


def _bar(axes: Axes, palette: Palette, y: int, case: CaseTrials, metric: str) -> None:
    summary = case.summary(metric)
    value, low, high = _scaled(metric, summary)
    axes.barh(y, value, height=0.5, color=palette.colour(case.model))
    if low < high:
        axes.plot([low, high], [y, y], color=INK, linewidth=1.4, marker="|")
    axes.annotate(
        _number(metric, summary),
        (max(value, high), y),
        xytext=(8, 0),
        textcoords="offset points",
        verticalalignment="center",
    )


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
    end = 0.0
    for place, (stage, title) in enumerate(STAGES.items()):
        value = _stage_times(case).get(stage, 0.0)
        label = title if stage in named else None
        axes.barh(y, value, left=end, height=0.5, color=SERIES[place], label=label)
        end += value
    ceiling = case.summary("removal_ceiling_ratio").value
    if ceiling is not None:
        axes.annotate(
            f"at best {format_number(ceiling, 3)}\N{MULTIPLICATION SIGN}",
            (end, y),
            xytext=(8, 0),
            textcoords="offset points",
            verticalalignment="center",
        )


def _speedup_row(axes: Axes, palette: Palette, y: int, comparison: Comparison) -> None:
    predicted = comparison.predicted_speedup or 0
    realised = comparison.speedup.value or 0
    fraction = comparison.realised_speedup_fraction or 0
    colour = palette.colour(comparison.other.model)
    low, high = comparison.speedup.interval or (realised, realised)
    axes.plot(predicted, y, marker="D", markerfacecolor="none", color=MUTED)
    axes.plot([low, high], [y, y], color=colour, linewidth=2)
    axes.plot(realised, y, marker="o", color=colour)
    axes.annotate(
        f"{format_number(realised, 3)} of {format_number(predicted, 3)}"
        f" = {format_number(100 * fraction, 3)} %",
        (max(predicted, high), y),
        xytext=(10, 0),
        textcoords="offset points",
        verticalalignment="center",
    )


def _speedup_legend(figure: Figure) -> None:
    marks = [
        Line2D(
            [], [], marker="D", markerfacecolor="none", color=MUTED, linestyle="none"
        ),
        Line2D([], [], marker="o", color=INK),
    ]
    labels = ["predicted by the operations", "realised, 95 % interval"]
    figure.legend(marks, labels, loc="outside lower center", ncols=2)


def _versus(comparison: Comparison) -> str:
    if comparison.has_own_baseline:
        return comparison.other.label
    return f"{comparison.other.label}\nagainst {comparison.base.model}"


_Row = TypeVar("_Row")


def _panels(
    rows: Sequence[_Row], heading: Callable[[_Row], str]
) -> dict[str, list[_Row]]:
    panels: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        panels[heading(row)].append(row)
    return {title: members[:MAX_ROWS] for title, members in panels.items()}


def _stacked(figure: Figure, panels: Mapping[str, Sequence[object]]) -> list[Axes]:
    """One axes a panel, one over the other, as high as it has rows."""
    heights = [len(rows) + 1 for rows in panels.values()]
    grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    return list(grid[:, 0])


def _height(panels: Mapping[str, Sequence[object]]) -> float:
    rows = sum(len(members) for members in panels.values())
    return 0.42 * rows + 0.75 * len(panels)


def _name_rows(axes: Axes, names: Sequence[str], heading: str) -> None:
    axes.set_title(heading)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first on top
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _rows_left_out(
    rows: Sequence[object], panels: Mapping[str, Sequence[object]]
) -> str:
    left_out = len(rows) - sum(len(members) for members in panels.values())
    return f" {left_out} more rows are in the table." if left_out > 0 else ""


def _curve_frame(case: CaseTrials, curves: Curves, name: str) -> pd.DataFrame:
    """Tidy points of one series of a case: trial, x, y."""
    frames = [
        thinned(curves[trial.id, name]).assign(trial=trial.id)
        for trial in case.finished
        if curves.get((trial.id, name))
    ]
    return pd.concat(frames) if frames else pd.DataFrame({"x": [], "y": []})


def thinned(values: Sequence[float]) -> pd.DataFrame:
    """At most `MAX_POINTS` points, each the mean of neighbours; counted from 1."""
    width = -(-len(values) // MAX_POINTS)
    steps = pd.DataFrame({"x": range(1, len(values) + 1), "y": values})
    return steps.groupby(np.arange(len(values)) // width).mean()


def _curve(axes: Axes, palette: Palette, case: CaseTrials, frame: pd.DataFrame) -> None:
    colour = palette.colour(case.model)
    for _, seed in frame.groupby("trial") if "trial" in frame else ():
        axes.plot(seed["x"], seed["y"], color=colour, linewidth=0.7, alpha=0.45)
    sns.lineplot(
        frame, x="x", y="y", errorbar=None, color=colour, label=case.label, ax=axes,
        legend=False,
    )  # fmt: skip


def _legend(figure: Figure, axes: Axes) -> None:
    """Under the chart, in as many columns as the names leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), 100 // (max(map(len, labels)) + 6)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _svg(
    name: str, title: str, height_inches: float, paint: Callable[[Figure], None]
) -> Markup:
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        paint(figure)
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)
    return _inline(drawn.getvalue(), name, title)


def _inline(document: str, name: str, title: str) -> Markup:
    """The SVG element alone, fit to stand in a page beside others."""
    view_box = re.search(r'viewBox="[^"]*"', document)
    body = re.search(r"<svg[^>]*>(.*)</svg>", document, re.DOTALL)
    assert view_box is not None  # every figure that matplotlib writes has both
    assert body is not None
    inner = re.sub(r"<style.*?</style>", "", body[1])  # it would style the whole page
    inner = inner.replace("xlink:href", "href")
    inner = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", inner)
    for colour, css in CSS_COLOURS.items():
        inner = inner.replace(colour, css)
    return Markup(
        f'<svg role="img" aria-labelledby="{name}-title" {view_box[0]}>'
        f'<title id="{name}-title">{title}</title>{inner}</svg>'
    )
