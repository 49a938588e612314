"""The front of accuracy against compute and throughput, and who is on it."""

import itertools
import random

import pytest

from support.report_run import RunBuilder, model, timed, trained
from support.svg_values import Picture
from tlbench.reports.cases import gather
from tlbench.reports.drawing import NoChart, Palette
from tlbench.reports.pareto import (
    PLACES,
    Box,
    accuracy_chart,
    by_throughput,
    front_table,
    pareto_front,
    places,
    speed_front_chart,
)
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case


def fit(place: int | None) -> Case:
    return Case(model=model(place), mode="fit", data="digits", batch_size=32)


def test_pareto_front_leaves_out_what_another_beats() -> None:
    points = [(1.0, 90.0), (2.0, 95.0), (2.0, 94.0), (3.0, 93.0), (4.0, 96.0)]
    assert pareto_front(points) == [(1.0, 90.0), (2.0, 95.0), (4.0, 96.0)]


def test_without_errors_the_places_are_those_of_the_front() -> None:
    numbers = random.Random(5)
    for _ in range(200):
        points = [(numbers.random(), numbers.random()) for _ in range(6)]
        front = pareto_front(points)
        found = places([Box((cost, cost), (gain, gain)) for cost, gain in points])
        assert found == ["on" if point in front else "beaten" for point in points]


def test_a_place_is_settled_only_if_no_values_inside_the_intervals_change_it() -> None:
    numbers = random.Random(6)

    def interval() -> tuple[float, float]:
        low = numbers.random()
        return low, low + 0.3 * numbers.random()

    for _ in range(200):
        boxes = [Box(interval(), interval()) for _ in range(3)]
        # The corners are the extremes of all that may lie inside.
        corners = [list(itertools.product(box.cost, box.gain)) for box in boxes]
        fronts = [
            set(pareto_front(list(drawn))) for drawn in itertools.product(*corners)
        ]
        draws = list(itertools.product(*corners))
        for place, (number, _) in zip(places(boxes), enumerate(boxes), strict=True):
            outcomes = {
                drawn[number] in front
                for drawn, front in zip(draws, fronts, strict=True)
            }
            if place == "on":
                assert outcomes == {True}
            elif place == "open":
                assert outcomes == {True, False}


def test_a_model_is_beaten_only_if_one_other_is_better_at_all_ends() -> None:
    good, bad = Box((1, 2), (90, 91)), Box((2.5, 3), (80, 89))
    assert places([good, bad]) == ["on", "beaten"]
    touching = Box((1.5, 3), (80, 90.5))
    assert places([good, touching]) == ["open", "open"]


def test_of_two_that_are_the_same_neither_beats_the_other() -> None:
    assert places([Box((1, 1), (90, 90)), Box((1, 1), (90, 90))]) == ["on", "on"]


def test_one_trial_settles_only_what_no_accuracy_could_change(run: RunBuilder) -> None:
    run.add(fit(None), trained([99.0], 4e8))
    run.add(fit(1), trained([50.0], 2e8))
    table = front_table(gather([run.record], run.trials))
    column = table.headings.index("by compute")
    # Nothing costs less than the second; the first may be less accurate than it.
    assert [row.cells[column].text for row in table.rows] == [
        PLACES["open"],
        PLACES["on"],
    ]


def test_points_of_compute_stand_at_their_medians(smoke: RunBuilder) -> None:
    cases = gather([smoke.record], smoke.trials)
    picture = Picture(accuracy_chart(cases, Palette(cases)))
    trained_cases = [case for case in cases if case.mode == "fit"]
    points, errors = picture.marks("point"), picture.marks("yerror")
    for case, point, error in zip(trained_cases, points, errors, strict=True):
        macs, top1 = case.summary("macs"), case.summary("top1_percent")
        assert macs.value is not None
        assert point.xs == pytest.approx([macs.value / 1e9], rel=1e-4)
        assert point.ys == pytest.approx([top1.value], rel=1e-5)
        assert top1.interval is not None
        assert sorted(error.ys) == pytest.approx(top1.interval, rel=1e-5)
    assert picture.marks("xerror") == []


def test_no_model_is_beaten_at_another_task(run: RunBuilder) -> None:
    """97 % on digits costs less than 60 % on clips, and says nothing of it."""
    clips = Case(
        model=parse_model("ViViT-Ti/16x2@32"), mode="fit", data="moving-digits"
    )
    run.add(fit(None), trained([97.0, 97.2], 1e8))
    run.add(clips, trained([60.0, 60.2], 9e8))
    cases = gather([run.record], run.trials)
    table = front_table(cases)
    column = table.headings.index("by compute")
    assert [row.cells[column].text for row in table.rows] == [PLACES["on"]] * 2
    picture = Picture(accuracy_chart(cases, Palette(cases)))
    for panel, (macs, top1) in enumerate(((0.1, 97.1), (0.9, 60.1))):
        (point,) = picture.marks("point", panel)
        assert point.xs == pytest.approx([macs], rel=1e-3)
        assert point.ys == pytest.approx([top1], rel=1e-3)


