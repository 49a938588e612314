"""Intervals and verdicts on plain arrays.

Inside one trial the steps are the sample, and only the median of one trial is spoken
of. Between trials the trial is the sample: its median step stands for it, and
Student's t works on logarithms, because speeds and times compare as ratios.

scipy is imported by the functions that need it: a worker calls `median_interval`
between its timed steps and should not pay for the import.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
Direction = Literal["higher", "lower"]
"""Which way a metric gets better."""
Method = Literal["paired t", "Welch"]
Verdict = Literal["better", "worse", "equivalent", "inconclusive"]

LEVEL = 0.95
"""Confidence of every interval, unless another is asked for."""
EQUIVALENCE_BAND = 0.02
"""Two values count as equivalent within this share of each other."""


@lru_cache(maxsize=1024)
def _order_statistic(count: int, level: float) -> int:
    """How many values lie outside the median's interval, at either end.

    The k-th smallest and the k-th largest of `count` values miss the median with
    probability 2 * P(Binomial(count, 1/2) < k); the largest such k, or 0 where even
    the extremes miss it too often.
    """
    drawn = np.arange(1, count + 1)
    log_ways = np.concatenate(([0.0], np.cumsum(np.log((count + 1 - drawn) / drawn))))
    tail = np.cumsum(np.exp(log_ways - count * math.log(2)))  # P(Binomial <= k)
    return int(np.searchsorted(2 * tail, 1 - level, side="right"))


def median_interval(values: ArrayLike, level: float = LEVEL) -> Interval | None:
    """Interval of the median by order statistics; no distribution is assumed.

    None where there are too few values: 95 % needs six.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    outside = _order_statistic(len(ordered), level)
    if outside == 0:
        return None
    return float(ordered[outside - 1]), float(ordered[-outside])


def percentile(values: ArrayLike, q: float) -> float | None:
    """The q-th percentile, interpolated; None where too few values reach beyond it.

    One value beyond it must be expected: p99 needs 100 values, p90 ten.
    """
    sample = np.asarray(values, dtype=float)
    needed = round(100 / min(q, 100 - q), 6)
    return float(np.percentile(sample, q)) if len(sample) >= needed else None


def interval_of_trials(
    medians: Sequence[float], level: float = LEVEL
) -> Interval | None:
    """Interval of a case's typical value; the trial is the sample.

    Student's t on the logarithms, so about the geometric mean. None with fewer than
    two trials, or where one is not above zero.
    """
    if len(medians) < 2 or min(medians) <= 0:
        return None
    return _exponentials(_t_interval(*_mean_and_error(np.log(medians)), level))


def interval_of_percentages(
    values: Sequence[float], level: float = LEVEL
) -> Interval | None:
    """Interval of the mean of percentages: Student's t, cut off at 0 and at 100.

    None with fewer than two trials.
    """
    if len(values) < 2:
        return None
    low, high = _t_interval(*_mean_and_error(np.asarray(values)), level)
    return max(low, 0.0), min(high, 100.0)


@dataclass(frozen=True)
class Difference:
    """How far one case lies above another, in the unit of the values."""

    value: float | None
    """None: one side has no trial."""
    interval: Interval | None
    """None: too few trials, and `reason` says so."""
    method: Method | None
    n: int
    """Trials of the smaller side; pairs where they are paired."""
    reason: str | None = None


@dataclass(frozen=True)
class Ratio:
    """One case over another, with what may be concluded from it."""

    value: float | None
    """None: one side has no trial, or a value that is not above zero."""
    interval: Interval | None
    method: Method | None
    n: int
    verdict: Verdict
    reason: str | None = None
    """Why there is no interval."""


def compare_difference(
    base: Mapping[int, float], other: Mapping[int, float], level: float = LEVEL
) -> Difference:
    """Compare `other - base`, both given as one value for each shuffled block.

    Paired t over the blocks that hold both, where there are at least two: drift of
    the machine hits both trials of a block alike, and drops out. Welch otherwise,
    with at least two trials a side.
    """
    blocks = sorted(base.keys() & other.keys())
    if len(blocks) >= 2:
        pairs = np.array([other[block] - base[block] for block in blocks])
        mean, error, freedom = _mean_and_error(pairs)
        interval = _t_interval(mean, error, freedom, level)
        return Difference(mean, interval, "paired t", len(blocks))
    n = min(len(base), len(other))
    if n == 0:
        return Difference(None, None, None, 0, "one side has no finished trial")
    sides = np.array(list(base.values())), np.array(list(other.values()))
    value = float(sides[1].mean() - sides[0].mean())
    if n == 1:
        return Difference(value, None, None, 1, "a side of one trial gives no interval")
    return Difference(value, _welch_interval(*sides, level), "Welch", n)


def compare_ratio(
    base: Mapping[int, float],
    other: Mapping[int, float],
    direction: Direction,
    level: float = LEVEL,
    band: float = EQUIVALENCE_BAND,
) -> Ratio:
    """Compare `other / base`: `compare_difference` on the logarithms, and a verdict.

    The band reaches from 1 / (1 + band) to 1 + band. The verdict is

    - equivalent: the whole interval lies inside the band, even if it excludes 1;
    - better, worse: the whole interval lies on one side of 1, and reaches out of the
      band; which of the two it is depends on the metric's direction;
    - inconclusive: anything else, and always where there is no interval.
    """
    if any(value <= 0 for side in (base, other) for value in side.values()):
        reason = "a ratio needs values above zero"
        return Ratio(None, None, None, 0, "inconclusive", reason)
    difference = compare_difference(_logarithms(base), _logarithms(other), level)
    interval = difference.interval and _exponentials(difference.interval)
    return Ratio(
        value=None if difference.value is None else math.exp(difference.value),
        interval=interval,
        method=difference.method,
        n=difference.n,
        verdict=_verdict(interval, direction, band),
        reason=difference.reason,
    )


def _verdict(interval: Interval | None, direction: Direction, band: float) -> Verdict:
    if interval is None:
        return "inconclusive"
    low, high = interval
    if 1 / (1 + band) <= low and high <= 1 + band:
        return "equivalent"
    if low > 1:
        return "better" if direction == "higher" else "worse"
    if high < 1:
        return "worse" if direction == "higher" else "better"
    return "inconclusive"


def _logarithms(side: Mapping[int, float]) -> dict[int, float]:
    return {block: math.log(value) for block, value in side.items()}


def _exponentials(interval: Interval) -> Interval:
    return math.exp(interval[0]), math.exp(interval[1])


def _mean_and_error(sample: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, its standard error, and the degrees of freedom."""
    n = len(sample)
    return float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(n), n - 1.0


def _welch_interval(
    base: NDArray[np.float64], other: NDArray[np.float64], level: float
) -> Interval:
    """Interval of the difference of two means whose spreads may differ."""
    base_mean, base_error, base_freedom = _mean_and_error(base)
    other_mean, other_error, other_freedom = _mean_and_error(other)
    variance = base_error**2 + other_error**2
    spread = base_error**4 / base_freedom + other_error**4 / other_freedom
    # Welch-Satterthwaite; two sides without any spread have nothing to divide.
    freedom = variance**2 / spread if spread else base_freedom + other_freedom
    return _t_interval(other_mean - base_mean, math.sqrt(variance), freedom, level)


def _t_interval(mean: float, error: float, freedom: float, level: float) -> Interval:
    from scipy.special import stdtrit

    reach = float(stdtrit(freedom, (1 + level) / 2)) * error
    return mean - reach, mean + reach
