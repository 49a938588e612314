"""All writes: runs and their trials go in here, one transaction per finished trial."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from types import TracebackType
from typing import Any, Literal, Self, cast
from uuid import uuid4

from sqlalchemy import (
    Connection,
    Engine,
    Insert,
    Table,
    bindparam,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tlbench.db import migrations, models
from tlbench.db.connection import Location, Mode, sqlite_statements, writer
from tlbench.db.filesystem import network_file_system
from tlbench.db.query import read_driver
from tlbench.driver import Driver
from tlbench.errors import StoreError
from tlbench.events import Finished
from tlbench.machine import Machine
from tlbench.result import Metric, TrialResult
from tlbench.suites.names import model_name
from tlbench.suites.spec import Case, Suite, Trial

_log = logging.getLogger(__name__)  # to stderr, where nobody has set up anything

CLOSING_TIMEOUT_S = 1.0
"""How long closing waits for readers before it leaves the log to the next writer."""
PUZZLED = (
    *(ArithmeticError, AssertionError, AttributeError),
    *(LookupError, TypeError, ValueError),
)
"""What code raises on values that it was never to see."""

_Registered = models.ExperimentCase | models.Machine
"""What is stored once, and found again by a hash of all its columns."""

# Written once: to put a statement together takes longer than to execute it.
_SLOT = (
    select(
        models.Run.id,
        models.Run.driver,
        models.Trial.id,
        models.Trial.started_at,
        models.Trial.wall_time_s,
    )
    .outerjoin(
        models.Trial,
        (models.Trial.run_id == models.Run.id)
        & (models.Trial.position == bindparam("place")),
    )
    .where(models.Run.id == bindparam("run"))
)
"""A run, who drives it, and its trial at a position where there is one."""
_KEYS: dict[type[_Registered], str] = {
    models.ExperimentCase: "identity",
    models.Machine: "content_hash",
}
_KNOWN = {
    table: select(table.id)
    .where(getattr(table, key) == bindparam("key"))
    .with_for_update(read=True, key_share=True)
    for table, key in _KEYS.items()
}
"""The row of a case or a machine that is stored already."""


class ResultStore:
    """An open result database."""

    def __init__(self, location: Location, engine: Engine, *, read_only: bool) -> None:
        self._location, self._engine = location, engine
        self._read_only = read_only
        self._driver: Driver | None = None
        """Who drives the runs that are written here; None: nobody else can."""

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
                if not read_only:
                    _choose_journal(engine, place)
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
                    sqlite_statements(
                        self._engine,
                        f"PRAGMA busy_timeout = {CLOSING_TIMEOUT_S * 1000:.0f}",
                        "PRAGMA wal_checkpoint(TRUNCATE)",
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
        """One unit of reading, for the functions of `tlbench.db.query`.

        What a damaged value leads to anywhere is told as the damage that it is.
        """
        with self._location.explained(), Session(self._engine) as session:
            try:
                yield session
            except PUZZLED as error:
                if damaged := self._damaged():
                    raise StoreError(
                        f"{self._location} is damaged ({damaged}); `tlbench db check`"
                        " tells where, and how to save the rest"
                    ) from error
                raise

    def _damaged(self) -> str:
        """The parts of the database that are not sound."""
        from tlbench.db.check import check_place

        found = check_place(self._location)
        return ", ".join(item.subject for item in found if item.state == "damaged")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One unit of writing: all of it is stored, or nothing."""
        if self._read_only:
            raise StoreError(f"{self._location} was opened for reading only")
        with (
            self._location.explained(),
            Session(writer(self._engine)) as session,
            session.begin(),
        ):
            yield session

    def give_space_back(self) -> None:
        """Make an SQLite file as small as what is left in it; servers do so themselves.

        Refused while a run goes on: its driver may wait in vain until a large file is
        copied.
        """
        with self.session() as session:
            running = session.scalar(
                select(models.Run.id).filter_by(status="running").limit(1)
            )
        if running is not None:
            raise StoreError(
                f"{self._location} keeps its size, for run {running} is marked running;"
                " new results fill the space"
            )
        with self._location.explained():
            sqlite_statements(self._engine, "VACUUM")

    def begin_run(
        self,
        *,
        suite: Suite,
        source: str,
        command: str,
        planned: int,
        plan: Sequence[Trial] | None = None,
        driver: Driver | None = None,
    ) -> int:
        """Store what is asked for, before its first trial; returns the run's id.

        Args:
            suite: What is asked for.
            source: Where the suite was read from.
            command: What people have typed.
            planned: How many trials there will be.
            plan: These trials, in their order; None: that is open, and the run cannot
                be resumed.
            driver: Who alone may write to the run from now on.
        """
        run = models.Run(
            uid=uuid4().hex,
            suite=suite.name,
            description=suite.description,
            suite_json=suite.model_dump(mode="json"),
            source=source,
            command=command,
            status="running",
            planned=planned,
            started_at=datetime.now(UTC),
            version=version("tlbench"),
            note="",
            plan=plan and _compact(suite, plan),
            driver=driver and asdict(driver),
            beat_at=driver and datetime.now(UTC),
        )
        with self.transaction() as session:
            session.add(run)
            session.flush()
            run_id = run.id
        if driver is not None:
            self.drive(driver)
        return run_id

    def add_trial(
        self,
        run_id: int,
        trial: Trial,
        result: TrialResult,
        *,
        started_at: datetime,
        wall_time_s: float,
        command: str,
        attempts: int = 1,
        nodes: Sequence[str] = (),
    ) -> int:
        """Store one finished trial in one transaction; returns its id.

        A metric that is not a finite number is stored without a value, and says so. A
        trial that is stored already, for the answer was lost, stays as it is.
        """
        with self.transaction() as session:
            when = started_at, wall_time_s
            known = self._check_slot(session, run_id, trial.position, when)
            if known is not None:
                return known
            row = {
                "run_id": run_id,
                "case_id": case_id(session, trial.case),
                "machine_id": result.machine and machine_id(session, result.machine),
                "started_at": started_at,
                "wall_time_s": wall_time_s,
                "command": command,
                "attempts": attempts,
                "nodes": list(nodes),
                **_planned(trial),
                **_outcome(result),
            }
            trial_id = insert_row(session, models.Trial, row)
            _add_measured(session, trial_id, result)
            return trial_id

    def add_attempt(self, run_id: int, finished: Finished) -> None:
        """Store an execution of a trial after which it is run again; once or twice."""
        key = {
            "run_id": run_id,
            "position": finished.trial.position,
            "number": finished.attempt,
        }
        known = select(models.Attempt.id).filter_by(**key)
        with self.transaction() as session:
            self._driven(session, run_id)
            if session.scalar(known) is not None:
                return
            row = {
                **key,
                "status": finished.result.status,
                "reason": finished.result.reason,
                "traceback": finished.result.traceback,
                "started_at": finished.started_at,
                "wall_time_s": finished.wall_time_s,
                "nodes": list(finished.nodes),
            }
            insert_row(session, models.Attempt, row)

    def add_calibration(
        self, machine: Machine, values: Sequence[Metric], measured_at: datetime
    ) -> None:
        """Store what was measured of a machine, all of it at one moment."""
        with self.transaction() as session:
            of = {
                "machine_id": machine_id(session, machine),
                "measured_at": measured_at,
            }
            rows = [{**of, "name": m.name, **_stored_value(m)} for m in values]
            insert_rows(session, models.Calibration, rows)

    def replan(self, run_id: int, planned: int) -> None:
        """Store how many trials the run has, where that changes while it goes on."""
        with self.transaction() as session:
            self._driven(session, run_id).planned = planned

    def beat(self, run_id: int) -> None:
        """Store that the driver of the run is alive."""
        with self.transaction() as session:
            self._driven(session, run_id).beat_at = datetime.now(UTC)

    def end_run(
        self,
        run_id: int,
        status: Literal["finished", "interrupted", "failed"],
        *,
        ended_by: str | None = None,
    ) -> None:
        """Store how a run ended, what ended it where that is open, and when."""
        with self.transaction() as session:
            run = self._driven(session, run_id)
            run.status, run.ended_at = status, datetime.now(UTC)
            run.ended_by = ended_by

    def drive(self, driver: Driver) -> None:
        """Write as this driver from now on, and to runs of no other."""
        self._driver = driver

    def _driven(self, session: Session, run_id: int) -> models.Run:
        """The run, which nobody has taken over."""
        run = session.get(models.Run, run_id)
        if run is None:
            raise self._no_run(run_id)
        self._check_driver(run_id, run.driver)
        return run

    def _check_driver(self, run_id: int, stored: Mapping[str, Any] | None) -> None:
        if self._driver is None or stored is None:
            return
        driver = read_driver(stored)
        if driver.uid != self._driver.uid:
            raise StoreError(
                f"run {run_id} was taken over by {driver} while this process did not"
                " answer; it goes on there"
            )

    def _no_run(self, run_id: int) -> StoreError:
        return StoreError(f"{self._location} has no run {run_id}")

    def _check_slot(
        self, session: Session, run_id: int, position: int, ours: tuple[datetime, float]
    ) -> int | None:
        """The id of the trial at this position if it is ours; None: there is none."""
        place = {"run": run_id, "place": position}
        slot = session.connection().execute(_SLOT, place).one_or_none()
        if slot is None:
            raise self._no_run(run_id)
        self._check_driver(run_id, slot[1])
        taken: int | None = slot[2]
        if taken is None or slot[3:] == ours:
            return taken
        raise StoreError(
            f"{self._location}: run {run_id} already has its trial at position"
            f" {position}, trial {taken}"
        )


