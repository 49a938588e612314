"""The passes of a trial: each measures one thing, of a model that is built already.

Timing, memory, stages and accuracy never share a pass, so that none disturbs another.

B samples of this rank in one step.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tlbench.accuracy.evaluate import Accuracy, evaluate
from tlbench.accuracy.fewshot import FewShotAccuracy, few_shot
from tlbench.accuracy.fit import fit
from tlbench.data import Dataset, SplitName, hold, unreadable
from tlbench.data.epochs import view_batches
from tlbench.data.loader import Batch, Feed, make_loader
from tlbench.engine import (
    TrainingEngine,
    largest_of_ranks,
    sum_over_ranks,
    wait_for_all_ranks,
)
from tlbench.errors import NonFiniteLossError, UnknownCostError
from tlbench.measure.attention_maps import map_findings
from tlbench.measure.communication import (
    COMPILED,
    measure_communication,
    unmeasured_communication,
)
from tlbench.measure.compilation import measure_compilation
from tlbench.measure.input import data_wait, measure_input
from tlbench.measure.memory import limited_memory, measure_peak_memory
from tlbench.measure.precision import DTYPES
from tlbench.measure.stages import (
    FUSED,
    measure_stages,
    stage_macs,
    unmeasured_stages,
)
from tlbench.measure.telemetry import Telemetry, open_telemetry
from tlbench.measure.timing import Step, StepTimes, clock_for, time_steps
from tlbench.measure.trace import run_traced_steps, trace_steps, why_not_kept
from tlbench.models.layers import layers
from tlbench.models.memory import (
    NO_GROWTH,
    predicted_growth_bytes,
    predicted_memory_bytes,
)
from tlbench.rank import Rank
from tlbench.result import Artifact, Metric, Series, too_few_steps
from tlbench.statistics import percentile
from tlbench.suites.probe import Probe
from tlbench.suites.spec import Case, Trial
from tlbench.suites.training import fewshot_metric

LATENCY_STEPS = 200
"""Enough for a 99th percentile."""


@dataclass
class Findings:
    """What the passes of a trial have found so far."""

    started: float = field(default_factory=time.perf_counter)
    """When this process began to load what a trial needs."""
    metrics: list[Metric] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, **values: float | None) -> None:
        self.metrics += [Metric(name, value) for name, value in values.items()]

    @contextmanager
    def not_loading(self) -> Iterator[None]:
        """Leave what is measured meanwhile out of the time of loading."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.started += time.perf_counter() - start

    def add_load_time(self) -> None:
        """Say that the first step can start now."""
        self.add(load_time_s=time.perf_counter() - self.started)

    def add_steps(self, times: StepTimes) -> None:
        self.series += [
            Series("warmup_step_time_s", times.warmup),
            Series("step_time_s", times.steps),
        ]
        self.add(first_step_time_s=times.warmup[0])
        self.notes |= times.notes

    def add_accuracy(self, accuracy: Accuracy) -> None:
        self.add(**accuracy.metrics)
        self.notes |= accuracy.notes

    def add_maps(self, metrics: list[Metric], artifacts: list[Artifact]) -> None:
        self.metrics += metrics
        self.artifacts += artifacts

    def add_telemetry(self, telemetry: Telemetry, samples: int) -> None:
        self.metrics += telemetry.metrics(samples)
        self.series += telemetry.series
        self.notes |= telemetry.notes


@dataclass(frozen=True)
class Work:
    """What a step does, and where its batches come from."""

    use: Callable[[Tensor, Tensor], object]
    """The step itself, given images or clips and their labels."""
    kept: Batch
    """The batch of `input: fixed`, and of all passes that do not ask for the input."""
    loader: DataLoader[Batch] | None
    """None: the input is fixed."""

    @property
    def device(self) -> torch.device:
        return self.kept[0].device

    def kept_step(self) -> object:
        return self.use(*self.kept)

    @contextmanager
    def feeding(self) -> Iterator[tuple[Step, Feed | None]]:
        """The step as the case asks for it, and its loader as long as that runs."""
        if self.loader is None:
            yield self.kept_step, None
            return
        with Feed(self.loader, self.device, self.kept[0].dtype) as feed:
            yield lambda: self.use(*feed.take()), feed


def _work(
    use: Callable[[Tensor, Tensor], object],
    trial: Trial,
    dataset: Dataset,
    rank: Rank,
) -> Work:
    case, loader = trial.case, None
    if case.input.kind == "loader":
        loader = make_loader(case, dataset.stored(_split(case)), rank, trial.seed)
    return Work(use, _fixed_batch(case, dataset, rank), loader)


