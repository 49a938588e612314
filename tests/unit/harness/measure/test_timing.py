"""Warm-up, steps and the reasons to stop, on clocks whose times are written down."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from tlbench.measure import timing
from tlbench.measure.timing import MAX_WARMUP_STEPS, Step, StepTimes, time_steps
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
    assert not times.is_settled
    assert times.notes["warmup"] == "did not settle in 60 steps"


def test_warm_up_takes_no_longer_than_the_measurement_may(
    run: Callable[..., StepTimes],
) -> None:
    times = run(ScriptedClock(itertools.repeat(3.0)), max_time_s=5.0)
    assert times.warmup == (3.0, 3.0)
    assert not times.is_settled


def test_nothing_of_the_warm_up_is_in_the_steps(
    run: Callable[..., StepTimes],
) -> None:
    clock = ScriptedClock(after([0.2] * STEADY_STEPS, 0.1))
    times = run(clock, min_steps=7)
    assert set(times.warmup) == {0.2}
    assert times.steps == (0.1,) * 7


def test_it_stops_when_the_interval_of_the_median_is_narrow(
    run: Callable[..., StepTimes],
) -> None:
    # 95 % interval of 6 values: the smallest to the largest. 1 % wide: narrow enough.
    clock = ScriptedClock(after([0.1] * STEADY_STEPS, 0.1, 0.101))
    times = run(clock, min_steps=6, target=0.02)
    assert times.steps == (0.1, 0.101) * 3
    assert times.stopped_by == "interval"
    assert times.notes["stopped_by"] == "interval"


def test_it_stops_at_max_steps_exactly(run: Callable[..., StepTimes]) -> None:
    clock = ScriptedClock(after([0.003] * STEADY_STEPS, 0.003, 0.006))
    times = run(clock, max_steps=37, max_time_s=1000.0)
    assert len(times.steps) == 37
    assert times.stopped_by == "max_steps"


def test_it_stops_after_max_time(run: Callable[..., StepTimes]) -> None:
    clock = ScriptedClock(after([0.01] * STEADY_STEPS, 0.1, 0.3))
    times = run(clock, min_steps=6, max_time_s=1.15)
    assert times.steps == (0.1, 0.3) * 3  # 0.9 s after five steps, 1.2 s after six
    assert times.stopped_by == "max_time"


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
    assert short.chunks[STEADY_STEPS:] == [8, 8]
    long = ScriptedClock(itertools.repeat(timing.CHUNK_TIME_S * 2))
    run(long, min_steps=6)
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


def test_ranks_of_unlike_speed_step_alike() -> None:
    """A step may hold a collective operation: a rank that does one more would hang."""
    settings = Timing(min_steps=6, max_steps=500, max_time_s=60)
    scripts = [
        itertools.cycle([0.0030, 0.0031, 0.0040]),
        after([0.01, 0.002] * 6, 0.0022, 0.0047),
    ]
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
