import re
import xml.etree.ElementTree as ElementTree
from typing import get_args

import matplotlib as mpl
import pytest

from support.report_run import RunBuilder, model, smoke_run, staged, timed
from support.svg_values import Picture
from tlbench.models.layers import Stage
from tlbench.reports.cases import gather
from tlbench.reports.charts import (
    memory_chart,
    speedup_chart,
    stage_chart,
    throughput_chart,
)
from tlbench.reports.compare import comparisons
from tlbench.reports.drawing import (
    MAX_ROWS,
    WIDTH_INCHES,
    Chart,
    NoChart,
    Palette,
)
from tlbench.reports.pareto import accuracy_chart
from tlbench.reports.quantities import STAGES
from tlbench.reports.training import training_chart
from tlbench.suites.spec import Case

Charts = dict[str, Chart | NoChart]


def charts(run: RunBuilder) -> Charts:
    cases = gather([run.record], run.trials)
    palette = Palette(cases)
    return {
        "accuracy": accuracy_chart(cases, palette),
        "throughput": throughput_chart(cases, palette),
        "speed-up": speedup_chart(comparisons(cases), palette),
        "stages": stage_chart(cases),
        "memory": memory_chart(cases, palette),
        "training": training_chart(cases, run.curves, palette),
    }


@pytest.fixture(scope="module")
def smoke_charts() -> Charts:
    return charts(smoke_run())


def texts(chart: Chart | NoChart) -> list[str]:
    return Picture(chart).texts


def test_bars_carry_median_interval_and_n(smoke_charts: Charts) -> None:
    # 105 between the ends of exp(mean +- 4.303 * error) of the logs of 100, 110, 105.
    assert "105.0 (93.2 to 118), n=3" in texts(smoke_charts["throughput"])


def test_bars_and_intervals_are_as_long_as_what_they_show(
    smoke: RunBuilder, smoke_charts: Charts
) -> None:
    cases = gather([smoke.record], smoke.trials)
    picture = Picture(smoke_charts["throughput"])
    for panel, mode in enumerate(("infer", "train")):
        bars = picture.by_row("bar", panel)
        intervals = picture.by_row("interval", panel)
        shown = [case for case in cases if case.mode == mode]
        assert list(bars) == [case.label for case in shown]
        for case in shown:
            summary = case.summary("throughput_samples_per_s")
            ends = bars[case.label].xs
            assert min(ends) == pytest.approx(0, abs=1e-3)
            assert max(ends) == pytest.approx(summary.value, rel=1e-5)
            assert summary.interval is not None
            read = sorted(intervals[case.label].xs)
            assert read == pytest.approx(summary.interval, rel=1e-5)


def test_bars_of_memory_are_as_long_as_what_they_show(
    smoke: RunBuilder, smoke_charts: Charts
) -> None:
    bars = Picture(smoke_charts["memory"]).by_row("bar")
    for case in gather([smoke.record], smoke.trials):
        if case.mode == "infer":
            bytes_held = case.trials[0].metrics["peak_memory_host_growth_bytes"]
            assert bytes_held is not None
            expected = bytes_held / 2**20
            assert max(bars[case.label].xs) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "least"), [("bar", 30), ("point", 1)])
def test_numbers_stand_right_of_their_marks_and_inside_the_picture(
    run: RunBuilder, kind: str, least: int
) -> None:
    for batch_size in range(1, MAX_ROWS + 1):
        case = Case(
            model=model(name="a model with a name as long as names of models get"),
            mode="infer",
            batch_size=batch_size,
            attention="math" if batch_size % 2 else "auto",
        )
        speed = 1234.5 * (least + batch_size - 1)
        speeds = [speed * factor for factor in (0.98, 1, 1.02)]
        run.add(case, timed(speeds, 1e9))
    picture = Picture(charts(run)["throughput"])
    width = WIDTH_INCHES * 72
    numbers = [(place, text) for place, text in picture.written() if "n=3" in text]
    assert len(numbers) == MAX_ROWS
    marks = picture.marks(kind)
    for found, ((x, _), text) in zip(marks, numbers, strict=True):
        right = max(x for x, _ in found.points)
        assert right < x
        # A figure of the widest of the page's fonts is 0.64 of its height.
        assert x + 0.64 * 9 * len(text) < width


