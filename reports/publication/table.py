"""The table behind a figure of the publication: a row for each model and source."""

from collections.abc import Callable, Iterator, Sequence

from tlbench.reports.cells import Cell, Row, Table
from tlbench.reports.publication.entries import Entry, Panel, Value
from tlbench.reports.publication.grouping import numbered
from tlbench.suites.published import PublishedResult, published_in


def figure_table(entries: Sequence[Entry], panels: Sequence[Panel]) -> Table:
    """Every entry with its own and its published value of each quantity."""
    columns = [
        column
        for panel in panels
        for column in _columns(panel)
        if any(column[1](entry).value is not None for entry in entries)
    ]
    return Table(
        headings=("model", "published as", *(heading for heading, _ in columns)),
        rows=tuple(
            Row((*_names(entry), *(find(entry).cell for _, find in columns)))
            for entry in entries
        ),
    )


def _columns(panel: Panel) -> Iterator[tuple[str, Callable[[Entry], Value]]]:
    """What is own and what is published; one column where they are the same."""
    if panel.own is not None and panel.own == panel.published:
        yield panel.heading, panel.own
        return
    are_two = panel.own is not None and panel.published is not None
    if panel.own is not None:
        yield f"own {panel.heading}" if are_two else panel.heading, panel.own
    if panel.published is not None:
        heading = f"published {panel.heading}" if are_two else panel.heading
        yield heading, panel.published


def _label(row: PublishedResult) -> str:
    """What it is published as, told apart from others of its table called so."""
    listed = published_in(row.source)
    label = numbered([other.label for other in listed])[listed.index(row)]
    if label == row.label or row.views is None:
        return label
    return f"{row.label}, views: {row.views}"


def _names(entry: Entry) -> tuple[Cell, Cell]:
    if entry.row is None:
        label = Cell("not published", key="", is_number=False)
    else:
        source, words = entry.row.source, _label(entry.row)
        label = Cell(words, source.name, source.about, key=words, is_number=False)
    hint = "" if entry.cases else "no case of this report"
    return Cell(entry.name, hint=hint, key=entry.name, is_number=False), label
