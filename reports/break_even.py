"""From which batch and which size of the input on TokenLearner is faster.

One map for each pair of a model with TokenLearner and its baseline that were timed at
several batches, image sizes or numbers of frames.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tlbench.reports.cases import CaseTrials, settings
from tlbench.reports.cells import Cell, Row, Table, missing, ratio_cell, word
from tlbench.reports.compare import TIMED_MODES, Comparison
from tlbench.reports.drawing import (
    GRID,
    INK,
    MUTED,
    SERIES,
    Chart,
    NoChart,
    draw,
    folded,
    mark,
    table_has_more,
)
from tlbench.reports.findings import MODE_WORDS
from tlbench.reports.series import told_apart
from tlbench.reports.tables import predicted_cell, share_cell, verdict_of
from tlbench.reports.verdicts import TIMES
from tlbench.statistics import Verdict
from tlbench.suites.model_spec import ModelSpec, VideoSpec
from tlbench.suites.names import model_name
from tlbench.units import format_number

Axis = Literal["image size", "frames"]
Combination = tuple[int, int]
"""Batch, and image size or frames."""

MAX_MAPS = 12
FEWEST_COLUMNS = 4
"""A map has room for so many, so that a cell is never as wide as the page."""
NOT_OF_A_MAP = ("batch_size", "timing")
"""Settings that may differ within a map; how long was timed is not what is compared."""
FASTER, SLOWER = SERIES[0], SERIES[3]
WORDS: dict[Verdict, str] = {
    "better": "\N{BLACK UP-POINTING TRIANGLE} faster",
    "worse": "\N{BLACK DOWN-POINTING TRIANGLE} slower",
    "equivalent": "= no difference",
    "inconclusive": "? not settled",
}
NOT_MEASURED, FAILED = "not measured", "failed"
LINE_HEIGHTS = {1: (0.0,), 2: (0.17, -0.17)}
"""Of the lines of a cell above its middle, in cells."""
BREAK_EVEN_NOTE = (
    "Times the speed of the baseline, from paired trials, and the verdict of the"
    " interval in words; the tint only repeats the value. The heavy line runs between"
    " neighbours, both measured, of which one is faster and the other is not: solid"
    " where both are settled, dotted where one is not."
)


@dataclass(frozen=True)
class BreakEvenMap:
    """The speed-ups of one pair of models over batches and sizes of the input."""

    axis: Axis
    pairs: Mapping[Combination, Comparison]

    @property
    def example(self) -> Comparison:
        return next(iter(self.pairs.values()))

    @property
    def batches(self) -> list[int]:
        return sorted({batch for batch, _ in self.pairs})

    @property
    def sizes(self) -> list[int]:
        return sorted({size for _, size in self.pairs})

    @cached_property
    def speedups(self) -> dict[Combination, float]:
        """Of the combinations that were measured on both sides."""
        found = {where: c.speedup.value for where, c in self.pairs.items()}
        return {where: value for where, value in found.items() if value is not None}

    @property
    def title(self) -> str:
        """The pair without what the axes tell, and the mode."""
        other, base = (
            model_name(_without_size(side.case.model, self.axis))
            for side in (self.example.other, self.example.base)
        )
        return f"{other} against {base}, {MODE_WORDS[self.example.other.mode]}"

    @property
    def score(self) -> str:
        """How many combinations were won and lost."""
        verdicts = [self.pairs[where].speedup.verdict for where in self.speedups]
        return (
            f"faster at {verdicts.count('better')}, slower at {verdicts.count('worse')}"
            f" of {len(verdicts)} measured"
        )


def break_even_maps(compared: Sequence[Comparison]) -> list[BreakEvenMap]:
    """A map of each pair of models that was measured at two combinations or more."""
    families: dict[tuple[object, ...], list[Comparison]] = defaultdict(list)
    for comparison in compared:
        if _is_of_a_map(comparison):
            families[_family(comparison)].append(comparison)
    maps = [m for members in families.values() for m in _split(members)]
    return [found for found in maps if len(found.speedups) > 1]


def _is_of_a_map(comparison: Comparison) -> bool:
    other = comparison.other
    has_baseline = (
        comparison.has_own_baseline or comparison.has_baseline_of_another_depth
    )
    return (
        other.mode in TIMED_MODES
        and other.case.model.token_learner is not None
        and other.case.batch_size != "max"
        and has_baseline
    )


def _family(comparison: Comparison) -> tuple[object, ...]:
    """All that is the same on one map: everything but batch and size of the input."""
    other = comparison.other
    kept = [
        value
        for name, value in settings(other.case).items()
        if name.partition(".")[0] not in NOT_OF_A_MAP
    ]
    models = (_sizeless(side) for side in (other, comparison.base))
    return (other.run_id, other.machine_id, *models, *kept)


def _sizeless(case: CaseTrials) -> str:
    """The model without its image size and frames."""
    model = dict(case.case.canonical()["model"])
    video = model.pop("video", None)
    if video is not None:
        model["video"] = {k: v for k, v in video.items() if k != "num_frames"}
    model.pop("image_size", None)
    return json.dumps(model, sort_keys=True)


def _split(members: Sequence[Comparison]) -> Iterator[BreakEvenMap]:
    """Over frames where they vary, one map for each image size; else over those."""
    axis: Axis = "frames" if len(set(map(_frames, members))) > 1 else "image size"
    maps: dict[object, dict[Combination, Comparison]] = defaultdict(dict)
    for comparison in members:
        batch = comparison.other.case.batch_size
        assert batch != "max"  # of no map
        pixels, frames = comparison.other.case.model.image_size, _frames(comparison)
        if axis == "frames":
            maps[pixels][batch, frames] = comparison
        else:
            maps[frames][batch, pixels] = comparison
    for pairs in maps.values():
        yield BreakEvenMap(axis, pairs)


def _frames(comparison: Comparison) -> int:
    video = comparison.other.case.model.video
    return 1 if video is None else video.num_frames


def _without_size(spec: ModelSpec, axis: Axis) -> ModelSpec:
    """With the size at its default, which the model's name leaves out."""
    if axis == "image size":
        pixels = ModelSpec.model_fields["image_size"].default
        return spec.model_copy(update={"image_size": pixels})
    assert spec.video is not None  # images have no frames
    frames = VideoSpec.model_fields["num_frames"].default
    video = spec.video.model_copy(update={"num_frames": frames})
    return spec.model_copy(update={"video": video})


