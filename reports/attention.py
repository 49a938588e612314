"""Where TokenLearner looks: a few held-out samples with the maps laid over them.

The pictures of one case are one image, so that a page has few and small ones.

M samples, T time steps, S maps, h and w the sides of their grid, P pixels along a side
of a kept picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tlbench.db.connection import damaged_value
from tlbench.db.query import TrialRecord
from tlbench.measure.map_file import SavedMaps, read_maps
from tlbench.reports.cases import CaseTrials
from tlbench.reports.cells import Row, Table, quantity_cell, word
from tlbench.reports.drawing import SERIES, Chart, NoChart, draw, mark
from tlbench.reports.quantities import MAPS
from tlbench.units import format_number

MAX_IMAGES, MAX_IMAGE_MAPS = 3, 8
"""Samples and maps that are drawn of a case with images."""
MAX_CLIPS, MAX_CLIP_MAPS, MAX_STEPS = 2, 3, 8
"""Samples, maps of each and time steps that are drawn of a case with clips."""
TILE = 72
"""Pixels along a side of one drawn picture."""
GAP = 4
PITCH = TILE + GAP
HEAT = 0.6
"""Share of the colour that says how much a map weighs; the rest is the picture."""
NAME_LENGTH = 28
TINY = 5e-8
"""Less than any weight but 0 that the file can hold: float16 ends at 2 ** -24."""

MAPS_NOTE = (
    "Entropy: 1 where a map weighs all positions alike, 0 where it has a single one."
    " Variation: the share of a map's weight that lies elsewhere for another input."
    " Distances, in parts of the side, are from a map's centre of mass to the object,"
    " where that is known: of the nearest map, of the mean of all maps, and of a point"
    " that stays in the middle. Gain: 1 where the centre of the nearest map goes as far"
    " as the object, 0 where it stays. All are over at most 48 held-out samples, and of"
    " the first TokenLearner of the model."
)

Pixels = NDArray[np.uint8]


# ---------------------------------------------------------------- table


def attention_table(cases: Sequence[CaseTrials]) -> Table:
    """One row for each case whose maps were looked at."""
    looked = [case for case in cases if _has_maps(case)]
    return Table(
        headings=("case", "mode", *(quantity.heading for quantity in MAPS.values())),
        rows=tuple(
            Row(
                (
                    word(case.label),
                    word(case.mode),
                    *(quantity_cell(q, case.summary(name)) for name, q in MAPS.items()),
                )
            )
            for case in looked
        ),
    )


def _has_maps(case: CaseTrials) -> bool:
    return any("map_entropy" in trial.metrics for trial in case.finished)


def _read(content: bytes) -> SavedMaps:
    try:
        return read_maps(content)
    except ValueError as error:
        raise damaged_value(content) from error


# ---------------------------------------------------------------- chart


def attention_chart(
    cases: Sequence[CaseTrials], maps: Mapping[int, bytes]
) -> Chart | NoChart:
    """A grid for each trial whose maps were read, by its id."""
    grids = [
        grid_of(case, trial, _read(maps[trial.id]))
        for case in cases
        for trial in case.finished
        if trial.id in maps
    ]
    if not grids:
        return NoChart("no trial has kept its maps")

    def paint(figure: Figure) -> None:
        heights = [grid.height_inches for grid in grids]
        panels = figure.subplots(len(grids), squeeze=False, height_ratios=heights)
        for axes, grid in zip(panels[:, 0], grids, strict=True):
            _paint(axes, grid)

    models = ", ".join(dict.fromkeys(grid.case.model for grid in grids))
    title = f"Held-out samples, and the maps of TokenLearner over them: {models}"
    height = sum(grid.height_inches for grid in grids)
    return Chart(draw("attention", title, height, paint), _caption(grids))


@dataclass(frozen=True)
class Grid:
    """The pictures of one trial, in rows and columns."""

    case: CaseTrials
    trial: TrialRecord
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    tiles: NDArray[np.uint8]
    """[rows, columns, TILE, TILE, 3]."""
    shown: str
    """Which of all maps they are."""
    places: tuple[tuple[float, float], ...] = ()
    """Row and column of the object in each tile, in tiles; where that is known."""

    @property
    def height_inches(self) -> float:
        return 0.85 + len(self.rows) * min(0.95, 8.0 / len(self.columns))

    @cached_property
    def image(self) -> Pixels:
        """[height, width, 4], with nothing between the tiles."""
        rows, columns = self.tiles.shape[:2]
        image = np.zeros((rows * PITCH, columns * PITCH, 4), np.uint8)
        for row in range(rows):
            for column in range(columns):
                top, left = row * PITCH, column * PITCH
                part = image[top : top + TILE, left : left + TILE]
                part[..., :3], part[..., 3] = self.tiles[row, column], 255
        return image


def grid_of(case: CaseTrials, trial: TrialRecord, saved: SavedMaps) -> Grid:
    """Images by rows of samples; clips by rows of their frames, and of each map."""
    if saved.maps.shape[1] == 1 and case.case.model.video is None:
        return _grid_of_images(case, trial, saved)
    return _grid_of_clips(case, trial, saved)


def _grid_of_images(case: CaseTrials, trial: TrialRecord, saved: SavedMaps) -> Grid:
    some = saved.first(MAX_IMAGES)
    chosen = most_concentrated(saved.maps, MAX_IMAGE_MAPS)
    tiles = [
        [
            tile(picture[0]),
            *(overlay(picture[0], maps[0, m], saved.covered) for m in chosen),
        ]
        for picture, maps in zip(some.pictures, some.maps, strict=True)
    ]
    return Grid(
        case=case,
        trial=trial,
        rows=tuple(_sample_name(some, place) for place in range(len(some.names))),
        columns=("input", *(f"map {m + 1}" for m in chosen)),
        tiles=np.array(tiles),
        shown=_shown(chosen, saved),
    )


def _grid_of_clips(case: CaseTrials, trial: TrialRecord, saved: SavedMaps) -> Grid:
    some = saved.first(MAX_CLIPS)
    chosen = most_concentrated(saved.maps, MAX_CLIP_MAPS)
    steps = _evenly(saved.maps.shape[1], MAX_STEPS)
    names, tiles, places = [], [], []
    for sample, (pictures, maps) in enumerate(
        zip(some.pictures, some.maps, strict=True)
    ):
        names += [_sample_name(some, sample), *(f"map {m + 1}" for m in chosen)]
        tiles.append([tile(pictures[step]) for step in steps])
        tiles += [
            [overlay(pictures[step], maps[step, m], saved.covered) for step in steps]
            for m in chosen
        ]
        if some.positions is not None:
            first = sample * (1 + len(chosen))
            rows = range(first, first + 1 + len(chosen))
            path = some.positions[sample, steps] * TILE / PITCH
            places += [
                (row + float(y), column + float(x))
                for row in rows
                for column, (y, x) in enumerate(path)
            ]
    return Grid(
        case=case,
        trial=trial,
        rows=tuple(names),
        columns=tuple(f"step {step + 1}" for step in steps),
        tiles=np.array(tiles),
        shown=_shown(chosen, saved),
        places=tuple(places),
    )


def most_concentrated(maps: NDArray[np.float16], count: int) -> list[int]:
    """Which of the S maps have the least entropy over all samples, in their order."""
    weights = maps.astype(np.float64).reshape(*maps.shape[:3], -1)
    shares = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-12)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropies = -(shares * logarithms).sum(-1).mean((0, 1))
    return sorted(np.argsort(entropies, kind="stable")[:count].tolist())


def _evenly(count: int, most: int) -> list[int]:
    """So many of the places, or all, the first and the last among them."""
    chosen: list[int] = (
        np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
    )
    return chosen


def _sample_name(saved: SavedMaps, place: int) -> str:
    """The end of the name, for paths begin alike; and whether the answer is right."""
    name, label = _printable(saved.names[place]), saved.labels[place]
    if len(name) > NAME_LENGTH:
        name = f"\N{HORIZONTAL ELLIPSIS}{name[1 - NAME_LENGTH :]}"
    if len(label) > NAME_LENGTH:
        label = f"{label[: NAME_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"
    return f"{name}\nclass {label}, answer {saved.answers[place]}"


def _printable(name: str) -> str:
    """A name of a file may hold any bytes, of which some cannot stand in a report."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def _shown(chosen: Sequence[int], saved: SavedMaps) -> str:
    count = saved.maps.shape[2]
    if len(chosen) == count:
        return f"all {count} maps"
    return f"the {len(chosen)} most concentrated of {count} maps"


