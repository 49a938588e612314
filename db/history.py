"""What all runs have of some metrics, case by case, in as few statements as may be."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from tlbench.db import models
from tlbench.db.connection import ById
from tlbench.db.records import record
from tlbench.result import WHOLE_JOB, Status, Validity


class KnownCase(NamedTuple):
    """One case in one run that has a trial of it, of another tool's runs too."""

    run_id: int
    origin: str | None
    """The foreign tool; None: tlbench measured it."""
    case_id: int
    identity: str
    canonical: Mapping[str, Any]
    model: str
    """The printed name, as it was in that run."""


class Reading(NamedTuple):
    """One metric of one trial."""

    trial_id: int
    run_id: int
    identity: str
    machine_id: int | None
    status: Status
    validity: Validity | None
    metric: str | None
    """None: the trial has none of those that were asked for."""
    value: float | None


class RunMoment(NamedTuple):
    """When a run was, and by which code."""

    started_at: datetime
    origin: str | None
    version: str


def known_cases(session: Session) -> list[KnownCase]:
    """The cases of all runs, those of the newest run first."""
    run, trial, case = models.Run, models.Trial, models.ExperimentCase
    rows = session.execute(select(case.id, case.identity, case.canonical))
    contents = ById({row.id: row for row in rows})
    statement = (
        select(trial.run_id, run.origin, trial.case_id, func.max(trial.model))
        .join(run)
        .group_by(trial.run_id, run.origin, run.started_at, trial.case_id)
        .order_by(run.started_at.desc(), trial.run_id.desc(), func.min(trial.position))
    )
    return [
        record(
            KnownCase,
            run_id=run_id,
            origin=origin,
            case_id=case_id,
            identity=content.identity,
            canonical=content.canonical,
            model=model,
        )
        for run_id, origin, case_id, model in session.execute(statement)
        for content in [contents[case_id]]
    ]


def run_moments(
    session: Session, since: datetime | None = None
) -> dict[int, RunMoment]:
    """The runs by their ids, oldest first."""
    run = models.Run
    statement = select(run.id, run.started_at, run.origin, run.version)
    if since is not None:
        statement = statement.where(run.started_at >= since)
    rows = session.execute(statement.order_by(run.started_at, run.id))
    return {
        row.id: record(
            RunMoment, started_at=row.started_at, origin=row.origin, version=row.version
        )
        for row in rows
    }


def readings(
    session: Session, identities: Sequence[str], metrics: Sequence[str]
) -> list[Reading]:
    """These metrics of the whole job of every trial of these cases, run by run."""
    trial, case, metric = models.Trial, models.ExperimentCase, models.Metric
    is_wanted = and_(
        metric.trial_id == trial.id,
        metric.name.in_(metrics),
        metric.rank == WHOLE_JOB,
    )
    statement = (
        select(
            trial.id,
            trial.run_id,
            case.identity,
            trial.machine_id,
            trial.status,
            trial.validity,
            metric.name,
            metric.value,
        )
        .select_from(trial)
        .join(case)
        .outerjoin(metric, is_wanted)
        .where(case.identity.in_(identities))
        .order_by(trial.run_id, trial.position)
    )
    return [Reading(*row) for row in session.execute(statement)]
