"""Which figures of the publication a report has, and what they show."""

from collections.abc import Iterable
from functools import partial

import pytest

from support.report_run import RunBuilder
from support.svg_values import Picture
from tlbench.models import cost
from tlbench.models.publication import MISPRINT_MARK, published_costs
from tlbench.reports.cases import gather
from tlbench.reports.contents import PLACES
from tlbench.reports.drawing import Chart
from tlbench.reports.publication.figures import FIGURES, DrawnFigure, drawn_figures
from tlbench.suites.loader import load_suite
from tlbench.suites.names import parse_model
from tlbench.suites.published import PLACEMENT, T3, T6, T7, published_in
from tlbench.suites.spec import Case, Mode

approx = partial(pytest.approx, rel=1e-5, abs=1e-5)
FULL_PLACEMENT = ("ViT-B/16", *(f"ViT-B/16+TL8v1@{place}" for place in (0, 3, 6, 9)))


def figures(run: RunBuilder) -> dict[str, DrawnFigure]:
    cases = gather([run.record], run.trials)
    return {drawn.figure.name: drawn for drawn in drawn_figures(cases)}


def add(
    run: RunBuilder, names: Iterable[str], mode: Mode = "profile", **values: float
) -> None:
    """One case of each model, with two trials that are 1 % apart."""
    for name in names:
        case = Case(model=parse_model(name), mode=mode)
        trials = [{key: v * scale for key, v in values.items()} for scale in (1, 1.01)]
        run.add(case, trials)


def profiled(suite: str, scale: str | None) -> RunBuilder:
    """Every case of a built-in suite, ended well and with nothing measured."""
    run = RunBuilder()
    for case in load_suite(suite, scale=scale).cases:
        run.add(case, [{}])
    return run


def rows(drawn: DrawnFigure) -> list[dict[str, str]]:
    table = drawn.table()
    return [
        dict(zip(table.headings, [cell.text for cell in row.cells], strict=True))
        for row in table.rows
    ]


@pytest.mark.parametrize("scale", [None, "cpu", "profile"])
@pytest.mark.parametrize(
    ("suite", "names"),
    [
        ("placement", {"place"}),
        ("tradeoff", {"trade-off"}),
        ("large", {"large"}),
        ("tokens", {"tokens"}),
        ("fuser", {"fuser"}),
        ("pooling", {"pooling"}),
        ("overhead", set()),
        ("scaling", set()),
    ],
)
def test_each_suite_has_its_figure_and_no_other(
    suite: str, names: set[str], scale: str | None
) -> None:
    assert set(figures(profiled(suite, scale))) == names


@pytest.mark.parametrize(
    ("scale", "names"),
    [
        (None, {"video", "views", "vivit", "clips"}),
        ("profile", {"video", "views", "vivit", "clips"}),
        ("cpu", {"video", "views", "clips"}),  # without the models 2 to 4 of ViViT
    ],
)
def test_video_has_its_tables(scale: str | None, names: set[str]) -> None:
    assert set(figures(profiled("video", scale))) == names


def test_models_of_large_train_are_those_of_table_3() -> None:
    assert set(figures(profiled("large-train", None))) == {"large"}
    assert not figures(profiled("large-train", "cpu"))  # ViT-Ti in their place


def test_two_places_are_a_comparison_and_no_figure(run: RunBuilder) -> None:
    add(run, FULL_PLACEMENT[:3])
    assert not figures(run)
    add(run, FULL_PLACEMENT[3:4])
    assert set(figures(run)) == {"place"}


def test_every_published_row_is_in_the_table_with_its_value(run: RunBuilder) -> None:
    add(run, FULL_PLACEMENT)
    shown = rows(figures(run)["place"])
    expected = published_in(PLACEMENT)
    assert [row["published as"] for row in shown] == [row.label for row in expected]
    heading = "published 5-shot [%], after JFT-300M"
    assert [float(row[heading]) for row in shown] == [
        row.five_shot_percent for row in expected
    ]


