"""`tlbench run` as a user runs it: processes, a local Ray, a database, a report."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch

from tlbench.db import query
from tlbench.db.query import RunRecord, TrialRecord
from tlbench.db.store import ResultStore

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TLBENCH = Path(sys.executable).parent / "tlbench"
DB = "results.db"
TIMEOUT_S = 240
WORKER = "ray::Worker.run"
"""What Ray calls a process of ours while it measures."""

MODEL = {
    "name": "tiny",
    "image_size": 8,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 32,
}
QUICK = {"max_time_s": 0.3}
ENDLESS = {"target": 1e-9, "min_steps": 1_000_000, "max_steps": 1_000_000}
"""Timing whose steps go on for many minutes."""


class Ended(NamedTuple):
    """A run that is over."""

    folder: Path
    code: int
    out: str
    err: str

    @property
    def record(self) -> RunRecord:
        with (
            ResultStore.open(str(self.folder / DB), read_only=True) as store,
            store.session() as session,
        ):
            (record,) = query.runs(session)
        return record

    @property
    def trials(self) -> list[TrialRecord]:
        with (
            ResultStore.open(str(self.folder / DB), read_only=True) as store,
            store.session() as session,
        ):
            return query.trials(session, [self.record.id])


class Command:
    """A `tlbench run` that goes on, in a session of its own as on a terminal."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [TLBENCH, "run", *words],
            cwd=folder,
            env=os.environ | {"TLBENCH_DB": DB},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait_for_worker(self, besides: int | None = None) -> psutil.Process:
        """The process that measures now, once there is one; not that of `besides`."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for process in self.descendants():
                if process.pid != besides and _title(process).startswith(WORKER):
                    return process
            time.sleep(0.05)
        raise AssertionError(f"no worker came up: {self.wait()}")

    def wait(self) -> Ended:
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        return Ended(self.folder, self.process.returncode, out, err)


class Run(Command):
    """The same of a suite."""

    def __init__(self, folder: Path, suite: dict[str, Any], *options: str) -> None:
        # JSON is YAML.
        (folder / "suite.yaml").write_text(json.dumps(suite))
        super().__init__(folder, "suite.yaml", *options)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""  # it is gone


@pytest.fixture(scope="module")
def make_folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], Path]:
    """A folder with packages of a user's own that are called like folders of ours."""

    def make_folder() -> Path:
        folder = tmp_path_factory.mktemp("project")
        for name in ("db", "harness", "reports", "suites"):
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(
                f"raise ImportError('{name} of the user was imported')"
            )
        return folder

    return make_folder


@pytest.fixture(scope="module")
def whole(make_folder: Callable[[], Path]) -> Ended:
    """A run of everything that can be asked for and of two things that cannot."""
    suite = {
        "models": [MODEL],
        "data": "digits",
        "batch_size": 12,
        "repeats": 1,
        "seed": 40,
        "timing": QUICK,
        "fit": {"epochs": 1},
        "include": [
            {"mode": ["profile", "infer", "train", "fit"]},
            {
                "mode": "train",
                "parallelism": [
                    {"world_size": 2, "zero_stage": 0},
                    {"world_size": 2, "zero_stage": 2},
                ],
            },
            {"mode": "infer", "parallelism": {"world_size": 2}},
            {"mode": "infer", "parallelism": {"world_size": 3, "nodes": 3}},
            {"mode": "infer", "device": "cuda"},
        ],
    }
    return Run(make_folder(), suite, "--report", "report.html").wait()


def chosen(ended: Ended, **wanted: object) -> list[TrialRecord]:
    """The trials whose case has these settings, on one node of any device."""
    return [
        trial
        for trial in ended.trials
        if trial.case.parallelism.nodes == 1
        and trial.case.device == "auto"
        and all(
            getattr(trial.case, name, getattr(trial.case.parallelism, name, None))
            == value
            for name, value in wanted.items()
        )
    ]


def test_a_run_ends_with_everything_stored(whole: Ended) -> None:
    assert whole.code == 0, whole.err
    assert whole.record.status == "finished"
    assert whole.record.planned == whole.record.finished == 9
    for trial in chosen(whole):
        assert (trial.status, trial.reason) == ("ok", None)
        assert trial.machine_id is not None


def test_a_run_prints_a_line_a_trial_and_then_its_summary(whole: Ended) -> None:
    lines = whole.err.splitlines()
    assert lines[0] == "suite: 9 trials, results go to results.db"
    assert [line.partition(" ")[0] for line in lines[1:10]] == [
        f"{number}/9" for number in range(1, 10)
    ]
    assert "tiny" in whole.out
    assert "\x1b" not in whole.out + whole.err


