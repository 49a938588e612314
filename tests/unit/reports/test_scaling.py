"""Scaling over ranks: which cases are held against which, and their efficiency."""

from typing import Any

import numpy as np
import pytest

from support.report_run import RunBuilder, model, timed
from support.svg_values import Picture
from tlbench.reports.cases import gather
from tlbench.reports.drawing import NoChart, Palette
from tlbench.reports.scaling import Scaling, scaling_chart, scaling_table, scalings
from tlbench.statistics import compare_ratio
from tlbench.suites.spec import Case

SPEED = "throughput_samples_per_s"


def add(run: RunBuilder, ranks: int, batch: int, speeds: list[float], **s: Any) -> None:
    spread = {"world_size": ranks} | s.pop("parallelism", {})
    settings = {"model": model(), "mode": "train", "batch_size": batch} | s
    case = Case.model_validate(settings | {"parallelism": spread})
    run.add(case, timed(speeds, 1e9))


def found(run: RunBuilder) -> list[Scaling]:
    return list(scalings(gather([run.record], run.trials)))


def sizes(run: RunBuilder) -> list[tuple[str, int, int]]:
    return [
        (
            s.kind,
            s.base.case.parallelism.world_size,
            s.other.case.parallelism.world_size,
        )
        for s in found(run)
    ]


def test_strong_scaling_keeps_the_batch_and_weak_that_of_each_rank(
    run: RunBuilder,
) -> None:
    for ranks, batch in ((1, 8), (2, 8), (4, 8), (2, 16), (4, 32)):
        add(run, ranks, batch, [100.0, 101.0])
    assert sizes(run) == [
        ("strong", 1, 2),
        ("strong", 1, 4),
        ("weak", 1, 2),
        ("weak", 1, 4),
    ]
    weak = [s.other.case.batch_size for s in found(run) if s.kind == "weak"]
    assert weak == [16, 32]


def test_efficiency_is_the_speedup_over_the_ratio_of_the_ranks(
    run: RunBuilder,
) -> None:
    base, other = [100.0, 110.0, 105.0], [360.0, 380.0, 395.0]
    add(run, 2, 8, base)
    add(run, 8, 8, other)
    (scaling,) = found(run)
    gain = np.exp(np.mean(np.log(other) - np.log(base)))
    assert scaling.efficiency_fraction == pytest.approx(gain / 4)
    whole = compare_ratio(
        dict(enumerate(base)), dict(enumerate(other)), "higher"
    ).interval
    assert whole is not None
    expected = (whole[0] / 4, whole[1] / 4)
    assert scaling.efficiency_interval == pytest.approx(expected)


def test_twice_the_speed_on_twice_the_ranks_is_perfect(run: RunBuilder) -> None:
    add(run, 1, 8, [100.0, 120.0])
    add(run, 2, 8, [200.0, 240.0])
    (scaling,) = found(run)
    assert scaling.efficiency_fraction == pytest.approx(1)
    assert scaling.efficiency_interval == pytest.approx((1, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "infer"},
        {"precision": "bf16"},
        {"parallelism": {"zero_stage": 2}},
        {"model": model(1)},
        {"stack": "ray"},
    ],
)
def test_cases_that_differ_in_more_than_their_ranks_are_kept_apart(
    run: RunBuilder, change: dict[str, Any]
) -> None:
    add(run, 1, 8, [100.0, 101.0])
    add(run, 2, 8, [190.0, 191.0], **change)
    assert found(run) == []


def test_more_nodes_count_as_more_ranks(run: RunBuilder) -> None:
    add(run, 1, 8, [100.0, 101.0])
    add(run, 2, 8, [190.0, 191.0], parallelism={"nodes": 2})
    assert sizes(run) == [("strong", 1, 2)]


def test_the_base_is_the_fewest_ranks_that_ran(run: RunBuilder) -> None:
    failed = Case(model=model(), mode="train", batch_size=8)
    run.fail(failed)
    add(run, 2, 8, [100.0, 101.0])
    add(run, 4, 8, [190.0, 191.0])
    assert sizes(run) == [("strong", 2, 4)]


def test_ranks_that_failed_have_no_efficiency_and_say_why(run: RunBuilder) -> None:
    add(run, 1, 8, [100.0, 101.0])
    spread = {"world_size": 2}
    settings = {"model": model(), "mode": "train", "batch_size": 8}
    run.fail(Case.model_validate(settings | {"parallelism": spread}))
    (scaling,) = found(run)
    assert scaling.efficiency_fraction is None
    assert scaling.efficiency_interval is None
    (row,) = scaling_table(gather([run.record], run.trials)).rows
    assert scaling.speedup.reason
    assert scaling.speedup.reason in [cell.hint for cell in row.cells]


