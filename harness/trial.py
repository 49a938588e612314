"""One trial on one rank: build the model, measure what the case asks for, report.

Nothing here knows Ray or the database. Whatever goes wrong becomes a result with its
reason, so that a trial always has something to store.
"""

import errno
import os
import shutil
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from tlbench.data import open_dataset
from tlbench.engine import (
    describe_communication,
    join_process_group,
    leave_process_group,
    set_environment,
    set_head_bias,
    training_engine,
)
from tlbench.errors import (
    NonFiniteLossError,
    TrialError,
    UnknownCostError,
    UnsupportedError,
    first_line,
    name_error,
)
from tlbench.machine import fingerprint
from tlbench.measure.memory import keep_freed_memory
from tlbench.measure.precision import DTYPES, why_unsupported
from tlbench.measure.telemetry import describe_device, measure_idle_power
from tlbench.models import cost
from tlbench.models.builders import build_whole_model
from tlbench.models.checkpoints import load_checkpoint
from tlbench.models.memory import sample_activation_bytes
from tlbench.models.vit import attention_kernel
from tlbench.passes import (
    Findings,
    measure_evaluate,
    measure_fewshot,
    measure_fit,
    measure_infer,
    measure_probe,
    measure_train,
)
from tlbench.rank import Rank
from tlbench.result import Metric, Status, TrialResult
from tlbench.suites.probe import Probe
from tlbench.suites.spec import NO_TRAINING, Case, Trial
from tlbench.validity import WATCHED

SECOND_COUNTS = ("counter_macs", "profiler_macs")
"""What a profile holds against the closed form."""


def run_rank(trial: Trial, rank: Rank, import_time_s: float) -> TrialResult:
    """Run this rank's part of a trial; never raises for what a trial can do wrong."""
    findings = Findings(started=time.perf_counter() - import_time_s)
    try:
        set_environment(rank)
        findings.add(import_time_s=import_time_s)
        _measure(trial, rank, findings)
        status: Status = "ok"
        reason = trace = None
    except BaseException as error:  # a failed trial is a result, sys.exit() too
        status, reason = _classify(error)
        trace = traceback.format_exc()
    _leave(rank, findings, has_failed=reason is not None)
    return TrialResult(
        status=status,
        reason=reason,
        traceback=trace,
        metrics=tuple(findings.metrics),
        series=tuple(findings.series),
        artifacts=tuple(findings.artifacts),
        notes=findings.notes,
        machine=fingerprint(),
    )


def _leave(rank: Rank, findings: Findings, *, has_failed: bool) -> None:
    """Leave the other ranks; where that fails, the trial's own outcome stands."""
    if has_failed and rank.world_size > 1:
        return  # they may wait in an exchange, and this process ends anyway
    try:
        leave_process_group()
    except RuntimeError as error:
        findings.notes["process_group"] = f"could not be left: {error}"


def _measure(trial: Trial, rank: Rank, findings: Findings) -> None:
    case, seed, source = trial.case, trial.seed, trial.source
    if case.model.builder is not None:
        # Ahead of the seed, for the builder's code may draw numbers.
        with findings.not_loading():
            _count_cost(case, source, findings)
    if case.mode == "profile":
        _profile(case, rank, source, findings)
        return
    device = torch.device(rank.device)
    _prepare(case, seed, rank, device, findings)
    if case.mode in WATCHED and not isinstance(trial, Probe):
        with findings.not_loading():
            findings.metrics.append(measure_idle_power(device))
    dataset = open_dataset(case, trial.data_path)
    with attention_kernel(case.attention):
        start = time.perf_counter()
        model = _build(case, source, device, findings)
        engine = (
            None if case.mode in NO_TRAINING else training_engine(model, case, rank)
        )
        built = time.perf_counter()
        if isinstance(trial, Probe):
            measure_probe(trial, model, engine, dataset, rank, findings)
        elif engine is not None and case.mode == "train":
            measure_train(trial, engine, dataset, rank, findings)
        elif engine is not None:
            measure_fit(trial, model, engine, dataset, rank, findings)
        elif case.mode == "infer":
            measure_infer(trial, model, dataset, rank, findings)
        elif case.mode == "evaluate":
            measure_evaluate(case, model, dataset, rank, findings)
        else:
            measure_fewshot(trial, model, dataset, rank, findings)
    findings.add(build_time_s=built - start, measure_time_s=time.perf_counter() - built)


