"""One run of a suite: submit the trials one by one, collect, and store each at once."""

import json
import shlex
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tlbench.cluster import Cluster, Finished
from tlbench.db import query
from tlbench.db.store import ResultStore
from tlbench.errors import TlbenchError
from tlbench.frontier import LargestBatches
from tlbench.peaks import with_mfu
from tlbench.result import TrialResult
from tlbench.suites.loader import repeat_suite
from tlbench.suites.spec import Suite, Trial
from tlbench.validity import judge

Learn = Callable[[Trial, TrialResult, float], None]
"""Is told a finished trial, its result, and the seconds that it took."""


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
    learn: Learn | None = None,
    ended_by: Callable[[], str] | None = None,
) -> Generator[Stored, None, None]:
    """Run the trials in order; each is in the database before it is given out.

    A trial that fails is stored with its reason and the run goes on. If the caller
    stops early, or Ctrl-C does, what is finished stays and the run says so. What came
    of a trial is told to `learn`, which may change the trials that follow it; of such a
    run it is stored what it was `ended_by`.
    """
    run_id = store.begin_run(
        suite=suite, source=source, command=command, planned=len(trials)
    )
    batches = LargestBatches(cluster)
    outcome: Literal["finished", "interrupted", "failed"] = "interrupted"
    try:
        for trial in trials:
            finished = _assess(batches.run(trial, suite.trial_timeout_s), store)
            trial_id = store.add_trial(
                run_id,
                trial,
                finished.result,
                started_at=finished.started_at,
                wall_time_s=finished.wall_time_s,
                command=repeat_command(trial, suite.trial_timeout_s),
            )
            if learn is not None:
                learn(trial, finished.result, finished.wall_time_s)
                store.replan(run_id, len(trials))
            yield Stored(run_id, trial_id, finished)
        outcome = "finished"
    except TlbenchError:
        outcome = "failed"
        raise
    finally:
        told = ended_by() if ended_by and outcome == "finished" else None
        store.end_run(run_id, outcome, ended_by=told)


def _assess(finished: Finished, store: ResultStore) -> Finished:
    """Add what its worker could not know: the share of the peak, and the verdict."""
    case, result = finished.trial.case, finished.result
    if result.status == "ok" and result.machine is not None:
        with store.session() as session:
            calibration = query.calibration(session, result.machine)
        result = with_mfu(case, result, calibration)
    validity, doubts = judge(case, result)
    return replace(finished, result=replace(result, validity=validity, doubts=doubts))


def repeat_command(trial: Trial, trial_timeout_s: float) -> str:
    """The one command that runs this trial again, with nothing but tlbench."""
    suite = json.dumps(repeat_suite(trial, trial_timeout_s))
    return f"printf %s {shlex.quote(suite)} | tlbench run -"
