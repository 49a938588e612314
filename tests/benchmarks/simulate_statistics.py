"""Do intervals and verdicts hold what they promise, where the truth is known?

    OMP_NUM_THREADS=1 python tests/benchmarks/simulate_statistics.py

Prints Markdown tables: coverage and false verdicts of comparisons beside the usual
ways, the power of the proposed number of trials, what `compare --extend` ends in,
the interval of the median inside
one trial, and what is said about steady and unsteady steps. It takes some minutes on
one core and measures no time, so other work may run beside it.

Experiments are drawn as logarithms of seconds per step: 3 % noise between the steps
of a trial, 1.5 % between trials, in shuffled blocks of one trial a side.
Values about comparisons come from vectorised twins of `tlbench.statistics`, which its
unit tests hold equal to it; everything else calls the functions themselves.

E experiments, T trials a side, S steps of a trial.
"""

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from tlbench.reports.extension import MOST_REPEATS
from tlbench.statistics import (
    EQUIVALENCE_BAND,
    GATE_LEVEL,
    LEVEL,
    NOISE_FLOOR,
    SteadyState,
    proposed_trials,
    repeats_to_settle,
    steady_state,
    step_interval,
)

Array = NDArray[np.float64]
Drift = Literal["none", "linear", "walk", "two runs"]

STEP_NOISE = 0.03
TRIAL_NOISE = 0.015
STEPS = 100
"""Of each trial in the comparisons."""
TRIALS = (3, 5, 7, 10)
CORRELATIONS = (0.0, 0.5, 0.9)
LINEAR_DRIFT = 0.005
"""Slower by so much with each trial: 10 % over ten blocks."""
WALK = 0.01
"""Standard deviation of the machine's change of speed between two trials."""
SPIKE_SHARE = 0.015
SPIKES = (2.0, 6.0)
"""A spike lasts so many times longer, at least and at most."""
PILOT = 5
SHIFT = 0.05
SHIFTS = (SHIFT, NOISE_FLOOR, 0.0)
MOST_TRIALS = 150
"""Trials a side that are drawn; a proposal of more counts as not found."""
RESAMPLES = 1000
KIND = ("step correlation", "drift", "spikes")
COMPARISONS = (
    *KIND,
    "trials",
    "covered, 95 %",
    "covered, 99 %",
    "false verdicts, 95 %",
    "false verdicts, 99 %",
    "pooled t: covered, 95 %",
    "pooled t: false, 99 %",
    "Mann-Whitney: covered, 95 %",
    "Mann-Whitney: false, 99 %",
    "bootstrap: covered, 95 %",
    "bootstrap: false, 99 %",
)
POWER = (
    *KIND,
    "trial noise",
    "5 % shift found",
    "right trials",
    "median proposal",
    "proposal / right",
    "1 % shift called better",
    "false verdicts",
)
EXTENDED = (
    *KIND[:2],
    "5 % shift found",
    "5 % shift denied",
    "right trials",
    "median trials",
    "median / right",
    "1 % shift called better",
    "false verdicts",
)
INSIDE = (
    "step correlation",
    "steps",
    "covered",
    "not given",
    "width / order statistics",
    "order statistics: covered",
    "block bootstrap: covered",
)
STATES: tuple[SteadyState, ...] = get_args(SteadyState)
STEADY = ("course", "step correlation", "step noise", "steps", *STATES)


@dataclass(frozen=True)
class Cell:
    """One kind of experiment."""

    correlation: float
    """Of the noise of neighbouring steps, an AR(1) process."""
    drift: Drift = "none"
    """Of the machine over the run; `two runs`: the blocks of the sides never meet."""
    has_spikes: bool = False
    trial_noise: float = TRIAL_NOISE

    @property
    def columns(self) -> tuple[str, ...]:
        spikes = "spikes" if self.has_spikes else "none"
        return f"{self.correlation:g}", self.drift, spikes


class Verdicts(NamedTuple):
    """What each of E experiments concludes."""

    covers: NDArray[np.bool_]
    """The interval holds the truth."""
    is_apart: NDArray[np.bool_]
    """Better or worse."""


# Drawing experiments


def noise(rng: np.random.Generator, correlation: float, shape: Sequence[int]) -> Array:
    """Stationary AR(1) noise of unit variance along the last axis."""
    drawn = rng.standard_normal(shape)
    innovation = math.sqrt(1 - correlation**2)
    for step in range(1, shape[-1] if correlation else 0):
        drawn[..., step] *= innovation
        drawn[..., step] += correlation * drawn[..., step - 1]
    return drawn