def measure_infer(
    trial: Trial,
    model: nn.Module,
    dataset: Dataset,
    rank: Rank,
    findings: Findings,
) -> None:
    case = trial.case
    with torch.inference_mode():
        work = _work(lambda images, _: model(images), trial, dataset, rank)
        images, _ = work.kept
        times = _time(case, work, rank, findings)
        if rank.world_size > 1:  # its ranks exchange nothing
            findings.add(compute_time_s=median(times.steps))
        if case.batch_size == 1 and work.loader is None:
            _add_latency(times.steps, findings)
        elif rank.rank == 0:
            image = images[:1].clone()
            _add_latency(_time_single_samples(case, model, image), findings)
        wait_for_all_ranks()  # rank 0 had the machine to itself
        # Stages first: the memory pass leaves a heap that has to be faulted in anew.
        findings.metrics += _attribute_to_stages(
            case, model, work.kept_step, work.device
        )
        findings.metrics += _predicted_memory(case)
        findings.metrics += measure_peak_memory(work.kept_step, work.device)
        _trace(trial, work, rank, findings)


def _time(case: Case, work: Work, rank: Rank, findings: Findings) -> StepTimes:
    """The timed pass: warm up, then time steps until enough is known."""
    findings.add_load_time()
    clock = clock_for(work.device)
    with (
        open_telemetry(work.device, _local_pids(rank)) as telemetry,
        work.feeding() as (step, feed),
    ):
        times = time_steps(step, clock, case.timing, largest_of_ranks, telemetry)
        if feed is not None:
            findings.metrics.append(data_wait(feed, times))
    findings.add_steps(times)
    findings.add_telemetry(telemetry, len(times.steps) * case.global_batch_size)
    if case.compile:
        findings.metrics += measure_compilation()
    if work.loader is not None:
        findings.metrics += measure_input(
            work.loader, work.kept_step, work.device, case.timing, largest_of_ranks
        )
    return times


def _local_pids(rank: Rank) -> list[int]:
    """The processes of this trial's ranks on this machine."""
    pids = torch.zeros(rank.world_size, dtype=torch.int64, device=rank.device)
    pids[rank.rank] = os.getpid()
    first = rank.rank - rank.local_rank
    local: list[int] = sum_over_ranks(pids)[first:][: rank.local_world_size].tolist()
    return local


def _trace(trial: Trial, work: Work, rank: Rank, findings: Findings) -> None:
    """The profiler's pass, the last of all; rank 0 keeps its trace."""
    if not trial.is_traced:
        return
    with work.feeding() as (step, _):
        if rank.rank != 0:
            run_traced_steps(step)
            return
        trace = trace_steps(step, work.device)
    reason = why_not_kept(trace)
    if reason is None:
        findings.artifacts.append(trace)
    else:
        findings.notes["trace"] = reason


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
        reason = None if value is not None else too_few_steps(len(steps))
        findings.metrics.append(Metric(name, value, reason))


def measure_train(
    trial: Trial,
    engine: TrainingEngine,
    dataset: Dataset,
    rank: Rank,
    findings: Findings,
) -> None:
    case = trial.case
    loss = torch.zeros((), device=rank.device)

    def use(images: Tensor, labels: Tensor) -> None:
        nonlocal loss
        loss = engine.step(images, labels)

    work = _work(use, trial, dataset, rank)
    _time(case, work, rank, findings)
    if rank.world_size > 1:
        findings.metrics += (
            unmeasured_communication(COMPILED)
            if case.compile and work.device.type == "cpu"
            else measure_communication(work.kept_step, work.device)
        )
    findings.metrics += _predicted_memory(case)
    findings.metrics += measure_peak_memory(work.kept_step, work.device)
    _trace(trial, work, rank, findings)
    findings.add(loss=_finite(sum_over_ranks(loss).item() / rank.world_size))


def measure_probe(
    probe: Probe,
    model: nn.Module,
    engine: TrainingEngine | None,
    dataset: Dataset,
    rank: Rank,
    findings: Findings,
) -> None:
    """The memory pass alone, in a process that may not fill the host."""
    case = probe.case
    with torch.inference_mode(engine is None):
        images, labels = _fixed_batch(case, dataset, rank)

        def use(few: slice) -> object:
            if engine is None:
                return model(images[few])
            return engine.step(images[few], labels[few])

        # What the first step makes, such as the optimiser's states, is there to stay.
        # torch.compile would compile for each size of batch.
        whole = slice(None)
        use(whole if case.compile else slice(case.accumulation))
        with limited_memory(probe.stop_bytes):
            use(whole)  # as in a trial, kernels have their workspaces before
            findings.metrics += measure_peak_memory(lambda: use(whole), images.device)


