"""Each chart of a report in a file of its own."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tlbench.errors import ReportError
from tlbench.reports.drawing import Chart, ChartFormat
from tlbench.reports.files import write_folder
from tlbench.reports.sections import Section


@dataclass(frozen=True)
class ChartFolder:
    """Where charts go, and as what."""

    folder: Path
    kind: ChartFormat = "svg"
    is_forced: bool = False
    """Whether other files of their names may be written over."""


def write_charts(sections: Iterable[Section], wanted: ChartFolder) -> list[Path]:
    """Write the charts, each under the name of its section; returns the files.

    Raises:
        ReportError: There is none, or something else stands in the way of one.
    """
    files = {
        f"{section.name}.{wanted.kind}": section.chart.picture.file(wanted.kind)
        for section in sections
        if isinstance(section.chart, Chart)
    }
    if not files:
        raise ReportError("nothing was measured that a chart could show")
    return write_folder(wanted.folder, files, is_forced=wanted.is_forced)
