"""Going on with a run whose driver is gone: what is missing, and who may run it."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from tlbench.db import models, query
from tlbench.db.connection import damaged_value
from tlbench.db.store import ResultStore, insert_rows
from tlbench.driver import Driver
from tlbench.errors import StoreError
from tlbench.result import Status
from tlbench.suites.spec import Case, Suite
from tlbench.units import format_duration

SHARED = (
    *("position", "status", "reason", "traceback"),
    *("started_at", "wall_time_s", "nodes"),
)
"""Columns that an attempt has of the trial that it was."""
LEASE_S = 60.0
"""How long a driver that cannot be seen may be silent until it counts as gone."""


@dataclass(frozen=True)
class Place:
    """A trial of a run that is missing."""

    case: Case
    repeat: int
    position: int
    seed: int
    attempts: int
    """How often it was executed already."""


@dataclass(frozen=True)
class Resumed:
    """A run that goes on, and what is left of it."""

    run_id: int
    suite: Suite
    source: str
    planned: int
    missing: tuple[Place, ...]
    """In the order of their positions; none: the run has all of its trials."""


def resume_run(
    store: ResultStore, run_id: int | None, driver: Driver, again: Collection[Status]
) -> Resumed:
    """Take over a run, so that only `driver` writes to it from now on.

    A run that lacks nothing is left as it is.

    Args:
        store: Where the run is.
        run_id: None: the newest run that lacks a trial, or has one that was lost.
        driver: Who takes it over.
        again: Trials that ended so are missing, too; their rows become attempts.

    Raises:
        StoreError: There is no such run, it cannot be resumed, or its driver lives.
    """
    with store.transaction() as session:
        row = _find(session, run_id)
        if (refusal := _why_not(row)) is not None:
            raise StoreError(f"{store.location}: run {row.id} {refusal}")
        suite = query.read_stored(Suite, row.suite_json, f"the suite of run {row.id}")
        missing = _missing(session, row, suite, again)
        if missing:
            _turn_into_attempts(session, row.id, again)
            row.driver, row.beat_at = asdict(driver), datetime.now(UTC)
            row.status, row.ended_at = "running", None
        resumed = Resumed(
            run_id=row.id,
            suite=suite,
            source=row.source,
            planned=row.planned,
            missing=missing,
        )
    if missing:
        store.drive(driver)
    return resumed


def _find(session: Session, run_id: int | None) -> models.Run:
    """The run that is asked for, locked until the transaction ends."""
    run, trial = models.Run, models.Trial
    if run_id is None:
        done = select(func.count(trial.id)).where(
            trial.run_id == run.id, trial.status != "lost"
        )
        run_id = session.scalar(
            select(run.id)
            .where(run.origin.is_(None), done.scalar_subquery() < run.planned)
            .order_by(run.started_at.desc(), run.id.desc())
            .limit(1)
        )
        if run_id is None:
            raise StoreError("no run lacks a trial: there is nothing to resume")
    found = session.get(run, run_id, with_for_update=True)
    if found is None:
        query.run(session, run_id)  # says which there are
        raise AssertionError(f"run {run_id} came into being meanwhile")
    return found


def _why_not(run: models.Run) -> str | None:
    """Why the run cannot be resumed, to follow its name; None: it can."""
    if run.origin is not None:
        return query.IS_FOREIGN
    if run.status == "running" and run.driver is not None:
        driver, silent_s = query.read_driver(run.driver), _silent_s(run)
        is_alive = driver.is_alive()
        if is_alive:
            return f"goes on: {driver} is at work on it"
        if is_alive is None and silent_s < LEASE_S:
            return (
                f"may go on: {driver} was heard of {silent_s:.0f} s ago; once it has"
                f" been silent for {format_duration(LEASE_S)} the run can be resumed"
            )
    if run.plan is None:
        return (
            "cannot be resumed: its plan is not known, for it spent a budget, was a"
            f" rehearsal or is of an older tlbench; `tlbench run {run.source}` begins a"
            " new one"
        )
    return None


def _silent_s(run: models.Run) -> float:
    heard = run.beat_at or run.started_at
    return (datetime.now(UTC) - heard).total_seconds()


def _missing(
    session: Session, run: models.Run, suite: Suite, again: Collection[Status]
) -> tuple[Place, ...]:
    trial = models.Trial
    rows = session.execute(
        select(trial.position, trial.status, trial.attempts).filter_by(run_id=run.id)
    ).all()
    done = {row.position for row in rows if row.status not in again}
    tried = {row.position: row.attempts for row in rows}
    attempt = models.Attempt
    counts = select(attempt.position, func.max(attempt.number)).where(
        attempt.run_id == run.id
    )
    for position, number in session.execute(counts.group_by(attempt.position)):
        tried[position] = max(tried.get(position, 0), number)
    return tuple(
        Place(suite.cases[case], repeat, position, seed, tried.get(position, 0))
        for position, (case, repeat, seed) in enumerate(_plan(run, suite))
        if position not in done
    )


def _plan(run: models.Run, suite: Suite) -> list[tuple[int, int, int]]:
    """Case, repeat and seed of each trial; what is no plan is told as damage."""
    try:
        plan = TypeAdapter(list[tuple[int, int, int]]).validate_python(run.plan)
    except ValidationError as error:
        raise damaged_value(run.plan) from error
    if any(not 0 <= case < len(suite.cases) for case, _, _ in plan):
        raise damaged_value(run.plan)
    return plan


def _turn_into_attempts(
    session: Session, run_id: int, again: Collection[Status]
) -> None:
    trial = models.Trial
    are_again = trial.run_id == run_id, trial.status.in_(again)
    rows = [
        {
            "run_id": run_id,
            "number": row.attempts,
            **{name: getattr(row, name) for name in SHARED},
        }
        for row in session.scalars(select(trial).where(*are_again)).all()
    ]
    insert_rows(session, models.Attempt, rows)
    session.execute(delete(trial).where(*are_again))
