"""`tlbench trend` and `tlbench repro`: what they print, and how they end."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from support.machine import MACHINE
from support.stored_runs import THROUGHPUT, StoredRuns, case, speeds
from tlbench.cli import app
from tlbench.cli.execution import Done, Job
from tlbench.cli.options import STOPPED_BY_GATE, TROUBLE
from tlbench.db.store import ResultStore
from tlbench.errors import ReportError
from tlbench.events import Stored
from tlbench.plan import FixedPlan
from tlbench.result import Metric, TrialResult

PLAIN, LEARNED = case(), case("ViT-Ti/16+TL8@6")
WIGGLE = (1.0, 1.003, 0.998)
Call = Callable[..., Any]


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "results.db")


@pytest.fixture
def runs(location: str) -> Iterator[StoredRuns]:
    with ResultStore.open(location, create=True) as store:
        yield StoredRuns(store)


@pytest.fixture
def call(location: str) -> Call:
    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments, "--db", location])

    return call


def add_level(runs: StoredRuns, level: float, count: int, **options: Any) -> None:
    for number in range(count):
        trials = [level * WIGGLE[number % 3] * share for share in WIGGLE]
        runs.add((PLAIN, speeds(*trials)), **options)


# ---------------------------------------------------------------- trend


def test_a_step_down_stops_the_gate(runs: StoredRuns, call: Call) -> None:
    add_level(runs, 100.0, 8)
    add_level(runs, 94.0, 8)
    ended = call("trend", "ViT-Ti/16", "--fail-on", "worse")
    assert ended.exit_code == STOPPED_BY_GATE
    assert "run 9: worse, 0.940" in ended.output
    assert call("trend", "ViT-Ti/16").exit_code == 0


@pytest.mark.parametrize("level", [100.0, 106.0])
def test_a_gate_lets_through_what_is_no_worse(
    runs: StoredRuns, call: Call, level: float
) -> None:
    add_level(runs, 100.0, 8)
    add_level(runs, level, 8)
    assert call("trend", "ViT-Ti/16", "--fail-on", "worse").exit_code == 0


def test_a_slower_machine_is_not_blamed_on_the_code(
    runs: StoredRuns, call: Call
) -> None:
    add_level(runs, 100.0, 8)
    add_level(runs, 70.0, 8, machine=replace(MACHINE, gpu_driver="570"))
    ended = call("trend", "ViT-Ti/16", "--fail-on", "worse")
    assert ended.exit_code == 0
    assert "run 9: break, gpu_driver none -> 570" in ended.output
    ignored = call(
        *("trend", "ViT-Ti/16", "--fail-on", "worse", "--ignore", "gpu_driver")
    )
    assert ignored.exit_code == STOPPED_BY_GATE


def test_a_case_that_no_longer_runs_stops_the_gate(
    runs: StoredRuns, call: Call
) -> None:
    add_level(runs, 100.0, 2)
    runs.add((PLAIN, speeds(1.0)), failed={0: "oom"})
    assert call("trend", "mode=infer", "--fail-on", "worse").exit_code == 4


def test_a_model_has_a_series_for_each_case_and_json_has_all(
    runs: StoredRuns, call: Call
) -> None:
    other = case(batch_size=2)
    for _ in range(20):
        runs.add((PLAIN, speeds(100.0)), (other, speeds(50.0)))
    told = json.loads(call("trend", "ViT-Ti/16", "--json").output)
    assert [series["label"] for series in told] == [
        "ViT-Ti/16, batch 8",
        "ViT-Ti/16, batch 2",
    ]
    assert [len(series["points"]) for series in told] == [20, 20]
    assert {series["metric"] for series in told} == {THROUGHPUT}


@pytest.mark.usefixtures("runs")
def test_an_empty_database_is_told_what_fills_it(call: Call) -> None:
    ended = call("trend", "ViT-Ti/16")
    assert isinstance(ended.exception, ReportError)
    assert "tlbench run smoke" in str(ended.exception)


def test_lines_fit_a_narrow_terminal(
    runs: StoredRuns, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_level(runs, 100.0, 70)
    add_level(runs, 90.0, 60)
    monkeypatch.setattr("tlbench.console.PIPE_WIDTH", 80)
    lines = call("trend", "ViT-Ti/16").output.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("\N{FULL BLOCK}" in line for line in lines) == 1  # it is not wrapped


@pytest.mark.parametrize("command", [("trend", "ViT-Ti/16"), ("repro", "1")])
def test_a_verdict_that_there_is_not_is_wrong_usage(
    runs: StoredRuns, call: Call, command: tuple[str, str]
) -> None:
    add_level(runs, 100.0, 1)
    ended = call(*command, "--fail-on", "better")
    assert ended.exit_code == 2
    assert "'better' is not" in ended.output


# ---------------------------------------------------------------- repro


@pytest.fixture
def machine_does(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a made-up machine in the place of Ray: it measures what it is told."""

    def machine_does(*results: TrialResult) -> None:
        def execute(job: Job, store: ResultStore) -> Done:
            assert isinstance(job.plan, FixedPlan)
            trials = job.plan.trials
            run_id = store.begin_run(
                suite=job.suite, source="repro", command="", planned=len(trials)
            )
            stored: list[Any] = []
            for trial, result in zip(trials, results, strict=True):
                trial_id = store.add_trial(
                    run_id,
                    trial,
                    result,
                    started_at=store_time(),
                    wall_time_s=1.0,
                    command="",
                )
                stored.append(Stored(run_id, trial_id, None))  # type: ignore[arg-type]  # not read
            store.end_run(run_id, "finished")
            return Done(run_id, stored, True, len(trials), can_resume=True)

        monkeypatch.setattr("tlbench.cli.execution.execute", execute)

    return machine_does