def steps_of_trials(
    rng: np.random.Generator, cell: Cell, shape: Sequence[int]
) -> Array:
    """Logarithms of steps around 0: [..., S]."""
    steps = STEP_NOISE * noise(rng, cell.correlation, shape)
    if cell.has_spikes:
        count = rng.binomial(steps.size, SPIKE_SHARE)
        where = rng.integers(steps.size, size=count)
        steps.reshape(-1)[where] += np.log(rng.uniform(*SPIKES, size=count))
    return steps


def levels_of_trials(
    rng: np.random.Generator, cell: Cell, experiments: int, trials: int
) -> Array:
    """Logarithms of the speeds of trials, with the noise between them: [E, T, 2]."""
    levels = cell.trial_noise * rng.standard_normal((experiments, trials, 2))
    if cell.drift == "linear":
        levels += LINEAR_DRIFT * _shuffled_slots(rng, experiments, trials)
    elif cell.drift == "walk":
        changes = rng.normal(scale=WALK, size=(experiments, 2 * trials))
        slots = _shuffled_slots(rng, experiments, trials).reshape(experiments, -1)
        walk = np.take_along_axis(changes.cumsum(axis=1), slots, axis=1)
        levels += walk.reshape(levels.shape)
    return levels


def _shuffled_slots(
    rng: np.random.Generator, experiments: int, trials: int
) -> NDArray[np.int64]:
    """When each trial runs, if each block runs its two in a random order: [E, T, 2]."""
    first = rng.integers(2, size=(experiments, trials, 1))
    slots: NDArray[np.int64] = 2 * np.arange(trials)[:, None] + np.concatenate(
        (first, 1 - first), axis=2
    )
    return slots


# The tool's way, for E experiments at once; a unit test holds it equal to the tool


def paired_interval(base: Array, other: Array, level: float) -> tuple[Array, Array]:
    """Interval of the logarithm of the ratio, of blocks that hold both: [E, T]."""
    pairs = other - base
    count = pairs.shape[1]
    error = pairs.std(axis=1, ddof=1) / math.sqrt(count)
    reach = special.stdtrit(count - 1, (1 + level) / 2) * error
    return pairs.mean(axis=1) - reach, pairs.mean(axis=1) + reach


def welch_interval(base: Array, other: Array, level: float) -> tuple[Array, Array]:
    """The same of blocks that do not meet."""
    count = base.shape[1]
    errors = base.var(axis=1, ddof=1) / count, other.var(axis=1, ddof=1) / count
    variance = errors[0] + errors[1]
    freedom = variance**2 * (count - 1) / (errors[0] ** 2 + errors[1] ** 2)
    reach = special.stdtrit(freedom, (1 + level) / 2) * np.sqrt(variance)
    difference = other.mean(axis=1) - base.mean(axis=1)
    return difference - reach, difference + reach


def is_apart(low: Array, high: Array) -> NDArray[np.bool_]:
    """Whether the verdict on such an interval is better or worse."""
    floor, band = math.log1p(NOISE_FLOOR), math.log1p(EQUIVALENCE_BAND)
    is_equivalent = (-band <= low) & (high <= band)
    apart: NDArray[np.bool_] = ((low > floor) | (high < -floor)) & ~is_equivalent
    return apart


def _conclude(interval: tuple[Array, Array], truth: float) -> Verdicts:
    low, high = interval
    return Verdicts((low <= truth) & (truth <= high), is_apart(low, high))


# The usual ways: [E, T, S] a side, or the medians of trials [E, T]


def pooled_t_covers(base: Array, other: Array, level: float) -> NDArray[np.bool_]:
    """Whether Student's t over all steps of all trials, in seconds, holds no change."""
    sides = [np.exp(side.reshape(len(side), -1)) for side in (base, other)]
    count = sides[0].shape[1]
    difference = sides[1].mean(axis=1) - sides[0].mean(axis=1)
    error = np.sqrt((sides[0].var(axis=1) + sides[1].var(axis=1)) / (count - 1))
    reach = special.stdtrit(2 * count - 2, (1 + level) / 2) * error
    covers: NDArray[np.bool_] = np.abs(difference) <= reach
    return covers


def mann_whitney_p(base: Array, other: Array) -> Array:
    """Two-sided, of pooled steps; the normal approximation serves so many of them."""
    pooled = np.concatenate((base, other), axis=1).reshape(len(base), -1)
    count = pooled.shape[1] // 2
    ranks = np.empty(pooled.shape, dtype=np.int32)
    order = np.argsort(pooled, axis=1)
    np.put_along_axis(ranks, order, np.arange(2 * count, dtype=np.int32)[None], axis=1)
    u = ranks[:, :count].sum(axis=1, dtype=np.int64) - count * (count - 1) / 2
    deviation = math.sqrt(count * count * (2 * count + 1) / 12)
    p_values: Array = 2 * special.ndtr(-np.abs(u - count * count / 2) / deviation)
    return p_values


