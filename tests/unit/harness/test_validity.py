"""What makes a trial suspect or invalid, and that nothing else does."""

from dataclasses import replace
from typing import Any, get_args

import pytest

from support.machine import MACHINE
from tlbench.machine import Machine
from tlbench.result import UNSETTLED, Metric, Series, TrialResult
from tlbench.statistics import SteadyState, step_interval
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case
from tlbench.validity import FEWEST_STEPS, STATES, judge

CPU = replace(MACHINE, cpu_model="Some CPU")
GPU = replace(CPU, gpu_name="NVIDIA L4", gpu_count=1)


def case(mode: str = "infer", **settings: Any) -> Case:
    return Case.model_validate(
        {"model": parse_model("ViT-Ti/16"), "mode": mode, "data": "digits", **settings}
    )


def result(
    machine: Machine = CPU,
    steps: int = 10,
    notes: dict[str, str] | None = None,
    **metrics: float | None,
) -> TrialResult:
    return TrialResult(
        "ok",
        metrics=tuple(
            Metric(name, value, None if value is not None else "cannot be measured")
            for name, value in metrics.items()
        ),
        series=(
            Series("step_time_s", (0.1,) * steps),
            Series("step_time_s", (0.1,), rank=0),
        ),
        notes=notes or {"steady_state": "flat", "stopped_by": "max_time"},
        machine=machine,
    )


def test_a_trial_without_doubts_is_valid() -> None:
    quiet = result(
        GPU,
        throttled_fraction=0.05,
        thermal_slowdown_fraction=0.0,
        foreign_processes=0,
        foreign_cpu_fraction=0.05,
        steal_fraction=0.02,
        rank_step_time_spread_fraction=0.05,
        mfu=1.0,
    )
    assert judge(case(), quiet) == ("valid", ())


def test_what_could_not_be_measured_raises_no_doubt() -> None:
    unknown = result(
        throttled_fraction=None,
        foreign_processes=None,
        foreign_cpu_fraction=None,
        steal_fraction=None,
        mfu=None,
    )
    assert judge(case(), unknown) == ("valid", ())
    assert judge(case(), TrialResult("ok")) == ("valid", ())


@pytest.mark.parametrize(
    ("metrics", "validity", "doubt"),
    [
        (
            {"throttled_fraction": 1.0},
            "suspect",
            "the GPU was throttled in 100.0 % of the samples (power cap in 9 of 9)",
        ),
        (
            {"thermal_slowdown_fraction": 0.03},
            "suspect",
            "the GPU was slowed down for heat or by its supply in 3.00 % of the samples"
            " (power cap in 9 of 9)",
        ),
        ({"thermal_slowdown_fraction": 0.06}, "invalid", "in 6.00 % of the samples"),
        ({"foreign_processes": 2.0}, "suspect", "2 foreign process(es) used the GPU"),
        (
            {"foreign_cpu_fraction": 0.06},
            "suspect",
            "other processes took 6.00 % of the cores' time",
        ),
        ({"foreign_cpu_fraction": 0.26}, "invalid", "took 26.0 % of the cores' time"),
        (
            {"steal_fraction": 0.03},
            "suspect",
            "the hypervisor gave 3.00 % of the cores' time to others",
        ),
        ({"steal_fraction": 0.11}, "invalid", "gave 11.0 % of the cores' time"),
        (
            {"rank_step_time_spread_fraction": 0.4},
            "suspect",
            "the slowest rank took 40.0 % longer to compute a step than the fastest",
        ),
        ({"mfu": 1.04}, "invalid", "the MFU is 1.04, and above 1 is impossible"),
    ],
)
def test_a_doubt_says_the_number(
    metrics: dict[str, Any], validity: str, doubt: str
) -> None:
    notes = {"throttled_by": "power cap in 9 of 9", "mfu_against": "dense peak of X"}
    found, doubts = judge(case(), result(notes=notes, **metrics))
    assert found == validity
    assert len(doubts) == 1
    assert doubt in doubts[0]


def test_an_impossible_mfu_says_what_it_was_held_against() -> None:
    notes = {"mfu_against": "dense peak of NVIDIA L4, NVIDIA L4 datasheet"}
    _, (doubt,) = judge(case(), result(GPU, notes=notes, mfu=1.5))
    assert doubt.endswith("(dense peak of NVIDIA L4, NVIDIA L4 datasheet)")


def test_load_of_the_host_leaves_what_a_gpu_computes_usable() -> None:
    busy = result(GPU, foreign_cpu_fraction=0.9)
    assert judge(case(), busy)[0] == "suspect"
    assert judge(case(device="cpu"), busy)[0] == "invalid"


@pytest.mark.parametrize("state", STATES)
def test_steps_that_are_not_flat_are_suspect(state: str) -> None:
    drifting = result(notes={"steady_state": state})
    assert judge(case(), drifting) == ("suspect", (STATES[state],))


def test_steps_timed_before_the_speed_was_steady_are_suspect() -> None:
    settled = result(notes={"warmup": "settled after 14 steps"})
    assert judge(case(), settled) == ("valid", ())
    cold = result(notes={"warmup": f"{UNSETTLED} 60 steps"})
    assert judge(case(), cold) == (
        "suspect",
        ("the warm-up did not settle in 60 steps",),
    )


def test_every_state_but_flat_has_its_words() -> None:
    assert {*STATES} == {*get_args(SteadyState)} - {"flat"}


@pytest.mark.parametrize(
    ("steps", "min_steps", "validity", "doubt"),
    [
        (10, 6, "valid", None),
        (9, 6, "suspect", "9 steps are too few for an interval of the median"),
        (9, 10, "invalid", "9 steps timed, and 10 asked for"),
        (3, 4, "invalid", "3 steps timed, and 4 asked for"),
        (1, 1, "suspect", "1 step is too few for an interval of the median"),
    ],
)
def test_too_few_steps(
    steps: int, min_steps: int, validity: str, doubt: str | None
) -> None:
    timed = case(timing={"min_steps": min_steps})
    doubts = () if doubt is None else (doubt,)
    assert judge(timed, result(steps=steps)) == (validity, doubts)


def test_steps_are_too_few_where_their_median_has_no_interval() -> None:
    alternating = [1.0 + 0.01 * (number % 2) for number in range(FEWEST_STEPS)]
    assert step_interval(alternating) is not None
    assert step_interval(alternating[1:]) is None


def test_the_worst_doubt_decides_and_all_are_said() -> None:
    found, doubts = judge(
        case(), result(foreign_cpu_fraction=0.5, steal_fraction=0.03, steps=10)
    )
    assert found == "invalid"
    assert len(doubts) == 2


@pytest.mark.parametrize(
    ("mode", "status"),
    [("profile", "ok"), ("fit", "ok"), ("infer", "oom"), ("train", "skipped")],
)
def test_what_was_never_timed_has_no_verdict(mode: str, status: Any) -> None:
    reason = None if status == "ok" else "a reason"
    ended = TrialResult(status, reason, metrics=(Metric("steal_fraction", 0.9),))
    assert judge(case(mode), ended) == (None, ())
