"""What the driver adds to a finished trial before it is stored."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from tlbench.cluster import Cluster, Finished
from tlbench.db import query
from tlbench.db.query import TrialRecord
from tlbench.db.store import ResultStore
from tlbench.machine import fingerprint
from tlbench.result import Metric, Series, Status, TrialResult
from tlbench.runner import run_trials
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Suite, Trial

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MACHINE = replace(fingerprint(), gpu_name=None, gpu_count=0)
MEASURED = TrialResult(
    "ok",
    metrics=(
        Metric("flops", 2.5e9),
        Metric("throughput_samples_per_s", 8.0),
        Metric("foreign_cpu_fraction", 0.01),
    ),
    series=(Series("step_time_s", (1.0,) * 10),),
    notes={"steady_state": "flat"},
    machine=MACHINE,
)


class ScriptedCluster:
    """Brings back the same result of every trial."""

    def __init__(self, result: TrialResult) -> None:
        self._result = result

    def run(self, trial: Trial, timeout_s: float) -> Finished:
        return Finished(trial, self._result, NOW, wall_time_s=1.0)


def stored(store: ResultStore, result: TrialResult) -> TrialRecord:
    """What is kept of a trial that ends with `result`, as it was given out too."""
    case = Case(model=parse_model("ViT-Ti/16"), mode="infer")
    suite = Suite(name="one", cases=(case,), repeats={"infer": 1})
    cluster = cast("Cluster", ScriptedCluster(result))
    trials = [Trial(case, repeat=0, position=0, seed=0)]
    (given,) = run_trials(suite, trials, cluster, store, source="", command="")
    with store.session() as session:
        kept = query.trial(session, given.trial_id)
    assert kept.validity == given.finished.result.validity
    assert kept.doubts == given.finished.result.doubts
    return kept


class Growing(list[Trial]):
    """A plan that learns: one more trial for as long as all was well."""

    def learn(self, trial: Trial, result: TrialResult, wall_time_s: float) -> None:
        if result.status == "ok" and len(self) < 3:
            self.append(replace(trial, repeat=len(self), position=len(self)))


@pytest.mark.parametrize(("status", "planned"), [("ok", 3), ("oom", 1)])
def test_what_came_of_a_trial_may_change_those_that_follow(
    store: ResultStore, status: Status, planned: int
) -> None:
    """The run row says how many there are by now."""
    case = Case(model=parse_model("ViT-Ti/16"), mode="infer")
    suite = Suite(name="one", cases=(case,), repeats={"infer": 1})
    result = MEASURED if status == "ok" else TrialResult(status, "a reason")
    cluster = cast("Cluster", ScriptedCluster(result))
    trials = Growing([Trial(case, repeat=0, position=0, seed=0)])
    stored = []
    for item in run_trials(
        suite,
        trials,
        cluster,
        store,
        source="",
        command="",
        learn=trials.learn,
        ended_by=lambda: "time",
    ):
        stored.append(item)
        with store.session() as session:
            record = query.run(session, item.run_id)
        assert record.planned == len(trials)
    assert len(stored) == record.finished == record.planned == planned
    with store.session() as session:
        assert query.run(session, item.run_id).ended_by == "time"


def calibrate(store: ResultStore, flops_per_s: float) -> None:
    store.add_calibration(
        MACHINE, [Metric("matmul_fp32_flops_per_s", flops_per_s)], NOW
    )


def test_mfu_is_held_against_the_calibration_of_the_trials_machine(
    store: ResultStore,
) -> None:
    calibrate(store, 80e9)
    kept = stored(store, MEASURED)
    assert kept.metrics["mfu"] == pytest.approx(2.5e9 * 8 / 80e9)
    assert kept.notes["mfu_against"] == "this machine's measured fp32 matmul ceiling"
    assert (kept.validity, kept.doubts) == ("valid", ())


def test_an_impossible_mfu_makes_a_trial_invalid(store: ResultStore) -> None:
    calibrate(store, 10e9)
    kept = stored(store, MEASURED)
    assert kept.metrics["mfu"] == pytest.approx(2.0)
    assert kept.validity == "invalid"
    assert "the MFU is 2.00" in kept.doubts[0]


def test_mfu_has_a_reason_where_nothing_was_calibrated(store: ResultStore) -> None:
    kept = stored(store, MEASURED)
    assert kept.metrics["mfu"] is None
    assert "`tlbench calibrate` has measured none" in kept.reasons["mfu"]


def test_doubts_are_stored_with_the_trial(store: ResultStore) -> None:
    busy = replace(MEASURED, notes={"steady_state": "slowing"})
    kept = stored(store, busy)
    assert kept.validity == "suspect"
    assert len(kept.doubts) == 1


def test_a_failed_trial_is_neither_judged_nor_held_against_a_peak(
    store: ResultStore,
) -> None:
    kept = stored(store, TrialResult("oom", "out of memory"))
    assert (kept.validity, kept.doubts) == (None, ())
    assert "mfu" not in kept.metrics
