"""The cells that tables of the report are made of: text, evidence, and what sorts."""

from dataclasses import dataclass

from tlbench.reports.cases import Summary
from tlbench.reports.findings import describe_evidence
from tlbench.reports.quantities import QUANTITIES, Quantity
from tlbench.statistics import Interval, Ratio
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
    """One row; that of a case also has what it can be filtered by."""

    cells: tuple[Cell, ...]
    mode: str = ""
    has_failures: bool = False


@dataclass(frozen=True)
class Table:
    """Headings with their rows."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]


def metric_cell(name: str, summary: Summary) -> Cell:
    return quantity_cell(QUANTITIES[name], summary)


def quantity_cell(quantity: Quantity, summary: Summary) -> Cell:
    if summary.value is None:
        return missing(summary.reason or "")
    detail = quantity.interval_text(summary.interval)
    hint = f"median of {summary.n} trials" if summary.n > 1 else "one trial"
    if detail:
        hint += ", 95 % interval below"
    return Cell(quantity.text(summary.value), detail, hint, summary.value)


def ratio_cell(ratio: Ratio) -> Cell:
    if ratio.value is None:
        return missing(ratio.reason or "")
    detail = ""
    if ratio.interval is not None:
        detail = " to ".join(format_number(end, 3) for end in ratio.interval)
    text = f"{format_number(ratio.value, 3)}\N{MULTIPLICATION SIGN}"
    return Cell(text, detail, describe_evidence(ratio), ratio.value)


def percent_cell(fraction: float, interval: Interval | None, hint: str = "") -> Cell:
    """A share and its interval, in percent."""
    detail = ""
    if interval is not None:
        detail = " to ".join(format_number(100 * end, 3) for end in interval)
    return Cell(format_number(100 * fraction, 3), detail, hint, fraction)


def verdict_cell(ratio: Ratio) -> Cell:
    if ratio.value is None:
        return missing(ratio.reason or "")
    return Cell(
        ratio.verdict, hint=describe_evidence(ratio), key=ratio.verdict, is_number=False
    )


def word(text: str) -> Cell:
    return Cell(text, key=text, is_number=False)


def missing(reason: str) -> Cell:
    return Cell(UNKNOWN, hint=reason)
