"""Accuracy against what it costs: the front of models that no other one beats in both.

A model's place on the front is settled by intervals. Each model is a box: the interval
of its cost by that of its accuracy. It is surely beaten where the best corner of its
box is beaten by the worst corner of another one, and surely on the front where not even
its worst corner is beaten by the best corner of any. All else is not settled.
"""

import json
import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlbench.reports.cases import CaseTrials, all_but_model
from tlbench.reports.cells import Cell, Row, Table, metric_cell, missing, word
from tlbench.reports.compare import THROUGHPUT
from tlbench.reports.drawing import (
    MUTED,
    Chart,
    NoChart,
    Palette,
    add_legend,
    draw,
    extent_of,
    mark,
    scale_axis,
)
from tlbench.reports.findings import MODE_WORDS
from tlbench.reports.quantities import QUANTITIES
from tlbench.reports.series import series_names
from tlbench.statistics import Interval

COMPUTE = "macs"
Place = Literal["on", "beaten", "open"]
PLACES: dict[Place, str] = {
    "on": "on the front",
    "beaten": "beaten by another",
    "open": "not settled",
}
Look = Mapping[str, Any]
"""Properties of matplotlib's lines."""
LOOKS: dict[Place, Look] = {
    "on": {"markersize": 8},
    "beaten": {"markersize": 4},
    "open": {"markersize": 8, "markerfacecolor": "none"},
}
FRONT_NOTE = (
    "Medians over the trials with their 95 % intervals, in both directions where both"
    " are measured. The dashed steps are the front of the medians: the models that no"
    " other one beats in both. Whether a model is on it is decided by the intervals: it"
    " is beaten where another one is better in both even at the wrong ends of all"
    " intervals, and on the front where none would be even at the right ends; all else"
    " is not settled, and of a single trial little is."
)


@dataclass(frozen=True)
class Point:
    """A model that was trained, and the case that tells what it costs."""

    trained: CaseTrials
    costed: CaseTrials
    metric: str
    """What it costs: `macs`, or `throughput_samples_per_s`, of which more is better."""

    @property
    def measure(self) -> str:
        """The metric of its accuracy."""
        return _measure(self.trained)

    @property
    def box(self) -> "Box":
        cost = _bounds(self.costed, self.metric)
        if self.metric == THROUGHPUT:
            cost = -cost[1], -cost[0]
        return Box(cost, _bounds(self.trained, self.measure))

    @property
    def medians(self) -> tuple[float, float]:
        """As the chart shows them."""
        x = extent_of(self.metric, self.costed.summary(self.metric))
        y = extent_of(self.measure, self.trained.summary(self.measure))
        return x.value, y.value


@dataclass(frozen=True)
class Box:
    """Where a model may lie."""

    cost: Interval
    gain: Interval

    def surely_beats(self, other: "Box") -> bool:
        ours, theirs = (self.cost[1], self.gain[0]), (other.cost[0], other.gain[1])
        return _beats(ours, theirs)

    def may_beat(self, other: "Box") -> bool:
        ours, theirs = (self.cost[0], self.gain[1]), (other.cost[1], other.gain[0])
        return _beats(ours, theirs)


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether a (cost, gain) is as good in both and better in one."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def places(boxes: Sequence[Box]) -> list[Place]:
    """Whether each is on the front, as far as the intervals settle it."""
    return [
        _place(box, [other for other in boxes if other is not box]) for box in boxes
    ]


def _place(box: Box, others: Sequence[Box]) -> Place:
    if any(other.surely_beats(box) for other in others):
        return "beaten"
    return "open" if any(other.may_beat(box) for other in others) else "on"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, gain) points such that no other has less cost and as much gain."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def _bounds(case: CaseTrials, metric: str) -> Interval:
    """The interval; of one trial nothing is known, what is counted has no error."""
    summary = case.summary(metric)
    assert summary.value is not None  # a point has both
    if summary.interval is not None:
        return summary.interval
    if metric == COMPUTE or summary.n > 1:
        return summary.value, summary.value
    return -math.inf, math.inf


# ---------------------------------------------------------------- points


