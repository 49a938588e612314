"""Timing of steps: warm up until steady, then measure until the median is known.

A clock runs a chunk of steps and gives the seconds of each. Between chunks, and never
inside one, the results are looked at to decide whether to go on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal, TypeVar

import torch

from tlbench.statistics import median_interval
from tlbench.suites.spec import Timing

T = TypeVar("T")
Step = Callable[[], object]
Clock = Callable[[Step, int], list[float]]
Agree = Callable[[int], int]
"""Gives all ranks the largest of their numbers or decisions, so that they step alike:
a step may wait for the other ranks, and one too many would wait for ever."""

WINDOW = 5
"""Steps whose median stands for the speed at one moment of the warm-up."""
STEADY = 0.05
"""Largest change between the medians of two windows that counts as steady."""
MAX_WARMUP_STEPS = 60
CHUNK_TIME_S = 0.05
"""Steps are timed in chunks of about this long; shorter ones cost more looking."""

StoppedBy = Literal["interval", "max_steps", "max_time"]


@dataclass(frozen=True)
class StepTimes:
    """Seconds of each step, in order, and why the clock was stopped."""

    warmup: tuple[float, ...]
    """The first is the first step of all, compilation included."""
    steps: tuple[float, ...]
    stopped_by: StoppedBy
    is_settled: bool
    """Whether the warm-up ended because the speed was steady."""

    @property
    def notes(self) -> dict[str, str]:
        state = "settled after" if self.is_settled else "did not settle in"
        return {
            "stopped_by": self.stopped_by,
            "warmup": f"{state} {len(self.warmup)} steps",
        }


def host_clock(step: Step, count: int) -> list[float]:
    """Time steps that have ended when they return, as on a CPU."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def cuda_clock(step: Step, count: int) -> list[float]:
    """Time steps on the GPU by events, so that the host may run ahead of it."""
    marks = [
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
        for _ in range(count + 1)
    ]
    torch.cuda.synchronize()
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]


def clock_for(device: torch.device) -> Clock:
    return cuda_clock if device.type == "cuda" else host_clock


def time_steps(
    step: Step, clock: Clock, timing: Timing, agree: Agree = int
) -> StepTimes:
    """Warm up, then time `step` until its median is known well enough."""
    warmup, is_settled = _warm_up(step, clock, timing.max_time_s, agree)
    steps: list[float] = []
    stopped_by: StoppedBy | None = None
    deadline = time.perf_counter() + timing.max_time_s
    while stopped_by is None:
        count = agree(_chunk_length(steps or warmup, clock))
        steps += clock(step, min(count, timing.max_steps - len(steps)))
        stopped_by = _reason_to_stop(steps, timing, deadline, agree)
    return StepTimes(tuple(warmup), tuple(steps), stopped_by, is_settled)


def _warm_up(
    step: Step, clock: Clock, max_time_s: float, agree: Agree
) -> tuple[list[float], bool]:
    deadline = time.perf_counter() + max_time_s
    times = clock(step, 1)
    while True:
        if agree(_is_steady(times)):
            return times, True
        is_over = len(times) >= MAX_WARMUP_STEPS or time.perf_counter() > deadline
        if agree(is_over):
            return times, False
        times += clock(step, 1)


def _is_steady(times: Sequence[float]) -> bool:
    settled = times[1:]  # the first step is unlike any other
    if len(settled) < 2 * WINDOW:
        return False
    before, after = median(settled[-2 * WINDOW : -WINDOW]), median(settled[-WINDOW:])
    return abs(after / before - 1) < STEADY


def _chunk_length(times: Sequence[float], clock: Clock) -> int:
    fitting = int(CHUNK_TIME_S / max(median(times[-WINDOW:]), 1e-9))
    # A GPU idles while the host looks at the results: keep its chunks longer.
    return max(fitting, 10 if clock is cuda_clock else 1)


def _reason_to_stop(
    steps: Sequence[float], timing: Timing, deadline: float, agree: Agree
) -> StoppedBy | None:
    if len(steps) < timing.min_steps:
        return None
    if agree(_is_narrow(steps, timing.target)):
        return "interval"
    if agree(time.perf_counter() > deadline):
        return "max_time"
    return "max_steps" if len(steps) >= timing.max_steps else None


def _is_narrow(steps: Sequence[float], target: float) -> bool:
    interval = median_interval(steps)
    if interval is None:
        return False
    low, high = interval
    return high - low < target * median(steps)
