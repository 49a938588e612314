"""Exported files, read back by pandas and pyarrow and held against the queries."""

import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from support.machine import MACHINE
from tlbench.db import query
from tlbench.db.conditions import parse_conditions
from tlbench.db.export import FORMATS, TABLES, Format, Table, export, export_file
from tlbench.db.store import ResultStore
from tlbench.errors import StoreError
from tlbench.result import Metric, Series, TrialResult

Begin = Callable[..., int]
Add = Callable[..., int]

STEPS = (0.1, 1 / 3, 2.5)
OK = TrialResult(
    "ok",
    metrics=(
        Metric("throughput_samples_per_s", 1 / 3),
        Metric("mfu", None, "no peak is known"),
        Metric("loss", 0.25, rank=0),
    ),
    series=(Series("step_time_s", STEPS), Series("step_time_s", (9.0,), rank=1)),
    machine=MACHINE,
    notes={"stopped_by": "target"},
)
FAILED = TrialResult("error", '=HYPERLINK("http://x"), "quoted"\nand a line', "Trace")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlbench.db.export.BATCH", 2)


@pytest.fixture
def filled(store: ResultStore, begin: Begin, add: Add) -> ResultStore:
    """Two runs: three trials, the last of them failed, and one."""
    first, second = begin(store), begin(store)
    for position, result in enumerate((OK, OK, FAILED)):
        add(store, first, position, result)
    add(store, second, 0, TrialResult("ok", metrics=(Metric("loss", 2.0),)))
    return store


def exported(
    store: ResultStore, table: Table, file_format: Format, *conditions: str
) -> pd.DataFrame:
    file = io.BytesIO()
    parsed = parse_conditions(*conditions)
    with store.session() as session:
        rows = export(
            session, file, table=table, file_format=file_format, conditions=parsed
        )
    file.seek(0)
    if file_format == "parquet":
        frame = pd.DataFrame(parquet.read_table(file).to_pandas())
    elif file_format == "csv":
        frame = pd.read_csv(file)
    else:
        frame = pd.DataFrame([json.loads(line) for line in file])
    assert len(frame) == rows
    return frame


def known(value: Any) -> Any:
    """None for every way in which pandas says that there is no value."""
    return None if pd.isna(value) else value


@pytest.mark.parametrize("file_format", FORMATS)
def test_trials_are_those_of_the_query(
    filled: ResultStore, file_format: Format
) -> None:
    frame = exported(filled, "trials", file_format)
    with filled.session() as session:
        records = query.trials(session, [1, 2])
    assert list(frame["trial"]) == [record.id for record in records]
    for row, record in zip(frame.to_dict("records"), records, strict=True):
        assert row["model"] == record.model
        assert row["case"] == record.identity
        assert row["batch_size"] == record.case.batch_size
        assert row["model.token_learner.num_tokens"] == 8
        assert row["status"] == record.status
        assert known(row["reason"]) == record.reason
        assert pd.Timestamp(row["started_at"]) == record.started_at
        assert json.loads(row["notes"]) == record.notes
        for name in ("throughput_samples_per_s", "mfu", "loss"):
            assert known(row[name]) == record.metrics.get(name)


@pytest.mark.parametrize("file_format", FORMATS)
def test_metrics_are_long_with_the_reason(
    filled: ResultStore, file_format: Format
) -> None:
    frame = exported(filled, "metrics", file_format)
    rows = [tuple(map(known, row)) for row in frame.itertuples(index=False)]
    of_trial = [
        ("throughput_samples_per_s", -1, 1 / 3, None),
        ("mfu", -1, None, "no peak is known"),
        ("loss", 0, 0.25, None),
    ]
    model = "ViT-Ti/16+TL8@6"
    assert rows == [
        *((1, 1, model, *row) for row in of_trial),
        *((2, 1, model, *row) for row in of_trial),
        (4, 2, model, "loss", -1, 2.0, None),
    ]


@pytest.mark.parametrize("file_format", FORMATS)
def test_steps_are_the_series(filled: ResultStore, file_format: Format) -> None:
    frame = exported(filled, "steps", file_format)
    with filled.session() as session:
        series = query.series(session, [1, 2], ["step_time_s"])
    for (trial_id, name), values in series.items():
        own = frame[(frame["trial"] == trial_id) & (frame["rank"] == -1)]
        assert list(own["name"]) == len(values) * [name]
        assert list(own["index"]) == [0, 1, 2]
        assert tuple(own["value"]) == values
    assert len(frame) == 2 * (len(STEPS) + 1)


@pytest.mark.parametrize("table", TABLES)
def test_formats_hold_the_same(filled: ResultStore, table: Table) -> None:
    frames = [exported(filled, table, file_format) for file_format in FORMATS]
    contents = [
        [[known(value) or None for value in row] for row in _alike(frame).to_numpy()]
        for frame in frames
    ]
    assert contents[0] == contents[1] == contents[2]
    assert contents[0]