# ---------------------------------------------------------------- chart


def break_even_chart(compared: Sequence[Comparison]) -> Chart | NoChart:
    """The maps, one under the other."""
    maps = break_even_maps(compared)
    if not maps:
        return NoChart(
            "no model with TokenLearner and its baseline were both timed at two batches"
            " or sizes"
        )
    drawn = maps[:MAX_MAPS]
    heights = [0.45 * len(m.batches) + 1.1 for m in drawn]
    apart = told_apart(
        [m.example.other for m in maps],
        [n for n in settings(drawn[0].example.other.case) if _is_told(n)],
    )

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(drawn), squeeze=False, height_ratios=heights)[:, 0]
        for axes, found, words in zip(grid, drawn, apart, strict=False):
            _paint_map(axes, found, ", ".join([found.title, *words]))

    left_out = len(maps) - len(drawn)
    return Chart(
        draw("break-even", "Where TokenLearner is faster", sum(heights), paint),
        BREAK_EVEN_NOTE + table_has_more(left_out, "map"),
    )


def _is_told(name: str) -> bool:
    """Whether axes or title tell a setting."""
    return name == "mode" or name.partition(".")[0] in NOT_OF_A_MAP


def _paint_map(axes: Axes, found: BreakEvenMap, title: str) -> None:
    batches, sizes = found.batches, found.sizes
    for y, batch in enumerate(batches):
        for x, size in enumerate(sizes):
            _cell(axes, x, y, found.pairs.get((batch, size)), y * len(sizes) + x)
    for number, (edge, is_settled) in enumerate(break_even_edges(found)):
        (line,) = axes.plot(
            *edge, color=INK, linewidth=3, linestyle="-" if is_settled else ":"
        )
        mark(line, "break-even", number)
    axes.set_title(folded(f"{title}: {found.score}", 120))
    unit = "frames" if found.axis == "frames" else "image size [pixels]"
    axes.set_xlabel(unit, loc="left")
    axes.set_ylabel("batch")
    axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
    axes.set_yticks(range(len(batches)), [f"{batch:,}" for batch in batches])
    columns = max(len(sizes), FEWEST_COLUMNS)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, len(batches) - 0.5))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _cell(axes: Axes, x: int, y: int, pair: Comparison | None, number: int) -> None:
    value = None if pair is None else pair.speedup.value
    fill = "none" if value is None else _tint(value)
    patch = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=fill, edgecolor=GRID)
    axes.add_patch(patch)
    mark(patch, "cell", number)
    lines, colour = _cell_lines(pair), MUTED if value is None else INK
    for text, height in zip(lines, LINE_HEIGHTS[len(lines)], strict=True):
        axes.text(x, y + height, text, color=colour, ha="center", va="center")


