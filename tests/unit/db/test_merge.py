"""Merging databases: what comes along, how often one may, and what is refused."""

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from support.machine import MACHINE
from tlbench.cli import app, main
from tlbench.db import upkeep
from tlbench.db.merge import merge
from tlbench.db.store import ResultStore
from tlbench.errors import StoreError
from tlbench.result import Artifact, Metric, Series, TrialResult

Begin = Callable[..., int]
Add = Callable[..., int]
Create = Callable[[str], ResultStore]

FULL = TrialResult(
    "ok",
    metrics=(
        Metric("throughput_samples_per_s", 1 / 3),
        Metric("mfu", None, "no peak is known"),
        Metric("loss", 0.5, rank=0),
    ),
    series=(Series("loss", (1.0, float("nan"), 0.1)), Series("empty_s", ())),
    artifacts=(Artifact("trace.json", "application/json", b"{\x00}"),),
    notes={"stopped_by": "target"},
    machine=MACHINE,
)
MOMENT = datetime(2026, 1, 2, tzinfo=UTC)

_CONTENTS = {
    "run": "SELECT uid, suite, source, status, planned, ended_at, note FROM run",
    "tag": "SELECT uid, tag FROM run_tag JOIN run ON run.id = run_id",
    "trial": "SELECT uid, position, identity, content_hash, model, trial.status,"
    " repeat, seed, trial.started_at, wall_time_s, notes, doubts FROM trial"
    " JOIN run ON run.id = run_id JOIN experiment_case c ON c.id = case_id"
    " LEFT JOIN machine m ON m.id = machine_id",
    **{
        table: f"SELECT uid, position, {table}.name, {columns} FROM {table}"
        " JOIN trial ON trial.id = trial_id JOIN run ON run.id = run_id"
        for table, columns in {
            "metric": "rank, value, metric.reason",
            "series": 'rank, "values"',
            "artifact": "media_type, content",
        }.items()
    },
    "calibration": "SELECT content_hash, name, measured_at, value, reason"
    " FROM calibration JOIN machine m ON m.id = machine_id",
    "case": "SELECT identity, canonical, mode, batch_size FROM experiment_case",
    "machine": "SELECT content_hash, hostname, versions, commit FROM machine".replace(
        "commit", '"commit"'
    ),
}
"""Everything that is stored, told without ids."""


def content(store: ResultStore) -> dict[str, list[str]]:
    with store.session() as session:
        return {
            table: sorted(str(tuple(row)) for row in session.execute(text(statement)))
            for table, statement in _CONTENTS.items()
        }


@pytest.fixture
def create(tmp_path: Path, request: pytest.FixtureRequest) -> Create:
    """Make an SQLite database that is closed at the end of the test."""

    def create(name: str) -> ResultStore:
        store = ResultStore.open(str(tmp_path / f"{name}.db"), create=True)
        request.addfinalizer(store.close)
        return store

    return create


@pytest.fixture
def source(create: Create, begin: Begin, add: Add) -> ResultStore:
    """Two runs, with all that a database can hold."""
    store = create("source")
    for trials in (3, 1):
        run_id = begin(store, planned=trials)
        for position in range(trials):
            add(store, run_id, position, FULL)
        store.end_run(run_id, "finished")
    other = replace(MACHINE, hostname="bench-02")
    store.add_calibration(other, [Metric("matmul_fp32_flops_per_s", 1e12)], MOMENT)
    store.add_calibration(MACHINE, [Metric("x_s", None, "there is none")], MOMENT)
    with store.transaction() as session:
        upkeep.add_tags(session, 1, ["nightly"])
        upkeep.set_note(session, 1, "the new cooler")
    return store


def test_everything_comes_along(source: ResultStore, store: ResultStore) -> None:
    """Into both kinds of database, with arrays and bytes as they are."""
    merged = merge(source, store)
    assert merged.runs == {1: 1, 2: 2}
    assert (merged.new_runs, merged.trials, merged.calibrations) == (2, 4, 2)
    with store.session() as session:
        rows = session.execute(text('SELECT "values" FROM series ORDER BY id')).all()
        values = session.execute(text("SELECT value FROM metric ORDER BY id")).all()
    with source.session() as session:
        assert (
            rows
            == session.execute(text('SELECT "values" FROM series ORDER BY id')).all()
        )
    assert [row.value for row in values] == 4 * [1 / 3, None, 0.5]


def test_sqlite_copy_is_the_same(source: ResultStore, create: Create) -> None:
    target = create("target")
    merge(source, target)
    assert content(target) == content(source)


def test_merging_again_changes_nothing(source: ResultStore, store: ResultStore) -> None:
    merge(source, store)
    before = content(store)
    again = merge(source, store)
    assert (again.new_runs, again.trials, again.calibrations) == (0, 0, 0)
    assert again.runs == {1: 1, 2: 2}
    assert content(store) == before


