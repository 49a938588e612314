"""The largest batch that fits, for each model, precision and ZeRO stage."""

from collections.abc import Sequence

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
from tlbench.reports.quantities import LARGEST_BATCH, QUANTITIES, Quantity
from tlbench.units import format_count

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
        Row(
            cells=(*_setting_cells(case), *_found_cells(case)),
            mode=case.mode,
            has_failures=len(case.finished) < len(case.trials),
        )
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