def test_own_gflops_are_counted_as_the_published_ones(run: RunBuilder) -> None:
    add(run, FULL_PLACEMENT)
    for row in rows(figures(run)["place"]):
        if row["model"] in FULL_PLACEMENT:
            spec = parse_model(row["model"])
            counted = published_costs(spec)[0].gflops
            assert float(row["own GFLOPS"]) == pytest.approx(counted, rel=5e-4)
            assert counted > cost.macs(spec, 1000) / 1e9


def test_a_misprint_is_marked_and_has_its_reason(run: RunBuilder) -> None:
    add(run, FULL_PLACEMENT)
    table = figures(run)["place"].table()
    column = table.headings.index("published GFLOPS")
    cells = {row.cells[0].text: row.cells[column] for row in table.rows}
    assert cells["ViT-B/16+TL8v1@0"].text == f"0.78{MISPRINT_MARK}"
    assert "read off the figure as 0.78" in cells["ViT-B/16+TL8v1@0"].hint
    assert cells["ViT-B/16+TL8v1@3"].text == "5.0"
    assert cells["ViT-B/16+TL8v1@3"].detail == "\N{PLUS-MINUS SIGN} 0.03, read off"


def test_points_stand_at_the_published_values_and_places(run: RunBuilder) -> None:
    add(run, FULL_PLACEMENT)
    chart = figures(run)["place"].chart()
    expected = [
        (spec.token_learner.place / spec.depth, row.five_shot_percent)
        for row in published_in(PLACEMENT)
        if row.model is not None
        for spec in [parse_model(row.model)]
        if spec.token_learner is not None
    ]
    marks = Picture(chart).marks("published", panel=0)
    assert [(mark.xs[0], mark.ys[0]) for mark in marks] == [
        approx(point) for point in expected
    ]


def test_the_base_is_a_line_across(run: RunBuilder) -> None:
    add(run, FULL_PLACEMENT, "infer", throughput_samples_per_s=100.0)
    picture = Picture(figures(run)["place"].chart())
    (published,) = picture.marks("across-published", panel=0)
    assert published.ys == approx([62.9, 62.9])
    (own,) = picture.marks("across-own", panel=2)
    assert own.ys == approx([100.5, 100.5])  # median of 100 and 101


def test_the_legend_names_lines_across_and_their_bands(run: RunBuilder) -> None:
    add(run, FULL_PLACEMENT, "infer", throughput_samples_per_s=2.0)
    chart = figures(run)["place"].chart()
    assert isinstance(chart, Chart)
    for words in ("without TokenLearner, own", "without TokenLearner, published"):
        assert words in chart.svg
    assert "its interval" in chart.svg


def test_own_values_stand_where_they_were_measured(run: RunBuilder) -> None:
    for place, speed in ((0, 400.0), (3, 300.0), (6, 200.0), (9, 120.0)):
        names = [f"ViT-B/16+TL8v1@{place}"]
        add(run, names, "infer", throughput_samples_per_s=speed)
    picture = Picture(figures(run)["place"].chart())
    assert "own inference, batch 8, fp32" in " ".join(picture.texts)
    marks = picture.marks("own", panel=2)
    assert [mark.xs[0] for mark in marks] == approx([0, 0.25, 0.5, 0.75])
    speeds = [mark.ys[0] for mark in marks]
    assert speeds == approx([402, 301.5, 201, 120.6])  # medians of two


def test_accuracy_of_small_models_has_axes_of_its_own() -> None:
    run = profiled("placement", "profile")
    for case in load_suite("placement", scale="cpu").cases:
        if case.mode == "fit":
            run.add(case, [{"top1_percent": 95.0}, {"top1_percent": 96.0}])
    drawn = figures(run)["place"]
    headings = [panel.heading for panel in drawn.panels]
    assert headings == [
        "published 5-shot [%], after JFT-300M",
        "own top-1 [%], on digits, fp32",
        "GFLOPS",
    ]
    texts = Picture(drawn.chart()).texts
    assert {"ViT-B/16", "mini"} <= set(texts)
    for row in rows(drawn):
        is_small = row["model"].startswith("mini")
        assert (row["own top-1 [%], on digits, fp32"] == "95.50") == is_small