def _choose_journal(engine: Engine, place: Location) -> None:
    """Readers and a writer work side by side by a log, which one host must hold alone.

    https://www.sqlite.org/wal.html: it does not work over a network file system.
    """
    kind = place.path and network_file_system(place.path)
    if kind:
        _warn_of_network(place, kind)
    sqlite_statements(engine, f"PRAGMA journal_mode = {'DELETE' if kind else 'WAL'}")


@cache
def _warn_of_network(place: Location, kind: str) -> None:
    _log.warning(
        "%s lies on a network file system (%s), where several hosts that write at once"
        " can destroy it: a file on a local disk, or PostgreSQL for several hosts, is"
        " safe",
        place,
        kind,
    )


def upgrade(location: str) -> tuple[str, str]:
    """Bring an older database to the schema of this tlbench.

    Returns the revisions before and after. All steps are one transaction.
    """
    place = Location.parse(location)
    with _migration(place, "write") as connection:
        before = schema_revision(connection, place)
        if before is None:
            raise place.empty()
        migrations.upgrade(connection)
    return before, migrations.head()


def _create(place: Location) -> None:
    """Give a database that is missing or empty its tables; no other is touched."""
    with _migration(place, "create") as connection:
        if schema_revision(connection, place) is None:
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
        revision = schema_revision(connection, place)
    if revision is None:
        raise place.empty()
    if revision != (head := migrations.head()):
        raise StoreError(
            f"{place} has the older schema {revision}, this tlbench needs {head};"
            f" `tlbench db upgrade --db {place}` brings it there"
        )


