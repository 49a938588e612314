"""What a trial brings back: plain frozen records that cross processes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal, TypeVar, get_args

from tlbench.machine import Machine
from tlbench.units import format_counted

Status = Literal["ok", "oom", "timeout", "error", "nan", "lost", "skipped"]
"""How a trial ended. lost: what it ran on went away or never came, which says nothing
of its case."""
STATUSES: tuple[Status, ...] = get_args(Status)
Validity = Literal["valid", "suspect", "invalid"]
"""How far the numbers of a trial may be trusted: gates ignore invalid ones."""

T = TypeVar("T", "Metric", "Series")

WHOLE_JOB = -1
"""The rank of a value that belongs to all ranks together."""
SUMMED = frozenset(
    {
        "energy_j_per_sample",
        "power_w",
        "idle_power_w",
        "input_throughput_samples_per_s",
        "unreadable_samples",
    }
)
"""Metrics whose value for the job is the sum over the ranks; of others, the largest."""
COMPUTE_TIME = "compute_time_s"
"""Seconds of a step in which a rank does not wait for an exchange with the others."""
COMMUNICATION = "communication_fraction"
OVERLAPPED_COMMUNICATION = "overlapped_communication_fraction"
OF_THE_SLOWEST = frozenset({COMMUNICATION, OVERLAPPED_COMMUNICATION})
"""Metrics whose value for the job is that of the rank with the longest `COMPUTE_TIME`:
in other ranks' exchanges their waiting for it counts too."""
SMALLEST = frozenset(
    {
        "gpu_clock_hz",
        "gpu_memory_clock_hz",
        "gpu_utilization_fraction",
        "cpu_clock_hz",
        "input_throughput_per_worker_samples_per_s",
        "eval_throughput_samples_per_s",
    }
)
"""Metrics whose value for the job is the smallest of any rank."""
STEP_SERIES = frozenset({"warmup_step_time_s", "step_time_s"})
RANK_NOTES = (
    *("device", "communication", "throttled_by", "energy_from", "rehearsed_on"),
    *("unreadable_train", "unreadable_eval"),
)
"""Notes that each rank makes of its own device, its surroundings and what it read."""
UNSETTLED = "did not settle in"
"""How the note `warmup` begins where the speed was not steady when timing began."""
TELEMETRY = "telemetry_"
"""How the names of series begin that each rank samples by a clock of its own."""


@dataclass(frozen=True)
class Metric:
    """One value of one metric; the name ends in its unit."""

    name: str
    value: float | None
    """None: it could not be measured, and `reason` says why."""
    reason: str | None = None
    rank: int = WHOLE_JOB

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError(f"metric {self.name} has neither a value nor a reason")


@dataclass(frozen=True)
class Series:
    """One array of one metric, in the order in which it was measured."""

    name: str
    values: tuple[float, ...]
    rank: int = WHOLE_JOB