def _alike(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as numbers and moments as text, whatever the format made of them.

    Of a CSV, pandas reads no text and no value alike.
    """
    frame = frame.copy()
    for name in ("started_at", "ended_at"):
        if name in frame:
            frame[name] = pd.to_datetime(frame[name], utc=True).astype(str)
    for name in frame.columns:
        if frame[name].dtype != object and frame[name].dtype.kind in "iuf":
            frame[name] = frame[name].astype(float)
    return frame.astype(object)


def test_times_are_utc_with_all_digits(filled: ResultStore) -> None:
    assert exported(filled, "trials", "csv")["started_at"][0] == (
        "2026-01-02T03:04:05.678901Z"
    )
    kept = exported(filled, "trials", "parquet")["started_at"]
    assert str(kept.dtype) == "datetime64[us, UTC]"


def test_text_in_a_csv_stays_as_it_is(filled: ResultStore) -> None:
    """A cell that a spreadsheet would take for a formula, too."""
    assert exported(filled, "trials", "csv")["reason"][2] == FAILED.reason


def test_no_value_is_an_empty_cell_and_no_text_is_quoted(filled: ResultStore) -> None:
    file = io.BytesIO()
    with filled.session() as session:
        export(session, file, table="runs", file_format="csv")
    heading, row, *_ = file.getvalue().decode().splitlines()
    cells = dict(zip(heading.split(","), row.split(","), strict=False))
    assert cells['"origin"'] == ""
    assert '"note"' in heading
    assert ',"",' in row  # the note


def test_number_that_is_not_finite_is_null_in_json(
    store: ResultStore, begin: Begin, add: Add
) -> None:
    series = (Series("loss", (1.0, float("nan"), float("inf"))),)
    add(store, begin(store), 0, TrialResult("ok", series=series))
    kept = exported(store, "steps", "parquet")["value"].to_numpy()
    assert np.array_equal(kept, series[0].values, equal_nan=True)
    file = io.BytesIO()
    with store.session() as session:
        export(session, file, table="steps", file_format="jsonl")
    values = [json.loads(line)["value"] for line in file.getvalue().splitlines()]
    assert values == [1.0, None, None]


def test_conditions_choose_the_trials(filled: ResultStore) -> None:
    assert list(exported(filled, "trials", "csv", "status=ok", "run=1")["trial"]) == [
        1,
        2,
    ]
    frame = exported(filled, "trials", "csv", "run=2")
    assert "mfu" not in frame  # no trial of the run has it
    assert list(exported(filled, "runs", "csv", "run=2")["run"]) == [2]
    assert len(exported(filled, "machines", "csv", "run=2")) == 0


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("file_format", FORMATS)
def test_empty_database_gives_headings(
    store: ResultStore, table: Table, file_format: Format
) -> None:
    frame = exported(store, table, file_format)
    assert frame.empty
    if file_format != "jsonl":
        assert len(frame.columns) > 5


class TestFile:
    def test_file_that_is_there_stays(
        self, filled: ResultStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "trials.csv"
        file.write_text("mine")
        with (
            filled.session() as session,
            pytest.raises(StoreError, match="is there already; --force"),
        ):
            export_file(session, file, file_format="csv")
        assert file.read_text() == "mine"
        with filled.session() as session:
            assert export_file(session, file, file_format="csv", overwrite=True) == 4
        assert len(pd.read_csv(file)) == 4

    def test_database_stays_even_by_force(
        self, filled: ResultStore, tmp_path: Path
    ) -> None:
        file = tmp_path / "other.db"
        ResultStore.open(str(file), create=True).close()
        before = file.read_bytes()
        with (
            filled.session() as session,
            pytest.raises(StoreError, match=r"other\.db is a database, and stays"),
        ):
            export_file(session, file, overwrite=True)
        assert file.read_bytes() == before

    def test_half_a_file_is_never_there(
        self, filled: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*arguments: object) -> None:
            raise RuntimeError

        monkeypatch.setattr("tlbench.db.export._columns", fail)
        before = set(tmp_path.iterdir())
        with filled.session() as session, pytest.raises(RuntimeError):
            export_file(
                session, tmp_path / "steps.csv", table="steps", file_format="csv"
            )
        assert set(tmp_path.iterdir()) == before

    def test_others_may_read_it_as_any_new_file(
        self, filled: ResultStore, tmp_path: Path
    ) -> None:
        file, other = tmp_path / "a.parquet", tmp_path / "other"
        other.touch()
        with filled.session() as session:
            export_file(session, file)
        assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)

    def test_folder_that_is_missing_is_named(
        self, filled: ResultStore, tmp_path: Path
    ) -> None:
        with (
            filled.session() as session,
            pytest.raises(StoreError, match=r"nowhere/x\.csv: No such file"),
        ):
            export_file(session, tmp_path / "nowhere" / "x.csv", file_format="csv")
