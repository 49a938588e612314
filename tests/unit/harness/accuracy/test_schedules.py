"""The learning rate, against closed forms, timm's schedulers and optax's formulas."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tlbench.accuracy.schedules import Schedule, make_schedule
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

STEPS, WARMUP, PEAK, END = 40, 8, 0.3, 0.02


def make_rates(shape: str = "cosine", end: float = END) -> list[float]:
    schedule = Schedule(STEPS, WARMUP, PEAK, end, shape)
    return [schedule.at(step) for step in range(STEPS)]


def make_case(optimizer: dict[str, Any] | None = None, **fit: Any) -> Case:
    settings = {"mode": "fit", "data": "digits", "fit": fit}
    return Case.model_validate(
        settings | {"model": parse_model("ViT-Ti/16"), "optimizer": optimizer or {}}
    )


def test_the_rate_rises_in_equal_parts_to_its_peak() -> None:
    rates = make_rates()
    assert rates[: WARMUP + 1] == pytest.approx(
        [PEAK * part / (WARMUP + 1) for part in range(1, WARMUP + 2)]
    )


def test_cosine_falls_along_half_a_cosine() -> None:
    fallen = [part / (STEPS - WARMUP) for part in range(STEPS - WARMUP)]
    expected = [END + (PEAK - END) * (1 + math.cos(math.pi * t)) / 2 for t in fallen]
    assert make_rates("cosine")[WARMUP:] == pytest.approx(expected)


def test_linear_falls_along_a_line() -> None:
    expected = np.linspace(PEAK, END, STEPS - WARMUP, endpoint=False)
    assert make_rates("linear")[WARMUP:] == pytest.approx(expected.tolist())


def test_constant_stays_at_the_peak() -> None:
    assert make_rates("constant")[WARMUP:] == [PEAK] * (STEPS - WARMUP)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_the_rate_would_be_at_its_end_after_the_last_step(shape: str) -> None:
    after = Schedule(STEPS, WARMUP, PEAK, END, shape).at(STEPS)
    assert after == pytest.approx(END)


def test_without_a_warm_up_the_rate_starts_at_its_peak() -> None:
    assert Schedule(STEPS, 0, PEAK, END, "cosine").at(0) == PEAK


def test_a_warm_up_longer_than_the_training_never_reaches_the_peak() -> None:
    schedule = Schedule(4, 10.0, 1.0, 0.0, "cosine")
    rates = [schedule.at(step) for step in range(4)]
    assert rates == pytest.approx([1 / 11, 2 / 11, 3 / 11, 4 / 11])


def by_timm(shape: str) -> list[float]:
    """The same by timm's schedulers, which start at the rate of the first step."""
    from timm.scheduler.cosine_lr import CosineLRScheduler
    from timm.scheduler.poly_lr import PolyLRScheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    kind: Callable[..., Any] = CosineLRScheduler
    power = {}
    if shape == "linear":
        kind, power = PolyLRScheduler, {"power": 1.0}
    scheduler = kind(
        optimizer,
        t_initial=STEPS - WARMUP,
        lr_min=END,
        warmup_t=WARMUP,
        warmup_lr_init=PEAK / (WARMUP + 1),
        warmup_prefix=True,
        t_in_epochs=False,
        **power,
    )
    rates = []
    for step in range(STEPS):
        scheduler.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def by_optax(shape: str) -> list[float]:
    """`warmup_cosine_decay_schedule` and `polynomial_schedule` of optax, in NumPy."""
    steps = np.arange(STEPS, dtype=np.float64)
    first = PEAK / (WARMUP + 1)
    rise = first + (PEAK - first) * np.clip(steps / WARMUP, 0, 1)
    fallen = np.clip((steps - WARMUP) / (STEPS - WARMUP), 0, 1)
    alpha = END / PEAK
    falls = {
        "cosine": PEAK * ((1 - alpha) * 0.5 * (1 + np.cos(np.pi * fallen)) + alpha),
        "linear": (PEAK - END) * (1 - fallen) + END,
    }
    rates: list[float] = np.where(steps < WARMUP, rise, falls[shape]).tolist()
    return rates


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("other", [by_timm, by_optax])
def test_the_schedule_is_that_of_other_libraries(
    other: Callable[[str], list[float]], shape: str
) -> None:
    assert make_rates(shape) == pytest.approx(other(shape), rel=1e-12)


def test_epochs_are_counted_in_steps() -> None:
    schedule = make_schedule(make_case(epochs=6, warmup_epochs=1.5), 10)
    assert (schedule.steps, schedule.warmup_steps) == (60, 15)


def test_steps_come_before_epochs() -> None:
    case = make_case(epochs=6, steps=35, warmup_epochs=1.5, warmup_steps=4)
    schedule = make_schedule(case, 10)
    assert (schedule.steps, schedule.warmup_steps) == (35, 4)


def test_no_steps_of_warm_up_are_none_and_not_the_default() -> None:
    schedule = make_schedule(make_case(warmup_steps=0, schedule="constant"), 10)
    assert schedule.at(0) == 1e-3


def test_the_rate_ends_where_the_case_says() -> None:
    case = make_case(
        {"learning_rate": 0.5},
        epochs=2,
        warmup_epochs=0,
        end_learning_rate=0.1,
        schedule="linear",
    )
    schedule = make_schedule(case, 2)
    rates = [schedule.at(step) for step in range(4)]
    assert rates == pytest.approx([0.5, 0.4, 0.3, 0.2])
