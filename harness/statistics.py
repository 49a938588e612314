"""Intervals and verdicts on plain arrays.

Inside one trial the steps are the sample, and only the median of one trial is spoken
of. Between trials the trial is the sample: its median step stands for it, and
Student's t works on logarithms, because speeds and times compare as ratios.

scipy is imported by the functions that need it: a worker calls `step_interval` and
`steady_state` between its timed steps and should not pay for the import. What rests on
simulation is shown by `tests/benchmarks/simulate_statistics.py`.
"""

import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
Direction = Literal["higher", "lower"]
"""Which way a metric gets better."""
Method = Literal["paired t", "Welch", "counted"]
Verdict = Literal["better", "worse", "equivalent", "inconclusive"]
SteadyState = Literal["flat", "warming", "slowing", "none"]
"""What the steps of a trial do: keep a level, get faster, get slower, or keep none."""
Block = TypeVar("Block", bound=Hashable)
"""What tells the shuffled blocks apart: their number, or the run and the number."""

LEVEL = 0.95
"""Confidence of every interval, unless another is asked for."""
EQUIVALENCE_BAND = 0.02
"""Two values count as equivalent within this share of each other."""
NOISE_FLOOR = 0.01
"""Two runs of the same code may differ by so much where no calibration says more."""
GATE_LEVEL = 0.99
"""Confidence of a verdict that lets a build pass or fail."""
TOLERABLE = 0.02
"""A change of speed inside a trial by less than this share does not matter."""
OUTLIER = 5.0
"""Robust standard deviations from the median beyond which a step is an outlier."""
DEVIATIONS = 1.4826
"""A standard deviation in median absolute deviations, of a normal distribution."""
BATCHES = 8
"""Batches of a trial's steps whose spread shows how they depend on one another."""
MIN_GROUPS, MAX_GROUPS = 6, 40
"""About how many groups of steps a trial is cut into to see its course."""
MAX_CORRELATION = 0.97
"""Of neighbours; with more, no trial is long enough to tell what its steps do."""
LEVELS_SHARE = 0.82
"""Share of the variance that two levels explain, where one level and its noise do so
in about 1 % of trials (simulated, AR(1) up to a correlation of 0.9)."""
SPREAD_LIMIT = 0.64
"""One-sided confidence of the spread that a number of trials is proposed for: enough
for 90 % power on average over pilots of five, and the median proposal stays within 1.3
times what the true spread needs (simulated)."""
SHIFT = 0.05
"""The change of speed that a proposed number of trials is to find."""
POWER = 0.9
"""How often it is to find it."""
ROUNDING = 1e-9
"""Counts that differ by less than this share are the same count."""
MOST_TRIALS = 10_000
"""No proposal goes beyond this."""


def step_interval(steps: ArrayLike, level: float = LEVEL) -> Interval | None:
    """Interval of the median step of one trial, honest where steps hang together.

    Order statistics, which assume no distribution, moved outwards as the dependence of
    the steps demands, and by Student's t, because `BATCHES` batches of steps estimate
    it. None where there are too few: 95 % needs ten independent steps, and about a
    hundred of an AR(1) process with a correlation of 0.9.
    """
    values = np.asarray(steps, dtype=float)
    if len(values) < BATCHES:
        return None
    spread = math.sqrt(len(values) * _dependence(values)) / 2
    outside = math.floor(len(values) / 2 - _student_quantile(level) * spread)
    if outside < 1:
        return None
    ordered = np.sort(values)
    return float(ordered[outside - 1]), float(ordered[-outside])


def _dependence(values: NDArray[np.float64]) -> float:
    """How many times more the share below the median varies than if independent.

    The larger of two estimates. Neighbours' signs see dependence that dies away as in
    an AR(1) process, even in few values; means of batches of signs see any that is
    shorter than a batch, such as a slow wander under white noise.
    """
    signs = np.sign(values - np.median(values))
    size = len(values) // BATCHES
    means = signs[: size * BATCHES].reshape(BATCHES, size).mean(axis=1)
    return max(1.0, size * float(means.var(ddof=1)), _neighbours_dependence(signs))


