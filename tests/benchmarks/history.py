"""How long a history of 10^4 to 10^6 metric rows takes to answer, and to report.

PYTHONPATH=tests python tests/benchmarks/history.py --mlflow-python MLFLOW/bin/python

mlflow wants an environment of its own: `python -m venv MLFLOW`, then
`MLFLOW/bin/pip install mlflow`. Without the option that part is left out.
"""

import argparse
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from support.long_history import make_history
from tlbench.db.conditions import parse_conditions
from tlbench.db.store import ResultStore
from tlbench.reports.listing import list_trials

P50_S, P95_S = 0.1, 0.3
COMMAND_S = 1.5
REPORT_S, REPORT_BYTES, REPORT_RSS_BYTES = 5.0, 5e6, 500e6
TIMES_FASTER = 10
COMMANDS = 7

MIX = (
    "model=ViT-B/16 mode=infer",
    "model~TL params<100M gpu=H100 precision=bf16",
    "since=2026-10-01 until=2026-10-31",
    "suite=nightly mode=train status=ok",
    "run=190",
    "throughput_samples_per_s>1000 batch_size=128 world_size=8",
    "gpu=A100 peak_memory_allocated_bytes<2GiB torch~2.9",
    "status!=ok",
    "validity=invalid",
    "tag=release step_time_p50_s<50ms model~ViT-S",
    "machine=cpu-01 mode=fit",
    "top1_percent>95 version=0.3.0",
)
"""Questions as people ask them; each is answered with whole rows."""

QUESTION = "model~TL8 precision=bf16 gpu=H100 throughput_samples_per_s>1000"
MLFLOW_QUESTION = (
    "params.model LIKE '%TL8%' AND params.precision = 'bf16'"
    " AND params.gpu LIKE '%H100%' AND metrics.throughput_samples_per_s > 1000"
)
SQL_QUESTION = """
    SELECT trial.id FROM trial
    JOIN experiment_case ON experiment_case.id = trial.case_id
    JOIN machine ON machine.id = trial.machine_id
    JOIN metric ON metric.trial_id = trial.id
    WHERE model LIKE '%TL8%' AND precision = 'bf16' AND gpu_name LIKE '%H100%'
    AND name = 'throughput_samples_per_s' AND rank = -1 AND value > 1000
"""


def ask(store: ResultStore, question: str, columns: Sequence[str] | None = None) -> int:
    """One question from its text to whole rows; gives how many."""
    conditions = parse_conditions(*question.split())
    with store.session() as session:
        return len(list_trials(session, conditions, columns=columns).rows)


def ask_sqlite(db: str) -> int:
    """The question of both tools in plain SQL: the floor."""
    connection = sqlite3.connect(db)
    ids = [row[0] for row in connection.execute(SQL_QUESTION)]
    marks = ",".join("?" * len(ids))
    metrics = f"SELECT trial_id, name, value FROM metric WHERE trial_id IN ({marks})"
    trials = f"SELECT * FROM trial WHERE id IN ({marks})"
    connection.execute(metrics, ids).fetchall()
    rows = connection.execute(trials, ids).fetchall()
    connection.close()
    return len(rows)


def time_s(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure_mix(db: str, rounds: int) -> list[float]:
    """Seconds of every question in every round, the order shuffled in each."""
    order = random.Random(0)
    with ResultStore.open(db, read_only=True) as store:
        for question in MIX:  # what they read of the file then lies in memory
            ask(store, question)
        return [
            time_s(partial(ask, store, question))
            for _ in range(rounds)
            for question in order.sample(MIX, len(MIX))
        ]


def grow(folder: Path, sizes: Sequence[int], rounds: int) -> None:
    print("metric rows   trials   file [MB]   p50 [ms]   p95 [ms]   command [s]")
    for trials in sizes:
        db = str(folder / f"{trials}.db")
        make_history(db, trials=trials, runs=max(1, trials // 50))
        times = measure_mix(db, rounds)
        command = [sys.executable, "-m", "tlbench", "query", *MIX[1].split()]
        call = partial(
            subprocess.run, [*command, "--db", db], stdout=subprocess.DEVNULL
        )
        spent = [time_s(partial(call, check=True)) for _ in range(COMMANDS)]
        p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        size = Path(db).stat().st_size
        print(
            f"{100 * trials:11,} {trials:8,} {size / 1e6:11.1f} {1e3 * p50:10.1f}"
            f" {1e3 * p95:10.1f} {statistics.median(spent):13.2f}"
        )
    print(f"targets at the last: {1e3 * P50_S:.0f}, {1e3 * P95_S:.0f}, {COMMAND_S}")


def report(folder: Path) -> None:
    db, page = folder / "report.db", folder / "report.html"
    make_history(str(db), trials=1000, runs=1, metrics_per_trial=80)
    command = [sys.executable, "-m", "tlbench", "report", str(page), "--db", str(db)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    spent, rss = time.perf_counter() - start, 1024 * used.ru_maxrss
    assert child.returncode == 0, "the report failed"
    print(
        f"report over 1,000 trials: {spent:.2f} s (target {REPORT_S:.0f}),"
        f" {page.stat().st_size / 1e6:.2f} MB ({REPORT_BYTES / 1e6:.0f}),"
        f" {rss / 1e6:.0f} MB of memory ({REPORT_RSS_BYTES / 1e6:.0f})"
    )


def beside(db: str, python: str, rounds: int) -> None:
    """The same question to tlbench, mlflow and plain SQL, in turns."""
    script = Path(__file__).with_name("beside") / "mlflow_store.py"
    arguments = [python, str(script), db, f"{db}.mlflow", MLFLOW_QUESTION]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True) as mlflow,
        ResultStore.open(db, read_only=True) as store,
    ):
        assert mlflow.stdin is not None
        assert mlflow.stdout is not None
        print(f"mlflow holds {json.loads(mlflow.stdout.readline())['runs']:,} runs")
        sides = {
            "tlbench": partial(timed, partial(ask, store, QUESTION, ["*"])),
            "mlflow": partial(ask_mlflow, mlflow.stdin, mlflow.stdout),
            "sqlite3": partial(timed, partial(ask_sqlite, db)),
        }
        answers = [
            {name: side() for name, side in sides.items()} for _ in range(rounds)
        ]
        mlflow.stdin.close()
    tell(answers[1:])  # the first ones read files into memory


def timed(side: Callable[[], int]) -> tuple[float, int]:
    """The seconds and the rows of one answer."""
    start = time.perf_counter()
    rows = side()
    return time.perf_counter() - start, rows


def ask_mlflow(questions: IO[str], answers: IO[str]) -> tuple[float, int]:
    """The same of mlflow, by its own clock."""
    print("again", file=questions, flush=True)
    said = json.loads(answers.readline())
    return said["time_s"], said["rows"]


def tell(answers: Sequence[Mapping[str, tuple[float, int]]]) -> None:
    for name in answers[0]:
        p50 = statistics.median(answer[name][0] for answer in answers)
        print(f"{name:8} p50 {1e3 * p50:8.1f} ms, {answers[0][name][1]} whole rows")
    ratios = [answer["mlflow"][0] / answer["tlbench"][0] for answer in answers]
    print(f"tlbench is {statistics.median(ratios):.1f} x faster; target {TIMES_FASTER}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--mlflow-python")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grow(folder, options.trials, options.rounds)
        report(folder)
        if options.mlflow_python:
            db = str(folder / f"{options.trials[-1]}.db")
            beside(db, options.mlflow_python, options.rounds)


if __name__ == "__main__":
    main()
