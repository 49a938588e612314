"""Tags, notes and deleting, on every kind of database."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select

from support.machine import MACHINE
from tlbench.db import models, query, upkeep
from tlbench.db.query import RunRecord
from tlbench.db.store import ResultStore, case_id
from tlbench.errors import StoreError
from tlbench.result import Artifact, Metric, Series, TrialResult
from tlbench.suites.spec import Case

Begin = Callable[..., int]
Add = Callable[..., int]

OTHER_MACHINE = replace(MACHINE, hostname="other")
RESULT = TrialResult(
    "ok",
    metrics=(Metric("macs", 1.0),),
    series=(Series("step_time_s", (1.0, 2.0)),),
    artifacts=(Artifact("log", "text/plain", b"log"),),
    machine=MACHINE,
)


def counts(store: ResultStore) -> dict[str, int]:
    with store.session() as session:
        return {
            table.__tablename__: session.scalar(select(func.count()).select_from(table))
            or 0
            for table in models.Base.__subclasses__()
        }


def record(store: ResultStore, run_id: int) -> RunRecord:
    with store.session() as session:
        return query.run(session, run_id)


@pytest.fixture
def ended(begin: Begin, add: Add) -> Callable[..., int]:
    """A run of one trial that has ended."""

    def ended(store: ResultStore, result: TrialResult = RESULT, **of: Case) -> int:
        run_id = begin(store)
        add(store, run_id, result=result, **of)
        store.end_run(run_id, "finished")
        return run_id

    return ended


class TestTags:
    def test_are_kept_once_and_in_order(self, store: ResultStore, begin: Begin) -> None:
        run_id, other = begin(store), begin(store)
        with store.transaction() as session:
            upkeep.add_tags(session, run_id, ["nightly", "base", "nightly"])
        with store.transaction() as session:
            assert upkeep.add_tags(session, run_id, ["base", "h100"]) == (
                *("base", "h100", "nightly"),
            )
        assert record(store, run_id).tags == ("base", "h100", "nightly")
        assert record(store, other).tags == ()

    def test_are_taken_off_all_or_none(self, store: ResultStore, begin: Begin) -> None:
        run_id = begin(store)
        with store.transaction() as session:
            upkeep.add_tags(session, run_id, ["a", "b"])
        with (
            pytest.raises(StoreError, match=r"no tag 'c'; it has a, b"),
            store.transaction() as session,
        ):
            upkeep.remove_tags(session, run_id, ["a", "c"])
        assert record(store, run_id).tags == ("a", "b")
        with store.transaction() as session:
            assert upkeep.remove_tags(session, run_id, ["a"]) == ("b",)
        assert record(store, run_id).tags == ("b",)

    @pytest.mark.parametrize("tag", ["", "two words", "a,b", "a=b", "a~b", "a<b"])
    def test_that_no_query_could_name_are_refused(
        self, store: ResultStore, begin: Begin, tag: str
    ) -> None:
        run_id = begin(store)
        with (
            pytest.raises(StoreError, match="cannot be a tag"),
            store.transaction() as session,
        ):
            upkeep.add_tags(session, run_id, ["fine", tag])
        assert record(store, run_id).tags == ()

    def test_need_a_run(self, store: ResultStore, begin: Begin) -> None:
        begin(store)
        with (
            pytest.raises(StoreError, match="there is no run 7; there are 1"),
            store.transaction() as session,
        ):
            upkeep.add_tags(session, 7, ["a"])


class TestNote:
    def test_replaces_the_one_before(self, store: ResultStore, begin: Begin) -> None:
        run_id, other = begin(store), begin(store)
        for note in ("first", "\u00e4 second\nline \0", ""):
            with store.transaction() as session:
                upkeep.set_note(session, run_id, note)
            assert record(store, run_id).note == note.replace("\0", "\\x00")
        assert record(store, other).note == ""

    def test_needs_a_run(self, store: ResultStore) -> None:
        with (
            pytest.raises(StoreError, match="there is no run 7; none is stored"),
            store.transaction() as session,
        ):
            upkeep.set_note(session, 7, "a")


class TestDelete:
    def test_leaves_nothing_of_the_only_run(
        self, store: ResultStore, ended: Callable[..., int]
    ) -> None:
        run_id = ended(store)
        with store.transaction() as session:
            upkeep.add_tags(session, run_id, ["a"])
        assert set(counts(store).values()) == {0, 1}
        with store.transaction() as session:
            upkeep.delete_runs(session, [run_id])
        assert set(counts(store).values()) == {0}

    def test_leaves_what_other_runs_and_calibrations_use(
        self, store: ResultStore, case: Case, ended: Callable[..., int]
    ) -> None:
        own = case.model_copy(update={"batch_size": 64})
        calibrated = replace(MACHINE, hostname="calibrated")
        kept = ended(store)
        first = ended(store)
        second = ended(store, replace(RESULT, machine=OTHER_MACHINE), of=own)
        third = ended(store, replace(RESULT, machine=calibrated))
        store.add_calibration(calibrated, [Metric("a_s", 1.0)], datetime.now(UTC))
        with store.transaction() as session:
            upkeep.delete_runs(session, [first, second, third, first])
        with store.session() as session:
            assert [run.id for run in query.runs(session)] == [kept]
            (trial,) = query.trials(session, [kept])
            assert (trial.case, trial.metrics) == (case, {"macs": 1.0})
            hosts = session.scalars(select(models.Machine.hostname))
            assert sorted(hosts) == sorted([MACHINE.hostname, "calibrated"])
        assert counts(store)["experiment_case"] == 1

    def test_refuses_all_where_one_run_goes_on(
        self, store: ResultStore, begin: Begin, ended: Callable[..., int]
    ) -> None:
        done, going_on = ended(store), begin(store)
        with (
            pytest.raises(StoreError, match=f"run {going_on} is marked running.*force"),
            store.transaction() as session,
        ):
            upkeep.delete_runs(session, [done, going_on])
        assert counts(store)["run"] == 2
        with store.transaction() as session:
            upkeep.delete_runs(session, [done, going_on], is_forced=True)
        assert counts(store)["run"] == 0

    def test_refuses_all_where_one_run_is_not_there(
        self, store: ResultStore, ended: Callable[..., int]
    ) -> None:
        run_id = ended(store)
        with (
            pytest.raises(StoreError, match="there is no run 9"),
            store.transaction() as session,
        ):
            upkeep.delete_runs(session, [run_id, 9])
        assert counts(store)["trial"] == 1

    def test_leaves_room_for_the_same_case_again(
        self, store: ResultStore, ended: Callable[..., int]
    ) -> None:
        with store.transaction() as session:
            upkeep.delete_runs(session, [ended(store)])
        run_id = ended(store)
        with store.session() as session:
            assert len(query.trials(session, [run_id])) == 1


def test_case_of_a_trial_on_its_way_is_not_deleted_on_a_server(
    postgresql: Callable[[], str], case: Case, begin: Begin, ended: Callable[..., int]
) -> None:
    """A driver has found its case, and has not stored the trial yet."""
    location = postgresql()
    with (
        ResultStore.open(location, create=True) as store,
        ResultStore.open(location) as driver,
    ):
        old, new = ended(store), begin(driver)
        with driver.transaction() as session:
            found = case_id(session, case)
            with store.transaction() as deleting:
                upkeep.delete_runs(deleting, [old])
            session.add(models.Trial(**trial_row(new, found)))
        assert counts(store)["experiment_case"] == 1
        with store.session() as session:
            assert len(query.trials(session, [new])) == 1


def trial_row(run_id: int, of_case: int) -> dict[str, object]:
    return {
        "run_id": run_id,
        "case_id": of_case,
        "model": "ViT",
        "repeat": 0,
        "position": 0,
        "seed": 0,
        "status": "ok",
        "started_at": datetime.now(UTC),
        "wall_time_s": 1.0,
        "attempts": 1,
        "nodes": [],
        "command": "",
        "notes": {},
        "doubts": [],
    }


def test_deleted_space_is_given_back(tmp_path: Path, ended: Callable[..., int]) -> None:
    file = tmp_path / "results.db"
    big = replace(RESULT, artifacts=(Artifact("log", "text/plain", bytes(2**20)),))
    with ResultStore.open(str(file), create=True) as store:
        kept, dropped = ended(store), ended(store, big)
        with store.transaction() as session:
            upkeep.delete_runs(session, [dropped])
        store.give_space_back()
    assert file.stat().st_size < 2**20
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT id FROM run").fetchall() == [(kept,)]


def test_space_is_not_given_back_under_a_driver(
    store: ResultStore, begin: Begin
) -> None:
    run_id = begin(store)
    with pytest.raises(StoreError, match=f"keeps its size, for run {run_id} is marked"):
        store.give_space_back()