def schema_revision(connection: Connection, place: Location) -> str | None:
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
            f"{place} has the schema {revision!r} of a newer tlbench, this one knows up"
            f" to {migrations.head()}; `pip install --upgrade tlbench` lets it be read,"
            " and --db names another"
        )
    return revision


def _compact(suite: Suite, plan: Sequence[Trial]) -> list[list[int]] | None:
    """The plan as it is stored; None: it has cases that the suite has not."""
    numbers = {case.identity: number for number, case in enumerate(suite.cases)}
    cases = {id(trial.case): trial.case for trial in plan}  # identities take time
    if any(case.identity not in numbers for case in cases.values()):
        return None
    places = {key: numbers[case.identity] for key, case in cases.items()}
    return [[places[id(trial.case)], trial.repeat, trial.seed] for trial in plan]


def _planned(trial: Trial) -> dict[str, Any]:
    return {
        "model": model_name(trial.case.model),
        "given_name": trial.case.model.name,
        "repeat": trial.repeat,
        "position": trial.position,
        "seed": trial.seed,
    }


def _outcome(result: TrialResult) -> dict[str, Any]:
    return {
        "status": result.status,
        "reason": result.reason,
        "traceback": result.traceback,
        "notes": result.notes,
        "validity": result.validity,
        "doubts": list(result.doubts),
    }


