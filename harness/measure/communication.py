"""What of a step ranks spend on exchanging data, in a pass of its own.

torch's profiler tells when an exchange is in flight: work of gloo from its start to its
end, or kernels of NCCL. What the rank computes meanwhile hides it; what is left is
exposed, and that alone makes a step longer. An exchange lasts until the last rank has
joined it, so the exposed time of a rank holds its waiting for slower ones too.

On a CPU computing is what torch's own operators do; Python between two of them counts
as waiting while an exchange is in flight.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # not in __all__
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from tlbench.measure.timing import Step
from tlbench.result import (
    COMMUNICATION,
    COMPUTE_TIME,
    OVERLAPPED_COMMUNICATION,
    Metric,
)

STEPS = 5
MARK = "tlbench.step"
UNSEEN = "torch's profiler saw no exchange between the ranks"
COMPILED = "torch's profiler does not see what a compiled model computes on a CPU"

Span = tuple[int, int]
"""Begin and end in nanoseconds, by the clock of the profiler."""


@dataclass(frozen=True)
class StepParts:
    """Seconds of one step of one rank."""

    whole: float
    exposed: float
    """An exchange was in flight, and nothing was computed."""
    overlapped: float
    """An exchange was in flight beside what was computed."""


def measure_communication(step: Step, device: torch.device) -> list[Metric]:
    """Run a few steps under the profiler; every rank must, and gets its own values."""
    parts = split_steps(_profile(step, device), is_gpu=device.type == "cuda")
    if not any(part.exposed or part.overlapped for part in parts):
        return unmeasured_communication(UNSEEN)
    return [
        Metric(COMMUNICATION, median(p.exposed / p.whole for p in parts)),
        Metric(OVERLAPPED_COMMUNICATION, median(p.overlapped / p.whole for p in parts)),
        Metric(COMPUTE_TIME, median(p.whole - p.exposed for p in parts)),
    ]


def unmeasured_communication(reason: str) -> list[Metric]:
    names = COMMUNICATION, OVERLAPPED_COMMUNICATION, COMPUTE_TIME
    return [Metric(name, None, reason) for name in names]


def _profile(step: Step, device: torch.device) -> Sequence[FunctionEvent]:
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        for _ in range(STEPS):
            with record_function(MARK):
                step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
    return profiler.events() or []


def split_steps(events: Iterable[FunctionEvent], *, is_gpu: bool) -> list[StepParts]:
    """Take apart every step that is marked among the events of one rank."""
    events = list(events)
    exchanging = _joined(_span(e) for e in events if _is_exchange(e, is_gpu=is_gpu))
    computing = _joined(_span(e) for e in events if _is_compute(e, is_gpu=is_gpu))
    either = _joined([*exchanging, *computing])
    parts = []
    for step in sorted(_span(event) for event in events if _is_mark(event)):
        exposed = _covered(step, either) - _covered(step, computing)
        parts.append(
            StepParts(
                whole=(step[1] - step[0]) * 1e-9,
                exposed=exposed * 1e-9,
                overlapped=(_covered(step, exchanging) - exposed) * 1e-9,
            )
        )
    return parts


def _is_mark(event: FunctionEvent) -> bool:
    return event.name == MARK and event.device_type == DeviceType.CPU


def _is_exchange(event: FunctionEvent, *, is_gpu: bool) -> bool:
    if is_gpu:
        return _is_kernel(event) and event.name.startswith("nccl")
    return event.name.startswith("gloo:")


def _is_compute(event: FunctionEvent, *, is_gpu: bool) -> bool:
    if is_gpu:
        return _is_kernel(event) and not event.name.startswith("nccl")
    return event.name.startswith("aten::")


def _is_kernel(event: FunctionEvent) -> bool:
    """Whether it is work of the GPU, and no name that the host gave to a part of it."""
    return event.device_type == DeviceType.CUDA and not event.is_user_annotation


def _span(event: FunctionEvent) -> Span:
    times = event.time_range  # in microseconds
    return round(times.start * 1e3), round(times.end * 1e3)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The time that any of the spans covers, in order and without overlap."""
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((begin, end))
    return joined


def _covered(step: Span, joined: Iterable[Span]) -> int:
    """How much of the step the spans cover, which do not overlap."""
    begin, end = step
    return sum(max(min(b, end) - max(a, begin), 0) for a, b in joined)
