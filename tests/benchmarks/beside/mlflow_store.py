"""The same trials in mlflow's SQLite store: fills it, then answers as often as asked.

`python mlflow_store.py TLBENCH.db MLFLOW.db FILTER`, with the Python that has mlflow;
started by `history.py`. Prints one JSON object a line: first how many runs there are,
then for every line that it reads the seconds and the rows of one search.
"""

import json
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mlflow.entities import (  # type: ignore[import-not-found]  # a peer's
    ViewType,
)
from mlflow.store.tracking.dbmodels import (  # type: ignore[import-not-found]  # a peer's
    models,
)
from mlflow.store.tracking.sqlalchemy_store import (  # type: ignore[import-not-found]  # a peer's
    SqlAlchemyStore,
)

EXPERIMENT = "0"
PAGE = 1000
CHUNK = 20_000
SETTINGS = ("model", "mode", "precision", "batch_size", "gpu", "status")

_TRIALS = """
    SELECT trial.id, model, mode, precision, batch_size, gpu_name, status,
           CAST(1000 * julianday(trial.started_at) * 86400 AS INTEGER)
    FROM trial JOIN experiment_case ON experiment_case.id = case_id
    LEFT JOIN machine ON machine.id = machine_id
"""
_METRICS = """
    SELECT trial_id, name, value FROM metric WHERE rank = -1 AND value IS NOT NULL
"""


def fill(store: SqlAlchemyStore, source: sqlite3.Connection) -> int:
    """Copy trials as runs: settings become params, and every metric a metric."""
    trials = source.execute(_TRIALS).fetchall()
    _insert(store, models.SqlRun, (_run(trial) for trial in trials))
    _insert(store, models.SqlParam, (p for trial in trials for p in _params(trial)))
    for table in (models.SqlMetric, models.SqlLatestMetric):
        _insert(store, table, map(_metric, source.execute(_METRICS)))
    return len(trials)


def _insert(store: SqlAlchemyStore, table: Any, rows: Iterable[dict[str, Any]]) -> None:
    waiting = iter(rows)
    while chunk := list(islice(waiting, CHUNK)):
        with store.ManagedSessionMaker() as session:
            session.bulk_insert_mappings(table, chunk)


def _uuid(trial_id: int) -> str:
    return f"{trial_id:032x}"


def _run(trial: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "run_uuid": _uuid(trial[0]),
        "name": f"trial {trial[0]}",
        "experiment_id": int(EXPERIMENT),
        "status": "FINISHED",
        "lifecycle_stage": "active",
        "start_time": trial[-1],
        "end_time": trial[-1] + 20_000,
        "artifact_uri": "",
        "user_id": "bench",
        "source_type": "LOCAL",
    }


def _params(trial: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    for key, value in zip(SETTINGS, trial[1:-1], strict=True):
        yield {"run_uuid": _uuid(trial[0]), "key": key, "value": str(value)}


def _metric(row: tuple[int, str, float]) -> dict[str, Any]:
    trial_id, name, value = row
    return {
        "run_uuid": _uuid(trial_id),
        "key": name,
        "value": value,
        "timestamp": 0,
        "step": 0,
        "is_nan": False,
    }


def search(store: SqlAlchemyStore, condition: str) -> int:
    """Every page of whole runs; gives how many there are."""
    token, rows = None, 0
    while True:
        page = store.search_runs(
            [EXPERIMENT], condition, ViewType.ACTIVE_ONLY, PAGE, page_token=token
        )
        rows += len([(run.data.metrics, run.data.params) for run in page])
        token = page.token
        if not token:
            return rows


def main(source: str, destination: str, condition: str) -> None:
    store = SqlAlchemyStore(f"sqlite:///{destination}", f"{destination}-artifacts")
    with sqlite3.connect(source) as connection:
        print(json.dumps({"runs": fill(store, connection)}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        rows = search(store, condition)
        spent = time.perf_counter() - start
        print(json.dumps({"time_s": spent, "rows": rows}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
