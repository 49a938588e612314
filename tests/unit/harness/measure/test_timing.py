"""Warm-up, steps and the reasons to stop, on clocks whose times are written down."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from statistics import median

import numpy as np
import pytest
import torch

from tlbench.measure import timing
from tlbench.measure.timing import (
    MAX_WARMUP_STEPS,
    Step,
    StepTimes,
    cuda_clock,
    time_steps,
)
from tlbench.statistics import step_interval
from tlbench.suites.spec import Timing

STEADY_STEPS = 1 + 2 * timing.WINDOW
"""The shortest warm-up: the first step, and two windows to compare."""


class ScriptedClock:
    """Gives each step its time from a script; that is also the time of day."""

    def __init__(self, times: Iterable[float]) -> None:
        self._times: Iterator[float] = iter(times)
        self.now = 0.0
        self.chunks: list[int] = []

    def __call__(self, step: Step, count: int) -> list[float]:
        self.chunks.append(count)
        times = []
        for _ in range(count):
            step()
            times.append(next(self._times))
        self.now += sum(times)
        return times

    def perf_counter(self) -> float:
        return self.now


def noise(level_s: float, spread: float, seed: int = 0) -> Iterator[float]:
    """Independent steps around one level."""
    generator = np.random.default_rng(seed)
    while True:
        yield level_s * math.exp(spread * generator.standard_normal())


def slowing(level_s: float) -> Iterator[float]:
    """Steps that take a thousandth longer each, under a little noise."""
    for number, step in enumerate(noise(level_s, 0.005)):
        yield step * (1 + number / 1000)


def after(warmup: Iterable[float], *repeated: float) -> Iterator[float]:
    return itertools.chain(warmup, itertools.cycle(repeated))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., StepTimes]:
    """Time steps on a scripted clock."""

    def run(clock: ScriptedClock, **settings: float) -> StepTimes:
        monkeypatch.setattr(timing, "time", clock)
        return time_steps(lambda: None, clock, Timing.model_validate(settings))

    return run


def test_warm_up_ends_when_the_speed_is_steady(run: Callable[..., StepTimes]) -> None:
    falling = [2.0, *(0.5 - 0.02 * i for i in range(10))]
    times = run(ScriptedClock(after(falling, 0.2)), max_time_s=100.0)
    # Medians of two windows agree once eight steps were alike: five, and three of five.
    assert times.warmup == (*falling, *[0.2] * 8)
    assert times.is_settled
    assert times.notes["warmup"] == "settled after 19 steps"


def test_the_first_step_does_not_keep_the_warm_up_going(
    run: Callable[..., StepTimes],
) -> None:
    times = run(ScriptedClock(after([60.0], 0.1)), max_time_s=100.0)
    assert times.warmup == (60.0, *(0.1,) * (STEADY_STEPS - 1))


def test_warm_up_that_never_settles_gives_up_and_says_so(
    run: Callable[..., StepTimes],
) -> None:
    growing = (0.01 * 1.1**i for i in itertools.count())
    times = run(ScriptedClock(growing), max_time_s=1e4, min_steps=6, max_steps=6)
    assert len(times.warmup) == MAX_WARMUP_STEPS
    assert times.is_settled is False
    assert times.notes["warmup"] == "did not settle in 60 steps"


def test_warm_up_takes_no_longer_than_the_measurement_may(
    run: Callable[..., StepTimes],
) -> None:
    times = run(ScriptedClock(itertools.repeat(3.0)), max_time_s=5.0)
    assert times.warmup == (3.0, 3.0, 3.0)  # the first has a time of its own
    assert times.is_settled is None  # so few cannot tell
    assert times.notes["warmup"] == "out of time after 3 steps"


def test_a_long_first_step_leaves_time_to_warm_up(
    run: Callable[..., StepTimes],
) -> None:
    times = run(ScriptedClock(after([60.0], 0.1)), max_time_s=5.0)
    assert times.is_settled


def test_nothing_of_the_warm_up_is_in_the_steps(
    run: Callable[..., StepTimes],
) -> None:
    clock = ScriptedClock(after([0.2] * STEADY_STEPS, 0.1))
    times = run(clock, min_steps=7)
    assert set(times.warmup) == {0.2}
    assert set(times.steps) == {0.1}


def test_it_stops_when_the_interval_of_the_median_is_narrow(
    run: Callable[..., StepTimes],
) -> None:
    times = run(ScriptedClock(noise(0.1, 0.03)), min_steps=6, max_time_s=1e3)
    assert times.stopped_by == "interval"
    assert times.notes["stopped_by"] == "interval"
    looks = [6]  # and whenever the steps have become a quarter more
    while looks[-1] < len(times.steps):
        looks.append(math.ceil(looks[-1] * 1.25))
    widths = [relative_width(times.steps[:count]) for count in looks]
    assert looks[-1] == len(times.steps)
    assert widths[-1] < 0.02
    assert min(widths[:-1]) >= 0.02


def relative_width(steps: tuple[float, ...]) -> float:
    low, high = step_interval(steps) or (0.0, math.inf)
    return (high - low) / median(steps)


def test_a_thousand_steps_are_looked_at_some_twenty_times(
    run: Callable[..., StepTimes], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(timing, "step_interval", lambda steps: looks.append(len(steps)))
    times = run(ScriptedClock(noise(0.1, 0.03)), max_steps=1000, max_time_s=1e4)
    assert len(times.steps) == 1000
    assert looks[0] == 10
    assert len(looks) <= 22


def test_what_is_known_at_once_is_timed_for_half_a_second(
    run: Callable[..., StepTimes],
) -> None:
    times = run(ScriptedClock(noise(0.001, 0.001)))
    assert times.stopped_by == "interval"
    assert 0.5 <= sum(times.steps) < 0.5 * timing.GROWTH + timing.CHUNK_TIME_S


def test_it_stops_at_max_steps_exactly(run: Callable[..., StepTimes]) -> None:
    clock = ScriptedClock(noise(0.003, 0.2))
    times = run(clock, max_steps=37, max_time_s=1000.0)
    assert len(times.steps) == 37
    assert times.stopped_by == "max_steps"


def test_it_stops_after_max_time(run: Callable[..., StepTimes]) -> None:
    times = run(ScriptedClock(noise(0.1, 0.3)), min_steps=6, max_time_s=3.0)
    assert sum(times.steps[:-1]) <= 3.0 < sum(times.steps)
    assert times.stopped_by == "max_time"
    assert times.steady_state == "flat"
    assert "extended" not in times.notes


def test_steps_that_drift_are_not_stopped_by_their_interval(
    run: Callable[..., StepTimes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        timing, "steady_state", lambda steps: "warming" if len(steps) < 40 else "flat"
    )
    times = run(ScriptedClock(itertools.repeat(0.1)))
    assert relative_width(times.steps[:20]) == 0
    assert times.stopped_by == "interval"
    assert 40 <= len(times.steps) < 40 * timing.GROWTH


def test_steps_that_drift_get_as_long_again_once(
    run: Callable[..., StepTimes],
) -> None:
    times = run(ScriptedClock(slowing(0.1)), max_time_s=10.0)
    assert sum(times.steps[:-1]) <= 20.0 < sum(times.steps)
    assert times.stopped_by == "max_time"
    assert times.notes["steady_state"] == "slowing"
    assert times.notes["extended"] == "to 20 s: the steps still drifted"


def test_steps_that_drift_are_never_more_than_max_steps(
    run: Callable[..., StepTimes],
) -> None:
    times = run(ScriptedClock(slowing(0.1)), max_time_s=10.0, max_steps=120)
    assert sum(times.steps) > 10.0
    assert len(times.steps) == 120
    assert times.stopped_by == "max_steps"


def test_a_start_that_was_slower_is_kept_and_told(
    run: Callable[..., StepTimes],
) -> None:
    slow, fast = noise(0.2, 0.01), noise(0.1, 0.01)
    script = itertools.chain(itertools.islice(slow, STEADY_STEPS + 60), fast)
    times = run(ScriptedClock(script), min_steps=120, max_time_s=30.0)
    assert times.notes["steady_state"] == "warming"
    assert sum(step > 0.15 for step in times.steps) == 60


def test_slow_steps_are_still_as_many_as_the_fewest(
    run: Callable[..., StepTimes],
) -> None:
    times = run(ScriptedClock(itertools.cycle([8.0, 9.0])), min_steps=8, max_time_s=1.0)
    assert len(times.steps) == 8
    assert times.stopped_by == "max_time"


def test_short_steps_are_timed_in_chunks_and_long_ones_singly(
    run: Callable[..., StepTimes],
) -> None:
    short = ScriptedClock(itertools.repeat(timing.CHUNK_TIME_S / 8))
    run(short)
    assert short.chunks[STEADY_STEPS:] == [8] * 5  # half a second
    long = ScriptedClock(itertools.repeat(timing.CHUNK_TIME_S * 2))
    run(long, min_steps=6, max_steps=6)
    assert long.chunks[STEADY_STEPS:] == [1] * 6


class Ranks:
    """Two ranks in two threads that must do the same things in the same order."""

    def __init__(self) -> None:
        self._meeting = threading.Barrier(2, timeout=10)
        self._asked: dict[int, tuple[str, int]] = {}
        self.results: dict[int, StepTimes] = {}

    def meet(self, rank: int, what: str, value: int = 0) -> int:
        """Wait for the other rank; the larger value of the two."""
        self._asked[rank] = what, value
        self._meeting.wait()
        kinds = {kind for kind, _ in self._asked.values()}
        largest = max(number for _, number in self._asked.values())
        self._meeting.wait()  # nobody writes before both have read
        assert kinds == {what}
        return largest

    def run(self, rank: int, times: Iterable[float], settings: Timing) -> None:
        try:
            self.results[rank] = time_steps(
                lambda: self.meet(rank, "step"),
                ScriptedClock(times),
                settings,
                lambda value: self.meet(rank, "agree", value),
            )
        finally:
            if rank not in self.results:
                self._meeting.abort()


@pytest.mark.parametrize(
    ("other", "stopped_by", "steady_state"),
    [
        (after([0.01, 0.002] * 6, 0.0022, 0.0047), "max_steps", "none"),
        (noise(0.0035, 0.01), "interval", "flat"),
        (slowing(0.003), "max_steps", "slowing"),
    ],
)
def test_ranks_of_unlike_speed_step_alike(
    other: Iterable[float], stopped_by: str, steady_state: str
) -> None:
    """A step may hold a collective operation: a rank that does one more would hang."""
    settings = Timing(min_steps=6, max_steps=500, max_time_s=60)
    scripts = [noise(0.003, 0.02, seed=1), iter(other)]
    ranks = Ranks()
    threads = [
        threading.Thread(target=ranks.run, args=(rank, script, settings))
        for rank, script in enumerate(scripts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = ranks.results[0], ranks.results[1]
    assert len(first.warmup) == len(second.warmup)
    assert len(first.steps) == len(second.steps)
    assert first.notes == second.notes
    assert (first.stopped_by, first.steady_state) == (stopped_by, steady_state)


def gpu_step(milliseconds: int) -> Step:
    """Work for a GPU that returns at once: cycles of its clock, spent in sleep."""
    if not torch.cuda.is_available():
        pytest.skip("this machine has no NVIDIA GPU")
    cycles = milliseconds * torch.cuda.get_device_properties(0).clock_rate
    return lambda: torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]  # torch's


@pytest.mark.gpu
def test_the_clock_of_a_gpu_agrees_with_the_wall() -> None:
    step = gpu_step(milliseconds=10)
    cuda_clock(step, 5)
    torch.cuda.synchronize()
    start = time.perf_counter()
    times = cuda_clock(step, 50)
    elapsed_s = time.perf_counter() - start
    assert sum(times) == pytest.approx(elapsed_s, rel=0.01)


@pytest.mark.gpu
def test_steps_on_a_gpu_are_timed_to_their_end_not_to_their_launch() -> None:
    step = gpu_step(milliseconds=10)
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    launched_s = time.perf_counter() - start
    torch.cuda.synchronize()
    assert min(cuda_clock(step, 10)) > 10 * launched_s


@pytest.mark.gpu
def test_the_first_step_on_a_gpu_holds_what_it_loads() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no NVIDIA GPU")
    matrix = torch.ones(256, 256, device="cuda")
    settings = Timing(min_steps=20, max_steps=50)
    times = time_steps(lambda: torch.linalg.qr(matrix), cuda_clock, settings)
    assert times.warmup[0] > median(times.steps)
    assert times.is_settled
