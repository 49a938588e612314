"""All reads: functions on a session, plain frozen records out."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, selectinload

from tlbench.db import models
from tlbench.db.connection import damaged_value
from tlbench.db.models import RunStatus
from tlbench.db.records import record
from tlbench.driver import Driver
from tlbench.errors import StoreError
from tlbench.machine import Machine
from tlbench.result import WHOLE_JOB, Artifact, Metric, Status, Validity
from tlbench.suites.spec import Case, Suite

Value = TypeVar("Value")
Stored = TypeVar("Stored", Case, Suite)

FOREIGN = "foreign"
"""What a case of another tool has, and no `Case`: its tool, and what that told."""
IS_FOREIGN = (
    "was imported from another tool: `tlbench query`, `tlbench trend` and"
    " `tlbench db export` read it, all else takes what tlbench has measured itself"
)
"""What follows the name of something foreign where cases of tlbench are needed."""
NO_RUN_YET = "the database holds no run yet: `tlbench run smoke` makes one"
MAX_PARAMETERS = 10_000
"""Values in one IN list; SQLite takes 32,766 parameters a statement by default."""


@dataclass(frozen=True)
class RunRecord:
    """One run, and how far it came."""

    id: int
    uid: str
    """The same in every database that the run is copied to."""
    origin: str | None
    """The foreign tool whose results were imported; None: tlbench measured them."""
    suite: str
    description: str
    source: str
    status: RunStatus
    ended_by: str | None
    """What ended a run on a budget."""
    command: str
    started_at: datetime
    ended_at: datetime | None
    planned: int
    finished: int
    """Trials that are stored, whatever came of them."""
    failed: int
    """Those of them whose status is not ok."""
    version: str
    suite_json: dict[str, Any]
    tags: tuple[str, ...]
    note: str
    driver: Driver | None = None
    """Who drives it, or did last; None: that is not known."""
    beat_at: datetime | None = None
    """When the driver was last heard of."""

    @property
    def is_abandoned(self) -> bool:
        """Whether it is marked running, and its driver is certainly gone."""
        if self.status != "running" or self.driver is None:
            return False
        return self.driver.is_alive() is False


@dataclass(frozen=True)
class AttemptRecord:
    """One execution of a trial after which it was run again."""

    position: int
    number: int
    status: Status
    reason: str | None
    traceback: str | None
    started_at: datetime
    wall_time_s: float
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class MachineRecord:
    """One machine that trials ran on."""

    id: int
    machine: Machine


@dataclass(frozen=True)
class CaseRecord:
    """One case in one run that has a trial of it."""

    run_id: int
    identity: str
    model: str
    """The printed name, as it was in that run."""
    case: Case


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial with its metrics of the whole job."""

    id: int
    run_id: int
    case: Case
    identity: str
    model: str
    """The printed name, as it was in the trial's run."""
    repeat: int
    position: int
    seed: int
    status: Status
    reason: str | None
    traceback: str | None
    started_at: datetime
    wall_time_s: float
    command: str
    machine_id: int | None
    notes: dict[str, str]
    validity: Validity | None
    """None: not judged, as where the status is not ok."""
    doubts: tuple[str, ...]
    metrics: dict[str, float | None]
    reasons: dict[str, str]
    """Why a metric is None, for each that is."""
    attempts: int = 1
    """How often it was executed, until this came of it."""
    nodes: tuple[str, ...] = ()
    """Where its ranks ran; none: that is not known."""


def runs(session: Session, limit: int | None = None) -> list[RunRecord]:
    """The newest `limit` runs, or all; newest first."""
    if limit is None:
        return _run_records(session)
    newest = (
        select(models.Run.id)
        .order_by(models.Run.started_at.desc(), models.Run.id.desc())
        .limit(limit)
    )
    # Found first: so that only their trials are counted.
    return _run_records(session, models.Run.id.in_(session.scalars(newest).all()))


def run(session: Session, run_id: int) -> RunRecord:
    """One run; an error that names the ids there are, where there is no such run."""
    found = _run_records(session, models.Run.id == run_id)
    if not found:
        raise StoreError(_absent(session, "run", run_id, models.Run.id))
    return found[0]


