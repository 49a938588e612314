"""The table and the chart of the largest batches."""

from typing import Any

import pytest

from support.report_run import RunBuilder, Values, model
from support.svg_values import Picture
from tlbench.reports.cases import gather
from tlbench.reports.drawing import NoChart, Palette
from tlbench.reports.frontier import HEADINGS, frontier_chart, frontier_table
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


def test_an_end_that_no_batch_reached_has_the_reason(run: RunBuilder) -> None:
    run.add(largest(), found(1_000_000, None))
    (row,) = rows(run)
    assert row["smallest that fails"] == UNKNOWN


def test_a_case_with_a_batch_of_its_own_is_left_out(run: RunBuilder) -> None:
    run.add(largest(batch_size=8), found(8, 9))
    assert rows(run) == []


def chart_of(run: RunBuilder) -> Picture:
    cases = gather([run.record], run.trials)
    return Picture(frontier_chart(cases, Palette(cases)))


def test_the_chart_shows_each_batch_over_its_precision_and_stage(
    run: RunBuilder,
) -> None:
    batches = {
        ("bf16", 0): (200, 350),
        ("bf16", 3): (240, 410),
        ("fp32", 0): (100, 180),
        ("fp32", 3): (120, 210),
    }
    for (precision, stage), pair in batches.items():
        for place, batch in zip((None, 1), pair, strict=True):
            spread = {"zero_stage": stage}
            settings = {"mode": "train", "precision": precision, "parallelism": spread}
            run.add(largest(place, **settings), found(batch, batch + 1))
    picture = chart_of(run)
    for number in (0, 1):
        for precision in ("bf16", "fp32"):
            mark = picture.marks(f"batch-{precision}")[number]
            columns = [picture.axis("x").name(x) for x, _ in mark.points]
            assert columns == [f"{precision}\nZeRO 0", f"{precision}\nZeRO 3"]
            expected = [batches[precision, stage][number] for stage in (0, 3)]
            assert mark.ys == pytest.approx(expected, rel=1e-4)
    assert {"ViT-tiny", "ViT-tiny+TL8@1"} <= set(picture.texts)


def test_inference_has_no_stages_and_a_panel_of_its_own(run: RunBuilder) -> None:
    run.add(largest(mode="train"), found(10, 11))
    run.add(largest(), found(1000, 1001))
    run.add(largest(1), found(1500, 1501))
    run.fail(largest(2))
    picture = chart_of(run)
    assert len(picture.panels) == 2
    assert [tick.text for tick in picture.axis("x", 0).ticks] == ["fp32"]
    marks = picture.marks("batch-fp32", panel=0)
    assert [mark.ys[0] for mark in marks] == pytest.approx([1000, 1500], rel=1e-4)
    assert "ViT-tiny+TL8@2" not in picture.texts  # none of its batches fitted
    assert "inference, 2.00 GiB a rank" in picture.texts


def test_batches_far_apart_are_read_off_a_logarithmic_axis(run: RunBuilder) -> None:
    run.add(largest(), found(7, 8))
    run.add(largest(1), found(9000, 9001))
    marks = chart_of(run).marks("batch-fp32")
    assert [mark.ys[0] for mark in marks] == pytest.approx([7, 9000], rel=1e-3)


def test_without_a_found_batch_there_is_no_chart(run: RunBuilder) -> None:
    run.fail(largest())
    cases = gather([run.record], run.trials)
    assert frontier_chart(cases, Palette(cases)) == NoChart(
        "no case with batch_size: max found its batch"
    )
