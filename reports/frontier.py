"""The largest batch that fits, for each model, precision and ZeRO stage."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlbench.reports.cases import CaseTrials, describe_statuses
from tlbench.reports.cells import (
    Cell,
    Row,
    Table,
    metric_cell,
    missing,
    quantity_cell,
    word,
)
from tlbench.reports.compare import THROUGHPUT
from tlbench.reports.drawing import (
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
from tlbench.reports.quantities import LARGEST_BATCH, QUANTITIES, Quantity
from tlbench.reports.series import series_names
from tlbench.units import format_count, format_number

MEMORY_LIMIT = Quantity("memory limit", "GiB", 2**-30)
FAILING = "smallest_failing_batch_size"
HEADINGS = (
    "model",
    "mode",
    "precision",
    "ZeRO",
    "devices",
    MEMORY_LIMIT.heading,
    QUANTITIES[LARGEST_BATCH].heading,
    "smallest that fails",
    f"{QUANTITIES[THROUGHPUT].title} there",
    "memory there",
)


def asks_for_the_largest(cases: Sequence[CaseTrials]) -> list[CaseTrials]:
    """The cases of `batch_size: max`, those next to each other that differ least."""
    return sorted(
        (case for case in cases if case.case.batch_size == "max"),
        key=lambda c: (c.mode, c.case.precision, c.case.parallelism.zero_stage),
    )


def frontier_table(cases: Sequence[CaseTrials]) -> Table:
    """One row for each case that asked for the largest batch, found or not."""
    rows = (
        Row((*_setting_cells(case), *_found_cells(case)))
        for case in asks_for_the_largest(cases)
    )
    return Table(HEADINGS, tuple(rows))


def _setting_cells(case: CaseTrials) -> tuple[Cell, ...]:
    spread = case.case.parallelism
    stage = (
        Cell(str(spread.zero_stage), key=spread.zero_stage)
        if case.mode == "train"
        else missing("nothing is sharded where nothing is trained")
    )
    return (
        word(case.model),
        word(case.mode),
        word(case.case.precision),
        stage,
        Cell(str(spread.world_size), key=spread.world_size),
    )


def _found_cells(case: CaseTrials) -> tuple[Cell, ...]:
    if not case.values(LARGEST_BATCH):
        return (_not_found(case),) * 5
    return (
        quantity_cell(MEMORY_LIMIT, case.summary("memory_limit_bytes")),
        metric_cell(LARGEST_BATCH, case.summary(LARGEST_BATCH)),
        _failing(case),
        _with_unit(THROUGHPUT, case),
        _with_unit(case.memory_metric, case),
    )


def _not_found(case: CaseTrials) -> Cell:
    reasons = [trial.reason for trial in case.trials if trial.reason]
    return missing("; ".join([describe_statuses(case.statuses), *reasons[:1]]))


def _failing(case: CaseTrials) -> Cell:
    summary = case.summary(FAILING)
    if summary.value is None:
        return missing(summary.reason or "")
    return Cell(format_count(summary.value), key=summary.value)


def _with_unit(metric: str, case: CaseTrials) -> Cell:
    """A metric whose unit is not the same in all rows."""
    quantity, summary = QUANTITIES[metric], case.summary(metric)
    cell = metric_cell(metric, summary)
    if summary.value is None:
        return cell
    return Cell(f"{cell.text} {quantity.unit}", cell.detail, cell.hint, cell.key)


# ---------------------------------------------------------------- chart

STATES = ("precision", "parallelism.zero_stage")
"""What the columns of the chart tell."""
PANEL = ("memory_limit_gib", "parallelism.world_size", "parallelism.nodes")
"""What the heading of a panel tells."""
APART = 0.6
"""How far the series of a column are spread, in columns."""


def frontier_chart(cases: Sequence[CaseTrials], palette: Palette) -> Chart | NoChart:
    """The largest batch of each model over precisions and ZeRO stages."""
    rows = [c for c in asks_for_the_largest(cases) if c.values(LARGEST_BATCH)]
    if not rows:
        return NoChart("no case with batch_size: max found its batch")
    panels: dict[str, list[CaseTrials]] = defaultdict(list)
    for row in rows:
        panels[_heading(row)].append(row)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(panels), squeeze=False)[:, 0]
        for axes, (heading, members) in zip(grid, panels.items(), strict=True):
            _panel(axes, members, palette)
            axes.set(title=heading, ylabel=QUANTITIES[LARGEST_BATCH].heading)
        add_legend(
            figure, max(grid, key=lambda a: len(a.get_legend_handles_labels()[1]))
        )

    return Chart(
        draw("frontier", "The largest batch that fits", 3.0 * len(panels) + 0.6, paint),
        "Median over the trials with its 95 % interval where trials found different"
        " batches. Lines join the ZeRO stages.",
    )


def _heading(case: CaseTrials) -> str:
    """Mode, ranks, and the limit where the case names one."""
    ranks, limit = case.case.parallelism.world_size, case.case.memory_limit_gib
    return ", ".join(
        [
            MODE_WORDS[case.mode],
            *([f"{ranks} ranks"] if ranks > 1 else []),
            *([f"{format_number(limit)} GiB a rank"] if limit else []),
        ]
    )


def _panel(axes: Axes, members: Sequence[CaseTrials], palette: Palette) -> None:
    columns = list(dict.fromkeys(map(_column, members)))
    names = series_names(members, (*STATES, *PANEL))
    unique = list(dict.fromkeys(names))
    for place, name in enumerate(unique):
        shift = APART * ((place + 0.5) / len(unique) - 0.5)
        of_name = [c for c, n in zip(members, names, strict=True) if n == name]
        _series(axes, palette, place, of_name, columns, shift)
        axes.plot(
            [], [],
            color=palette.colour(of_name[0].model),
            marker=palette.marker(of_name[0].model),
            label=name,
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.grid(visible=False, axis="x")
    values = [extent_of(LARGEST_BATCH, c.summary(LARGEST_BATCH)).value for c in members]
    scale_axis(axes, "y", values)
    if axes.get_yscale() == "linear":
        axes.set_ylim(bottom=0)


def _column(case: CaseTrials) -> str:
    if case.mode != "train":
        return case.case.precision
    return f"{case.case.precision}\nZeRO {case.case.parallelism.zero_stage}"


def _series(
    axes: Axes,
    palette: Palette,
    place: int,
    cases: Sequence[CaseTrials],
    columns: Sequence[str],
    shift: float,
) -> None:
    """One line a precision: ZeRO stages follow each other, precisions do not."""
    look: Mapping[str, Any] = {
        "color": palette.colour(cases[0].model),
        "marker": palette.marker(cases[0].model),
    }
    for precision in dict.fromkeys(case.case.precision for case in cases):
        joined = [case for case in cases if case.case.precision == precision]
        xs = [columns.index(_column(case)) + shift for case in joined]
        ys = [extent_of(LARGEST_BATCH, c.summary(LARGEST_BATCH)) for c in joined]
        lows, highs = zip(*((y.error[0][0], y.error[1][0]) for y in ys), strict=True)
        line, _, _ = axes.errorbar(
            xs, [y.value for y in ys], yerr=[lows, highs], capsize=3, **look
        )
        mark(line, f"batch-{precision}", place)