def run_or_newest(session: Session, run_id: int | None) -> RunRecord:
    """One run; the newest that tlbench measured where none is named."""
    if run_id is not None:
        return run(session, run_id)
    newest = _run_records(session, models.Run.origin.is_(None), limit=1)
    if newest:
        return newest[0]
    if foreign := runs(session, limit=1):
        raise StoreError(f"run {foreign[0].id} {IS_FOREIGN}")
    raise StoreError(NO_RUN_YET)


def _run_records(
    session: Session, *wanted: ColumnElement[bool], limit: int | None = None
) -> list[RunRecord]:
    finished = func.count(models.Trial.id)
    statement = (
        select(models.Run, finished, finished.filter(models.Trial.status != "ok"))
        .outerjoin(models.Trial, models.Trial.run_id == models.Run.id)
        .options(selectinload(models.Run.tags))
        .where(*wanted)
        .group_by(models.Run.id)
        .order_by(models.Run.started_at.desc(), models.Run.id.desc())
        .limit(limit)
    )
    return [
        record(
            RunRecord,
            id=row.id,
            uid=row.uid,
            origin=row.origin,
            suite=row.suite,
            description=row.description,
            source=row.source,
            status=row.status,
            ended_by=row.ended_by,
            command=row.command,
            started_at=row.started_at,
            ended_at=row.ended_at,
            planned=row.planned,
            finished=finished,
            failed=failed,
            version=row.version,
            suite_json=row.suite_json,
            tags=tuple(tag.tag for tag in row.tags),
            note=row.note,
            driver=None if row.driver is None else read_driver(row.driver),
            beat_at=row.beat_at,
        )
        for row, finished, failed in session.execute(statement)
    ]


def _texts(stored: list[str] | None) -> tuple[str, ...]:
    if stored is None:
        raise damaged_value(stored)
    return tuple(stored)


def read_driver(stored: Mapping[str, Any]) -> Driver:
    """The driver whose fields are stored."""
    if stored.keys() != {field.name for field in fields(Driver)}:
        raise damaged_value(stored)
    return record(Driver, **stored)


def attempts(
    session: Session, run_id: int, position: int | None = None
) -> list[AttemptRecord]:
    """The attempts of a run that came to nothing, or of one of its trials."""
    row = models.Attempt
    wanted = [row.run_id == run_id]
    if position is not None:
        wanted.append(row.position == position)
    statement = select(row).where(*wanted).order_by(row.position, row.number)
    return [_attempt(found) for found in session.scalars(statement)]


def _attempt(row: models.Attempt) -> AttemptRecord:
    values = {field.name: getattr(row, field.name) for field in fields(AttemptRecord)}
    return record(AttemptRecord, **values | {"nodes": _texts(row.nodes)})


def trials(session: Session, run_ids: Sequence[int]) -> list[TrialRecord]:
    """The trials of these runs, run by run, in the order of their positions."""
    return _trial_records(session, models.Trial.run_id.in_(run_ids))


def trial(session: Session, trial_id: int) -> TrialRecord:
    """One trial; an error that names the ids there are, where there is no such one."""
    found = _trial_records(session, models.Trial.id == trial_id)
    if not found:
        raise StoreError(_absent(session, "trial", trial_id, models.Trial.id))
    return found[0]


def _trial_records(session: Session, wanted: ColumnElement[bool]) -> list[TrialRecord]:
    """Two statements, however many trials: one for the rows, one for the metrics."""
    rows = session.execute(
        select(models.Trial, models.ExperimentCase)
        .join(models.ExperimentCase)
        .where(wanted)
        .order_by(models.Trial.run_id, models.Trial.position)
    ).all()
    metrics = _job_metrics(session, wanted)
    cases: dict[tuple[int, str | None], Case] = {}  # trials share few of them
    records = []
    for row, case_row in rows:
        key = (case_row.id, row.given_name)
        if key not in cases:
            cases[key] = _case(case_row, row)
        records.append(
            _trial_record(row, cases[key], case_row.identity, metrics[row.id])
        )
    return records


