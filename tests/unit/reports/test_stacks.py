"""The cost of each layer: which stacks are held against which."""

from typing import Any

import numpy as np
import pytest

from support.report_run import RunBuilder, model, timed
from tlbench.reports.cases import gather
from tlbench.reports.stacks import StackCost, stack_costs, stack_table
from tlbench.suites.spec import Case


def add(run: RunBuilder, stack: str, speeds: list[float], **changes: Any) -> None:
    settings = {"model": model(), "mode": "train", "stack": stack}
    run.add(Case.model_validate(settings | changes), timed(speeds, 1e9))


def found(run: RunBuilder) -> list[StackCost]:
    return list(stack_costs(gather([run.record], run.trials)))


def test_every_stack_is_held_against_torch_alone(run: RunBuilder) -> None:
    for stack in ("deepspeed", "ray", "torch", "torchrun"):
        add(run, stack, [100.0, 101.0])
    assert [(c.base.case.stack, c.other.case.stack) for c in found(run)] == [
        ("torch", "torchrun"),
        ("torch", "ray"),
        ("torch", "deepspeed"),
    ]


def test_several_ranks_are_held_against_torchrun(run: RunBuilder) -> None:
    spread = {"world_size": 2}
    for stack in ("deepspeed", "torchrun"):
        add(run, stack, [100.0, 101.0], parallelism=spread)
    add(run, "torch", [100.0, 101.0])
    (cost,) = found(run)
    assert cost.base.case.stack == "torchrun"


def test_a_stack_that_did_not_run_is_no_base(run: RunBuilder) -> None:
    failed = Case(model=model(), mode="train", stack="torch")
    run.fail(failed)
    for stack in ("torchrun", "deepspeed"):
        add(run, stack, [100.0, 101.0])
    (cost,) = found(run)
    assert (cost.base.case.stack, cost.other.case.stack) == ("torchrun", "deepspeed")


def test_a_higher_stack_that_did_not_run_keeps_its_row(run: RunBuilder) -> None:
    add(run, "torch", [100.0, 101.0])
    run.fail(Case(model=model(), mode="train", stack="deepspeed"))
    (cost,) = found(run)
    assert (cost.base.case.stack, cost.ratio.value) == ("torch", None)


def test_the_ratio_is_of_the_throughputs_in_the_same_blocks(run: RunBuilder) -> None:
    below, above = [100.0, 120.0, 110.0], [90.0, 111.0, 100.0]
    add(run, "torch", below)
    add(run, "deepspeed", above)
    (cost,) = found(run)
    expected = np.exp(np.mean(np.log(above) - np.log(below)))
    assert cost.ratio.value == pytest.approx(expected)
    assert cost.ratio.method == "paired t"
    assert cost.ratio.interval is not None


@pytest.mark.parametrize(
    "change", [{"mode": "infer"}, {"batch_size": 16}, {"model": model(1)}]
)
def test_cases_that_differ_in_more_than_their_stack_are_kept_apart(
    run: RunBuilder, change: dict[str, Any]
) -> None:
    add(run, "torch", [100.0, 101.0])
    add(run, "torchrun", [100.0, 101.0], **change)
    assert found(run) == []


def test_sharded_states_are_not_the_cost_of_a_layer(run: RunBuilder) -> None:
    add(run, "torch", [100.0, 101.0])
    add(run, "deepspeed", [100.0, 101.0], parallelism={"zero_stage": 1})
    assert found(run) == []


def test_inference_above_torchrun_is_called_ray(run: RunBuilder) -> None:
    for stack in ("torch", "deepspeed"):
        add(run, stack, [100.0, 101.0], mode="infer")
    table = stack_table(gather([run.record], run.trials))
    (row,) = table.rows
    cells = dict(zip(table.headings, row.cells, strict=True))
    assert (cells["stack"].text, cells["over"].text) == ("ray", "torch")
    assert cells["throughput"].text == "1.00\N{MULTIPLICATION SIGN}"