def test_without_a_fit_there_is_no_own_accuracy(run: RunBuilder) -> None:
    add(run, FULL_PLACEMENT, "infer", throughput_samples_per_s=9.0, top1_percent=50)
    assert not any("own top-1" in p.heading for p in figures(run)["place"].panels)


def test_version_1_1_stands_beside_the_published_version_1(run: RunBuilder) -> None:
    add(run, ["ViT-B/16", *(f"ViT-B/16+TL8@{place}" for place in (3, 6, 9))])
    shown = {row["model"]: row for row in rows(figures(run)["place"])}
    assert shown["ViT-B/16+TL8@6"]["published as"] == "8 at 1/2"
    assert "ViT-B/16+TL8v1@6" not in shown


def test_large_models_are_quoted_and_never_own(run: RunBuilder) -> None:
    add(run, ["ViT-G/14@518", "ViT-L/10[35]@512+TL16v1@18"], params=1e9, macs=1e12)
    shown = rows(figures(run)["large"])
    assert [row["published as"] for row in shown] == [r.label for r in published_in(T3)]
    by_model = {row["model"]: row for row in shown}
    assert by_model["ViT-G/14@518"]["published top-1 [%]"] == "90.45"
    assert by_model["ViT-G/14@518"]["own parameters [M]"] == "1,843"  # without a head
    learner = by_model["ViT-L/10[35]@512+TL16v1@18"]
    assert learner["own parameters [M]"] == "460.6"  # with that of JFT-300M
    assert learner["published parameters [M]"] == "460"
    assert not any(heading.startswith("own top-1") for heading in learner)


def test_the_speed_of_large_models_is_that_over_g14(run: RunBuilder) -> None:
    speeds = {"ViT-G/14@518": 2.0, "ViT-L/10[35]@512+TL16v1@18": 7.0}
    for name, speed in speeds.items():
        add(run, [name], "infer", throughput_samples_per_s=speed)
    drawn = figures(run)["large"]
    heading = "times the speed of ViT-G/14@518, inference, batch 8, fp32"
    shown = {row["model"]: row[heading] for row in rows(drawn)}
    assert shown["ViT-L/10[35]@512+TL16v1@18"] == "3.50\N{MULTIPLICATION SIGN}"
    panel = [found.heading for found in drawn.panels].index(heading)
    base, learner = Picture(drawn.chart()).marks("own", panel)
    assert [*base.xs, *learner.xs] == approx([1.0, 3.5])


def test_without_g14_no_speed_is_told_over_it(run: RunBuilder) -> None:
    names = ["ViT-H/14@518", "ViT-L/10[35]@512+TL16v1@18"]
    add(run, names, "infer", throughput_samples_per_s=2.0)
    headings = [panel.heading for panel in figures(run)["large"].panels]
    assert not any("times the speed" in heading for heading in headings)


def test_rows_of_video_stand_at_their_gflops_and_scores(run: RunBuilder) -> None:
    add(run, ["ViViT-L/16x2", "ViViT-L/16x2+TL16v1@12"])
    chart = figures(run)["video"].chart()
    top1 = [mark.xs[0] for mark in Picture(chart).marks("published", panel=1)]
    assert top1 == approx([row.top1_percent for row in published_in(T6)])
    own = Picture(chart).by_row("own", panel=0)
    assert own["ViViT-L/16x2+TL16v1@12"].xs == pytest.approx([765.9], abs=0.1)


def test_own_values_stand_in_the_row_that_pools_alike(run: RunBuilder) -> None:
    """Table 6 has ViViT-L/16x2 twice: quoted with a class token, and trained anew."""
    add(run, ["ViViT-L/16x2", "ViViT-L/16x2+TL16v1@12"])
    with_mean = rows(figures(run)["video"])
    own = [row["published as"] for row in with_mean if row["model"] == "ViViT-L/16x2"]
    assert len(own) == 1
    assert "quoted" not in own[0]


