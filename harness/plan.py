"""From a suite to ordered trials, and what they are expected to cost.

Nothing is started here, and torch is not imported: parameters, MACs and memory come
from closed forms, times from earlier trials or from the speed of one matmul.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Any, Literal

import numpy as np

from tlbench.models import cost
from tlbench.suites.names import model_name
from tlbench.suites.spec import TRAIN_SAMPLES, Case, Mode, ModelSpec, Suite, Trial

PHASES: tuple[frozenset[Mode], ...] = (
    frozenset({"profile"}),
    frozenset({"infer", "train"}),
    frozenset({"fit"}),
)
"""Quick answers come first; only cases of one phase are compared with each other."""

START_TIME_S: dict[Mode, float] = {"profile": 3, "infer": 3, "train": 5, "fit": 5}
"""A fresh process with its imports, on the two-core machine tlbench is developed on;
used only where the database holds no trial of the case yet."""
WARMUP_STEPS = 12
PASSES = 3
"""Inference is timed at the batch, at batch 1, and run again for its memory."""
MATMUL_SIDE = 768


@dataclass(frozen=True)
class Forecast:
    """What one case is expected to need."""

    case: Case
    model: str
    identity: str
    repeats: int
    params: int
    macs: int
    """Per sample, forward."""
    memory_bytes: int
    """Per device, at the peak."""
    trial_time_s: float
    time_source: Literal["history", "estimate"]


def describe(forecast: Forecast) -> dict[str, Any]:
    """A forecast as plain JSON values; the case in its canonical form."""
    return {
        **{f.name: getattr(forecast, f.name) for f in fields(forecast)},
        "case": forecast.case.canonical(),
    }


def describe_model(spec: ModelSpec, num_classes: int) -> dict[str, Any]:
    """A model and its closed-form cost as plain JSON values, per sample."""
    macs = cost.macs(spec, num_classes)
    return {
        "name": model_name(spec),
        "params": cost.params(spec, num_classes),
        "macs": macs,
        "flops": 2 * macs,
        "train_flops": cost.train_flops(spec, num_classes),
        "tokens": cost.tokens(spec),
        **spec.model_dump(mode="json", exclude={"name"}),
        "num_classes": num_classes,
    }


def order_trials(suite: Suite) -> list[Trial]:
    """All trials of a run in order: shuffled blocks, one of each case in a block.

    Repeats are interleaved so that a drift of the machine hits every case alike. The
    order is a function of the suite's seed.
    """
    planned: list[tuple[Case, int]] = []
    for number, phase in enumerate(PHASES):
        for repeat in range(max(suite.repeats.values())):
            block = [
                case
                for case in suite.cases
                if case.mode in phase and repeat < suite.repeats[case.mode]
            ]
            random.Random(f"{suite.seed}/{number}/{repeat}").shuffle(block)
            planned += [(case, repeat) for case in block]
    return [
        Trial(case, repeat, position, suite.seed + repeat)
        for position, (case, repeat) in enumerate(planned)
    ]


def forecast(
    suite: Suite, history: Mapping[str, Sequence[float]], flops_per_s: float
) -> list[Forecast]:
    """What each case needs.

    Args:
        suite: The cases.
        history: Wall times in seconds of earlier trials, by identity of the case.
        flops_per_s: Speed of the device where there is no history.
    """
    forecasts = []
    for case in suite.cases:
        earlier = history.get(case.identity)
        forecasts.append(
            Forecast(
                case=case,
                model=model_name(case.model),
                identity=case.identity,
                repeats=suite.repeats[case.mode],
                params=cost.params(case.model, case.num_classes),
                macs=cost.macs(case.model, case.num_classes),
                memory_bytes=cost.predicted_memory_bytes(case),
                trial_time_s=median(earlier)
                if earlier
                else _estimate_s(case, flops_per_s),
                time_source="history" if earlier else "estimate",
            )
        )
    return forecasts


def _estimate_s(case: Case, flops_per_s: float) -> float:
    start = START_TIME_S[case.mode]
    if case.mode == "profile":
        return start
    per_device = flops_per_s * case.parallelism.world_size
    if case.mode == "fit":
        per_epoch = TRAIN_SAMPLES[case.data] * _train_flops(case)
        return start + case.fit.epochs * per_epoch / per_device
    flops = _train_flops(case) if case.mode == "train" else _flops(case)
    step_time_s = flops * case.batch_size / per_device
    passes = PASSES if case.mode == "infer" else 1
    timed = max(case.timing.max_time_s, case.timing.min_steps * step_time_s)
    return start + passes * timed + WARMUP_STEPS * step_time_s


def _flops(case: Case) -> int:
    return 2 * cost.macs(case.model, case.num_classes)


def _train_flops(case: Case) -> int:
    return cost.train_flops(case.model, case.num_classes)


def matmul_flops_per_s() -> float:
    """Speed of one fp32 matrix product on this CPU: the best of a few, by NumPy."""
    side = np.ones((MATMUL_SIDE, MATMUL_SIDE), dtype=np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        side @ side
        times.append(time.perf_counter() - start)
    return 2 * MATMUL_SIDE**3 / min(times)
