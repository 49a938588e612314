"""The tables: one class each, typed, with the reason for what is not obvious.

    run_tag >── run ──< trial ──< metric, series, artifact
                  run ──< attempt
                        trial >── experiment_case, machine ──< calibration

A change here needs a revision in `tlbench.db.migrations`; a test compares the two.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from tlbench.db.connection import damaged_value
from tlbench.result import Status, Validity

Value = TypeVar("Value")

RunStatus = Literal["running", "finished", "interrupted", "failed"]
LARGEST = 1e100
"""No measurement comes near it, and no float32; sums and ratios do not overflow."""


def is_number(value: float) -> bool:
    """Whether a measurement can have come to it: no NaN, and not beyond all sense."""
    return abs(value) <= LARGEST  # which is not so of NaN


def _checked(read: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    """The same reading; what cannot be read is told as damage."""
    if read is None:
        return None

    def read_checked(value: Any) -> Any:
        try:
            return read(value)
        except (TypeError, ValueError, struct.error) as error:
            raise damaged_value(value) from error

    return read_checked


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in time: aware in Python, UTC in the database.

    SQLite knows no time zones, so the zone is taken off and put back here.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value.astimezone(UTC)

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[Any], Any] | None:
        return _checked(super().result_processor(dialect, coltype))


class Float64Array(TypeDecorator[tuple[float, ...]]):
    """Numbers in their order, as one BLOB of little-endian float64."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(
        self, value: Sequence[float] | None, dialect: Dialect
    ) -> bytes | None:
        return None if value is None else struct.pack(f"<{len(value)}d", *value)

    def process_result_value(
        self, value: bytes | None, dialect: Dialect
    ) -> tuple[float, ...] | None:
        return None if value is None else struct.unpack(f"<{len(value) // 8}d", value)

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[Any], Any] | None:
        return _checked(super().result_processor(dialect, coltype))


class _Typed(TypeDecorator[Value]):
    """SQLite gives back whatever stands in a damaged file; another type is damage."""

    kinds: type | tuple[type, ...]

    def is_right(self, value: Value) -> bool:
        return isinstance(value, self.kinds)

    def process_result_value(
        self, value: Value | None, dialect: Dialect
    ) -> Value | None:
        if value is None or self.is_right(value):
            return value
        raise damaged_value(value)


class Number(_Typed[float]):
    """A float64 that a measurement can have come to."""

    impl = Double
    kinds = (float, int)
    cache_ok = True

    def is_right(self, value: float) -> bool:
        return super().is_right(value) and is_number(value)


class JsonObject(_Typed[dict[str, Any]]):
    """A mapping as JSON."""

    impl = JSON
    kinds = dict
    cache_ok = True


class JsonArray(_Typed[list[Any]]):
    """A list as JSON."""

    impl = JSON
    kinds = list
    cache_ok = True


class PlainText(_Typed[str]):
    """A text."""

    impl: type[String] = Text
    kinds = str
    cache_ok = True


class ShortText(PlainText):
    """The same, of a length that a server keeps to."""

    impl = String
    cache_ok = True


class Content(_Typed[bytes]):
    """The bytes of a file."""

    impl = LargeBinary
    kinds = bytes
    cache_ok = True


class OutsideText(PlainText):
    """Text from outside, such as a traceback or a path, which may hold anything.

    What UTF-8 cannot carry (lone surrogates) or PostgreSQL does not take (NUL) is
    written as an escape: a trial must not get lost over a character of its message.
    """

    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        text = value.encode("utf-8", "backslashreplace").decode("utf-8")
        return text.replace("\0", "\\x00")