def cases(session: Session, run_ids: Sequence[int] | None = None) -> list[CaseRecord]:
    """The cases of these runs, or of all; those of the newest run first."""
    row, case_row = models.Trial, models.ExperimentCase
    first = select(func.min(row.id)).group_by(row.run_id, row.case_id)
    statement = (
        select(row, case_row)
        .join(case_row)
        .join(models.Run)
        .where(row.id.in_(first))
        .order_by(models.Run.started_at.desc(), row.run_id.desc(), row.position)
    )
    if run_ids is None:  # what another tool measured is no case of tlbench
        statement = statement.where(models.Run.origin.is_(None))
    else:
        statement = statement.where(row.run_id.in_(run_ids))
    known: dict[tuple[int, str | None], Case] = {}  # runs share many of them
    records = []
    for trial_row, of_case in session.execute(statement):
        key = (of_case.id, trial_row.given_name)
        if key not in known:
            known[key] = _case(of_case, trial_row)
        records.append(
            CaseRecord(trial_row.run_id, of_case.identity, trial_row.model, known[key])
        )
    return records


def _job_metrics(
    session: Session, wanted: ColumnElement[bool]
) -> dict[int, list[Metric]]:
    """The metrics of the whole job, by the id of the trial."""
    metric = models.Metric
    statement = (
        select(metric.trial_id, metric.name, metric.value, metric.reason)
        .join(models.Trial)
        .where(wanted, metric.rank == WHOLE_JOB)
        .order_by(metric.id)
    )
    found = defaultdict(list)
    for trial_id, name, value, reason in session.execute(statement):
        found[trial_id].append(_metric(name, value, reason))
    return found


def _case(row: models.ExperimentCase, trial_row: models.Trial) -> Case:
    """The case as its trial had it: the identity's fields and the model's name."""
    canonical = row.canonical or {}
    if FOREIGN in canonical:
        raise StoreError(f"run {trial_row.run_id} {IS_FOREIGN}")
    if not isinstance(canonical.get("model"), dict):
        raise damaged_value(row.canonical)
    content = {**canonical, "model": dict(canonical["model"])}
    if trial_row.given_name is not None:
        content["model"]["name"] = trial_row.given_name
    return read_stored(Case, content, f"the case of trial {trial_row.id}")


def read_stored(kind: type[Stored], content: Mapping[str, Any], what: str) -> Stored:
    """A case or a suite from its JSON; an error says of `what` where it is none."""
    try:
        return kind.model_validate_json(json.dumps(content))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise StoreError(
            f"{what} cannot be read by this tlbench: {field}: {problem['msg']}; a newer"
            " one may have stored it"
        ) from error


def _trial_record(
    row: models.Trial, case: Case, identity: str, metrics: Sequence[Metric]
) -> TrialRecord:
    return record(
        TrialRecord,
        id=row.id,
        run_id=row.run_id,
        case=case,
        identity=identity,
        model=row.model,
        repeat=row.repeat,
        position=row.position,
        seed=row.seed,
        status=row.status,
        reason=row.reason,
        traceback=row.traceback,
        started_at=row.started_at,
        wall_time_s=row.wall_time_s,
        command=row.command,
        machine_id=row.machine_id,
        notes=row.notes,
        validity=row.validity,
        doubts=_texts(row.doubts),
        metrics={metric.name: metric.value for metric in metrics},
        reasons={metric.name: metric.reason for metric in metrics if metric.reason},
        attempts=row.attempts,
        nodes=_texts(row.nodes),
    )


def machines(session: Session, run_ids: Sequence[int]) -> list[MachineRecord]:
    """The machines that trials of these runs ran on, each once."""
    used = select(models.Trial.machine_id).where(models.Trial.run_id.in_(run_ids))
    statement = select(models.Machine).where(models.Machine.id.in_(used))
    return [
        MachineRecord(row.id, machine_of(row))
        for row in session.scalars(statement.order_by(models.Machine.id))
    ]


def machine_of(row: models.Machine) -> Machine:
    values = {field.name: getattr(row, field.name) for field in fields(Machine)}
    return record(Machine, **values)


def series(
    session: Session, trial_ids: Sequence[int], names: Sequence[str]
) -> dict[tuple[int, str], tuple[float, ...]]:
    """The named series of the whole job, by trial and name; absent: not measured."""
    array = models.Series
    return {
        (trial_id, name): values
        for some_ids in parts(trial_ids)
        for trial_id, name, values in session.execute(
            select(array.trial_id, array.name, array.values).where(
                array.trial_id.in_(some_ids),
                array.name.in_(names),
                array.rank == WHOLE_JOB,
            )
        )
    }


def rank_metrics(session: Session, trial_id: int) -> list[Metric]:
    """What the single ranks of a trial measured, by name and rank."""
    metric = models.Metric
    statement = (
        select(metric.name, metric.value, metric.reason, metric.rank)
        .where(metric.trial_id == trial_id, metric.rank != WHOLE_JOB)
        .order_by(metric.name, metric.rank)
    )
    return [_metric(*row) for row in session.execute(statement)]


