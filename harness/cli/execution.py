"""A run as the command line sees it: what is to be done, and how it goes on."""

import signal
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from tlbench.budget import Budget
from tlbench.cli.forecasting import forecast_suite
from tlbench.cli.options import command_line, with_data
from tlbench.cluster import Cluster
from tlbench.console import make_console
from tlbench.db.resume import Resumed, resume_run
from tlbench.db.store import ResultStore
from tlbench.driver import Driver
from tlbench.errors import TlbenchError
from tlbench.events import Stored
from tlbench.plan import FixedPlan, Plan, make_trial, order_trials, rehearse
from tlbench.progress import Pace, Paced, follow
from tlbench.result import Status
from tlbench.runner import run_trials
from tlbench.suites.paths import data_path
from tlbench.suites.rehearsal import Rehearsal
from tlbench.suites.spec import Suite, Trial
from tlbench.units import format_counted, format_duration

AGAIN: frozenset[Status] = frozenset({"lost", "skipped"})
"""What runs again with a run that is resumed: the cluster may be another one now."""


@dataclass(frozen=True)
class Job:
    """Trials that are to run, of a new run or of one that goes on."""

    suite: Suite
    source: str
    address: str | None
    plan: Plan
    pace: Paced
    length: str
    """What there is to do, in a few words."""
    resumed: Resumed | None = None

    @property
    def budget(self) -> Budget | None:
        return self.plan if isinstance(self.plan, Budget) else None

    @property
    def can_resume(self) -> bool:
        """Whether it is known what is missing, and of use."""
        return isinstance(self.plan, FixedPlan) and not any(
            isinstance(trial, Rehearsal) for trial in self.plan.trials
        )


@dataclass(frozen=True)
class Done:
    """What came of a job."""

    run_id: int | None
    """None: it was ended before there was a run."""
    stored: Sequence[Stored]
    is_whole: bool
    """Whether all of its trials ran."""
    planned: int
    can_resume: bool

    @property
    def interruption(self) -> str:
        """What to say of a job that was ended."""
        kept = f"interrupted: {len(self.stored)} of {self.planned} trials are kept"
        return f"{kept}; {_way_on(self.run_id)}" if self.can_resume else kept


def new_job(
    store: ResultStore,
    suite: Suite,
    source: str,
    address: str | None,
    budget_s: float | None = None,
    rehearse_s: float | None = None,
) -> Job:
    """All trials of a suite; or those that a budget of seconds pays for.

    With `rehearse_s` they measure nothing, and each takes as many seconds instead.
    """
    forecasts = forecast_suite(suite, store, is_here=address is None)
    if budget_s is not None:
        from tlbench.reports.compare import planned_pairs  # pandas

        expected_s = {item.identity: item.trial_time_s for item in forecasts}
        pairs = planned_pairs(suite.cases)
        budget = Budget(suite, pairs, expected_s, budget_s)
        counted = format_counted(len(suite.cases), "case")
        length = f"{format_duration(budget_s)} for {counted}"
        return Job(suite, source, address, budget, budget, length)
    trials = order_trials(suite)
    if rehearse_s is not None:
        trials = rehearse(trials, rehearse_s)
    length, pace = format_counted(len(trials), "trial"), Pace(trials, forecasts)
    return Job(suite, source, address, FixedPlan(trials), pace, length)


def planned_job(
    store: ResultStore,
    suite: Suite,
    trials: Sequence[Trial],
    source: str,
    address: str | None,
    data: list[str] | None,
) -> Job:
    """Trials that a command has planned by itself; it says how many, and how long."""
    suite = with_data(suite, data, is_here=address is None)
    trials = [replace(t, data_path=data_path(t.case, suite.paths)) for t in trials]
    pace = Pace(trials, forecast_suite(suite, store, is_here=address is None))
    took = format_duration(pace.total_s)
    length = f"{format_counted(len(trials), 'trial')}, about {took}"
    return Job(suite, source, address, FixedPlan(trials), pace, length)


def resumed_job(
    store: ResultStore,
    run_id: int | None,
    data: list[str] | None,
    address: str | None,
) -> Job:
    """What is missing of a run, which nobody else may go on with from now on."""
    resumed = resume_run(store, run_id, Driver.here(), AGAIN)
    suite = with_data(resumed.suite, data, is_here=address is None)
    trials = [
        replace(make_trial(suite, p.case, p.repeat, p.position), seed=p.seed)
        for p in resumed.missing
    ]
    pace = Pace(trials, forecast_suite(suite, store, is_here=address is None))
    missing = f"{len(trials):,} of {format_counted(resumed.planned, 'trial')}"
    length = f"run {resumed.run_id} goes on, {missing} missing"
    plan = FixedPlan(trials)
    return Job(suite, resumed.source, address, plan, pace, length, resumed)


def say(words: str) -> None:
    """Say something to people, beside what programs may read."""
    make_console(stderr=True).print(words, markup=False, soft_wrap=True)


def execute(job: Job, store: ResultStore) -> Done:
    """Run the trials of a job, and show how they go on."""
    resumed = job.resumed
    if resumed is not None and not resumed.missing:
        return Done(resumed.run_id, (), True, 0, can_resume=True)
    run_id = None if resumed is None else resumed.run_id
    try:
        with Cluster(job.address) as cluster:
            if run_id is None:
                run_id = _begin(job, store)
            return _follow(job, store, cluster, run_id)
    except TlbenchError:
        if run_id is not None and job.can_resume:
            say(f"what is finished is kept; {_way_on(run_id)}")
        raise


def _begin(job: Job, store: ResultStore) -> int:
    return store.begin_run(
        suite=job.suite,
        source=job.source,
        command=command_line(),
        planned=len(job.plan),
        plan=_plan_to_keep(job),
        driver=Driver.here(),
    )


def _plan_to_keep(job: Job) -> Sequence[Trial] | None:
    if isinstance(job.plan, FixedPlan) and job.can_resume:
        return job.plan.trials
    return None


def _follow(job: Job, store: ResultStore, cluster: Cluster, run_id: int) -> Done:
    resumed = job.resumed
    tried = {} if resumed is None else {p.position: p.attempts for p in resumed.missing}
    events = run_trials(job.suite, job.plan, cluster, store, run_id, tried)
    with closing(events):
        # A polite `kill` ends a run as Ctrl-C does: what is finished stays. Ray has set
        # a handler of its own meanwhile, which would end this process on the spot.
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, signal.default_int_handler)
        console = make_console(stderr=True)
        stored, is_whole = follow(events, job.plan, job.pace, console)
    return Done(run_id, stored, is_whole, len(job.plan), job.can_resume)


def _way_on(run_id: int | None) -> str:
    return f"`tlbench run --resume {run_id}` goes on"
