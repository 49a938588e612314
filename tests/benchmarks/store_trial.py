"""Time of storing one finished trial with 1,000 steps in SQLite.

python tests/benchmarks/store_trial.py
"""

import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tlbench.db.store import ResultStore
from tlbench.machine import fingerprint
from tlbench.result import Metric, Series, TrialResult
from tlbench.suites.loader import load_suite
from tlbench.suites.spec import Trial

TARGET_S = 0.020
TRIALS = 200
RESULT = TrialResult(
    "ok",
    metrics=tuple(Metric(f"metric_{i}_s", i / 7) for i in range(30)),
    series=(Series("step_time_s", tuple(i / 7 for i in range(1000))),),
    machine=fingerprint(),
)


def main() -> None:
    suite = load_suite("smoke")
    times = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ResultStore.open(str(Path(folder, "results.db")), create=True) as store,
    ):
        run_id = store.begin_run(
            suite=suite, source="smoke", command="benchmark", planned=TRIALS
        )
        for position in range(TRIALS):
            trial = Trial(suite.cases[0], position, position, seed=position)
            start = time.perf_counter()
            store.add_trial(
                run_id,
                trial,
                RESULT,
                started_at=datetime.now(UTC),
                wall_time_s=1.0,
                command="benchmark",
            )
            times.append(time.perf_counter() - start)
    cuts = statistics.quantiles(times, n=100)
    print(
        f"median {1e3 * cuts[49]:.1f} ms, p99 {1e3 * cuts[98]:.1f} ms;"
        f" target {1e3 * TARGET_S:.0f} ms"
    )


if __name__ == "__main__":
    main()