def _prepare(
    case: Case, seed: int, rank: Rank, device: torch.device, findings: Findings
) -> None:
    """Make this process compute as the case says, or say why it cannot."""
    _check_support(case, device)
    torch.manual_seed(seed)
    torch.set_num_threads(rank.threads)
    findings.notes["device"] = describe_device(device, rank.threads)
    if rank.world_size > 1:
        findings.notes["communication"] = describe_communication(rank)
    keep_freed_memory()
    if device.type == "cuda":
        # torch allows TF32 in convolutions by default; fp32 shall mean fp32.
        is_tf32 = case.precision == "tf32"
        torch.set_float32_matmul_precision("high" if is_tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = is_tf32
    join_process_group(case, rank)


def _check_support(case: Case, device: torch.device) -> None:
    reason = why_unsupported(case.precision, device)
    if reason is not None:
        raise UnsupportedError(reason)
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
    if case.fit.head_bias and case.mode not in NO_TRAINING:
        set_head_bias(model, case.fit.head_bias)  # a checkpoint may have its own
    findings.notes |= load_checkpoint(model, case)
    if case.mode in NO_TRAINING:
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
    if case.mode not in NO_TRAINING:
        values["train_flops"] = train_flops
    findings.metrics += [
        Metric(name, value, counted.reason if value is None else None)
        for name, value in values.items()
    ]


def _add_cost(case: Case, findings: Findings) -> None:
    macs = cost.macs(case.model, case.num_classes)
    findings.add(macs=macs, flops=2 * macs)
    if case.mode not in NO_TRAINING:
        findings.add(train_flops=cost.train_flops(case.model, case.num_classes))


def _profile(case: Case, rank: Rank, source: str | None, findings: Findings) -> None:
    from tlbench.measure import flops  # torch's counter loads slowly

    torch.set_num_threads(rank.threads)  # DeepSpeed's profiler executes the model
    host = torch.device("cpu")
    findings.notes["device"] = describe_device(host, rank.threads)
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


def _classify(error: BaseException) -> tuple[Status, str]:
    """The status and the one-sentence reason of a trial that ended with `error`."""
    reason = str(error) or type(error).__name__
    if isinstance(error, UnsupportedError):
        return "skipped", reason
    if isinstance(error, NonFiniteLossError):
        return "nan", reason
    if _is_out_of_memory(error):
        return "oom", first_line(error) or type(error).__name__
    if isinstance(error, TrialError):
        return "error", reason
    if not isinstance(error, Exception):
        return "error", f"the model's code ended its process: {first_line(repr(error))}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "error", _tell_full_disk(error)
    return "error", name_error(error)


def _tell_full_disk(error: OSError) -> str:
    path = error.filename
    if path is None:  # of a file that was open already: the fullest disk it may be on
        path = min(_written_to(), key=lambda place: shutil.disk_usage(place).free)
    whole = Path(os.fsdecode(path)).absolute()
    mount = next(place for place in (whole, *whole.parents) if place.is_mount())
    return f"the disk at {mount} is full: {whole} takes no more"


def _written_to() -> list[str]:
    """The folders that code writes to which names none."""
    # tempfile would try them, and find none where the disk is full.
    return [
        f for f in (os.environ.get("TMPDIR", "/tmp"), os.curdir) if Path(f).exists()
    ]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch's CPU allocator has no error type of its own.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