@pytest.mark.parametrize(("ratio", "kind"), [(19.0, "bar"), (600.0, "point")])
def test_values_far_apart_are_points_on_a_logarithmic_axis(
    run: RunBuilder, ratio: float, kind: str
) -> None:
    speeds = {2: 0.02, 1: 0.02 * ratio}
    for place, speed in speeds.items():
        case = Case(model=model(place=place), mode="infer")
        run.add(case, timed([speed, 1.01 * speed, 0.99 * speed], 1e9))
    picture = Picture(charts(run)["throughput"])
    assert ("logarithmic axis" in picture.texts) == (kind == "point")
    read = [max(found.xs) for found in picture.marks(kind)]
    assert read == pytest.approx([*speeds.values()], rel=1e-4)
    intervals = [found.xs for found in picture.marks("interval")]
    for ends, speed in zip(intervals, speeds.values(), strict=True):
        assert min(ends) < speed < max(ends)


def test_values_beyond_all_sense_are_drawn_all_the_same(run: RunBuilder) -> None:
    for place, speed in {2: 0.02, 1: 1e99}.items():
        case = Case(model=model(place=place), mode="infer")
        run.add(case, timed([speed, speed], 1e9))
    picture = Picture(charts(run)["throughput"])
    assert len(picture.marks("point")) == 2


def test_memory_is_shown_in_mebibytes(smoke_charts: Charts) -> None:
    shown = texts(smoke_charts["memory"])
    assert "762.9, n=3" in shown  # 8e8 bytes
    assert "inference: memory of the steps [MiB]" in shown


def test_stages_are_named_with_the_ceiling_of_each_case(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), [staged()])
    learned = {"after": 0.006, "tokenizer": 0.001}
    run.add(Case(model=model(1), mode="infer"), [staged(**learned)])
    shown = texts(charts(run)["stages"])
    assert {"ViT-tiny", "ViT-tiny+TL8@1"} <= set(shown)
    assert {"embedding", "blocks before", "tokenizer", "blocks after", "head"} <= set(
        shown
    )
    ceilings = [text for text in shown if text.startswith("at best")]
    assert "blocks over time" not in shown  # of no case
    assert ceilings == ["at best 2.20\N{MULTIPLICATION SIGN}"]  # 11 ms over 5


def test_stages_follow_each_other_as_long_as_they_take(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), [staged()])
    learned = {"after": 0.006, "tokenizer": 0.001}
    run.add(Case(model=model(1), mode="infer"), [staged(**learned)])
    picture = Picture(charts(run)["stages"])
    end = 0.0
    times = {"embedding": 1, "before": 2, "tokenizer": 1, "after": 6, "head": 1}
    for stage, time in times.items():
        xs = picture.by_row(stage)["ViT-tiny+TL8@1"].xs
        assert min(xs) == pytest.approx(end, abs=1e-3)
        end += time
        assert max(xs) == pytest.approx(end, abs=1e-3)


def test_stages_of_a_factorised_encoder_are_named(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), [staged(temporal=0.002)])
    assert "blocks over time" in texts(charts(run)["stages"])


def test_every_stage_has_its_words_in_the_order_of_the_walk() -> None:
    assert tuple(STAGES) == get_args(Stage)


def test_a_run_without_stages_says_so(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), timed([1.0], 1e9))
    assert charts(run)["stages"] == NoChart(
        "no case attributed its time to the stages of its model"
    )


def test_speedup_names_realised_and_predicted(smoke_charts: Charts) -> None:
    assert "1.90 of 2.00 = 95.0 %" in texts(smoke_charts["speed-up"])


