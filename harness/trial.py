"""One trial on one rank: build the model, measure what the case asks for, report.

Nothing here knows Ray or the database. Whatever goes wrong becomes a result with its
reason, so that a trial always has something to store.

B samples of this rank in one step.
"""

import math
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn

from tlbench.accuracy.fit import fit
from tlbench.data import Dataset, load_dataset
from tlbench.engine import (
    TrainingEngine,
    join_process_group,
    largest_of_ranks,
    leave_process_group,
    set_environment,
    sum_over_ranks,
    wait_for_all_ranks,
)
from tlbench.errors import (
    NonFiniteLossError,
    TrialError,
    UnknownCostError,
    UnsupportedError,
)
from tlbench.machine import fingerprint
from tlbench.measure.memory import keep_freed_memory, measure_peak_memory
from tlbench.measure.stages import (
    FUSED,
    measure_stages,
    stage_macs,
    unmeasured_stages,
)
from tlbench.measure.timing import Step, StepTimes, clock_for, time_steps
from tlbench.models import cost
from tlbench.models.builders import build_whole_model
from tlbench.models.layers import layers
from tlbench.models.memory import (
    NO_GROWTH,
    predicted_growth_bytes,
    predicted_memory_bytes,
    sample_activation_bytes,
)
from tlbench.models.vit import attention_kernel
from tlbench.rank import Rank
from tlbench.result import Metric, Series, Status, TrialResult
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
SECOND_COUNTS = ("counter_macs", "profiler_macs")
"""What a profile holds against the closed form."""


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


def run_rank(
    case: Case, seed: int, rank: Rank, import_time_s: float, source: str | None = None
) -> TrialResult:
    """Run this rank's part of a trial; never raises for what a trial can do wrong.

    `source` is the text of the user's file that the model's builder stands in.
    """
    findings = Findings()
    try:
        set_environment(rank)
        findings.add(import_time_s=import_time_s)
        _measure(case, seed, rank, source, findings)
        status: Status = "ok"
        reason = trace = None
    except Exception as error:  # a failed trial is a result
        status, reason = _classify(error)
        trace = traceback.format_exc()
    finally:
        leave_process_group()
    return TrialResult(
        status=status,
        reason=reason,
        traceback=trace,
        metrics=tuple(findings.metrics),
        series=tuple(findings.series),
        notes=findings.notes,
        machine=fingerprint(),
    )


def _measure(
    case: Case, seed: int, rank: Rank, source: str | None, findings: Findings
) -> None:
    if case.model.builder is not None:
        # Ahead of the seed, for the builder's code may draw numbers.
        _count_cost(case, source, findings)
    if case.mode == "profile":
        _profile(case, rank, source, findings)
        return
    device = torch.device(rank.device)
    _prepare(case, seed, rank, device)
    dataset = load_dataset(case.data, case.model.video)
    with attention_kernel(case.attention):
        start = time.perf_counter()
        model = _build(case, source, device, findings)
        engine = None if case.mode == "infer" else TrainingEngine(model, case, rank)
        built = time.perf_counter()
        if engine is None:
            _infer(case, model, dataset, rank, findings)
        elif case.mode == "train":
            _train(case, engine, dataset, rank, findings)
        else:
            _fit(case, engine, dataset, rank, seed, findings)
    findings.add(build_time_s=built - start, measure_time_s=time.perf_counter() - built)


def _prepare(case: Case, seed: int, rank: Rank, device: torch.device) -> None:
    """Make this process compute as the case says, or say why it cannot."""
    _check_support(case, device)
    torch.manual_seed(seed)
    torch.set_num_threads(rank.threads)
    keep_freed_memory()
    if device.type == "cuda":
        # torch allows TF32 in convolutions by default; fp32 shall mean fp32.
        is_tf32 = case.precision == "tf32"
        torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = is_tf32
    if case.mode != "infer" or rank.world_size > 1:
        join_process_group(rank)


def _check_support(case: Case, device: torch.device) -> None:
    if device.type == "cpu" and case.precision in ("tf32", "fp16"):
        raise UnsupportedError(f"precision {case.precision} needs a GPU; this is a CPU")
    is_old = device.type == "cuda" and torch.cuda.get_device_capability() < (8, 0)
    if is_old and case.precision in ("tf32", "bf16"):
        name = torch.cuda.get_device_name()
        raise UnsupportedError(f"precision {case.precision} is not supported by {name}")
    if case.attention not in ("auto", "eager"):
        _check_kernel(case, device)


def _check_kernel(case: Case, device: torch.device) -> None:
    query = torch.zeros(1, 1, 8, 64, device=device, dtype=DTYPES[case.precision])
    try:
        with attention_kernel(case.attention):
            nn.functional.scaled_dot_product_attention(query, query, query)
    except RuntimeError as error:
        raise UnsupportedError(
            f"attention kernel {case.attention} does not run in {case.precision}"
            f" on this {device.type}: {error}"
        ) from error


