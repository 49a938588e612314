"""Results as files that other programs read: Parquet, CSV and JSON Lines.

Rows stream from the database into the file, a batch of trials at a time.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet
from sqlalchemy import Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from tlbench.db import models
from tlbench.db.conditions import Condition
from tlbench.db.connection import damaged_value, is_database
from tlbench.db.fields import NO_MACHINE, RUN_NAMES, TRIAL_COLUMNS
from tlbench.db.query import parts
from tlbench.db.search import Key, Search
from tlbench.errors import StoreError
from tlbench.result import WHOLE_JOB

Format = Literal["parquet", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
Table = Literal["trials", "metrics", "steps", "runs", "machines"]
TABLES: tuple[Table, ...] = get_args(Table)

BATCH = 200
"""Trials that are in memory at once; with 1000 steps each, 200,000 rows of `steps`."""

Columns = Mapping[str, Sequence[Any]]

_MOMENT = pa.timestamp("us", tz="UTC")
_TYPES = {
    **dict.fromkeys(("trial", "run", "machine_id", "repeat", "position"), pa.int64()),
    **dict.fromkeys(
        ("seed", "attempts", "planned", "rank", "index", "cpu_cores"), pa.int64()
    ),
    **dict.fromkeys(("memory_bytes", "gpu_memory_bytes", "gpu_count"), pa.int64()),
    **dict.fromkeys(("started_at", "ended_at"), _MOMENT),
    **dict.fromkeys(("wall_time_s", "value"), pa.float64()),
    "is_dirty": pa.bool_(),
}
"""Of the columns that are the same in every database and no text."""
_MORE_OF_TRIAL = ("notes", "doubts")
_METRIC = ("trial", "run", "model", "name", "rank", "value", "reason")
_STEP = ("trial", "run", "model", "name", "rank", "index", "value")
_RUN: dict[str, InstrumentedAttribute[Any]] = {
    "run": models.Run.id,
    **{
        column.key: column
        for column in (
            *(models.Run.uid, models.Run.origin, models.Run.suite),
            *(models.Run.description, models.Run.source, models.Run.command),
            *(models.Run.status, models.Run.ended_by, models.Run.planned),
            *(models.Run.started_at, models.Run.ended_at, models.Run.version),
            *(models.Run.note, models.Run.suite_json),
        )
    },
}
_MACHINE: dict[str, InstrumentedAttribute[Any]] = {
    "machine_id": models.Machine.id,
    **{
        column.key: column
        for column in (
            *(models.Machine.content_hash, models.Machine.hostname, models.Machine.os),
            *(models.Machine.cpu_model, models.Machine.cpu_cores),
            *(models.Machine.memory_bytes, models.Machine.gpu_name),
            *(models.Machine.gpu_count, models.Machine.gpu_memory_bytes),
            *(models.Machine.gpu_driver, models.Machine.python),
            *(models.Machine.versions, models.Machine.commit, models.Machine.is_dirty),
        )
    },
}


@dataclass(frozen=True)
class _Rows:
    """One table as it streams."""

    schema: pa.Schema
    batches: Iterator[Columns]


def export_file(
    session: Session,
    destination: Path,
    *,
    table: Table = "trials",
    file_format: Format = "parquet",
    conditions: Sequence[Condition] = (),
    overwrite: bool = False,
) -> int:
    """Write one table of the trials that meet conditions into a file.

    The file appears when it is whole; one that is there already stays, unless it is to
    be written over. Returns the number of rows.
    """
    with _beside(destination, overwrite=overwrite) as file:
        return export(
            session, file, table=table, file_format=file_format, conditions=conditions
        )


def export(
    session: Session,
    file: IO[bytes],
    *,
    table: Table = "trials",
    file_format: Format = "parquet",
    conditions: Sequence[Condition] = (),
) -> int:
    """Write one table of the trials that meet conditions into an open file.

    Returns the number of rows.
    """
    return _WRITERS[file_format](_Tables(session, conditions).rows(table), file)


@contextmanager
def _beside(destination: Path, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """A file that takes its name when it is whole."""
    _check_free(destination, overwrite=overwrite)
    try:
        with NamedTemporaryFile(
            dir=destination.parent, prefix=f".{destination.name}.", delete=False
        ) as file:
            half = Path(file.name)
            try:
                yield file
                half.chmod(0o666 & ~_umask())
                file.close()
                _check_free(destination, overwrite=overwrite)  # meanwhile, too
                half.replace(destination)
            except BaseException:
                half.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StoreError(f"{destination}: {error.strerror}") from error


def _check_free(destination: Path, *, overwrite: bool) -> None:
    if destination.is_dir():
        raise StoreError(f"{destination} is a folder; results are written into a file")
    if is_database(destination):
        raise StoreError(
            f"{destination} is a database, and stays; another name would be right"
        )
    if destination.exists() and not overwrite:
        raise StoreError(f"{destination} is there already; --force writes over it")


def _umask() -> int:
    """What the user takes away from new files, which temporary ones do not ask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# ---------------------------------------------------------------- formats


