"""The report: everything stored about some runs as one HTML file without a network."""

import json
import math
import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from sqlalchemy.orm import Session

from tlbench.db.query import RunRecord
from tlbench.reports.against import (
    against_finding,
    against_note,
    against_table,
    compare_with,
)
from tlbench.reports.cases import CaseTrials, gather, settings
from tlbench.reports.cells import Table
from tlbench.reports.chart_files import ChartFolder, write_charts
from tlbench.reports.claims.judge import judge
from tlbench.reports.claims.records import JudgedClaim
from tlbench.reports.claims.tables import describe
from tlbench.reports.compare import Comparison, comparisons
from tlbench.reports.contents import Link, contents, in_order
from tlbench.reports.drawing import Chart, drawn_together
from tlbench.reports.evidence import Evidence, read_evidence
from tlbench.reports.files import Form, check_destination, form_of, write_whole
from tlbench.reports.findings import Finding, find
from tlbench.reports.markdown_report import markdown_report
from tlbench.reports.quantities import QUANTITIES
from tlbench.reports.sections import Section, sections
from tlbench.reports.tables import case_table
from tlbench.reports.tidy import Row, case_rows, metric_names, trial_rows
from tlbench.statistics import EQUIVALENCE_BAND, LEVEL, NOISE_FLOOR
from tlbench.units import UNKNOWN, format_bytes, format_duration, format_number

STDOUT = "-"


def write_report(
    session: Session,
    run_ids: Sequence[int],
    destination: Path,
    *,
    run_names: Mapping[int, str] | None = None,
    base: str | None = None,
    form: Form | None = None,
    charts: ChartFolder | None = None,
) -> None:
    """Write the report whole or not at all, and its charts first if they are wanted.

    Args:
        session: Of the database that holds all of it.
        run_ids: The runs to report on.
        destination: The file, or `-` for standard output.
        run_names: What runs are called instead of by their numbers.
        base: A run or a selection that the runs are held against.
        form: What to write; what the destination's suffix says if that is not given.
        charts: Where each chart goes too, in a file of its own.
    """
    form = form or form_of(destination)
    if str(destination) != STDOUT:
        check_destination(destination)
    evidence = read_evidence(session, run_ids, run_names)
    if base is not None:
        against = compare_with(session, base, run_ids, run_names)
        evidence = replace(evidence, against=against)
    content = _Content(evidence)
    if charts is not None:
        write_charts(content.sections, charts)
    text = markdown_report(evidence) if form == "markdown" else _page(content)
    if str(destination) == STDOUT:
        sys.stdout.write(text)
    else:
        write_whole(destination, text.encode())


@dataclass(frozen=True)
class _Content:
    """What a report tells; worked out once, and only where it is asked for."""

    evidence: Evidence

    @cached_property
    def cases(self) -> list[CaseTrials]:
        told = self.evidence
        return gather(told.runs, told.trials, told.floors, told.names)

    @cached_property
    def compared(self) -> list[Comparison]:
        return comparisons(self.cases)

    @cached_property
    def judged(self) -> tuple[JudgedClaim, ...]:
        return judge(self.cases, self.compared)

    @cached_property
    def sections(self) -> list[Section]:
        """In their order."""
        told = self.evidence
        asked = sections(
            self.cases,
            self.compared,
            self.judged,
            told.curves,
            told.history,
            told.maps,
        )
        return in_order([*_section_against(told), *asked])


def render(evidence: Evidence) -> str:
    """The page; the template escapes everything that came from users or errors."""
    return _page(_Content(evidence))


