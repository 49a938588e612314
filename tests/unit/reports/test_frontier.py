"""The table and the chart of the largest batches."""

import xml.etree.ElementTree as ElementTree
from typing import Any

from support.report_run import RunBuilder, Values, model
from tlbench.reports.cases import gather
from tlbench.reports.charts import Chart, NoChart, Palette, frontier_chart
from tlbench.reports.frontier import HEADINGS, frontier_table
from tlbench.suites.spec import Case, Parallelism
from tlbench.units import UNKNOWN


def largest(place: int | None = None, **changes: Any) -> Case:
    settings = {"mode": "infer", "batch_size": "max", "memory_limit_gib": 2.0}
    return Case.model_validate({"model": model(place), **settings, **changes})


def found(batch_size: int, failing: int | None) -> list[Values]:
    return [
        {
            "throughput_samples_per_s": 100.0,
            "peak_memory_host_growth_bytes": 2.0**30,
            "max_batch_size": batch_size,
            "smallest_failing_batch_size": failing,
            "memory_limit_bytes": 2.0**31,
        }
    ] * 2


def rows(run: RunBuilder) -> list[dict[str, str]]:
    table = frontier_table(gather([run.record], run.trials))
    return [
        dict(zip(HEADINGS, [cell.text for cell in row.cells], strict=True))
        for row in table.rows
    ]


def test_a_row_tells_the_largest_batch_and_what_it_gives(run: RunBuilder) -> None:
    run.add(largest(), found(1234, 1240))
    (row,) = rows(run)
    assert row["memory limit [GiB]"] == "2.000"
    assert row["largest batch [samples]"] == "1,234"
    assert row["smallest that fails"] == "1,240"
    assert row["throughput there"] == "100.0 samples/s"
    assert row["memory there"] == "1,024 MiB"
    assert row["ZeRO"] == UNKNOWN


def test_rows_are_in_the_order_of_precision_and_stage(run: RunBuilder) -> None:
    for stage in (2, 0):
        for place in (None, 1):
            spread = Parallelism(zero_stage=stage)
            case = largest(place, mode="train", parallelism=spread)
            run.add(case, found(8 + stage, 9 + stage))
    assert [(row["ZeRO"], row["model"]) for row in rows(run)] == [
        ("0", "ViT-tiny"),
        ("0", "ViT-tiny+TL8@1"),
        ("2", "ViT-tiny"),
        ("2", "ViT-tiny+TL8@1"),
    ]


def test_a_batch_that_was_not_found_has_the_reason(run: RunBuilder) -> None:
    run.fail(largest(), reason="batch 1, the smallest, takes 3 GiB")
    (row,) = frontier_table(gather([run.record], run.trials)).rows
    assert [cell.text for cell in row.cells[5:]] == [UNKNOWN] * 5
    assert row.cells[6].hint == "1 oom; batch 1, the smallest, takes 3 GiB"
    assert row.has_failures


def test_an_end_that_no_batch_reached_has_the_reason(run: RunBuilder) -> None:
    run.add(largest(), found(1_000_000, None))
    (row,) = rows(run)
    assert row["smallest that fails"] == UNKNOWN


def test_a_case_with_a_batch_of_its_own_is_left_out(run: RunBuilder) -> None:
    run.add(largest(batch_size=8), found(8, 9))
    assert rows(run) == []


def test_the_chart_has_a_bar_for_each_batch_that_was_found(run: RunBuilder) -> None:
    run.add(largest(), found(100, 101))
    run.add(largest(1), found(250, 251))
    run.fail(largest(2))
    cases = gather([run.record], run.trials)
    chart = frontier_chart(cases, Palette(cases))
    assert isinstance(chart, Chart)
    shown = [e.text or "" for e in ElementTree.fromstring(chart.svg).iter("text")]
    assert {"100, n=2", "250, n=2", "ViT-tiny", "ViT-tiny+TL8@1"} <= set(shown)
    assert "ViT-tiny+TL8@2" not in shown


def test_without_a_found_batch_there_is_no_chart(run: RunBuilder) -> None:
    run.fail(largest())
    cases = gather([run.record], run.trials)
    assert frontier_chart(cases, Palette(cases)) == NoChart(
        "no case with batch_size: max found its batch"
    )
