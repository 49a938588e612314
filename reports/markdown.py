"""Markdown as forges read it: names and words that stay what they are, and tables."""

import re
from collections.abc import Iterator, Sequence

from tlbench.reports.cells import Cell, Table

LONGEST = 200
"""Characters of a cell; no name or reason pushes a table apart."""


def escaped(text: str) -> str:
    """Plain words, whatever stands in them."""
    return re.sub(r"([\\`*_\[\]<>|#~@&$])", r"\\\1", text).replace("\n", " ")


def code(text: str) -> str:
    """A code span: names have characters that Markdown, or a forge, would read."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", r"\|").replace("\n", " ")


def lines_of(
    headings: Sequence[str], rows: Sequence[Sequence[str]], are_numbers: Sequence[bool]
) -> list[str]:
    """Lines of a table; columns of numbers stand to the right."""
    rule = ["---:" if is_number else "---" for is_number in are_numbers]
    return [f"| {' | '.join(row)} |" for row in (headings, rule, *rows)]


def table_lines(table: Table, most_rows: int) -> list[str]:
    """A table of the report; what is more than so many rows is counted below it."""
    shown = [[_cell(cell) for cell in row.cells] for row in table.rows[:most_rows]]
    are_numbers = [all(c.is_number for c in column) for column in _columns(table)]
    lines = lines_of([escaped(h) for h in table.headings], shown, are_numbers)
    left_out = len(table.rows) - len(shown)
    if left_out:
        rows = "row is" if left_out == 1 else "rows are"
        lines += ["", f"{left_out} more {rows} left out here; the HTML report has all."]
    return lines


def _columns(table: Table) -> Iterator[tuple[Cell, ...]]:
    return zip(*(row.cells for row in table.rows), strict=True)


def _cell(cell: Cell) -> str:
    text = _shortened(cell.text)
    return f"{escaped(text)} ({escaped(cell.detail)})" if cell.detail else escaped(text)


def _shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return text[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