def test_order_makes_no_difference(
    source: ResultStore, create: Create, begin: Begin, add: Add
) -> None:
    """Also where both sides went on with the same run, and people wrote on both."""
    copy = create("copy")
    merge(source, copy)
    add(copy, 2, 2, FULL)
    add(source, 2, 3, FULL)
    copy.end_run(2, "interrupted", ended_by="budget")
    with copy.transaction() as session:
        upkeep.add_tags(session, 1, ["cooled"])
        upkeep.set_note(session, 1, "a quiet night")
    add(copy, begin(copy), 0)
    one, other = create("one"), create("other")
    for target, parts in ((one, (source, copy)), (other, (copy, source))):
        for part in parts:
            merge(part, target)
    assert content(one) == content(other)
    assert len(content(one)["trial"]) == 7
    assert any("a quiet night\\nthe new cooler" in row for row in content(one)["run"])


def test_notes_of_many_copies_come_out_the_same_in_any_order(
    create: Create, begin: Begin
) -> None:
    first = create("first")
    begin(first)
    copies = [create(f"copy{number}") for number in range(4)]
    for copy, note in zip(copies, ("b", "a", "", "b\na\nc"), strict=True):
        merge(first, copy)
        with copy.transaction() as session:
            upkeep.set_note(session, 1, note)
    found = set()
    for seed in range(6):
        target = create(f"target{seed}")
        for copy in random.Random(seed).sample(copies, len(copies)):
            merge(copy, target)
        found.add(str(content(target)["run"]))
    assert len(found) == 1


def test_run_that_went_on_brings_what_is_new(
    create: Create, begin: Begin, add: Add, store: ResultStore
) -> None:
    source = create("source")
    run_id = begin(source)
    add(source, run_id, 0, FULL)
    merge(source, store)
    add(source, run_id, 1, FULL)
    source.end_run(run_id, "finished")
    merged = merge(source, store)
    assert (merged.new_runs, merged.trials) == (0, 1)
    with store.session() as session:
        status = session.execute(text("SELECT status FROM run")).scalar_one()
    assert status == "finished"


def test_older_copy_does_not_take_a_run_back(
    source: ResultStore, create: Create
) -> None:
    copy = create("copy")
    merge(source, copy)
    with copy.transaction() as session:
        session.execute(text("UPDATE run SET status = 'running', ended_at = NULL"))
    before = content(source)
    merge(copy, source)
    assert content(source) == before


def test_only_the_runs_that_are_asked_for_come(
    source: ResultStore, store: ResultStore
) -> None:
    merged = merge(source, store, [2])
    assert merged.runs == {2: 1}
    assert (merged.trials, merged.calibrations) == (1, 1)


def test_unknown_run_is_refused(source: ResultStore, create: Create) -> None:
    target = create("target")
    with pytest.raises(StoreError, match="there is no run 9; there are 2, 1"):
        merge(source, target, [9])


CHANGES = {
    "UPDATE metric SET value = 2 WHERE trial_id = 2 AND rank = 0": "metric",
    "DELETE FROM series WHERE trial_id = 2": "series",
    "UPDATE artifact SET content = x'00' WHERE trial_id = 2": "artifact",
    "UPDATE trial SET status = 'oom', wall_time_s = 9 WHERE id = 2": "status, wall",
    "UPDATE trial SET machine_id = NULL WHERE id = 2": "machine",
}


@pytest.mark.parametrize("change", CHANGES)
def test_conflict_is_named_and_writes_nothing(
    source: ResultStore, create: Create, begin: Begin, add: Add, change: str
) -> None:
    """Neither the run with the conflict nor the others, which come first."""
    target = create("target")
    merge(source, target, [1])
    with target.transaction() as session:
        session.execute(text(change))
    before = content(target)
    with pytest.raises(
        StoreError,
        match=r"run 1 of .*source\.db and run 1 of .*target\.db are the same run, but"
        rf" their trials at position 1, 2 and 2, differ in: {CHANGES[change]}",
    ):
        merge(source, target)
    assert content(target) == before


def test_database_is_not_merged_into_itself(source: ResultStore) -> None:
    with pytest.raises(StoreError, match="cannot be merged into itself"):
        merge(source, source)


def test_many_trials_come_in_batches(
    create: Create,
    begin: Begin,
    add: Add,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tlbench.db.merge.BATCH", 2)
    source, target = create("source"), create("target")
    run_id = begin(source)
    for position in (4, 0, 3, 1, 2):
        add(source, run_id, position, FULL)
    merge(source, target)
    assert content(target) == content(source)
    assert merge(source, target).trials == 0


def test_sources_are_only_read(source: ResultStore, create: Create) -> None:
    before: Any = content(source)
    with ResultStore.open(source.location, read_only=True) as reader:
        merge(reader, create("target"))
    assert content(source) == before


def test_what_came_is_counted_in_words(
    create: Create,
    begin: Begin,
    add: Add,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = create("one")
    add(source, begin(source), 0, FULL)
    words = ["db", "merge", source.location, "--db", str(tmp_path / "all.db")]
    app(words, standalone_mode=False)
    told = "1 run, 1 of them new; 1 new trial, 0 new calibrations"
    assert capsys.readouterr().out == f"{source.location}: {told}\n"


def test_a_missing_source_is_not_one_that_a_run_would_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = str(tmp_path / "a.db"), tmp_path / "all.db"
    words = ["tlbench", "db", "merge", source, "--db", str(target)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="1"):
        main()
    told = f"error: {source}: there is no database, or an empty one\n"
    assert capsys.readouterr().err == told
    assert not target.exists()
