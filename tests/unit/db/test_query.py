from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.orm import Session

from tlbench.db import models, query
from tlbench.db.store import ResultStore
from tlbench.errors import StoreError
from tlbench.machine import Machine
from tlbench.result import Artifact, Metric, Series, TrialResult
from tlbench.suites.names import parse_model
from tlbench.suites.spec import Case

Begin = Callable[..., int]
Add = Callable[..., int]

CPU_NODE = Machine(
    hostname="node1",
    os="Linux 6.1 x86_64",
    cpu_model="Some CPU",
    cpu_cores=64,
    memory_bytes=512 * 1024**3,
    gpu_name=None,
    gpu_count=0,
    gpu_memory_bytes=None,
    gpu_driver=None,
    python="3.11.7",
    versions={"torch": "2.14.1"},
    commit=None,
    is_dirty=None,
)
GPU_NODE = replace(CPU_NODE, hostname="node2", gpu_name="NVIDIA H100", gpu_count=1)
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FAILURE = TrialResult("timeout", reason="took longer than 1800 s")


def statements_of(session: Session, read: Callable[[], object]) -> int:
    """How many statements a read sends to the database."""
    sent: list[object] = []

    def count(*arguments: object) -> None:
        sent.append(arguments)

    engine = session.get_bind().engine
    event.listen(engine, "after_cursor_execute", count)
    try:
        read()
    finally:
        event.remove(engine, "after_cursor_execute", count)
    return len(sent)