def _cell_lines(pair: Comparison | None) -> list[str]:
    if pair is None:
        return [NOT_MEASURED]
    if pair.speedup.value is None:
        return [FAILED]
    times = f"{format_number(pair.speedup.value, 3)}{TIMES}"
    return [times, WORDS[pair.speedup.verdict]]


def _tint(speedup: float) -> tuple[str, float]:
    """Deeper with the distance from 1, up to a factor of 4; text stays readable."""
    depth = min(1.0, abs(math.log2(speedup)) / 2)
    return FASTER if speedup >= 1 else SLOWER, 0.08 + 0.37 * depth


Edge = tuple[tuple[float, float], tuple[float, float]]
"""The x and the y of the two ends of a line."""


def break_even_edges(found: BreakEvenMap) -> Iterator[tuple[Edge, bool]]:
    """Borders between cells on the two sides of 1, and whether both are settled."""
    for (x, size), (y, batch) in product(
        enumerate(found.sizes), enumerate(found.batches)
    ):
        right = (batch, following) if (following := _next(found.sizes, x)) else None
        above = (following, size) if (following := _next(found.batches, y)) else None
        if right and _parts(found, (batch, size), right):
            edge = (x + 0.5, x + 0.5), (y - 0.5, y + 0.5)
            yield edge, _is_settled(found, (batch, size), right)
        if above and _parts(found, (batch, size), above):
            edge = (x - 0.5, x + 0.5), (y + 0.5, y + 0.5)
            yield edge, _is_settled(found, (batch, size), above)


def _next(values: Sequence[int], place: int) -> int | None:
    return values[place + 1] if place + 1 < len(values) else None


def _parts(found: BreakEvenMap, here: Combination, there: Combination) -> bool:
    """Whether break-even lies between two cells, both of them measured."""
    values = [found.speedups.get(where) for where in (here, there)]
    sides = {value > 1 for value in values if value is not None}
    return None not in values and len(sides) == 2


def _is_settled(found: BreakEvenMap, here: Combination, there: Combination) -> bool:
    verdicts = {found.pairs[where].speedup.verdict for where in (here, there)}
    return verdicts == {"better", "worse"}


# ---------------------------------------------------------------- table


def break_even_table(compared: Sequence[Comparison]) -> Table:
    """Every cell of every map: what was predicted, what came of it, the verdict."""
    return Table(
        headings=(
            "case",
            "baseline",
            "mode",
            "batch",
            "image size",
            "frames",
            "predicted",
            "realised",
            "verdict",
            "share of predicted [%]",
        ),
        rows=tuple(
            Row(_cells(found.pairs[where]))
            for found in break_even_maps(compared)
            for where in sorted(found.pairs)
        ),
    )


def _cells(pair: Comparison) -> tuple[Cell, ...]:
    case = pair.other.case
    return (
        word(pair.other.label),
        word(pair.base.model),
        word(pair.other.mode),
        Cell(f"{case.batch_size:,}", key=case.batch_size),
        Cell(f"{case.model.image_size:,}", key=case.model.image_size),
        _frames_cell(pair),
        predicted_cell(pair),
        ratio_cell(pair.speedup),
        verdict_of(pair),
        share_cell(pair),
    )


def _frames_cell(pair: Comparison) -> Cell:
    if pair.other.case.model.video is None:
        return missing("an image has no frames")
    return Cell(f"{_frames(pair):,}", key=_frames(pair))
