"""One run of a suite: begin trials as nodes become free, store what comes of them."""

import json
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from tlbench.backlog import Backlog
from tlbench.cluster import LOOK_AGAIN_S, Cluster
from tlbench.crew import Crew
from tlbench.db import query
from tlbench.db.patience import patiently
from tlbench.db.store import ResultStore
from tlbench.errors import StoreAwayError, TlbenchError
from tlbench.events import (
    Begun,
    Delayed,
    Event,
    Finished,
    Refused,
    Retried,
    Stored,
    Waiting,
)
from tlbench.frontier import LargestBatches
from tlbench.peaks import with_mfu
from tlbench.placement import Placement
from tlbench.plan import Plan, make_trial
from tlbench.suites.loader import repeat_suite
from tlbench.suites.rehearsal import Rehearsal
from tlbench.suites.spec import Case, Suite, Trial
from tlbench.units import format_duration
from tlbench.validity import judge

T = TypeVar("T")

LAG_S = 2.0
"""How long Ray may take to tell that what a trial held is free."""
LOOK_FOR_OTHERS_S = 1.0
"""How often the driver looks whether others have given back what a trial waits for."""
BEAT_S = 20.0
"""How often the driver tells the database that it is alive; it sleeps in between."""
REHEARSED: Mapping[str, Any] = {"status": "skipped", "reason": "rehearsed only"}
"""What a rehearsal that went well is stored as: it says nothing of its case."""


def run_trials(
    suite: Suite,
    plan: Plan,
    cluster: Cluster,
    store: ResultStore,
    run_id: int,
    attempts: Mapping[int, int] | None = None,
) -> Generator[Event, None, None]:
    """Run the trials of a run that the store has begun; tells what happens.

    Each trial is in the database before it is given out. One that fails is stored with
    its reason, and the run goes on. If the caller stops early, or Ctrl-C does, what is
    finished stays and the run says so.

    Args:
        suite: What was asked for.
        plan: The trials that are to run.
        cluster: Where they run.
        store: Where they are kept.
        run_id: The run there.
        attempts: Of a run that is resumed, how often trials were tried, by position.
    """
    try:
        yield from _Running(suite, plan, cluster, store, run_id, attempts or {}).run()
        yield from _delayed(
            lambda: store.end_run(run_id, "finished", ended_by=plan.ended_by)
        )
    except BaseException as error:
        # Whoever ends a run does not wait for a database: what is not said here, the
        # missing process says.
        with suppress(StoreAwayError):
            has_failed = isinstance(error, TlbenchError)
            store.end_run(run_id, "failed" if has_failed else "interrupted")
        raise


def _delayed(write: Callable[[], T]) -> Generator[Event, None, T]:
    """Write, and write again while the database is away."""
    tries = patiently(write)
    while True:
        try:
            reason = next(tries)
        except StopIteration as end:
            value: T = end.value
            return value
        yield Delayed(reason)


