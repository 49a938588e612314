"""Where the time and memory of a forward pass go: stage by stage, in a pass of its own.

A mark is set whenever one of the modules starts that `tlbench.models.layers` names, and
everything up to the next mark counts to that module's stage. So the stages add up to
the whole step, with the sums and reshapes between the modules.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Protocol, get_args

import torch
from torch import nn

from tlbench.measure.memory import (
    CANNOT_RESET,
    giving_back_memory,
    reset_host_peak,
    resident_bytes,
    return_freed_memory,
)
from tlbench.measure.timing import Step, cuda_event
from tlbench.models.layers import Layer, Stage
from tlbench.result import Metric

STAGES: tuple[Stage, ...] = get_args(Stage)
MAX_STEPS = 5
"""Timed steps; a stage's time is its median."""

FUSED = "torch.compile fuses the layers of all stages into one program"
NOTHING_AFTER = "the model reduces no tokens, and no block comes after"


class Marks(Protocol):
    """Takes a reading at each mark, and gives one number for each stretch between."""

    def set(self) -> None:
        """Mark the moment at which one stretch ends and the next begins."""

    def take(self) -> list[float]:
        """Give what the stretches since the last call came to, and forget them."""


class HostTimes:
    """Seconds between marks, where work has ended when its call returns."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._times: list[float] = []

    def set(self) -> None:
        self._times.append(self._clock())

    def take(self) -> list[float]:
        times, self._times = self._times, []
        return [end - start for start, end in pairwise(times)]


class CudaTimes:
    """Seconds between marks on the GPU, by events: the host may run ahead."""

    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []

    def set(self) -> None:
        event = cuda_event()
        event.record()
        self._events.append(event)

    def take(self) -> list[float]:
        torch.cuda.synchronize()
        events, self._events = self._events, []
        return [start.elapsed_time(end) / 1e3 for start, end in pairwise(events)]


class HostPeaks:
    """Peak resident bytes between marks, over what was resident at the first.

    What a stretch has freed is given back at its end, so that no later one seems to
    hold it.
    """

    def __init__(self) -> None:
        self._peaks: list[float] = []
        self._start: int | None = None

    def set(self) -> None:
        if self._start is not None:
            self._peaks.append(resident_bytes("VmHWM") - self._start)
        return_freed_memory()
        reset_host_peak()
        if self._start is None:
            self._start = resident_bytes("VmRSS")

    def take(self) -> list[float]:
        peaks, self._peaks, self._start = self._peaks, [], None
        return peaks


class CudaPeaks:
    """Peak bytes of torch's allocator between marks, over those at the first."""

    def __init__(self) -> None:
        self._peaks: list[float] = []
        self._start: int | None = None

    def set(self) -> None:
        if self._start is None:
            self._start = torch.cuda.memory_allocated()
        else:
            self._peaks.append(torch.cuda.max_memory_allocated() - self._start)
        torch.cuda.reset_peak_memory_stats()

    def take(self) -> list[float]:
        peaks, self._peaks, self._start = self._peaks, [], None
        return peaks


def measure_stages(
    model: nn.Module,
    step: Step,
    layers: Sequence[Layer],
    device: torch.device,
    max_time_s: float,
) -> list[Metric]:
    """Attribute one forward pass to the stages that the model has.

    Args:
        model: Built and warm; not compiled.
        step: Passes one batch through the model.
        layers: The walk through the model, whose modules are looked at.
        device: Where it runs.
        max_time_s: No further step is begun after this; one is always run.
    """
    is_gpu = device.type == "cuda"
    stage_of = {path: layer.stage for layer in layers for path in layer.modules}
    times = stage_times(
        model, step, stage_of, CudaTimes() if is_gpu else HostTimes(), max_time_s
    )
    metrics = [Metric(f"stage_{s}_time_s", value) for s, value in times.items()]
    metrics.append(_removal_ceiling(times))
    if not is_gpu and not reset_host_peak():
        peaks: dict[Stage, float | None] = dict.fromkeys(times)
    else:
        marks = CudaPeaks() if is_gpu else HostPeaks()
        with giving_back_memory():
            peaks = {**stage_peaks(model, step, stage_of, marks)}
    return metrics + [
        Metric(f"stage_{s}_memory_bytes", peak, CANNOT_RESET if peak is None else None)
        for s, peak in peaks.items()
    ]


def unmeasured_stages(layers: Sequence[Layer], reason: str) -> list[Metric]:
    """The same metrics without values, where the stages cannot be told apart."""
    names = [
        f"stage_{stage}_{quantity}"
        for quantity in ("time_s", "memory_bytes")
        for stage in stage_macs(layers)
    ]
    return [Metric(name, None, reason) for name in (*names, "removal_ceiling_ratio")]


def stage_macs(layers: Sequence[Layer]) -> dict[Stage, int]:
    """Multiply-adds of one sample in each stage that the model has, in their order."""
    return {
        stage: sum(layer.macs for layer in layers if layer.stage == stage)
        for stage in STAGES
        if any(layer.stage == stage for layer in layers)
    }


def stage_times(
    model: nn.Module,
    step: Step,
    stage_of: Mapping[str, Stage],
    marks: Marks,
    max_time_s: float,
) -> dict[Stage, float]:
    """Seconds of each stage, those of its modules together; the median step."""
    deadline = time.perf_counter() + max_time_s
    steps: list[dict[Stage, float]] = []
    with _marked(model, stage_of, marks) as visited:
        while not steps or (len(steps) < MAX_STEPS and time.perf_counter() < deadline):
            stretches = _stretches(step, visited, marks)
            steps.append({stage: sum(of) for stage, of in stretches.items()})
    return {stage: median(s[stage] for s in steps) for stage in steps[0]}


def stage_peaks(
    model: nn.Module, step: Step, stage_of: Mapping[str, Stage], marks: Marks
) -> dict[Stage, float]:
    """The largest reading of any module of each stage, in one step."""
    with _marked(model, stage_of, marks) as visited:
        stretches = _stretches(step, visited, marks)
    return {stage: max(of) for stage, of in stretches.items()}


@contextmanager
def _marked(
    model: nn.Module, stage_of: Mapping[str, Stage], marks: Marks
) -> Iterator[list[Stage]]:
    """Set a mark whenever a module starts, and list the stages as they come."""
    visited: list[Stage] = []

    def start(stage: Stage, *_: object) -> None:
        visited.append(stage)
        marks.set()

    hooks = [
        model.get_submodule(path).register_forward_pre_hook(partial(start, stage))
        for path, stage in stage_of.items()
    ]
    try:
        yield visited
    finally:
        for hook in hooks:
            hook.remove()


def _stretches(
    step: Step, visited: list[Stage], marks: Marks
) -> dict[Stage, list[float]]:
    """Run one step and give the readings of each stage, in the order of the stages."""
    visited.clear()
    step()
    marks.set()
    read: dict[Stage, list[float]] = defaultdict(list)
    for stage, reading in zip(visited, marks.take(), strict=True):
        read[stage].append(reading)
    return {stage: read[stage] for stage in STAGES if stage in read}


def _removal_ceiling(times: Mapping[Stage, float]) -> Metric:
    """The speed-up if the blocks after the reduction took no time at all."""
    name, total = "removal_ceiling_ratio", sum(times.values())
    if "after" not in times:
        return Metric(name, None, NOTHING_AFTER)
    return Metric(name, total / (total - times["after"]))
