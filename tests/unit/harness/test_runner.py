"""What the driver adds to a finished trial before it is stored."""

import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import pytest

from support.clusters import Ends, SimulatedCluster
from tlbench.cluster import Cluster
from tlbench.db import query
from tlbench.db.query import TrialRecord
from tlbench.db.resume import resume_run
from tlbench.db.store import ResultStore
from tlbench.driver import Driver
from tlbench.errors import StoreAwayError
from tlbench.events import (
    Begun,
    Delayed,
    Event,
    Refused,
    Retried,
    Stored,
    Waiting,
)
from tlbench.machine import fingerprint
from tlbench.placement import Node, Placement
from tlbench.plan import FixedPlan, Plan
from tlbench.result import Metric, Series, Status, TrialResult
from tlbench.runner import run_trials
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case, Parallelism, Suite, Trial

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


class Begin(Protocol):
    """Begins a run and gives out its events."""

    def __call__(
        self,
        plan: Plan | list[Trial],
        cluster: SimulatedCluster,
        attempts: dict[int, int] | None = None,
        **suite: Any,
    ) -> list[Event]: ...


CASE = Case(model=parse_model("ViT-Ti/16"), mode="infer")


def trials_of(count: int, case: Case = CASE) -> list[Trial]:
    return [Trial(case, repeat=k, position=k, seed=k) for k in range(count)]


@pytest.fixture
def begin(store: ResultStore) -> Begin:
    def begin(
        plan: Plan | list[Trial],
        cluster: SimulatedCluster,
        attempts: dict[int, int] | None = None,
        **settings: Any,
    ) -> list[Event]:
        fields = {"name": "one", "cases": (CASE,), "repeats": {"infer": 1}, **settings}
        suite = Suite.model_validate(fields)
        run_id = store.begin_run(
            suite=suite, source="", command="", planned=len(plan), driver=Driver.here()
        )
        whole = FixedPlan(plan) if isinstance(plan, list) else plan
        one = cast("Cluster", cluster)
        return list(run_trials(suite, whole, one, store, run_id, attempts))

    return begin


def ending(*results: TrialResult) -> Ends:
    """Trials end so one after the other, and the last way from then on."""
    left = list(results)
    return lambda trial, placement: left.pop(0) if len(left) > 1 else left[0]


def stored(begin: Begin, store: ResultStore, result: TrialResult) -> TrialRecord:
    """What is kept of a trial that ends with `result`, as it was given out too."""
    events = begin(trials_of(1), SimulatedCluster(ends=ending(result)), retry={})
    begun, given = events
    assert isinstance(begun, Begun)
    assert isinstance(given, Stored)
    with store.session() as session:
        kept = query.trial(session, given.trial_id)
    assert kept.validity == given.finished.result.validity
    assert kept.doubts == given.finished.result.doubts
    assert kept.nodes == begun.nodes == ("laptop",)
    return kept


class Growing(FixedPlan):
    """A plan that learns: one more trial for as long as all was well."""

    ended_by = "time"

    def __init__(self, trial: Trial) -> None:
        self.planned, self.taken = [trial], 0

    def __len__(self) -> int:
        return len(self.planned)

    def take(self) -> Trial | None:
        if self.taken == len(self.planned):
            return None
        self.taken += 1
        return self.planned[self.taken - 1]

    def add(self, trial: Trial, result: TrialResult, wall_time_s: float) -> None:
        count = len(self.planned)
        if result.status == "ok" and count < 3:
            self.planned.append(replace(trial, repeat=count, position=count))


@pytest.mark.parametrize(("status", "planned"), [("ok", 3), ("oom", 1)])
def test_what_came_of_a_trial_may_change_those_that_follow(
    begin: Begin, store: ResultStore, status: Status, planned: int
) -> None:
    """The run row says how many there are by now."""
    result = MEASURED if status == "ok" else TrialResult(status, "a reason")
    cluster = SimulatedCluster(ends=ending(result))
    events = begin(Growing(*trials_of(1)), cluster)
    assert sum(isinstance(event, Stored) for event in events) == planned
    with store.session() as session:
        (record,) = query.runs(session)
    assert record.finished == record.planned == planned
    assert (record.status, record.ended_by) == ("finished", "time")


LOST = TrialResult("lost", "its process died")
OUT = TrialResult("oom", "no memory")


def test_a_lost_trial_runs_again_and_both_attempts_are_stored(
    begin: Begin, store: ResultStore
) -> None:
    cluster = SimulatedCluster(ends=ending(LOST, MEASURED))
    events = begin(trials_of(2), cluster)
    assert [type(event) for event in events] == [Begun, Retried, *(Begun, Stored) * 2]
    with store.session() as session:
        trials = query.trials(session, [1])
        (attempt,) = query.attempts(session, 1)
    assert [(t.status, t.attempts) for t in trials] == [("ok", 2), ("ok", 1)]
    assert (attempt.position, attempt.number, attempt.status) == (0, 1, "lost")
    assert (attempt.reason, attempt.nodes) == ("its process died", ("laptop",))
    assert cluster.checks == 1


