"""Training curves: loss by step and top-1 by epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlbench.reports.cases import CaseTrials
from tlbench.reports.compare import ACCURACY
from tlbench.reports.drawing import Chart, NoChart, Palette, add_legend, draw, mark

LOSS = "loss"
TOP1 = "eval_top1_percent"
MAX_CURVES = 12
MAX_POINTS = 200
"""Points of one drawn curve; longer ones are averaged over neighbours."""

Curves = Mapping[tuple[int, str], Sequence[float]]
"""Series by trial id and name."""


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
            _curve(loss, palette, place, case, _curve_frame(case, curves, LOSS))
            if case.values(ACCURACY):
                _curve(top1, palette, place, case, _curve_frame(case, curves, TOP1))
        loss.set(title="Training loss", xlabel="optimiser step", ylabel="")
        top1.set(title="Top-1 on held-out images [%]", xlabel="epoch", ylabel="")
        add_legend(figure, loss)

    left_out = len(drawn) - MAX_CURVES
    return Chart(
        draw("training", "Training curves", 4.4, paint),
        "Each seed is a thin line, their mean a bold one."
        + (f" {left_out} more cases are in the table." if left_out > 0 else ""),
    )


def _curve_frame(case: CaseTrials, curves: Curves, name: str) -> pd.DataFrame:
    """Tidy points of one series of a case: trial, x, y."""
    frames = [
        thinned(curves[trial.id, name]).assign(trial=trial.id)
        for trial in case.finished
        if curves.get((trial.id, name))
    ]
    if not frames:
        return pd.DataFrame({"x": [], "y": [], "trial": []})
    return pd.concat(frames)


def thinned(values: Sequence[float]) -> pd.DataFrame:
    """At most `MAX_POINTS` points, each the mean of neighbours; counted from 1."""
    width = -(-len(values) // MAX_POINTS)
    steps = pd.DataFrame({"x": range(1, len(values) + 1), "y": values})
    return steps.groupby(np.arange(len(values)) // width).mean()


def _curve(
    axes: Axes, palette: Palette, place: int, case: CaseTrials, frame: pd.DataFrame
) -> None:
    import seaborn as sns  # loads slowly, and few reports have trained

    if frame.empty:
        return
    colour = palette.colour(case.model)
    for _, seed in frame.groupby("trial"):
        axes.plot(seed["x"], seed["y"], color=colour, linewidth=0.7, alpha=0.45)
    sns.lineplot(
        frame.reset_index(drop=True),
        x="x",
        y="y",
        errorbar=None,
        color=colour,
        label=case.label,
        legend=False,
        ax=axes,
    )
    mark(axes.lines[-1], "curve", place)
