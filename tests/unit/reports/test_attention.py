"""Where TokenLearner looks: the pictures, read back pixel by pixel, and the table."""

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from support.report_run import RunBuilder, Values, model
from support.svg_values import Picture
from tlbench.measure.map_file import SavedMaps
from tlbench.reports.attention import (
    HEAT,
    MAX_CLIP_MAPS,
    MAX_IMAGE_MAPS,
    MAX_IMAGES,
    PITCH,
    TILE,
    attention_chart,
    attention_table,
    most_concentrated,
    overlay,
)
from tlbench.reports.cases import gather
from tlbench.reports.drawing import Chart, NoChart
from tlbench.suites.model_spec import VideoSpec
from tlbench.suites.spec import Case

METRICS: Values = {
    "map_entropy": 0.75,
    "map_variation": 0.25,
    "map_distance_best": 0.125,
    "map_gain_best": -0.5,
}


def fit(**changes: Any) -> Case:
    spec = model(1)
    settings = {"model": spec, "mode": "fit", "data": "digits", "batch_size": 32}
    return Case.model_validate(settings | changes)


def of_clips() -> Case:
    spec = model(1).model_copy(update={"video": VideoSpec(num_frames=8)})
    return fit(model=spec, data="moving-digits")


def saved(samples: int = 5, steps: int = 1, maps: int = 10) -> SavedMaps:
    """Map s of sample m is 1 in the cell m + s of a grid of 4 x 4, else small."""
    weights = np.zeros((samples, steps, maps, 16), np.float16)
    for m in range(samples):
        for s in range(maps):
            weights[m, :, s] = s / 20  # the first are the most concentrated
            weights[m, :, s, (m + s) % 16] = 1
    shades = np.arange(samples, dtype=np.uint8)[:, None, None, None, None] * 40
    return SavedMaps(
        pictures=np.broadcast_to(shades, (samples, steps, 32, 32, 3)),
        maps=weights.reshape(samples, steps, maps, 4, 4),
        names=tuple(f"sample {m}" for m in range(samples)),
        labels=tuple(str(m) for m in range(samples)),
        answers=("7",) * samples,
        covered=1.0,
        positions=None
        if steps == 1
        else np.full((samples, steps, 2), (0.25, 0.75), np.float32),
    )


def chart_of(run: RunBuilder, files: dict[int, SavedMaps]) -> Chart | NoChart:
    cases = gather([run.record], run.trials)
    return attention_chart(cases, {n: file.as_bytes() for n, file in files.items()})


def images_in(chart: Chart | NoChart) -> Iterator[np.ndarray[Any, Any]]:
    """[height, width, 4] each, as a browser shows them."""
    assert isinstance(chart, Chart)
    for data in re.findall(r'href="data:image/png;base64,([^"]+)"', str(chart.svg)):
        png = Image.open(io.BytesIO(base64.b64decode(data)))
        yield np.array(png.convert("RGBA"))