def test_a_run_writes_its_report(whole: Ended) -> None:
    assert "report: report.html" in whole.out
    assert "tiny" in (whole.folder / "report.html").read_text()


def test_the_log_of_the_database_is_gone_after_a_run(whole: Ended) -> None:
    assert [path.name for path in whole.folder.glob(f"{DB}*")] == [DB]


def test_modes_bring_what_they_are_for(whole: Ended) -> None:
    metrics = {trial.case.mode: trial.metrics for trial in chosen(whole, world_size=1)}
    assert metrics["profile"]["counter_macs"] == metrics["profile"]["macs"]
    for mode in ("infer", "train"):
        throughput = metrics[mode]["throughput_samples_per_s"]
        step_time_s = metrics[mode]["step_time_p50_s"]
        assert throughput is not None
        assert step_time_s is not None
        assert throughput == pytest.approx(12 / step_time_s)
    assert metrics["infer"]["latency_p50_s"] is not None
    assert metrics["fit"]["n_eval"] == 355


@pytest.mark.parametrize(
    ("mode", "zero_stage"), [("train", 0), ("train", 2), ("infer", 0)]
)
def test_two_ranks_keep_their_values_beside_those_of_the_job(
    whole: Ended, mode: str, zero_stage: int
) -> None:
    (trial,) = chosen(whole, mode=mode, world_size=2, zero_stage=zero_stage)
    with (
        ResultStore.open(str(whole.folder / DB), read_only=True) as store,
        store.session() as session,
    ):
        of_ranks = query.rank_metrics(session, trial.id)
    peaks = {
        m.rank: m.value for m in of_ranks if m.name == "peak_memory_host_rss_bytes"
    }
    assert peaks.keys() == {0, 1}
    job = trial.metrics["peak_memory_host_rss_bytes"]
    assert job is not None
    assert job in peaks.values()
    assert all(peak is not None and peak <= job for peak in peaks.values())


def test_two_ranks_train_on_the_same_batch_as_one(whole: Ended) -> None:
    """The loss after the same number of steps does not depend on the sharding."""
    for trial in chosen(whole, mode="train"):
        loss = trial.metrics["loss"]
        assert loss is not None
        assert 0 < loss < 2.31  # ln 10: the classifier starts at zero


def test_more_nodes_than_there_are_is_skipped_with_the_reason(whole: Ended) -> None:
    (trial,) = (t for t in whole.trials if t.case.parallelism.nodes == 3)
    assert trial.status == "skipped"
    assert trial.reason is not None
    assert trial.reason.startswith("needs 3 x cpu on 3 node(s); the cluster has a node")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_where_there_is_none_is_skipped_with_the_reason(whole: Ended) -> None:
    (trial,) = (t for t in whole.trials if t.case.device == "cuda")
    assert trial.status == "skipped"
    assert trial.reason is not None
    assert trial.reason.startswith(
        "needs 1 x cuda on 1 node(s); the cluster has a node"
    )


