"""A listing as text: for programs in base units, for people in readable ones."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from textwrap import wrap
from typing import Any

from tlbench.reports.listing import Listing
from tlbench.reports.quantities import QUANTITIES
from tlbench.units import UNKNOWN, format_duration, format_metric

GAP = 2
"""Blanks between the columns of a table."""


def to_csv(listing: Listing) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(listing.columns)
    writer.writerows([_plain(value) for value in row] for row in listing.rows)
    return text.getvalue()


def to_json(listing: Listing) -> str:
    return json.dumps(list(listing.records()), indent=2, default=_moment) + "\n"


def to_json_lines(listing: Listing) -> str:
    lines = (json.dumps(record, default=_moment) for record in listing.records())
    return "".join(f"{line}\n" for line in lines)


def _plain(value: Any) -> Any:
    """As CSV has it; what is not known is an empty cell."""
    if isinstance(value, datetime):
        return _moment(value)
    return json.dumps(value) if isinstance(value, list | bool) else value


def _moment(value: datetime) -> str:
    return value.isoformat()


# ---------------------------------------------------------------- tables for people


@dataclass(frozen=True)
class Column:
    """One column of a table, as text."""

    name: str
    heading: str
    cells: tuple[str, ...]

    @property
    def width(self) -> int:
        """Of its longest cell; a heading breaks between words."""
        return max(map(len, (*self.heading.split(), *self.cells)))

    @property
    def broken_heading(self) -> str:
        """The heading in lines that are no wider than the column."""
        return "\n".join(wrap(self.heading, self.width, break_long_words=False))


@dataclass(frozen=True)
class TableText:
    """What fits on the screen, and sentences about the rest."""

    columns: tuple[Column, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))


def table_text(listing: Listing, width: int, *, is_chosen: bool) -> TableText:
    """Make a table no wider than the screen.

    Args:
        listing: Of trials or groups.
        width: Of the screen, in characters.
        is_chosen: Whether its columns were asked for, and so have to stay.
    """
    columns = list(_columns(listing))
    if is_chosen:
        return TableText(tuple(columns), tuple(_about_rows(listing)))
    different, same = _without_same(columns, len(listing.rows))
    shown = _fitting(different, width)
    notes = [f"all of them: {', '.join(same)}"] if same else []
    if missing := [column.name for column in different[len(shown) :]]:
        notes.append(f"too wide: {', '.join(missing)}; --columns chooses")
    return TableText(tuple(shown), (*notes, *_about_rows(listing)))


def _columns(listing: Listing) -> Iterator[Column]:
    values = dict(zip(listing.columns, zip(*listing.rows, strict=True), strict=True))
    for name, column in values.items():
        base, dot, _ = name.rpartition(".")
        if dot and base in listing.metrics:
            continue  # stands beside its median
        if name in listing.metrics:
            yield _metric_column(name, values)
        else:
            cells = tuple(_cell(name, value) for value in column)
            yield Column(name, name.rpartition(".")[2].replace("_", " "), cells)


def _metric_column(name: str, values: dict[str, tuple[Any, ...]]) -> Column:
    """A metric in its unit; of groups with both ends of the interval."""
    quantity = QUANTITIES.get(name)
    form = quantity.text if quantity else lambda value: format_metric(name, value)
    cells = [UNKNOWN if value is None else form(value) for value in values[name]]
    if f"{name}.low" in values:
        ends = zip(values[f"{name}.low"], values[f"{name}.high"], strict=True)
        cells = [
            cell if low is None else f"{cell} ({form(low)} to {form(high)})"
            for cell, (low, high) in zip(cells, ends, strict=True)
        ]
    heading = quantity.heading if quantity else name.replace("_", " ")
    return Column(name, heading, tuple(cells))


def _cell(name: str, value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, datetime):
        return f"{value.astimezone():%Y-%m-%d %H:%M}"
    if name == "wall_time_s":
        return format_duration(value)
    if name in ("case", "commit"):
        return str(value)[:12]
    return value if isinstance(value, str) else json.dumps(value)


def _without_same(
    columns: Sequence[Column], rows: int
) -> tuple[list[Column], list[str]]:
    """The columns in which rows differ, and what all rows have in the others."""
    if rows < 2:
        return list(columns), []
    different = [column for column in columns if len(set(column.cells)) > 1]
    same = [
        f"{column.heading} {column.cells[0]}"
        for column in columns
        if column not in different
    ]
    return different, same


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """As many of the columns as fit beside each other, but never none."""
    shown: list[Column] = []
    taken = -GAP
    for column in columns:
        taken += GAP + column.width
        if shown and taken > width:
            break
        shown.append(column)
    return shown


def _about_rows(listing: Listing) -> Iterator[str]:
    if len(listing.rows) < listing.total:
        yield f"{len(listing.rows):,} of {listing.total:,}; --limit 0 shows all"
    if listing.left_out and listing.rows:
        counts = ", ".join(f"{n:,} {why}" for why, n in listing.left_out.items())
        yield f"not in the medians: {counts}"
    if listing.mixed and listing.rows:
        names = ", ".join(listing.mixed)
        yield f"trials of one group differ in {names}; --group-by tells them apart"