def _page(content: _Content) -> str:
    evidence, told = content.evidence, content.sections
    findings = find(content.cases, content.compared)
    findings += tuple(_finding_against(evidence))
    pictures = [s.chart.picture for s in told if isinstance(s.chart, Chart)]
    with drawn_together(pictures):
        table = case_table(content.cases, content.compared)
        raw_data = _script_json(_raw_data(content))
    title = f"The answer in {_NUMBERS[len(findings)]} sentences"
    environment = _environment()
    script = _static(environment, "script.js")
    return environment.get_template("page.html").render(
        runs=evidence.runs,
        names=evidence.names,
        machines=evidence.machines,
        trials=evidence.trials,
        failures=[trial for trial in evidence.trials if trial.status != "ok"],
        findings=findings,
        answer_title=title,
        contents=contents([*_links(told), *FIXED]),
        sections=told,
        table=table,
        facets=_facets(table),
        level_percent=round(100 * LEVEL),
        band_percent=round(100 * EQUIVALENCE_BAND),
        floor_percents=[format_number(100 * f, 2) for f in _floors(evidence)],
        raw_data=raw_data,
        style=_static(environment, "style.css"),
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        version=version("tlbench"),
    )


FIXED = (
    Link("asked", "What was asked"),
    Link("answer", "The answer"),
    Link("cases", "All cases"),
    Link("failures", "Failures"),
    Link("method", "Method"),
    Link("provenance", "Provenance"),
)
"""Sections that every report has, which stand in the template."""
_NUMBERS = {3: "three", 4: "four", 5: "five"}
MOST_EXACT = 2.0**53
"""Beyond it, a float is a whole number by rounding."""


def _links(told: Sequence[Section]) -> list[Link]:
    """In the order of the page."""
    return [Link(section.name, section.title) for section in told]


def _section_against(evidence: Evidence) -> Iterator[Section]:
    if evidence.against is not None:
        table, note = against_table(evidence.against), against_note(evidence.against)
        yield Section("against", f"Against {evidence.against.name}", None, table, note)


def _finding_against(evidence: Evidence) -> Iterator[Finding]:
    if evidence.against is not None:
        yield against_finding(evidence.against)


def _facets(table: Table) -> dict[str, list[str]]:
    """What cases can be chosen by: the names that have several values, with these."""
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for row in table.rows:
        for name, several in row.facets.items():
            values[name].update(dict.fromkeys(several.split("|")))
    return {name: [*found] for name, found in values.items() if len(found) > 1}


def _floors(evidence: Evidence) -> list[float]:
    """The noise floors that verdicts keep to, each once."""
    return sorted(set(evidence.floors.values())) or [NOISE_FLOOR]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tlbench.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = _moment
    environment.filters["bytes"] = format_bytes
    environment.filters["duration"] = format_duration
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["text"] = _text
    environment.globals["unknown"] = UNKNOWN
    environment.globals["zip"] = zip
    return environment


def _moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _text(text: str) -> Markup:
    """Escaped as text between tags needs it; quotes, of which JSON is full, stay."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return Markup(text)


def _static(environment: jinja2.Environment, name: str) -> Markup:
    """A style or script of ours, which goes into the page as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _raw_data(content: _Content) -> dict[str, Any]:
    """What the page offers for download; tables as columns and rows, to stay small.

    Once only: settings stand with the case, commands in the table of all trials.
    """
    evidence, cases = content.evidence, content.cases
    told = [*dict.fromkeys(n for case in cases for n in settings(case.case))]
    places = [place for place, case in enumerate(cases) for _ in case.trials]
    left_out = {*told, "command"}
    trials = [
        {name: v for name, v in row.items() if name not in left_out} | {"case_row": n}
        for row, n in zip(trial_rows(cases), places, strict=True)
    ]
    shown = [name for name in metric_names(cases) if name in QUANTITIES]
    return {
        "runs": [_without_suite(run) for run in evidence.runs],
        "machines": [asdict(record) for record in evidence.machines],
        "settings": told,
        "trials": _columns_and_rows(trials),
        "cases": _columns_and_rows(case_rows(cases, shown)),
        "claims": describe(content.judged),
    }


def _without_suite(run: RunRecord) -> dict[str, Any]:
    """The cases say it too."""
    return {name: v for name, v in asdict(run).items() if name != "suite_json"}


def _columns_and_rows(rows: Sequence[Row]) -> dict[str, list[Any]]:
    columns = list(rows[0]) if rows else []
    return {"columns": columns, "rows": [list(map(_plain, r.values())) for r in rows]}


def _plain(value: object) -> object:
    """Whole numbers without a decimal point, and null where there is no value."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < MOST_EXACT else value


def _script_json(data: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False, default=str, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
