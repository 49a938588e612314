"""What `check` finds sound, and which damage it finds where."""

import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from support.machine import MACHINE
from tlbench.db import models, query
from tlbench.db.check import check
from tlbench.db.store import ResultStore
from tlbench.errors import StoreError
from tlbench.result import Artifact, Metric, Series, TrialResult

RESULT = TrialResult(
    "ok",
    metrics=(Metric("step_time_p50_s", 2.0),),
    series=(Series("step_time_s", (1.0, 2.0, 3.0)),),
    machine=MACHINE,
)

Add = Callable[..., int]
Begin = Callable[..., int]


@pytest.fixture
def filled(store: ResultStore, begin: Begin, add: Add) -> ResultStore:
    run_id = begin(store)
    add(store, run_id, 0, result=RESULT)
    add(store, run_id, 1, result=RESULT)
    store.end_run(run_id, "finished")
    return store


def states(location: str) -> dict[str, str]:
    return {item.subject: item.state for item in check(location)}


def finding(location: str, subject: str) -> str:
    (found,) = [item.finding for item in check(location) if item.subject == subject]
    return found


def execute(store: ResultStore, statement: str) -> None:
    with store.transaction() as session:
        session.execute(text(statement))


class TestCheck:
    """What holds for every kind of database."""

    def test_sound_results_are_found_sound(
        self, filled: ResultStore, location: str
    ) -> None:
        assert set(states(location).values()) == {"sound"}
        assert finding(location, "content").startswith(
            "runs 1, trials 2, attempts 0, cases 1, machines 1, metrics 2, series 2"
        )

    def test_empty_database_is_sound(self, store: ResultStore, location: str) -> None:
        assert set(states(location).values()) == {"sound"}

    @pytest.mark.parametrize(
        ("statement", "subject", "told"),
        [
            (
                """UPDATE experiment_case SET canonical = '{"mode": "infer"}'""",
                "cases",
                r"\(row 1\) is not what its identity is the hash of",
            ),
            ("UPDATE machine SET cpu_cores = 7", "machines", "machine 1 is not what"),
            (
                "UPDATE metric SET value = 2.5 WHERE trial_id = 2",
                "step times",
                "^step_time_p50_s of trial 2 is not the median of its steps$",
            ),
        ],
    )
    def test_changed_value_is_found(
        self,
        filled: ResultStore,
        location: str,
        statement: str,
        subject: str,
        told: str,
    ) -> None:
        execute(filled, statement)
        found = states(location)
        assert found.pop(subject) == "damaged"
        assert set(found.values()) == {"sound"}
        assert re.search(told, finding(location, subject))

    def test_series_that_ends_within_a_number_is_found(
        self, filled: ResultStore, location: str
    ) -> None:
        execute(
            filled,
            'UPDATE series SET "values" = substr("values", 1, 20) WHERE trial_id = 1',
        )
        assert finding(location, "series") == (
            "series step_time_s of trial 1 ends within a number"
        )
        assert "the database is damaged" in finding(location, "step times")

    def test_many_damaged_rows_are_counted(
        self, store: ResultStore, location: str, begin: Begin, add: Add
    ) -> None:
        run_id = begin(store)
        for position in range(8):
            add(store, run_id, position, result=RESULT)
        execute(store, "UPDATE metric SET value = 1.0")
        assert finding(location, "step times").endswith("; and 3 more")

    def test_run_without_a_driver_is_noticed(
        self, store: ResultStore, location: str, begin: Begin
    ) -> None:
        fresh, old = begin(store), begin(store)
        with store.transaction() as session:
            run = session.get_one(models.Run, old)
            run.started_at = datetime.now(UTC) - timedelta(hours=3)
        (notice,) = [item for item in check(location) if item.state == "notice"]
        assert notice.finding.startswith(f"run {old} is marked running")
        assert fresh != old

    def test_run_whose_trials_still_come_is_not_noticed(
        self, store: ResultStore, location: str, begin: Begin, add: Add
    ) -> None:
        run_id = begin(store)
        trial_id = add(store, run_id)
        with store.transaction() as session:
            session.get_one(models.Run, run_id).started_at -= timedelta(hours=3)
            session.get_one(models.Trial, trial_id).started_at = datetime.now(UTC)
        assert set(states(location).values()) == {"sound"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


def test_row_without_its_run_is_found(file: Path, begin: Begin, add: Add) -> None:
    with ResultStore.open(str(file), create=True) as store:
        add(store, begin(store), result=RESULT)
    subprocess.run(["sqlite3", file, "DELETE FROM run"], check=True)
    assert finding(str(file), "references") == "trial 1 names no run"


@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        ("metric", "value = 'fast'", "value"),
        ("metric", "value = 9e999", "value"),
        ("trial", "position = 0.5, seed = 'x'", "position and seed"),
        ("trial", "doubts = '{}'", "doubts"),
        ("machine", "versions = NULL", "versions"),
        ("machine", "is_dirty = 'x'", "is_dirty"),
        ("experiment_case", "mode = x'ff'", "mode"),
        ("run", "started_at = '12:00'", "started_at"),
        ("run", "started_at = CAST(x'ff' AS TEXT)", "started_at"),
        ("run", "note = CAST(x'ff41' AS TEXT)", "note"),
        ("run", "plan = CAST(x'ff41' AS TEXT)", "plan"),
    ],
)
def test_value_that_is_not_of_its_column_is_found(
    table: str, change: str, told: str, file: Path, begin: Begin, add: Add
) -> None:
    with ResultStore.open(str(file), create=True) as store:
        add(store, begin(store), result=RESULT)
        add(store, begin(store), result=RESULT)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql,' NOT NULL','')")
        connection.commit()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"UPDATE {table} SET {change} WHERE id = 1")
        connection.commit()
    assert states(str(file))["values"] == "damaged"
    found = finding(str(file), "values")
    assert found.startswith(f"{told} of {table} 1 cannot be read; in a copy,")