def store_time() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def speed(value: float) -> TrialResult:
    return TrialResult("ok", metrics=(Metric(THROUGHPUT, value),), machine=MACHINE)


def test_a_trial_that_comes_out_the_same_agrees(
    runs: StoredRuns, call: Call, machine_does: Callable[..., None]
) -> None:
    add_level(runs, 100.0, 1)
    machine_does(speed(100.2), speed(99.9))
    ended = call("repro", "1", "--repeats", "2", "--fail-on", "differs", "--json")
    assert ended.exit_code == 0
    told = json.loads(ended.stdout)
    assert (told["verdict"], told["new_run"], told["differences"]) == ("agrees", 2, [])


def test_a_trial_that_comes_out_otherwise_stops_the_gate(
    runs: StoredRuns, call: Call, machine_does: Callable[..., None]
) -> None:
    add_level(runs, 100.0, 1)
    machine_does(speed(90.0))
    ended = call("repro", "2", "--fail-on", "differs")
    assert ended.exit_code == STOPPED_BY_GATE
    assert "trial 2 of run 1 beside run 2: differs" in ended.output
    assert call("trend", "ViT-Ti/16").output.count("throughput") == 1  # one series


def test_a_new_failure_is_trouble(
    runs: StoredRuns, call: Call, machine_does: Callable[..., None]
) -> None:
    add_level(runs, 100.0, 1)
    machine_does(TrialResult("oom", "no memory", machine=MACHINE))
    ended = call("repro", "1")
    assert ended.exit_code == TROUBLE
    assert "oom: no memory" in ended.output


def test_a_gate_on_what_is_open_also_stops_what_is_not(
    runs: StoredRuns, call: Call, machine_does: Callable[..., None]
) -> None:
    runs.add((PLAIN, speeds(100.0, 70.0)))
    machine_does(speed(90.0))
    assert call("repro", "1").exit_code == 0
    ended = call("repro", "1", "--fail-on", "inconclusive")
    assert ended.exit_code == STOPPED_BY_GATE
