"""What this machine can do at best, and how far two equal cases lie apart on it.

Everything is measured in fresh worker processes, as the trials of a run are. The
noise floor comes from an A/A experiment: pairs of trials of one and the same case.
Two neighbours stand for the two sides of a comparison inside one block, so that slow
drift of the machine counts as little as it does there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from tlbench.db import query
from tlbench.errors import TrialError
from tlbench.machine import Machine
from tlbench.peaks import is_calibrated_device
from tlbench.rank import DeviceKind
from tlbench.result import WHOLE_JOB, Metric, TrialResult
from tlbench.statistics import LEVEL, NOISE_FLOOR
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Timing, Trial

if TYPE_CHECKING:  # Ray, which those who only read a calibration do without
    from tlbench.cluster import Cluster

FLOOR = "noise_floor_fraction"
FLOOR_BLOCKS = 5
"""Blocks of the comparison that the floor is that of: as many as a suite's default."""
FLOOR_BOUNDS = (0.005, 0.05)
"""What a comparison takes for its floor. Below: an A/A experiment has one model, and
two models also differ in where their memory lies. Above: a machine so noisy has to be
put right, and no floor makes up for it."""
NOISY = 0.03
"""A machine with a higher floor is told to be noisy."""
TRIAL_TIMEOUT_S = 300.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How much time a calibration takes."""

    pairs: int
    max_time_s: float
    """Of the timed steps of each trial of a pair."""
    rate_time_s: float
    """Of each of the rates."""


FULL = Effort(pairs=6, max_time_s=2.0, rate_time_s=3.0)
QUICK = Effort(pairs=2, max_time_s=0.5, rate_time_s=0.5)


@dataclass(frozen=True)
class Calibration:
    """What was measured of one machine, and when."""

    machine: Machine
    measured_at: datetime
    values: tuple[Metric, ...]

    @property
    def is_noisy(self) -> bool:
        floor = next(metric.value for metric in self.values if metric.name == FLOOR)
        return floor is not None and floor > NOISY


def calibrate(cluster: "Cluster", effort: Effort, tell: Tell) -> Calibration:
    """Measure the machine; a TrialError says what kept it from being measured.

    Args:
        cluster: A Ray of one machine.
        effort: How long to measure.
        tell: Is told what is measured now.
    """
    measured_at = datetime.now(UTC)
    tell("matrix products, copies and the clock")
    rates = _checked(cluster.calibrate(effort.rate_time_s))
    case = noise_case(cluster.device, effort.max_time_s)
    throughputs = []
    for number in range(2 * effort.pairs):
        tell(f"the same case again: trial {number + 1} of {2 * effort.pairs}")
        trial = Trial(case, repeat=number // 2, position=number, seed=number // 2)
        throughputs.append(_throughput(cluster.run(trial, TRIAL_TIMEOUT_S).result))
    if rates.machine is None:
        raise TrialError("the worker did not say what machine it ran on")
    values = (*noise_floor_metrics(throughputs), *rates.metrics)
    return Calibration(rates.machine, measured_at, values)


def noise_case(device: DeviceKind, max_time_s: float) -> Case:
    """The case of the A/A experiment: inference that keeps the device busy."""
    name, batch_size = {"cpu": ("ViT-Ti/16", 8), "cuda": ("ViT-B/16", 64)}[device]
    return Case(
        model=parse_model(name),
        mode="infer",
        batch_size=batch_size,
        device=device,
        timing=Timing(max_time_s=max_time_s),
    )


def _throughput(result: TrialResult) -> float:
    for metric in _checked(result).metrics:
        is_job = metric.rank == WHOLE_JOB
        if is_job and metric.name == "throughput_samples_per_s" and metric.value:
            return metric.value
    raise TrialError("a trial of the calibration measured no throughput")


def _checked(result: TrialResult) -> TrialResult:
    if result.status != "ok":
        raise TrialError(f"a worker of the calibration ended: {result.reason}")
    return result


def noise_floor_metrics(throughputs: Sequence[float]) -> tuple[Metric, ...]:
    """The noise floor of trials that came in pairs, and its own uncertainty.

    The floor is the width that 95 % of the ratios of two equal cases, less 1, stay
    within, where each ran once in `FLOOR_BLOCKS` blocks: Student's t for such a mean,
    from the spread of the logarithms of the ratios in the pairs. Their own mean is 0
    by design, so n pairs leave n degrees of freedom. The interval of the floor is that
    of the spread, by chi-square.
    """
    from scipy.stats import chi2, t

    ratios = [
        math.log(second / first)
        for first, second in zip(throughputs[::2], throughputs[1::2], strict=True)
    ]
    n, squares = len(ratios), sum(ratio**2 for ratio in ratios)
    reach = float(t.ppf((1 + LEVEL) / 2, n))
    tail = (1 - LEVEL) / 2

    def floor(variance: float) -> float:
        return math.expm1(reach * math.sqrt(variance / FLOOR_BLOCKS))

    return (
        Metric(FLOOR, floor(squares / n)),
        Metric("noise_floor_low_fraction", floor(squares / chi2.ppf(1 - tail, n))),
        Metric("noise_floor_high_fraction", floor(squares / chi2.ppf(tail, n))),
        Metric("noise_floor_pairs", n),
    )


def noise_floor(session: Session, machine: Machine | None, case: Case) -> float:
    """What two cases like this may differ by on the machine, for `compare_ratio`.

    The measured floor within `FLOOR_BOUNDS`; where there is none of the device that
    the case computes on, the usual one.
    """
    if machine is None or not is_calibrated_device(case, machine):
        return NOISE_FLOOR
    measured = query.calibration(session, machine).get(FLOOR)
    if measured is None:
        return NOISE_FLOOR
    low, high = FLOOR_BOUNDS
    return min(max(measured, low), high)


MEANINGS: Mapping[str, str] = {
    FLOOR: f"two equal cases of {FLOOR_BLOCKS} trials lie closer, 95 times of 100",
    "noise_floor_low_fraction": "lower end of its 95 % interval",
    "noise_floor_high_fraction": "upper end of its 95 % interval",
    "noise_floor_pairs": "pairs of trials that it comes from",
    "matmul_fp32_flops_per_s": "best product of two matrices in fp32",
    "matmul_tf32_flops_per_s": "the same in tf32",
    "matmul_bf16_flops_per_s": "the same in bf16",
    "matmul_fp16_flops_per_s": "the same in fp16",
    "copy_bytes_per_s": "best copy in the device's memory, read and written bytes",
    "host_to_device_bytes_per_s": "best copy to the GPU from pinned memory",
    "timer_s": "one look at the clock",
    "timer_resolution_s": "shortest time that the clock tells",
}
"""What each value is, in words."""


def describe(calibration: Calibration) -> dict[str, Any]:
    """A calibration as plain JSON values."""
    return {
        "machine": vars(calibration.machine),
        "measured_at": calibration.measured_at.isoformat(),
        "is_noisy": calibration.is_noisy,
        "values": {metric.name: metric.value for metric in calibration.values},
        "reasons": {m.name: m.reason for m in calibration.values if m.reason},
    }
