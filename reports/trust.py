"""How far a run may be trusted: validity, steadiness and doubts, case by case."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import log
from statistics import stdev

from tlbench.reports.cases import CaseTrials, describe_statuses
from tlbench.reports.cells import Cell, Row, Table, missing, quantity_cell, word
from tlbench.reports.compare import THROUGHPUT, TIMED_MODES
from tlbench.reports.quantities import MACHINE
from tlbench.units import format_number


def trust_table(cases: Sequence[CaseTrials]) -> Table:
    """Every timed case: how its trials were judged, how steady, how far apart."""
    return Table(
        headings=(
            "case",
            "mode",
            "validity",
            "steps are",
            "stopped by",
            "trials apart by [%]",
            "doubts",
        ),
        rows=tuple(
            Row(_cells(case))
            for case in cases
            if case.mode in TIMED_MODES and case.finished
        ),
    )


def machine_table(cases: Sequence[CaseTrials]) -> Table:
    """What the machine did while each case was timed, as far as anything tells."""
    timed = [case for case in cases if case.mode in TIMED_MODES and case.finished]
    shown = [name for name in MACHINE if any(case.values(name) for case in timed)]
    return Table(
        headings=("case", "mode", *(MACHINE[name].heading for name in shown)),
        rows=tuple(
            Row(
                (
                    word(case.label),
                    word(case.mode),
                    *(quantity_cell(MACHINE[n], case.summary(n)) for n in shown),
                )
            )
            for case in timed
            if shown
        ),
    )


def _cells(case: CaseTrials) -> tuple[Cell, ...]:
    return (
        word(case.label),
        word(case.mode),
        _judged(case),
        word(_counted(trial.notes.get("steady_state") for trial in case.finished)),
        word(_counted(trial.notes.get("stopped_by") for trial in case.finished)),
        _spread(case),
        word("; ".join(case.doubts) or "none"),
    )


def _judged(case: CaseTrials) -> Cell:
    counts = Counter(trial.validity for trial in case.finished)
    if set(counts) == {None}:
        return missing("trials were not judged when they were stored")
    return word(describe_statuses({str(v): n for v, n in counts.items() if v}))


def _counted(words: Iterable[str | None]) -> str:
    """Such as `4 flat, 1 slowing`; what is the same everywhere without its number."""
    counts = Counter(text or "not noted" for text in words)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {text}" for text, count in counts.most_common())


def _spread(case: CaseTrials) -> Cell:
    """Standard deviation of the trials' logarithms, in percent of the value."""
    values = case.values(THROUGHPUT).values()
    if len(values) < 2:
        return missing("one trial has no spread")
    if min(values) <= 0:
        return missing("a spread in percent needs values above zero")
    percent = 100 * stdev(map(log, values))
    return Cell(format_number(percent, 3), key=percent)