def bootstrap_covers(
    rng: np.random.Generator, base: Array, other: Array, levels: Sequence[float]
) -> list[NDArray[np.bool_]]:
    """Whether the plain percentile bootstrap over trials holds no change."""
    trials = base.shape[1]
    weights = rng.multinomial(trials, np.full(trials, 1 / trials), (2, RESAMPLES))
    covers: list[list[NDArray[np.bool_]]] = [[] for _ in levels]
    for rows in np.array_split(np.arange(len(base)), max(1, len(base) // 1000)):
        means = (weights[1] @ other[rows].T - weights[0] @ base[rows].T) / trials
        below = (means <= 0).mean(axis=0)  # [E]
        for found, level in zip(covers, levels, strict=True):
            tail = (1 - level) / 2
            found.append((tail <= below) & (below <= 1 - tail))
    return [np.concatenate(found) for found in covers]


# Tables


def table(title: str, header: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print(f"\n### {title}\n")
    print(f"| {' | '.join(header)} |")
    print(f"|{'---|' * len(header)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def compare_cells(rng: np.random.Generator, experiments: int) -> Iterator[list[str]]:
    """A/A comparisons: two sides that are the same in truth."""
    drifts: tuple[Drift, ...] = ("none", "linear", "walk", "two runs")
    for correlation, drift, has_spikes in product(CORRELATIONS, drifts, (False, True)):
        cell = Cell(correlation, drift, has_spikes)
        parts: dict[int, list[Array]] = {trials: [] for trials in TRIALS}
        for size in _chunks(experiments):
            levels = levels_of_trials(rng, cell, size, max(TRIALS))
            steps = steps_of_trials(rng, cell, (*levels.shape, STEPS))
            steps += levels[..., None]
            for trials in TRIALS:
                parts[trials].append(_rates(rng, cell, steps[:, :trials]) * size)
        for trials in TRIALS:
            rates = np.sum(parts[trials], axis=0) / experiments
            yield [*cell.columns, str(trials), *map(percent, rates)]


def _chunks(experiments: int, size: int = 2000) -> Iterator[int]:
    """Experiments at a time, so that their steps take some tens of megabytes."""
    for start in range(0, experiments, size):
        yield min(size, experiments - start)


def _rates(rng: np.random.Generator, cell: Cell, steps: Array) -> Array:
    """Coverage and false verdicts of all ways, of steps [E, T, 2, S]."""
    base, other = steps[:, :, 0], steps[:, :, 1]
    medians = np.median(base, axis=2), np.median(other, axis=2)
    interval = welch_interval if cell.drift == "two runs" else paired_interval
    ours = [_conclude(interval(*medians, level), 0.0) for level in (LEVEL, GATE_LEVEL)]
    bootstrap = bootstrap_covers(rng, *medians, (LEVEL, GATE_LEVEL))
    p_values = mann_whitney_p(base, other)
    return np.array(
        [
            *(verdicts.covers.mean() for verdicts in ours),
            *(verdicts.is_apart.mean() for verdicts in ours),
            pooled_t_covers(base, other, LEVEL).mean(),
            1 - pooled_t_covers(base, other, GATE_LEVEL).mean(),
            (p_values >= 1 - LEVEL).mean(),
            (p_values < 1 - GATE_LEVEL).mean(),
            bootstrap[0].mean(),
            1 - bootstrap[1].mean(),
        ]
    )


def power_cells(rng: np.random.Generator, experiments: int) -> Iterator[list[str]]:
    """A pilot of five trials a side, a proposal, and one verdict at the end."""
    drifts: tuple[Drift, ...] = ("none", "linear", "walk")
    cells = [
        Cell(correlation, drift) for correlation, drift in product(CORRELATIONS, drifts)
    ]
    cells += [Cell(0.0, has_spikes=True), Cell(0.0, "two runs")]
    cells += [Cell(0.0, trial_noise=share) for share in (0.005, 0.03)]
    for cell in cells:
        base, other = _medians_of_trials(rng, cell, experiments)
        spread = float((other - base).std())
        right = _right_trials(spread, 2 if cell.drift == "two runs" else 1)
        proposals = _proposals(cell, base[:, :PILOT], other[:, :PILOT])
        median = float(np.median(proposals))
        found, small, false = (
            _two_stage(cell, base, other + math.log1p(shift), proposals)
            for shift in SHIFTS
        )
        yield [
            *cell.columns,
            percent(cell.trial_noise),
            percent(found),
            str(right),
            f"{median:g}",
            f"{median / right:.2f}",
            percent(small, 2),
            percent(false, 2),
        ]


def _medians_of_trials(
    rng: np.random.Generator, cell: Cell, experiments: int, trials: int = MOST_TRIALS
) -> tuple[Array, Array]:
    """Medians of two sides, [E, T] each; a pool serves for their steps."""
    pool = np.median(steps_of_trials(rng, cell, (200_000, STEPS)), axis=1)
    levels = levels_of_trials(rng, cell, experiments, trials)
    medians = levels + rng.choice(pool, size=levels.shape)
    return medians[..., 0], medians[..., 1]


def _right_trials(spread: float, sides: int) -> int:
    """The fewest trials that find the shift in 90 %, if the noise were known.

    Student's t has one degree of freedom less than there are trials, on each of
    the `sides` whose spread is looked at: one where they are paired.
    """
    trials = np.arange(2, 10_000)
    freedom = sides * (trials - 1)
    distance = math.log1p(SHIFT) - math.log1p(NOISE_FLOOR)
    reach = special.stdtrit(freedom, (1 + GATE_LEVEL) / 2)
    power = 1 - special.nctdtr(freedom, distance * np.sqrt(trials) / spread, reach)
    return int(trials[np.argmax(power >= 0.9)])


def _proposals(cell: Cell, base: Array, other: Array) -> NDArray[np.int64]:
    """What `proposed_trials` says after each pilot: [E]."""
    first_block = PILOT if cell.drift == "two runs" else 0
    return np.array(
        [
            proposed_trials(
                dict(enumerate(np.exp(ours).tolist())),
                dict(enumerate(np.exp(theirs).tolist(), start=first_block)),
                shift=SHIFT,
            )
            or MOST_TRIALS + 1
            for ours, theirs in zip(base, other, strict=True)
        ]
    )


def _two_stage(
    cell: Cell, base: Array, other: Array, proposals: NDArray[np.int64]
) -> float:
    """Share of experiments that end in a verdict of better or worse."""
    interval = welch_interval if cell.drift == "two runs" else paired_interval
    found = 0
    for trials in np.unique(proposals[proposals <= MOST_TRIALS]):
        rows = proposals == trials
        sides = base[rows, :trials], other[rows, :trials]
        found += int(is_apart(*interval(*sides, GATE_LEVEL)).sum())
    return found / len(base)


def extended_cells(rng: np.random.Generator, experiments: int) -> Iterator[list[str]]:
    """As `compare --extend` does it: a pilot, a verdict, and more if that is open."""
    drifts: tuple[Drift, ...] = ("none", "linear")
    for correlation, drift in product(CORRELATIONS, drifts):
        cell = Cell(correlation, drift)
        rows: list[Array] = []
        spreads: list[float] = []
        for size in _chunks(experiments, 1000):
            base, other = _medians_of_trials(rng, cell, size, PILOT + MOST_REPEATS)
            spreads.append(float((other - base).std()))
            rows.append(
                np.array([_extended(base, other + math.log1p(s)) for s in SHIFTS])
            )
        right = _right_trials(float(np.mean(spreads)), 1)
        found, small, none = np.concatenate(rows, axis=2)  # [sign or trials, E]
        median = float(np.median(found[1]))
        yield [
            *cell.columns[:2],
            percent((found[0] == 1).mean()),
            percent((np.isin(found[0], (-1, 2))).mean(), 2),
            str(right),
            f"{median:g}",
            f"{median / right:.2f}",
            percent((small[0] == 1).mean(), 2),
            percent((np.abs(none[0]) == 1).mean(), 2),
        ]


def _extended(base: Array, other: Array) -> Array:
    """What each experiment ends in, and after how many trials a side: [2, E].

    1 and -1: above and below; 2: equivalent; 0: open.
    """
    ends = _ends(base[:, :PILOT], other[:, :PILOT])
    trials = np.full(len(base), PILOT)
    for row in np.flatnonzero(ends == 0):
        ours, theirs = (
            dict(enumerate(np.exp(side[row, :PILOT]).tolist()))
            for side in (base, other)
        )
        repeats = repeats_to_settle(ours, theirs)
        if repeats is not None and repeats <= MOST_REPEATS:
            trials[row] += repeats
    for count in np.unique(trials[trials > PILOT]):
        rows = trials == count
        ends[rows] = _ends(base[rows, :count], other[rows, :count])
    return np.array([ends, trials])


def _ends(base: Array, other: Array) -> NDArray[np.int64]:
    low, high = paired_interval(base, other, GATE_LEVEL)
    band = math.log1p(EQUIVALENCE_BAND)
    sides = np.where(is_apart(low, high), np.sign(low), 0)
    ends: NDArray[np.int64] = np.where((-band <= low) & (high <= band), 2, sides)
    return ends.astype(np.int64)


def step_interval_cells(
    rng: np.random.Generator, experiments: int
) -> Iterator[list[str]]:
    """The interval of the median step inside one trial."""
    for correlation, count in product(CORRELATIONS, (30, 100, 1000)):
        steps = STEP_NOISE * noise(rng, correlation, (experiments, count))
        ours = [step_interval(row) for row in np.exp(steps)]
        independent = _order_statistics(np.exp(steps))
        given = [interval for interval in ours if interval is not None]
        width = _median_width(given) / _median_width(independent)
        yield [
            f"{correlation:g}",
            str(count),
            percent(_coverage(given)),
            percent(1 - len(given) / experiments),
            f"{width:.2f}",
            percent(_coverage(independent)),
            percent(_block_bootstrap_coverage(rng, steps[: max(1, experiments // 10)])),
        ]


def _order_statistics(steps: Array) -> list[tuple[float, float]]:
    """Intervals of medians as if steps were independent: those of the sign test."""
    outside = int(stats.binom.ppf((1 - LEVEL) / 2, steps.shape[1], 0.5))
    ordered = np.sort(steps, axis=1)
    pairs = zip(ordered[:, outside - 1], ordered[:, -outside], strict=True)
    return [(float(low), float(high)) for low, high in pairs]


def _median_width(intervals: Sequence[tuple[float, float]]) -> float:
    return float(np.median([high - low for low, high in intervals]))


def _coverage(intervals: Sequence[tuple[float, float]]) -> float:
    return float(np.mean([low <= 1 <= high for low, high in intervals]))


def _block_bootstrap_coverage(rng: np.random.Generator, steps: Array) -> float:
    """Of the moving-block bootstrap of the median, with blocks of sqrt(S) steps."""
    count = steps.shape[1]
    length = round(math.sqrt(count))
    starts = rng.integers(
        count - length + 1, size=(RESAMPLES // 2, -(-count // length), 1)
    )
    chosen = (starts + np.arange(length)).reshape(len(starts), -1)[:, :count]
    medians = (np.median(row[chosen], axis=1) for row in steps)
    intervals = (np.quantile(drawn, (0.025, 0.975)) for drawn in medians)
    return float(np.mean([low <= 0 <= high for low, high in intervals]))


def steady_state_cells(
    rng: np.random.Generator, experiments: int
) -> Iterator[list[str]]:
    """What is said about the course of the steps, in percent of trials."""
    courses: dict[str, Callable[[int], NDArray[np.floating]]] = {
        "flat": lambda count: np.zeros(count),
        "1 % faster, straight": lambda count: np.linspace(0, -0.01, count),
        "5 % faster, straight": lambda count: np.linspace(0, -0.05, count),
        "10 % slower, at once": lambda count: 0.1 * (np.arange(count) > 0.6 * count),
        "30 % slower first, dying away": lambda count: (
            0.3 * np.exp(-10 * np.arange(count) / count)
        ),
        "10 % up and down, four times": lambda count: (
            0.1 * (4 * np.arange(count) // count % 2)
        ),
    }
    noises = [(0.0, STEP_NOISE), (0.5, STEP_NOISE), (0.9, STEP_NOISE), (0.0, 0.01)]
    for course, (correlation, scale), count in product(
        courses, noises, (30, 100, 200, 1000)
    ):
        if course != "flat" and correlation:
            continue
        steps = scale * noise(rng, correlation, (experiments, count))
        said = Counter(
            steady_state(row) for row in np.exp(steps + courses[course](count))
        )
        shares = [said[state] / experiments for state in STATES]
        yield [
            course,
            f"{correlation:g}",
            percent(scale, 0),
            str(count),
            *map(percent, shares),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, experiments = np.random.default_rng(arguments.seed), arguments.experiments
    print(f"{experiments:,} experiments a row, {STEPS} steps a trial; all shares in %.")
    table("Comparisons", COMPARISONS, compare_cells(rng, experiments))
    table("Power", POWER, power_cells(rng, experiments))
    table("Inside one trial", INSIDE, step_interval_cells(rng, experiments))
    table("Steady state", STEADY, steady_state_cells(rng, experiments))
    afresh = np.random.default_rng(arguments.seed)
    table("As compare --extend does it", EXTENDED, extended_cells(afresh, experiments))


if __name__ == "__main__":
    main()
