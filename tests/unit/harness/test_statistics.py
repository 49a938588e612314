"""Intervals against textbook values and scipy, coverage against seeded simulation."""

import math
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tlbench.statistics import (
    compare_difference,
    compare_ratio,
    interval_of_percentages,
    interval_of_trials,
    median_interval,
    percentile,
)

EXPERIMENTS = 2000


@pytest.mark.parametrize(
    ("count", "low", "high"), [(6, 1, 6), (8, 1, 8), (9, 2, 8), (20, 6, 15)]
)
def test_median_interval_takes_the_ranks_of_the_sign_test_tables(
    count: int, low: int, high: int
) -> None:
    shuffled = np.random.default_rng(0).permutation(np.arange(1, count + 1))
    assert median_interval(shuffled) == (low, high)


def test_median_interval_agrees_with_scipy_on_many_steps() -> None:
    values = np.random.default_rng(1).lognormal(size=5000)
    exact = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    interval = median_interval(values)
    assert interval is not None
    assert interval == pytest.approx((exact.low, exact.high), rel=2e-3)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_median_interval_needs_six_values(count: int) -> None:
    assert median_interval(np.arange(count)) is None


def test_median_interval_covers_the_median_of_skewed_steps() -> None:
    rng = np.random.default_rng(2)
    steps = rng.lognormal(sigma=0.5, size=(EXPERIMENTS, 40))
    intervals = [median_interval(row) for row in steps]
    covered = [i is not None and i[0] <= 1 <= i[1] for i in intervals]
    assert 0.945 <= np.mean(covered) <= 0.98  # exactly 0.962 for 40 values


def test_timing_loop_does_not_import_scipy() -> None:
    code = (
        "import sys; from tlbench.statistics import median_interval;"
        "median_interval(range(20));"
        "sys.exit(any(name.startswith('scipy') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("count", "q", "expected"),
    [
        (99, 99, None),
        (100, 99, 98.01),
        (9, 90, None),
        (10, 90, 8.1),
        (1000, 99.9, 998.001),
        (999, 99.9, None),
        (5, 50, 2.0),
        (0, 50, None),
    ],
)
def test_percentile_needs_a_value_beyond_it(
    count: int, q: float, expected: float | None
) -> None:
    assert percentile(np.arange(count), q) == pytest.approx(expected)


def test_interval_of_trials_is_the_t_interval_of_the_logarithms() -> None:
    medians = [0.010, 0.011, 0.0125]
    logs = np.log(medians)
    low, high = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    interval = interval_of_trials(medians)
    assert interval == pytest.approx((math.exp(low), math.exp(high)), rel=1e-9)


def test_interval_of_percentages_is_the_t_interval_and_stays_a_percentage() -> None:
    # t(0.975, 2) = 4.3027; mean 90, standard error 2 / sqrt(3)
    low, high = interval_of_percentages([88.0, 90.0, 92.0]) or (0, 0)
    assert (low, high) == pytest.approx(
        (90 - 4.3027 * 1.1547, 90 + 4.3027 * 1.1547), 1e-4
    )
    low, high = interval_of_percentages([99.0, 100.0]) or (0, 0)
    assert low == pytest.approx(93.147, 1e-4)  # t(0.975, 1) = 12.706
    assert high == 100
    assert interval_of_percentages([95.0]) is None


@pytest.mark.parametrize("medians", [[], [0.01], [0.01, 0.0, 0.02]])
def test_interval_of_trials_needs_two_trials_above_zero(medians: list[float]) -> None:
    assert interval_of_trials(medians) is None


def test_complete_blocks_are_paired() -> None:
    base = {0: 10.0, 1: 12.0, 2: 14.0}
    other = {2: 28.5, 0: 20.0, 1: 23.5}
    logs = np.log([20 / 10, 23.5 / 12, 28.5 / 14])
    low, high = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))

    ratio = compare_ratio(base, other, "higher")

    assert (ratio.method, ratio.n, ratio.reason) == ("paired t", 3, None)
    assert ratio.value == pytest.approx(math.exp(logs.mean()))
    assert ratio.interval == pytest.approx((math.exp(low), math.exp(high)), rel=1e-9)


def test_a_block_that_lost_one_trial_is_left_out_of_the_pairs() -> None:
    base = {0: 10.0, 1: 12.0, 2: 14.0, 3: 1000.0}
    other = {0: 20.0, 1: 23.5, 2: 28.5}
    assert compare_ratio(base, other, "higher") == compare_ratio(
        {block: base[block] for block in other}, other, "higher"
    )