def _metric(name: str, value: float | None, reason: str | None, *rank: int) -> Metric:
    try:
        return Metric(name, value, reason, *rank)
    except ValueError as error:  # neither a value nor a reason
        raise damaged_value(name) from error


def artifacts(session: Session, trial_id: int) -> list[Artifact]:
    """The files that a trial left behind, by name."""
    file = models.Artifact
    statement = (
        select(file.name, file.media_type, file.content)
        .where(file.trial_id == trial_id)
        .order_by(file.name)
    )
    return [Artifact(*row) for row in session.execute(statement)]


def trials_with_artifact(
    session: Session, trial_ids: Sequence[int], name: str
) -> set[int]:
    """Those of the trials that have left a file of that name behind."""
    file = models.Artifact
    return {
        trial_id
        for some_ids in parts(trial_ids)
        for trial_id in session.scalars(
            select(file.trial_id).where(file.trial_id.in_(some_ids), file.name == name)
        )
    }


def named_artifacts(
    session: Session, trial_ids: Sequence[int], name: str
) -> dict[int, bytes]:
    """The content of the files of one name, by trial; absent: there is none."""
    file = models.Artifact
    return {
        trial_id: content
        for some_ids in parts(trial_ids)
        for trial_id, content in session.execute(
            select(file.trial_id, file.content).where(
                file.trial_id.in_(some_ids), file.name == name
            )
        )
    }


def case_wall_times(
    session: Session, identities: Sequence[str], *, machine: Machine | None = None
) -> dict[str, list[float]]:
    """Seconds that earlier trials of these cases took, newest first.

    Only of trials that went well; with `machine`, only of those on such hardware,
    with any number of GPUs: a worker sees those of its rank alone. Cases without any
    are left out.
    """
    case, row = models.ExperimentCase, models.Trial
    statement = (
        select(case.identity, row.wall_time_s)
        .join(row, row.case_id == case.id)
        .where(row.status == "ok")
        .order_by(row.started_at.desc(), row.id.desc())
    )
    if machine is not None:
        statement = statement.join(models.Machine).where(*_same_device(machine))
    found = defaultdict(list)
    for some_identities in parts(identities):
        some = statement.where(case.identity.in_(some_identities))
        for identity, wall_time_s in session.execute(some):
            found[identity].append(wall_time_s)
    return dict(found)


def calibration(session: Session, machine: Machine) -> dict[str, float | None]:
    """The newest value of each name that `tlbench calibrate` measured of the machine.

    Empty where nothing was. Of this very host, for the same hardware may be cooled
    worse or shared with others; and under the same torch, whose kernels set the
    ceilings. It is of one device: how many there are makes no difference.
    """
    row = models.Calibration
    statement = (
        select(row.name, row.value)
        .join(models.Machine)
        .where(
            models.Machine.hostname == machine.hostname,
            *_same_device(machine),
            models.Machine.versions["torch"]
            .as_string()
            .is_not_distinct_from(machine.versions.get("torch")),
        )
        .order_by(row.measured_at, row.id)
    )
    found: dict[str, float | None] = {}
    for name, value in session.execute(statement):
        found[name] = value  # the newest comes last
    return found


def _same_device(machine: Machine) -> Iterator[ColumnElement[bool]]:
    """Conditions under which times carry over; software may differ."""
    for name in ("cpu_model", "cpu_cores", "gpu_name"):
        column = getattr(models.Machine, name)
        yield column.is_not_distinct_from(getattr(machine, name))


def parts(
    values: Sequence[Value], size: int | None = None
) -> Iterator[Sequence[Value]]:
    """The values, `size` at a time; so many as one statement takes, where left out."""
    size = size or MAX_PARAMETERS
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _absent(
    session: Session, what: str, wanted: int, column: InstrumentedAttribute[int]
) -> str:
    """Words for an id that is not there, with those that are."""
    newest = session.scalars(select(column).order_by(column.desc()).limit(11)).all()
    if not newest:
        return f"there is no {what} {wanted}; none is stored yet"
    ids = ", ".join(str(number) for number in newest[:10])
    ids += ", and older ones" if len(newest) > 10 else ""
    return f"there is no {what} {wanted}; there are {ids}"
