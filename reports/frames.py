"""Tidy pandas frames: one row a trial, and one row a case."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tlbench.db.query import TrialRecord
from tlbench.reports.cases import CaseTrials, describe_statuses, settings
from tlbench.reports.quantities import STAGES
from tlbench.statistics import Direction

DIRECTIONS: dict[str, Direction] = {
    "params": "lower",
    "trainable_params": "lower",
    "macs": "lower",
    "flops": "lower",
    "train_flops": "lower",
    "import_time_s": "lower",
    "build_time_s": "lower",
    "load_time_s": "lower",
    "first_step_time_s": "lower",
    "compile_time_s": "lower",
    "graph_breaks": "lower",
    "throughput_samples_per_s": "higher",
    "throughput_per_device_samples_per_s": "higher",
    "step_time_p50_s": "lower",
    "step_time_p90_s": "lower",
    "step_time_p99_s": "lower",
    "outlier_steps": "lower",
    "data_wait_fraction": "lower",
    "input_throughput_samples_per_s": "higher",
    "input_throughput_per_worker_samples_per_s": "higher",
    "kept_batch_step_time_s": "lower",
    "input_workers_needed": "lower",
    "compute_time_s": "lower",
    "communication_fraction": "lower",
    "rank_step_time_spread_fraction": "lower",
    "mfu": "higher",
    "energy_j_per_sample": "lower",
    "latency_p50_s": "lower",
    "latency_p90_s": "lower",
    "latency_p99_s": "lower",
    "peak_memory_allocated_bytes": "lower",
    "peak_memory_reserved_bytes": "lower",
    "peak_memory_device_used_bytes": "lower",
    "peak_memory_host_rss_bytes": "lower",
    "peak_memory_host_growth_bytes": "lower",
    "max_batch_size": "higher",
    "smallest_failing_batch_size": "higher",
    **{
        f"stage_{stage}_{quantity}": "lower"
        for stage in STAGES
        for quantity in ("time_s", "macs", "memory_bytes")
    },
    "loss": "lower",
    "top1_percent": "higher",
    "top5_percent": "higher",
    "time_to_accuracy_s": "lower",
    "train_time_s": "lower",
}
"""Which way each metric gets better; one that is not here cannot be better."""


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


def trial_frame(cases: Sequence[CaseTrials]) -> pd.DataFrame:
    """One row a trial: where it stands, its settings, and its metrics as columns."""
    metrics = metric_names(cases)
    return pd.DataFrame(
        [
            _trial_columns(trial) | {name: trial.metrics.get(name) for name in metrics}
            for case in cases
            for trial in case.trials
        ]
    )


def case_frame(
    cases: Sequence[CaseTrials], metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row a case: each metric's median, and `.low`, `.high` and `.n` beside it.

    Of these metrics; of all that some trial has, where none are named.
    """
    metrics = metric_names(cases) if metrics is None else metrics
    return pd.DataFrame(
        [_case_columns(case) | _summary_columns(case, metrics) for case in cases]
    )


def _trial_columns(trial: TrialRecord) -> dict[str, Any]:
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


def _case_columns(case: CaseTrials) -> dict[str, Any]:
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


def _summary_columns(case: CaseTrials, metrics: Sequence[str]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
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