def _neighbours_dependence(signs: NDArray[np.float64]) -> float:
    """The same for a Gaussian AR(1) process, from how often neighbours' signs agree."""
    count = len(signs)
    agreement = float(signs[1:] @ signs[:-1]) / count
    agreement += (1 + 3 * max(agreement, 0.0)) / count  # the median was estimated too
    correlation = math.sin(math.pi / 2 * min(max(agreement, 0.0), MAX_CORRELATION))
    lags = np.arange(1, count)
    of_signs = np.arcsin(correlation**lags) * 2 / math.pi
    return 1 + 2 * float(((1 - lags / count) * of_signs).sum())


@lru_cache(maxsize=64)
def _student_quantile(level: float) -> float:
    """Student's t for `BATCHES` batches, two-sided.

    Abramowitz and Stegun 1964, 26.7.5, in full; right to 0.1 % up to 99 %.
    """
    z, freedom = NormalDist().inv_cdf((1 + level) / 2), BATCHES - 1
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + math.fsum(term / freedom**k for k, term in enumerate(terms, start=1))


def steady_state(steps: ArrayLike) -> SteadyState:
    """What the seconds per step of one trial do, in the order they were timed.

    - none: the steps jump between two levels;
    - warming, slowing: they change level once or drift, to faster or to slower steps;
    - flat: anything else, and a change of less than `TOLERABLE`.

    Few steps show only a strong drift, because a slow wander looks like one: with 3 %
    noise, 5 % over 200 steps is found nearly always if the noise is white. Below
    `MIN_GROUPS` steps none is looked for.
    """
    values = _relative(steps)
    if len(values) < MIN_GROUPS:
        return "flat"
    groups = _group_medians(values)
    boundary = _level_boundary(groups) or _level_boundary(values)
    if boundary is not None:
        return _course_of_levels(groups > boundary)
    inliers = _clipped(groups)
    change = _change_of_level(inliers, len(values)) or _drift(inliers, len(values))
    if change == 0:
        return "flat"
    return "warming" if change < 0 else "slowing"