def _build(
    case: Case, source: str | None, device: torch.device, findings: Findings
) -> nn.Module:
    with device:
        model = build_whole_model(
            case.model,
            case.num_classes,
            source,
            attention=case.attention,
            drop_path_rate=case.drop_path_rate,
            gradient_checkpointing=case.gradient_checkpointing,
        )
    parameters = list(model.parameters())
    count = sum(p.numel() for p in parameters)
    if case.model.builder is None:
        _check_params(case, count)
        _add_cost(case, findings)
    findings.add(
        params=count,
        trainable_params=sum(p.numel() for p in parameters if p.requires_grad),
    )
    if case.mode == "infer":
        model = model.to(DTYPES[case.precision]).eval()
    if case.compile:
        model.compile()  # in place: the module keeps its type and its names
    return model


def _check_params(case: Case, count: int) -> None:
    expected = cost.params(case.model, case.num_classes)
    if count != expected:
        raise TrialError(
            f"the built model has {count:,} parameters, its closed form {expected:,}"
        )


def _count_cost(case: Case, source: str | None, findings: Findings) -> None:
    """Find by counting what the model of a builder costs, or why that is unknown."""
    from tlbench.measure.built_cost import count_built_cost  # torch's counter is slow

    counted = count_built_cost(case.model, case.num_classes, source)
    macs, train_flops = counted.macs, counted.train_flops
    values = {"macs": macs, "flops": None if macs is None else 2 * macs}
    if case.mode != "infer":
        values["train_flops"] = train_flops
    findings.metrics += [
        Metric(name, value, counted.reason if value is None else None)
        for name, value in values.items()
    ]


def _add_cost(case: Case, findings: Findings) -> None:
    macs = cost.macs(case.model, case.num_classes)
    findings.add(macs=macs, flops=2 * macs)
    if case.mode != "infer":
        findings.add(train_flops=cost.train_flops(case.model, case.num_classes))


def _profile(case: Case, rank: Rank, source: str | None, findings: Findings) -> None:
    from tlbench.measure import flops  # torch's counter loads slowly

    torch.set_num_threads(rank.threads)  # DeepSpeed's profiler executes the model
    model = _build(case, source, torch.device("meta"), findings)
    if case.model.builder is not None:
        # There is no closed form to hold the counts against.
        unknown = str(UnknownCostError(case.model.builder.function))
        findings.metrics += [Metric(name, None, unknown) for name in SECOND_COUNTS]
        return
    counted = flops.count_macs(model, case.model.sample_shape)
    _refuse(flops.layer_disagreements(case.model, case.num_classes, counted))
    macs = flops.total_macs(counted)
    findings.add(counter_macs=macs)
    reason = flops.why_not_profiled(
        sum(p.numel() for p in model.parameters()),
        macs,
        sample_activation_bytes(case.model),
        flops.PROFILER_MAX_MACS,
    )
    profiled = None
    if reason is None:
        profiled = flops.profile_macs(model, case.model.sample_shape)
        _refuse(flops.profiler_disagreements(counted, profiled))
    profiler_macs = None if profiled is None else sum(profiled.values())
    findings.metrics.append(Metric("profiler_macs", profiler_macs, reason))


def _refuse(disagreements: Iterable[str]) -> None:
    for disagreement in disagreements:
        raise TrialError(disagreement)


def _infer(
    case: Case, model: nn.Module, dataset: Dataset, rank: Rank, findings: Findings
) -> None:
    images, _ = _fixed_batch(case, dataset, rank)
    with torch.inference_mode():

        def step() -> Tensor:
            output: Tensor = model(images)
            return output

        times = time_steps(
            step, clock_for(images.device), case.timing, largest_of_ranks
        )
        findings.add_steps(times)
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


def _train(
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

    findings.add_steps(
        time_steps(step, clock_for(images.device), case.timing, largest_of_ranks)
    )
    findings.metrics += _predicted_memory(case)
    findings.metrics += measure_peak_memory(step, images.device)
    findings.add(loss=_finite(sum_over_ranks(loss).item() / rank.world_size))


def _fit(
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
    per_rank = case.batch_size // rank.world_size
    chosen = (torch.arange(per_rank) + rank.rank * per_rank) % len(split)
    images, labels = split.batch(chosen, case.model.image_size)
    return images.to(rank.device, DTYPES[case.precision]), labels.to(rank.device)


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise NonFiniteLossError(loss)
    return loss


def _classify(error: Exception) -> tuple[Status, str]:
    """The status and the one-sentence reason of a trial that ended with `error`."""
    reason = str(error) or type(error).__name__
    if isinstance(error, UnsupportedError):
        return "skipped", reason
    if isinstance(error, NonFiniteLossError):
        return "nan", reason
    if _is_out_of_memory(error):
        return "oom", reason.partition("\n")[0]
    if isinstance(error, TrialError):
        return "error", reason
    return "error", f"{type(error).__name__}: {reason.partition(chr(10))[0]}"


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch's CPU allocator has no error type of its own.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