class Base(DeclarativeBase):
    """Base of all tables; constraints have names, so that revisions can drop them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy reads it as it stands
        str: PlainText(),
        float: Number(),
        datetime: UtcDateTime(),
        bytes: Content(),
        dict[str, Any]: JsonObject(),
        dict[str, str]: JsonObject(),
        dict[str, str | None]: JsonObject(),
        list[str]: JsonArray(),
        list[list[int]]: JsonArray(none_as_null=True),
        tuple[float, ...]: Float64Array(),
    }


class Run(Base):
    """One `tlbench run` of a suite."""

    __tablename__ = "run"

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(ShortText(32), unique=True)
    """The same in every database that the run is copied to, as its id is not."""
    origin: Mapped[str | None] = mapped_column(index=True)
    """The foreign tool whose results were imported; None: tlbench measured them."""
    suite: Mapped[str]
    description: Mapped[str]
    suite_json: Mapped[dict[str, Any]]
    source: Mapped[str] = mapped_column(OutsideText)
    """File or built-in name that the suite was read from."""
    command: Mapped[str] = mapped_column(OutsideText)
    status: Mapped[RunStatus] = mapped_column(ShortText(16))
    ended_by: Mapped[str | None]
    """What ended a run on a budget; None: its plan did, or `status` says it all."""
    planned: Mapped[int]
    """Trials that the whole run has."""
    started_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    version: Mapped[str]
    """Of tlbench, on the driver; of the foreign tool, where it says."""
    note: Mapped[str] = mapped_column(OutsideText)
    """What people have to say about it; empty: nothing."""
    plan: Mapped[list[list[int]] | None] = mapped_column(deferred=True)
    """Of each trial, in the order of their positions, which of the suite's cases it is,
    its repeat, and its seed; None: the plan is open, or was not kept."""
    driver: Mapped[dict[str, Any] | None] = mapped_column(JsonObject(none_as_null=True))
    """The fields of `tlbench.driver.Driver`; only it may write; None: nobody knows."""
    beat_at: Mapped[datetime | None]
    """When the driver was last heard of."""

    tags: Mapped[list["RunTag"]] = relationship(lazy="raise", order_by="RunTag.tag")


class RunTag(Base):
    """One word by which people find a run again."""

    __tablename__ = "run_tag"

    run_id: Mapped[int] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"), primary_key=True
    )
    tag: Mapped[str] = mapped_column(OutsideText, primary_key=True, index=True)


class Machine(Base):
    """One state of one machine; the columns are the fields of `tlbench.machine`."""

    __tablename__ = "machine"
    __table_args__ = (Index(None, "gpu_name"), Index(None, "cpu_model"))

    id: Mapped[int] = mapped_column(primary_key=True)
    content_hash: Mapped[str] = mapped_column(ShortText(64), unique=True)
    """SHA-256 over all the fields below."""
    hostname: Mapped[str]
    os: Mapped[str]
    cpu_model: Mapped[str | None]
    cpu_cores: Mapped[int]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    gpu_name: Mapped[str | None]
    gpu_count: Mapped[int]
    gpu_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    gpu_driver: Mapped[str | None]
    python: Mapped[str]
    versions: Mapped[dict[str, str | None]]
    commit: Mapped[str | None]
    is_dirty: Mapped[bool | None]


class Calibration(Base):
    """One value that `tlbench calibrate` measured of a machine; the newest holds."""

    __tablename__ = "calibration"
    __table_args__ = (UniqueConstraint("machine_id", "name", "measured_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    machine_id: Mapped[int] = mapped_column(ForeignKey("machine.id"))
    measured_at: Mapped[datetime]
    """The same for all values of one calibration."""
    name: Mapped[str]
    """Ends in the unit, as the name of a metric."""
    value: Mapped[float | None]
    """None: could not be measured; the reason says why."""
    reason: Mapped[str | None] = mapped_column(OutsideText)


class ExperimentCase(Base):
    """One resolved case, the same in every run that has it.

    What people call its model is not part of its identity, and so stands with the
    trial: the same case may be asked for under another name later.
    """

    __tablename__ = "experiment_case"

    id: Mapped[int] = mapped_column(primary_key=True)
    identity: Mapped[str] = mapped_column(ShortText(64), unique=True)
    canonical: Mapped[dict[str, Any]]
    """The JSON that the identity is the hash of; the columns below repeat it."""
    # None, but for the batch size: a foreign tool did not say.
    mode: Mapped[str]
    data: Mapped[str | None]
    image_size: Mapped[int | None]
    batch_size: Mapped[int | None]
    """None: the largest that fits, which each run finds out."""
    precision: Mapped[str | None]
    device: Mapped[str | None]
    world_size: Mapped[int | None]
    zero_stage: Mapped[int | None]


class Trial(Base):
    """One finished execution of a case, whatever came of it."""

    __tablename__ = "trial"
    # One row for each place in the plan: a resumed run cannot store a trial twice.
    __table_args__ = (UniqueConstraint("run_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    case_id: Mapped[int] = mapped_column(ForeignKey("experiment_case.id"), index=True)
    machine_id: Mapped[int | None] = mapped_column(ForeignKey("machine.id"), index=True)
    model: Mapped[str] = mapped_column(index=True)
    """The model's printed name in this run."""
    given_name: Mapped[str | None]
    """The `name` field of the model in this run's suite."""
    repeat: Mapped[int]
    position: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger, nullable=True)
    """NULL, as the wall time, only where a foreign tool did not say."""
    status: Mapped[Status] = mapped_column(ShortText(16))
    reason: Mapped[str | None] = mapped_column(OutsideText)
    traceback: Mapped[str | None] = mapped_column(OutsideText)
    started_at: Mapped[datetime] = mapped_column(index=True)
    wall_time_s: Mapped[float] = mapped_column(nullable=True)
    command: Mapped[str] = mapped_column(OutsideText)
    """What repeats this one trial."""
    notes: Mapped[dict[str, str]]
    validity: Mapped[Validity | None] = mapped_column(ShortText(16))
    """None: not judged, as where the status is not ok."""
    doubts: Mapped[list[str]]
    """Why it is not valid, a sentence each."""
    attempts: Mapped[int]
    """How often it was executed, until this came of it."""
    nodes: Mapped[list[str]]
    """Where its ranks ran, by the names of the nodes; none: that is not known."""

    # Written with the trial; read by the queries, never by walking from row to row.
    metrics: Mapped[list["Metric"]] = relationship(lazy="raise")
    series: Mapped[list["Series"]] = relationship(lazy="raise")
    artifacts: Mapped[list["Artifact"]] = relationship(lazy="raise")


