"""One run of a suite: submit the trials one by one, collect, and store each at once."""

import json
import shlex
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from tlbench.cluster import Cluster, Finished
from tlbench.db.store import ResultStore
from tlbench.errors import TlbenchError
from tlbench.suites.loader import repeat_suite
from tlbench.suites.spec import Suite, Trial


@dataclass(frozen=True)
class Stored:
    """A finished trial and where it is kept."""

    run_id: int
    trial_id: int
    finished: Finished


def run_trials(
    suite: Suite,
    trials: Sequence[Trial],
    cluster: Cluster,
    store: ResultStore,
    *,
    source: str,
    command: str,
) -> Generator[Stored, None, None]:
    """Run the trials in order; each is in the database before it is given out.

    A trial that fails is stored with its reason and the run goes on. If the caller
    stops early, or Ctrl-C does, what is finished stays and the run says so.
    """
    run_id = store.begin_run(
        suite=suite, source=source, command=command, planned=len(trials)
    )
    outcome: Literal["finished", "interrupted", "failed"] = "interrupted"
    try:
        for trial in trials:
            finished = cluster.run(trial, suite.trial_timeout_s)
            trial_id = store.add_trial(
                run_id,
                trial,
                finished.result,
                started_at=finished.started_at,
                wall_time_s=finished.wall_time_s,
                command=repeat_command(trial, suite.trial_timeout_s),
            )
            yield Stored(run_id, trial_id, finished)
        outcome = "finished"
    except TlbenchError:
        outcome = "failed"
        raise
    finally:
        store.end_run(run_id, outcome)


def repeat_command(trial: Trial, trial_timeout_s: float) -> str:
    """The one command that runs this trial again, with nothing but tlbench."""
    suite = json.dumps(repeat_suite(trial, trial_timeout_s))
    return f"printf %s {shlex.quote(suite)} | tlbench run -"