def test_the_table_tells_efficiency_in_percent(run: RunBuilder) -> None:
    add(run, 1, 8, [100.0, 100.0])
    add(run, 4, 8, [300.0, 300.0])
    table = scaling_table(gather([run.record], run.trials))
    (row,) = table.rows
    cells = dict(zip(table.headings, row.cells, strict=True))
    assert cells["efficiency [%]"].text == "75.0"
    assert (cells["ranks"].text, cells["ranks"].detail) == ("4", "over 1")
    assert cells["scaling"].text == "strong"


def chart_of(run: RunBuilder) -> Picture:
    cases = gather([run.record], run.trials)
    return Picture(scaling_chart(cases, Palette(cases)))


def test_the_chart_shows_throughput_beside_the_ideal(run: RunBuilder) -> None:
    for ranks, speed in ((1, 100.0), (2, 180.0), (4, 300.0)):
        add(run, ranks, 8, [0.98 * speed, speed, 1.03 * speed])
    picture = chart_of(run)
    (line,), (ideal,) = picture.marks("throughput"), picture.marks("ideal")
    assert line.xs == pytest.approx([1, 2, 4], rel=1e-4)
    assert line.ys == pytest.approx([100, 180, 300], rel=1e-4)
    assert ideal.ys == pytest.approx([100, 200, 400], rel=1e-4)
    (intervals,) = picture.marks("throughput-interval")
    cases = gather([run.record], run.trials)
    ends = [end for case in cases for end in case.summary(SPEED).interval or ()]
    assert intervals.ys == pytest.approx(ends, rel=1e-4)


def test_the_chart_shows_efficiency_with_its_interval(run: RunBuilder) -> None:
    for ranks, speeds in ((1, [100.0, 104.0, 99.0]), (2, [180.0, 185.0, 182.0])):
        add(run, ranks, 8, speeds)
    (scaling,) = found(run)
    picture = chart_of(run)
    (line,) = picture.marks("efficiency", panel=1)
    assert scaling.efficiency_fraction is not None
    expected = [100, 100 * scaling.efficiency_fraction]
    assert line.ys == pytest.approx(expected, rel=1e-4)
    (intervals,) = picture.marks("efficiency-interval", panel=1)
    assert scaling.efficiency_interval is not None
    ends = [100 * end for end in scaling.efficiency_interval]
    assert intervals.ys[2:] == pytest.approx(ends, rel=1e-4)


def test_strong_and_weak_scaling_have_panels_of_their_own(run: RunBuilder) -> None:
    for ranks, batch in ((1, 16), (2, 16), (16, 16), (2, 32)):
        add(run, ranks, batch, [90.0 * ranks, 91.0 * ranks])
    picture = chart_of(run)
    assert {"strong scaling, training steps", "weak scaling, training steps"} <= set(
        picture.texts
    )
    assert len(picture.panels) == 4
    (strong,) = picture.marks("throughput", panel=0)
    (weak,) = picture.marks("throughput", panel=2)
    assert strong.xs == pytest.approx([1, 2, 16], rel=1e-4)  # off logarithmic axes
    assert strong.ys == pytest.approx([90.5, 181, 1448], rel=1e-3)
    assert weak.xs == pytest.approx([1, 2], rel=1e-4)


def test_lines_of_one_model_are_named_and_dashed_apart(run: RunBuilder) -> None:
    for stage in (0, 3):
        for ranks in (1, 2):
            spread = {"zero_stage": stage}
            add(run, ranks, 8, [90.0 * ranks, 91.0 * ranks], parallelism=spread)
    picture = chart_of(run)
    assert {"ViT-tiny, ZeRO 0", "ViT-tiny, ZeRO 3"} <= set(picture.texts)
    solid, dashed = picture.marks("throughput")
    assert "stroke-dasharray" not in solid.style
    assert "stroke-dasharray" in dashed.style


def test_one_number_of_devices_makes_no_chart(run: RunBuilder) -> None:
    add(run, 1, 8, [90.0, 91.0])
    cases = gather([run.record], run.trials)
    assert scaling_chart(cases, Palette(cases)) == NoChart(
        "no case was timed on two numbers of devices"
    )