@pytest.mark.parametrize(
    ("retry", "ends", "attempts"),
    [
        ({"lost": 0}, [LOST], 1),
        ({"lost": 2}, [LOST], 3),
        ({"lost": 2}, [LOST, LOST, MEASURED], 3),
        ({"oom": 1}, [OUT, MEASURED], 2),
        ({"lost": 1}, [OUT], 1),
        ({"lost": 1, "oom": 1}, [LOST, OUT], 2),
    ],
)
def test_the_suite_says_what_is_tried_again_and_how_often(
    begin: Begin,
    store: ResultStore,
    retry: dict[str, int],
    ends: list[TrialResult],
    attempts: int,
) -> None:
    begin(trials_of(1), SimulatedCluster(ends=ending(*ends)), retry=retry)
    with store.session() as session:
        (trial,) = query.trials(session, [1])
        assert len(query.attempts(session, 1)) == attempts - 1
    assert (trial.status, trial.attempts) == (ends[-1].status, attempts)


def test_attempts_before_a_resumption_count(begin: Begin, store: ResultStore) -> None:
    begin(trials_of(1), SimulatedCluster(ends=ending(LOST)), attempts={0: 1})
    with store.session() as session:
        (trial,) = query.trials(session, [1])
    assert trial.attempts == 2


@pytest.mark.parametrize("resumptions", [1, 3])
def test_what_was_skipped_may_be_so_again_whenever_a_run_is_resumed(
    store: ResultStore, resumptions: int
) -> None:
    """Each time its row becomes an attempt, with a number of its own."""
    large = Case(model=CASE.model, mode="infer", device="cuda")
    suite = Suite(name="one", cases=(large,), repeats={"infer": 1})
    plan, cluster = trials_of(1, large), cast("Cluster", SimulatedCluster())
    run_id = store.begin_run(
        suite=suite, source="", command="", planned=1, plan=plan, driver=Driver.here()
    )
    list(run_trials(suite, FixedPlan(plan), cluster, store, run_id))
    for _ in range(resumptions):
        (place,) = resume_run(store, run_id, Driver.here(), {"skipped"}).missing
        tried = {0: place.attempts}
        list(run_trials(suite, FixedPlan(plan), cluster, store, run_id, tried))
    with store.session() as session:
        (trial,) = query.trials(session, [run_id])
        numbers = [a.number for a in query.attempts(session, run_id)]
    assert (trial.status, trial.attempts) == ("skipped", resumptions + 1)
    assert numbers == list(range(1, resumptions + 1))


def test_trials_run_side_by_side_on_a_cluster(begin: Begin) -> None:
    """As many at once as there are nodes: each waits for all others to begin."""
    together = threading.Barrier(4, timeout=20)

    def meet(trial: Trial, placement: Placement) -> TrialResult:
        together.wait()
        return MEASURED

    nodes = [Node(f"n{k}", f"n{k}", cpus=8) for k in range(4)]
    events = begin(trials_of(8), SimulatedCluster(nodes, meet))
    assert [type(event) for event in events[:4]] == [Begun] * 4
    assert {event.nodes for event in events[:4] if isinstance(event, Begun)} == {
        (f"n{k}",) for k in range(4)
    }
    assert sum(isinstance(event, Stored) for event in events) == 8


def test_what_never_fits_is_skipped_and_the_rest_runs(
    begin: Begin, store: ResultStore
) -> None:
    large = Case(
        model=CASE.model, mode="infer", device="cuda", parallelism=Parallelism()
    )
    trials = [*trials_of(1, large), replace(trials_of(1)[0], position=1)]
    begin(trials, SimulatedCluster(ends=ending(MEASURED)))
    with store.session() as session:
        skipped, ran = query.trials(session, [1])
    assert (skipped.status, ran.status) == ("skipped", "ok")
    assert skipped.reason == (
        "needs 1 x cuda on 1 node(s); the cluster has a node with 2 CPUs and 0 GPUs"
    )