class TestQuery:
    """What holds for every kind of database."""

    def test_runs_come_newest_first(self, store: ResultStore, begin: Begin) -> None:
        ids = [begin(store) for _ in range(3)]
        with store.session() as session:
            assert [run.id for run in query.runs(session)] == ids[::-1]
            assert [run.id for run in query.runs(session, limit=2)] == ids[:0:-1]

    def test_files_of_one_name_are_read_alone(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        run_id = begin(store)
        kinds = (("maps",), ("log",), ("log", "maps"))
        ids = [
            add(
                store,
                run_id,
                place,
                result=TrialResult(
                    "ok",
                    artifacts=tuple(
                        Artifact(name, "text/plain", f"{name} {place}".encode())
                        for name in names
                    ),
                ),
            )
            for place, names in enumerate(kinds)
        ]
        with store.session() as session:
            have = query.trials_with_artifact(session, ids, "maps")
            files = query.named_artifacts(session, ids[:2], "maps")
        assert have == {ids[0], ids[2]}
        assert files == {ids[0]: b"maps 0"}

    def test_run_counts_its_trials(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        counted, other = begin(store, planned=5), begin(store)
        add(store, counted, 0)
        add(store, counted, 1, result=FAILURE)
        add(store, counted, 2)
        add(store, other, 0)
        with store.session() as session:
            run = query.run(session, counted)
            (listed,) = (r for r in query.runs(session) if r.id == counted)
        assert (run.planned, run.finished, run.failed) == (5, 3, 1)
        assert listed == run

    def test_run_without_trials_counts_none(
        self, store: ResultStore, begin: Begin
    ) -> None:
        run_id = begin(store)
        with store.session() as session:
            run = query.run(session, run_id)
        assert (run.finished, run.failed) == (0, 0)

    def test_unknown_run_names_those_there_are(
        self, store: ResultStore, begin: Begin
    ) -> None:
        with store.session() as session:
            with pytest.raises(StoreError, match="no run 1; none is stored yet"):
                query.run(session, 1)
            for _ in range(2):
                begin(store)
        with store.session() as session:
            with pytest.raises(StoreError, match=r"there is no run 9; there are 2, 1$"):
                query.run(session, 9)
            for _ in range(10):
                begin(store)
        with (
            store.session() as session,
            pytest.raises(StoreError, match=r"12, 11, .*, 3, and older ones"),
        ):
            query.run(session, 99)

    def test_unknown_trial_names_those_there_are(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        trial_id = add(store, begin(store))
        with (
            store.session() as session,
            pytest.raises(StoreError, match=f"no trial 50; there are {trial_id}$"),
        ):
            query.trial(session, 50)

    def test_trials_come_in_the_order_of_their_run(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        first, second, other = (begin(store) for _ in range(3))
        for run_id, position in ((second, 1), (first, 2), (other, 0), (first, 0)):
            add(store, run_id, position)
        with store.session() as session:
            records = query.trials(session, [first, second])
            assert query.trials(session, []) == []
        order = [(record.run_id, record.position) for record in records]
        assert order == [(first, 0), (first, 2), (second, 1)]

    def test_trials_take_as_many_statements_for_one_as_for_many(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        result = TrialResult("ok", metrics=(Metric("loss", 1.0),), machine=CPU_NODE)
        one, many = begin(store), begin(store)
        add(store, one, result=result)
        for position in range(20):
            case = Case(
                model=parse_model("ViT-Ti/16"), mode="infer", batch_size=1 + position
            )
            add(store, many, position, result=result, of=case)
        with store.session() as session:
            query.runs(session)  # begins the transaction
            for_one = statements_of(session, lambda: query.trials(session, [one]))
            for_many = statements_of(session, lambda: query.trials(session, [many]))
        assert for_one == for_many == 2

    def test_machines_are_those_of_the_runs(
        self, store: ResultStore, begin: Begin, add: Add
    ) -> None:
        first, second = begin(store), begin(store)
        for position, machine in enumerate((GPU_NODE, CPU_NODE, GPU_NODE, None)):
            add(store, first, position, result=TrialResult("ok", machine=machine))
        add(store, second, result=TrialResult("ok", machine=CPU_NODE))
        with store.session() as session:
            of_first = query.machines(session, [first])
            of_second = query.machines(session, [second])
        assert [record.machine for record in of_first] == [GPU_NODE, CPU_NODE]
        assert [record.machine for record in of_second] == [CPU_NODE]

    def test_series_are_those_asked_for(
        self,
        store: ResultStore,
        begin: Begin,
        add: Add,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(query, "MAX_PARAMETERS", 2)  # in three parts
        run_id = begin(store)
        ids = [
            add(
                store,
                run_id,
                position,
                result=TrialResult(
                    "ok",
                    series=(
                        Series("latency_s", (float(position),)),
                        Series("latency_s", (9.0,), rank=0),
                        Series("loss", (1.0, 0.5)),
                    ),
                ),
            )
            for position in range(6)
        ]
        with store.session() as session:
            found = query.series(session, ids[:5], ["latency_s", "nowhere_s"])
        assert found == {
            (id_, "latency_s"): (float(i),) for i, id_ in enumerate(ids[:5])
        }

    def test_cases_are_those_of_the_runs_the_newest_first(
        self, store: ResultStore, begin: Begin, add: Add, case: Case
    ) -> None:
        """Each once in a run, however many trials it has there."""
        other = case.model_copy(update={"batch_size": 64})
        first, second = begin(store), begin(store)
        for position, of in enumerate((other, case, case)):
            add(store, first, position, of=of)
        add(store, second, of=case)
        with store.session() as session:
            found = query.cases(session)
            assert [(c.run_id, c.case) for c in found] == [
                *((second, case), (first, other), (first, case))
            ]
            assert found[0].identity == case.identity
            assert found[0].model == "ViT-Ti/16+TL8@6"
            assert [c.run_id for c in query.cases(session, [second])] == [second]

    def test_wall_times_are_of_good_trials_newest_first(
        self, store: ResultStore, begin: Begin, add: Add, case: Case
    ) -> None:
        other = case.model_copy(update={"batch_size": 64})
        never = case.model_copy(update={"batch_size": 128})
        run_id = begin(store)
        add(store, run_id, 1, wall_time_s=11.0)
        add(store, run_id, 0, wall_time_s=10.0)
        add(store, run_id, 2, wall_time_s=99.0, result=FAILURE)
        add(store, run_id, 3, wall_time_s=13.0, of=other)
        with store.session() as session:
            found = query.case_wall_times(
                session, [case.identity, other.identity, never.identity]
            )
        assert found == {case.identity: [11.0, 10.0], other.identity: [13.0]}

    def test_wall_times_are_of_the_same_hardware(
        self, store: ResultStore, begin: Begin, add: Add, case: Case
    ) -> None:
        run_id = begin(store)
        machines = (
            *(CPU_NODE, GPU_NODE, replace(CPU_NODE, hostname="node3"), None),
            replace(GPU_NODE, gpu_count=8),
        )
        for position, machine in enumerate(machines):
            result = TrialResult("ok", machine=machine)
            add(store, run_id, position, result=result, wall_time_s=float(position))
        with store.session() as session:
            found = query.case_wall_times(session, [case.identity], machine=CPU_NODE)
            of_gpu = query.case_wall_times(session, [case.identity], machine=GPU_NODE)
        assert found == {case.identity: [2.0, 0.0]}
        assert of_gpu == {case.identity: [4.0, 1.0]}  # a worker sees one of several

    def test_calibration_has_the_newest_value_of_each_name(
        self, store: ResultStore
    ) -> None:
        clock, rate = Metric("timer_s", 3e-8), Metric("copy_bytes_per_s", 1e10)
        unknown = Metric("copy_bytes_per_s", None, "no memory")
        store.add_calibration(CPU_NODE, [clock, rate], START + timedelta(days=2))
        store.add_calibration(CPU_NODE, [Metric("timer_s", 9.0)], START)
        store.add_calibration(CPU_NODE, [unknown], START + timedelta(days=3))
        with store.session() as session:
            found = query.calibration(session, CPU_NODE)
        assert found == {"timer_s": 3e-8, "copy_bytes_per_s": None}

    @pytest.mark.parametrize(
        "change",
        [
            {"hostname": "node9"},
            {"cpu_cores": 32},
            {"gpu_name": "NVIDIA A100"},
            {"versions": {"torch": "2.15.0"}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_calibration_is_of_this_host_and_this_torch(
        self, store: ResultStore, change: dict[str, Any]
    ) -> None:
        store.add_calibration(GPU_NODE, [Metric("timer_s", 3e-8)], START)
        with store.session() as session:
            assert query.calibration(session, replace(GPU_NODE, **change)) == {}

    def test_calibration_holds_for_any_number_of_equal_gpus(
        self, store: ResultStore
    ) -> None:
        store.add_calibration(GPU_NODE, [Metric("timer_s", 3e-8)], START)
        several = replace(GPU_NODE, gpu_count=8, commit="0123abc")
        with store.session() as session:
            assert query.calibration(session, several) == {"timer_s": 3e-8}

    def test_a_calibrated_value_that_is_no_number_has_a_reason(
        self, store: ResultStore
    ) -> None:
        store.add_calibration(CPU_NODE, [Metric("timer_s", float("inf"))], START)
        with store.session() as session:
            (row,) = session.query(models.Calibration).all()
            assert (row.value, row.reason) == (None, "the measured value is inf")

    def test_case_of_a_later_schema_is_refused_in_words(
        self, store: ResultStore, begin: Begin, add: Add, case: Case
    ) -> None:
        run_id = begin(store)
        trial_id = add(store, run_id)
        with store.session() as session:
            later = {**case.canonical(), "sparsity": 0.5}
            session.execute(update(models.ExperimentCase).values(canonical=later))
            with pytest.raises(
                StoreError, match=f"case of trial {trial_id} cannot be read.*sparsity"
            ):
                query.trials(session, [run_id])


def test_records_of_a_case_compare_equal_to_the_case_that_was_asked_for(
    tmp_path: Path, begin: Begin, add: Add
) -> None:
    """Whatever stands away from its default comes back from the canonical JSON."""
    case = Case.model_validate_json(
        """{"mode": "fit", "data": "digits", "batch_size": 12, "precision": "bf16",
        "model": {"name": "tiny", "patch_size": 4, "image_size": 32, "embed_dim": 48,
                  "depth": 4, "num_heads": 3, "mlp_dim": 96,
                  "token_learner": {"num_tokens": 8, "place": 2, "version": "v1",
                                    "pooling": "mean", "fuse": true}},
        "attention": "math", "compile": true, "device": "cpu",
        "parallelism": {"world_size": 2, "zero_stage": 1, "nodes": 2},
        "optimizer": {"learning_rate": 0.0001, "gradient_accumulation_steps": 3},
        "fit": {"epochs": 3, "target_top1_percent": 80}}"""
    )
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        trial_id = add(store, begin(store), of=case)
        with store.session() as session:
            record = query.trial(session, trial_id)
    assert record.case == case
    assert record.identity == case.identity == record.case.identity