class _Running:
    """A run that goes on: what waits, what the crew works on, what is stored."""

    def __init__(
        self,
        suite: Suite,
        plan: Plan,
        cluster: Cluster,
        store: ResultStore,
        run_id: int,
        attempts: Mapping[int, int],
    ) -> None:
        self._suite, self._plan, self._cluster = suite, plan, cluster
        self._store, self._run_id = store, run_id
        self._batches = LargestBatches(cluster)
        self._backlog = Backlog(plan, cluster, attempts)
        self._held_since: dict[frozenset[str], float] = {}
        """Since when others hold the nodes that trials wait for."""
        self._freed = self._beaten = time.monotonic()
        self._has_lost = False

    def run(self) -> Iterator[Event]:
        """Run all; every trial is in the database before it is given out."""
        yield from self._wait_for_nodes()
        with Crew(self._cluster, self._work) as crew:
            while True:
                yield from self._begin(crew)
                if not crew.running and not self._backlog:
                    return
                finished = crew.next_finished(self._timeout_s())
                if finished is not None:
                    self._freed = time.monotonic()
                    self._backlog.end(finished.trial)
                    yield from self._keep(finished)
                yield from self._give_up()
                self._beat()

    def _work(self, trial: Trial, placement: Placement) -> Finished:
        return self._batches.run(trial, self._suite.trial_timeout_s, placement)

    def _begin(self, crew: Crew) -> Iterator[Event]:
        """Begin whatever has its nodes now."""
        if self._has_lost:
            if crew.running:
                return  # the others may be lost as well
            self._cluster.check()
            self._has_lost = False
        while (ready := self._backlog.next_ready()) is not None:
            self._held_since.pop(self._cluster.candidates(ready.trial.case), None)
            crew.begin(ready.trial, ready.placement, ready.attempt)
            yield Begun(ready.trial, ready.attempt, ready.placement.nodes)
        for reason in self._cluster.take_refusals():
            yield Refused(reason)
        for pending, missing in self._backlog.take_impossible():
            yield from self._keep(pending.give_up("skipped", missing))

    # ------------------------------------------------------------ what ends

    def _keep(self, finished: Finished) -> Iterator[Event]:
        """Store what came of a trial, or that it is to be tried again."""
        status = finished.result.status
        self._has_lost |= status == "lost"
        retries: Mapping[Any, int] = self._suite.retry  # of ok and skipped none
        if finished.attempt > retries.get(status, 0):
            yield from self._store_trial(finished)
            return
        yield from _delayed(lambda: self._store.add_attempt(self._run_id, finished))
        self._backlog.add(finished.trial, finished.attempt)
        yield Retried(finished)

    def _add_trial(self, finished: Finished) -> int:
        trial = finished.trial
        return self._store.add_trial(
            self._run_id,
            trial,
            finished.result,
            started_at=finished.started_at,
            wall_time_s=finished.wall_time_s,
            command=repeat_command(trial, self._suite.trial_timeout_s),
            attempts=finished.attempt,
            nodes=finished.nodes,
        )

    def _store_trial(self, finished: Finished) -> Iterator[Event]:
        assessed = yield from _delayed(lambda: _assess(finished, self._store))
        trial_id = yield from _delayed(lambda: self._add_trial(assessed))
        planned = len(self._plan)
        self._plan.add(finished.trial, assessed.result, finished.wall_time_s)
        if len(self._plan) != planned:
            yield from _delayed(
                lambda: self._store.replan(self._run_id, len(self._plan))
            )
        yield Stored(self._run_id, trial_id, assessed)

    def _beat(self) -> None:
        if time.monotonic() < self._beaten + BEAT_S:
            return
        self._beaten = time.monotonic()
        with suppress(StoreAwayError):  # what is to be stored will wait for it
            self._store.beat(self._run_id)

    # ------------------------------------------------------------ what waits

    def _wait_for_nodes(self) -> Iterator[Event]:
        """Give the nodes of a cluster that comes up the time to join."""
        deadline, told = time.monotonic() + self._cluster.joining_s, ""
        while time.monotonic() < deadline and (lack := self._lacking()):
            case, reason = lack
            if reason != told:
                yield Waiting(make_trial(self._suite, case, 0, 0), reason)
            told = reason
            time.sleep(LOOK_FOR_OTHERS_S)
            self._cluster.look()

    def _lacking(self) -> tuple[Case, str] | None:
        """The first case that the nodes of now can never hold, and why."""
        for case in self._suite.cases:
            if (reason := self._cluster.shortage(case)) is not None:
                return case, reason
        return None

    def _timeout_s(self) -> float:
        """How long the driver may sleep unless a trial ends."""
        if not self._backlog:
            return BEAT_S
        if self._may_lag:
            return LOOK_AGAIN_S
        return LOOK_FOR_OTHERS_S if self._backlog.held_by_others() else BEAT_S

    @property
    def _may_lag(self) -> bool:
        """Whether Ray may not have told yet that what a trial held is free."""
        return time.monotonic() < self._freed + LAG_S

    def _give_up(self) -> Iterator[Event]:
        """Tell of trials that wait for others; end those that did for too long."""
        held = [] if self._may_lag else self._backlog.held_by_others()
        nodes = [self._cluster.candidates(pending.trial.case) for pending in held]
        now, known = time.monotonic(), self._held_since
        self._held_since = {key: known.get(key, now) for key in nodes}
        for pending, key in zip(held, nodes, strict=True):
            limit_s = self._suite.placement_timeout_s
            reason = self._cluster.lack(pending.trial.case)
            if key not in known:
                yield Waiting(pending.trial, reason)
            elif now >= known[key] + limit_s:
                self._backlog.drop(pending)
                told = f"nothing became free in {format_duration(limit_s)}: {reason}"
                yield from self._store_trial(pending.give_up("lost", told))


def _assess(finished: Finished, store: ResultStore) -> Finished:
    """Add what its worker could not know: the share of the peak, and the verdict."""
    case, result = finished.trial.case, finished.result
    if isinstance(finished.trial, Rehearsal) and result.status == "ok":
        return replace(finished, result=replace(result, **REHEARSED))
    if result.status == "ok" and result.machine is not None:
        with store.session() as session:
            calibration = query.calibration(session, result.machine)
        nodes = len(finished.nodes) or None
        result = with_mfu(case, result, calibration, nodes)
    validity, doubts = judge(case, result)
    return replace(finished, result=replace(result, validity=validity, doubts=doubts))


def repeat_command(trial: Trial, trial_timeout_s: float) -> str:
    """The one command that runs this trial again, with nothing but tlbench."""
    suite = json.dumps(repeat_suite(trial, trial_timeout_s))
    return f"printf %s {shlex.quote(suite)} | tlbench run -"
