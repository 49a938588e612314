"""Pictures: on the page, and in files of their own."""

import io
import re
import xml.etree.ElementTree as ElementTree
from importlib.resources import files

import pytest
from matplotlib.figure import Figure
from PIL import Image

from support.svg_values import Picture as ReadPicture
from tlbench.reports.drawing import (
    CSS_COLOURS,
    DOTS_PER_INCH,
    LINE_LENGTH,
    PAPER,
    SERIES,
    WIDTH_INCHES,
    Picture,
    draw,
    folded,
    mark,
    scale_axis,
)


def paint(figure: Figure) -> None:
    axes = figure.subplots()
    (line,) = axes.plot([1, 2, 3], [10, 20, 15], color=SERIES[2], marker="o")
    mark(line, "line", 0)
    axes.set_xlabel("a <b> & c")


@pytest.fixture
def picture() -> Picture:
    return draw("made", "Made & drawn", 3.0, paint)


def test_colours_are_those_of_the_page_in_light() -> None:
    style = (files("tlbench.reports.templates") / "style.css").read_text("utf-8")
    light = dict(re.findall(r"--([\w-]+): light-dark\((#\w+)", style))
    for colour, css in CSS_COLOURS.items():
        name = "ink" if css == "currentColor" else css.removeprefix("var(--")[:-1]
        assert light[name] == colour, name
    assert light["paper"] == PAPER


def test_a_file_keeps_its_colours_and_the_page_decides_its_own(
    picture: Picture,
) -> None:
    alone = picture.file("svg").decode()
    assert SERIES[2] in alone
    assert "var(" not in alone
    assert SERIES[2] not in picture.svg
    assert "var(--series-2)" in picture.svg


def test_a_file_is_a_document_on_white_with_its_title(picture: Picture) -> None:
    document = picture.file("svg")
    root = ElementTree.fromstring(document)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.findtext("{http://www.w3.org/2000/svg}title") == "Made & drawn"
    assert "Made & drawn" in ReadPicture(document).texts
    assert f"fill: {PAPER}" in document.decode()
    assert "sans-serif" in document.decode()


def test_a_file_shows_the_same_values_as_the_page(picture: Picture) -> None:
    (line,) = ReadPicture(picture.file("svg")).marks("line")
    assert line.xs == pytest.approx([1, 2, 3], rel=1e-5)
    assert line.ys == pytest.approx([10, 20, 15], rel=1e-5)


def test_a_raster_is_as_wide_as_its_dots_and_opaque(picture: Picture) -> None:
    image = Image.open(io.BytesIO(picture.file("png")))
    assert image.width == round(WIDTH_INCHES * DOTS_PER_INCH)
    assert image.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_files_are_the_same_every_time(picture: Picture, kind: str) -> None:
    again = draw("made", "Made & drawn", 3.0, paint)
    assert picture.file(kind) == again.file(kind)  # type: ignore[arg-type]  # one of the two


@pytest.mark.parametrize(
    ("values", "scale"), [((1, 10), "linear"), ((1, 11), "log"), ((0, 11), "linear")]
)
def test_an_axis_is_logarithmic_where_values_are_far_apart(
    values: tuple[float, float], scale: str
) -> None:
    axes = Figure().subplots()
    axes.plot(values, values)
    scale_axis(axes, "x", values)
    assert axes.get_xscale() == scale
    assert axes.get_yscale() == "linear"


def test_long_names_are_folded_at_blanks_and_end_after_three_lines() -> None:
    name = "ViT-L/10[35]@512+TL16v1fuse@18, run 3, batch 256, bf16, 2 ranks, ZeRO 3"
    lines = folded(name).split("\n")
    assert max(map(len, lines)) <= LINE_LENGTH
    assert " ".join(lines) == name
    lines = folded("x" * 1000).split("\n")
    assert len(lines) == 3
    assert lines[-1].endswith("\N{HORIZONTAL ELLIPSIS}")
    assert max(map(len, lines)) == LINE_LENGTH
