"""Pictures: on the page, and in files of their own."""

import io
import re
import sys
import threading
import xml.etree.ElementTree as ElementTree
from importlib.resources import files

import pytest
from matplotlib.figure import Figure
from PIL import Image

from support.svg_values import Picture as ReadPicture
from tlbench.errors import ReportError
from tlbench.reports.drawing import (
    CSS_COLOURS,
    DOTS_PER_INCH,
    LINE_LENGTH,
    MAX_ROWS,
    PAPER,
    SERIES,
    WIDTH_INCHES,
    Picture,
    draw,
    drawn_together,
    folded,
    mark,
    scale_axis,
    shared,
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


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of other tests that keeps this process from forking."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.delitem(sys.modules, "ray", raising=False)


def made() -> list[Picture]:
    return [draw(name, "Made", 3.0, paint) for name in ("one", "two", "three")]


@pytest.mark.usefixtures("two_cores")
def test_pictures_drawn_together_are_those_drawn_one_by_one() -> None:
    together = made()
    with drawn_together(together):
        pass
    assert all("svg" in vars(picture) for picture in together)
    assert [p.svg for p in together] == [p.svg for p in made()]


@pytest.mark.usefixtures("two_cores")
def test_an_error_of_a_picture_comes_out_as_it_is() -> None:
    def fail(_: Figure) -> None:
        raise ReportError("nothing to paint with")

    pictures = [*made(), draw("failed", "Failed", 3.0, fail)]
    with (
        pytest.raises(ReportError, match="nothing to paint with"),
        drawn_together(pictures),
    ):
        pass


@pytest.mark.usefixtures("two_cores")
def test_a_process_with_other_threads_does_not_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    pictures = made()
    with drawn_together(pictures):
        pass
    assert not any("svg" in vars(picture) for picture in pictures)


def test_panels_share_the_rows_of_a_chart() -> None:
    panels = {"a": list(range(100)), "b": [1, 2], "c": list(range(100))}
    rows = [len(members) for members in shared(panels).values()]
    assert rows == [11, 2, 11]
    assert sum(rows) == MAX_ROWS


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
