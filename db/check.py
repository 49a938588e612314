"""Whether a database is sound: its file, its references, and what its rows say."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from statistics import median
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    Table,
    func,
    select,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from tlbench.db import migrations, models, query
from tlbench.db.connection import Location
from tlbench.db.resume import LEASE_S
from tlbench.db.store import machine_hash, schema_revision
from tlbench.errors import StoreError
from tlbench.result import WHOLE_JOB
from tlbench.suites.spec import identity_of
from tlbench.units import format_duration

State = Literal["sound", "notice", "damaged"]
MAX_NAMED = 5
"""Damaged rows that are named; of the others it is said how many."""
FLOAT64_BYTES = 8
STEP_TIMES, MEDIAN_STEP_TIME = "step_time_s", "step_time_p50_s"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    subject: str
    state: State
    finding: str
    """What was found, and the way out where it is not good."""


def check(location: str) -> list[Check]:
    """Look at all of a database, which is opened for reading only.

    Where the file is damaged, what its rows say is not asked for.
    """
    return check_place(Location.parse(location))


def check_place(place: Location) -> list[Check]:
    """The same of a parsed location, whose password no text has."""
    place.check("read")
    engine = place.engine("read")
    try:
        with place.explained(), engine.connect() as connection:
            if place.path is not None:
                driver: Any = connection.connection.driver_connection
                driver.text_factory = _text_or_bytes
            found = [*_file(connection, place)]
            if not any(item.state == "damaged" for item in found):
                found += _content(connection, place)
    finally:
        engine.dispose()
    return found


def _text_or_bytes(stored: bytes) -> str | bytes:
    """A text that is no UTF-8 as what it is, which is told where it stands."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _file(connection: Connection, place: Location) -> Iterator[Check]:
    """The pages of the file and its foreign keys; a server looks after its own."""
    if place.path is None:
        return
    saved = place.path.with_name(f"saved-{place.path.name}")
    way_out = (
        f"; nothing was changed: `sqlite3 {place} .recover | sqlite3 {saved}` saves"
        " what can be read, or, where that sqlite3 has no .recover,"
        f" `sqlite3 {place} .dump | sed 's/^ROLLBACK.*/COMMIT;/' | sqlite3 {saved}`;"
        f" then `tlbench db check --db {saved}` tells what that is"
    )
    try:
        problems = _lines(connection, f"PRAGMA integrity_check({MAX_NAMED})")
        if problems != ["ok"]:
            yield Check("file", "damaged", "; ".join(problems) + way_out)
            return
        yield Check("file", "sound", "every page and index was read")
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    except (DBAPIError, StoreError, UnicodeDecodeError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        yield Check("file", "damaged", f"{cause}{way_out}")
        return
    rows = [f"{table} {row} names no {other}" for table, row, other, _ in broken]
    yield _judge("references", rows, "every row finds those that it names")


def _lines(connection: Connection, statement: str) -> list[str]:
    rows = connection.exec_driver_sql(statement).scalars()
    return [line for row in rows for line in str(row).splitlines()]


def _content(connection: Connection, place: Location) -> Iterator[Check]:
    revision = schema_revision(connection, place)
    if revision is None:
        raise place.empty()
    if revision != (head := migrations.head()):
        yield Check(
            "schema",
            "notice",
            f"{revision} is older than {head}: `tlbench db upgrade --db {place}`"
            " brings it there, and only then are its rows looked at",
        )
        return
    yield Check("schema", "sound", f"{revision}, that of this tlbench")
    with Session(connection) as session:
        for look in LOOKS:
            yield from _tried(look, session)


def _tried(
    look: Callable[[Session], Iterator[Check]], session: Session
) -> Iterator[Check]:
    """A value that cannot be read ends one look, not all of them."""
    try:
        yield from look(session)
    except StoreError as error:
        yield Check(look.__name__.strip("_").replace("_", " "), "damaged", str(error))


def _judge(subject: str, problems: list[str], sound: str, way_out: str = "") -> Check:
    if not problems:
        return Check(subject, "sound", sound)
    named = "; ".join(problems[:MAX_NAMED])
    rest = len(problems) - MAX_NAMED
    more = f"; and {rest} more" if rest > 0 else ""
    return Check(subject, "damaged", f"{named}{more}{way_out}")


def _values(session: Session) -> Iterator[Check]:
    """SQLite keeps whatever stands in a column; a server takes what is of its type."""
    if session.get_bind().dialect.name != "sqlite":
        return
    problems = [
        problem
        for table in models.Base.metadata.sorted_tables
        for problem in _wrong_values(session, table)
    ]
    way_out = (
        " cannot be read; in a copy, sqlite3 can delete such rows, or set them right"
    )
    yield _judge("values", problems, "each is of its column's type", way_out)


def _wrong_values(session: Session, table: Table) -> Iterator[str]:
    as_stored = [type_coerce(column, NullType) for column in table.columns]
    keys = [place for place, column in enumerate(table.columns) if column.primary_key]
    readers = [(column, _reader(column, session)) for column in table.columns]
    for row in session.execute(select(*as_stored).execution_options(yield_per=1000)):
        wrong = [
            column.name
            for (column, is_readable), value in zip(readers, row, strict=True)
            if not is_readable(value)
        ]
        if wrong:
            named = ", ".join(str(row[place]) for place in keys)
            yield f"{' and '.join(wrong)} of {table.name} {named}"


def _reader(column: Column[Any], session: Session) -> Callable[[Any], bool]:
    """Whether what SQLite gives back can be read as a value of the column."""
    dialect = session.get_bind().dialect
    read = column.type.dialect_impl(dialect).result_processor(dialect, None)

    def is_readable(value: Any) -> bool:
        if value is None:
            return bool(column.nullable)
        if isinstance(column.type, Boolean):
            return value in (0, 1)
        if isinstance(column.type, Integer):
            return isinstance(value, int)
        try:
            return read is None or read(value) is not None
        except StoreError:
            return False

    return is_readable


def _cases(session: Session) -> Iterator[Check]:
    row = models.ExperimentCase
    rows = session.execute(select(row.id, row.identity, row.canonical)).all()
    changed = [
        f"case {identity[:8]} (row {row_id}) is not what its identity is the hash of"
        for row_id, identity, canonical in rows
        if identity_of(canonical) != identity
    ]
    yield _judge(
        "cases", changed, "their settings are those that they were stored with"
    )


def _machines(session: Session) -> Iterator[Check]:
    changed = [
        f"machine {machine.id} is not what its hash was made of"
        for machine in session.scalars(select(models.Machine))
        if machine_hash(query.machine_of(machine)) != machine.content_hash
    ]
    yield _judge("machines", changed, "they are as they were stored")


def _series(session: Session) -> Iterator[Check]:
    row = models.Series
    torn = select(row.trial_id, row.name).where(
        func.length(row.values) % FLOAT64_BYTES != 0
    )
    problems = [
        f"series {name} of trial {trial_id} ends within a number"
        for trial_id, name in session.execute(torn)
    ]
    yield _judge("series", problems, "every array has whole numbers")


def _step_times(session: Session) -> Iterator[Check]:
    """The stored median of the steps is that of the stored steps, to the last bit."""
    array, metric = models.Series, models.Metric
    pairs = (
        select(array.trial_id, array.values, metric.value)
        .join(metric, metric.trial_id == array.trial_id)
        .where(
            array.name == STEP_TIMES,
            metric.name == MEDIAN_STEP_TIME,
            array.rank == WHOLE_JOB,
            metric.rank == WHOLE_JOB,
        )
        .execution_options(yield_per=100)
    )
    problems = [
        f"{MEDIAN_STEP_TIME} of trial {trial_id} is not the median of its steps"
        for trial_id, values, value in session.execute(pairs)
        if not values or value != median(values)
    ]
    yield _judge("step times", problems, "each median is that of its steps")


def _archives(session: Session) -> Iterator[Check]:
    """Files of arrays are archives, which have sums of their own."""
    row = models.Artifact
    files = session.execute(
        select(row.trial_id, row.name, row.content)
        .where(row.name.endswith(".npz"))
        .execution_options(yield_per=10)
    )
    problems = [
        f"{name} of trial {trial_id} cannot be read"
        for trial_id, name, content in files
        if not _is_whole(content)
    ]
    yield _judge("archives", problems, "each file in them is what its sum says")


def _is_whole(archive: bytes) -> bool:
    try:
        return ZipFile(BytesIO(archive)).testzip() is None
    except (BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error):
        return False


def _runs(session: Session) -> Iterator[Check]:
    """Runs whose driver must be gone.

    One that says that it is alive does so in less than `LEASE_S`; of others, a trial
    ends by its time limit at the latest.
    """
    trial = models.Trial
    last = select(trial.run_id, func.max(trial.started_at)).group_by(trial.run_id)
    begun = dict(session.execute(last).all())
    for run in (run for run in query.runs(session) if run.status == "running"):
        heard = max(run.beat_at or run.started_at, begun.get(run.id, run.started_at))
        silent_s = (datetime.now(UTC) - heard).total_seconds()
        trial_s = run.suite_json.get("trial_timeout_s", 0)
        if run.is_abandoned or silent_s > (LEASE_S if run.beat_at else 2 * trial_s):
            yield Check(
                "runs",
                "notice",
                f"run {run.id} is marked running, but nothing was heard of it for"
                f" {format_duration(silent_s)}: its driver was killed; what it stored"
                f" is whole, and `tlbench run --resume {run.id}` goes on with it",
            )


def _counts(session: Session) -> Iterator[Check]:
    tables = {
        "runs": models.Run,
        "trials": models.Trial,
        "attempts": models.Attempt,
        "cases": models.ExperimentCase,
        "machines": models.Machine,
        "metrics": models.Metric,
        "series": models.Series,
        "files": models.Artifact,
        "calibrated values": models.Calibration,
    }
    counts = [
        f"{name} {session.scalar(select(func.count()).select_from(table)):,}"
        for name, table in tables.items()
    ]
    yield Check("content", "sound", ", ".join(counts))


LOOKS = (
    *(_values, _cases, _machines, _series),
    *(_step_times, _archives, _runs, _counts),
)
"""What is looked at in the rows, in the order in which it is told."""
