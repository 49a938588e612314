"""Changes of level where the truth is known, and none where there is none."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from tlbench.changes import FEWEST, MOST_CUTS, RATE, find_changes, standing
from tlbench.statistics import Direction

WIGGLE = (1.0, 1.004, 0.997, 1.002, 0.996, 1.001)
"""Noise of about 0.3 %, so that levels 5 % apart are plain to see."""


def levels(*parts: tuple[float, int]) -> list[float]:
    """Each level so many runs long, with the same small noise over all of them."""
    values = [level for level, count in parts for _ in range(count)]
    return [value * WIGGLE[n % len(WIGGLE)] for n, value in enumerate(values)]


def noisy(
    rng: np.random.Generator, runs: int, scale: float, shift: float = 0.0
) -> list[float]:
    logs = scale * rng.standard_normal(runs)
    logs[runs // 2 :] += math.log1p(shift)
    return [float(value) for value in np.exp(logs)]


@pytest.mark.parametrize(
    ("level", "direction", "verdict"),
    [
        (95.0, "higher", "worse"),
        (105.0, "higher", "better"),
        (95.0, "lower", "better"),
        (105.0, "lower", "worse"),
    ],
)
def test_a_step_is_found_with_its_place_size_and_verdict(
    level: float, direction: Direction, verdict: str
) -> None:
    (change,) = find_changes(levels((100.0, 9), (level, 7)), direction)
    assert change.place == 9
    assert change.ratio.verdict == verdict
    assert change.ratio.value == pytest.approx(level / 100, rel=2e-3)
    assert change.ratio.interval is not None
    low, high = change.ratio.interval
    assert low < level / 100 < high
    assert change.p_value < 1e-6


def test_a_level_that_comes_and_goes_is_two_changes() -> None:
    """One cut alone would explain little of it."""
    values = levels((100.0, 8), (95.0, 8), (100.0, 8))
    changes = find_changes(values, "higher")
    assert [(c.place, c.ratio.verdict) for c in changes] == [
        (8, "worse"),
        (16, "better"),
    ]


def test_a_stair_is_found_step_by_step() -> None:
    values = levels((100.0, 7), (95.0, 7), (90.0, 7), (84.0, 7))
    assert [c.place for c in find_changes(values, "higher")] == [7, 14, 21]


def test_a_change_within_the_noise_floor_is_not_told() -> None:
    values = levels((100.0, 12), (99.2, 12))
    assert [c.place for c in find_changes(values, "higher", floor=0.001)] == [12]
    assert find_changes(values, "higher", floor=0.01) == []


@pytest.mark.parametrize(
    "values",
    [
        [],
        [100.0],
        levels((100.0, FEWEST - 3), (50.0, 2)),
        [0.0, *levels((100.0, 20), (50.0, 20))],
        [5.0] * 30,
        levels((100.0, 30)),
    ],
    ids=["empty", "one", "too few", "not above zero", "constant", "no change"],
)
def test_nothing_is_found_where_nothing_can_be(values: Sequence[float]) -> None:
    assert find_changes(values, "higher") == []


def test_counts_without_noise_change_for_certain() -> None:
    (change,) = find_changes([4.0] * 5 + [5.0] * 4, "lower")
    assert (change.place, change.ratio.value, change.p_value) == (5, 1.25, 0.0)
    assert change.ratio.verdict == "worse"


def test_p_value_is_that_of_a_t_test_for_each_place_that_was_searched() -> None:
    """One cut: F is the square of Student's t with pooled variance."""
    rng = np.random.default_rng(3)
    values = noisy(rng, 16, 0.01, -0.04)
    (change,) = find_changes(values, "higher")
    before, after = np.split(np.log(values), [change.place])
    plain = stats.ttest_ind(before, after).pvalue
    places = len(values) - 3  # two values or more on each side
    assert change.p_value == pytest.approx(MOST_CUTS * places * plain)


@pytest.mark.parametrize("scale", [0.01, 0.03])
@pytest.mark.parametrize("runs", [10, 20, 40])
def test_noise_alone_is_called_a_change_no_more_often_than_said(
    scale: float, runs: int
) -> None:
    rng = np.random.default_rng(runs)
    series = [noisy(rng, runs, scale) for _ in range(400)]
    false = sum(bool(find_changes(values, "higher")) for values in series)
    assert false / len(series) <= RATE


def test_a_shift_of_5_percent_is_found_in_noise_of_2_percent() -> None:
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(200):
        changes = find_changes(noisy(rng, 20, 0.02, -0.05), "higher")
        found += any(abs(c.place - 10) <= 2 for c in changes)
    assert found / 200 > 0.85


@pytest.mark.parametrize(
    ("parts", "places"),
    [
        (((100.0, 8), (95.0, 8)), [8]),
        (((100.0, 8), (95.0, 8), (100.0, 8)), []),
        (((100.0, 8), (90.0, 8), (95.0, 8)), [8]),
        (((100.0, 8), (95.0, 8), (90.0, 8)), [8, 16]),
        (((100.0, 8), (110.0, 8), (100.0, 8)), [16]),
        (((100.0, 8), (105.0, 8)), []),
    ],
    ids=["down", "made up for", "half made up for", "down twice", "lost again", "up"],
)
def test_what_is_worse_stands_until_it_is_made_up_for(
    parts: tuple[tuple[float, int], ...], places: list[int]
) -> None:
    values = levels(*parts)
    changes = find_changes(values, "higher")
    assert [c.place for c in standing(values, changes, "higher")] == places
