"""Intervals against textbook values and scipy, coverage against seeded simulation."""

import math
import runpy
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from tlbench.statistics import (
    SPREAD_LIMIT,
    compare_counts,
    compare_difference,
    compare_ratio,
    holm,
    holm_levels,
    interval_of_percentages,
    interval_of_trials,
    outliers,
    percentile,
    proposed_trials,
    repeats_to_settle,
    steady_state,
    step_interval,
)

EXPERIMENTS = 2000


def _noise(
    correlation: float, shape: tuple[int, int], scale: float = 0.03, seed: int = 0
) -> NDArray[np.float64]:
    """Stationary AR(1) noise along the last axis."""
    noise = np.random.default_rng(seed).normal(scale=scale, size=shape)
    for step in range(1, shape[1]):
        noise[:, step] *= math.sqrt(1 - correlation**2)
        noise[:, step] += correlation * noise[:, step - 1]
    return noise


def _interval_coverage(logs: NDArray[np.float64]) -> float:
    """Share of trials, of those whose interval is given, in which it holds 1."""
    found = [step_interval(row) for row in np.exp(logs)]
    return float(np.mean([low <= 1 <= high for low, high in filter(None, found)]))


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_step_interval_of_independent_steps_reaches_as_far_as_students_t(
    level: float,
) -> None:
    count = 400_000
    rank = np.random.default_rng(0).permutation(count // 2)
    alternating = np.concatenate([(rank, count - 1 - rank)]).T.ravel() + 1.0

    interval = step_interval(alternating, level)

    reach = stats.t.ppf((1 + level) / 2, 7) * math.sqrt(count) / 2
    assert interval is not None
    ranks_away = count / 2 - interval[0], interval[1] - count / 2
    assert ranks_away == pytest.approx((reach, reach), abs=2)  # rounded outwards


@pytest.mark.parametrize(
    ("correlation", "count"), [(0.0, 50), (0.5, 100), (0.9, 300), (0.9, 1000)]
)
def test_step_interval_covers_the_median_of_dependent_steps(
    correlation: float, count: int
) -> None:
    assert _interval_coverage(_noise(correlation, (800, count))) >= 0.94


def test_step_interval_sees_a_slow_wander_under_white_noise() -> None:
    shape = (800, 1000)  # neighbours hardly agree, and yet the median wanders
    logs = _noise(0.95, shape, scale=0.02) + _noise(0.0, shape, scale=0.02, seed=1)
    assert _interval_coverage(logs) >= 0.92


def test_step_interval_does_not_widen_with_a_few_spikes() -> None:
    steps = np.exp(_noise(0.0, (1, 200)))[0]
    spiked = steps.copy()
    spiked[[20, 90, 150]] *= 5
    narrow, wide = step_interval(steps), step_interval(spiked)
    assert narrow is not None
    assert wide is not None
    assert wide[1] - wide[0] < 1.3 * (narrow[1] - narrow[0])


@pytest.mark.parametrize("count", [0, 1, 7, 9])
def test_step_interval_needs_ten_steps(count: int) -> None:
    assert step_interval(np.arange(count)) is None
    assert step_interval([1.0, 3.0, 2.0, 4.0, 0.0] * 2) == (0.0, 4.0)


def test_step_interval_refuses_few_steps_that_hang_together() -> None:
    assert step_interval(np.linspace(1, 2, 30)) is None


COUNT = 200
COURSES = {
    "flat": np.zeros(COUNT),
    "warming": np.linspace(0.05, 0, COUNT),
    "slowing": np.linspace(0, 0.05, COUNT),
    "none": 0.1 * (np.arange(COUNT) // 40 % 2),
}


@pytest.mark.parametrize("scale", [0.01, 0.03])
@pytest.mark.parametrize("state", COURSES)
def test_steady_state_tells_what_the_steps_do(state: str, scale: float) -> None:
    steps = np.exp(COURSES[state] + _noise(0.0, (200, COUNT), scale))
    assert np.mean([steady_state(row) == state for row in steps]) >= 0.95


@pytest.mark.parametrize("count", [30, 100, 200, 1000])
def test_a_slow_wander_is_seldom_called_a_drift(count: int) -> None:
    said = [steady_state(row) for row in np.exp(_noise(0.9, (600, count)))]
    assert np.mean([state in ("warming", "slowing") for state in said]) <= 0.07
    assert np.mean([state == "none" for state in said]) <= 0.03


def test_a_drift_too_small_to_matter_is_flat() -> None:
    steps = np.exp(np.linspace(0, 0.01, 1000) + _noise(0.0, (50, 1000), 0.001))
    assert {steady_state(row) for row in steps} == {"flat"}


def test_spikes_neither_hide_a_drift_nor_make_one() -> None:
    noise = _noise(0.0, (200, COUNT), 0.01)
    spikes = np.random.default_rng(1).random(noise.shape) < 0.02
    for state in ("flat", "warming"):
        steps = np.exp(COURSES[state] + noise) * np.where(spikes, 4, 1)
        assert np.mean([steady_state(row) == state for row in steps]) >= 0.95


@pytest.mark.parametrize(
    "course",
    [
        0.1 * (np.arange(COUNT) < 0.4 * COUNT),  # one change of level
        0.3 * np.exp(-np.arange(COUNT) / 20),  # dies away
    ],
)
def test_one_change_has_a_direction(course: NDArray[np.float64]) -> None:
    steps = np.exp(course + _noise(0.0, (1, COUNT), 0.01))[0]
    assert steady_state(steps) == "warming"
    assert steady_state(steps[::-1]) == "slowing"


def test_levels_that_alternate_from_step_to_step_are_none() -> None:
    steps = 1 + 0.2 * (np.arange(COUNT) % 2) + _noise(0.0, (1, COUNT), 0.01)[0]
    assert steady_state(steps) == "none"


def test_steady_state_does_not_depend_on_the_unit() -> None:
    for state, course in COURSES.items():
        steps = np.exp(course + _noise(0.0, (1, COUNT), 0.01))[0]
        assert steady_state(steps * 1e-6) == steady_state(steps * 1e3) == state


@pytest.mark.parametrize(
    "steps", [[], [0.1] * 3, [1.0, 2.0, 3.0, 4.0, 5.0], [0.1] * 50]
)
def test_steps_that_are_few_or_all_alike_are_flat(steps: list[float]) -> None:
    assert steady_state(steps) == "flat"


def test_outliers_are_flagged_on_both_sides() -> None:
    steps = 0.1 * (1 + _noise(0.0, (1, 500), 0.01)[0])
    steps[[3, 70]] = 0.4, 0.05
    assert np.flatnonzero(outliers(steps)).tolist() == [3, 70]


def test_steps_that_hardly_differ_are_no_outliers() -> None:
    steps = np.full(100, 0.1)
    steps[:10] *= 1.015  # beyond any spread of the others, but by less than matters
    steps[50] *= 1.03
    assert np.flatnonzero(outliers(steps)).tolist() == [50]
    assert outliers([]).tolist() == []


def test_timing_loop_does_not_import_scipy() -> None:
    code = (
        "import sys; from tlbench.statistics import *; steps = range(1, 20);"
        "step_interval(steps), steady_state(steps), outliers(steps);"
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


@pytest.mark.parametrize("medians", [[], [0.01], [0.01, 0.0, 0.02], [1e-30, 1e40]])
def test_interval_of_trials_needs_two_above_zero_and_ends_that_are_numbers(
    medians: list[float],
) -> None:
    assert interval_of_trials(medians) is None


def test_a_ratio_whose_interval_ends_beyond_all_numbers_has_none() -> None:
    found = compare_ratio({0: 1.0, 1: 1.0}, {0: 1e-30, 1: 1e40}, "higher")
    assert found.value == pytest.approx(1e5)
    assert (found.interval, found.verdict) == (None, "inconclusive")


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
        ([1.018, 1.020, 1.022], "better"),  # beyond the floor, and out of the band
        ([1.006, 1.015, 1.024], "inconclusive"),  # reaches from 1 to out of the band
        ([1.010, 1.020, 1.030], "inconclusive"),
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


def test_a_ratio_beyond_1_but_not_beyond_the_floor_is_no_verdict() -> None:
    base = dict.fromkeys(range(3), 100.0)
    other = dict(enumerate([102.9, 103.0, 103.1]))
    assert compare_ratio(base, other, "higher").verdict == "better"
    assert compare_ratio(base, other, "higher", floor=0.028).verdict == "inconclusive"
    assert compare_ratio(other, base, "lower", floor=0.028).verdict == "inconclusive"
    assert compare_ratio(base, other, "higher", floor=0.05).verdict == "equivalent"


def test_blocks_are_keyed_by_anything_that_tells_them_apart() -> None:
    base: dict[Hashable, float] = {(1, 0): 10.0, (2, 0): 12.0, "extra": 9.0}
    other: dict[Hashable, float] = {(2, 0): 23.5, None: 1.0, (1, 0): 20.0}
    ratio = compare_ratio(base, other, "higher")
    assert (ratio.method, ratio.n) == ("paired t", 2)
    assert ratio.value == pytest.approx(math.sqrt(2 * 23.5 / 12))


def test_p_values_are_those_of_scipys_t_tests() -> None:
    base, other = [10.0, 12.0, 14.0], [10.4, 12.1, 14.9]
    paired = compare_difference(dict(enumerate(base)), dict(enumerate(other)))
    apart = compare_difference(dict(enumerate(base)), dict(enumerate(other, start=3)))
    assert paired.p_value == pytest.approx(stats.ttest_rel(other, base).pvalue)
    welch = stats.ttest_ind(other, base, equal_var=False)
    assert apart.p_value == pytest.approx(welch.pvalue)


def test_p_value_of_a_ratio_is_that_of_the_floor() -> None:
    base, other = {0: 10.0, 1: 12.0, 2: 14.0}, {0: 10.9, 1: 12.7, 2: 15.0}
    logs = np.log([other[block] / base[block] for block in base])
    at_floor = stats.ttest_1samp(logs, math.log(1.03)).pvalue
    at_one = stats.ttest_1samp(logs, 0).pvalue
    assert compare_ratio(base, other, "higher", floor=0.03).p_value == pytest.approx(
        at_floor
    )
    assert compare_ratio(base, other, "higher", floor=0).p_value == pytest.approx(
        at_one
    )
    assert compare_ratio(base, other, "higher", floor=0.2).p_value == 1


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_p_value_and_interval_never_contradict_each_other(level: float) -> None:
    logs = np.random.default_rng(6).normal(0.03, 0.02, size=(300, 4))
    for pairs in np.exp(logs):
        base, other = dict.fromkeys(range(4), 1.0), dict(enumerate(pairs))
        ratio = compare_ratio(base, other, "higher", level=level, floor=0.01)
        assert ratio.interval is not None
        assert ratio.p_value is not None
        is_beyond = ratio.interval[0] > 1.01 or ratio.interval[1] < 1 / 1.01
        assert is_beyond == (ratio.p_value <= 1 - level)


def test_no_interval_has_no_p_value() -> None:
    assert compare_ratio({0: 1.0}, {0: 2.0}, "higher").p_value is None
    assert compare_difference({}, {0: 2.0}).p_value is None


def test_holm_gives_the_values_of_the_textbook() -> None:
    # 4 * 0.005, 3 * 0.01, 2 * 0.03, and 1 * 0.04, which may not fall below 0.06
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_levels_are_those_of_its_steps() -> None:
    # 0.05 / 4, / 3, and / 2, at which 0.03 is not rejected, nor is what comes after
    levels = holm_levels([0.01, 0.04, 0.03, 0.005], 0.95)
    assert levels == pytest.approx([1 - 0.05 / 3, 0.975, 0.975, 0.9875])


def test_intervals_at_holms_levels_agree_with_the_adjusted_p_values() -> None:
    rng = np.random.default_rng(7)
    base = dict.fromkeys(range(4), 1.0)
    for _ in range(100):
        shifts = rng.choice([0.0, 0.05, 0.1], size=6)
        others = np.exp(rng.normal(shifts[:, None], 0.02, size=(6, 4)))
        sides = [dict(enumerate(other)) for other in others]
        p_values = [compare_ratio(base, s, "higher").p_value or 0.0 for s in sides]
        levels = holm_levels(p_values, 0.95)
        for side, level, adjusted in zip(sides, levels, holm(p_values), strict=True):
            low, high = compare_ratio(base, side, "higher", level).interval or (0, 0)
            assert (low > 1.01 or high < 1 / 1.01) == (adjusted <= 0.05)


def test_proposed_trials_are_the_fewest_that_have_the_power() -> None:
    pairs = np.array([0.01, -0.02, 0.03, 0.0, -0.01])
    limit = np.std(pairs, ddof=1) * math.sqrt(4 / stats.chi2.ppf(1 - SPREAD_LIMIT, 4))
    distance = math.log(1.05 / 1.01)

    def power(trials: int) -> float:
        away = distance * math.sqrt(trials) / limit
        reach = stats.t.ppf(0.995, trials - 1)
        return float(stats.nct.sf(reach, trials - 1, away))

    base, other = dict.fromkeys(range(5), 1.0), dict(enumerate(np.exp(pairs)))
    proposed = proposed_trials(base, other)

    assert proposed is not None
    assert power(proposed - 1) < 0.9 <= power(proposed)


def test_proposed_trials_grow_with_noise_and_fall_with_the_shift() -> None:
    quiet = dict(enumerate([1.0, 1.01, 0.99, 1.0, 1.01]))
    noisy = dict(enumerate([1.0, 1.05, 0.95, 1.0, 1.05]))
    base = dict.fromkeys(range(5), 1.0)
    apart = dict.fromkeys(range(5, 10), 1.0)
    few, many = proposed_trials(base, quiet), proposed_trials(base, noisy)
    assert few is not None
    assert many is not None
    assert few < many
    assert (proposed_trials(base, noisy, shift=0.2) or 0) < many
    assert (proposed_trials(base, noisy, level=0.95) or 0) < many
    assert (proposed_trials(apart, noisy) or 0) <= many  # Welch: more freedom


def test_proposed_trials_are_at_least_those_at_hand() -> None:
    assert proposed_trials({0: 1.0, 1: 1.0}, {0: 2.0, 1: 2.0}) == 2


@pytest.mark.parametrize("other", [{0: 1.0}, {}, {5: 1.0}])
def test_no_number_of_trials_is_proposed_without_a_spread(
    other: dict[int, float],
) -> None:
    assert proposed_trials({0: 1.0, 1: 1.1}, other) is None


def test_no_number_of_trials_is_proposed_for_a_shift_within_the_floor() -> None:
    base, other = {0: 1.0, 1: 1.1}, {0: 1.0, 1: 1.0}
    assert proposed_trials(base, other, shift=0.01) is None
    assert (
        proposed_trials(base, other, shift=0.010001) is None
    )  # more than ten thousand


@pytest.mark.parametrize(("first_block", "freedom", "at_hand"), [(0, 3, 4), (4, 6, 0)])
def test_repeats_that_settle_are_the_fewest_pairs_that_do(
    first_block: int, freedom: int, at_hand: int
) -> None:
    """Trials that are not paired have no part in them, but their spread is known."""
    ours = 0.05 * np.array([1, -1, 1, -1])
    theirs = 0.05 * np.array([1, 1, -1, -1]) + 0.06  # not correlated with ours
    variance = np.var(ours, ddof=1) + np.var(theirs, ddof=1)
    limit = math.sqrt(freedom * variance / stats.chi2.ppf(1 - SPREAD_LIMIT, freedom))
    distance = 0.06 - math.log(1.01)

    def power(pairs: int) -> float:
        away = distance * math.sqrt(pairs) / limit
        reach = stats.t.ppf(0.995, pairs - 1)
        return float(stats.nct.sf(reach, pairs - 1, away))

    base = dict(enumerate(np.exp(ours)))
    other = dict(enumerate(np.exp(theirs), start=first_block))
    repeats = repeats_to_settle(base, other)
    assert repeats is not None
    assert power(at_hand + repeats - 1) < 0.9 <= power(at_hand + repeats)


@pytest.mark.parametrize("other", [{0: 1.0}, {}, {5: 1.0}])
def test_nothing_settles_what_has_no_spread(other: dict[int, float]) -> None:
    assert repeats_to_settle({0: 1.0, 1: 1.1}, other) is None


@pytest.mark.parametrize(
    ("other", "verdict"), [(10.0, "equivalent"), (11.0, "worse"), (9.0, "better")]
)
def test_counts_have_no_error(other: float, verdict: str) -> None:
    ratio = compare_counts(10.0, other, "lower")
    assert ratio.value is not None
    assert ratio.interval == (ratio.value, ratio.value) == (other / 10, other / 10)
    assert (ratio.verdict, ratio.method, ratio.p_value) == (verdict, "counted", None)


def test_counts_that_differ_by_rounding_are_the_same() -> None:
    assert compare_counts(0.3, 0.1 + 0.2, "lower").verdict == "equivalent"
    assert compare_counts(0.0, 0.0, "lower").verdict == "equivalent"


def test_proposed_trials_find_the_shift_as_often_as_asked() -> None:
    rng = np.random.default_rng(8)
    pairs = rng.normal(math.log(1.05), 0.02, size=(400, 100))
    base = dict.fromkeys(range(100), 1.0)
    found = []
    for row in np.exp(pairs):
        pilot = dict(enumerate(row[:5]))
        trials = proposed_trials(base, pilot) or 0
        final = dict(enumerate(row[:trials]))
        found.append(compare_ratio(base, final, "higher", 0.99).verdict == "better")
    assert np.mean(found) >= 0.9


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


@pytest.fixture(scope="module")
def simulation() -> dict[str, Any]:
    """What the benchmark that simulates the statistics defines."""
    tests = Path(__file__).parents[2]
    return runpy.run_path(str(tests / "benchmarks" / "simulate_statistics.py"))


@pytest.mark.parametrize(
    ("twin", "first_block"), [("paired_interval", 0), ("welch_interval", 7)]
)
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_simulations_twins_conclude_the_same(
    simulation: dict[str, Any], twin: str, first_block: int, level: float
) -> None:
    rng = np.random.default_rng(9)
    base = rng.normal(scale=0.01, size=(100, 5))
    other = rng.normal(rng.choice([0, 0.02, 0.05], (100, 1)), 0.01, size=(100, 5))

    low, high = simulation[twin](base, other, level)
    is_apart = simulation["is_apart"](low, high)

    for row in range(100):
        ratio = compare_ratio(
            dict(enumerate(np.exp(base[row]))),
            dict(enumerate(np.exp(other[row]), start=first_block)),
            "higher",
            level,
        )
        assert ratio.interval == pytest.approx(
            (math.exp(low[row]), math.exp(high[row]))
        )
        assert (ratio.verdict in ("better", "worse")) == is_apart[row]