# ---------------------------------------------------------------- pixels


def tile(picture: Pixels) -> Pixels:
    """[P, P, 3] -> [TILE, TILE, 3]."""
    at = _cells(len(picture))
    return picture[at][:, at]


def overlay(picture: Pixels, weights: NDArray[np.float16], covered: float) -> Pixels:
    """The picture in grey, [TILE, TILE, 3], coloured by a map [h, w] over its largest.

    So a map that weighs all positions alike is bright everywhere, and does not look as
    if it chose.
    """
    largest = max(float(weights.max()), TINY)
    relative = weights.astype(np.float64) / largest
    height, width = weights.shape
    relative = relative[_cells(height, covered)][:, _cells(width, covered)]
    colours = mpl.colormaps["viridis"](relative)[..., :3]
    colours[_beyond(covered)] = colours[:, _beyond(covered)] = 0
    grey = tile(picture).mean(-1, keepdims=True) / 255
    mixed: NDArray[np.float64] = HEAT * colours + (1 - HEAT) * grey
    return (255 * mixed).round().astype(np.uint8)


def _cells(count: int, covered: float = 1.0) -> NDArray[np.intp]:
    """Under which of so many cells each pixel of a tile lies."""
    places = (np.arange(TILE) + 0.5) / TILE / covered
    return np.minimum((places * count).astype(np.intp), count - 1)