def measure_fit(
    trial: Trial,
    model: nn.Module,
    engine: TrainingEngine,
    dataset: Dataset,
    rank: Rank,
    findings: Findings,
) -> None:
    findings.add_load_time()
    case = trial.case
    curves, accuracy = fit(
        engine, trial, dataset, rank=rank, dtype=DTYPES[case.precision]
    )
    findings.series += [
        Series(name, tuple(values))
        for name, values in curves.series().items()
        if values
    ]
    findings.notes |= curves.notes
    findings.add_accuracy(accuracy)
    findings.add(
        train_time_s=curves.train_time_s,
        data_wait_fraction=curves.data_wait_fraction,
        loss=curves.loss[-1],
    )
    target = case.fit.target_top1_percent
    reached = curves.time_to_accuracy_s(target)
    reason = None
    if accuracy.top1_percent is None:
        reason = f"samples of {case.data} have several labels, and no top-1"
    elif reached is None:
        reason = f"top-1 never reached {target:g} %"
    findings.metrics.append(Metric("time_to_accuracy_s", reached, reason))
    with engine.averaged():
        findings.add_maps(*map_findings(model, dataset, case, rank))
    _add_unreadable(dataset, ("train", "eval"), findings)


def measure_evaluate(
    case: Case,
    model: nn.Module,
    dataset: Dataset,
    rank: Rank,
    findings: Findings,
) -> None:
    findings.add_load_time()
    start = time.perf_counter()
    accuracy = evaluate(
        model,
        dataset,
        case,
        rank=rank,
        dtype=DTYPES[case.precision],
        batch_size=case.micro_batch_size,
    )
    elapsed_s = time.perf_counter() - start
    findings.add_accuracy(accuracy)
    passed = len(hold(dataset, "eval").stored)
    findings.add(eval_throughput_samples_per_s=passed / elapsed_s)
    findings.add_maps(*map_findings(model, dataset, case, rank))
    _add_unreadable(dataset, ("eval",), findings)


def measure_fewshot(
    trial: Trial,
    model: nn.Module,
    dataset: Dataset,
    rank: Rank,
    findings: Findings,
) -> None:
    findings.add_load_time()
    case = trial.case
    start = time.perf_counter()
    result = few_shot(
        model,
        dataset,
        case,
        rank=rank,
        dtype=DTYPES[case.precision],
        batch_size=case.micro_batch_size,
        seed=trial.seed,
    )
    elapsed_s = time.perf_counter() - start
    for accuracy in result.accuracies:
        _add_fewshot(accuracy, findings)
    findings.add(
        n_eval=result.asked, eval_throughput_samples_per_s=result.passed / elapsed_s
    )
    _add_unreadable(dataset, ("train", "eval"), findings)


def _add_fewshot(accuracy: FewShotAccuracy, findings: Findings) -> None:
    """The mean over the draws, how far they are apart, and each of them."""
    shots, draws = accuracy.shots, accuracy.top1_percent
    single = f"{len(draws)} draw has no deviation" if draws else accuracy.reason
    deviation = accuracy.deviation_percent
    findings.metrics += [
        Metric(fewshot_metric(shots), accuracy.mean_percent, accuracy.reason),
        Metric(
            f"fewshot_{shots}_top1_deviation_percent",
            deviation,
            single if deviation is None else None,
        ),
    ]
    if draws:
        findings.series.append(Series(fewshot_metric(shots), draws))


def _add_unreadable(
    dataset: Dataset, splits: Iterable[SplitName], findings: Findings
) -> None:
    """How many samples this rank could not read, and which."""
    accounts = {split: unreadable(dataset, split) for split in splits}
    findings.add(unreadable_samples=sum(a.count for a in accounts.values()))
    findings.notes |= {
        f"unreadable_{split}": account.describe()
        for split, account in accounts.items()
        if account.count
    }


def _fixed_batch(case: Case, dataset: Dataset, rank: Rank) -> tuple[Tensor, Tensor]:
    """This rank's samples of one step, on its device: [B, *sample_shape] and [B].

    The first ones there are, from the start again where there are too few.
    """
    split = _split(case)
    count = len(hold(dataset, split).stored)
    chosen = [place % count for place in range(case.global_batch_size)]
    per_rank = case.global_batch_size // rank.world_size
    batches = view_batches(
        dataset, split, case, rank, batch_size=per_rank, indices=chosen
    )
    batch = next(iter(batches))
    images = batch.images[:per_rank]  # of the views of a sample, as many as go at once
    return images.to(rank.device, DTYPES[case.precision]), batch.labels.to(rank.device)


def _split(case: Case) -> SplitName:
    """Where samples come from whose labels do not matter."""
    return "eval" if case.data_info.is_eval_only else "train"


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise NonFiniteLossError(loss)
    return loss
