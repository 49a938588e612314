"""How often does `find_changes` see a change where there is none, and where there is?

    python tests/benchmarks/simulate_changes.py
    python tests/benchmarks/simulate_changes.py --otava /opt/otava/bin/python

Prints Markdown tables beside two other ways, and beside apache-otava where the Python
of an environment that has it is named. It measures no time.

A series is drawn as logarithms of a throughput, one value of each run.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tlbench.changes import FEWEST, RATE, SHORTEST, find_changes
from tlbench.statistics import NOISE_FLOOR

Array = NDArray[np.float64]
Places = list[int]
"""Of the first run of each new level."""

SHIFT = -0.05
NEAR = 2
"""A change is found if it is placed so many runs off, at most."""
OUTLIER_SHARE, OUTLIER = 0.05, -0.2
RESAMPLES = 499
OTAVA = """
import json, sys
from otava.analysis import compute_change_points
said = []
for values in json.load(sys.stdin):
    points, _ = compute_change_points(values, window_len=50, max_pvalue=0.001)
    said.append([int(point.index) for point in points])
json.dump(said, sys.stdout)
"""
"""With the window and the p value that its command line has."""


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Student's t with three degrees of freedom, of unit variance."""
    drawn: Array = rng.standard_t(3, shape) / np.sqrt(3)
    return drawn


