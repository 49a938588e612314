"""A process that stores trials: `python add_trials.py LOCATION RUN_ID START STOP`.

It prints the position of each trial once that is stored.
"""

import sys
from datetime import UTC, datetime

from tlbench.db.store import ResultStore
from tlbench.result import Metric, Series, TrialResult
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Trial

METRICS = 30
STEPS = 1000


def main(location: str, run_id: int, start: int, stop: int) -> None:
    case = Case(model=parse_model("ViT-Ti/16"), mode="infer")
    result = TrialResult(
        "ok",
        metrics=tuple(Metric(f"metric_{i}_s", float(i)) for i in range(METRICS)),
        series=(Series("step_time_s", tuple(i / 7 for i in range(STEPS))),),
    )
    with ResultStore.open(location) as store:
        for position in range(start, stop):
            store.add_trial(
                run_id,
                Trial(case, repeat=position, position=position, seed=position),
                result,
                started_at=datetime.now(UTC),
                wall_time_s=1.0,
                command="tlbench run",
            )
            print(position, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *(int(number) for number in sys.argv[2:]))