def test_blocks_that_do_not_meet_are_compared_by_welch() -> None:
    base, other = [10.0, 12.0, 14.0], [20.0, 23.5]
    reference = stats.ttest_ind(
        np.log(other), np.log(base), equal_var=False
    ).confidence_interval(0.95)

    ratio = compare_ratio(
        dict(enumerate(base)), dict(enumerate(other, start=3)), "higher"
    )

    assert (ratio.method, ratio.n) == ("Welch", 2)
    assert ratio.interval == pytest.approx(tuple(np.exp(reference)), rel=1e-9)


@pytest.mark.parametrize(
    ("factors", "verdict"),
    [
        ([1.5, 1.52, 1.51], "better"),
        ([0.5, 0.52, 0.51], "worse"),
        ([1.010, 1.011, 1.012], "equivalent"),  # excludes 1, but inside the band
        ([1.018, 1.020, 1.022], "better"),  # excludes 1 and reaches out of the band
        ([1.0, 1.0, 1.0], "equivalent"),
        ([0.9, 1.3, 1.0], "inconclusive"),
        ([1.5], "inconclusive"),
    ],
)
def test_verdict_follows_the_interval(factors: list[float], verdict: str) -> None:
    base = dict.fromkeys(range(len(factors)), 100.0)
    other = {block: 100 * factor for block, factor in enumerate(factors)}
    assert compare_ratio(base, other, "higher").verdict == verdict


def test_verdict_turns_round_where_lower_is_better() -> None:
    base, other = {0: 10.0, 1: 10.1}, {0: 5.0, 1: 5.05}
    assert compare_ratio(base, other, "lower").verdict == "better"
    assert compare_ratio(other, base, "lower").verdict == "worse"


def test_one_trial_a_side_has_a_ratio_and_no_interval() -> None:
    ratio = compare_ratio({0: 10.0}, {0: 25.0}, "higher")
    assert ratio.value == pytest.approx(2.5)
    assert ratio.interval is None
    assert ratio.reason == "a side of one trial gives no interval"


@pytest.mark.parametrize(
    ("base", "reason"),
    [({}, "no finished trial"), ({0: 0.0, 1: 1.0}, "values above zero")],
)
def test_a_ratio_that_cannot_be_formed_says_why(
    base: dict[int, float], reason: str
) -> None:
    ratio = compare_ratio(base, {0: 1.0, 1: 1.0}, "higher")
    assert (ratio.value, ratio.interval, ratio.verdict) == (None, None, "inconclusive")
    assert ratio.reason is not None
    assert reason in ratio.reason


def test_difference_keeps_the_unit_of_the_values() -> None:
    difference = compare_difference({0: 97.0, 1: 96.0}, {0: 96.5, 1: 95.3})
    low, high = stats.t.interval(0.95, 1, loc=-0.6, scale=stats.sem([-0.5, -0.7]))
    assert difference.value == pytest.approx(-0.6)
    assert difference.interval == pytest.approx((low, high))


def _coverage(
    base: NDArray[np.float64], other: NDArray[np.float64], first_block: int = 0
) -> float:
    """Share of experiments whose interval holds the true ratio, 2."""
    intervals = [
        compare_ratio(
            dict(enumerate(b)), dict(enumerate(o, start=first_block)), "higher"
        ).interval
        for b, o in zip(base, other, strict=True)
    ]
    return float(np.mean([i is not None and i[0] <= 2 <= i[1] for i in intervals]))


@pytest.mark.parametrize("drift", [0.0, 0.2])
@pytest.mark.parametrize("trials", [3, 5])
def test_paired_intervals_cover_with_and_without_drift(
    drift: float, trials: int
) -> None:
    rng = np.random.default_rng(3)
    shape = (EXPERIMENTS, trials)
    block = rng.normal(scale=drift, size=shape)  # hits both trials of a block alike
    base = np.exp(block + rng.normal(scale=0.03, size=shape))
    other = 2 * np.exp(block + rng.normal(scale=0.05, size=shape))
    assert 0.935 <= _coverage(base, other) <= 0.965


def test_welch_intervals_cover_unequal_spreads() -> None:
    rng = np.random.default_rng(4)
    base = np.exp(rng.normal(scale=0.02, size=(EXPERIMENTS, 5)))
    other = 2 * np.exp(rng.normal(scale=0.06, size=(EXPERIMENTS, 4)))
    assert 0.935 <= _coverage(base, other, first_block=5) <= 0.965


def test_intervals_of_trials_cover_where_trials_differ_more_than_steps() -> None:
    rng = np.random.default_rng(5)
    whole_trial = rng.normal(scale=0.04, size=(EXPERIMENTS, 5, 1))
    steps = rng.normal(scale=0.02, size=(EXPERIMENTS, 5, 20))
    medians = np.median(np.exp(whole_trial + steps), axis=2)
    intervals = [interval_of_trials(row.tolist()) for row in medians]
    covered = [i is not None and i[0] <= 1 <= i[1] for i in intervals]
    assert 0.935 <= np.mean(covered) <= 0.965
