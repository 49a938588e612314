"""Scaling over ranks: which cases are held against which, and their efficiency."""

from typing import Any

import numpy as np
import pytest

from support.report_run import RunBuilder, model, timed
from tlbench.reports.cases import gather
from tlbench.reports.scaling import Scaling, scaling_table, scalings
from tlbench.statistics import compare_ratio
from tlbench.suites.spec import Case


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