def test_the_stored_command_repeats_a_trial(
    whole: Ended, make_folder: Callable[[], Path]
) -> None:
    (original,) = chosen(whole, mode="infer", world_size=1)
    folder = make_folder()
    path = f"{TLBENCH.parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        original.command,
        shell=True,
        cwd=folder,
        env=os.environ | {"TLBENCH_DB": DB, "PATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    again = Ended(folder, ended.returncode, ended.stdout, ended.stderr)
    assert again.code == 0, again.err
    (trial,) = again.trials
    assert trial.identity == original.identity
    assert trial.seed == original.seed == 40
    assert trial.metrics["params"] == original.metrics["params"]


@pytest.fixture(scope="module")
def killed(make_folder: Callable[[], Path]) -> Ended:
    """The first worker of three is killed while it measures."""
    suite = {
        "models": [MODEL],
        "mode": "infer",
        "data": "digits",
        "repeats": 3,
        "retry": {"lost": 0},
        # Long enough to be killed in, and no longer.
        "timing": {"target": 1e-9, "max_steps": 1_000_000, "max_time_s": 4},
    }
    run = Run(make_folder(), suite)
    run.wait_for_worker().kill()
    return run.wait()


def test_a_killed_worker_is_lost_with_its_reason(killed: Ended) -> None:
    trial = killed.trials[0]
    assert trial.status == "lost"
    expected = "its process died: killed, crashed, or out of host memory"
    assert trial.reason == expected
    assert trial.traceback is not None


def test_the_rest_of_the_run_is_complete_after_a_killed_worker(killed: Ended) -> None:
    assert killed.code == 3, killed.err
    assert killed.record.status == "finished"
    assert [trial.status for trial in killed.trials[1:]] == ["ok", "ok"]
    assert f"lost: {killed.trials[0].reason}" in killed.err


def test_a_run_whose_driver_was_killed_goes_on_where_it_was(
    make_folder: Callable[[], Path],
) -> None:
    suite = {
        "models": [MODEL],
        "mode": ["profile", "infer"],
        "data": "digits",
        "repeats": {"infer": 2},
        "timing": {"target": 1e-9, "max_steps": 1_000_000, "max_time_s": 4},
    }
    run = Run(make_folder(), suite)
    profile = run.wait_for_worker()
    run.wait_for_worker(besides=profile.pid)
    refused = Command(run.folder, "--resume").wait()
    assert refused.code == 1
    assert f"goes on: process {run.process.pid} on" in refused.err
    descendants = run.descendants()
    run.process.kill()
    run.process.communicate()
    _, alive = psutil.wait_procs(descendants, timeout=180)  # agents of Ray look seldom
    assert [process.name() for process in alive] == []
    resumed = Command(run.folder, "--resume").wait()
    assert resumed.code == 0, resumed.err
    assert "run 1 goes on, 2 of 3 trials missing" in resumed.err
    assert resumed.record.status == "finished"
    assert [(t.position, t.status) for t in resumed.trials] == [
        (0, "ok"),
        (1, "ok"),
        (2, "ok"),
    ]
    again = Command(run.folder, "--resume").wait()
    assert (again.code, again.err) == (
        1,
        "error: no run lacks a trial: there is nothing to resume\n",
    )


def test_a_rehearsal_goes_the_whole_way_and_measures_nothing(
    make_folder: Callable[[], Path],
) -> None:
    spread = [{"world_size": 1}, {"world_size": 2}]
    suite = {"models": [MODEL], "mode": "infer", "repeats": 1, "parallelism": spread}
    ended = Run(make_folder(), suite, "--rehearse", "0").wait()
    assert ended.code == 0, ended.err
    for trial in ended.trials:
        assert (trial.status, trial.reason) == ("skipped", "rehearsed only")
        assert trial.metrics == {}
        assert trial.machine_id is not None
        told = trial.notes["rehearsed_on"].split("; ")
        assert len(told) in (1, trial.case.parallelism.world_size)


class Interrupted(NamedTuple):
    """A run that was ended from outside, and what of it still lives."""

    ended: Ended
    alive: list[psutil.Process]


@pytest.fixture(scope="module", params=["Ctrl-C", "kill"])
def interrupted(
    make_folder: Callable[[], Path], request: pytest.FixtureRequest
) -> Iterator[Interrupted]:
    """Ended in the third trial; the second took longer than it may."""
    suite = {
        "models": [MODEL],
        "mode": ["profile", "infer"],
        "data": "digits",
        "repeats": {"infer": 3},
        "timing": ENDLESS,
        "trial_timeout_s": 15,
    }
    run = Run(make_folder(), suite)
    profile = run.wait_for_worker()
    slow = run.wait_for_worker(besides=profile.pid)
    slow.wait(TIMEOUT_S)
    run.wait_for_worker(besides=slow.pid)
    descendants = run.descendants()
    if request.param == "Ctrl-C":
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
    else:
        run.process.terminate()
    ended = run.wait()
    _, alive = psutil.wait_procs(descendants, timeout=10)
    yield Interrupted(ended, alive)
    for process in alive:
        process.kill()


def test_a_trial_over_its_time_is_a_timeout(interrupted: Interrupted) -> None:
    trial = interrupted.ended.trials[1]
    assert (trial.status, trial.reason) == ("timeout", "not finished after 15 s")
    assert trial.traceback is not None
    assert "Thread 0x" in trial.traceback  # where it was
    assert "in run_rank" in trial.traceback
    assert "log_files" in trial.notes
    assert 15 <= trial.wall_time_s < 60


def test_a_run_that_is_ended_keeps_what_is_finished(interrupted: Interrupted) -> None:
    ended = interrupted.ended
    assert ended.code == 130, ended.err
    assert [trial.status for trial in ended.trials] == ["ok", "timeout"]
    assert ended.record.status == "interrupted"
    assert ended.record.ended_at is not None
    last = "interrupted: 2 of 4 trials are kept; `tlbench run --resume 1` goes on"
    assert ended.err.splitlines()[-1] == last
    assert "Traceback" not in ended.err
    assert "SIGTERM" not in ended.err


def test_a_run_that_is_ended_leaves_no_process_behind(interrupted: Interrupted) -> None:
    assert [process.name() for process in interrupted.alive] == []
