"""Training curves: loss by step and top-1 by epoch."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tlbench.reports.cases import CaseTrials
from tlbench.reports.compare import ACCURACY
from tlbench.reports.drawing import (
    Chart,
    NoChart,
    Palette,
    add_legend,
    draw,
    mark,
    table_has_more,
)
from tlbench.reports.evidence import LOSS, TOP1, Curves

MAX_CURVES = 12
MAX_POINTS = 200
"""Points of one drawn curve; longer ones are averaged over neighbours."""


def training_chart(
    cases: Sequence[CaseTrials], curves: Curves, palette: Palette
) -> Chart | NoChart:
    """Loss by step and top-1 by epoch: each seed thin, their mean bold."""
    drawn = [
        case
        for case in cases
        if any((trial.id, LOSS) in curves for trial in case.finished)
    ]
    if not drawn:
        return NoChart("no case was trained to accuracy")

    def paint(figure: Figure) -> None:
        loss, top1 = figure.subplots(1, 2)
        for place, case in enumerate(drawn[:MAX_CURVES]):
            _curve(loss, palette, place, case, _seeds(case, curves, LOSS))
            if case.values(ACCURACY):
                _curve(top1, palette, place, case, _seeds(case, curves, TOP1))
        loss.set(title="Training loss", xlabel="optimiser step", ylabel="")
        top1.set(title="Top-1 on held-out images [%]", xlabel="epoch", ylabel="")
        add_legend(figure, loss)

    left_out = len(drawn) - MAX_CURVES
    return Chart(
        draw("training", "Training curves", 4.4, paint),
        "Each seed is a thin line, their mean a bold one."
        + table_has_more(left_out, "case"),
    )


def _seeds(case: CaseTrials, curves: Curves, name: str) -> list[NDArray[np.float64]]:
    """The points of one series of each trial: [2, points], x and y."""
    found = (curves.get((trial.id, name)) for trial in case.finished)
    return [thinned(values) for values in found if values]


def thinned(values: Sequence[float]) -> NDArray[np.float64]:
    """At most `MAX_POINTS` points, each the mean of neighbours; counted from 1."""
    width = -(-len(values) // MAX_POINTS)
    starts = np.arange(0, len(values), width)
    steps = np.stack([np.arange(1.0, len(values) + 1), np.asarray(values)])
    sums = np.add.reduceat(steps, starts, axis=1)
    means: NDArray[np.float64] = sums / np.diff(starts, append=len(values))
    return means


def _curve(
    axes: Axes,
    palette: Palette,
    place: int,
    case: CaseTrials,
    seeds: Sequence[NDArray[np.float64]],
) -> None:
    import seaborn as sns  # loads slowly, and few reports have trained

    if not seeds:
        return
    colour = palette.colour(case.model)
    for x, y in seeds:
        axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.45)
    x, y = np.concatenate(seeds, axis=1)
    sns.lineplot(
        x=x,
        y=y,
        errorbar=None,
        color=colour,
        label=case.label,
        legend=False,
        ax=axes,
    )
    mark(axes.lines[-1], "curve", place)