@dataclass(frozen=True)
class Artifact:
    """A small file that a trial leaves behind, such as its log."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True)
class TrialResult:
    """Everything that one trial found out, or why it did not."""

    status: Status
    reason: str | None = None
    """One sentence; None only where the status is ok."""
    traceback: str | None = None
    metrics: tuple[Metric, ...] = ()
    series: tuple[Series, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    """Words about the measurement, such as what ended the timing."""
    validity: Validity | None = None
    """None: not judged, as where the status is not ok."""
    doubts: tuple[str, ...] = ()
    """Why it is not valid, a sentence each."""
    machine: Machine | None = None
    """Where rank 0 ran; None where no worker came up."""

    def __post_init__(self) -> None:
        if self.status != "ok" and not self.reason:
            raise ValueError(f"status {self.status} needs a reason")
        if self.validity in ("suspect", "invalid") and not self.doubts:
            raise ValueError(f"validity {self.validity} needs a reason")


def combine_ranks(results: Sequence[TrialResult], batch_size: int) -> TrialResult:
    """Make one result of those of all ranks, in the order of the ranks.

    The job's value of every step, and of every metric but `SUMMED`, `SMALLEST` and
    `OF_THE_SLOWEST`, is the largest of any rank: its steps take as long as the slowest,
    and its memory must hold the fullest. Where ranks exchange nothing in their steps,
    those of the slowest rank are the job's, as they are. With more than one rank each
    keeps its own values beside the job's; what each samples by its own clock
    (`TELEMETRY`) has no value of the job.

    Args:
        results: One of each rank.
        batch_size: Samples in one step of the whole job.
    """
    for result in results:
        if result.status != "ok":
            return result
    series = _job_series(results)
    metrics = _job_metrics(results)
    times = next((s.values for s in series if s.name == "step_time_s"), ())
    if times:
        metrics += _throughput(times, batch_size, len(results))
        metrics += _spread_of_steps(times)
    is_kept = (lambda s: True) if len(results) > 1 else _is_telemetry
    series += [
        replace(s, rank=rank)
        for rank, result in enumerate(results)
        for s in result.series
        if is_kept(s)
    ]
    if len(results) > 1:
        metrics += _rank_spread(results)
        metrics += [
            replace(m, rank=r) for r, x in enumerate(results) for m in x.metrics
        ]
    return replace(
        results[0],
        metrics=tuple(metrics),
        series=tuple(series),
        notes=_job_notes(results),
    )


def _job_series(results: Sequence[TrialResult]) -> list[Series]:
    is_together = any(m.name == COMMUNICATION for r in results for m in r.metrics)
    jobs = []
    for name, group in _by_name(
        s for result in results for s in result.series if not _is_telemetry(s)
    ):
        arrays = [series.values for series in group]
        if name in STEP_SERIES and not is_together:
            # Their n-th steps are not at the same time: the median of the largest of
            # independent ones would grow with the number of ranks.
            jobs.append(Series(name, max(arrays, key=median)))
        else:
            jobs.append(Series(name, tuple(map(max, zip(*arrays, strict=True)))))
    return jobs


def _job_notes(results: Sequence[TrialResult]) -> dict[str, str]:
    """Those of rank 0, and what each rank says of itself: once, where all agree."""
    notes = dict(results[0].notes)
    for name in RANK_NOTES:
        if len({result.notes.get(name) for result in results}) == 1:
            continue
        notes[name] = "; ".join(
            f"rank {rank}: {result.notes[name]}"
            for rank, result in enumerate(results)
            if name in result.notes
        )
    return notes


def _is_telemetry(series: Series) -> bool:
    return series.name.startswith(TELEMETRY)


def _job_metrics(results: Sequence[TrialResult]) -> list[Metric]:
    metrics = []
    for name, group in _by_name(m for result in results for m in result.metrics):
        unknown = [metric for metric in group if metric.value is None]
        if unknown:
            metrics.append(unknown[0])
        elif name in SUMMED:
            metrics.append(Metric(name, sum(map(_value, group))))
        elif name in OF_THE_SLOWEST:
            metrics.append(group[_slowest(_compute_times(results))])
        elif name in SMALLEST:
            metrics.append(min(group, key=_value))
        else:
            metrics.append(max(group, key=_value))
    return metrics


def _compute_times(results: Sequence[TrialResult]) -> list[Metric]:
    """Of each rank, or of none where it is not measured."""
    return [m for result in results for m in result.metrics if m.name == COMPUTE_TIME]


def _slowest(compute_times: Sequence[Metric]) -> int:
    return max(range(len(compute_times)), key=lambda r: _value(compute_times[r]))


def _rank_spread(results: Sequence[TrialResult]) -> list[Metric]:
    """How much longer the slowest rank computes in a step than the fastest.

    Their step times would not tell: all wait for the slowest, and end a step together.
    """
    names = "rank_step_time_spread_fraction", "slowest_rank"
    times = _compute_times(results)
    unknown = [metric for metric in times if metric.value is None]
    if unknown:
        return [Metric(name, None, unknown[0].reason) for name in names]
    if not times:
        return []
    slowest, fastest = max(map(_value, times)), min(map(_value, times))
    return [
        Metric(names[0], slowest / fastest - 1),
        Metric(names[1], _slowest(times)),
    ]


def name_rank(result: TrialResult, rank: int) -> TrialResult:
    """Say in the reason which of several ranks it was."""
    if result.reason is None:
        return result
    return replace(result, reason=f"rank {rank}: {result.reason}")


def _value(metric: Metric) -> float:
    return metric.value if metric.value is not None else 0.0


def _by_name(items: Iterable[T]) -> list[tuple[str, list[T]]]:
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(item.name, []).append(item)
    return list(groups.items())


def _throughput(
    times: Sequence[float], batch_size: int, world_size: int
) -> list[Metric]:
    """Samples of one step over the median time of a step."""
    step_time_s = median(times)
    throughput = batch_size / step_time_s
    return [
        Metric("step_time_p50_s", step_time_s),
        Metric("throughput_samples_per_s", throughput),
        Metric("throughput_per_device_samples_per_s", throughput / world_size),
    ]


def too_few_steps(count: int) -> str:
    """Why there is no value of that many steps."""
    verb = "is" if count == 1 else "are"
    return f"{format_counted(count, 'step')} {verb} too few"


def _spread_of_steps(times: Sequence[float]) -> list[Metric]:
    """How well the median step is known, and how far single steps lie from it."""
    # NumPy: who only reads what is stored does without it.
    from tlbench.statistics import outliers, percentile, step_interval

    low, high = step_interval(times) or (None, None)
    values = {
        "step_time_p50_low_s": low,
        "step_time_p50_high_s": high,
        "step_time_p90_s": percentile(times, 90),
        "step_time_p99_s": percentile(times, 99),
        "outlier_steps": int(outliers(times).sum()),
    }
    few = too_few_steps(len(times))
    return [
        Metric(name, value, few if value is None else None)
        for name, value in values.items()
    ]
