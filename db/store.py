"""All writes: runs and their trials go in here, one transaction per finished trial."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from types import TracebackType
from typing import Literal, Self

from sqlalchemy import ColumnElement, Connection, Engine, inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tlbench.db import migrations, models
from tlbench.db.connection import Location, Mode, sqlite_pragmas, writer
from tlbench.errors import StoreError
from tlbench.machine import Machine
from tlbench.result import Metric, TrialResult
from tlbench.suites.names import model_name
from tlbench.suites.spec import Case, Suite, Trial

CLOSING_TIMEOUT_S = 1.0
"""How long closing waits for readers before it leaves the log to the next writer."""


class ResultStore:
    """An open result database."""

    def __init__(self, location: Location, engine: Engine, *, read_only: bool) -> None:
        self._location, self._engine = location, engine
        self._read_only = read_only

    @classmethod
    def open(
        cls, location: str, *, create: bool = False, read_only: bool = False
    ) -> Self:
        """Open a database by its path or SQLAlchemy URL.

        With `create`, one that is missing or empty is made. One of another schema,
        or of something else than tlbench, is refused and left as it is.
        """
        if create and read_only:
            raise ValueError("a database cannot be created for reading only")
        place = Location.parse(location)
        if create:
            _create(place)
        mode: Mode = "read" if read_only else "write"
        place.check(mode)
        engine = place.engine(mode)
        try:
            with place.explained():
                _check_schema(engine if read_only else writer(engine), place)
                if not read_only:  # then readers and a writer work side by side
                    sqlite_pragmas(engine, "journal_mode = WAL")
        except BaseException:
            engine.dispose()
            raise
        return cls(place, engine, read_only=read_only)

    def close(self) -> None:
        """Give the connections back; nothing stays behind beside the file.

        Readers in the way do no harm: what is not in the file yet is in its log.
        """
        try:
            if not self._read_only:
                with self._location.explained():
                    sqlite_pragmas(
                        self._engine,
                        f"busy_timeout = {CLOSING_TIMEOUT_S * 1000:.0f}",
                        "wal_checkpoint(TRUNCATE)",
                    )
        finally:
            self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def location(self) -> str:
        """Where this is, for people to read: a path, or a URL without its password."""
        return str(self._location)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One unit of reading, for the functions of `tlbench.db.query`."""
        with self._location.explained(), Session(self._engine) as session:
            yield session

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        """One unit of writing: all of it is stored, or nothing."""
        if self._read_only:
            raise StoreError(f"{self._location} was opened for reading only")
        with (
            self._location.explained(),
            Session(writer(self._engine)) as session,
            session.begin(),
        ):
            yield session

    def begin_run(
        self, *, suite: Suite, source: str, command: str, planned: int
    ) -> int:
        """Store what is asked for, before its first trial; returns the run's id."""
        run = models.Run(
            suite=suite.name,
            description=suite.description,
            suite_json=suite.model_dump(mode="json"),
            source=source,
            command=command,
            status="running",
            planned=planned,
            started_at=datetime.now(UTC),
            version=version("tlbench"),
        )
        with self._transaction() as session:
            session.add(run)
            session.flush()
            return run.id

    def add_trial(
        self,
        run_id: int,
        trial: Trial,
        result: TrialResult,
        *,
        started_at: datetime,
        wall_time_s: float,
        command: str,
    ) -> int:
        """Store one finished trial in one transaction; returns its id.

        A metric that is not a finite number is stored without a value, and says so.
        """
        with self._transaction() as session:
            self._check_slot(session, run_id, trial.position)
            row = models.Trial(
                run_id=run_id,
                case_id=_case_id(session, trial.case),
                machine_id=result.machine and _machine_id(session, result.machine),
                model=model_name(trial.case.model),
                given_name=trial.case.model.name,
                repeat=trial.repeat,
                position=trial.position,
                seed=trial.seed,
                status=result.status,
                reason=result.reason,
                traceback=result.traceback,
                started_at=started_at,
                wall_time_s=wall_time_s,
                command=command,
                notes=result.notes,
                validity=result.validity,
                doubts=list(result.doubts),
                metrics=[_metric_row(metric) for metric in result.metrics],
                series=[models.Series(**vars(series)) for series in result.series],
                artifacts=[models.Artifact(**vars(file)) for file in result.artifacts],
            )
            session.add(row)
            session.flush()
            return row.id

    def add_calibration(
        self, machine: Machine, values: Sequence[Metric], measured_at: datetime
    ) -> None:
        """Store what was measured of a machine, all of it at one moment."""
        with self._transaction() as session:
            machine_id = _machine_id(session, machine)
            for metric in values:
                row = models.Calibration(
                    machine_id=machine_id, measured_at=measured_at, name=metric.name
                )
                row.value, row.reason = _stored_value(metric)
                session.add(row)

    def replan(self, run_id: int, planned: int) -> None:
        """Store how many trials the run has, where that changes while it goes on."""
        with self._transaction() as session:
            self._run(session, run_id).planned = planned

    def end_run(
        self, run_id: int, status: Literal["finished", "interrupted", "failed"]
    ) -> None:
        """Store how a run ended, and when."""
        with self._transaction() as session:
            run = self._run(session, run_id)
            run.status, run.ended_at = status, datetime.now(UTC)

    def _run(self, session: Session, run_id: int) -> models.Run:
        run = session.get(models.Run, run_id)
        if run is None:
            raise StoreError(f"{self._location} has no run {run_id}")
        return run

    def _check_slot(self, session: Session, run_id: int, position: int) -> None:
        self._run(session, run_id)
        taken = session.scalar(
            select(models.Trial.id).filter_by(run_id=run_id, position=position)
        )
        if taken is not None:
            raise StoreError(
                f"{self._location}: run {run_id} already has its trial at position"
                f" {position}, trial {taken}"
            )