def by_compute(cases: Sequence[CaseTrials]) -> list[Point]:
    """Every case that was trained to accuracy, where its compute is known."""
    return [
        Point(case, case, COMPUTE) for case in _trained(cases) if case.values(COMPUTE)
    ]


def by_throughput(cases: Sequence[CaseTrials]) -> list[Point]:
    """Every case that was trained, with the inference of the same model and run.

    Of one task all at the same settings on one machine: those at which most of its
    models were timed, the first of these if there are several.
    """
    trained = _trained(cases)
    of_task: dict[Hashable, list[CaseTrials]] = defaultdict(list)
    for case in trained:
        of_task[_task(case)].append(case)
    timed = {task: _speeds(cases, group) for task, group in of_task.items()}
    return [
        Point(case, timed[_task(case)][_model(case)], THROUGHPUT)
        for case in trained
        if _model(case) in timed[_task(case)]
    ]


def _speeds(
    cases: Sequence[CaseTrials], trained: Sequence[CaseTrials]
) -> Mapping[Hashable, CaseTrials]:
    """Inference of the trained models, at the settings that most of them have."""
    models = {_model(case) for case in trained}
    timed: dict[Hashable, dict[Hashable, CaseTrials]] = defaultdict(dict)
    for case in cases:
        if case.mode == "infer" and case.values(THROUGHPUT) and _model(case) in models:
            timed[_circumstances(case)][_model(case)] = case
    return max(timed.values(), key=len, default={})


def _trained(cases: Sequence[CaseTrials]) -> list[CaseTrials]:
    return [case for case in cases if case.accuracies]


def _measure(case: CaseTrials) -> str:
    measure = case.case.accuracy_metric
    assert measure is not None  # a trained case has one
    return measure


def _task(case: CaseTrials) -> Hashable:
    """Accuracies at different tasks have no front in common."""
    return case.mode, case.case.data, _measure(case)


def _model(case: CaseTrials) -> Hashable:
    spec = json.dumps(case.case.canonical()["model"], sort_keys=True)
    return case.run_id, case.machine_id, spec


def _circumstances(case: CaseTrials) -> Hashable:
    return case.machine_id, *all_but_model(case.case)


# ---------------------------------------------------------------- charts


def accuracy_chart(cases: Sequence[CaseTrials], palette: Palette) -> Chart | NoChart:
    """Accuracy against GMACs, and the front; a panel for each task."""
    points = by_compute(cases)
    if not points:
        return NoChart("no case was trained to accuracy, and random weights have none")
    title = "Accuracy against GMACs per sample"
    return _front_chart("accuracy", title, points, palette, FRONT_NOTE)


def speed_front_chart(cases: Sequence[CaseTrials], palette: Palette) -> Chart | NoChart:
    """Accuracy against measured throughput, and the front; a panel for each task."""
    points = by_throughput(cases)
    if not points:
        return NoChart("no model was both trained to accuracy and timed in inference")
    title = "Accuracy against measured throughput"
    note = "Front and places as in the chart against compute."
    return _front_chart("accuracy-throughput", title, points, palette, note)


def _front_chart(
    name: str, title: str, points: Sequence[Point], palette: Palette, note: str
) -> Chart:
    panels = list(_by_task(points).values())
    settled = _settled(points)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(1, len(panels), squeeze=False)
        for axes, members in zip(grid[0], panels, strict=True):
            names = series_names([p.trained for p in members], ("mode", "data"))
            for number, (point, label) in enumerate(zip(members, names, strict=True)):
                look = LOOKS[settled[id(point)]]
                _dot(axes, palette, number, point, label, look)
            _steps(axes, members)
            scale_axis(axes, "x", [point.medians[0] for point in members])
            axes.margins(0.12)
            axes.set(title=_words(members[0]), xlabel=_cost_label(members[0]))
            axes.set_ylabel(QUANTITIES[members[0].measure].heading)
            for place in dict.fromkeys(settled[id(point)] for point in members):
                _legend_entry(axes, PLACES[place], MUTED, "o", LOOKS[place])
        add_legend(figure, *grid[0])

    return Chart(draw(name, title, 4.4, paint), note)


