"""From a suite to ordered trials, and what they are expected to cost.

Nothing is started here, and torch is not imported: parameters, MACs and memory come
from closed forms, times from earlier trials or from the speed of one matmul.
"""

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np

from tlbench.errors import TrialError
from tlbench.frontier import at_batch, limit_bytes, predict_largest
from tlbench.machine import Machine
from tlbench.models import cost
from tlbench.models.layers import tokens
from tlbench.models.memory import (
    MemorySetting,
    memory_settings,
    predicted_memory_bytes,
)
from tlbench.peaks import is_calibrated_device
from tlbench.result import TrialResult
from tlbench.suites.model_spec import ModelSpec
from tlbench.suites.names import model_name
from tlbench.suites.paths import data_path
from tlbench.suites.rehearsal import Rehearsal
from tlbench.suites.spec import Case, Mode, Suite, Trial

PHASES: tuple[frozenset[Mode], ...] = (
    frozenset({"profile"}),
    frozenset({"infer", "train"}),
    frozenset({"fit"}),
    frozenset({"fewshot", "evaluate"}),
)
"""Quick answers come first; only cases of one phase are compared with each other."""

TRAINING: frozenset[Mode] = frozenset({"train", "fit"})
TIMED: frozenset[Mode] = frozenset({"infer", "train"})

START_TIME_S: dict[Mode, float] = {
    "profile": 3,
    "infer": 3,
    "train": 5,
    "fit": 5,
    "fewshot": 3,
    "evaluate": 3,
}
"""A fresh process with its imports, on the two-core machine tlbench is developed on;
used only where the database holds no trial of the case yet."""
WARMUP_STEPS = 12
UNTIMED_STEPS: dict[Mode, int] = {"infer": 4, "train": 2}
"""Steps of the passes for memory and stages."""
PROBES, PROBE_STEPS = 5, 3
"""What it usually takes to find the largest batch, before the first trial at it."""
NOTHING_MEASURED: Mapping[str, float | None] = MappingProxyType({})
MATMUL_SIDE = 768


@dataclass(frozen=True)
class Forecast:
    """What one case is expected to need."""

    case: Case
    model: str
    identity: str
    repeats: int
    params: int | None
    """None, as MACs and memory, of a builder's model: only its code knows them."""
    macs: int | None
    """Per sample, forward."""
    train_macs: int | None
    """Per sample, forward and backward; None where nothing is trained, too."""
    batch_size: int | None
    """Samples in one step; of the largest batch a prediction, and None where no closed
    form or no limit of the memory is known."""
    memory_bytes: int | None
    """Per device, at the peak; None where the batch is, too."""
    trial_time_s: float
    time_source: Literal["history", "estimate"]

    @property
    def memory(self) -> tuple[MemorySetting, ...]:
        """The parts of the memory, in each precision and ZeRO stage.

        None for `profile`, a builder's model, or a batch that nobody knows yet.
        """
        if self.memory_bytes is None or self.batch_size is None:
            return ()
        return tuple(memory_settings(at_batch(self.case, self.batch_size)))


def describe(forecast: Forecast) -> dict[str, Any]:
    """A forecast as plain JSON values; the case in its canonical form."""
    return {
        **{f.name: getattr(forecast, f.name) for f in fields(forecast)},
        "case": forecast.case.canonical(),
        "memory": [_describe_memory(setting) for setting in forecast.memory],
    }


def _describe_memory(setting: MemorySetting) -> dict[str, Any]:
    return {
        "precision": setting.precision,
        "zero_stage": setting.zero_stage,
        **asdict(setting.memory),
        "total_bytes": setting.memory.total_bytes,
    }


