"""Files of other tools: what is read, in which unit, and what stays unknown.

`foreign/timm-*.csv` are rows of the results that timm publishes
(benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv and
benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv); `foreign/optimum.json` was written by
optimum-benchmark 0.6.0 on timm's test_vit.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
from sqlalchemy import text

from tlbench.db import query
from tlbench.db.foreign import read_foreign, store_foreign
from tlbench.db.foreign_records import ForeignTrial
from tlbench.db.merge import merge
from tlbench.db.query import CaseRecord
from tlbench.db.store import ResultStore
from tlbench.errors import StoreError

FILES = Path(__file__).parent / "foreign"
INFER, TRAIN = FILES / "timm-infer.csv", FILES / "timm-train.csv"
OPTIMUM = FILES / "optimum.json"


def metrics(trial: ForeignTrial) -> dict[str, float | None]:
    return {metric.name: metric.value for metric in trial.metrics}


def rows(store: ResultStore, statement: str) -> list[tuple[Any, ...]]:
    with store.session() as session:
        return [tuple(row) for row in session.execute(text(statement))]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        file = tmp_path / "results"
        file.write_text(content)
        return file

    return write


class TestTimm:
    def test_columns_get_our_names_and_base_units(self) -> None:
        """By hand: ViT-B/16 has 86.57 M parameters and 17.58 GMACs there."""
        run = read_foreign(INFER)
        trial = next(t for t in run.trials if t.case.model == "vit_base_patch16_224")
        assert metrics(trial) == pytest.approx(
            {
                "throughput_samples_per_s": 2787.15,
                "step_time_mean_s": 0.367372,
                "macs": 17.58e9,
                "activations": 23.9e6,
                "params": 86.57e6,
            }
        )
        case = trial.case
        assert (case.mode, case.image_size, case.batch_size) == ("infer", 224, 1024)

    def test_units_agree_with_each_other(self) -> None:
        """Batch over step time is the throughput: so the times are in ms.

        But for what lies between the steps, which only the throughput has.
        """
        for file in (INFER, TRAIN):
            for trial in read_foreign(file).trials:
                found = metrics(trial)
                assert trial.case.batch_size is not None
                assert found["step_time_mean_s"] is not None
                rate = trial.case.batch_size / found["step_time_mean_s"]
                assert rate == pytest.approx(
                    found["throughput_samples_per_s"], rel=0.01
                )

    def test_what_it_does_not_tell_is_unknown(self) -> None:
        run = read_foreign(TRAIN)
        trial = run.trials[0]
        assert (trial.case.mode, run.version) == ("train", "")
        told = trial.case
        assert (told.precision, told.device, told.world_size) == (None, None, None)
        assert (trial.machine, trial.seed) == (None, None)
        assert "macs" not in metrics(trial)  # a training has no such column

    def test_empty_cell_has_no_value_but_a_reason(
        self, write: Callable[[str], Path]
    ) -> None:
        """As its published file on an RTX 3090 has it."""
        file = write(
            "model,infer_img_size,infer_samples_per_sec,infer_step_time,"
            "infer_batch_size,param_count,infer_gmacs,infer_macts\n"
            "eva02_enormous_patch14_clip_224,224,,,,1132.46,497.58,4350.56\n"
        )
        (trial,) = read_foreign(file).trials
        assert metrics(trial)["throughput_samples_per_s"] is None
        assert metrics(trial)["params"] == pytest.approx(1132.46e6)
        assert trial.case.batch_size is None
        assert {m.name for m in trial.metrics if m.reason} == {
            "throughput_samples_per_s",
            "step_time_mean_s",
        }

    def test_both_modes_of_a_row_are_a_trial_each(
        self, write: Callable[[str], Path]
    ) -> None:
        row = {
            "model": "resnet50",
            "infer_samples_per_sec": 4.0,
            "infer_step_time": 500.0,
            "infer_batch_size": 2,
            "infer_img_size": 224,
            "infer_gmacs": 4.12,
            "train_samples_per_sec": 1.0,
            "train_step_time": 2000.0,
            "train_batch_size": 2,
            "train_img_size": 176,
            "param_count": 25.56,
        }
        infer, train = read_foreign(write(json.dumps(row))).trials
        assert (infer.case.mode, train.case.mode) == ("infer", "train")
        assert (infer.case.image_size, train.case.image_size) == (224, 176)
        assert metrics(train)["step_time_mean_s"] == 2.0
        assert metrics(train)["params"] == pytest.approx(25.56e6)
        assert "macs" not in metrics(train)

    def test_profile_is_no_inference(self, write: Callable[[str], Path]) -> None:
        row = {"model": "resnet50", "infer_gmacs": 4.12, "infer_batch_size": 1}
        (trial,) = read_foreign(write(json.dumps([row]))).trials
        assert trial.case.mode == "profile"

    def test_error_is_a_trial_that_failed(self, write: Callable[[str], Path]) -> None:
        first = {"model": "a", "infer_samples_per_sec": 4.0, "infer_batch_size": 2}
        both = {"train_samples_per_sec": 1.0, "train_batch_size": 2}
        content = [
            first | both,
            first | {"model": "b", "error": "CUDA out of memory. Tried"},
            {"model": "c", "error": "no such layer"},
        ]
        trials = read_foreign(write(json.dumps(content))).trials
        assert [(t.case.model, t.case.mode, t.status) for t in trials] == [
            ("a", "infer", "ok"),
            ("a", "train", "ok"),
            ("b", "infer", "ok"),
            ("b", "train", "oom"),
            ("c", "infer", "error"),
        ]
        assert trials[-1].reason == "no such layer"

    @pytest.mark.parametrize(
        ("cell", "problem"),
        [("fast", "'fast' is not a number"), ("nan", "'nan' is not finite")],
    )
    def test_cell_that_is_no_number_is_named(
        self, write: Callable[[str], Path], cell: str, problem: str
    ) -> None:
        file = write(f"model,infer_samples_per_sec\na,1\nb,{cell}\n")
        with pytest.raises(
            StoreError, match=f"row 2: infer_samples_per_sec: {problem}"
        ):
            read_foreign(file)

    def test_cell_without_a_column_is_named(self, write: Callable[[str], Path]) -> None:
        with pytest.raises(StoreError, match=r"row 1: \['9'\] stand in no column"):
            read_foreign(write("model,infer_samples_per_sec\na,1,9\n"))


class TestOptimum:
    def test_report_gets_our_names_and_base_units(self) -> None:
        content = json.loads(OPTIMUM.read_text())
        forward = content["report"]["forward"]
        (trial,) = read_foreign(OPTIMUM).trials
        times = forward["latency"]["values"]
        found = metrics(trial)
        assert trial.series[0].values == tuple(times)
        assert found["step_time_p50_s"] == pytest.approx(median(times))
        batch_size = content["config"]["scenario"]["input_shapes"]["batch_size"]
        assert found["throughput_samples_per_s"] == pytest.approx(
            batch_size / mean(times)
        )
        assert found["throughput_samples_per_s"] == pytest.approx(
            forward["throughput"]["value"]
        )
        assert found["peak_memory_host_rss_bytes"] == pytest.approx(
            1e6 * forward["memory"]["max_ram"]
        )

    def test_settings_and_machine_are_those_it_tells(self) -> None:
        run = read_foreign(OPTIMUM)
        (trial,) = run.trials
        environment = json.loads(OPTIMUM.read_text())["config"]["environment"]
        case, machine = trial.case, trial.machine
        assert (case.model, case.mode, case.image_size) == ("test_vit", "infer", 160)
        assert (case.precision, case.device, case.world_size) == ("fp32", "cpu", 1)
        assert run.version == environment["optimum_benchmark_version"] == "0.6.0"
        assert trial.seed == 42
        assert machine is not None
        assert machine.hostname == "unknown"
        assert machine.cpu_cores == environment["cpu_count"]
        assert machine.memory_bytes == round(environment["cpu_ram_mb"] * 1e6)

    def test_training_is_not_as_fast_as_its_report_says(
        self, write: Callable[[str], Path]
    ) -> None:
        """That divides the samples of all steps by the mean time of one."""
        content = json.loads(OPTIMUM.read_text())
        content["config"]["scenario"] = {
            "name": "training",
            "training_arguments": {
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 2,
            },
        }
        latency = content["report"]["forward"]["latency"]
        latency |= {"mean": 0.5, "values": [0.4, 0.6]}
        content["report"] = {
            "train": {"latency": latency, "throughput": {"value": 32.0}},
            "warmup": {"latency": latency | {"values": [3.0]}},
        }
        (trial,) = read_foreign(write(json.dumps(content))).trials
        assert (trial.case.mode, trial.case.batch_size) == ("train", 8)
        assert metrics(trial)["throughput_samples_per_s"] == 16.0
        assert trial.series[1].name == "warmup_step_time_s"

    def test_report_alone_takes_the_configuration_beside_it(
        self, tmp_path: Path
    ) -> None:
        whole = json.loads(OPTIMUM.read_text())
        report = tmp_path / "benchmark_report.json"
        report.write_text(json.dumps(whole["report"]))
        with pytest.raises(StoreError, match="does not say of which model"):
            read_foreign(report)
        config = tmp_path / "benchmark_config.json"
        config.write_text(json.dumps(whole["config"]))
        assert read_foreign(report).uid == read_foreign(OPTIMUM).uid

    def test_other_tasks_are_refused(self, write: Callable[[str], Path]) -> None:
        content = json.loads(OPTIMUM.read_text())
        content["report"] = {"prefill": {}, "decode": {}}
        with pytest.raises(StoreError, match="inference on prefill, decode has no"):
            read_foreign(write(json.dumps(content)))


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "[]", '{"model": 3}', "\0"])
def test_file_of_nobody_is_refused(write: Callable[[str], Path], content: str) -> None:
    with pytest.raises(StoreError, match="is not what timm or optimum-benchmark"):
        read_foreign(write(content))


def test_file_of_another_tool_is_refused() -> None:
    with pytest.raises(StoreError, match="is not what optimum-benchmark writes"):
        read_foreign(INFER, "optimum-benchmark")


def test_file_of_which_no_trial_comes_is_refused(write: Callable[[str], Path]) -> None:
    with pytest.raises(StoreError, match="no row of it has a result or an error"):
        read_foreign(write("model,error\nvit_base_patch16_224,\n"))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere: No such file"):
        read_foreign(tmp_path / "nowhere")


def test_stored_run_is_marked_and_unknown_is_null(store: ResultStore) -> None:
    run_id, is_new = store_foreign(
        store, read_foreign(INFER), command="tlbench db import", tags=["rtx4090"]
    )
    assert is_new
    with store.session() as session:
        run = query.run(session, run_id)
    assert (run.origin, run.source, run.status) == ("timm", INFER.name, "finished")
    assert (run.tags, run.finished, run.planned) == (("rtx4090",), 4, 4)
    unknown = "machine_id, seed, wall_time_s, validity, precision, device, world_size"
    found = rows(
        store, f"SELECT {unknown} FROM trial JOIN experiment_case c ON c.id = case_id"
    )
    assert set(found) == {(None,) * 7}
    count = "SELECT count(*) FROM metric WHERE name = 'macs'"
    with INFER.open() as file:
        assert rows(store, count) == [(len(list(csv.DictReader(file))),)]


@pytest.mark.parametrize("file", [INFER, OPTIMUM])
def test_importing_again_changes_nothing(
    store: ResultStore, tmp_path: Path, file: Path
) -> None:
    first = store_foreign(store, read_foreign(file), command="")
    copy = tmp_path / "another-name"
    copy.write_bytes(file.read_bytes())
    again = store_foreign(store, read_foreign(copy), command="")
    assert (first, again) == ((first[0], True), (first[0], False))
    assert rows(store, "SELECT count(*) FROM run") == [(1,)]


def test_merges_with_an_import_of_another_day(
    tmp_path: Path, store: ResultStore
) -> None:
    copy = tmp_path / "later.csv"
    copy.write_bytes(INFER.read_bytes())
    store_foreign(store, read_foreign(INFER), command="")
    with ResultStore.open(str(tmp_path / "other.db"), create=True) as other:
        store_foreign(other, read_foreign(copy), command="")
        merged = merge(other, store)
    assert (merged.new_runs, merged.trials) == (0, 0)


def test_records_of_our_cases_refuse_it(store: ResultStore) -> None:
    run_id, _ = store_foreign(store, read_foreign(INFER), command="")
    with store.session() as session:
        for read in (query.trials, query.cases):
            with pytest.raises(StoreError, match=f"run {run_id} was imported from"):
                read(session, [run_id])
        with pytest.raises(StoreError, match=f"run {run_id} was imported from"):
            query.trial(session, 1)
        everything: list[CaseRecord] = query.cases(session)
    assert everything == []


def test_the_newest_run_is_one_of_our_own(
    store: ResultStore, begin: Callable[..., int]
) -> None:
    own = begin(store)
    later = replace(read_foreign(INFER), measured_at=datetime(2999, 1, 1, tzinfo=UTC))
    store_foreign(store, later, command="")
    with store.session() as session:
        assert query.runs(session, limit=1)[0].id != own
        assert query.run_or_newest(session, None).id == own


def test_where_all_is_imported_the_newest_run_is_refused(store: ResultStore) -> None:
    store_foreign(store, read_foreign(INFER), command="")
    with (
        store.session() as session,
        pytest.raises(StoreError, match="run 1 was imported from another tool"),
    ):
        query.run_or_newest(session, None)
