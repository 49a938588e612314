import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import (
    Connection,
    bindparam,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy.engine import Engine
from sqlalchemy.exc import StatementError

from support import add_trials, drive_run
from support.add_trials import METRICS, STEPS
from tlbench.db import connection, migrations, models, query
from tlbench.db.check import check
from tlbench.db.connection import Location
from tlbench.db.store import ResultStore, upgrade
from tlbench.errors import StoreError
from tlbench.machine import Machine
from tlbench.result import Artifact, Metric, Series, TrialResult
from tlbench.suites.names import model_name
from tlbench.suites.spec import Case, Trial

Begin = Callable[..., int]
Add = Callable[..., int]

MACHINE = Machine(
    hostname="node1",
    os="Linux 6.1 x86_64",
    cpu_model="Some CPU",
    cpu_cores=64,
    memory_bytes=512 * 1024**3,
    gpu_name="NVIDIA H100 80GB HBM3",
    gpu_count=8,
    gpu_memory_bytes=80 * 1024**3,
    gpu_driver="550.54",
    python="3.11.7",
    versions={"torch": "2.14.1", "nccl": None},
    commit="abc1234",
    is_dirty=True,
)
FULL_RESULT = TrialResult(
    "ok",
    metrics=(
        Metric("params", 5_717_416.0),
        Metric("step_time_p50_s", 0.1 + 0.2),
        Metric("mfu", None, "no peak is known for this GPU"),
        Metric("step_time_p50_s", 0.25, rank=0),
        Metric("step_time_p50_s", 0.35, rank=1),
    ),
    series=(
        Series("step_time_s", (0.1 + 0.2, 1e-300, float("inf"))),
        Series("step_time_s", (1.0,), rank=1),
        Series("loss", ()),
    ),
    artifacts=(Artifact("log.txt", "text/plain", b"\x00\xffline\n"),),
    notes={"stopped_by": "interval", "warmup": "settled after 6 steps"},
    machine=MACHINE,
)


def count(store: ResultStore, table: type[models.Base]) -> int:
    with store.session() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def start_adding(
    location: str, run_id: int, start: int, stop: int
) -> subprocess.Popen[str]:
    program = Path(add_trials.__file__)
    numbers = (str(number) for number in (run_id, start, stop))
    command = (sys.executable, str(program), location, *numbers)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def with_one_more_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """A tlbench of tomorrow: its schema has a column more. Undo it for today's."""
    scripts = tmp_path / "migrations"
    shutil.copytree(migrations.SCRIPTS, scripts)
    (scripts / "versions" / "r9999_more.py").write_text(
        textwrap.dedent(
            f"""
            import sqlalchemy as sa
            from alembic import op

            revision = "9999"
            down_revision = "{migrations.head()}"

            def upgrade():
                how = "always" if op.get_bind().dialect.name == "sqlite" else "auto"
                with op.batch_alter_table("run", recreate=how) as table:
                    table.add_column(sa.Column("more", sa.Integer()))
            """
        )
    )
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "SCRIPTS", scripts)
        yield patch


