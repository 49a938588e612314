"""Training curves, as drawn."""

import pytest

from support.report_run import RunBuilder, model, trained
from support.svg_values import Picture
from tlbench.reports.cases import gather
from tlbench.reports.drawing import Palette
from tlbench.reports.training import MAX_CURVES, MAX_POINTS, thinned, training_chart
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case


def fit(place: int | None) -> Case:
    return Case(model=model(place), mode="fit", data="digits", batch_size=32)


def picture_of(run: RunBuilder) -> Picture:
    cases = gather([run.record], run.trials)
    return Picture(training_chart(cases, run.curves, Palette(cases)))


def test_bold_curves_are_the_means_over_the_seeds(run: RunBuilder) -> None:
    seeds = ((2.0, 1.5, 1.1, 0.9), (2.2, 1.3, 1.0, 0.6))
    tops = ((20.0, 50.0, 80.0), (30.0, 60.0, 70.0))
    for loss, top1 in zip(seeds, tops, strict=True):
        curves = {"loss": loss, "eval_top1_percent": top1}
        run.add(fit(None), trained([top1[-1]], 1e9), curves)
    picture = picture_of(run)
    (loss_mean,) = picture.marks("curve", panel=0)
    assert loss_mean.xs == pytest.approx([1, 2, 3, 4], rel=1e-4)
    assert loss_mean.ys == pytest.approx([2.1, 1.4, 1.05, 0.75], rel=1e-4)
    (top1_mean,) = picture.marks("curve", panel=1)
    assert top1_mean.ys == pytest.approx([25.0, 55.0, 75.0], rel=1e-4)


def test_each_case_has_a_curve_up_to_a_limit_that_is_told(run: RunBuilder) -> None:
    for depth in range(1, MAX_CURVES + 3):
        case = Case(model=model(depth=depth), mode="fit", data="digits")
        run.add(case, trained([90.0], 1e9), {"loss": (2.0, 1.0, 0.5)})
    cases = gather([run.record], run.trials)
    chart = training_chart(cases, run.curves, Palette(cases))
    assert len(Picture(chart).marks("curve")) == MAX_CURVES
    assert "The table has 2 more cases." in getattr(chart, "note", "")


def test_scores_stand_at_the_epochs_after_which_they_were_taken(
    run: RunBuilder,
) -> None:
    curves = {
        "loss": (2.0, 1.0, 0.5),
        "eval_epoch": (4.0, 8.0, 10.0),
        "eval_top1_percent": (20.0, 50.0, 80.0),
    }
    run.add(fit(None), trained([80.0], 1e9), curves)
    (mean,) = picture_of(run).marks("curve", panel=1)
    assert mean.xs == pytest.approx([4, 8, 10], rel=1e-4)
    assert mean.ys == pytest.approx([20, 50, 80], rel=1e-4)


def test_each_data_set_has_a_row_of_its_own(run: RunBuilder) -> None:
    clips = Case(model=parse_model("ViViT-Ti/16x2"), mode="fit", data="charades")
    run.add(
        fit(None), trained([80.0], 1e9), {"loss": (2, 1), "eval_top1_percent": (8, 80)}
    )
    run.add(clips, [{"map_percent": 9.0}], {"loss": (3, 2), "eval_map_percent": (2, 9)})
    picture = picture_of(run)
    ends = [picture.marks("curve", panel=panel)[0].ys[-1] for panel in range(4)]
    assert ends == pytest.approx([1, 80, 2, 9], rel=1e-4)
    assert "charades, held-out mAP [%]" in picture.texts


def test_long_curves_are_averaged_over_neighbours() -> None:
    x, y = thinned([float(step) for step in range(10 * MAX_POINTS - 3)])
    assert len(x) == len(y) == MAX_POINTS
    assert y[0] == pytest.approx(4.5)  # mean of 0 to 9
    assert x[0] == pytest.approx(5.5)  # steps count from 1
    assert y[-1] == pytest.approx(1993)  # mean of the seven from 1990 on
