"""The passes of a trial: each measures one thing, of a model that is built already.

Timing, memory, stages and accuracy never share a pass, so that none disturbs another.

B samples of this rank in one step.
"""

import math
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from tlbench.accuracy.fit import fit
from tlbench.data import Dataset
from tlbench.engine import (
    TrainingEngine,
    largest_of_ranks,
    sum_over_ranks,
    wait_for_all_ranks,
)
from tlbench.errors import NonFiniteLossError, UnknownCostError
from tlbench.measure.memory import measure_peak_memory
from tlbench.measure.stages import (
    FUSED,
    measure_stages,
    stage_macs,
    unmeasured_stages,
)
from tlbench.measure.timing import Step, StepTimes, clock_for, time_steps
from tlbench.models.layers import layers
from tlbench.models.memory import (
    NO_GROWTH,
    predicted_growth_bytes,
    predicted_memory_bytes,
)
from tlbench.rank import Rank
from tlbench.result import Metric, Series
from tlbench.statistics import percentile
from tlbench.suites.spec import Case

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
LATENCY_STEPS = 200
"""Enough for a 99th percentile."""


@dataclass
class Findings:
    """What the passes of a trial have found so far."""

    metrics: list[Metric] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, **values: float | None) -> None:
        self.metrics += [Metric(name, value) for name, value in values.items()]

    def add_steps(self, times: StepTimes) -> None:
        self.series += [
            Series("warmup_step_time_s", times.warmup),
            Series("step_time_s", times.steps),
        ]
        self.add(first_step_time_s=times.warmup[0])
        self.notes |= times.notes


def measure_infer(
    case: Case, model: nn.Module, dataset: Dataset, rank: Rank, findings: Findings
) -> None:
    images, _ = _fixed_batch(case, dataset, rank)
    with torch.inference_mode():

        def step() -> Tensor:
            output: Tensor = model(images)
            return output

        times = _time(case, step, images.device, findings)
        if case.batch_size == 1:
            _add_latency(times.steps, findings)
        elif rank.rank == 0:
            image = images[:1].clone()
            _add_latency(_time_single_samples(case, model, image), findings)
        wait_for_all_ranks()  # rank 0 had the machine to itself
        # Stages first: the memory pass leaves a heap that has to be faulted in anew.
        findings.metrics += _attribute_to_stages(case, model, step, images.device)
        findings.metrics += _predicted_memory(case)
        findings.metrics += measure_peak_memory(step, images.device)


def _time(
    case: Case, step: Step, device: torch.device, findings: Findings
) -> StepTimes:
    """The timed pass: warm up, then time steps until enough is known."""
    times = time_steps(step, clock_for(device), case.timing, largest_of_ranks)
    findings.add_steps(times)
    return times


def _attribute_to_stages(
    case: Case, model: nn.Module, step: Step, device: torch.device
) -> list[Metric]:
    """Cost of the stages of the model; nobody knows those of a builder's."""
    if case.model.builder is not None:
        return []
    walk = list(layers(case.model, case.num_classes, case.attention))
    counted = [Metric(f"stage_{s}_macs", macs) for s, macs in stage_macs(walk).items()]
    if case.compile:
        return counted + unmeasured_stages(walk, FUSED)
    return counted + measure_stages(model, step, walk, device, case.timing.max_time_s)


def _predicted_memory(case: Case) -> list[Metric]:
    """What the memory pass should find: of all on a GPU, of the growth on a CPU."""
    names = "predicted_memory_bytes", "predicted_memory_growth_bytes"
    try:
        whole, growth = predicted_memory_bytes(case), predicted_growth_bytes(case)
    except UnknownCostError as error:
        return [Metric(name, None, str(error)) for name in names]
    reason = NO_GROWTH if growth is None else None
    return [Metric(names[0], whole), Metric(names[1], growth, reason)]


def _time_single_samples(
    case: Case, model: nn.Module, sample: Tensor
) -> tuple[float, ...]:
    """Time samples one by one, without a look at the interval."""
    timing = case.timing.model_copy(
        update={"target": 1e-9, "max_steps": max(LATENCY_STEPS, case.timing.min_steps)}
    )
    return time_steps(lambda: model(sample), clock_for(sample.device), timing).steps


def _add_latency(steps: tuple[float, ...], findings: Findings) -> None:
    findings.series.append(Series("latency_s", steps))
    for percent in (50, 90, 99):
        name = f"latency_p{percent}_s"
        value = percentile(steps, percent)
        reason = None if value is not None else f"{len(steps)} steps are too few"
        findings.metrics.append(Metric(name, value, reason))


def measure_train(
    case: Case,
    engine: TrainingEngine,
    dataset: Dataset,
    rank: Rank,
    findings: Findings,
) -> None:
    images, labels = _fixed_batch(case, dataset, rank)
    loss = torch.zeros((), device=images.device)

    def step() -> None:
        nonlocal loss
        loss = engine.step(images, labels)

    _time(case, step, images.device, findings)
    findings.metrics += _predicted_memory(case)
    findings.metrics += measure_peak_memory(step, images.device)
    findings.add(loss=_finite(sum_over_ranks(loss).item() / rank.world_size))


def measure_fit(
    case: Case,
    engine: TrainingEngine,
    dataset: Dataset,
    rank: Rank,
    seed: int,
    findings: Findings,
) -> None:
    curves, accuracy = fit(
        engine, case, dataset, rank=rank, dtype=DTYPES[case.precision], seed=seed
    )
    findings.series += [
        Series(item.name, tuple(getattr(curves, item.name))) for item in fields(curves)
    ]
    findings.add(
        top1_percent=accuracy.top1_percent,
        top5_percent=accuracy.top5_percent,
        n_eval=accuracy.total,
        train_time_s=curves.eval_time_s[-1],
        loss=curves.loss[-1],
    )
    target = case.fit.target_top1_percent
    reached = curves.time_to_accuracy_s(target)
    reason = None if reached is not None else f"top-1 never reached {target:g} %"
    findings.metrics.append(Metric("time_to_accuracy_s", reached, reason))


def _fixed_batch(case: Case, dataset: Dataset, rank: Rank) -> tuple[Tensor, Tensor]:
    """This rank's samples of one step, on its device: [B, *sample_shape] and [B]."""
    split = dataset.split("train")
    per_rank = case.global_batch_size // rank.world_size
    chosen = (torch.arange(per_rank) + rank.rank * per_rank) % len(split)
    images, labels = split.batch(chosen, case.model.image_size)
    return images.to(rank.device, DTYPES[case.precision]), labels.to(rank.device)


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise NonFiniteLossError(loss)
    return loss
