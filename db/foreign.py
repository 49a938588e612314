"""Results of other tools as runs of their own: foreign history, marked as such.

What a file does not tell is None. Metrics have our names where they mean the same, and
names of their own where they do not.
"""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tlbench.db import models, optimum_report, timm_results, upkeep
from tlbench.db.foreign_records import (
    TOOLS,
    ForeignCase,
    ForeignRun,
    ForeignTrial,
    Tool,
    UnreadableError,
)
from tlbench.db.store import (
    ResultStore,
    insert_row,
    insert_rows,
    machine_id,
    registered,
)
from tlbench.errors import StoreError

__all__ = [
    "TOOLS",
    "ForeignCase",
    "ForeignRun",
    "ForeignTrial",
    "read_foreign",
    "store_foreign",
]

_CONFIG_BESIDE = "benchmark_config.json"
"""Where optimum-benchmark says of what a report is that lies in the same folder."""


def read_foreign(file: Path, tool: Tool | None = None) -> ForeignRun:
    """Read a file of another tool; which one, its content tells if it is left out."""
    try:
        content = _content(file.read_text(encoding="utf-8-sig"))
        measured_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is no text"
        raise StoreError(f"{file}: {problem}") from error
    if optimum_report.is_report_alone(content):
        content = _with_config(file, content)
    found = _tool_of(content)
    if found is None or tool not in (None, found):
        wanted = tool or " or ".join(TOOLS)
        raise StoreError(
            f"{file} is not what {wanted} writes: the --results-file of timm's"
            " benchmark.py has the columns model and infer_... or train_..., and"
            " optimum-benchmark's benchmark.json has config and report"
        )
    try:
        return _READERS[found](file.name, content, measured_at)
    except UnreadableError as error:
        raise StoreError(f"{file}: {error}") from error


def _content(text: str) -> Any:
    """What the file says: JSON, or the rows of a CSV."""
    try:
        return _as_rows(json.loads(text))
    except json.JSONDecodeError:
        return list(csv.DictReader(io.StringIO(text)))


def _as_rows(content: Any) -> Any:
    """Of timm's JSON a list, for a single model too."""
    return [content] if timm_results.is_timm([content]) else content


def _with_config(file: Path, report: Any) -> Any:
    beside = file.with_name(_CONFIG_BESIDE)
    try:
        return {"config": json.loads(beside.read_text()), "report": report}
    except (OSError, json.JSONDecodeError) as error:
        raise StoreError(
            f"{file} is a report that does not say of which model; benchmark.json"
            f" would be right, or {_CONFIG_BESIDE} beside it"
        ) from error


def _tool_of(content: Any) -> Tool | None:
    if timm_results.is_timm(content):
        return "timm"
    return "optimum-benchmark" if optimum_report.is_optimum(content) else None


def _timm_run(name: str, rows: Any, measured_at: datetime) -> ForeignRun:
    return ForeignRun("timm", name, rows, timm_results.read(rows), measured_at)


def _optimum_run(name: str, content: Any, measured_at: datetime) -> ForeignRun:
    return ForeignRun(
        "optimum-benchmark",
        name,
        content,
        optimum_report.read(content),
        measured_at,
        optimum_report.version_of(content),
    )


_READERS = {"timm": _timm_run, "optimum-benchmark": _optimum_run}


def store_foreign(
    store: ResultStore, run: ForeignRun, *, command: str, tags: Sequence[str] = ()
) -> tuple[int, bool]:
    """Store a run of another tool; returns its id, and whether it is new.

    One that is there already stays as it is.
    """
    with store.transaction() as session:
        known = session.scalar(select(models.Run.id).filter_by(uid=run.uid))
        if known is not None:
            return known, False
        run_id = insert_row(session, models.Run, _run_row(run, command))
        upkeep.add_tags(session, run_id, tags)
        for position, trial in enumerate(run.trials):
            _add_trial(session, run_id, position, trial, run.measured_at)
    return run_id, True


def _run_row(run: ForeignRun, command: str) -> dict[str, Any]:
    return {
        "uid": run.uid,
        "origin": run.tool,
        "suite": run.tool,
        "description": f"Imported from {run.source}",
        "suite_json": {},
        "source": run.source,
        "command": command,
        "status": "finished",
        "planned": len(run.trials),
        "started_at": run.measured_at,
        "ended_at": None,
        "version": run.version,
        "note": "The time is that of the file.",
    }


def _add_trial(
    session: Session,
    run_id: int,
    position: int,
    trial: ForeignTrial,
    measured_at: datetime,
) -> None:
    row: dict[str, Any] = {
        "run_id": run_id,
        "case_id": registered(session, models.ExperimentCase, trial.case.columns),
        "machine_id": trial.machine and machine_id(session, trial.machine),
        "model": trial.case.model,
        "given_name": None,
        "repeat": 0,
        "position": position,
        "seed": trial.seed,
        "status": trial.status,
        "reason": trial.reason,
        "traceback": None,
        "started_at": measured_at,
        "wall_time_s": None,
        "command": "",
        "notes": dict(trial.notes),
        "validity": None,
        "doubts": [],
        "attempts": 1,
        "nodes": [],
    }
    trial_id = insert_row(session, models.Trial, row)
    for table, items in (
        (models.Metric, trial.metrics),
        (models.Series, trial.series),
    ):
        rows = [{"trial_id": trial_id, **vars(item)} for item in items]
        insert_rows(session, table, rows)
