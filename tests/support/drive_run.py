"""A process that drives a run of its own: `python drive_run.py LOCATION TRIALS`.

It prints the id of the run, and the position of each trial once that is stored.
"""

import sys

from support import add_trials
from tlbench.db.store import ResultStore
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Suite


def main(location: str, trials: int) -> None:
    case = Case(model=parse_model("ViT-Ti/16"), mode="infer")
    suite = Suite(name="small", cases=(case,), repeats={"infer": trials})
    with ResultStore.open(location, create=True) as store:
        run_id = store.begin_run(
            suite=suite, source="small.yaml", command="tlbench run", planned=trials
        )
        print(run_id, flush=True)
        add_trials.main(location, run_id, 0, trials)
        store.end_run(run_id, "finished")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
