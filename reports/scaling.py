"""How speed grows with the number of devices: strong and weak scaling.

Strong: the ranks share a batch that stays the same. Weak: every rank has a batch of its
own, and that stays the same.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from tlbench.reports.cases import CaseTrials
from tlbench.reports.cells import (
    Cell,
    Row,
    Table,
    metric_cell,
    missing,
    percent_cell,
    ratio_cell,
    word,
)
from tlbench.reports.compare import THROUGHPUT, TIMED_MODES, ratio_of
from tlbench.reports.drawing import (
    MUTED,
    Chart,
    Extent,
    NoChart,
    Palette,
    add_legend,
    draw,
    extent_of,
    mark,
    scale_axis,
)
from tlbench.reports.findings import MODE_WORDS, describe_evidence
from tlbench.reports.quantities import QUANTITIES
from tlbench.reports.series import series_names
from tlbench.statistics import Interval, Ratio

Kind = Literal["strong", "weak"]
SPREAD_OVER = frozenset({"batch_size", "parallelism.world_size", "parallelism.nodes"})
"""Settings that may differ between the two sides."""
RANK_METRICS = ("communication_fraction", "rank_step_time_spread_fraction")


@dataclass(frozen=True)
class Scaling:
    """A case on some ranks, and the same on the fewest that it ran on."""

    kind: Kind
    base: CaseTrials
    other: CaseTrials

    @property
    def rank_ratio(self) -> float:
        """How many times as many ranks; no speed-up should be larger."""
        return _world_size(self.other) / _world_size(self.base)

    @cached_property
    def speedup(self) -> Ratio:
        """Throughput of the whole job over that of the base."""
        return ratio_of(self.base, self.other)

    @property
    def efficiency_fraction(self) -> float | None:
        """The speed-up over the ratio of the ranks: 1 is perfect."""
        speedup = self.speedup.value
        return None if speedup is None else speedup / self.rank_ratio

    @property
    def efficiency_interval(self) -> Interval | None:
        """Of `efficiency_fraction`; the number of ranks has no error."""
        if self.speedup.interval is None:
            return None
        low, high = self.speedup.interval
        return low / self.rank_ratio, high / self.rank_ratio


def scalings(cases: Sequence[CaseTrials]) -> Iterator[Scaling]:
    """Every case on more ranks than the base of its kind, by kind and in order."""
    timed = [c for c in cases if c.mode in TIMED_MODES and c.case.batch_size != "max"]
    for kind in get_args(Kind):
        alike: dict[tuple[object, ...], list[CaseTrials]] = defaultdict(list)
        for case in timed:
            alike[_all_but_ranks(case, kind)].append(case)
        for group in alike.values():
            base = min(group, key=lambda c: (not c.values(THROUGHPUT), _world_size(c)))
            for case in sorted(group, key=_world_size):
                if _world_size(case) > _world_size(base):
                    yield Scaling(kind, base, case)


def _world_size(case: CaseTrials) -> int:
    return case.case.parallelism.world_size


def _all_but_ranks(case: CaseTrials, kind: Kind) -> tuple[object, ...]:
    batch = case.case.global_batch_size
    share = batch if kind == "strong" else batch / _world_size(case)
    return (share, *case.all_but(*SPREAD_OVER))


def scaling_table(cases: Sequence[CaseTrials]) -> Table:
    """One row for each case that ran on more ranks than its base."""
    return Table(
        headings=(
            "case",
            "mode",
            "precision",
            "ZeRO",
            "scaling",
            "ranks",
            "speed-up",
            "efficiency [%]",
            "communication [% of step]",
            "spread of ranks [%]",
        ),
        rows=tuple(Row(_cells(scaling)) for scaling in scalings(cases)),
    )


def _cells(scaling: Scaling) -> tuple[Cell, ...]:
    case = scaling.other
    settings = case.case
    base_size, world_size = _world_size(scaling.base), _world_size(case)
    return (
        word(case.label),
        word(case.mode),
        word(settings.precision),
        Cell(str(settings.parallelism.zero_stage), key=settings.parallelism.zero_stage),
        word(scaling.kind),
        Cell(f"{world_size}", f"over {base_size}", key=world_size),
        ratio_cell(scaling.speedup),
        _efficiency_cell(scaling),
        *(metric_cell(name, case.summary(name)) for name in RANK_METRICS),
    )


def _efficiency_cell(scaling: Scaling) -> Cell:
    fraction = scaling.efficiency_fraction
    if fraction is None:
        return missing(scaling.speedup.reason or "")
    hint = describe_evidence(scaling.speedup)
    return percent_cell(fraction, scaling.efficiency_interval, hint)


# ---------------------------------------------------------------- chart

MAX_LINES = 8
"""Lines of one panel; the table has the rest."""
DASHES = ("-", "--", ":", "-.")
"""Series of one model, such as its ZeRO stages, are told apart by them."""
IDEAL_PERCENT = 100.0


def scaling_chart(cases: Sequence[CaseTrials], palette: Palette) -> Chart | NoChart:
    """Throughput and efficiency over the devices, beside what would be ideal."""
    lines_of = _panels(cases)
    if not lines_of:
        return NoChart("no case was timed on two numbers of devices")
    panels = {heading: lines[:MAX_LINES] for heading, lines in lines_of.items()}
    left_out = sum(len(lines_of[heading]) - len(panels[heading]) for heading in panels)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(panels), 2, squeeze=False)
        for (left, right), (heading, lines) in zip(grid, panels.items(), strict=True):
            _throughputs(left, palette, lines)
            _efficiencies(right, palette, lines)
            _devices((left, right), lines)
            left.set(title=heading, ylabel=QUANTITIES[THROUGHPUT].heading)
            right.set(title="efficiency [%]")
        for axes in grid[-1]:
            axes.set_xlabel("devices")
        most = max(grid[:, 0], key=lambda a: len(a.get_legend_handles_labels()[1]))
        add_legend(figure, most)

    return Chart(
        draw("scaling", "More devices", 3.0 * len(panels) + 0.6, paint),
        "Medians over the trials with 95 % intervals. The thin lines are ideal: as many"
        " times the speed as there are devices."
        + (f" {left_out} more lines are in the table." if left_out else ""),
    )


_Line = list[Scaling]
"""All that is held against one base, on more and more devices."""


def _panels(cases: Sequence[CaseTrials]) -> dict[str, list[_Line]]:
    of_base: dict[tuple[str, int], _Line] = defaultdict(list)
    for scaling in scalings(cases):
        if scaling.speedup.value is not None:
            of_base[scaling.kind, id(scaling.base)].append(scaling)
    panels: dict[str, list[_Line]] = defaultdict(list)
    for line in of_base.values():
        panels[f"{line[0].kind} scaling, {MODE_WORDS[line[0].base.mode]}"].append(line)
    return panels


def _looks(palette: Palette, lines: Sequence[_Line]) -> Iterator[Mapping[str, Any]]:
    """Colour and marker of the model; dashes tell lines of one model apart."""
    seen: dict[str, int] = defaultdict(int)
    for line in lines:
        model = line[0].base.model
        yield {
            "color": palette.colour(model),
            "marker": palette.marker(model),
            "linestyle": DASHES[seen[model] % len(DASHES)],
        }
        seen[model] += 1


def _throughputs(axes: Axes, palette: Palette, lines: Sequence[_Line]) -> None:
    ranks = ("parallelism.world_size", "parallelism.nodes")
    names = series_names([line[0].base for line in lines], ranks)
    looks, values = _looks(palette, lines), []
    for place, (line, look, name) in enumerate(zip(lines, looks, names, strict=True)):
        cases = [line[0].base, *(scaling.other for scaling in line)]
        sizes = [_world_size(case) for case in cases]
        extents = [extent_of(THROUGHPUT, case.summary(THROUGHPUT)) for case in cases]
        _plot(axes, "throughput", place, sizes, extents, look)
        axes.plot([], [], markersize=5, label=name, **look)
        ideal = [extents[0].value * size / sizes[0] for size in sizes]
        (thin,) = axes.plot(sizes, ideal, color=look["color"], lw=0.7, alpha=0.6)
        mark(thin, "ideal", place)
        values += [extent.value for extent in extents] + ideal
    scale_axis(axes, "y", values)


def _efficiencies(axes: Axes, palette: Palette, lines: Sequence[_Line]) -> None:
    for place, (line, look) in enumerate(
        zip(lines, _looks(palette, lines), strict=True)
    ):
        sizes = [_world_size(line[0].base), *(_world_size(s.other) for s in line)]
        perfect = Extent(IDEAL_PERCENT, IDEAL_PERCENT, IDEAL_PERCENT)
        extents = [perfect, *map(_efficiency_extent, line)]
        _plot(axes, "efficiency", place, sizes, extents, look)
    axes.axhline(IDEAL_PERCENT, color=MUTED, linewidth=0.7)
    axes.set_ylim(bottom=0)


def _efficiency_extent(scaling: Scaling) -> Extent:
    fraction = scaling.efficiency_fraction
    assert fraction is not None  # lines hold what has a speed-up
    low, high = scaling.efficiency_interval or (fraction, fraction)
    return Extent(100 * fraction, 100 * low, 100 * high)


def _plot(
    axes: Axes,
    kind: str,
    place: int,
    sizes: Sequence[int],
    extents: Sequence[Extent],
    look: Mapping[str, Any],
) -> None:
    lows, highs = zip(*((e.error[0][0], e.error[1][0]) for e in extents), strict=True)
    line, _, bars = axes.errorbar(
        sizes,
        [extent.value for extent in extents],
        yerr=[lows, highs],
        capsize=3,
        markersize=5,
        **look,
    )
    mark(line, kind, place)
    mark(bars[0], f"{kind}-interval", place)


def _devices(row: tuple[Axes, Axes], lines: Sequence[_Line]) -> None:
    """Ticks at the numbers of devices; logarithmic where the throughput is.

    So the ideal is straight in both scales.
    """
    sizes = {_world_size(side) for x in lines for s in x for side in (s.base, s.other)}
    is_wide = row[0].get_yscale() == "log"
    for axes in row:
        if is_wide:
            axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(sorted(sizes)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