def test_speedup_marks_stand_at_what_was_predicted_and_realised(
    smoke: RunBuilder, smoke_charts: Charts
) -> None:
    compared = comparisons(gather([smoke.record], smoke.trials))
    picture = Picture(smoke_charts["speed-up"])
    for panel, mode in enumerate(("infer", "train")):
        of_mode = [c for c in compared if c.other.mode == mode]
        assert len(of_mode) == 2
        for comparison in of_mode:
            label = comparison.other.label
            (predicted,) = picture.by_row("predicted", panel)[label].xs
            (realised,) = picture.by_row("realised", panel)[label].xs
            assert predicted == pytest.approx(comparison.predicted_speedup, rel=1e-5)
            assert realised == pytest.approx(comparison.speedup.value, rel=1e-5)
            assert comparison.speedup.interval is not None
            ends = sorted(picture.by_row("interval", panel)[label].xs)
            assert ends == pytest.approx(comparison.speedup.interval, rel=1e-5)


def test_every_model_is_in_the_legend_of_accuracy(smoke_charts: Charts) -> None:
    shown = texts(smoke_charts["accuracy"])
    assert {"ViT-tiny", "ViT-tiny+TL8@1", "ViT-tiny+TL8@2"} <= set(shown)


def test_charts_are_the_same_every_time(
    smoke: RunBuilder, smoke_charts: Charts
) -> None:
    again = charts(smoke)
    assert again.keys() == smoke_charts.keys()
    for name, chart in again.items():
        assert isinstance(chart, Chart)
        first = smoke_charts[name]
        assert isinstance(first, Chart)
        assert chart.svg == first.svg


def test_charts_are_images_with_a_title_in_colours_of_the_page(
    smoke_charts: Charts,
) -> None:
    for chart in smoke_charts.values():
        assert isinstance(chart, Chart)
        root = ElementTree.fromstring(chart.svg)
        assert root.get("role") == "img"
        title = root.find("title")
        assert title is not None
        assert root.get("aria-labelledby") == title.get("id")
        assert not re.search(r"#[0-9a-f]{6}\b", chart.svg)
        assert "var(--series-" in chart.svg


def test_ids_of_different_charts_do_not_meet(smoke_charts: Charts) -> None:
    ids = [
        found
        for chart in smoke_charts.values()
        if isinstance(chart, Chart)
        for found in re.findall(r'\bid="([^"]*)"', chart.svg)
    ]
    assert len(ids) == len(set(ids))


def test_references_inside_a_chart_lead_somewhere(smoke_charts: Charts) -> None:
    for chart in smoke_charts.values():
        assert isinstance(chart, Chart)
        ids = set(re.findall(r'\bid="([^"]*)"', chart.svg))
        assert set(re.findall(r'(?:url\(|href=")#([^")]*)', chart.svg)) <= ids


def test_names_are_text_and_never_markup_or_formula(run: RunBuilder) -> None:
    name = "<script>alert(1)</script> $x^$"
    run.add(Case(model=model(name=name), mode="infer"), timed([1.0, 2.0], 1e9))
    chart = charts(run)["throughput"]
    assert name in texts(chart)
    assert isinstance(chart, Chart)
    assert "<script" not in chart.svg


def test_a_chart_without_data_says_why(run: RunBuilder) -> None:
    run.fail(Case(model=model(), mode="infer"))
    for chart in charts(run).values():
        assert isinstance(chart, NoChart)
        assert chart.reason


def test_one_trial_is_drawn_without_an_interval(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), timed([100.0], 1e9))
    assert "100.0, n=1" in texts(charts(run)["throughput"])


def test_a_long_run_is_cut_and_says_so(run: RunBuilder) -> None:
    for batch_size in range(1, MAX_ROWS + 4):
        case = Case(model=model(), mode="infer", batch_size=batch_size)
        run.add(case, timed([100.0], 1e9))
    run.add(Case(model=model(), mode="train"), timed([9.0], 1e9))
    chart = charts(run)["throughput"]
    assert isinstance(chart, Chart)
    assert "9.000, n=1" in texts(chart)  # the other panel is there
    assert "The table has 4 more rows." in chart.note  # of 28


def test_drawing_leaves_the_settings_of_matplotlib_alone(run: RunBuilder) -> None:
    run.add(Case(model=model(), mode="infer"), timed([100.0], 1e9))
    before = dict(mpl.rcParams)
    charts(run)
    assert dict(mpl.rcParams) == before