def describe_model(
    spec: ModelSpec, num_classes: int, sources: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """A model and its cost as plain JSON values, per sample.

    The cost is in closed form. A builder's model is built and counted instead, which
    imports torch and runs the builder's code.

    Args:
        spec: The model.
        num_classes: Width of its classifier.
        sources: The texts of the users' files, by the names that builders have for
            them.
    """
    return {
        "name": model_name(spec),
        **(
            _closed_form_cost(spec, num_classes)
            if spec.builder is None
            else _counted_cost(spec, num_classes, spec.source(sources))
        ),
        **spec.model_dump(mode="json", exclude={"name"}),
        "num_classes": num_classes,
    }


def _closed_form_cost(spec: ModelSpec, num_classes: int) -> dict[str, Any]:
    macs = cost.macs(spec, num_classes)
    return {
        "params": cost.params(spec, num_classes),
        "macs": macs,
        "flops": 2 * macs,
        "train_flops": cost.train_flops(spec, num_classes),
        "tokens": tokens(spec),
    }


def _counted_cost(
    spec: ModelSpec, num_classes: int, source: str | None
) -> dict[str, Any]:
    from tlbench.measure.built_cost import count_built_cost  # torch

    counted = count_built_cost(spec, num_classes, source)
    if counted.params is None:
        raise TrialError(f"{model_name(spec)!r} {counted.reason}")
    return {
        "params": counted.params,
        "macs": counted.macs,
        "flops": None if counted.macs is None else 2 * counted.macs,
        "train_flops": counted.train_flops,
        "tokens": None,
        "reason": counted.reason,
    }


class Plan(Protocol):
    """The trials of a run in their order, which may depend on what came of others."""

    def __len__(self) -> int:
        """How many there are by now, begun or not."""

    def take(self) -> Trial | None:
        """The next trial to begin; None: none, as long as nothing more is told."""

    def add(self, trial: Trial, result: TrialResult, wall_time_s: float) -> None:
        """Learn what came of a trial."""

    @property
    def ended_by(self) -> str | None:
        """What leaves nothing to run; None: that all of it ran."""


class FixedPlan:
    """Trials that are known from the beginning."""

    ended_by: str | None = None

    def __init__(self, trials: Iterable[Trial]) -> None:
        self.trials = tuple(trials)
        self._left = iter(self.trials)

    def __len__(self) -> int:
        return len(self.trials)

    def take(self) -> Trial | None:
        return next(self._left, None)

    def add(self, trial: Trial, result: TrialResult, wall_time_s: float) -> None:
        """Nothing is to be learned."""


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
            block = shuffled(block, f"{suite.seed}/{number}/{repeat}")
            planned += [(case, repeat) for case in block]
    return [
        make_trial(suite, case, repeat, position)
        for position, (case, repeat) in enumerate(planned)
    ]


def rehearse(trials: Iterable[Trial], sleep_s: float) -> list[Trial]:
    """The same trials without their measurement: each holds its devices so long."""
    return [Rehearsal(**vars(trial), sleep_s=sleep_s) for trial in trials]


def shuffled(block: Sequence[Case], key: str) -> list[Case]:
    """The cases in an order that is a function of `key`."""
    return random.Random(key).sample(block, len(block))


def make_trial(suite: Suite, case: Case, repeat: int, position: int) -> Trial:
    """One trial of a case of the suite."""
    return Trial(
        case,
        repeat,
        position,
        seed=suite.seed + repeat,
        source=case.model.source(suite.sources),
        data_path=data_path(case, suite.paths),
        storage=suite.storage if case.mode == "fit" else None,
        is_traced=suite.trace and repeat == 0 and case.mode in TIMED,
    )


def forecast(
    suite: Suite,
    history: Mapping[str, Sequence[float]],
    flops_per_s: float,
    calibration: Mapping[str, float | None] = NOTHING_MEASURED,
    machine: Machine | None = None,
) -> list[Forecast]:
    """What each case needs.

    Args:
        suite: The cases.
        history: Wall times in seconds of earlier trials, by identity of the case.
        flops_per_s: Speed of the device where there is no history.
        calibration: What `tlbench calibrate` measured of the machine, by name; its
            matmul of the case's precision, or else in fp32, comes before `flops_per_s`.
        machine: Whose GPU the largest batch is to fit, if the suite sets no limit.
    """
    forecasts = []
    for case in suite.cases:
        earlier = history.get(case.identity)
        is_known = case.model.builder is None
        plain, repeats = _without_builder(case), suite.repeats[case.mode]
        batch_size = _batch_size(plain, machine)
        at_size = None if batch_size is None else at_batch(plain, batch_size)
        speed = _calibrated_speed(case, calibration, machine) or flops_per_s
        forecasts.append(
            Forecast(
                case=case,
                model=model_name(case.model),
                identity=case.identity,
                repeats=repeats,
                params=cost.params(case.model, case.num_classes) if is_known else None,
                macs=cost.macs(case.model, case.num_classes) if is_known else None,
                train_macs=_train_flops(case) // 2
                if is_known and case.mode in TRAINING
                else None,
                batch_size=batch_size,
                memory_bytes=predicted_memory_bytes(at_size)
                if is_known and at_size is not None
                else None,
                trial_time_s=median(earlier)
                if earlier
                else _estimate_s(case, at_size, speed, repeats),
                time_source="history" if earlier else "estimate",
            )
        )
    return forecasts


def _calibrated_speed(
    case: Case, calibration: Mapping[str, float | None], machine: Machine | None
) -> float | None:
    if machine is not None and not is_calibrated_device(case, machine):
        return None
    rates = (
        calibration.get(f"matmul_{p}_flops_per_s") for p in (case.precision, "fp32")
    )
    return next((rate for rate in rates if rate), None)


def _without_builder(case: Case) -> Case:
    """The case with the model that its builder starts from."""
    model = case.model.model_copy(update={"builder": None})
    return case.model_copy(update={"model": model})


def _batch_size(case: Case, machine: Machine | None) -> int | None:
    """Samples in one step; what is predicted where the case asks for the most."""
    if case.batch_size != "max":
        return case.batch_size
    has_gpu = machine is not None and machine.gpu_count > 0
    is_gpu = case.device == "cuda" or (case.device == "auto" and has_gpu)
    limit = limit_bytes(case)
    if limit is None and is_gpu and machine is not None:
        limit = machine.gpu_memory_bytes
    if limit is None:
        return None
    return predict_largest(case, "cuda" if is_gpu else "cpu", limit) or None


def _estimate_s(
    case: Case, at_size: Case | None, flops_per_s: float, repeats: int
) -> float:
    """Seconds of one trial; a search for its batch is spread over all repeats.

    Of a case whose batch nobody knows, what the process costs.
    """
    start = START_TIME_S[case.mode]
    if at_size is None:
        return start
    trial_s = _trial_s(at_size, start, flops_per_s)
    if case.batch_size != "max":
        return trial_s
    per_device = flops_per_s * case.parallelism.world_size
    probe_s = start + PROBE_STEPS * _step_time_s(at_size, per_device)
    return trial_s + PROBES * probe_s / repeats


def _trial_s(case: Case, start: float, flops_per_s: float) -> float:
    if case.mode == "profile":
        return start
    per_device = flops_per_s * case.parallelism.world_size
    if case.mode == "fit":
        return start + _fit_samples(case) * _train_flops(case) / per_device
    if case.mode in ("fewshot", "evaluate"):
        return start + _passed_samples(case) * _flops(case) / per_device
    return start + _passes_s(case, _step_time_s(case, per_device))


def _fit_samples(case: Case) -> int:
    """Training samples of a whole `fit`; none where nobody knows how many there are."""
    if case.fit.steps is not None:
        return case.fit.steps * case.global_batch_size
    return case.fit.epochs * (case.data_info.train_samples or 0)


def _passed_samples(case: Case) -> int:
    """Images or clips to evaluate on, as far as known, and for probes to learn from."""
    asked = case.views * (case.data_info.eval_samples or 0)
    if case.mode == "evaluate":
        return asked
    drawn = case.fewshot.draws * case.fewshot.counts[-1] * case.num_classes
    known = case.data_info.train_samples
    return asked + (drawn if known is None else min(drawn, known))


def _step_time_s(case: Case, flops_per_s: float) -> float:
    flops = _train_flops(case) if case.mode == "train" else _flops(case)
    return flops * case.global_batch_size / flops_per_s


def _passes_s(case: Case, step_time_s: float) -> float:
    """Seconds of warm-up, timed steps, single samples, and all other steps."""
    timing = case.timing
    warmup = min(WARMUP_STEPS * step_time_s, timing.max_time_s + step_time_s)
    timed = min(
        max(timing.max_time_s, timing.min_steps * step_time_s),
        timing.max_steps * step_time_s,
    )
    has_latency = case.mode == "infer" and case.global_batch_size > 1
    latency = timing.max_time_s if has_latency else 0.0
    return warmup + timed + latency + UNTIMED_STEPS[case.mode] * step_time_s


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
