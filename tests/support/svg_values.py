"""Values read back from the SVG of a chart, as an eye reads them: off its axes.

Every mark that `tlbench.reports.drawing.mark` named is found by that name. Its
coordinates become values through the ticks of its panel: their places and the numbers
written beside them. Where ticks have names, the nearest name is read.
"""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from tlbench.reports.drawing import Chart, NoChart

Point = tuple[float, float]
Scale = tuple[Callable[[float], float], Callable[[float], float]]
SCALES: tuple[Scale, ...] = ((float, float), (math.log, math.exp))
"""Linear and logarithmic: to what is even on the paper, and back."""
NEAR = 0.01
"""A scale fits where no tick is farther from its place than this, in points."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_MINUS = str.maketrans("\N{MINUS SIGN}", "-", ",")


class Tick(NamedTuple):
    place: float
    """On the paper."""
    text: str


@dataclass(frozen=True)
class Axis:
    """One direction of a panel."""

    ticks: Sequence[Tick]

    def value(self, place: float) -> float:
        """What stands at a place, by the numbers at the ticks."""
        places = [tick.place for tick in self.ticks]
        numbers = [float(tick.text.translate(_MINUS)) for tick in self.ticks]
        for there, back in SCALES:
            if there is math.log and min(numbers) <= 0:
                continue
            even = [there(number) for number in numbers]
            fit = np.polyfit(even, places, 1)
            if np.allclose(np.polyval(fit, even), places, rtol=0, atol=NEAR):
                return back(float((place - fit[1]) / fit[0]))
        raise ValueError(f"neither linear nor logarithmic: {self.ticks}")

    def name(self, place: float) -> str:
        """The text of the nearest tick."""
        return min(self.ticks, key=lambda tick: abs(tick.place - place)).text


@dataclass(frozen=True)
class Mark:
    """What shows one value or one series."""

    points: Sequence[Point]
    """On the paper."""
    style: str
    x: Axis
    y: Axis

    @property
    def xs(self) -> list[float]:
        return [self.x.value(x) for x, _ in self.points]

    @property
    def ys(self) -> list[float]:
        return [self.y.value(y) for _, y in self.points]

    @property
    def centre(self) -> Point:
        """On the paper."""
        xs, ys = zip(*self.points, strict=True)
        return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2

    @property
    def row(self) -> str:
        """The name beside it."""
        return self.y.name(self.centre[1])

    @property
    def column(self) -> str:
        """The name below it."""
        return self.x.name(self.centre[0])

    def holds(self, point: Point) -> bool:
        """Whether a place on the paper lies inside."""
        (x, y), (xs, ys) = point, zip(*self.points, strict=True)
        return bool(min(xs) <= x <= max(xs) and min(ys) <= y <= max(ys))


class Picture:
    """A chart on the page, or in a file of its own."""

    def __init__(self, chart: Chart | NoChart | bytes) -> None:
        assert not isinstance(chart, NoChart), chart.reason
        svg = chart.svg if isinstance(chart, Chart) else chart.decode()
        root = ElementTree.fromstring(re.sub(r'\sxmlns="[^"]*"', "", svg))
        title = root.get("aria-labelledby")  # ids on the page begin with the name
        self._prefix = title.removesuffix("title") if title else ""
        self._root = root
        self.texts = [text for _, text in _texts(root)]

    @property
    def panels(self) -> list[ElementTree.Element]:
        return self._groups(self._root, r"axes_\d+")

    def marks(self, kind: str, panel: int = 0) -> list[Mark]:
        """Of one kind, in the order of their places."""
        group = self.panels[panel]
        x, y = self.axis("x", panel), self.axis("y", panel)
        pattern = rf"{kind}-{panel}-\d+"
        return [
            Mark(list(_points(found)), _style(found), x, y)
            for found in sorted(
                self._groups(group, pattern),
                key=lambda g: int(g.attrib["id"].rpartition("-")[2]),
            )
        ]

    def by_row(self, kind: str, panel: int = 0) -> dict[str, Mark]:
        """The marks of one kind, by the name beside each."""
        return {mark.row: mark for mark in self.marks(kind, panel)}

    def axis(self, direction: Literal["x", "y"], panel: int = 0) -> Axis:
        ticks = self._groups(self.panels[panel], rf"{direction}tick_\d+")
        return Axis([_tick(tick, direction) for tick in ticks])

    def written(self, panel: int = 0) -> list[tuple[Point, str]]:
        """The texts of a panel, and where on the paper they stand."""
        return list(_texts(self.panels[panel]))

    def _groups(
        self, inside: ElementTree.Element, pattern: str
    ) -> list[ElementTree.Element]:
        name = re.compile(re.escape(self._prefix) + pattern)
        return [g for g in inside.iter("g") if name.fullmatch(g.get("id", ""))]


def _points(mark: ElementTree.Element) -> Iterator[Point]:
    """The places of its markers where it has any, else the corners of its path."""
    markers = [(float(u.attrib["x"]), float(u.attrib["y"])) for u in mark.iter("use")]
    yield from markers or _corners(mark)


def _corners(mark: ElementTree.Element) -> Iterator[Point]:
    for path in mark.iterfind("path"):
        numbers = [float(number) for number in _NUMBER.findall(path.attrib["d"])]
        yield from zip(numbers[::2], numbers[1::2], strict=True)


def _style(mark: ElementTree.Element) -> str:
    return "; ".join(element.get("style", "") for element in mark.iter())


def _tick(tick: ElementTree.Element, direction: Literal["x", "y"]) -> Tick:
    """At its grid line where it has one, which is exact; else at its text."""
    texts = list(_texts(tick))
    lines = [point for group in tick.iter("g") for point in _corners(group)]
    across = 0 if direction == "x" else 1
    places = [point[across] for point in lines or [place for place, _ in texts]]
    return Tick(float(np.mean(places)), "\n".join(text for _, text in texts))


def _texts(inside: ElementTree.Element) -> Iterator[tuple[Point, str]]:
    for text in inside.iter("text"):
        if "x" in text.attrib:
            place = float(text.attrib["x"]), float(text.attrib["y"])
        else:  # lines of a text are moved to where they stand
            x, y = _NUMBER.findall(text.attrib["transform"])[:2]
            place = float(x), float(y)
        yield place, "".join(text.itertext())