def _to_parquet(rows: _Rows, file: IO[bytes]) -> int:
    with parquet.ParquetWriter(file, rows.schema, compression="zstd") as writer:
        return _write(rows, rows.schema, writer.write_batch)


def _to_csv(rows: _Rows, file: IO[bytes]) -> int:
    schema = _of_text_and_numbers(rows.schema)
    # All text stands in quotes and NULL does not, which keeps it apart from no text.
    with csv.CSVWriter(file, schema) as writer:
        return _write(rows, schema, writer.write_batch)


def _to_json_lines(rows: _Rows, file: IO[bytes]) -> int:
    def write(batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            known = {name: _json_value(value) for name, value in row.items()}
            file.write(json.dumps(known, allow_nan=False).encode() + b"\n")

    return _write(rows, _of_text_and_numbers(rows.schema), write)


_WRITERS: dict[Format, Callable[[_Rows, IO[bytes]], int]] = {
    "parquet": _to_parquet,
    "csv": _to_csv,
    "jsonl": _to_json_lines,
}


def _write(
    rows: _Rows, schema: pa.Schema, write: Callable[[pa.RecordBatch], None]
) -> int:
    """Write a batch after the other in the types of a schema; returns their rows."""
    written = 0
    for columns in rows.batches:
        arrays = [_array(columns[field.name], field.type) for field in rows.schema]
        arrays = [
            array if array.type == field.type else _iso(array)
            for array, field in zip(arrays, schema, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        write(batch)
        written += batch.num_rows
    return written


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        values = [_text(value) for value in values]
    elif pa.types.is_floating(kind):
        values = [None if value is None else _number(value) for value in values]
    try:
        return pa.array(values, kind)
    except pa.ArrowInvalid as error:
        raise damaged_value(error) from error


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise damaged_value(value) from error


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        raise damaged_value(value)
    return json.dumps(value)


def _of_text_and_numbers(schema: pa.Schema) -> pa.Schema:
    """The same columns for a format that has no moments in time."""
    return pa.schema(
        (f.name, pa.string() if pa.types.is_timestamp(f.type) else f.type)
        for f in schema
    )


def _iso(moments: pa.Array) -> pa.Array:
    """As text: 2026-01-02T03:04:05.678901Z."""
    return pc.strftime(moments, format="%Y-%m-%dT%H:%M:%SZ")


def _json_value(value: Any) -> Any:
    """JSON knows no number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# ---------------------------------------------------------------- tables


class _Tables:
    """What is stored of the trials that meet conditions, as tables."""

    def __init__(self, session: Session, conditions: Sequence[Condition]) -> None:
        self._session = session
        self._are_all = not conditions
        self._search = Search(session, conditions)

    def rows(self, table: Table) -> _Rows:
        match table:
            case "trials":
                return self._trials()
            case "metrics":
                return self._in_batches(_METRIC, self._metrics)
            case "steps":
                return self._in_batches(_STEP, self._steps)
            case "runs":
                return self._runs()
            case "machines":
                return self._machines()

    @cached_property
    def _keys(self) -> list[Key]:
        """The trials in the order of storing."""
        return sorted(self._search.keys, key=lambda key: key.trial)

    def _in_batches(
        self, names: Iterable[str], read: Callable[[Sequence[Key]], Columns]
    ) -> _Rows:
        return _Rows(_schema(names), (read(some) for some in parts(self._keys, BATCH)))

    # ------------------------------------------------------------ one row a trial

    def _trials(self) -> _Rows:
        """All that conditions may name is a column."""
        known = (*TRIAL_COLUMNS, *RUN_NAMES, *NO_MACHINE, "case", *_MORE_OF_TRIAL)
        cases = [self._search.fields.cases[i] for i in {k.case for k in self._keys}]
        settings = sorted({name for case in cases for name in case} - {*known})
        metrics = [name for name in self._metric_names() if name not in settings]
        schema = pa.schema(
            [
                *_schema(known),
                *(
                    (name, _type_of(case.get(name) for case in cases))
                    for name in settings
                ),
                *((name, pa.float64()) for name in metrics),
            ]
        )
        names = [name for name in schema.names if name not in _MORE_OF_TRIAL]

        def read(keys: Sequence[Key]) -> Columns:
            return {**self._search.values(names, keys), **self._more_of(keys)}

        return _Rows(schema, (read(some) for some in parts(self._keys, BATCH)))

    def _more_of(self, keys: Sequence[Key]) -> Columns:
        trial = models.Trial
        columns = [getattr(trial, name) for name in _MORE_OF_TRIAL]
        statement = select(trial.id, *columns).where(trial.id.in_(_ids(keys)))
        found = {row.id: row for row in self._read(statement)}
        return {
            name: [getattr(found[key.trial], name) for key in keys]
            for name in _MORE_OF_TRIAL
        }

    def _metric_names(self) -> Sequence[str]:
        """Those that some of the trials has, whether measured or with a reason."""
        if self._are_all:
            return list(self._search.fields.metrics)
        metric = models.Metric
        names = select(metric.name).where(metric.rank == WHOLE_JOB).distinct()
        return sorted(
            {
                row.name
                for some in parts(_ids(self._keys))
                for row in self._read(names.where(metric.trial_id.in_(some)))
            }
        )

    # ------------------------------------------------------------ one row a value

    def _metrics(self, keys: Sequence[Key]) -> Columns:
        metric = models.Metric
        values = metric.name, metric.rank, metric.value, metric.reason
        return _columns(_METRIC, self._belonging(metric, values, keys))

    def _steps(self, keys: Sequence[Key]) -> Columns:
        array = models.Series
        arrays = self._belonging(array, (array.name, array.rank, array.values), keys)
        rows = [
            (*about, index, value)
            for *about, values in arrays
            for index, value in enumerate(values)
        ]
        return _columns(_STEP, rows)

    def _belonging(
        self,
        table: type[models.Metric | models.Series],
        columns: Sequence[InstrumentedAttribute[Any]],
        keys: Sequence[Key],
    ) -> Sequence[Any]:
        """What belongs to trials, after the trial, its run and its model."""
        trial = models.Trial
        return self._read(
            select(trial.id, trial.run_id, trial.model, *columns)
            .join(table, table.trial_id == trial.id)
            .where(trial.id.in_(_ids(keys)))
            .order_by(trial.id, table.id)
        )

    # ------------------------------------------------------------ one row a run

    def _runs(self) -> _Rows:
        run = models.Run
        statement = select(*(c.label(name) for name, c in _RUN.items()))
        if not self._are_all:
            statement = statement.where(run.id.in_({key.run for key in self._keys}))
        rows = self._read(statement.order_by(run.id))
        tags = [self._search.fields.runs[row.run]["tag"] for row in rows]
        columns = {**_columns(tuple(_RUN), rows), "tag": tags}
        return _Rows(_schema(columns), iter([columns]))

    def _machines(self) -> _Rows:
        machine = models.Machine
        statement = select(*(c.label(name) for name, c in _MACHINE.items()))
        if not self._are_all:
            used = {key.machine for key in self._keys} - {None}
            statement = statement.where(machine.id.in_(used))
        rows = self._read(statement.order_by(machine.id))
        return _Rows(_schema(_MACHINE), iter([_columns(tuple(_MACHINE), rows)]))

    def _read(self, statement: Select[Any]) -> Sequence[Any]:
        """Rows of plain values, past the session, which would look at each of them."""
        return self._session.connection().execute(statement).all()


def _ids(keys: Sequence[Key]) -> list[int]:
    return [key.trial for key in keys]


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Columns:
    if not rows:
        return {name: [] for name in names}
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _schema(names: Iterable[str]) -> pa.Schema:
    return pa.schema((name, _TYPES.get(name, pa.string())) for name in names)


def _type_of(values: Iterable[Any]) -> pa.DataType:
    """What holds all values of a setting; text, where they are of several kinds."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} else pa.string()