def test_what_others_hold_for_too_long_is_lost(
    begin: Begin, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said what is waited for, and a case for other nodes goes on meanwhile."""
    monkeypatch.setattr("tlbench.runner.LAG_S", 0.0)
    monkeypatch.setattr("tlbench.runner.LOOK_FOR_OTHERS_S", 0.05)
    large = Case(
        model=CASE.model,
        mode="infer",
        parallelism=Parallelism(world_size=2, nodes=2),
    )
    trials = [*trials_of(1, large), replace(trials_of(1)[0], position=1)]
    nodes = [Node("a", "a", cpus=8), Node("b", "b", cpus=8)]
    cluster = SimulatedCluster(nodes, ending(MEASURED))
    cluster.schedule.update(nodes[:1])
    cluster.schedule.update(nodes[1:])
    events = begin(trials, cluster, placement_timeout_s=0.3)
    kinds = [type(event) for event in events]
    assert kinds.count(Waiting) == 1
    assert kinds[-1] is Stored
    with store.session() as session:
        lost, ran = query.trials(session, [1])
    assert (lost.status, ran.status) == ("lost", "ok")
    assert lost.reason == (
        "nothing became free in 300 ms: needs 2 x cpu on 2 node(s);"
        " left is a node with 8 CPUs and 0 GPUs"
    )


def test_a_node_that_trials_may_not_run_on_is_told_once(begin: Begin) -> None:
    cluster = SimulatedCluster(ends=ending(MEASURED))
    cluster.refusals.append("b is not used: numpy is 1.0")
    events = begin(trials_of(2), cluster)
    told = [event for event in events if isinstance(event, Refused)]
    assert told == [Refused("b is not used: numpy is 1.0")]
    assert sum(isinstance(event, Stored) for event in events) == 2


def test_a_database_that_is_away_loses_nothing(
    begin: Begin, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlbench.db.patience.FIRST_WAIT_S", 0.01)
    add_trial, failures = ResultStore.add_trial, [True, True]

    def fails_twice(self: ResultStore, *args: Any, **more: Any) -> int:
        if failures:
            failures.pop()
            raise StoreAwayError("another process keeps it locked")
        return add_trial(self, *args, **more)

    monkeypatch.setattr(ResultStore, "add_trial", fails_twice)
    events = begin(trials_of(2), SimulatedCluster(ends=ending(MEASURED)))
    told = [event.reason for event in events if isinstance(event, Delayed)]
    assert told == ["another process keeps it locked"]
    with store.session() as session:
        assert [t.status for t in query.trials(session, [1])] == ["ok", "ok"]


def test_a_run_that_is_left_early_is_interrupted(store: ResultStore) -> None:
    suite = Suite(name="one", cases=(CASE,), repeats={"infer": 3})
    plan = trials_of(3)
    run_id = store.begin_run(
        suite=suite, source="", command="", planned=3, plan=plan, driver=Driver.here()
    )
    cluster = cast("Cluster", SimulatedCluster(ends=ending(MEASURED)))
    events = run_trials(suite, FixedPlan(plan), cluster, store, run_id)
    assert next(event for event in events if isinstance(event, Stored))
    events.close()
    with store.session() as session:
        assert query.run(session, run_id).status == "interrupted"
        done = len(query.trials(session, [run_id]))
    resumed = resume_run(store, None, Driver.here(), again={"lost"})
    assert len(resumed.missing) == 3 - done == 2
    assert [p.position for p in resumed.missing] == [1, 2]


def calibrate(store: ResultStore, flops_per_s: float) -> None:
    store.add_calibration(
        MACHINE, [Metric("matmul_fp32_flops_per_s", flops_per_s)], NOW
    )


def test_mfu_is_held_against_the_calibration_of_the_trials_machine(
    begin: Begin, store: ResultStore
) -> None:
    calibrate(store, 80e9)
    kept = stored(begin, store, MEASURED)
    assert kept.metrics["mfu"] == pytest.approx(2.5e9 * 8 / 80e9)
    assert kept.notes["mfu_against"] == "this machine's measured fp32 matmul ceiling"
    assert (kept.validity, kept.doubts) == ("valid", ())


def test_an_impossible_mfu_makes_a_trial_invalid(
    begin: Begin, store: ResultStore
) -> None:
    calibrate(store, 10e9)
    kept = stored(begin, store, MEASURED)
    assert kept.metrics["mfu"] == pytest.approx(2.0)
    assert kept.validity == "invalid"
    assert "the MFU is 2.00" in kept.doubts[0]


def test_mfu_has_a_reason_where_nothing_was_calibrated(
    begin: Begin, store: ResultStore
) -> None:
    kept = stored(begin, store, MEASURED)
    assert kept.metrics["mfu"] is None
    assert "`tlbench calibrate` has measured none" in kept.reasons["mfu"]


def test_doubts_are_stored_with_the_trial(begin: Begin, store: ResultStore) -> None:
    busy = replace(MEASURED, notes={"steady_state": "slowing"})
    kept = stored(begin, store, busy)
    assert kept.validity == "suspect"
    assert len(kept.doubts) == 1


def test_a_failed_trial_is_neither_judged_nor_held_against_a_peak(
    begin: Begin, store: ResultStore
) -> None:
    kept = stored(begin, store, TrialResult("oom", "out of memory"))
    assert (kept.validity, kept.doubts) == (None, ())
    assert "mfu" not in kept.metrics


def test_nodes_that_are_about_to_join_are_waited_for(
    begin: Begin, store: ResultStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be wrong to skip what they can hold."""
    monkeypatch.setattr("tlbench.runner.LOOK_FOR_OTHERS_S", 0.01)
    cluster = SimulatedCluster([Node("head", "head", cpus=0)], ending(MEASURED))
    cluster.joining_s = 20.0

    def join() -> None:
        cluster.schedule.update([Node("a", "a", cpus=8)])

    monkeypatch.setattr(cluster, "look", join)
    first, *rest = begin(trials_of(1), cluster)
    assert isinstance(first, Waiting)
    assert first.reason.startswith("needs 1 x cpu on 1 node(s); the cluster has")
    assert [type(event) for event in rest] == [Begun, Stored]
