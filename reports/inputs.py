"""What loading the samples costs: a case beside the same one with a kept batch."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tlbench.reports.cases import CaseTrials
from tlbench.reports.cells import (
    Cell,
    Row,
    Table,
    missing,
    quantity_cell,
    ratio_cell,
    verdict_cell,
    word,
)
from tlbench.reports.compare import ratio_of
from tlbench.reports.quantities import Quantity
from tlbench.statistics import Ratio
from tlbench.units import format_count

WAIT = Quantity("waits for input", "%", 100)
SUPPLY = Quantity("the loader alone", "samples/s")


class InputComparison(NamedTuple):
    """A case that loads its samples, and the same without loading where that ran."""

    loaded: CaseTrials
    fixed: CaseTrials | None

    @property
    def ratio(self) -> Ratio | None:
        """Throughput with loading over that without."""
        if self.fixed is None:
            return None
        return ratio_of(self.fixed, self.loaded)


def input_comparisons(cases: Sequence[CaseTrials]) -> Iterator[InputComparison]:
    """Every case that loads its samples, in order."""
    alike: dict[tuple[object, ...], list[CaseTrials]] = defaultdict(list)
    for case in cases:
        alike[case.all_but("input")].append(case)
    for case in cases:
        if case.case.input.kind == "loader" and case.mode != "profile":
            fixed = [c for c in alike[case.all_but("input")] if _is_fixed(c)]
            yield InputComparison(case, fixed[0] if fixed else None)


def _is_fixed(case: CaseTrials) -> bool:
    return case.case.input.kind == "fixed"


def input_table(cases: Sequence[CaseTrials]) -> Table:
    """One row for each case that loads: what that costs, and what would end it."""
    return Table(
        headings=(
            "case",
            "mode",
            "workers",
            "throughput over that of a kept batch",
            "verdict",
            WAIT.heading,
            SUPPLY.heading,
            "workers needed",
        ),
        rows=tuple(Row(_cells(item)) for item in input_comparisons(cases)),
    )


def _cells(item: InputComparison) -> tuple[Cell, ...]:
    ratio, case = item.ratio, item.loaded
    alone = missing("the case with `input: {kind: fixed}` did not run beside it")
    workers = case.case.input.workers
    return (
        word(case.label),
        word(case.mode),
        Cell(str(workers), key=workers),
        alone if ratio is None else ratio_cell(ratio),
        alone if ratio is None else verdict_cell(ratio),
        quantity_cell(WAIT, case.summary("data_wait_fraction")),
        quantity_cell(SUPPLY, case.summary("input_throughput_samples_per_s")),
        _needed(case),
    )


def _needed(case: CaseTrials) -> Cell:
    """As many workers as the model would keep busy, in whole numbers."""
    needed = case.summary("input_workers_needed")
    if needed.value is None:
        return missing(needed.reason or "")
    return Cell(format_count(needed.value), key=needed.value)
