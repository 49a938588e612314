"""What loading costs: a case against the same one with a kept batch."""

import pytest

from support.report_run import RunBuilder, model, timed
from tlbench.reports.cases import gather
from tlbench.reports.inputs import input_comparisons, input_table
from tlbench.suites.spec import Case, Input

FIXED = Case(model=model(), mode="infer")
LOADED = Case(model=model(), mode="infer", input=Input(kind="loader", workers=2))
MEASURED = {
    "data_wait_fraction": 0.2,
    "input_throughput_samples_per_s": 80.0,
    "input_workers_needed": 3.0,
}


def add_loaded(run: RunBuilder, throughputs: list[float]) -> None:
    run.add(LOADED, [dict(values) | MEASURED for values in timed(throughputs, 4e8)])


def cells(run: RunBuilder) -> dict[str, str]:
    table = input_table(gather([run.record], run.trials))
    (row,) = table.rows
    return dict(zip(table.headings, (cell.text for cell in row.cells), strict=True))


def test_loading_is_compared_with_the_same_case_without(run: RunBuilder) -> None:
    run.add(FIXED, timed([100.0, 110.0, 105.0], 4e8))
    add_loaded(run, [80.0, 88.0, 84.0])
    (item,) = input_comparisons(gather([run.record], run.trials))
    assert item.ratio is not None
    assert item.ratio.value == pytest.approx(0.8)
    assert item.ratio.method == "paired t"
    shown = cells(run)
    assert (
        shown["throughput over that of a kept batch"] == "0.800\N{MULTIPLICATION SIGN}"
    )
    assert shown["verdict"] == "worse"
    assert shown["waits for input [%]"] == "20.00"
    assert (shown["workers"], shown["workers needed"]) == ("2", "3")


def test_another_model_is_nothing_to_compare_with(run: RunBuilder) -> None:
    run.add(Case(model=model(1), mode="infer"), timed([100.0, 110.0], 4e8))
    add_loaded(run, [80.0, 88.0])
    (item,) = input_comparisons(gather([run.record], run.trials))
    assert item.fixed is None
    (row,) = input_table(gather([run.record], run.trials)).rows
    assert "did not run beside it" in row.cells[3].hint


def test_cases_that_load_nothing_are_left_out(run: RunBuilder) -> None:
    run.add(FIXED, timed([100.0], 4e8))
    assert list(input_comparisons(gather([run.record], run.trials))) == []