def test_archive_of_arrays_that_is_torn_is_found(
    file: Path, begin: Begin, add: Add
) -> None:
    whole = BytesIO()
    np.savez(whole, maps=np.arange(99))
    torn = bytearray(whole.getvalue())
    torn[len(torn) // 2] ^= 255
    with ResultStore.open(str(file), create=True) as store:
        run_id = begin(store)
        for position, content in enumerate((whole.getvalue(), bytes(torn), b"x")):
            kept = Artifact("attention_maps.npz", "application/x-npz", content)
            add(store, run_id, position, result=replace(RESULT, artifacts=(kept,)))
    assert finding(str(file), "archives") == (
        "attention_maps.npz of trial 2 cannot be read;"
        " attention_maps.npz of trial 3 cannot be read"
    )


def test_what_damage_leads_to_is_told_as_damage(
    file: Path, begin: Begin, add: Add
) -> None:
    with ResultStore.open(str(file), create=True) as store:
        add(store, begin(store), result=RESULT)
        execute(store, "UPDATE trial SET wall_time_s = 'x'")
        with (
            pytest.raises(StoreError, match=r"results.db is damaged \(values\);"),
            store.session(),
        ):
            raise KeyError("model")


def test_a_mistake_of_ours_on_sound_results_keeps_its_trace(
    filled: ResultStore,
) -> None:
    with pytest.raises(KeyError, match="model"), filled.session():
        raise KeyError("model")


def test_older_schema_is_a_notice_that_names_the_upgrade(file: Path) -> None:
    script = Path(__file__).parent / "revisions" / "0001.sql"
    with script.open() as commands:
        subprocess.run(["sqlite3", file], stdin=commands, check=True)
    assert states(str(file))["schema"] == "notice"
    assert f"tlbench db upgrade --db {file}" in finding(str(file), "schema")


def test_missing_file_is_not_made(file: Path) -> None:
    with pytest.raises(StoreError, match="there is no database"):
        check(str(file))
    assert not file.exists()


def test_damaged_pages_are_found_and_the_way_out_saves_the_rest(
    file: Path, begin: Begin, add: Add, tmp_path: Path
) -> None:
    with ResultStore.open(str(file), create=True) as store:
        run_id = begin(store)
        for position in range(30):
            series = Series("step_time_s", tuple(float(i) for i in range(1000)))
            result = replace(RESULT, metrics=(), series=(series,))
            add(store, run_id, position, result=result)
    content = bytearray(file.read_bytes())
    # Of every other page of an array the next one is read from it.
    middle = (len(content) // 4096 * 4 // 5 + 1) * 4096
    content[middle : middle + 4096] = bytes(4096)
    file.write_bytes(content)
    (found,) = check(str(file))
    assert (found.subject, found.state) == ("file", "damaged")
    assert file.read_bytes() == content
    way_out = found.finding.split("`")[3]  # not each sqlite3 has its .recover
    subprocess.run(way_out, shell=True, check=True, cwd=tmp_path)
    saved = file.with_name("saved-results.db")
    with ResultStore.open(str(saved)) as store, store.session() as session:
        assert len(query.trials(session, [run_id])) == 30
