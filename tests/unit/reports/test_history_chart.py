"""The picture and the table of a history hold the numbers that they show."""

from typing import Any

import pytest
from matplotlib.figure import Figure

from support.histories import VALUES, history
from tlbench.reports.drawing import Chart, NoChart
from tlbench.reports.history_chart import (
    HEADINGS,
    MAX_PANELS,
    history_chart,
    history_table,
)


def drawn(chart: Chart | NoChart) -> list[dict[str, Any]]:
    """What has been marked in each panel, by the name of the mark."""
    assert isinstance(chart, Chart)
    figure = Figure()
    chart.picture.paint(figure)
    return [
        {name: line for line in axes.lines if (name := line.get_gid())}
        for axes in figure.axes
    ]


def test_every_value_stands_at_its_run_and_lines_end_at_breaks() -> None:
    values = [*VALUES[:10], None, *VALUES[11:]]
    (panel,) = drawn(history_chart([history(values, breaks=[4])]))
    first, second = panel["history-0-0"], panel["history-0-4"]
    assert [*first.get_xdata()] == [0, 1, 2, 3]
    assert [*first.get_ydata()] == pytest.approx(values[:4])
    assert [*second.get_xdata()] == [*range(4, 10), *range(11, 16)]
    assert [*second.get_ydata()] == [v for v in values[4:] if v is not None]
    assert [*panel["break-0-0"].get_xdata()] == [3.5, 3.5]


def test_a_change_is_marked_at_its_run_and_points_its_way() -> None:
    (panel,) = drawn(history_chart([history(has_shift=True)]))
    triangle = panel["change-0-0"]
    assert ([*triangle.get_xdata()], [*triangle.get_ydata()]) == ([8], [90.0])
    assert triangle.get_marker() == "v"


def test_the_picture_names_break_and_change() -> None:
    chart = history_chart([history(breaks=[12], has_shift=True)])
    assert isinstance(chart, Chart)
    assert "torch 2.9.0 -&gt; 2.10.0" in chart.svg
    assert "worse 0.90" in chart.svg


def test_more_cases_than_panels_are_told() -> None:
    chart = history_chart([history()] * (MAX_PANELS + 2))
    assert isinstance(chart, Chart)
    assert "The table has 2 more cases." in chart.note
    assert len(drawn(chart)) == MAX_PANELS
    assert isinstance(history_chart([]), NoChart)


def test_the_table_has_a_row_for_every_break_and_change() -> None:
    one = history(breaks=[4], has_shift=True)
    table = history_table([one, history([100.0] * 8), history([100.0, None])])
    cells = [dict(zip(HEADINGS, row.cells, strict=True)) for row in table.rows]
    assert [row["what"].text for row in cells] == [
        "break",
        "worse",
        "no change",
        "too few runs",
    ]
    assert [row["at run"].text for row in cells[:2]] == ["5", "9"]
    assert cells[0]["there"].text == "torch 2.9.0 -> 2.10.0"
    assert cells[1]["new / old"].key == one.shifts[0].ratio.value
    assert cells[1]["p"].key == 2e-5
    assert cells[2]["newest"].key == 100.0
    assert cells[3]["newest"].hint == "2 oom"
