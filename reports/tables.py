"""The tables of the report: what stands in each cell, and what it sorts by."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tlbench.reports.cases import (
    DEVICE_MEMORY,
    HOST_MEMORY,
    CaseTrials,
    Summary,
    describe_statuses,
)
from tlbench.reports.compare import ACCURACY, Comparison
from tlbench.reports.findings import describe_evidence, signed
from tlbench.reports.quantities import QUANTITIES
from tlbench.statistics import Ratio
from tlbench.units import UNKNOWN, format_number


@dataclass(frozen=True)
class Cell:
    """One cell: text, a smaller second line, and words that explain it."""

    text: str
    detail: str = ""
    hint: str = ""
    """Shown on hovering; the reason where the value is missing."""
    key: float | str | None = None
    """What the column is sorted by; None: last."""
    is_number: bool = True


@dataclass(frozen=True)
class Row:
    """One row, and what it can be filtered by."""

    cells: tuple[Cell, ...]
    mode: str
    has_failures: bool = False


@dataclass(frozen=True)
class Table:
    """Headings with their rows."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]


SUMMARY = (
    "throughput_samples_per_s",
    "latency_p50_s",
    DEVICE_MEMORY,
    HOST_MEMORY,
    "top1_percent",
    "train_time_s",
)
"""The metrics that a terminal has room for."""


def summary_table(cases: Sequence[CaseTrials]) -> Table:
    """Every case in one line: its trials and the metrics of the summary it has."""
    shown = _measured(cases, SUMMARY)
    return Table(
        headings=("case", "mode", "trials", *(QUANTITIES[n].heading for n in shown)),
        rows=tuple(
            Row(
                cells=(
                    _word(case.label),
                    _word(case.mode),
                    _word(describe_statuses(case.statuses)),
                    *(metric_cell(name, case.summary(name)) for name in shown),
                ),
                mode=case.mode,
            )
            for case in cases
        ),
    )


def _measured(cases: Sequence[CaseTrials], names: Iterable[str]) -> list[str]:
    """Those of the metrics that at least one case has."""
    return [name for name in names if any(case.values(name) for case in cases)]


def case_table(cases: Sequence[CaseTrials], compared: Sequence[Comparison]) -> Table:
    """Every case with each metric that at least one of them has."""
    shown = _measured(cases, QUANTITIES)
    speedups = {id(c.other): c for c in compared}
    return Table(
        headings=(
            "case",
            "mode",
            "data",
            "batch",
            "precision",
            "trials",
            *(QUANTITIES[name].heading for name in shown),
            "speed-up",
        ),
        rows=tuple(
            Row(
                cells=(
                    *_setting_cells(case),
                    *(metric_cell(name, case.summary(name)) for name in shown),
                    _speedup_cell(speedups.get(id(case))),
                ),
                mode=case.mode,
                has_failures=len(case.finished) < len(case.trials),
            )
            for case in cases
        ),
    )


def comparison_table(compared: Sequence[Comparison]) -> Table:
    """Every comparison: what was predicted, what came of it, and what it costs."""
    return Table(
        headings=(
            "case",
            "baseline",
            "mode",
            "predicted",
            "realised",
            "verdict",
            "share of predicted [%]",
            "peak memory",
            "top-1 [points]",
        ),
        rows=tuple(
            Row(
                cells=(
                    _word(c.other.label),
                    _word(c.base.model),
                    _word(c.other.mode),
                    _predicted_cell(c),
                    ratio_cell(c.speedup),
                    _verdict_cell(c.speedup),
                    _share_cell(c),
                    ratio_cell(c.ratio(c.memory_metric)),
                    _accuracy_cell(c),
                ),
                mode=c.other.mode,
            )
            for c in compared
        ),
    )


def metric_cell(name: str, summary: Summary) -> Cell:
    if summary.value is None:
        return _missing(summary.reason or "")
    quantity = QUANTITIES[name]
    detail = quantity.interval_text(summary.interval)
    hint = f"median of {summary.n} trials" if summary.n > 1 else "one trial"
    if detail:
        hint += ", 95 % interval below"
    return Cell(quantity.text(summary.value), detail, hint, summary.value)


def ratio_cell(ratio: Ratio) -> Cell:
    if ratio.value is None:
        return _missing(ratio.reason or "")
    detail = ""
    if ratio.interval is not None:
        detail = " to ".join(format_number(end, 3) for end in ratio.interval)
    text = f"{format_number(ratio.value, 3)}\N{MULTIPLICATION SIGN}"
    return Cell(text, detail, describe_evidence(ratio), ratio.value)


def _setting_cells(case: CaseTrials) -> tuple[Cell, ...]:
    settings = case.case
    is_counted = case.mode == "profile"
    not_read = _missing("counted, not run")
    statuses = describe_statuses(case.statuses)
    return (
        _word(case.label),
        _word(case.mode),
        not_read if is_counted else _word(settings.data),
        not_read
        if is_counted
        else Cell(f"{settings.batch_size:,}", key=settings.batch_size),
        not_read if is_counted else _word(settings.precision),
        Cell(statuses, key=len(case.finished), is_number=False),
    )


def _speedup_cell(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return _missing("without TokenLearner, or without a baseline to compare with")
    return ratio_cell(comparison.speedup)


def _predicted_cell(comparison: Comparison) -> Cell:
    predicted = comparison.predicted_speedup
    if predicted is None:
        return _missing("the cost of one side is not known")
    text = f"{format_number(predicted, 3)}\N{MULTIPLICATION SIGN}"
    return Cell(text, key=predicted)


def _verdict_cell(ratio: Ratio) -> Cell:
    if ratio.value is None:
        return _missing(ratio.reason or "")
    return Cell(
        ratio.verdict, hint=describe_evidence(ratio), key=ratio.verdict, is_number=False
    )


def _share_cell(comparison: Comparison) -> Cell:
    fraction = comparison.realised_speedup_fraction
    if fraction is None:
        return _missing("needs a predicted and a realised speed-up")
    interval = comparison.realised_interval
    detail = ""
    if interval is not None:
        detail = " to ".join(format_number(100 * end, 3) for end in interval)
    return Cell(format_number(100 * fraction, 3), detail, key=fraction)


def _accuracy_cell(comparison: Comparison) -> Cell:
    difference = comparison.difference(ACCURACY)
    if difference.value is None:
        reason = comparison.other.summary(ACCURACY).reason
        return _missing(reason or "the baseline has no accuracy")
    detail = ""
    if difference.interval is not None:
        detail = " to ".join(signed(end) for end in difference.interval)
    return Cell(
        signed(difference.value),
        detail,
        describe_evidence(difference),
        difference.value,
    )


def _word(text: str) -> Cell:
    return Cell(text, key=text, is_number=False)


def _missing(reason: str) -> Cell:
    return Cell(UNKNOWN, hint=reason)