class Attempt(Base):
    """One execution of a trial that came to nothing, and after which it was run again.

    What came of the last one is the trial's own row.
    """

    __tablename__ = "attempt"
    __table_args__ = (UniqueConstraint("run_id", "position", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    position: Mapped[int]
    """Of the trial in its run."""
    number: Mapped[int]
    """From 1."""
    status: Mapped[Status] = mapped_column(ShortText(16))
    reason: Mapped[str | None] = mapped_column(OutsideText)
    traceback: Mapped[str | None] = mapped_column(OutsideText)
    started_at: Mapped[datetime]
    wall_time_s: Mapped[float]
    nodes: Mapped[list[str]]


class Metric(Base):
    """One value of one metric of one trial; the name ends with its unit."""

    __tablename__ = "metric"
    __table_args__ = (
        UniqueConstraint("trial_id", "name", "rank"),
        Index(None, "name", "rank", "trial_id", "value"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"))
    name: Mapped[str]
    rank: Mapped[int]
    """-1: the whole job (NULL would escape the unique constraint)."""
    value: Mapped[float | None]
    """None: could not be measured; the reason says why."""
    reason: Mapped[str | None] = mapped_column(OutsideText)


class Series(Base):
    """One array of one metric of one trial, such as the time of every step."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("trial_id", "name", "rank"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"))
    name: Mapped[str]
    rank: Mapped[int]
    values: Mapped[tuple[float, ...]]


class Artifact(Base):
    """One small file that a trial left behind."""

    __tablename__ = "artifact"
    __table_args__ = (UniqueConstraint("trial_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"))
    name: Mapped[str]
    media_type: Mapped[str]
    content: Mapped[bytes]
