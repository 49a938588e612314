"""The cells that tables of the report are made of: text, evidence, and what sorts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

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
    is_long: bool = False
    """Whether it needs several lines."""
    base_unit: str | None = None
    """Of a number whose `key` is in another unit than its text."""

    @property
    def is_missing(self) -> bool:
        return self.text == UNKNOWN


@dataclass(frozen=True)
class Row:
    """One row; that of a case also has what it can be found and filtered by."""

    cells: tuple[Cell, ...]
    anchor: str = ""
    """By which a link finds it; empty: not at all."""
    facets: Mapping[str, str] = field(default_factory=dict)
    """Names that a reader chooses by, with their values, `|` between several."""


@dataclass(frozen=True)
class Table:
    """Headings with their rows."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]

    @cached_property
    def base_headings(self) -> tuple[str, ...]:
        """The headings with the units of the cells' keys, for a download."""
        return tuple(
            _in_base_unit(heading, [row.cells[place] for row in self.rows])
            for place, heading in enumerate(self.headings)
        )

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Why values are missing, each reason once."""
        cells = (cell for row in self.rows for cell in row.cells)
        return tuple(dict.fromkeys(c.hint for c in cells if c.is_missing and c.hint))


def _in_base_unit(heading: str, cells: list[Cell]) -> str:
    units = {cell.base_unit for cell in cells} - {None}
    if not units:
        return heading
    title, unit = heading.partition(" [")[0], " or ".join(sorted(filter(None, units)))
    return f"{title} [{unit}]" if unit else title


def metric_cell(name: str, summary: Summary) -> Cell:
    return quantity_cell(QUANTITIES[name], summary)


def quantity_cell(quantity: Quantity, summary: Summary) -> Cell:
    if summary.value is None:
        return missing(summary.reason or "")
    detail = quantity.interval_text(summary.interval)
    hint = f"median of {summary.n} trials" if summary.n > 1 else "one trial"
    if detail:
        hint += ", 95 % interval below"
    return Cell(
        quantity.text(summary.value),
        detail,
        hint,
        summary.value,
        base_unit=quantity.base_unit,
    )


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
    return Cell(
        format_number(100 * fraction, 3), detail, hint, fraction, base_unit="fraction"
    )


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