def cell(image: np.ndarray[Any, Any], row: int, column: int, place: int) -> list[int]:
    """The colour amid one of 4 x 4 cells of a tile."""
    top = row * PITCH + (place // 4 * 2 + 1) * TILE // 8
    left = column * PITCH + (place % 4 * 2 + 1) * TILE // 8
    colour: list[int] = image[top, left].tolist()
    return colour


def mixed(weight: float, shade: int) -> list[float]:
    """The colour of a map over grey, by hand."""
    heat = np.array(mpl.colormaps["viridis"](float(weight))[:3])
    return [*(HEAT * 255 * heat + (1 - HEAT) * shade), 255]


def test_each_picture_shows_the_sample_and_the_weights_of_its_map(
    run: RunBuilder,
) -> None:
    run.add(fit(), [METRICS])
    (image,) = images_in(chart_of(run, {100: saved()}))
    assert image.shape[:2] == (MAX_IMAGES * PITCH, (1 + MAX_IMAGE_MAPS) * PITCH)
    for sample in range(MAX_IMAGES):
        shade = 40 * sample
        assert cell(image, sample, 0, 5) == [shade, shade, shade, 255]
        for s in range(MAX_IMAGE_MAPS):
            lit, other = (sample + s) % 16, (sample + s + 1) % 16
            found = cell(image, sample, 1 + s, lit)
            assert found == pytest.approx(mixed(1, shade), abs=2)
            found = cell(image, sample, 1 + s, other)
            assert found == pytest.approx(mixed(s / 20, shade), abs=4)
    assert image[0, TILE, 3] == 0  # nothing between them


def test_rows_and_columns_are_named(run: RunBuilder) -> None:
    run.add(fit(), [METRICS])
    picture = Picture(chart_of(run, {100: saved()}))
    names = [tick.text for tick in picture.axis("y").ticks]
    assert names == [f"sample {m}\nclass {m}, answer 7" for m in range(MAX_IMAGES)]
    columns = [tick.text for tick in picture.axis("x").ticks]
    assert columns == ["input", *(f"map {s + 1}" for s in range(MAX_IMAGE_MAPS))]


def test_clips_have_a_row_of_frames_and_one_of_each_map(run: RunBuilder) -> None:
    run.add(of_clips(), [METRICS])
    chart = chart_of(run, {100: saved(steps=4)})
    picture, (image,) = Picture(chart), images_in(chart)
    rows = 2 * (1 + MAX_CLIP_MAPS)
    assert image.shape[:2] == (rows * PITCH, 4 * PITCH)
    names = [tick.text.partition("\n")[0] for tick in picture.axis("y").ticks]
    assert names[:5] == ["sample 0", "map 1", "map 2", "map 3", "sample 1"]
    assert cell(image, 4, 2, 5) == [40, 40, 40, 255]
    assert cell(image, 6, 2, 2) == pytest.approx(mixed(1, 40), abs=2)  # m + s
    columns = [tick.text for tick in picture.axis("x").ticks]
    assert columns == ["step 1", "step 2", "step 3", "step 4"]


def test_circles_are_where_the_object_is(run: RunBuilder) -> None:
    run.add(of_clips(), [METRICS])
    chart = chart_of(run, {100: saved(steps=4)})
    picture = Picture(chart)
    (circles,) = picture.marks("object")
    ticks = [tick.place for tick in picture.axis("x").ticks]
    width = (ticks[1] - ticks[0]) * TILE / PITCH
    for column in range(4):
        x, _ = circles.points[column]
        assert x == pytest.approx(ticks[column] + 0.25 * width, abs=0.05)
    tops = [tick.place for tick in picture.axis("y").ticks]
    assert len(circles.points) == 4 * len(tops)
    assert "Circles: where the object is known to be." in getattr(chart, "note", "")


def test_a_map_that_weighs_all_alike_is_bright_everywhere() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    flat = overlay(black, np.full((2, 2), 0.01, np.float16), 1.0)
    assert (flat == flat[0, 0]).all()
    assert flat[0, 0].tolist() == pytest.approx(mixed(1, 0)[:3], abs=1)


def test_the_least_weight_that_a_file_can_hold_is_the_largest_of_its_map() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    weights = np.zeros((2, 2), np.float16)
    weights[0, 0] = np.finfo(np.float16).smallest_subnormal
    drawn = overlay(black, weights, 1.0)
    assert drawn[0, 0].tolist() == pytest.approx(mixed(1, 0)[:3], abs=1)
    assert drawn[-1, -1].tolist() == pytest.approx(mixed(0, 0)[:3], abs=1)


def test_pixels_that_no_patch_covers_have_no_colour() -> None:
    white = np.full((8, 8, 3), 255, np.uint8)
    drawn = overlay(white, np.ones((3, 3), np.float16), 0.75)
    edge = round(0.75 * TILE)
    assert (drawn[edge:] == round(255 * (1 - HEAT))).all()
    assert (drawn[:, edge:] == round(255 * (1 - HEAT))).all()
    assert drawn[edge - 1, edge - 1].tolist() == pytest.approx(mixed(1, 255)[:3], abs=1)


def test_the_most_concentrated_maps_are_chosen_and_keep_their_order() -> None:
    maps = saved(samples=2, maps=4).maps[:, :, ::-1]
    assert most_concentrated(maps, 2) == [2, 3]
    assert most_concentrated(maps, 9) == [0, 1, 2, 3]


def test_the_caption_says_of_which_trials_and_what_their_numbers_are(
    run: RunBuilder,
) -> None:
    run.add(fit(), [METRICS])
    run.add(of_clips(), [METRICS])
    chart = chart_of(run, {100: saved(), 101: saved(steps=4, maps=3)})
    assert isinstance(chart, Chart)
    assert f"the {MAX_IMAGE_MAPS} most concentrated of 10 maps of" in chart.note
    assert "all 3 maps of" in chart.note
    assert (
        "Trial 100: entropy 0.75, 0.25 of a map's weight lies elsewhere for another"
        " input, the nearest map goes -0.50 of the object's way."
    ) in chart.note
    assert len(list(images_in(chart))) == 2
    assert "ViT-tiny" in chart.picture.title


def test_the_table_has_every_case_that_was_looked_at(run: RunBuilder) -> None:
    run.add(fit(), [METRICS, {**METRICS, "map_entropy": 0.25}])
    run.add(fit(model=model()), [{"top1_percent": 90.0}])
    table = attention_table(gather([run.record], run.trials))
    (row,) = table.rows
    cells = dict(zip(table.headings, row.cells, strict=True))
    assert cells["entropy"].key == 0.5
    assert cells["variation"].key == 0.25
    assert cells["distance, nearest map [of the side]"].key == 0.125


def test_without_files_there_is_a_reason_and_no_chart(run: RunBuilder) -> None:
    run.add(fit(), [METRICS])
    chart = chart_of(run, {})
    assert isinstance(chart, NoChart)
    assert "no trial has kept its maps" in chart.reason


def test_long_names_show_their_ends(run: RunBuilder) -> None:
    run.add(fit(), [METRICS])
    file = saved()
    long = SavedMaps(**{**vars(file), "names": ("a/" * 40 + "cat.jpg",) * 5})
    picture = Picture(chart_of(run, {100: long}))
    name = picture.axis("y").ticks[0].text.partition("\n")[0]
    assert name.startswith("\N{HORIZONTAL ELLIPSIS}")
    assert name.endswith("a/cat.jpg")
    assert len(name) == 28


def test_names_are_shown_as_they_are_but_for_what_no_page_can_hold(
    run: RunBuilder,
) -> None:
    run.add(fit(), [METRICS])
    file = saved()
    odd = SavedMaps(**{**vars(file), "names": ("<b>$x$&\udcff\x07\n.jpg",) * 5})
    chart = chart_of(run, {100: odd})
    name = Picture(chart).axis("y").ticks[0].text.partition("\n")[0]
    assert name == f"<b>$x$&{3 * chr(0xFFFD)}.jpg"