def _group_medians(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians of neighbouring steps, which no single outlier moves.

    Five steps a group, unless there are too few for that, or so many that longer
    groups still leave enough of them and depend less on one another.
    """
    count = len(values)
    size = max(1, min(5, count // MIN_GROUPS), count // MAX_GROUPS)
    whole = values[count % size :].reshape(-1, size)
    medians: NDArray[np.float64] = np.median(whole, axis=1)
    return medians


def _level_boundary(values: NDArray[np.float64]) -> float | None:
    """What separates two levels, if the values, relative to their median, have two.

    The best cut through the sorted values explains 64 % of a Gaussian's variance and
    75 % of a straight drift's; of few values it explains more, by chance.
    """
    ordered = np.sort(values)
    edge = len(ordered) // 20  # single spikes are not a level
    ordered = np.clip(ordered, ordered[edge], ordered[-1 - edge])
    cut, share, step = _best_cut(ordered, least=len(ordered) // 10 + 2)
    if step <= TOLERABLE or share < LEVELS_SHARE + 1 / len(ordered):
        return None
    return float(ordered[:cut].mean()) + step / 2


def _course_of_levels(is_slow: NDArray[np.bool_]) -> SteadyState:
    if np.count_nonzero(is_slow[1:] != is_slow[:-1]) != 1:
        return "none"
    return "warming" if is_slow[0] else "slowing"


def _change_of_level(groups: NDArray[np.float64], steps: int) -> float:
    """The step at the best cut in time, or 0 where a slow wander has such cuts too.

    The bound lies above the 99 % quantile of a stationary AR(1) process with a
    correlation of 0.9, by simulation; below 75 steps there is none.
    """
    _, share, step = _best_cut(groups, least=2)
    is_found = abs(step) > TOLERABLE and share > 0.4 + 45 / steps
    return step if is_found else 0.0


def _best_cut(values: NDArray[np.float64], least: int) -> tuple[int, float, float]:
    """Cut a series in two, `least` values or more a side, to explain most variance.

    Returns:
        Where the second part begins, the share of the variance that two means explain,
        and how far the second lies above the first.
    """
    count = len(values)
    centred = values - values.mean()
    cuts = np.arange(least, count - least + 1)
    sums = np.cumsum(centred)[cuts - 1]
    explained = sums**2 * count / (cuts * (count - cuts))
    best = int(np.argmax(explained))
    cut, total = int(cuts[best]), float(centred @ centred)
    step = -float(sums[best]) * count / (cut * (count - cut))
    return cut, float(explained[best]) / total if total else 0.0, step


def _drift(groups: NDArray[np.float64], steps: int) -> float:
    """Change from first to last along a straight line, or 0 where it may be chance.

    Its error is that of independent residuals, widened as an AR(1) process would with
    their correlation, which is corrected for its bias in short series with a trend.
    As few steps leave that uncertain, a drift must exceed so many errors that one is
    seen in 5 % of stationary AR(1) series with a correlation of 0.9, by simulation.
    """
    count = len(groups)
    time = np.arange(count) - (count - 1) / 2
    slope = float(groups @ time) / float(time @ time)
    residuals = groups - groups.mean() - slope * time
    rest = float(residuals @ residuals)
    correlation = float(residuals[1:] @ residuals[:-1]) / rest if rest else 0.0
    correlation += (2 + 4 * max(correlation, 0.0)) / count
    correlation = min(max(correlation, 0.0), MAX_CORRELATION)
    widened = rest * (1 + correlation) / (1 - correlation)
    error = math.sqrt(widened / (count - 2) / float(time @ time))
    bound = max(TOLERABLE, (2.1 + 120 / steps) * error * count)
    return slope * count if abs(slope * count) > bound else 0.0


def _clipped(relative: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values with outliers moved to where outliers begin."""
    reach = _outlier_distance(relative)
    return np.clip(relative, np.median(relative) - reach, np.median(relative) + reach)


def outliers(steps: ArrayLike) -> NDArray[np.bool_]:
    """Which steps lie far from the rest of their trial: to be shown, never dropped.

    Far is beyond `OUTLIER` robust standard deviations from the median, and by more
    than `TOLERABLE`.
    """
    values = _relative(steps)
    flagged: NDArray[np.bool_] = np.abs(values - 1) > _outlier_distance(values)
    return flagged


def _relative(steps: ArrayLike) -> NDArray[np.float64]:
    """The steps over their median."""
    values = np.asarray(steps, dtype=float)
    return values / np.median(values) if len(values) else values


def _outlier_distance(relative: NDArray[np.float64]) -> float:
    """How far from the median an outlier begins, of values relative to their median."""
    if len(relative) == 0:
        return TOLERABLE
    deviation = np.median(np.abs(relative - np.median(relative)))
    return max(TOLERABLE, OUTLIER * DEVIATIONS * float(deviation))


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
    two trials, where one is not above zero, or where no float64 reaches an end.
    """
    if len(medians) < 2 or min(medians) <= 0:
        return None
    return _exponentials(_estimate(np.log(medians)).interval(level))


def interval_of_percentages(
    values: Sequence[float], level: float = LEVEL
) -> Interval | None:
    """Interval of the mean of percentages: Student's t, cut off at 0 and at 100.

    None with fewer than two trials.
    """
    if len(values) < 2:
        return None
    low, high = _estimate(values).interval(level)
    return max(low, 0.0), min(high, 100.0)


@dataclass(frozen=True)
class Difference:
    """How far one case lies above another, in the unit of the values."""

    value: float | None
    """None: one side has no trial."""
    interval: Interval | None
    """None: too few trials, and `reason` says so."""
    p_value: float | None
    """Two-sided, of no difference, by the test that the interval belongs to."""
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
    level: float
    """Confidence of the interval, and so of the verdict."""
    p_value: float | None
    """Two-sided, of the two being no further apart than the floor: at most
    1 - `level` exactly where the whole interval lies beyond the floor."""
    method: Method | None
    n: int
    verdict: Verdict
    reason: str | None = None
    """Why there is no interval."""


def compare_difference(
    base: Mapping[Block, float], other: Mapping[Block, float], level: float = LEVEL
) -> Difference:
    """Compare `other - base`, both given as one value for each shuffled block.

    Paired t over the blocks that hold both, where there are at least two: drift of
    the machine hits both trials of a block alike, and drops out. Welch otherwise,
    with at least two trials a side.
    """
    contrast = _contrast(base, other)
    return Difference(
        value=contrast.value,
        interval=contrast.interval(level),
        p_value=contrast.p_value(),
        method=contrast.method,
        n=contrast.n,
        reason=contrast.reason,
    )


def compare_ratio(
    base: Mapping[Block, float],
    other: Mapping[Block, float],
    direction: Direction,
    level: float = LEVEL,
    band: float = EQUIVALENCE_BAND,
    floor: float = NOISE_FLOOR,
) -> Ratio:
    """Compare `other / base`: `compare_difference` on the logarithms, and a verdict.

    A share such as the band or the floor reaches from 1 / (1 + share) to 1 + share.
    The verdict is

    - equivalent: the whole interval lies inside the band, or inside the floor where
      that is wider;
    - better, worse: the whole interval lies beyond the floor on one side, and is not
      equivalent; which of the two it is depends on the metric's direction;
    - inconclusive: anything else, and always where there is no interval.
    """
    if any(value <= 0 for side in (base, other) for value in side.values()):
        reason = "a ratio needs values above zero"
        return Ratio(None, None, level, None, None, 0, "inconclusive", reason)
    contrast = _contrast(_logarithms(base), _logarithms(other))
    logarithms = contrast.interval(level)
    interval = None if logarithms is None else _exponentials(logarithms)
    return Ratio(
        value=None if contrast.value is None else math.exp(contrast.value),
        interval=interval,
        level=level,
        p_value=contrast.p_value(math.log1p(floor)),
        method=contrast.method,
        n=contrast.n,
        verdict=_verdict(interval, direction, max(band, floor), floor),
        reason=contrast.reason,
    )


def compare_counts(
    base: float, other: float, direction: Direction, level: float = LEVEL
) -> Ratio:
    """Compare what is counted, not measured: without error, so any change decides."""
    verdict: Verdict
    if math.isclose(base, other, rel_tol=ROUNDING):
        verdict = "equivalent"
    else:
        verdict = "better" if (other > base) == (direction == "higher") else "worse"
    if base <= 0 or other <= 0:
        reason = "a ratio needs values above zero"
        return Ratio(None, None, level, None, "counted", 1, verdict, reason)
    value = other / base
    return Ratio(value, (value, value), level, None, "counted", 1, verdict)


def _verdict(
    interval: Interval | None, direction: Direction, band: float, floor: float
) -> Verdict:
    if interval is None:
        return "inconclusive"
    low, high = interval
    if 1 / (1 + band) <= low and high <= 1 + band:
        return "equivalent"
    if low > 1 + floor:
        return "better" if direction == "higher" else "worse"
    if high < 1 / (1 + floor):
        return "worse" if direction == "higher" else "better"
    return "inconclusive"


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of a family of comparisons, in the order given.

    Holm 1979: the smallest is multiplied by their number, the next by one less, and
    none is adjusted to less than one before it. Rejecting where the result is at most
    a rate keeps the chance of any false rejection at that rate.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def holm_levels(p_values: Sequence[float], level: float = LEVEL) -> list[float]:
    """Confidence at which to compare each of a family, to hold `level` over them all.

    Given each `Ratio.p_value`, a comparison made anew at its level has its interval
    beyond the floor exactly where `holm` rejects at 1 - `level`: the levels are those
    of Holm's steps up to the first that does not reject, whose level the rest share.
    """
    levels = [level] * len(p_values)
    rate, is_rejecting = 1 - level, True
    step = rate
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if is_rejecting:
            step = rate / (len(p_values) - rank)
            is_rejecting = p_values[index] <= step
        levels[index] = 1 - step
    return levels


def proposed_trials(
    base: Mapping[Block, float],
    other: Mapping[Block, float],
    *,
    shift: float = SHIFT,
    level: float = GATE_LEVEL,
    power: float = POWER,
    floor: float = NOISE_FLOOR,
) -> int | None:
    """Trials a side, those at hand included, that would find a true shift.

    Found is a shift whose interval at `level` lies beyond the floor; `power` is how
    often that happens. The spread so far is known from few trials only, so its upper
    confidence limit at `SPREAD_LIMIT` counts (Browne 1995).

    None with fewer than two trials a side, for a shift that is not above the floor,
    which no number of trials finds, and beyond `MOST_TRIALS`.
    """
    contrast = _contrast(_logarithms(base), _logarithms(other))
    if contrast.estimate is None or shift <= floor:
        return None
    distance = math.log1p(shift) - math.log1p(floor)
    freedom = contrast.estimate.freedom / (contrast.n - 1)
    return _fewest_trials(
        contrast.estimate, distance, freedom, level, power, at_least=contrast.n
    )


def repeats_to_settle(
    base: Mapping[Block, float],
    other: Mapping[Block, float],
    *,
    level: float = GATE_LEVEL,
    band: float = EQUIVALENCE_BAND,
    floor: float = NOISE_FLOOR,
) -> int | None:
    """More trials of each side, in blocks of both, that settle an open verdict.

    They do if the ratio stays where it is: the interval then lies beyond the floor or
    inside the band, whichever takes fewer, with a power of `POWER`.

    Blocks of both are compared in pairs, in which trials at hand that are not paired
    have no part: then all the pairs that are needed are still to come.

    None as of `proposed_trials`.
    """
    contrast = _contrast(_logarithms(base), _logarithms(other))
    if contrast.estimate is None or contrast.value is None:
        return None
    at_hand = contrast.n if contrast.method == "paired t" else 0
    needed = _fewest_trials(
        contrast.estimate,
        _decisive_distance(contrast.value, max(band, floor), floor),
        freedom=1.0,
        level=level,
        power=POWER,
        at_least=max(at_hand, 2),
    )
    return None if needed is None else max(needed - at_hand, 1)


def _decisive_distance(off: float, band: float, floor: float) -> float:
    """How far the interval of a mean that is `off` may reach and yet decide.

    It has to reach neither back to the floor nor, where the ratio lies near 1, out of
    the band: in logarithms, the longer of the two ways.
    """
    return max(abs(off) - math.log1p(floor), math.log1p(band) - abs(off))


def _fewest_trials(
    estimate: "_Estimate",
    distance: float,
    freedom: float,
    level: float,
    power: float,
    at_least: int,
) -> int | None:
    """The fewest trials whose interval reaches less far than `distance`, so often.

    `freedom`: degrees of freedom of the test for each trial after the first.
    """
    spread = estimate.spread_limit(SPREAD_LIMIT)

    def is_enough(trials: int) -> bool:
        error = spread / math.sqrt(trials)
        return _power(distance, error, freedom * (trials - 1), level) >= power

    candidates = range(at_least, MOST_TRIALS + 1)
    enough = bisect_left(candidates, True, key=is_enough)
    return candidates[enough] if enough < len(candidates) else None


def _power(distance: float, error: float, freedom: float, level: float) -> float:
    """How often a mean that far away has its whole interval above zero."""
    from scipy.special import nctdtr, stdtrit

    if distance > 30 * error:  # nctdtr gives up far out, where the power is 1
        return 1.0
    reach = stdtrit(freedom, (1 + level) / 2)
    return 1 - float(nctdtr(freedom, distance / error, reach))


@dataclass(frozen=True)
class _Estimate:
    """A mean or a difference of means, as Student's t sees it."""

    mean: float
    error: float
    """Standard error of the mean."""
    freedom: float
    variance: float
    """Of one trial, or of one trial a side."""

    def interval(self, level: float) -> Interval:
        from scipy.special import stdtrit

        reach = float(stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.mean - reach, self.mean + reach

    def spread_limit(self, confidence: float) -> float:
        """Upper confidence limit of the standard deviation of one trial (a side)."""
        from scipy.special import chdtri

        # As likely as `confidence` says, chi-squared comes out above this.
        exceeded = float(chdtri(self.freedom, confidence))
        return math.sqrt(self.freedom * self.variance / exceeded)

    def p_value(self, floor: float = 0.0) -> float:
        """Two-sided, of a true value no further from 0 than `floor`."""
        from scipy.special import stdtr

        beyond = abs(self.mean) - floor
        if beyond <= 0:
            return 1.0
        if self.error == 0:
            return 0.0
        return min(1.0, 2 * float(stdtr(self.freedom, -beyond / self.error)))


@dataclass(frozen=True)
class _Contrast:
    """`other - base`, and by which method."""

    value: float | None
    estimate: _Estimate | None
    method: Method | None
    n: int
    reason: str | None = None

    def interval(self, level: float) -> Interval | None:
        return None if self.estimate is None else self.estimate.interval(level)

    def p_value(self, floor: float = 0.0) -> float | None:
        return None if self.estimate is None else self.estimate.p_value(floor)


def _contrast(base: Mapping[Block, float], other: Mapping[Block, float]) -> _Contrast:
    n = min(len(base), len(other))
    if n == 0:
        return _Contrast(None, None, None, 0, "one side has no finished trial")
    blocks = [block for block in base if block in other]
    if len(blocks) >= 2:
        paired = _estimate([other[block] - base[block] for block in blocks])
        return _Contrast(paired.mean, paired, "paired t", len(blocks))
    if n == 1:
        value = fmean(other.values()) - fmean(base.values())
        reason = "a side of one trial gives no interval"
        return _Contrast(value, None, None, 1, reason)
    welch = _welch(_estimate([*base.values()]), _estimate([*other.values()]))
    return _Contrast(welch.mean, welch, "Welch", n)


def _welch(base: _Estimate, other: _Estimate) -> _Estimate:
    """The difference of two means whose spreads may differ."""
    variance = base.error**2 + other.error**2
    spread = base.error**4 / base.freedom + other.error**4 / other.freedom
    # Welch-Satterthwaite; two sides without any spread have nothing to divide.
    freedom = variance**2 / spread if spread else base.freedom + other.freedom
    return _Estimate(
        mean=other.mean - base.mean,
        error=math.sqrt(variance),
        freedom=freedom,
        variance=base.variance + other.variance,
    )


def _estimate(sample: ArrayLike) -> _Estimate:
    values = np.asarray(sample, dtype=float)
    count, variance = len(values), float(values.var(ddof=1))
    return _Estimate(
        mean=float(values.mean()),
        error=math.sqrt(variance / count),
        freedom=count - 1.0,
        variance=variance,
    )


def _logarithms(side: Mapping[Block, float]) -> dict[Block, float]:
    return {block: math.log(value) for block, value in side.items()}


def _exponentials(interval: Interval) -> Interval | None:
    """None where an end is beyond all numbers."""
    try:
        return math.exp(interval[0]), math.exp(interval[1])
    except OverflowError:
        return None