class TestStore:
    """What holds for every kind of database."""

    def test_gives_back_the_whole_trial(
        self, store: ResultStore, case: Case, begin: Begin, add: Add
    ) -> None:
        run_id = begin(store)
        trial_id = add(store, run_id, position=2, result=FULL_RESULT)
        with store.session() as session:
            record = query.trial(session, trial_id)
            arrays = query.series(session, [trial_id], ["step_time_s", "loss"])
            of_ranks = query.rank_metrics(session, trial_id)
            files = query.artifacts(session, trial_id)
            (machine,) = query.machines(session, [run_id])
        assert (record.case, record.identity) == (case, case.identity)
        assert record.model == "ViT-Ti/16+TL8@6"
        assert (record.run_id, record.repeat, record.position) == (run_id, 2, 2)
        assert (record.seed, record.status) == (9, "ok")
        assert record.started_at == datetime(2026, 1, 2, 3, 6, 5, 678_901, tzinfo=UTC)
        assert (record.wall_time_s, record.command) == (1.5, "tlbench run --trial 2")
        assert record.notes == FULL_RESULT.notes
        assert record.metrics == {
            "params": 5_717_416.0,
            "step_time_p50_s": 0.1 + 0.2,
            "mfu": None,
        }
        assert record.reasons == {"mfu": "no peak is known for this GPU"}
        assert arrays == {
            (trial_id, "step_time_s"): (0.1 + 0.2, 1e-300, float("inf")),
            (trial_id, "loss"): (),
        }
        assert [(metric.rank, metric.value) for metric in of_ranks] == [
            (0, 0.25),
            (1, 0.35),
        ]
        assert files == list(FULL_RESULT.artifacts)
        assert (machine.id, machine.machine) == (record.machine_id, MACHINE)

    def test_keeps_a_failure_with_its_reason_and_traceback(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        result = TrialResult("oom", reason="out of memory", traceback="File ...")
        trial_id = add(store, begin(store), result=result)
        with store.session() as session:
            record = query.trial(session, trial_id)
        assert (record.status, record.reason) == ("oom", "out of memory")
        assert (record.traceback, record.machine_id) == ("File ...", None)
        assert (record.metrics, record.reasons) == ({}, {})

    def test_a_run_begins_and_ends(self, store: ResultStore, begin: Begin) -> None:
        before = datetime.now(UTC)
        run_id = begin(store, planned=6)
        with store.session() as session:
            running = query.run(session, run_id)
        assert (running.status, running.ended_at) == ("running", None)
        assert before <= running.started_at <= datetime.now(UTC)
        assert (running.suite, running.source) == ("small", "small.yaml")
        assert (running.planned, running.suite_json["seed"]) == (6, 0)
        store.end_run(run_id, "interrupted")
        with store.session() as session:
            ended = query.run(session, run_id)
        assert ended.status == "interrupted"
        assert ended.ended_at is not None
        assert ended.ended_at >= running.started_at

    def test_a_plan_may_change_while_its_run_goes_on(
        self, store: ResultStore, begin: Begin
    ) -> None:
        run_id = begin(store, planned=6)
        store.replan(run_id, 9)
        with store.session() as session:
            record = query.run(session, run_id)
        assert (record.planned, record.status) == (9, "running")

    def test_registers_a_case_and_a_machine_once(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        result = TrialResult("ok", machine=MACHINE)
        for run_id in (begin(store), begin(store)):
            add(store, run_id, position=0, result=result)
            add(store, run_id, position=1, result=result)
        updated = TrialResult("ok", machine=replace(MACHINE, gpu_driver="560.1"))
        add(store, run_id, position=2, result=updated)
        assert count(store, models.ExperimentCase) == 1
        assert count(store, models.Machine) == 2

    def test_a_model_is_called_what_its_own_run_called_it(
        self, store: ResultStore, case: Case, begin: Begin, add: Add
    ) -> None:
        model = case.model.model_copy(update={"embed_dim": 96, "mlp_dim": 100})
        names = ("first", "second", None)
        cases = [
            case.model_copy(update={"model": model.model_copy(update={"name": name})})
            for name in names
        ]
        run_id = begin(store)
        for position, named in enumerate(cases):
            add(store, run_id, position=position, of=named)
        with store.session() as session:
            records = query.trials(session, [run_id])
        assert [record.case.model.name for record in records] == list(names)
        assert len({record.identity for record in records}) == 1
        assert [record.model for record in records] == [
            model_name(named.model) for named in cases
        ]
        assert all(record.model == model_name(record.case.model) for record in records)

    def test_refuses_a_second_trial_at_the_same_place(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        run_id = begin(store)
        first = add(store, run_id, position=1)
        with pytest.raises(StoreError, match=f"position 1, trial {first}"):
            add(store, run_id, position=1, wall_time_s=2.5)
        assert count(store, models.Trial) == 1

    def test_storing_a_trial_twice_stores_it_once(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        """The answer to the first time may have been lost with the connection."""
        run_id = begin(store)
        first = add(store, run_id, result=FULL_RESULT)
        assert add(store, run_id, result=FULL_RESULT) == first
        assert count(store, models.Trial) == 1

    def test_refuses_an_unknown_run(self, store: ResultStore, add: Add) -> None:
        with pytest.raises(StoreError, match="has no run 7"):
            add(store, 7)
        with pytest.raises(StoreError, match="has no run 7"):
            store.end_run(7, "finished")

    def test_stores_nothing_of_a_trial_that_cannot_be_stored_whole(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        run_id = begin(store)
        twice = (Metric("loss", 1.0), Metric("loss", 2.0))
        with pytest.raises(StoreError, match="metric"):
            add(store, run_id, result=replace(FULL_RESULT, metrics=twice))
        for table in (models.Trial, models.Metric, models.Series, models.Machine):
            assert count(store, table) == 0
        add(store, run_id, result=FULL_RESULT)  # and goes on

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_a_metric_that_is_no_number_has_a_reason_instead(
        self, store: ResultStore, begin: Begin, add: Add, value: float
    ) -> None:
        result = TrialResult("nan", "loss is nan", metrics=(Metric("loss", value),))
        trial_id = add(store, begin(store), result=result)
        with store.session() as session:
            record = query.trial(session, trial_id)
        assert record.metrics == {"loss": None}
        assert record.reasons == {"loss": f"the measured value is {value}"}

    def test_takes_any_text_from_outside(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        result = TrialResult(
            "error", reason="bad \0 name \udcff", traceback="\u00e4\u4e2d"
        )
        trial_id = add(store, begin(store), result=result)
        with store.session() as session:
            record = query.trial(session, trial_id)
        assert (record.reason, record.traceback) == (
            "bad \\x00 name \\udcff",
            "\u00e4\u4e2d",
        )

    def test_keeps_times_as_utc(
        self, store: ResultStore, case: Case, begin: Begin
    ) -> None:
        local = datetime(2026, 7, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
        trial_id = store.add_trial(
            begin(store),
            Trial(case, 0, 0, 0),
            TrialResult("ok"),
            started_at=local,
            wall_time_s=1.0,
            command="",
        )
        with store.session() as session:
            stored = query.trial(session, trial_id).started_at
        assert stored.isoformat() == "2026-06-30T23:30:00+00:00"

    def test_refuses_a_time_without_a_zone(
        self, store: ResultStore, case: Case, begin: Begin
    ) -> None:
        with pytest.raises(StatementError, match="has no time zone"):
            store.add_trial(
                begin(store),
                Trial(case, 0, 0, 0),
                TrialResult("ok"),
                started_at=datetime(2026, 7, 1),
                wall_time_s=1.0,
                command="",
            )

    def test_two_processes_lose_nothing(
        self, store: ResultStore, location: str, begin: Begin
    ) -> None:
        run_id = begin(store)
        processes = [
            start_adding(location, run_id, start, start + 40) for start in (0, 100)
        ]
        for process in processes:
            process.communicate(timeout=60)
        assert [process.returncode for process in processes] == [0, 0]
        with store.session() as session:
            records = query.trials(session, [run_id])
        expected = [*range(40), *range(100, 140)]
        assert [record.position for record in records] == expected
        assert count(store, models.ExperimentCase) == 1

    def test_runs_of_four_drivers_are_all_there(
        self, store: ResultStore, location: str
    ) -> None:
        trials, program = 12, Path(drive_run.__file__)
        command = (sys.executable, str(program), location, str(trials))
        drivers = [
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(program.parents[1])},
            )
            for _ in range(4)
        ]
        told = [driver.communicate(timeout=120) for driver in drivers]
        assert [err for _, err in told] == [b""] * 4
        assert [driver.returncode for driver in drivers] == [0] * 4
        run_ids = sorted(int(out.split()[0]) for out, _ in told)
        with store.session() as session:
            runs = query.runs(session)
            stored = query.trials(session, run_ids)
            arrays = query.series(session, [t.id for t in stored], ["step_time_s"])
        assert sorted(run.id for run in runs) == run_ids
        assert {(run.status, run.finished) for run in runs} == {("finished", trials)}
        assert len({run.uid for run in runs}) == 4
        assert [(t.run_id, t.position) for t in stored] == [
            (run_id, position) for run_id in run_ids for position in range(trials)
        ]
        assert {len(trial.metrics) for trial in stored} == {METRICS}
        assert [len(values) for values in arrays.values()] == [STEPS] * 4 * trials
        assert count(store, models.ExperimentCase) == 1

    def test_kill_leaves_whole_trials_only(
        self, store: ResultStore, location: str, begin: Begin
    ) -> None:
        run_id = begin(store)
        process = start_adding(location, run_id, 0, 100_000)
        assert process.stdout is not None
        reported = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        reported += [int(line) for line in process.stdout]
        process.stdout.close()
        process.wait(timeout=10)
        with ResultStore.open(location) as reopened, reopened.session() as session:
            records = query.trials(session, [run_id])
            ids = [record.id for record in records]
            arrays = query.series(session, ids, ["step_time_s"])
        # The one that was being stored may be there, but then it is whole.
        assert len(records) - len(reported) in (0, 1)
        assert {len(record.metrics) for record in records} == {METRICS}
        assert {len(values) for values in arrays.values()} == {STEPS}
        assert len(arrays) == len(records)

    def test_opens_again_with_what_was_stored(
        self, store: ResultStore, location: str, begin: Begin, add: Add
    ) -> None:
        add(store, begin(store))
        store.close()
        for options in ({}, {"create": True}, {"read_only": True}):
            with ResultStore.open(location, **options) as reopened:
                assert count(reopened, models.Trial) == 1

    def test_does_not_write_when_opened_for_reading(
        self, store: ResultStore, location: str, begin: Begin
    ) -> None:
        with (
            ResultStore.open(location, read_only=True) as reader,
            pytest.raises(StoreError, match="opened for reading only"),
        ):
            begin(reader)

    def test_migrated_schema_is_that_of_the_models(self, store: ResultStore) -> None:
        with store.session() as session:
            context = MigrationContext.configure(
                session.connection(), opts={"version_table": migrations.VERSION_TABLE}
            )
            assert compare_metadata(context, models.Base.metadata) == []

    def test_refuses_the_tables_of_something_else(self, location: str) -> None:
        url = Location.parse(location).url
        engine = create_engine(url)
        with engine.begin() as foreign:
            foreign.execute(text("CREATE TABLE trial (id INTEGER)"))
        for options in ({}, {"create": True}, {"read_only": True}):
            with pytest.raises(StoreError, match=r"not a database of tlbench.* trial"):
                ResultStore.open(location, **options)
        with pytest.raises(StoreError, match="not a database of tlbench"):
            upgrade(location)
        engine.dispose()

    def test_upgrade_brings_an_older_database_to_the_new_schema(
        self,
        store: ResultStore,
        location: str,
        begin: Begin,
        add: Add,
        request: pytest.FixtureRequest,
    ) -> None:
        today = migrations.head()
        trial_id = add(store, begin(store), result=FULL_RESULT)
        store.close()
        request.getfixturevalue("with_one_more_revision")
        with pytest.raises(
            StoreError, match=f"schema {today}.*tlbench db upgrade --db"
        ):
            ResultStore.open(location)
        assert upgrade(location) == (today, "9999")
        assert upgrade(location) == ("9999", "9999")
        with ResultStore.open(location) as upgraded, upgraded.session() as session:
            assert session.scalar(text("SELECT count(more) FROM run")) == 0
            # Copying a table must not delete the rows that refer to it.
            assert query.trial(session, trial_id).metrics["params"] == 5_717_416.0

    def test_refuses_a_newer_schema(
        self, location: str, with_one_more_revision: pytest.MonkeyPatch
    ) -> None:
        ResultStore.open(location, create=True).close()
        with_one_more_revision.undo()
        for options in ({}, {"create": True}, {"read_only": True}):
            with pytest.raises(
                StoreError, match=r"'9999' of a newer tlbench.*pip install"
            ):
                ResultStore.open(location, **options)
        with pytest.raises(StoreError, match="'9999' of a newer tlbench"):
            upgrade(location)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where an SQLite file can be created."""
    return tmp_path / "results.db"


REVISIONS = Path(__file__).parent / "revisions"
"""A database of each earlier revision as a tlbench of its time made it, as SQL."""
JUDGED: dict[str, list[str | None]] = {
    "0001": [None, None, None, None, None],
    "0002": [None, None, "invalid", "suspect", "suspect", "suspect", None],
    "0003": [None, "invalid", None, "valid"],
}
"""The validity of the trials in them, by position; 0001 knew none."""


def test_every_earlier_revision_has_its_database() -> None:
    made = {file.stem for file in REVISIONS.glob("*.sql")}
    assert made == migrations.known() - {migrations.head()}


@pytest.mark.parametrize("revision", sorted(migrations.known() - {migrations.head()}))
def test_results_of_an_earlier_revision_outlive_the_upgrade(
    file: Path, revision: str
) -> None:
    _restore(file, revision)
    with closing(sqlite3.connect(file)) as older:
        names = [
            name
            for (name,) in older.execute("SELECT name FROM sqlite_master")
            if not name.startswith(("sqlite_", "ix_"))
        ]
        rows = {name: _rows(older, name) for name in names}
    assert upgrade(str(file)) == (revision, migrations.head())
    assert {item.state for item in check(str(file))} == {"sound"}
    with closing(sqlite3.connect(file)) as newer:
        for name in set(names) - {migrations.VERSION_TABLE}:
            pairs = zip(_rows(newer, name), rows[name], strict=True)
            for now, before in pairs:
                assert {column: now[column] for column in before} == before
    with ResultStore.open(str(file)) as store, store.session() as session:
        (run,) = query.runs(session)
        trials = query.trials(session, [run.id])
    assert [trial.validity for trial in trials] == JUDGED[revision]
    doubted = [judged in ("suspect", "invalid") for judged in JUDGED[revision]]
    assert [bool(trial.doubts) for trial in trials] == doubted
    assert {trial.status for trial in trials} == {"ok", "skipped"}
    assert (run.origin, run.ended_by, run.tags, run.note) == (None, None, (), "")
    assert re.fullmatch("[0-9a-f]{32}", run.uid)


def test_upgrade_keeps_what_only_0002_had(file: Path) -> None:
    _restore(file, "0002")
    upgrade(str(file))
    with ResultStore.open(str(file)) as store, store.session() as session:
        (machine,) = query.machines(session, [1])
        calibrated = query.calibration(session, machine.machine)
        trials = query.trials(session, [1])
    assert len(calibrated) == 12
    assert calibrated["matmul_fp32_flops_per_s"] == 20_312_875_023.7816
    assert calibrated["matmul_tf32_flops_per_s"] is None
    assert [t.position for t in trials if t.case.batch_size == "max"] == [2, 4]
    assert trials[4].doubts[0] == "the warm-up did not settle in 21 steps"


def _restore(file: Path, revision: str) -> None:
    with closing(sqlite3.connect(file)) as older:
        older.executescript((REVISIONS / f"{revision}.sql").read_text())


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_copies_of_a_database_agree_on_its_runs_after_their_upgrades(
    tmp_path: Path, revision: str
) -> None:
    found = []
    for name in ("one.db", "other.db"):
        _restore(tmp_path / name, revision)
        upgrade(str(tmp_path / name))
        with ResultStore.open(str(tmp_path / name)) as store, store.session() as opened:
            found.append([run.uid for run in query.runs(opened)])
    assert found[0] == found[1]


def test_upgrade_on_a_server_names_the_runs_as_that_of_a_file_does(
    tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    uids: list[str] = []
    for location in (str(tmp_path / "file.db"), postgresql(), postgresql()):
        engine = create_engine(Location.parse(location).url)
        with engine.begin() as connection:
            zone = ("UTC", "Asia/Tokyo")[len(uids) % 2]  # as its server has it
            if engine.dialect.name == "postgresql":
                name = connection.engine.url.database
                connection.execute(text(f"ALTER DATABASE {name} SET timezone='{zone}'"))
        with engine.begin() as connection:
            _upgrade_to(connection, "0002")
            connection.execute(OLD_RUN, {"began": START_OF_OLD_RUN})
        engine.dispose()
        upgrade(location)
        with ResultStore.open(location) as store, store.session() as session:
            uids.append(query.run(session, 1).uid)
    assert len(set(uids)) == 1


START_OF_OLD_RUN = datetime(2026, 1, 2, 23, 4, 5, 678_901, tzinfo=UTC)
OLD_RUN = text(
    "INSERT INTO run (id, suite, description, suite_json, source, command, status,"
    " planned, started_at, version) VALUES (1, 'tiny', '', '{}', 'tiny.yaml',"
    " 'tlbench run', 'finished', 0, :began, '0.1')"
).bindparams(bindparam("began", type_=models.UtcDateTime))


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.SCRIPTS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _rows(database: sqlite3.Connection, table: str) -> list[dict[str, object]]:
    database.row_factory = sqlite3.Row
    return [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY 1")]


def test_missing_file_is_only_made_when_asked_for(file: Path) -> None:
    for options in ({}, {"read_only": True}):
        with pytest.raises(StoreError, match=r"there is no database .*results\.db"):
            ResultStore.open(str(file), **options)
    with pytest.raises(StoreError, match="there is no database"):
        upgrade(str(file))
    assert not file.exists()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere"):
        ResultStore.open(str(tmp_path / "nowhere" / "results.db"), create=True)


def test_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        ResultStore.open(str(tmp_path), create=True)


def test_pipe_is_no_database(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="is a pipe or a device"):
        ResultStore.open(str(tmp_path / "pipe"), create=True)


@pytest.mark.parametrize("content", [b"x", b"SQLite format 2\0", b"text " * 100])
def test_file_of_another_kind_is_left_as_it_is(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(StoreError, match="is not an SQLite database"):
        ResultStore.open(str(file), create=True)
    assert file.read_bytes() == content


def test_damaged_file_is_called_damaged_and_left_as_it_is(file: Path) -> None:
    content = connection.SQLITE_MAGIC + b"\xff" * 4096
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"not an SQLite database|damaged"):
        ResultStore.open(str(file), create=True)
    assert file.read_bytes() == content


def test_empty_file_is_only_filled_when_asked_for(file: Path) -> None:
    file.touch()
    for options in ({}, {"read_only": True}):
        with pytest.raises(StoreError, match="is empty"):
            ResultStore.open(str(file), **options)
    with pytest.raises(StoreError, match="is empty"):
        upgrade(str(file))
    assert file.stat().st_size == 0
    ResultStore.open(str(file), create=True).close()
    ResultStore.open(str(file)).close()


def test_database_of_something_else_keeps_its_bytes(file: Path) -> None:
    with closing(sqlite3.connect(file)) as foreign:
        foreign.execute("CREATE TABLE songs (title)")
    content = file.read_bytes()
    with pytest.raises(StoreError, match="tables songs"):
        ResultStore.open(str(file), create=True)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    "name", ["a b.db", "50%20.db", "what?x=1.db", "a#b.db", "\u00e4.db"]
)
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    ResultStore.open(str(tmp_path / name), create=True).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    ResultStore.open(str(tmp_path / name), read_only=True).close()


def test_sqlite_url_names_the_same_file(file: Path) -> None:
    ResultStore.open(f"sqlite:///{file}", create=True).close()
    ResultStore.open(str(file)).close()


def test_relative_path_stays_with_the_folder_it_was_opened_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Begin
) -> None:
    monkeypatch.chdir(tmp_path)
    with ResultStore.open("results.db", create=True) as store:
        monkeypatch.chdir("/")
        begin(store)
    assert (tmp_path / "results.db").exists()


def test_reader_and_writer_work_side_by_side(
    file: Path, begin: Begin, add: Add
) -> None:
    with ResultStore.open(str(file), create=True) as writer:
        run_id = begin(writer)
        with ResultStore.open(str(file), read_only=True) as reader:
            with reader.session() as session:
                assert query.trials(session, [run_id]) == []
                add(writer, run_id)  # while the reader reads
                assert query.trials(session, [run_id]) == []
            assert count(reader, models.Trial) == 1


def test_close_leaves_one_file(file: Path, begin: Begin) -> None:
    with ResultStore.open(str(file), create=True) as store:
        begin(store)
    with ResultStore.open(str(file), read_only=True) as reader:
        assert count(reader, models.Run) == 1
    assert list(file.parent.iterdir()) == [file]


def test_close_does_not_wait_for_a_reader(
    file: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlbench.db.store.CLOSING_TIMEOUT_S", 0.1)
    store = ResultStore.open(str(file), create=True)
    with ResultStore.open(str(file), read_only=True) as reader:
        with reader.session() as session:
            query.runs(session)
            run_id = begin(store)
            start = time.perf_counter()
            store.close()
            assert time.perf_counter() - start < 5
        with reader.session() as session:
            assert query.run(session, run_id).id == run_id


def test_foreign_keys_are_enforced(file: Path, begin: Begin, add: Add) -> None:
    with ResultStore.open(str(file), create=True) as store, store.session() as session:
        add(store, begin(store), result=FULL_RESULT)
        session.execute(text("DELETE FROM run"))
        left = session.scalar(select(func.count()).select_from(models.Metric))
    assert left == 0


def test_two_processes_may_create_the_same_file(file: Path) -> None:
    script = (
        "import sys; from tlbench.db.store import ResultStore;"
        "sys.stdin.read(); ResultStore.open(sys.argv[1], create=True).close()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(file)], stdin=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0]
    with ResultStore.open(str(file)) as store:
        assert count(store, models.Run) == 0


def test_full_disk_is_called_that_and_loses_nothing(
    file: Path, begin: Begin, add: Add
) -> None:
    def limit_size(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA max_page_count = 60")  # as a full disk answers

    ResultStore.open(str(file), create=True).close()
    event.listen(Engine, "connect", limit_size)
    try:
        with ResultStore.open(str(file)) as store:
            run_id = begin(store)
            add(store, run_id, position=0)
            big = replace(
                FULL_RESULT, artifacts=(Artifact("log", "text/plain", bytes(500_000)),)
            )
            with pytest.raises(StoreError, match=r"results\.db: the disk is full"):
                add(store, run_id, position=1, result=big)
            assert count(store, models.Trial) == 1
            add(store, run_id, position=1)
    finally:
        event.remove(Engine, "connect", limit_size)


def test_locked_database_is_called_that(
    file: Path, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.05)
    with (
        ResultStore.open(str(file), create=True) as store,
        closing(sqlite3.connect(file, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process keeps it locked"):
            begin(store)
        other.execute("ROLLBACK")
        begin(store)


def as_ordinary_user(action: Callable[[], None]) -> None:
    """Run in a process that file permissions hold for; root's do not."""
    with tempfile.TemporaryDirectory() as public:
        # An ordinary user may not enter root's environment, where the revisions lie.
        scripts = shutil.copytree(migrations.SCRIPTS, Path(public, "migrations"))
        Path(public).chmod(0o755)
        assert _exit_code_of(action, scripts) == 0


def _exit_code_of(action: Callable[[], None], scripts: Path) -> int:
    child = os.fork()
    if child == 0:
        try:
            migrations.SCRIPTS = scripts
            if os.getuid() == 0:
                os.setuid(65_534)
            action()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.fixture
def read_only_file(begin: Begin) -> Iterator[Path]:
    """A database with one run, in a folder where nothing can be written."""
    # Not tmp_path, whose parents an ordinary user may not even enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "results.db"
        with ResultStore.open(str(file), create=True) as store:
            begin(store)
        file.chmod(0o444)
        folder.chmod(0o555)
        yield file
        folder.chmod(0o755)


def test_file_in_a_read_only_folder_can_be_read(read_only_file: Path) -> None:
    def read() -> None:
        with ResultStore.open(str(read_only_file), read_only=True) as store:
            assert count(store, models.Run) == 1

    as_ordinary_user(read)


def test_file_in_a_read_only_folder_cannot_be_opened_for_writing(
    read_only_file: Path,
) -> None:
    def write() -> None:
        with pytest.raises(StoreError, match="read-only"):
            ResultStore.open(str(read_only_file))

    as_ordinary_user(write)


def test_log_of_a_killed_writer_is_read_in_a_read_only_folder(
    begin: Begin, add: Add
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ResultStore.open(str(folder / "live.db"), create=True) as store:
            add(store, begin(store))
            for file in folder.iterdir():  # as they lie while the writer works
                copy = folder / file.name.replace("live", "killed")
                shutil.copyfile(file, copy)
                copy.chmod(0o444)
        folder.chmod(0o555)

        def read() -> None:
            place = str(folder / "killed.db")
            with ResultStore.open(place, read_only=True) as killed:
                assert count(killed, models.Trial) == 1

        as_ordinary_user(read)
        folder.chmod(0o755)


def test_file_of_another_user_is_refused_in_words(read_only_file: Path) -> None:
    read_only_file.chmod(0o000)

    def read() -> None:
        with pytest.raises(StoreError, match="Permission denied"):
            ResultStore.open(str(read_only_file), read_only=True)

    as_ordinary_user(read)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret@localhost:port/name",
        "mysql://user:s3cret@localhost/name",
        "postgresql+asyncpg://user:s3cret@localhost/name",
        "postgresql://user:s3cret@localhost:1/name",
        "postgresql://user@localhost:1/name?password=s3cret",
        "sqlite://user:s3cret@host/file.db?x=s3cret",
    ],
)
def test_password_never_shows(url: str) -> None:
    with pytest.raises(StoreError) as raised:
        ResultStore.open(url)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://host:port/name", "cannot be parsed"),
        ("mysql://host/name", "'mysql' is not one of sqlite"),
        ("sqlite://", "need a plain file"),
        ("sqlite:///:memory:", "need a plain file"),
        ("sqlite:///results.db?mode=ro", "need a plain file"),
    ],
)
def test_url_of_another_kind_is_refused(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        ResultStore.open(url, create=True)


def test_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"driver psycopg is missing.*pip install"):
        ResultStore.open("postgresql://localhost/name")


ASK_FOR_LOCK = """
import fcntl, sys
SHARED_FIRST, SHARED_SIZE = 0x40000002, 510  # of SQLite's file format
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
    except OSError:
        sys.exit("locked")
"""


def test_a_look_at_the_file_leaves_the_locks_of_an_open_store(file: Path) -> None:
    """Without them another process takes the log away, and damages the file."""
    with ResultStore.open(str(file), create=True) as store, store.session() as session:
        assert query.runs(session) == []
        connection.Location.parse(str(file)).check("write")
        assert connection.is_database(file)
        asked = subprocess.run(
            [sys.executable, "-c", ASK_FOR_LOCK, str(file)],
            capture_output=True,
            check=False,
        )
    assert asked.stderr == b"locked\n"