def test_an_own_model_stands_in_the_only_row_there_is(run: RunBuilder) -> None:
    """Table 7 prints it with a class token alone."""
    add(run, ["ViViT-L/16x2", "ViViT-L/16x2+TL16v1@12"])
    assert any(row["model"] == "ViViT-L/16x2" for row in rows(figures(run)["views"]))


def test_models_that_are_printed_twice_are_numbered(run: RunBuilder) -> None:
    add(run, ["ViViT-L/16x2", "ViViT-L/16x2+TL16v1@12"])
    named = Picture(figures(run)["clips"].chart()).by_row("published", panel=0)
    assert named["I3D (1)"].xs == approx([32.9])
    assert named["I3D (2)"].xs == approx([35.5])
    assert "MViT" in named


def test_rows_of_one_label_are_told_apart_in_the_table(run: RunBuilder) -> None:
    add(run, ["ViViT-L/16x2", "ViViT-L/16x2+TL16v1@12"])
    drawn = figures(run)
    for name in ("clips", "views"):
        shown = [
            (row.cells[1].text, row.cells[1].detail) for row in drawn[name].table().rows
        ]
        assert len(shown) == len(set(shown))
    labels = {row["published as"] for row in rows(drawn["clips"])}
    assert {"I3D (1)", "I3D (2)", "I3D"} <= labels  # the last of AViD
    assert "Swin-L (384), views: 50" in {
        row["published as"] for row in rows(drawn["views"])
    }


def test_the_time_of_a_video_is_that_of_its_views(run: RunBuilder) -> None:
    names = ["ViViT-L/16x2", "ViViT-L/16x2+TL16v1@12"]
    add(run, names, "infer", throughput_samples_per_s=2.0)
    drawn = figures(run)["views"]
    shown = rows(drawn)
    heading = "own time of a video [s], inference, batch 8, fp32"
    for row, published in zip(shown, published_in(T7), strict=False):
        if row["model"] == "ViViT-L/16x2+TL16v1@12":
            assert published.views is not None
            assert float(row[heading]) == pytest.approx(published.views / 2.01, 1e-2)
            assert published.gflops is not None
            tflops = published.gflops * published.views / 1e3
            assert float(row["published TFLOPS of all views"]) == pytest.approx(tflops)


def test_what_has_no_code_is_quoted_alone(run: RunBuilder) -> None:
    add(run, ["ViViT-L/16x2", "ViViT-L/16x2+TL16v1@12"])
    drawn = figures(run)["clips"]
    assert not any(heading.startswith("own") for heading in drawn.table().headings)
    assert {row["model"] for row in rows(drawn)} >= {"TL", "MoViNets"}


def test_a_failed_case_has_its_reason(run: RunBuilder) -> None:
    add(run, FULL_PLACEMENT[:-1], "infer", throughput_samples_per_s=9.0)
    run.fail(Case(model=parse_model(FULL_PLACEMENT[-1]), mode="infer"))
    table = figures(run)["place"].table()
    hints = {row.cells[0].text: row.cells[-1].hint for row in table.rows}
    assert hints[FULL_PLACEMENT[-1]] == "no trial ended well: 1 oom"


def test_other_models_of_a_builder_have_no_gflops_of_this_kind() -> None:
    shown = {r["model"]: r for r in rows(figures(profiled("pooling", None))["pooling"])}
    assert shown["ViT-L/16@512+tome(r=40)"]["own GFLOPS"] == "\N{EN DASH}"
    assert shown["ViT-L/16@512+pool8@12"]["own GFLOPS"] == "184.4"
    assert shown["ViT-L/16@512+pool8@12"]["published GFLOPS"] == f"184.4{MISPRINT_MARK}"


def test_every_figure_has_its_place_in_the_report() -> None:
    assert {figure.name for figure in FIGURES} <= set(PLACES)


def test_charts_are_told_apart_by_name() -> None:
    names = [figure.name for figure in FIGURES]
    assert len(names) == len(set(names))
    drawn = figures(profiled("video", "profile"))
    for name, figure in drawn.items():
        chart = figure.chart()
        assert isinstance(chart, Chart)
        assert f'id="{name}-title"' in chart.svg