def _add_measured(session: Session, trial_id: int, result: TrialResult) -> None:
    metrics = [vars(metric) | _stored_value(metric) for metric in result.metrics]
    for table, items in (
        (models.Metric, metrics),
        (models.Series, map(vars, result.series)),
        (models.Artifact, map(vars, result.artifacts)),
    ):
        insert_rows(session, table, [{"trial_id": trial_id, **item} for item in items])


def case_id(session: Session, case: Case) -> int:
    """The id of a case, which is stored where it is not yet."""
    columns = {
        "identity": case.identity,
        "canonical": case.canonical(),
        "mode": case.mode,
        "data": case.data,
        "image_size": case.model.image_size,
        "batch_size": None if case.batch_size == "max" else case.batch_size,
        "precision": case.precision,
        "device": case.device,
        "world_size": case.parallelism.world_size,
        "zero_stage": case.parallelism.zero_stage,
    }
    return registered(session, models.ExperimentCase, columns)


def machine_id(session: Session, machine: Machine) -> int:
    """The id of a machine, which is stored where it is not yet."""
    columns = {"content_hash": machine_hash(machine), **vars(machine)}
    return registered(session, models.Machine, columns)


def machine_hash(machine: Machine) -> str:
    """SHA-256 over all that is known of a machine, in hexadecimal."""
    text = json.dumps(vars(machine), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def registered(
    session: Session,
    table: type[_Registered],
    columns: Mapping[str, Any],
) -> int:
    """The id of the row with the same key; if there is none, of this one, now stored.

    On PostgreSQL it cannot be deleted as unused before its trial is there.
    """
    known, wanted = _KNOWN[table], {"key": columns[_KEYS[table]]}
    connection = session.connection()
    found = connection.scalar(known, wanted)
    if found is not None:
        return int(found)
    try:
        with session.begin_nested():
            return insert_row(session, table, columns)
    except IntegrityError:
        # On PostgreSQL another process may have come first since we looked.
        return int(connection.scalars(known, wanted).one())


def insert_row(
    session: Session, table: type[models.Base], row: Mapping[str, Any]
) -> int:
    """Store one row; returns its id."""
    inserted = session.connection().execute(_insert(table), row)
    (row_id,) = cast(tuple[int], inserted.inserted_primary_key)
    return row_id


def insert_rows(
    session: Session, table: type[models.Base], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Store rows of the same columns."""
    if rows:
        session.connection().execute(_insert(table), rows)


@cache
def _insert(table: type[models.Base]) -> Insert:
    # By the table, not by its class: to make objects of the rows takes several times
    # as long as to store them.
    return insert(cast(Table, table.__table__))


def _stored_value(metric: Metric) -> dict[str, float | str | None]:
    """The value, or None and the reason."""
    if metric.value is not None and not models.is_number(metric.value):
        # SQLite would store NaN as NULL, and what is beyond all sense is damage to it.
        return {"value": None, "reason": f"the measured value is {metric.value}"}
    return {"value": metric.value, "reason": metric.reason}
