"""Timing of steps: warm up until steady, then measure until the median is known.

A clock runs a chunk of steps and gives the seconds of each. Between chunks, and never
inside one, the results are looked at to decide whether to go on.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Literal, get_args

import torch

from tlbench.measure.host import MIN_WINDOW_S
from tlbench.result import UNSETTLED
from tlbench.statistics import SteadyState, steady_state, step_interval
from tlbench.suites.spec import Timing
from tlbench.units import format_counted

Step = Callable[[], object]
Clock = Callable[[Step, int], list[float]]
Moment = Any
"""A float of the host's clock, or an event in the queue of a GPU."""
Agree = Callable[[int], int]
"""Gives all ranks the largest of their numbers or decisions, so that they step alike:
a step may wait for the other ranks, and one too many would wait for ever."""

WINDOW = 5
"""Steps whose median stands for the speed at one moment of the warm-up."""
STEADY = 0.05
"""Largest change between the medians of two windows that counts as steady."""
MAX_WARMUP_STEPS = 60
CHUNK_TIME_S = 0.1
"""Steps are timed in chunks of about this long: after each of them all ranks agree
whether to go on, which takes them most of a millisecond."""

GROWTH = 1.25
"""How far the steps grow in number from one look at their interval to the next: a look
costs half a millisecond, and some twenty lead from ten steps to a thousand."""

StoppedBy = Literal["interval", "max_steps", "max_time"]
STATES: tuple[SteadyState, ...] = get_args(SteadyState)
"""The better ones first: of ranks that differ, the worst speaks for all."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds of each step, in order, and why the clock was stopped."""

    warmup: tuple[float, ...]
    """The first is the first step of all, compilation included."""
    steps: tuple[float, ...]
    stopped_by: StoppedBy
    is_settled: bool | None
    """Whether the speed was steady when the warm-up ended; None: its time was over
    before enough steps could tell."""
    steady_state: SteadyState
    """What the timed steps did; all of them are kept, whatever it was."""
    extended_to_s: float | None
    """The limit that steps which still drifted were given; None: they needed none."""

    @property
    def notes(self) -> dict[str, str]:
        states = {True: "settled after", False: UNSETTLED, None: "out of time after"}
        state = states[self.is_settled]
        notes = {
            "stopped_by": self.stopped_by,
            "steady_state": self.steady_state,
            "warmup": f"{state} {format_counted(len(self.warmup), 'step')}",
        }
        if self.extended_to_s is not None:
            notes["extended"] = f"to {self.extended_to_s:g} s: the steps still drifted"
        return notes


def host_clock(step: Step, count: int) -> list[float]:
    """Time steps that have ended when they return, as on a CPU."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def cuda_event() -> torch.cuda.Event:
    """A mark in the queue of the GPU, once it is recorded."""
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's


def moment(device: torch.device) -> Moment:
    """Now: by the host's clock, or in the queue of the GPU."""
    if device.type != "cuda":
        return time.perf_counter()
    event = cuda_event()
    event.record()
    return event


def seconds_between(start: Moment, end: Moment) -> float:
    """On a GPU the time that its queue was empty: none where the host runs ahead."""
    if isinstance(start, float):
        return float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def cuda_clock(step: Step, count: int) -> list[float]:
    """Time steps on the GPU by events, so that the host may run ahead of it."""
    marks = [cuda_event() for _ in range(count + 1)]
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
    step: Step,
    clock: Clock,
    timing: Timing,
    agree: Agree = int,
    watch: AbstractContextManager[object] | None = None,
) -> StepTimes:
    """Warm up, then time `step` until its median is known well enough.

    The timed steps, and they alone, run in the context of `watch`.
    """
    warmup, is_settled = _warm_up(step, clock, timing.max_time_s, agree)
    steps: list[float] = []
    stopped_by: StoppedBy | None = None
    chunk = agree(_chunk_length(warmup, clock))
    window = _Window(timing, agree)
    with watch or nullcontext():
        while stopped_by is None:
            steps += clock(step, min(chunk, timing.max_steps - len(steps)))
            stopped_by = window.reason_to_stop(steps)
    return StepTimes(
        warmup=tuple(warmup),
        steps=tuple(steps),
        stopped_by=stopped_by,
        is_settled=is_settled,
        steady_state=window.state(steps),
        extended_to_s=window.extended_to_s,
    )


class _Window:
    """Says when the timed steps are enough; it is asked between two chunks of them."""

    def __init__(self, timing: Timing, agree: Agree) -> None:
        self._timing, self._agree = timing, agree
        self._start = time.perf_counter()
        self._next_look = timing.min_steps
        self.extended_to_s: float | None = None

    def reason_to_stop(self, steps: Sequence[float]) -> StoppedBy | None:
        if len(steps) < self._timing.min_steps:
            return None
        if self._is_look_due(len(steps)) and self._is_known(steps):
            return "interval"
        if len(steps) >= self._timing.max_steps:
            return "max_steps"
        limit_s = self.extended_to_s or self._timing.max_time_s
        return (
            "max_time" if self._is_over(limit_s) and not self._extend(steps) else None
        )

    def state(self, steps: Sequence[float]) -> SteadyState:
        return STATES[self._agree(STATES.index(steady_state(steps)))]

    def _is_look_due(self, count: int) -> bool:
        if count < self._next_look:
            return False
        self._next_look = math.ceil(count * GROWTH)
        return True

    def _is_known(self, steps: Sequence[float]) -> bool:
        """Whether the median is known on every rank, and means something.

        A very short window is not: what the machine does meanwhile could not be told.
        """
        is_short = sum(steps) < min(MIN_WINDOW_S, self._timing.max_time_s)
        is_wide = is_short or not _is_narrow(steps, self._timing.target)
        return not self._agree(is_wide) and self.state(steps) == "flat"

    def _extend(self, steps: Sequence[float]) -> bool:
        """Give steps that still drift as long again; once."""
        limit_s = 2 * self._timing.max_time_s
        if self._is_over(limit_s) or self.state(steps) == "flat":
            return False
        self.extended_to_s = limit_s
        return True

    def _is_over(self, limit_s: float) -> bool:
        return bool(self._agree(time.perf_counter() > self._start + limit_s))


def _warm_up(
    step: Step, clock: Clock, max_time_s: float, agree: Agree
) -> tuple[list[float], bool | None]:
    times = clock(step, 1)
    # From here on: compiling alone may take longer, and says nothing about the speed.
    deadline = time.perf_counter() + max_time_s
    while True:
        if not agree(not _is_steady(times)):  # on every rank
            return times, True
        is_over = len(times) >= MAX_WARMUP_STEPS or time.perf_counter() > deadline
        if agree(is_over):
            return times, False if len(times) > 2 * WINDOW else None
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


def _is_narrow(steps: Sequence[float], target: float) -> bool:
    interval = step_interval(steps)
    if interval is None:
        return False
    low, high = interval
    return high - low < target * median(steps)
