"""Tidy rows: one a trial, and one a case; `frames` makes pandas frames of them."""

from collections.abc import Sequence
from typing import Any

from tlbench.db.query import TrialRecord
from tlbench.reports.cases import CaseTrials, describe_statuses, settings

Row = dict[str, Any]
"""Values by the names of their columns."""


def metric_names(cases: Sequence[CaseTrials]) -> list[str]:
    """Every metric that some trial has, measured or with a reason, in stored order."""
    return list(
        dict.fromkeys(
            metric
            for case in cases
            for trial in case.trials
            for metric in trial.metrics
        )
    )


def trial_rows(cases: Sequence[CaseTrials]) -> list[Row]:
    """One row a trial: where it stands, its settings, and its metrics as columns."""
    metrics = metric_names(cases)
    return [
        _trial_columns(trial) | {name: trial.metrics.get(name) for name in metrics}
        for case in cases
        for trial in case.trials
    ]


def case_rows(
    cases: Sequence[CaseTrials], metrics: Sequence[str] | None = None
) -> list[Row]:
    """One row a case: each metric's median, and `.low`, `.high` and `.n` beside it.

    Of these metrics; of all that some trial has, where none are named.
    """
    metrics = metric_names(cases) if metrics is None else metrics
    return [_case_columns(case) | _summary_columns(case, metrics) for case in cases]


def _trial_columns(trial: TrialRecord) -> Row:
    return {
        "trial_id": trial.id,
        "run_id": trial.run_id,
        "machine_id": trial.machine_id,
        "case": trial.identity,
        "model": trial.model,
        **settings(trial.case),
        "repeat": trial.repeat,
        "position": trial.position,
        "seed": trial.seed,
        "status": trial.status,
        "reason": trial.reason,
        "validity": trial.validity,
        "doubts": "; ".join(trial.doubts),
        "started_at": trial.started_at.isoformat(),
        "wall_time_s": trial.wall_time_s,
        "command": trial.command,
    }


def _case_columns(case: CaseTrials) -> Row:
    return {
        "run_id": case.run_id,
        "machine_id": case.machine_id,
        "case": case.trials[0].identity,
        "label": case.label,
        "model": case.model,
        **settings(case.case),
        "trials": len(case.trials),
        "finished": len(case.finished),
        "statuses": describe_statuses(case.statuses),
    }


def _summary_columns(case: CaseTrials, metrics: Sequence[str]) -> Row:
    columns: Row = {}
    for name in metrics:
        summary = case.summary(name)
        low, high = summary.interval or (None, None)
        columns |= {
            name: summary.value,
            f"{name}.low": low,
            f"{name}.high": high,
            f"{name}.n": summary.n,
        }
    return columns
