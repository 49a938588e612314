"""Training curves: loss by step and accuracy by epoch."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tlbench.reports.cases import CaseTrials
from tlbench.reports.drawing import (
    Chart,
    NoChart,
    Palette,
    add_legend,
    draw,
    mark,
    table_has_more,
)
from tlbench.reports.evidence import EVALUATED_AT, LOSS, SCORES, Curves
from tlbench.reports.quantities import QUANTITIES
from tlbench.reports.series import series_names

MAX_CURVES = 12
MAX_POINTS = 200
"""Points of one drawn curve; longer ones are averaged over neighbours."""


def training_chart(
    cases: Sequence[CaseTrials], curves: Curves, palette: Palette
) -> Chart | NoChart:
    """Loss by step and accuracy by epoch: each seed thin, their mean bold.

    A row of panels for each data set.
    """
    of_data: dict[str, list[CaseTrials]] = defaultdict(list)
    for case in cases:
        if any((trial.id, LOSS) in curves for trial in case.finished):
            of_data[case.case.data].append(case)
    if not of_data:
        return NoChart("no case was trained to accuracy")
    rows = {data: trained[:MAX_CURVES] for data, trained in of_data.items()}

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(rows), 2, squeeze=False)
        for (data, shown), (loss, score) in zip(rows.items(), grid, strict=True):
            measure = shown[0].case.accuracy_metric
            assert measure is not None  # trained models have one
            heading = f"{data}, held-out {QUANTITIES[measure].heading}"
            loss.set(title=f"{data}, training loss", xlabel="optimiser step", ylabel="")
            score.set(title=heading, xlabel="epoch", ylabel="")
            names = series_names(shown, ("mode", "data"))
            for place, (case, name) in enumerate(zip(shown, names, strict=True)):
                colour = palette.colour(case.model)
                _curve(loss, colour, place, name, _losses(case, curves))
                _curve(score, colour, place, name, _scores(case, curves, measure))
        add_legend(figure, *grid[:, 0])

    left_out = sum(len(of_data[data]) - len(shown) for data, shown in rows.items())
    return Chart(
        draw("training", "Training curves", 4.4 * len(rows), paint),
        "Each seed is a thin line, their mean a bold one."
        + table_has_more(left_out, "case"),
    )


def _losses(case: CaseTrials, curves: Curves) -> list[NDArray[np.float64]]:
    """Of each trial: [2, points], step and loss."""
    found = (curves.get((trial.id, LOSS)) for trial in case.finished)
    return [thinned(values) for values in found if values]


def _scores(
    case: CaseTrials, curves: Curves, measure: str
) -> list[NDArray[np.float64]]:
    """Of each trial: [2, evaluations], the epochs trained until then and the score."""
    found = []
    for trial in case.finished:
        scores = curves.get((trial.id, SCORES[measure]), ())
        # Trials of earlier versions were evaluated after every epoch, and do not say.
        epochs = curves.get((trial.id, EVALUATED_AT)) or range(1, len(scores) + 1)
        if scores:
            found.append(np.array([epochs, scores], dtype=np.float64))
    return found


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
    colour: str,
    place: int,
    name: str,
    seeds: Sequence[NDArray[np.float64]],
) -> None:
    import seaborn as sns  # loads slowly, and few reports have trained

    if not seeds:
        return
    for x, y in seeds:
        axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.45)
    x, y = np.concatenate(seeds, axis=1)
    sns.lineplot(
        x=x,
        y=y,
        errorbar=None,
        color=colour,
        label=name,
        legend=False,
        ax=axes,
    )
    mark(axes.lines[-1], "curve", place)
