"""The report: everything stored about some runs as one HTML file without a network."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from sqlalchemy.orm import Session

from tlbench.calibrate import noise_floor
from tlbench.db import query
from tlbench.db.query import MachineRecord, RunRecord, TrialRecord
from tlbench.errors import ReportError
from tlbench.models.publication import MISPRINT_MARK
from tlbench.reports.cases import CaseTrials, Floors, gather
from tlbench.reports.cells import Table
from tlbench.reports.charts import (
    Chart,
    Curves,
    NoChart,
    Palette,
    accuracy_chart,
    frontier_chart,
    memory_chart,
    speedup_chart,
    stage_chart,
    throughput_chart,
    training_chart,
)
from tlbench.reports.compare import Comparison, comparisons
from tlbench.reports.findings import find
from tlbench.reports.frames import case_frame, trial_frame
from tlbench.reports.frontier import frontier_table
from tlbench.reports.inputs import input_table
from tlbench.reports.scaling import scaling_table
from tlbench.reports.stacks import stack_table
from tlbench.reports.tables import (
    case_table,
    comparison_table,
    cost_table,
    memory_table,
    stage_table,
)
from tlbench.reports.trust import machine_table, trust_table
from tlbench.statistics import EQUIVALENCE_BAND, LEVEL, NOISE_FLOOR
from tlbench.units import UNKNOWN, format_bytes, format_duration, format_number

CURVES = ("loss", "eval_top1_percent")
COST_NOTE = (
    "The closed form, torch's counter and DeepSpeed's profiler count each model on"
    " their own. Checked in every trial: the parameters exactly, the multiply-adds of"
    " torch's counter layer by layer against the closed form, and those of DeepSpeed's"
    " profiler module by module against torch's; a trial in which they differ fails."
    " The model of a builder is counted by torch alone. Tokens, values and the place of"
    " TokenLearner are checked by tlbench models --certify. Published GFLOPS are"
    " multiply-adds and half of all other operations, and so are ours beside them;"
    f" {MISPRINT_MARK} marks what is misprinted there."
)

SCALING_NOTE = (
    "Efficiency is the throughput over that on the fewest devices, over the ratio of"
    " the numbers of devices. Strong: the whole batch stays the same; weak: that of"
    " each device does."
)
STACKS_NOTE = (
    "The same steps by torch in a plain process, by processes of torchrun, in workers"
    " of Ray, and under DeepSpeed in these; each against the first of them that ran."
)
INPUT_NOTE = (
    "The same case with batches from the loader and with one kept batch. Workers"
    " needed: as many as would feed the model at the speed it has with the kept batch,"
    " given cores of their own."
)
MACHINE_NOTE = (
    "Sampled or counted while the steps were timed; on a GPU through NVML, on a CPU"
    " from what the kernel tells."
)
TRUST_NOTE = (
    "Each trial is judged when it is stored. Suspect: shown, and used with care."
    " Invalid: no gate uses it. Flat: the steps keep their level; warming and slowing:"
    " they get faster or slower while they are timed; none: they have no level. Every"
    " step is kept. Trials apart: the standard deviation over the trials, which is what"
    " the intervals are made of."
)


@dataclass(frozen=True)
class Evidence:
    """All that a report is made from."""

    runs: Sequence[RunRecord]
    machines: Sequence[MachineRecord]
    trials: Sequence[TrialRecord]
    curves: Curves
    floors: Floors = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """One question of the report, its picture, and its table where there is one."""

    name: str
    title: str
    chart: Chart | NoChart | None
    """None: the table says it all."""
    table: Table | None = None
    note: str = ""
    """What has to be known to read the table."""


def check_destination(destination: Path) -> None:
    """Raise ReportError where no report could be written; before a run, not after."""
    target = destination.resolve()
    if target.exists() and not target.is_file():
        raise ReportError(f"{destination}: the report needs a file, and this is none")
    if not target.parent.is_dir():
        raise ReportError(f"{destination}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ReportError(f"{destination}: {target.parent} cannot be written to")


def write_report(session: Session, run_ids: Sequence[int], destination: Path) -> None:
    """Write the page beside its destination first, so that no half of it is seen."""
    check_destination(destination)
    target = destination.resolve()
    page = build_page(session, run_ids)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(page, encoding="utf-8")
        unfinished.replace(target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ReportError(
            f"{destination}: the report cannot be written there: {error.strerror}"
        ) from error


def build_page(session: Session, run_ids: Sequence[int]) -> str:
    """The report on the runs, as HTML."""
    return render(read_evidence(session, run_ids))


def read_evidence(session: Session, run_ids: Sequence[int]) -> Evidence:
    trials = query.trials(session, run_ids)
    machines = query.machines(session, run_ids)
    trained = [trial.id for trial in trials if trial.case.mode == "fit"]
    hosts = {record.id: record.machine for record in machines}
    used = {(t.machine_id, t.case.device): t.case for t in trials if t.machine_id}
    return Evidence(
        runs=[query.run(session, run_id) for run_id in run_ids],
        machines=machines,
        trials=trials,
        curves=query.series(session, trained, CURVES),
        floors={
            (machine_id, device): noise_floor(session, hosts[machine_id], case)
            for (machine_id, device), case in used.items()
        },
    )


def render(evidence: Evidence) -> str:
    """The page; the template escapes everything that came from users or errors."""
    cases = gather(evidence.runs, evidence.trials, evidence.floors)
    compared = comparisons(cases)
    environment = _environment()
    return environment.get_template("page.html").render(
        runs=evidence.runs,
        machines=evidence.machines,
        hosts={record.id: record.machine.hostname for record in evidence.machines},
        trials=evidence.trials,
        failures=[trial for trial in evidence.trials if trial.status != "ok"],
        cases=cases,
        findings=find(cases, compared),
        sections=_sections(cases, compared, evidence.curves),
        table=case_table(cases, compared),
        level_percent=round(100 * LEVEL),
        band_percent=round(100 * EQUIVALENCE_BAND),
        floor_percents=[format_number(100 * f, 2) for f in _floors(evidence)],
        raw_data=_script_json(_raw_data(evidence, cases)),
        style=_static(environment, "style.css"),
        script=_static(environment, "script.js"),
    )


def _floors(evidence: Evidence) -> list[float]:
    """The noise floors that verdicts keep to, each once."""
    return sorted(set(evidence.floors.values())) or [NOISE_FLOOR]


def _sections(
    cases: Sequence[CaseTrials], compared: Sequence[Comparison], curves: Curves
) -> list[Section]:
    palette = Palette(cases)
    return [
        Section("accuracy", "Accuracy against compute", accuracy_chart(cases, palette)),
        Section("throughput", "Throughput", throughput_chart(cases, palette)),
        Section(
            "speed-up",
            "Speed-up: predicted and realised",
            speedup_chart(compared, palette),
            comparison_table(compared),
        ),
        Section(
            "stages", "Where the time goes", stage_chart(cases), stage_table(cases)
        ),
        Section(
            "memory", "Peak memory", memory_chart(cases, palette), memory_table(cases)
        ),
        Section("training", "Training curves", training_chart(cases, curves, palette)),
        *_frontier(cases, palette),
        *_tables(cases),
        *_checked_cost(cases),
        *_trust(cases),
    ]


def _checked_cost(cases: Sequence[CaseTrials]) -> Iterator[Section]:
    """Only of runs that have counted: most reports are about what was measured."""
    table = cost_table(cases)
    if table.rows:
        yield Section("cost", "Cost, checked", None, table, COST_NOTE)


def _frontier(cases: Sequence[CaseTrials], palette: Palette) -> Iterator[Section]:
    table = frontier_table(cases)
    if table.rows:
        chart = frontier_chart(cases, palette)
        yield Section("frontier", "The largest batch that fits", chart, table)


def _tables(cases: Sequence[CaseTrials]) -> Iterator[Section]:
    """Questions that only some suites ask."""
    asked = (
        ("scaling", "More devices", scaling_table, SCALING_NOTE),
        ("stacks", "What each layer costs", stack_table, STACKS_NOTE),
        ("input", "What loading costs", input_table, INPUT_NOTE),
        ("machine", "The machine meanwhile", machine_table, MACHINE_NOTE),
    )
    for name, title, table_of, note in asked:
        table = table_of(cases)
        if table.rows:
            yield Section(name, title, None, table, note)


def _trust(cases: Sequence[CaseTrials]) -> Iterator[Section]:
    table = trust_table(cases)
    if table.rows:
        yield Section("trust", "How far to trust it", None, table, TRUST_NOTE)


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
    environment.globals["unknown"] = UNKNOWN
    return environment


def _moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _static(environment: jinja2.Environment, name: str) -> Markup:
    """A style or script of ours, which goes into the page as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _raw_data(evidence: Evidence, cases: Sequence[CaseTrials]) -> dict[str, Any]:
    """What the page offers for download; tables as columns and rows, to stay small."""
    return {
        "runs": [asdict(run) for run in evidence.runs],
        "machines": [asdict(record) for record in evidence.machines],
        "trials": _columns_and_rows(trial_frame(cases)),
        "cases": _columns_and_rows(case_frame(cases)),
    }


def _columns_and_rows(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Whole numbers without a decimal point, and null where there is no value."""
    typed = frame.replace([math.inf, -math.inf], math.nan).convert_dtypes()
    plain = typed.astype(object).where(typed.notna(), None)
    return {"columns": list(plain.columns), "rows": plain.to_numpy().tolist()}


def _script_json(data: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False, default=str, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
