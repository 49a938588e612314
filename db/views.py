"""Views for people who bring SQL: `trial_view` and `metric_view`.

They are no part of the history of the schema: every upgrade makes them anew, as they
stand here.
"""

from sqlalchemy import Connection, text

MAIN_METRICS = (
    "throughput_samples_per_s",
    "step_time_p50_s",
    "latency_p50_s",
    "peak_memory_allocated_bytes",
    "peak_memory_host_growth_bytes",
    "energy_j_per_sample",
    "mfu",
    "macs",
    "params",
    "top1_percent",
    "map_percent",
    "fewshot_5_top1_percent",
    "time_to_accuracy_s",
)
"""Metrics that are columns of `trial_view`."""

_METRIC_COLUMN = """
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = '{name}' AND metric.rank = -1
    ) AS {name}"""
# Sought for one trial at a time, and only where a query names the column.
_TRIAL = f"""
CREATE VIEW trial_view AS
SELECT
    trial.id AS trial, trial.run_id AS run, run.suite, run.origin, trial.started_at,
    trial.model, experiment_case.identity AS identity, experiment_case.mode,
    experiment_case.data, experiment_case.image_size, experiment_case.batch_size,
    experiment_case.precision, experiment_case.device, experiment_case.zero_stage,
    experiment_case.world_size, machine.hostname AS machine,
    machine.gpu_name AS gpu, machine.cpu_model AS cpu, trial.repeat, trial.status,
    trial.reason, trial.validity, trial.wall_time_s,
    {",".join(_METRIC_COLUMN.format(name=name) for name in MAIN_METRICS)}
FROM trial
JOIN run ON run.id = trial.run_id
JOIN experiment_case ON experiment_case.id = trial.case_id
LEFT JOIN machine ON machine.id = trial.machine_id
"""
_METRIC = """
CREATE VIEW metric_view AS
SELECT
    trial.id AS trial, trial.run_id AS run, run.suite, trial.started_at, trial.model,
    experiment_case.identity AS identity, experiment_case.mode, trial.status,
    trial.validity, machine.hostname AS machine, machine.gpu_name AS gpu,
    metric.name AS metric, metric.rank, metric.value, metric.reason
FROM metric
JOIN trial ON trial.id = metric.trial_id
JOIN run ON run.id = trial.run_id
JOIN experiment_case ON experiment_case.id = trial.case_id
LEFT JOIN machine ON machine.id = trial.machine_id
"""
VIEWS = {"trial_view": _TRIAL, "metric_view": _METRIC}


def create(connection: Connection) -> None:
    for statement in VIEWS.values():
        connection.execute(text(statement))


def drop(connection: Connection) -> None:
    """Take them away, where they are: a table that a view reads cannot be altered."""
    for name in VIEWS:
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))
