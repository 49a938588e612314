"""`--data` and `--storage`: what a run is told of places, before anything starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from support.stored_runs import StoredRuns, case, speeds
from tlbench.cli import app, execution
from tlbench.cli.execution import Job
from tlbench.cli.options import with_data, with_storage
from tlbench.db.store import ResultStore
from tlbench.plan import FixedPlan
from tlbench.suites.loader import parse_suite
from tlbench.suites.spec import Trial

SUITE = "models: ViT-Ti/16\nmode: infer\nrepeats: 2\ndata: [mnist, digits]\n"


class StoppedError(Exception):
    """Stands for the run that would begin now."""


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE)
    return file


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials that a command would run; it stops where they would begin."""
    found: list[Trial] = []

    def stop(job: Job, store: object) -> None:
        assert isinstance(job.plan, FixedPlan)
        found.extend(job.plan.trials)
        raise StoppedError

    monkeypatch.setattr(execution, "execute", stop)
    return found


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., Any]:
    def call(*words: object) -> Any:
        location = str(tmp_path / "results.db")
        return CliRunner().invoke(app, [*map(str, words), "--db", location])

    return call


def test_a_run_tells_its_trials_where_data_lie(
    call: Callable[..., Any], planned: list[Trial], suite_file: Path, tmp_path: Path
) -> None:
    ended = call("run", suite_file, "--data", f"mnist={tmp_path}")
    assert isinstance(ended.exception, StoppedError)
    paths = {(trial.case.data, trial.data_path) for trial in planned}
    assert paths == {("mnist", str(tmp_path)), ("digits", None)}


def test_a_run_looks_into_the_folder_of_data_sets(
    call: Callable[..., Any],
    planned: list[Trial],
    suite_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "held/mnist").mkdir(parents=True)
    monkeypatch.setenv("TLBENCH_DATA", str(tmp_path / "held"))
    call("run", suite_file)
    assert str(tmp_path / "held/mnist") in {trial.data_path for trial in planned}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data mnist: nobody says where it lies; --data mnist=PATH would"),
        (["--data", "mnist=/nowhere"], "data mnist: there is nothing at /nowhere"),
        (["--data", "mnits=/"], "--data mnits: no case reads it from a path"),
    ],
)
def test_a_run_without_its_data_ends_before_it_begins(
    call: Callable[..., Any],
    planned: list[Trial],
    suite_file: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    ended = call("run", suite_file, *words)
    assert message in str(ended.exception)
    assert planned == []
    assert not (tmp_path / "results.db").exists()


def test_a_word_that_is_no_path_is_wrong_usage(
    call: Callable[..., Any], suite_file: Path
) -> None:
    ended = call("run", suite_file, "--data", "mnist")
    assert ended.exit_code == 2
    assert "'mnist' is not of the form NAME=PATH" in ended.output


def test_a_trial_is_repeated_on_data_that_have_moved(
    call: Callable[..., Any], planned: list[Trial], tmp_path: Path
) -> None:
    with ResultStore.open(str(tmp_path / "results.db"), create=True) as store:
        StoredRuns(store).add((case(data="mnist"), speeds(10.0, 11.0)))
    ended = call("repro", 1)
    assert "data mnist: nobody says where it lies" in str(ended.exception)
    call("repro", 1, "--data", f"mnist={tmp_path}")
    assert [trial.data_path for trial in planned] == [str(tmp_path)]


def test_data_of_a_comparison_are_for_its_extension(call: Callable[..., Any]) -> None:
    ended = call("compare", 1, 2, "--data", "mnist=/data")
    assert ended.exit_code == 2
    assert "goes with --extend only" in ended.output


def test_the_option_says_where_checkpoints_are_kept_ahead_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = parse_suite(SUITE + "storage: /kept\n", "suite.yaml")
    assert with_storage(suite, None).storage == "/kept"
    assert with_storage(suite, "mine").storage == str(tmp_path / "mine")
    assert with_storage(suite, "memory://mine").storage == "memory://mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert with_storage(suite, "~/kept").storage == str(tmp_path / "kept")


def test_a_storage_with_a_password_is_refused_before_it_is_stored(
    call: Callable[..., Any], suite_file: Path
) -> None:
    ended = call("run", suite_file, "--storage", "memory://me:secret@host/kept")
    assert ended.exit_code == 2
    assert "the URL holds a password" in ended.output
    assert "secret" not in ended.output


def test_a_storage_that_cannot_be_opened_is_wrong_usage(
    call: Callable[..., Any], suite_file: Path
) -> None:
    ended = call("run", suite_file, "--storage", "nosuch://folder")
    assert ended.exit_code == 2
    assert "nosuch" in ended.output


def test_a_suite_of_embedded_data_needs_no_path() -> None:
    suite = parse_suite("models: ViT-Ti/16\nmode: infer\ndata: digits\n", "suite.yaml")
    assert with_data(suite, None, is_here=True) == suite