def upgrade(location: str) -> tuple[str, str]:
    """Bring an older database to the schema of this tlbench.

    Returns the revisions before and after. All steps are one transaction.
    """
    place = Location.parse(location)
    with _migration(place, "write") as connection:
        before = _revision(connection, place)
        if before is None:
            raise place.empty()
        migrations.upgrade(connection)
    return before, migrations.head()


def _create(place: Location) -> None:
    """Give a database that is missing or empty its tables; no other is touched."""
    with _migration(place, "create") as connection:
        if _revision(connection, place) is None:
            migrations.upgrade(connection)


@contextmanager
def _migration(place: Location, mode: Mode) -> Iterator[Connection]:
    """One transaction that may change the schema, on a connection of its own.

    Without foreign keys: SQLite alters a table by dropping it for an altered copy, and
    the drop would take the rows that refer to it along.
    """
    place.check(mode)
    engine = place.engine(mode, foreign_keys=False)
    try:
        with place.explained(), writer(engine).begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _check_schema(engine: Engine, place: Location) -> None:
    """See that the schema is the one of this tlbench.

    A database opened for writing is locked meanwhile, so that one that cannot be
    written is refused now, not when the first trial has been measured.
    """
    with engine.begin() as connection:
        revision = _revision(connection, place)
    if revision is None:
        raise place.empty()
    if revision != (head := migrations.head()):
        raise StoreError(
            f"{place} has the older schema {revision}, this tlbench needs {head};"
            f" `tlbench db upgrade --db {place}` brings it there"
        )


def _revision(connection: Connection, place: Location) -> str | None:
    """The schema's revision; None: there are no tables yet.

    Refuses what is not tlbench's, and what a newer tlbench has written.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if migrations.VERSION_TABLE not in tables:
        raise StoreError(
            f"{place} is not a database of tlbench: it holds the tables"
            f" {', '.join(sorted(tables)[:5])}; --db names another"
        )
    revision = migrations.current(connection)
    if revision not in migrations.known():
        raise StoreError(
            f"{place} has the schema {revision} of a newer tlbench, this one knows up"
            f" to {migrations.head()}; `pip install --upgrade tlbench` lets it be read,"
            " and --db names another"
        )
    return revision


def _case_id(session: Session, case: Case) -> int:
    row = models.ExperimentCase(
        identity=case.identity,
        canonical=case.canonical(),
        mode=case.mode,
        data=case.data,
        image_size=case.model.image_size,
        batch_size=None if case.batch_size == "max" else case.batch_size,
        precision=case.precision,
        device=case.device,
        world_size=case.parallelism.world_size,
        zero_stage=case.parallelism.zero_stage,
    )
    return _registered(session, row, models.ExperimentCase.identity == row.identity)


def _machine_id(session: Session, machine: Machine) -> int:
    content = vars(machine)
    text = json.dumps(content, sort_keys=True)
    row = models.Machine(
        content_hash=hashlib.sha256(text.encode()).hexdigest(), **content
    )
    same = models.Machine.content_hash == row.content_hash
    return _registered(session, row, same)


def _metric_row(metric: Metric) -> models.Metric:
    row = models.Metric(**vars(metric))
    row.value, row.reason = _stored_value(metric)
    return row


def _stored_value(metric: Metric) -> tuple[float | None, str | None]:
    """The value, or None and the reason."""
    if metric.value is not None and not math.isfinite(metric.value):
        # SQLite would store NaN as NULL, and an infinity is no measurement either.
        return None, f"the measured value is {metric.value}"
    return metric.value, metric.reason


def _registered(
    session: Session,
    row: models.ExperimentCase | models.Machine,
    same: ColumnElement[bool],
) -> int:
    """The id of the row that is the same; if there is none, of this one, now stored."""
    known = select(type(row).id).where(same)
    found = session.scalar(known)
    if found is not None:
        return found
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        # On PostgreSQL another process may have come first since we looked.
        return session.scalars(known).one()
    return row.id