def _by_task(points: Sequence[Point]) -> dict[Hashable, list[Point]]:
    panels: dict[Hashable, list[Point]] = defaultdict(list)
    for point in points:
        panels[_task(point.trained)].append(point)
    return panels


def _settled(points: Sequence[Point]) -> dict[int, Place]:
    """The place of each point, by its id, among those of its task."""
    return {
        id(point): place
        for members in _by_task(points).values()
        for point, place in zip(
            members, places([point.box for point in members]), strict=True
        )
    }


def _words(point: Point) -> str:
    return f"{MODE_WORDS[point.trained.mode].capitalize()}, {point.trained.case.data}"


def _cost_label(point: Point) -> str:
    if point.metric == COMPUTE:
        return "GMACs per sample, forward"
    case = point.costed.case
    return (
        f"{QUANTITIES[THROUGHPUT].heading},"
        f" {MODE_WORDS[case.mode]} at batch {case.batch_size} in {case.precision}"
    )


def _legend_entry(
    axes: Axes, label: str, colour: str, marker: str, look: Look = MappingProxyType({})
) -> None:
    axes.plot([], [], color=colour, marker=marker, ls="none", label=label, **look)


def _dot(
    axes: Axes, palette: Palette, number: int, point: Point, label: str, look: Look
) -> None:
    x = extent_of(point.metric, point.costed.summary(point.metric))
    y = extent_of(point.measure, point.trained.summary(point.measure))
    model = point.trained.model
    colour, marker = palette.colour(model), palette.marker(model)
    line, _, bars = axes.errorbar(
        x.value,
        y.value,
        xerr=x.error if x.low < x.high else None,
        yerr=y.error,
        color=colour,
        marker=marker,
        linestyle="none",
        capsize=3,
        **look,
    )
    _legend_entry(axes, label, colour, marker)
    mark(line, "point", number)
    for bar, kind in zip(reversed(bars), ("yerror", "xerror"), strict=False):
        mark(bar, kind, number)


def _steps(axes: Axes, points: Sequence[Point]) -> None:
    """The most accuracy at no more compute, or at no less throughput."""
    is_speed = points[0].metric == THROUGHPUT
    sign = -1 if is_speed else 1
    front = pareto_front([(sign * x, y) for x, y in (p.medians for p in points)])
    xs, ys = zip(*((sign * x, y) for x, y in front[::sign]), strict=True)
    where: Literal["pre", "post"] = "pre" if is_speed else "post"
    (line,) = axes.step(xs, ys, where=where, color=MUTED, dashes=(4, 3), zorder=1)
    mark(line, "front", 0)


# ---------------------------------------------------------------- table


def front_table(cases: Sequence[CaseTrials]) -> Table:
    """Every trained case: its accuracy, what it costs, and its place on both fronts."""
    trained = _trained(cases)
    of_compute, of_speed = _placed(by_compute(cases)), _placed(by_throughput(cases))
    measures = dict.fromkeys(_measure(case) for case in trained)
    return Table(
        headings=(
            "case",
            *(QUANTITIES[measure].heading for measure in measures),
            QUANTITIES[COMPUTE].heading,
            "by compute",
            QUANTITIES[THROUGHPUT].heading,
            "by throughput",
        ),
        rows=tuple(
            Row(
                (
                    word(case.label),
                    *(_accuracy_cell(case, measure) for measure in measures),
                    *_cost_cells(of_compute.get(id(case))),
                    *_cost_cells(of_speed.get(id(case))),
                )
            )
            for case in trained
        ),
    )


def _accuracy_cell(case: CaseTrials, measure: str) -> Cell:
    if measure != _measure(case):
        return missing(f"measured in {QUANTITIES[_measure(case)].title} here")
    return metric_cell(measure, case.summary(measure))


def _placed(points: Sequence[Point]) -> dict[int, tuple[Point, Place]]:
    settled = _settled(points)
    return {id(point.trained): (point, settled[id(point)]) for point in points}


def _cost_cells(placed: tuple[Point, Place] | None) -> tuple[Cell, Cell]:
    if placed is None:
        return (missing("not measured at the settings of the others"),) * 2
    point, place = placed
    cost = metric_cell(point.metric, point.costed.summary(point.metric))
    return cost, word(PLACES[place])