def dependent(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """AR(1) with a correlation of 0.5, of unit variance."""
    drawn = rng.standard_normal(shape)
    for run in range(1, shape[1]):
        drawn[:, run] = 0.5 * drawn[:, run - 1] + np.sqrt(0.75) * drawn[:, run]
    return drawn


NOISES = {"normal": normal, "t, 3 degrees": heavy, "AR(1), 0.5": dependent}


@dataclass(frozen=True)
class Experiment:
    """Series of one kind, and where their levels truly change."""

    logs: Array
    """[series, runs]"""
    places: tuple[int, ...] = ()


def draw(
    rng: np.random.Generator,
    series: int,
    runs: int,
    scale: float,
    *,
    noise: str = "normal",
    places: Sequence[int] = (),
    has_outliers: bool = False,
) -> Experiment:
    """Noise, and levels that go down by the shift and up again at every other place."""
    logs = scale * NOISES[noise](rng, (series, runs))
    for number, place in enumerate(places):
        logs[:, place:] += np.log1p(SHIFT) * (-1) ** number
    if has_outliers:
        logs += np.log1p(OUTLIER) * (rng.random(logs.shape) < OUTLIER_SHARE)
    return Experiment(logs, tuple(places))


# ---------------------------------------------------------------- the ways


def ours(logs: Array) -> list[Places]:
    return [
        [change.place for change in find_changes(np.exp(row).tolist(), "higher")]
        for row in logs
    ]


def permuted(logs: Array) -> list[Places]:
    """One cut after the other, each tested against the best cuts of shuffled values."""
    rng = np.random.default_rng(0)
    return [sorted(_permuted(rng, row)) for row in logs]


def _permuted(rng: np.random.Generator, row: Array, start: int = 0) -> Iterator[int]:
    if len(row) < FEWEST:
        return
    shuffled = rng.permuted(np.tile(row, (RESAMPLES, 1)), axis=1)
    (cut,), (gain,) = _best_cut(row[None])
    p_value = (1 + np.count_nonzero(_best_cut(shuffled)[1] >= gain)) / (RESAMPLES + 1)
    if p_value <= RATE:
        yield start + cut
        yield from _permuted(rng, row[:cut], start)
        yield from _permuted(rng, row[cut:], start + cut)


def _best_cut(rows: Array) -> tuple[NDArray[np.int64], Array]:
    """Of each row, and how many squares it explains."""
    count = rows.shape[1]
    cuts = np.arange(SHORTEST, count - SHORTEST + 1)
    centred = rows - rows.mean(axis=1, keepdims=True)
    sums = centred.cumsum(axis=1)[:, cuts - 1]
    gains = sums**2 * count / (cuts * (count - cuts))
    return cuts[gains.argmax(axis=1)], gains.max(axis=1)


def uncorrected(logs: Array) -> list[Places]:
    """Welch at the best cut, as if its place had been known before."""
    places, _ = _best_cut(logs)
    return [
        [int(cut)]
        if stats.ttest_ind(row[:cut], row[cut:], equal_var=False).pvalue <= RATE
        else []
        for row, cut in zip(logs, places, strict=True)
    ]


def otava(python: Path) -> Callable[[Array], list[Places]]:
    def otava(logs: Array) -> list[Places]:
        ended = subprocess.run(
            [python, "-c", OTAVA],
            input=json.dumps(np.exp(logs).tolist()),
            capture_output=True,
            text=True,
            check=True,
        )
        said: list[Places] = json.loads(ended.stdout)
        return said

    return otava


# ---------------------------------------------------------------- what they say


@dataclass(frozen=True)
class Shares:
    """Of the series, in percent."""

    found: float
    """Every change is there, at its place."""
    false: float
    """There is a change where none is."""


def shares(said: Sequence[Places], truth: Sequence[int]) -> Shares:
    found = [
        all(any(abs(s - place) <= NEAR for s in places) for place in truth)
        for places in said
    ]
    false = [
        any(all(abs(s - place) > NEAR for place in truth) for s in places)
        for places in said
    ]
    return Shares(100 * float(np.mean(found)), 100 * float(np.mean(false)))


def false_cells(
    rng: np.random.Generator, series: int, ways: Sequence[Callable[..., list[Places]]]
) -> Iterator[list[str]]:
    rows = [
        *product(NOISES, (0.01, 0.03), (6, 10, 20, 40), (False,)),
        *product(("normal",), (0.01,), (20, 40), (True,)),
    ]
    for noise, scale, runs, has_outliers in rows:
        drawn = draw(rng, series, runs, scale, noise=noise, has_outliers=has_outliers)
        yield [
            noise + (", outliers" if has_outliers else ""),
            f"{100 * scale:g}",
            str(runs),
            *(f"{shares(way(drawn.logs), ()).false:.1f}" for way in ways),
        ]


def power_cells(
    rng: np.random.Generator, series: int, ways: Sequence[Callable[..., list[Places]]]
) -> Iterator[list[str]]:
    for scale, runs in product((0.01, 0.02, 0.03), (6, 10, 20, 40)):
        courses = {
            "in the middle": [runs // 2],
            "newest 3 runs": [runs - 3],
            "newest 5 runs": [runs - 5],
            "there and back": [runs // 3, 2 * runs // 3],
        }
        for course, places in courses.items():
            if runs == 6 and course != "in the middle":
                continue
            drawn = draw(rng, series, runs, scale, places=places)
            said = [shares(way(drawn.logs), places) for way in ways]
            yield [
                course,
                f"{100 * scale:g}",
                str(runs),
                *(f"{s.found:.0f} ({s.false:.1f})" for s in said),
            ]


def coverage_cells(rng: np.random.Generator, series: int) -> Iterator[list[str]]:
    """Whether the interval of a found change holds its true size."""
    for scale, runs in product((0.01, 0.02, 0.03), (10, 20, 40)):
        drawn = draw(rng, series, runs, scale, places=[runs // 2])
        found = [
            change.ratio
            for row in drawn.logs
            for change in find_changes(np.exp(row).tolist(), "higher")
            if abs(change.place - runs // 2) <= NEAR
        ]
        held = [
            r.interval is not None and r.interval[0] <= 1 + SHIFT <= r.interval[1]
            for r in found
        ]
        sizes = [100 * (r.value - 1) for r in found if r.value is not None]
        yield [
            f"{100 * scale:g}",
            str(runs),
            str(len(found)),
            f"{100 * float(np.mean(held)):.1f}" if held else "",
            f"{float(np.median(sizes)):.2f}" if sizes else "",
        ]


def table(title: str, headings: Sequence[str], rows: Iterator[list[str]]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--otava", type=Path, help="a Python that has apache-otava")
    arguments = parser.parse_args()
    rng, series = np.random.default_rng(arguments.seed), arguments.series
    ways: list[Callable[[Array], list[Places]]] = [ours, permuted, uncorrected]
    if arguments.otava:
        ways.append(otava(arguments.otava))
    names = [way.__name__ for way in ways]
    kind = ("noise", "scale [%]", "runs")
    print(
        f"{series:,} series a row; a false change in {100 * RATE:g} % at most by our"
        f" correction, floor {100 * NOISE_FLOOR:g} %; all shares in %."
    )
    table("No change: series with one", [*kind, *names], false_cells(rng, series, ways))
    course = (f"{100 * SHIFT:g} % shift", *kind[1:])
    title = "A change: series that find it (and that have a false one)"
    table(title, [*course, *names], power_cells(rng, series, ways))
    headings = (*kind[1:], "found", "interval holds the size", "median size [%]")
    table("Size of what was found", headings, coverage_cells(rng, series))


if __name__ == "__main__":
    main()