def test_each_accuracy_stands_in_the_column_of_its_measure(run: RunBuilder) -> None:
    clips = Case(model=parse_model("ViViT-Ti/16x2"), mode="fit", data="charades")
    run.add(fit(None), trained([97.0], 1e8))
    run.add(clips, [{"map_percent": 31.0, "macs": 9e8}])
    table = front_table(gather([run.record], run.trials))
    columns = [table.headings.index(name) for name in ("top-1 [%]", "mAP [%]")]
    cells = [[row.cells[column].key for column in columns] for row in table.rows]
    assert [cells[0][0], cells[1][1]] == pytest.approx([97.0, 31.0])
    assert [cells[0][1], cells[1][0]] == [None, None]


def test_points_of_throughput_have_intervals_in_both_directions(
    smoke: RunBuilder,
) -> None:
    cases = gather([smoke.record], smoke.trials)
    picture = Picture(speed_front_chart(cases, Palette(cases)))
    timed_cases = [case for case in cases if case.mode == "infer"]
    marks = zip(picture.marks("point"), picture.marks("xerror"), strict=True)
    for case, (point, error) in zip(timed_cases, marks, strict=True):
        speed = case.summary("throughput_samples_per_s")
        assert point.xs == pytest.approx([speed.value], rel=1e-5)
        assert speed.interval is not None
        assert sorted(error.xs) == pytest.approx(speed.interval, rel=1e-5)


def test_steps_of_the_front_lead_through_its_medians(smoke: RunBuilder) -> None:
    cases = gather([smoke.record], smoke.trials)
    (compute,) = Picture(accuracy_chart(cases, Palette(cases))).marks("front")
    # Top-1 of 96.0 costs 0.2 GMACs, 97.1 costs 0.25; 97.0 at 0.4 is beaten by it.
    corners = list(zip(compute.xs, compute.ys, strict=True))
    assert corners == [
        pytest.approx((0.2, 96.0), rel=1e-4),
        pytest.approx((0.25, 96.0), rel=1e-4),
        pytest.approx((0.25, 97.1), rel=1e-4),
    ]
    (speed,) = Picture(speed_front_chart(cases, Palette(cases))).marks("front")
    corners = list(zip(speed.xs, speed.ys, strict=True))
    assert corners == [
        pytest.approx((158.0, 97.1), rel=1e-4),
        pytest.approx((158.0, 96.0), rel=1e-4),
        pytest.approx((199.5, 96.0), rel=1e-4),
    ]


def test_a_place_that_is_not_settled_is_hollow_and_in_the_legend(
    smoke: RunBuilder,
) -> None:
    cases = gather([smoke.record], smoke.trials)
    picture = Picture(accuracy_chart(cases, Palette(cases)))
    assert {PLACES["on"], PLACES["open"]} <= set(picture.texts)
    assert PLACES["beaten"] not in picture.texts
    assert ["fill-opacity: 0;" in mark.style for mark in picture.marks("point")] == [
        True,  # ViT-tiny: 96.2 to 98.0 % at the most compute
        False,
        False,
    ]


def test_values_far_apart_are_read_off_a_logarithmic_axis(run: RunBuilder) -> None:
    for place, macs in ((None, 5e11), (1, 3e9), (2, 4.2e7)):
        run.add(fit(place), trained([90.0 + (place or 0), 91.0], macs))
    cases = gather([run.record], run.trials)
    points = Picture(accuracy_chart(cases, Palette(cases))).marks("point")
    assert [point.xs[0] for point in points] == pytest.approx([500, 3, 0.042], rel=1e-3)


def test_throughput_is_taken_at_the_settings_of_most_models(run: RunBuilder) -> None:
    for place in (None, 1):
        run.add(fit(place), trained([90.0, 91.0], 1e9))
    lonely = Case(model=model(), mode="infer", batch_size=1)
    run.add(lonely, timed([1.0, 1.1], 1e9))
    for place in (None, 1):
        case = Case(model=model(place), mode="infer", batch_size=8)
        run.add(case, timed([50.0, 51.0], 1e9))
    run.add(Case(model=model(3), mode="infer", batch_size=8), timed([9.0], 1e9))
    points = by_throughput(gather([run.record], run.trials))
    assert [(p.costed.model, p.costed.case.batch_size) for p in points] == [
        ("ViT-tiny", 8),
        ("ViT-tiny+TL8@1", 8),
    ]


def test_models_that_were_only_trained_have_no_chart_of_throughput(
    run: RunBuilder,
) -> None:
    run.add(fit(None), trained([90.0, 91.0], 1e9))
    cases = gather([run.record], run.trials)
    assert speed_front_chart(cases, Palette(cases)) == NoChart(
        "no model was both trained to accuracy and timed in inference"
    )
