"""Changes of level in a series of values, one of each run, on plain arrays.

The run is the sample: how far equal runs lie apart is seen in the series itself, and
not in the spread of the trials inside one of them, which is smaller. `ruptures` finds
where levels change, an F test with a correction for the search says whether they do,
and `compare_ratio` by how much. What rests on simulation is shown by
`tests/benchmarks/simulate_changes.py`.

ruptures and scipy are imported by the functions that need them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tlbench.statistics import (
    NOISE_FLOOR,
    ROUNDING,
    Direction,
    Ratio,
    compare_ratio,
)

SHORTEST = 2
"""Fewest values of a level: one alone has no spread to judge it by."""
FEWEST = 6
"""Fewest values that a change is looked for in."""
MOST_CUTS = 2
"""Changes that one search tells apart: two, because a level that comes and goes again
hides from a search for one."""
RATE = 0.05
"""How often a series without a change may be said to have one, at most."""
DECIDED = ("better", "worse")


@dataclass(frozen=True)
class Change:
    """One change of level."""

    place: int
    """Of the first value of the new level."""
    ratio: Ratio
    """The new level over the old one; the interval takes the place for known."""
    p_value: float
    """How often noise alone has such a change somewhere in what was searched."""


def find_changes(
    values: Sequence[float],
    direction: Direction,
    floor: float = NOISE_FLOOR,
    rate: float = RATE,
) -> list[Change]:
    """The changes of level beyond the floor, in their order.

    None in fewer than `FEWEST` values, or where one is not above zero: levels compare
    as ratios.
    """
    if len(values) < FEWEST or min(values) <= 0:
        return []
    found = dict(_search(np.log(values), rate))
    while changes := _changes(values, found, direction, floor):
        undecided = [c for c in changes if c.ratio.verdict not in DECIDED]
        if not undecided:
            break
        del found[max(undecided, key=lambda change: change.p_value).place]
    return changes


def standing(
    values: Sequence[float],
    changes: Sequence[Change],
    direction: Direction,
    floor: float = NOISE_FLOOR,
) -> list[Change]:
    """The changes for the worse that the newest level has not made up for."""
    edges = [0, *(change.place for change in changes), len(values)]
    return [
        change
        for before, change in zip(pairwise(edges), changes, strict=False)
        if change.ratio.verdict == "worse"
        and _ratio(values, before, (edges[-2], edges[-1]), direction, floor).verdict
        == "worse"
    ]


def _changes(
    values: Sequence[float],
    found: dict[int, float],
    direction: Direction,
    floor: float,
) -> list[Change]:
    levels = pairwise([0, *sorted(found), len(values)])
    return [
        Change(
            place=after[0],
            ratio=_ratio(values, before, after, direction, floor),
            p_value=found[after[0]],
        )
        for before, after in pairwise(levels)
    ]


def _ratio(
    values: Sequence[float],
    before: tuple[int, int],
    after: tuple[int, int],
    direction: Direction,
    floor: float,
) -> Ratio:
    """One level over another, each given by its first place and the one after it."""
    base, other = ({n: values[n] for n in range(*level)} for level in (before, after))
    return compare_ratio(base, other, direction, band=floor, floor=floor)


def _search(
    logs: NDArray[np.float64], rate: float, start: int = 0
) -> Iterator[tuple[int, float]]:
    """The place of each change with its p value: the clearest first, then its parts."""
    if len(logs) < FEWEST:
        return
    for cuts in _best_cuts(logs):
        p_value = min(1.0, MOST_CUTS * _p_value(logs, cuts))
        if p_value <= rate:
            yield from ((start + cut, p_value) for cut in cuts)
            for low, high in pairwise([0, *cuts, len(logs)]):
                yield from _search(logs[low:high], rate, start + low)
            return


def _best_cuts(logs: NDArray[np.float64]) -> Iterator[list[int]]:
    """The one cut, then the two cuts, whose levels leave the least squares."""
    from ruptures import KernelCPD

    detector = KernelCPD(kernel="linear", min_size=SHORTEST).fit(logs - logs.mean())
    for number in range(1, MOST_CUTS + 1):
        yield detector.predict(n_bkps=number)[:-1]


def _p_value(logs: NDArray[np.float64], cuts: Sequence[int]) -> float:
    """Of no change at all, by an F test of the levels.

    The cuts are the best of all, and so the test is corrected by Bonferroni for as many
    as there are ways to place them.
    """
    from scipy.special import fdtrc

    total = _squares(logs)
    if total <= len(logs) * ROUNDING**2:  # the same value again and again
        return 1.0
    rest = sum(_squares(level) for level in np.split(logs, cuts))
    if rest <= ROUNDING * total:
        return 0.0
    freedom = len(logs) - len(cuts) - 1
    f = (total - rest) / len(cuts) / (rest / freedom)
    ways = math.comb(len(logs) - (len(cuts) + 1) * (SHORTEST - 1) - 1, len(cuts))
    return min(1.0, ways * float(fdtrc(len(cuts), freedom, f)))


def _squares(values: NDArray[np.float64]) -> float:
    centred = values - values.mean()
    return float(centred @ centred)