def _beyond(covered: float) -> NDArray[np.bool_]:
    """Which pixels of a tile no patch covers."""
    beyond: NDArray[np.bool_] = (np.arange(TILE) + 0.5) / TILE > covered
    return beyond


def _paint(axes: Axes, grid: Grid) -> None:
    rows, columns = len(grid.rows), len(grid.columns)
    # As they are: matplotlib would scale them to the dots of the file.
    image = axes.imshow(
        grid.image, interpolation="none", extent=(0, columns, rows, 0), aspect="equal"
    )
    mark(image, "maps", 0)
    axes.set_title(f"{grid.case.label}: trial {grid.trial.id}, seed {grid.trial.seed}")
    centre = TILE / PITCH / 2
    axes.set_xticks([column + centre for column in range(columns)], grid.columns)
    axes.set_yticks([row + centre for row in range(rows)], grid.rows)
    axes.set_anchor("W")
    axes.xaxis.tick_top()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if grid.places:
        ys, xs = zip(*grid.places, strict=True)
        (circles,) = axes.plot(
            xs, ys, "o", color=SERIES[3], fillstyle="none", markeredgewidth=1.5
        )
        mark(circles, "object", 0)


# ---------------------------------------------------------------- words


def _caption(grids: Sequence[Grid]) -> str:
    shown = "; ".join(
        f"{grid.shown} of {grid.case.label} (trial {grid.trial.id})" for grid in grids
    )
    circles = " Circles: where the object is known to be." if _any_places(grids) else ""
    seen = " ".join(_seen(grid) for grid in grids)
    return (
        "Yellow where a map weighs the most, dark violet where it weighs nothing; each"
        f" map by its own largest weight.{circles} Shown: {shown}. {seen}"
    ).rstrip()


def _any_places(grids: Sequence[Grid]) -> bool:
    return any(grid.places for grid in grids)


def _seen(grid: Grid) -> str:
    """What the numbers of the trial say of its pictures."""
    told = (
        ("map_entropy", "entropy {}"),
        ("map_variation", "{} of a map's weight lies elsewhere for another input"),
        ("map_gain_best", "the nearest map goes {} of the object's way"),
    )
    values = [(grid.trial.metrics.get(name), words) for name, words in told]
    parts = [words.format(format_number(v, 2)) for v, words in values if v is not None]
    return f"Trial {grid.trial.id}: {', '.join(parts)}." if parts else ""
